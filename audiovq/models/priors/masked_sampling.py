"""Sampling from the masked prior: some columns at a time, and the codes of a column from low to high.

`sampling` samples from the autoregressive priors.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from audiovq.config.sampling import STEPS_OF_PART, SamplingConfig, Settled
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masking import MaskedClips, unmask_schedule
from audiovq.models.priors.sampling import sample_categorical
from audiovq.runtime.threads import tuned

ATTACK_COLUMNS = 3
"""First columns of a sound that `smooth` leaves as they were sampled: they decide what it is, and a mean of several
attacks is none."""


@torch.inference_mode()
def sample_masked(
    prior: MaskedPrior,
    clips: MaskedClips,
    config: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """The clips' codes (batch, quantizers, rows, columns), with the masked ones sampled.

    Each of `config.steps` steps (None: STEPS_OF_PART) samples some of the masked columns (see `unmask_schedule`), given the
    unmasked codes and those sampled before; then `smooth` sweeps over them `config.sweeps` times. `generator` must be on
    the CPU.
    """
    vocabulary, device = prior.vocabulary, clips.codes.device
    sampled = mask = clips.hidden & clips.valid[:, None, None]
    settled, steps = config.settled(), config.steps or STEPS_OF_PART
    schedule = unmask_schedule(mask.any(dim=2).any(dim=1).cpu(), steps)
    used = sorted(set(schedule.flatten().tolist()) - {-1})  # of short sounds some steps are empty
    schedule = schedule.to(device)
    uniform = torch.rand(*schedule.shape, vocabulary.slots, 1, generator=generator).to(device)
    for step in used:
        now = schedule == step
        codes = _fill(prior, replace(clips, hidden=mask), now, settled, uniform[now])
        clips = replace(clips, codes=codes)
        mask = mask & ~now[:, None, None]
    return smooth(prior, replace(clips, hidden=sampled), settled)


@torch.inference_mode()
def smooth(prior: MaskedPrior, clips: MaskedClips, config: Settled) -> Tensor:
    """The clips' codes (batch, quantizers, rows, columns); those at `hidden` are moved to their expectation.

    Each becomes the code whose vector is nearest to the mean of all vectors, by their probabilities given the labels and all
    other columns, first in every second column and then in the others, `config.sweeps` times. A prior's probabilities are
    wider than those of recordings, so that sampled columns do not quite agree: what rings would be blotchy, with lines that
    break off. The first ATTACK_COLUMNS of a sound stay as they are.
    """
    columns = (clips.hidden & clips.valid[:, None, None]).any(dim=2).any(dim=1)
    attack = torch.arange(columns.shape[1], device=columns.device) < ATTACK_COLUMNS
    columns = columns & ~(attack & clips.whole[:, :1])
    for half in config.sweeps * [0, 1]:
        now = columns.clone()
        now[:, 1 - half :: 2] = False
        if bool(now.any()):
            hidden = clips.hidden & now[:, None, None]
            codes = _fill(prior, replace(clips, hidden=hidden), now, config)
            clips = replace(clips, codes=codes)
    return clips.codes


def _fill(
    prior: MaskedPrior,
    clips: MaskedClips,
    now: Tensor,
    config: Settled,
    uniform: Tensor | None = None,
) -> Tensor:
    """The clips' codes, with the hidden ones in the columns `now`, bool (batch, columns), sampled by `uniform`, or nearest to
    the mean (None)."""
    guided = config.guidance != 0 and clips.labels.shape[1] > 0
    labels = clips.labels[None]
    if guided:  # each clip twice: with its labels, and with null labels
        null = labels.new_tensor(prior.label_sizes).expand_as(labels)
        labels = torch.cat([labels, null])
    repeated = replace(clips.repeat(len(labels)), labels=labels.flatten(0, 1))
    inputs, modulation = prior.context(repeated, now.repeat(len(labels), 1))
    tokens, masked = prior.tokens(clips), prior.to_slots(clips.hidden)[now]
    inputs = inputs.unflatten(0, (len(labels), -1))
    modulation = tuple(part.unflatten(0, (len(labels), -1)) for part in modulation)
    tokens[now] = _sample_columns(prior, tokens[now], masked, inputs, modulation, uniform, config)
    return prior.codes(tokens, clips)


def _sample_columns(
    prior: MaskedPrior,
    tokens: Tensor,
    masked: Tensor,
    inputs: Tensor,
    modulation: tuple[Tensor, ...],
    uniform: Tensor | None,
    config: Settled,
) -> Tensor:
    """Tokens (columns, slots) with those where `masked` is True sampled, from low to high.

    `inputs` (conditions, columns, slots, cell) and `modulation`, (conditions, columns, cell) each, are
    from `MaskedPrior.context`: with the clips' labels, and, for guidance, with null labels. `uniform` (columns, slots, 1);
    None: the codes nearest to the mean.
    """
    vocabulary, prefix = prior.vocabulary, prior.prefix
    padded = nn.functional.pad(tokens, (prefix, 0), value=prior.pad_token)
    # The number of threads that serves the slots is kept for `context`, in between.
    slots = masked.any(dim=0).nonzero()[:, 0].tolist()
    kind = f"masked sampling {inputs[:, :, 0, 0].numel().bit_length()}"
    for slot in tuned(kind, slots, enabled=inputs.device.type == "cpu"):
        quantizer, index = slot % vocabulary.num_quantizers, prefix + slot
        before = padded[:, slot:index].expand(len(inputs), -1, -1)
        logits, *unconditional = prior.logits(inputs[:, :, slot], before, modulation, quantizer)
        if unconditional:
            logits = logits + config.guidance * (logits - unconditional[0])
        if uniform is None:
            sampled = _nearest_to_mean(logits, prior.vectors[quantizer])
        else:
            sampled = sample_categorical(logits, config, uniform[:, slot])
        sampled = sampled + quantizer * vocabulary.codebook_size
        padded[:, index] = torch.where(masked[:, slot], sampled, padded[:, index])
    return padded[:, prefix:]


def _nearest_to_mean(logits: Tensor, vectors: Tensor) -> Tensor:
    """Codes (batch,) whose vectors (codebook_size, dim) are nearest to the mean by logits (batch, codebook_size)."""
    mean = logits.float().softmax(dim=1) @ vectors.float()
    return (vectors.float().square().sum(dim=1) / 2 - mean @ vectors.float().T).argmin(dim=1)
