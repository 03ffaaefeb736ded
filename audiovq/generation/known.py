"""The training clips that a model knows: their codes, and the difference in dB that makes a copy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from audiovq.codec.windows import Encoded
from audiovq.dataset.dataset import Split
from audiovq.generation.copies import compare, decode_images
from audiovq.models.known import KnownClips
from audiovq.models.model import Model
from audiovq.runtime.progress import progress, unseen

MAX_CLIPS = 20_000
"""Training clips that are stored, evenly spaced over all,"""
MAX_CODES = 1 << 25
"""and codes of all their views together."""
VIEWS = 4
"""Views of each stored clip: the clip, and the clip begun a fraction of a column later."""
BANDS = 16
"""Frequency bands of the coarse comparison."""
CALIBRATION_CLIPS = 100
"""Clips of each kind from which the threshold is chosen."""
MIN_VALIDATION = 20
"""With fewer validation clips, training clips count as real clips too: those of each fold, against the other folds."""
FOLDS = 5
"""Folds of the training clips, with the clips of a recording in one; fewer where there are fewer recordings."""
MISTAKE_WEIGHT = 3.0
"""Cost of calling a real clip a copy, relative to missing a copy."""
FREE_MISSES = 0.03
"""Share of the copies that may be missed at no cost."""
LEAST_FOUND = 0.5
"""Share of the copies that are found at least, where training clips count as real clips: some of them are alternate
takes of one sound, which differ less than a copy does after encoding."""
MAX_MARGIN = 1.25
"""Largest factor on the threshold where real clips are further away than it."""
COMPARED = 20
"""Clips that are compared between two updates of the progress."""
MAX_SHIFT = 16
"""Largest shift, in frames, of the training clips used as copies."""


def learn_clips(
    model: Model, train: Split, validation: Split, *, seed: int = 0, task: str = ""
) -> KnownClips:
    """The codes of a model's training clips, and the difference in dB that makes a copy.

    The codes are the nearest ones, for each clip in VIEWS views; clips beyond MAX_CLIPS or MAX_CODES are
    left out, evenly. The threshold is chosen on real sounds: see `_calibrate`. `task`: name under which progress is
    shown.
    """
    stride = model.autoencoder.stride[1]
    views = min(VIEWS, stride)
    mean_frames = int(train.num_frames.float().mean().ceil())
    codes_per_clip_and_stride = views * model.vocabulary.slots * mean_frames
    most = max(1, min(MAX_CLIPS, MAX_CODES * stride // codes_per_clip_and_stride))
    indices = _evenly_spaced(len(train), most)
    shifts = [
        torch.full_like(indices, view * stride // views).minimum(train.num_frames[indices] - 1)
        for view in range(views)
    ]
    with progress(task and f"{task}, measuring", views * len(indices), "clips") as done:
        encoded = [encode_clips(model, train, indices, by, done) for by in shifts]
    known = assemble(
        model,
        [[clip.codes for clip in view] for view in encoded],
        [(train.clips[i].path, train.clips[i].offset) for i in indices.tolist()],
        len(train),
        {"threshold_db": 0.0},
    )
    calibration = _calibrate(model, known, train, validation, indices, seed, task)
    return replace(known, calibration=calibration)


def assemble(
    model: Model,
    views: Sequence[Sequence[Tensor]],
    names: list[tuple[str, int]],
    of: int,
    calibration: dict[str, float],
) -> KnownClips:
    """`KnownClips` from codes (quantizers, rows, columns) of each view of each clip.

    No view may have more columns than the first. `of` is the number of all training clips.
    """
    first, size = views[0], model.vocabulary.codebook_size
    columns = torch.tensor([clip.shape[2] for clip in first], dtype=torch.int32)
    shape = len(views), int(columns.sum()), *first[0].shape[:2]
    codes = torch.full(shape, -1, dtype=torch.int16 if size < 1 << 15 else torch.int32)
    starts = (columns.cumsum(0) - columns).tolist()
    for stored, view in zip(codes, views, strict=True):
        for start, clip in zip(starts, view, strict=True):
            stored[start : start + clip.shape[2]] = clip.permute(2, 0, 1)
    count = min(BANDS, model.spectrogram.config.bins)
    bands = [
        nn.functional.adaptive_avg_pool2d(image[None], (count, clip.shape[2]))[0].T
        for begin in range(0, len(first), 64)
        for image, clip in zip(
            decode_images(model, first[begin : begin + 64]), first[begin : begin + 64], strict=True
        )
    ]
    rounded = (255 * torch.cat(bands)).round().clamp(0, 255).to(torch.uint8)
    return KnownClips(codes, rounded, columns, names, of, calibration)


def encode_clips(
    model: Model,
    split: Split,
    indices: Tensor,
    shifts: Tensor | None = None,
    done: Callable[[int], None] = unseen,
) -> list[Encoded]:
    """The nearest codes of clips of a split, each begun `shifts` (clips,) frames later.

    `done` is called with the number of clips just encoded.
    """
    clips: list[Encoded] = []
    if not len(indices):
        return clips
    shifts = torch.zeros_like(indices) if shifts is None else shifts
    for part, later in zip(indices.split(64), shifts.split(64), strict=True):
        images, frames = split.spectrograms(part), split.num_frames[part] - later
        for image, shift in zip(images, later.tolist(), strict=True):
            image[..., : image.shape[2] - shift] = image[..., shift:].clone()
        frames = frames.clamp(max=model.clip_frames)
        images = images[..., : int(frames.max())].to(model.device)
        with torch.inference_mode():
            codes = model.autoencoder.encode(images, frames).cpu()
        widths = model.autoencoder.num_columns(frames).tolist()
        levels, hop_length = split.levels[part].tolist(), model.spectrogram.config.hop_length
        clips += [
            Encoded(grid[..., :width], level, max(1, (length - 1) * hop_length))
            for grid, width, level, length in zip(
                codes, widths, levels, frames.tolist(), strict=True
            )
        ]
        done(len(part))
    return clips


def _calibrate(
    model: Model,
    known: KnownClips,
    train: Split,
    validation: Split,
    indices: Tensor,
    seed: int,
    task: str,
) -> dict[str, float]:
    """The copy threshold in dB, chosen from the differences of real sounds from their nearest training
    clip: validation clips, which are no copies, and shifted training clips, which are.

    The threshold minimizes the weighted share of errors: MISTAKE_WEIGHT for a real clip called a copy, 1 for a
    copy missed beyond FREE_MISSES. `found` and `mistaken` are the shares of copies and of real clips below it.
    With few validation clips, training clips of other recordings count as real clips too.
    """
    generator = torch.Generator().manual_seed(seed)
    shifts = torch.randint(1, MAX_SHIFT + 1, (CALIBRATION_CLIPS,), generator=generator)
    some = indices[_evenly_spaced(len(indices), CALIBRATION_CLIPS)]
    shifts = torch.minimum(shifts[: len(some)], train.num_frames[some] // 4)
    held_out = _evenly_spaced(len(validation), CALIBRATION_CLIPS)
    few = len(held_out) < MIN_VALIDATION
    total = len(some) * (1 + few) + len(held_out)
    with progress(task and f"{task}, comparing", total, "clips") as done:
        copies = _differences(model, known, encode_clips(model, train, some, shifts), done)
        real = _differences(model, known, encode_clips(model, validation, held_out), done)
        if few:
            real = torch.cat([real, _between_folds(model, known, train, indices, done)])
    threshold = 1.0
    if len(real) and len(copies):
        both = torch.cat([copies, real]).sort().values
        missed = (copies > both[:, None]).sum(dim=1) / max(1, len(copies)) - FREE_MISSES
        mistaken = (real <= both[:, None]).sum(dim=1) / len(real)
        best = (missed.clamp(min=0) + MISTAKE_WEIGHT * mistaken).argmin()
        threshold = float(both[best])
        if not mistaken[best]:  # half of the margin to the nearest real clip is used
            threshold = min(MAX_MARGIN * threshold, (threshold + float(real.min())) / 2)
        if few:
            threshold = max(threshold, float(copies.quantile(LEAST_FOUND)))
    elif len(copies):
        threshold = float(copies.quantile(0.95))
    return {
        "threshold_db": threshold,
        "found": float((copies <= threshold).float().mean()) if len(copies) else 0.0,
        "mistaken": float((real <= threshold).float().mean()) if len(real) else 0.0,
    }


def _between_folds(
    model: Model,
    known: KnownClips,
    train: Split,
    indices: Tensor,
    done: Callable[[int], None] = unseen,
) -> Tensor:
    """(clips,) differences in dB of up to CALIBRATION_CLIPS training clips from the nearest of another fold.

    `indices`: the clips in `known`. Clips that equal one of another fold in every code are left out: the same
    sound in two files.
    """
    recordings = sorted({path for path, _ in known.names})
    folds = min(FOLDS, len(recordings))
    fold_of = {path: number % folds for number, path in enumerate(recordings)}
    fold = torch.tensor([fold_of[path] for path, _ in known.names])
    some = torch.zeros(len(known), dtype=torch.bool)
    some[_evenly_spaced(len(known), CALIBRATION_CLIPS)] = True
    differences = [
        _differences(model, known.only(fold != number), encode_clips(model, train, chosen), done)
        for number in range(folds)
        if folds > 1 and len(chosen := indices[some & (fold == number)])
    ]
    found = torch.cat([torch.empty(0), *differences])
    return found[found > 0]


def _differences(
    model: Model, known: KnownClips, clips: Sequence[Encoded], done: Callable[[int], None] = unseen
) -> Tensor:
    """(clips,) differences in dB from the nearest training clip, of those that can be compared.

    `done` is called with the number of clips just compared.
    """
    uncalibrated = replace(known, calibration={"threshold_db": math.inf})
    found: list[float] = []
    for begin in range(0, len(clips), COMPARED):
        part = clips[begin : begin + COMPARED]
        found += [one.db for one in compare(model, part, uncalibrated) if one is not None]
        done(len(part))
    return torch.tensor(found)


def _evenly_spaced(count: int, most: int) -> Tensor:
    """Up to `most` indices of `count`, evenly spaced."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()
