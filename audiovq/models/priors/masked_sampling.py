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


@torch.inference_mode()
def sample_masked(
    prior: MaskedPrior,
    clips: MaskedClips,
    config: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """The clips' codes (batch, quantizers, rows, columns), with the masked ones sampled.

    Each of `config.steps` steps (None: STEPS_OF_PART) samples some of the masked columns (see `unmask_schedule`), given the
    unmasked codes and those sampled before. A clip's codes do not depend on later clips of the batch.
    `generator` must be on the CPU.
    """
    vocabulary, device = prior.vocabulary, clips.codes.device
    mask = clips.hidden & clips.valid[:, None, None]
    settled, steps = config.settled(), config.steps or STEPS_OF_PART
    schedule = unmask_schedule(mask.any(dim=2).any(dim=1).cpu(), steps)
    used = sorted(set(schedule.flatten().tolist()) - {-1})  # of short sounds some steps are empty
    schedule = schedule.to(device)
    uniform = torch.rand(*schedule.shape, vocabulary.slots, 1, generator=generator).to(device)
    guided = settled.guidance != 0 and clips.labels.shape[1] > 0
    labels = clips.labels[None]
    if guided:  # each clip twice: with its labels, and with null labels
        null = labels.new_tensor(prior.label_sizes).expand_as(labels)
        labels = torch.cat([labels, null])
    for step in used:
        now = schedule == step
        repeated = replace(clips, hidden=mask).repeat(len(labels))
        inputs, modulation = prior.context(
            replace(repeated, labels=labels.flatten(0, 1)), now.repeat(len(labels), 1)
        )
        tokens, masked = prior.tokens(clips), prior.to_slots(mask)[now]
        inputs = inputs.unflatten(0, (len(labels), -1))
        modulation = tuple(part.unflatten(0, (len(labels), -1)) for part in modulation)
        tokens[now] = _sample_columns(
            prior, tokens[now], masked, inputs, modulation, uniform[now], settled
        )
        clips = replace(clips, codes=prior.codes(tokens, clips))
        mask = mask & ~now[:, None, None]
    return clips.codes


def _sample_columns(
    prior: MaskedPrior,
    tokens: Tensor,
    masked: Tensor,
    inputs: Tensor,
    modulation: tuple[Tensor, ...],
    uniform: Tensor,
    config: Settled,
) -> Tensor:
    """Tokens (columns, slots) with those where `masked` is True sampled, from low to high.

    `inputs` (conditions, columns, slots, cell) and `modulation`, (conditions, columns, cell) each, are
    from `MaskedPrior.context`: with the clips' labels, and, for guidance, with null labels.
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
        sampled = sample_categorical(logits, config, uniform[:, slot])
        sampled = sampled + quantizer * vocabulary.codebook_size
        padded[:, index] = torch.where(masked[:, slot], sampled, padded[:, index])
    return padded[:, prefix:]
