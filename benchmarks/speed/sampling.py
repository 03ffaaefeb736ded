"""Sampling of codes: with a KV cache, without, by GPT-2 of the same size, and by the masked prior.

A clip is one second of speech at 8 kHz as preset small codes it: 31 columns of eight codes. No clip
ends early. Guidance, the default of `generate` for models with labels, doubles the batch; only rows
named "guided" use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiovq.config.presets import PRESETS
from audiovq.config.sampling import SamplingConfig
from audiovq.generation.inpaint import sample_masked_autocast
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masking import MaskedClips
from audiovq.models.priors.sampling import sample
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer
from benchmarks.speed.comparison import ALONE, ONE_CORE, Peer, Row, Run, compare
from benchmarks.speed.limits import bandwidth, device

VOCABULARY = Vocabulary(512, 1, rows=8, num_levels=64, max_columns=31)
SECONDS = 31 * 4 * 64 / 8000
"""Duration of a clip."""
WIDE = Vocabulary(512, 1, rows=16, num_levels=64, max_columns=22)
WIDE_SECONDS = 22 * 4 * 512 / 44_100
"""Clips of 128 bands at 44.1 kHz."""
SMALL = PRESETS["small"].prior
LENGTH = 1 + 8 * 31
BATCHES = 1, 16, 256
PLAIN = SamplingConfig(guidance=0)
GUIDED = SamplingConfig(guidance=1)
"""The defaults of `generate`."""


class WithoutGraphs(Transformer):
    """A transformer that is not recorded as a CUDA graph."""

    step_at: Any = None


class Uncached(Transformer):
    """A transformer that runs over all tokens so far for every code."""

    labels: Tensor
    """(batch, labels): condition of the samples."""

    step_at: Any = None

    def step(self, tokens: Tensor, position: int, condition: Tensor, caches: Any) -> Tensor:
        logits: Tensor = self(tokens[:, : position + 1], self.labels)[:, position]
        return logits


def endless(prior: Transformer, vocabulary: Vocabulary = VOCABULARY) -> Transformer:
    """`prior` on the device, changed so that it never samples END."""
    with torch.no_grad():
        prior.head.bias[vocabulary.end] = -1e4
    return prior.to(device()).eval()


def labels(batch: int) -> Tensor:
    """Labels (batch, 1)."""
    return (torch.arange(batch)[:, None] % 10).to(device())


def sampler(prior: Prior, batch: int, config: SamplingConfig = PLAIN) -> Run:
    """A function that samples the tokens of `batch` clips."""
    return lambda: sample(prior, labels(batch), config, torch.Generator().manual_seed(0))


def uncached(prior: Transformer, config: SamplingConfig = PLAIN) -> Run:
    """A function that samples 16 clips by a prior of the same weights without a cache."""
    made = Uncached(prior.config, VOCABULARY, (10,))
    made.load_state_dict(prior.state_dict())
    made.labels = labels(16)
    if config.guidance:
        made.labels = torch.cat([made.labels, prior.open_labels(16)])
    return sampler(endless(made), 16, config)


def masked(batch: int) -> Run:
    """A function that samples codes by the masked prior of preset small, in two steps, as parts of sounds are sampled."""
    config = PRESETS["small"].masked
    torch.manual_seed(0)
    prior = MaskedPrior(config, VOCABULARY, (10,)).to(device()).eval()
    shape = batch, 1, VOCABULARY.rows, VOCABULARY.max_columns
    codes = torch.zeros(shape, dtype=torch.long, device=device())
    canvas = MaskedClips(
        codes,
        torch.ones_like(codes, dtype=torch.bool),
        num_columns=torch.full((batch,), VOCABULARY.max_columns, device=device()),
        levels=torch.zeros_like(labels(batch)[:, 0]),
        labels=labels(batch),
        whole=torch.ones_like(labels(batch), dtype=torch.bool).expand(-1, 2),
    )
    return lambda: sample_masked_autocast(prior, canvas, PLAIN, torch.Generator().manual_seed(0))


def gpt2(vocabulary: Vocabulary, batch: int) -> Run:
    """A function that samples by transformers' GPT-2 of equal width, layers and heads, with its cache."""
    from transformers import GPT2Config, GPT2LMHeadModel

    length = 1 + vocabulary.rows * vocabulary.max_columns
    settings = GPT2Config(
        vocab_size=vocabulary.size,
        n_positions=length + 1,
        n_embd=SMALL.dim,
        n_layer=SMALL.layers,
        n_head=SMALL.heads,
        eos_token_id=None,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(settings)
    model = model.to(device()).eval()
    start = torch.zeros(batch, 1, dtype=torch.long, device=device())
    how = {"do_sample": True, "temperature": 0.8, "top_k": 0, "use_cache": True}
    lengths = {"min_new_tokens": length, "max_new_tokens": length}
    return lambda: model.generate(
        start, attention_mask=torch.ones_like(start), pad_token_id=0, **how, **lengths
    )


def rows(sounds: Path | None = None) -> Iterator[Row]:
    """Speech at 8 kHz: seconds of audio per second, and the comparisons; then hits at 44.1 kHz."""
    on_gpu = device().type == "cuda"
    for batch in BATCHES:
        wanted = 1000.0 if on_gpu and batch == BATCHES[-1] else None
        wanted = 60.0 if batch == 16 and not on_gpu else wanted
        where = ALONE if on_gpu else ONE_CORE
        prior = endless(Transformer(SMALL, VOCABULARY, (10,)))
        peers = [Peer("duration of the audio", batch * SECONDS, wanted, where)]
        if batch == 16:
            peers += [*peers_of_16(prior), Peer("transformers' GPT-2", gpt2(VOCABULARY, 16))]
        if on_gpu and batch == BATCHES[-1]:
            single = endless(WithoutGraphs(SMALL, VOCABULARY, (10,)))
            peers.append(Peer("the same without CUDA graphs", sampler(single, batch)))
        name = f"sampling, {batch} × 1 s at 8,000 Hz"
        yield from compare(name, sampler(prior, batch), *peers, rounds=2)
    prior = endless(Transformer(SMALL, VOCABULARY, (10,)))
    slow = Peer("the whole network for every code", uncached(prior, GUIDED), once=True)
    name = "sampling, 16 × 1 s at 8,000 Hz"
    yield from compare(f"{name}, guided", sampler(prior, 16, GUIDED), slow, under=[ALONE])
    least = None if on_gpu else 3
    order = Peer("the autoregressive prior, cached", sampler(prior, 16), least)
    yield from compare(name.replace("sampling", "masked prior"), masked(16), order)
    wide = endless(Transformer(SMALL, WIDE, (10,)), WIDE)
    peers = [Peer("duration of the audio", 16 * WIDE_SECONDS)]
    peers += [Peer("transformers' GPT-2", gpt2(WIDE, 16), once=True)]
    name = f"sampling, 16 × {WIDE_SECONDS:.0f} s at 44,100 Hz"
    yield from compare(name, sampler(wide, 16), *peers, rounds=1)


def peers_of_16(prior: Transformer) -> list[Peer]:
    """The memory traffic of 16 clips, and the same prior without a cache."""
    # For every token, all weights are read, and the KV cache of all earlier tokens.
    weights = 4 * sum(p.numel() for p in prior.parameters())
    cache = 4 * 2 * SMALL.layers * SMALL.dim * 16 * (LENGTH + 1) / 2
    least = None if device().type == "cuda" else 30
    other = "the whole network for every code"
    return [
        bandwidth(LENGTH * (weights + cache)),
        Peer(other, uncached(prior), least, once=True),
    ]
