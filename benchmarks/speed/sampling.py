"""Sampling of codes: with a KV cache, without, by GPT-2 of the same size, and by the masked prior.

A clip is one second of speech at 8 kHz as preset small codes it: 31 columns of eight codes. No clip
ends early. Guidance, the default of `generate` for models with labels, doubles the batch; only rows
named "guided" use it.
"""

from __future__ import annotations

import tempfile
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
from benchmarks.speed.comparison import Row, Run, against, compare
from benchmarks.speed.limits import bandwidth, device
from benchmarks.speed.startup import process

VOCABULARY = Vocabulary(512, 1, rows=8, num_levels=64, max_columns=31)
SECONDS = 31 * 4 * 64 / 8000
"""Duration of a clip."""
LENGTH = 1 + 8 * 31
BATCHES = 1, 16, 256
PLAIN = SamplingConfig(guidance=0)
GUIDED = SamplingConfig()
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


def endless(prior: Transformer) -> Transformer:
    """`prior` on the device, changed so that it never samples END."""
    with torch.no_grad():
        prior.head.bias[VOCABULARY.end] = -1e4
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
    """A function that samples codes by the masked prior of preset small, in the default steps."""
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


def gpt2(batch: int) -> Run:
    """A function that samples by transformers' GPT-2 of equal width, layers and heads, with its cache."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = PRESETS["small"].prior
    settings = GPT2Config(
        vocab_size=VOCABULARY.size,
        n_positions=LENGTH + 1,
        n_embd=config.dim,
        n_layer=config.layers,
        n_head=config.heads,
        eos_token_id=None,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(settings)
    model = model.to(device()).eval()
    start = torch.zeros(batch, 1, dtype=torch.long, device=device())
    how = {"do_sample": True, "temperature": 0.8, "top_k": 0, "use_cache": True}
    lengths = {"min_new_tokens": LENGTH, "max_new_tokens": LENGTH}
    return lambda: model.generate(
        start, attention_mask=torch.ones_like(start), pad_token_id=0, **how, **lengths
    )


def run_generate() -> None:
    """Run `audiovq generate` with the bundled model: from process start to the last of 16 WAVs."""
    with tempfile.TemporaryDirectory() as folder:
        process("-m", "audiovq", "generate", "digits", str(Path(folder) / "out"), "-n", "16")


def rows() -> Iterator[Row]:
    """Seconds of audio per second; then the comparisons."""
    config = PRESETS["small"].prior
    torch.manual_seed(0)
    prior = endless(Transformer(config, VOCABULARY, (10,)))
    on_gpu = device().type == "cuda"
    runs = {batch: sampler(prior, batch) for batch in BATCHES}
    for batch, run in runs.items():
        wanted = {256: 1000.0}.get(batch) if on_gpu else {16: 60.0}.get(batch)
        peer = "duration of the audio"
        yield against(f"sampling, {batch} × 1 s", peer, batch * SECONDS, run, wanted, rounds=2)
    if on_gpu:
        single = endless(WithoutGraphs(config, VOCABULARY, (10,)))
        name, other = f"sampling, {BATCHES[-1]} × 1 s", "the same without CUDA graphs"
        yield compare(name, other, runs[BATCHES[-1]], sampler(single, BATCHES[-1]))
    # For every token, all weights are read, and the KV cache of all earlier tokens.
    weights = 4 * sum(p.numel() for p in prior.parameters())
    cache = 4 * 2 * config.layers * config.dim * 16 * (LENGTH + 1) / 2
    limit = LENGTH * (weights + cache) / bandwidth()
    name = "sampling, 16 × 1 s"
    yield against(name, "memory bandwidth", limit, runs[16], rounds=2)
    other = "the whole network for every code"
    least, masked_least = (None, None) if on_gpu else (30, 3)
    yield compare(name, other, runs[16], uncached(prior), least, rounds=3)
    guided = sampler(prior, 16, GUIDED), uncached(prior, GUIDED)
    yield compare(f"{name}, guided", other, *guided, least, rounds=2)
    order = "the autoregressive prior, cached"
    yield compare("masked prior, 16 × 1 s", order, masked(16), runs[16], masked_least)
    yield against("audiovq generate, 16 sounds, whole process", "5 s", 5, run_generate, rounds=2)
    yield compare(name, "transformers' GPT-2", runs[16], gpt2(16), rounds=2)
