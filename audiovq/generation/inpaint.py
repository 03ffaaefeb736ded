"""Inpainting: a prior resamples the masked part of a grid of codes."""

from __future__ import annotations

import torch
from torch import Tensor

from audiovq.config.sampling import SamplingConfig
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masked_sampling import sample_masked
from audiovq.models.priors.masking import MaskedClips
from audiovq.models.priors.sampling import sample
from audiovq.runtime.device import pick_precision

CANDIDATES = 8
"""Samples that an autoregressive prior, which cannot look ahead, makes of a hole; one is chosen."""
AnyPrior = Prior | MaskedPrior


def inpaint(
    prior: AnyPrior,
    codes: Tensor,
    mask: Tensor,
    levels: Tensor,
    labels: Tensor,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    generator: torch.Generator | None = None,
    whole: tuple[bool, bool] = (True, True),
    window: int | None = None,
) -> Tensor:
    """Resample the codes (batch, quantizers, rows, columns) where `mask` is True, and keep the others.

    `mask` is bool and broadcasts to the codes; the number of columns is unlimited. `levels` (batch,) and
    `labels` (batch, labels), the null label where unknown, condition the prior. `whole` says whether the
    sounds begin with the first column, and end with the last one (masked prior only). A masked prior
    sees both sides of a hole. An autoregressive one samples CANDIDATES from the left context and returns
    the likeliest given the right one. Grids longer than `window` columns (None: the prior's max_columns)
    are filled in windows that overlap by half, each conditioned on the one before. The result is on the
    CPU; `generator` must be, too (None: seed 0).
    """
    generator = generator or torch.Generator().manual_seed(0)
    device = next(prior.parameters()).device
    labels, levels = labels.to(device), levels.to(device)
    codes, remaining = codes.to(device), mask.to(device).expand_as(codes).clone()
    most, columns = prior.vocabulary.max_columns, codes.shape[3]
    size = columns if columns <= most else max(2, min(most, window or most))
    for begin in range(0, max(1, columns - size + size // 2), max(1, size // 2)):
        begin = min(begin, columns - size)
        part = slice(begin, begin + size)
        if not bool(remaining[..., part].any()):
            continue
        grid = codes[..., part], remaining[..., part]
        edges = whole[0] and begin == 0, whole[1] and begin + size == columns
        if isinstance(prior, MaskedPrior):
            counts = torch.full((len(codes),), size, device=device)
            ends = torch.tensor(edges, device=device).expand(len(codes), 2)
            clips = MaskedClips(*grid, counts, levels, labels, ends)
            made = sample_masked_autocast(prior, clips, sampling, generator)
        else:
            made = _inpaint_causal(prior, *grid, levels, labels, sampling, generator)
        codes = torch.cat([codes[..., :begin], made, codes[..., begin + size :]], dim=3)
        remaining[..., part] = False
    return codes.cpu()


def sample_masked_autocast(
    prior: MaskedPrior, clips: MaskedClips, sampling: SamplingConfig, generator: torch.Generator
) -> Tensor:
    """`sample_masked` under autocast to bfloat16 where the device supports it."""
    device = clips.codes.device
    dtype = pick_precision("auto", device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return sample_masked(prior, clips, sampling, generator)


@torch.no_grad()
def _inpaint_causal(
    prior: Prior,
    codes: Tensor,
    mask: Tensor,
    levels: Tensor,
    labels: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """`inpaint` for one window and an autoregressive prior; `mask` has the shape of the codes."""
    vocabulary, (batch, *_, columns) = prior.vocabulary, codes.shape
    counts = torch.full((batch,), columns, device=codes.device)
    tokens, lengths = vocabulary.tokens(codes, counts, levels)
    masked = torch.zeros_like(tokens, dtype=torch.bool)
    masked[:, 1:-1] = mask.permute(0, 3, 2, 1).flatten(1)
    first = int(masked.any(dim=0).nonzero()[0])
    # Without a right context, all candidates are equally good.
    tries = 1 if bool(masked[:, first:-1].all()) else CANDIDATES
    given = tokens.masked_fill(masked, -1)[:, :-1].repeat(tries, 1)
    repeated = labels.repeat(tries, 1)
    sampled = sample(prior, repeated, sampling, generator, given, shortest=columns, longest=columns)
    made = vocabulary.codes(sampled)[0]
    if tries == 1:
        return made
    ended = torch.cat([sampled, tokens[:, -1:].repeat(tries, 1)], dim=1)[:, : int(lengths.max())]
    likelihood = prior.log_likelihood(ended, lengths.repeat(tries), repeated)
    best = likelihood.view(tries, batch).argmax(dim=0)
    return made[best * batch + torch.arange(batch, device=best.device)]
