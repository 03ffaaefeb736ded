"""Holes in a grid of codes, filled by a prior: what playing with sounds comes down to."""

from __future__ import annotations

import torch
from torch import Tensor

from audiovq.canvas import Canvas
from audiovq.config import SamplingConfig
from audiovq.masked import MaskedPrior, sample_masked
from audiovq.prior import Prior
from audiovq.sampling import sample
from audiovq.trainer import pick_precision

CANDIDATES = 8
"""Of a prior in time order, which cannot look ahead: the likeliest with what comes after is kept."""
Painter = Prior | MaskedPrior


def fill(
    prior: Painter,
    codes: Tensor,
    mask: Tensor,
    levels: Tensor,
    labels: Tensor,
    *,
    sampling: SamplingConfig | None = None,
    generator: torch.Generator | None = None,
    whole: tuple[bool, bool] = (True, True),
    window: int | None = None,
) -> Tensor:
    """Codes (batch, quantizers, rows, columns) with new ones where `mask`, a bool of any shape that
    goes with theirs, says so; all others stay. For any number of columns.

    `levels` (batch,) and `labels` (batch, labels), one past the last value where one is left open, are
    what is known of the sounds; `whole` says whether they begin with the first column, and end with
    the last. A masked prior looks at both sides of a hole. One in time order draws CANDIDATES from
    what is before it and keeps the one that is likeliest with what comes after; `whole` is nothing to
    it. What is longer than `window` columns (None: as many as the prior knows) is filled window by
    window, each half as far on as the one before, so that it goes on from what that one drew. The
    result is on the CPU; `generator` is one of the CPU, None: of seed 0.
    """
    sampling = sampling or SamplingConfig()
    generator = generator or torch.Generator().manual_seed(0)
    device = next(prior.parameters()).device
    labels, levels = labels.to(device), levels.to(device)
    codes, left = codes.to(device), mask.to(device).expand_as(codes).clone()
    most, columns = prior.vocabulary.max_columns, codes.shape[3]
    size = columns if columns <= most else max(2, min(most, window or most))
    for begin in range(0, max(1, columns - size + size // 2), max(1, size // 2)):
        begin = min(begin, columns - size)
        part = slice(begin, begin + size)
        if not bool(left[..., part].any()):
            continue
        grid = codes[..., part], left[..., part]
        edges = whole[0] and begin == 0, whole[1] and begin + size == columns
        if isinstance(prior, MaskedPrior):
            counts = torch.full((len(codes),), size, device=device)
            ends = torch.tensor(edges, device=device).expand(len(codes), 2)
            canvas = Canvas(*grid, counts, levels, labels, ends)
            made = paint(prior, canvas, sampling, generator)
        else:
            made = _in_time_order(prior, *grid, levels, labels, sampling, generator)
        codes = torch.cat([codes[..., :begin], made, codes[..., begin + size :]], dim=3)
        left[..., part] = False
    return codes.cpu()


def paint(
    prior: MaskedPrior, canvas: Canvas, sampling: SamplingConfig, generator: torch.Generator
) -> Tensor:
    """As `sample_masked`, in bfloat16 where the device computes in it."""
    device = canvas.codes.device
    dtype = pick_precision("auto", device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return sample_masked(prior, canvas, sampling, generator)


@torch.no_grad()
def _in_time_order(
    prior: Prior,
    codes: Tensor,
    hidden: Tensor,
    levels: Tensor,
    labels: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Codes (batch, quantizers, rows, columns) with those that are `hidden` drawn anew."""
    vocabulary, (batch, *_, columns) = prior.vocabulary, codes.shape
    counts = torch.full((batch,), columns, device=codes.device)
    tokens, lengths = vocabulary.tokens(codes, counts, levels)
    holes = torch.zeros_like(tokens, dtype=torch.bool)
    holes[:, 1:-1] = hidden.permute(0, 3, 2, 1).flatten(1)
    first = int(holes.any(dim=0).nonzero()[0])
    tries = 1 if bool(holes[:, first:-1].all()) else CANDIDATES
    given = tokens.masked_fill(holes, -1)[:, :-1].repeat(tries, 1)
    asked = labels.repeat(tries, 1)
    drawn = sample(prior, asked, sampling, generator, given, shortest=columns, longest=columns)
    made = vocabulary.codes(drawn)[0]
    if tries == 1:
        return made
    ended = torch.cat([drawn, tokens[:, -1:].repeat(tries, 1)], dim=1)[:, : int(lengths.max())]
    likelihood = prior.log_likelihood(ended, lengths.repeat(tries), asked)
    best = likelihood.view(tries, batch).argmax(dim=0)
    return made[best * batch + torch.arange(batch, device=best.device)]
