"""Near copies of training clips: each new sound is compared with the training clips at all shifts in time.

First coarsely with all clips, by their decoded spectrograms averaged over columns of codes and a few bands;
then finely with the nearest few, by the share of equal codes and by the difference in dB of the decoded
spectrograms. Both refer to the shorter of the two sounds, most of which must overlap the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiovq.codec.windows import WINDOW_FRAMES, Encoded, frames_of, spectrogram_of
from audiovq.models.known import KnownClips
from audiovq.models.model import Model

SHORTLIST = 6
"""Clips that are compared finely."""
SHORTLIST_VIEWS = 2
"""The nearest of them, of which all views are compared if the clip itself is within"""
VIEWS_WITHIN = 4
"""times the copy threshold."""
COPY_SHARE = 0.75
"""A sound that shares more than this of its codes with one training clip is a copy if it also differs by
less than twice the copy threshold."""
MIN_OVERLAP = 0.8
"""Share of the loud cells of the shorter of two sounds that must overlap the other."""
MIN_SECONDS = 0.1
"""Sounds that overlap for less are compared only if this is most of both: a click is no copy of a word."""
LOUD_DB = 40.0
"""Cells more than this below full scale in both sounds are not compared."""
MAX_GAIN_DB = 12.0
"""Largest difference in level of a copy: a clip without its loudest part is normalized differently."""
EDGE_FRAMES = 2
"""Frames at both ends of an overlap that are not compared, because a cut leaves a click there."""
DECODE_BATCH = 16
"""Clips decoded at a time, in order of length; larger batches leave the cache."""
MAX_VALUES = 1 << 22
"""Numbers in memory at a time in the coarse comparison,"""
MAX_CELLS = 1 << 18
"""and in the fine one, which stays in the cache."""


@dataclass(frozen=True)
class Nearest:
    """The training clip nearest to a sound."""

    path: str
    """Its recording, relative to the folder of the training data."""
    offset: int
    """Its first sample in the recording."""
    share: float
    """Share of the shorter sound's codes that are equal in both, at the best shift in columns."""
    db: float
    """Root mean square difference of the decoded spectrograms over cells that are loud in either, at the
    best shift in frames."""
    is_copy: bool


def compare(
    model: Model,
    sounds: Sequence[Encoded],
    known: KnownClips | None = None,
    *,
    max_values: int = MAX_VALUES,
) -> list[Nearest | None]:
    """The nearest of the training clips in `known` (None: `model.known`) for each sound.

    None for a sound that is too quiet to be compared or overlaps no clip for long enough, and for all
    sounds where the model has no codes of its training clips.
    """
    known = known or model.known
    if known is None or not sounds:
        return [None] * len(sounds)
    images = _decode_short(model, sounds)
    candidates = [
        [(clip, 0, shift) for clip, shift in shortlist]
        for shortlist in _shortlists(model, known, sounds, images, max_values)
    ]
    clips = _measure(model, known, sounds, images, candidates)
    views = [
        [
            (clip, view, shift)
            for one, clip, shift in sorted(ranked, key=lambda one: one[0].db)[:SHORTLIST_VIEWS]
            if one.db <= VIEWS_WITHIN * known.threshold_db
            for view in range(1, len(known.codes))
        ]
        for ranked in clips
    ]
    measured = zip(clips, _measure(model, known, sounds, images, views), strict=True)
    return [
        min((one for one, *_ in both), key=lambda one: (not one.is_copy, one.db), default=None)
        for both in (first + second for first, second in measured)
    ]


def is_copy(known: KnownClips, share: float, db: float) -> bool:
    """Whether a sound with this `share` of equal codes and this difference in dB is a copy of the clip."""
    return db <= known.threshold_db or (share > COPY_SHARE and db <= 2 * known.threshold_db)


def shared_codes(codes: Tensor, others: Tensor, min_columns: float) -> float:
    """Share of equal codes of two sounds (quantizers, rows, columns) at the best shift in columns.

    It is a share of the shorter sound's codes; of the longer one's if the shorter has fewer than
    `min_columns` columns.
    """
    a, b = codes.shape[2], others.shape[2]
    slots = codes.shape[0] * codes.shape[1]
    ours, theirs = codes.reshape(slots, a), others.reshape(slots, b).flip(1)
    equal = torch.zeros(a + b - 1, dtype=torch.long)
    step = max(1, MAX_CELLS // (slots * b))
    for begin in range(0, a, step):
        same = ours[:, begin : begin + step, None] == theirs[:, None]
        by_shift = _diagonals(same.sum(dim=0)).sum(dim=0)
        equal[begin : begin + len(by_shift)] += by_shift
    length = min(a, b) if min(a, b) >= min_columns else max(a, b)
    return int(equal.max()) / (length * slots)


def difference_db(
    image: Tensor,
    other: Tensor,
    range_db: float,
    shifts: Sequence[int],
    covered: tuple[bool, bool] = (False, True),
) -> float | None:
    """Difference in dB of two spectrograms (bins, frames) in [0, 1], at the best of the `shifts` in frames
    of the second.

    It is the root mean square over cells that are loud in either, within the overlap less EDGE_FRAMES at
    both ends, after the levels are matched by up to MAX_GAIN_DB. The overlap must contain MIN_OVERLAP of
    the loud cells of each sound that is True in `covered`. None if it does at no shift.
    """
    floor = 1 - LOUD_DB / range_db
    loud, other_loud = image > floor, other > floor
    # Loud cells before each frame.
    until, other_until = (
        _cumulative(each.sum(dim=0)[None])[0].tolist() for each in (loud, other_loud)
    )
    if not until[-1] or not other_until[-1]:
        return None
    a, b = image.shape[1], other.shape[1]
    overlaps = []
    for shift in shifts:
        begin, end = max(0, shift), min(a, shift + b)
        if end <= begin:
            continue
        counts = until[end] - until[begin], other_until[end - shift] - other_until[begin - shift]
        totals = until[-1], other_until[-1]
        if any(
            asked and count < MIN_OVERLAP * total
            for asked, count, total in zip(covered, counts, totals, strict=True)
        ):
            continue
        if end - begin > 10 * EDGE_FRAMES:
            begin, end = begin + EDGE_FRAMES, end - EDGE_FRAMES
        overlaps.append((shift, begin, end))
    most, best = MAX_GAIN_DB / range_db, math.inf
    step = max(1, MAX_CELLS // (image.shape[0] * min(a, b)))
    for first in range(0, len(overlaps), step):
        some = overlaps[first : first + step]
        squares = _squared_differences(image, loud, other, other_loud, some, most)
        best = min(best, float(squares.min()))
    return None if best == math.inf else math.sqrt(best) * range_db


def _squared_differences(
    image: Tensor,
    loud: Tensor,
    other: Tensor,
    other_loud: Tensor,
    overlaps: Sequence[tuple[int, int, int]],
    max_gain: float,
) -> Tensor:
    """(overlaps,) mean squares of the difference of two spectrograms (bins, frames) over the cells that are loud in
    either, the levels matched by up to `max_gain`; infinite where there are none.

    overlaps: the shift of the second and the first and last frame + 1 of the first.
    """
    shifts, begins, ends = torch.tensor(overlaps).T
    begin, end = int(begins.min()), int(ends.max())
    frames = torch.arange(begin, end)
    within = (frames >= begins[:, None]) & (frames < ends[:, None])
    left, right = int(shifts.max()) - begin, end - int(shifts.min()) - other.shape[1]
    padding = max(0, left), max(0, right)
    # What lies beside `begin` to `end` at each shift: (overlaps, bins, frames).
    at = begin + padding[0] - shifts
    theirs, theirs_loud = (
        nn.functional.pad(each, padding).unfold(1, end - begin, 1).movedim(1, 0)[at]
        for each in (other, other_loud)
    )
    either = ((loud[:, begin:end] | theirs_loud) & within[:, None]).float()
    difference = (image[:, begin:end] - theirs) * either
    cells = either.sum(dim=(1, 2))
    gains = (difference.sum(dim=(1, 2)) / cells).clamp(-max_gain, max_gain)
    difference.addcmul_(either, gains[:, None, None], value=-1)
    squares: Tensor = difference.square().sum(dim=(1, 2)) / cells
    return squares.nan_to_num(math.inf)


def decode_images(model: Model, clips: Sequence[Tensor]) -> list[Tensor]:
    """Spectrograms (bins, frames) of clips' codes (quantizers, rows, columns), decoded in batches."""
    images: dict[int, Tensor] = {}
    stride = model.autoencoder.stride[1]
    by_length = sorted(range(len(clips)), key=lambda i: clips[i].shape[2])
    for begin in range(0, len(clips), DECODE_BATCH):
        indices = by_length[begin : begin + DECODE_BATCH]
        columns = [clips[i].shape[2] for i in indices]
        batch = torch.stack(
            [nn.functional.pad(clips[i], (0, columns[-1] - clips[i].shape[2])) for i in indices]
        )
        with torch.inference_mode():
            decoded = spectrogram_of(model, batch, torch.tensor(columns))
        for i, image, count in zip(indices, decoded[:, 0].cpu(), columns, strict=True):
            images[i] = image[:, : count * stride]
    return [images[i] for i in range(len(clips))]


def _decode_short(model: Model, sounds: Sequence[Encoded]) -> list[Tensor | None]:
    """Decoded spectrograms (bins, frames) of sounds; None for those longer than WINDOW_FRAMES, which are
    decoded in parts."""
    stride = model.autoencoder.stride[1]
    short = [i for i, sound in enumerate(sounds) if sound.codes.shape[2] * stride <= WINDOW_FRAMES]
    images = dict(zip(short, decode_images(model, [sounds[i].codes for i in short]), strict=True))
    return [images.get(i) for i in range(len(sounds))]


def _measure(
    model: Model,
    known: KnownClips,
    sounds: Sequence[Encoded],
    images: Sequence[Tensor | None],
    candidates: Sequence[Sequence[tuple[int, int, int]]],
) -> list[list[tuple[Nearest, int, int]]]:
    """The difference of each sound from each of its candidates (clip, view, shift in columns), with clip
    and shift. Candidates that overlap too little are left out."""
    keys = sorted({(clip, view) for some in candidates for clip, view, _ in some})
    decoded = decode_images(model, [known.clip(*key) for key in keys])
    by_key = dict(zip(keys, decoded, strict=True))
    return [
        _measure_one(model, known, sound, image, some, by_key)
        for sound, image, some in zip(sounds, images, candidates, strict=True)
    ]


def _measure_one(
    model: Model,
    known: KnownClips,
    sound: Encoded,
    image: Tensor | None,
    candidates: Sequence[tuple[int, int, int]],
    decoded: Mapping[tuple[int, int], Tensor],
) -> list[tuple[Nearest, int, int]]:
    """`_measure` for one sound; `decoded` has the spectrograms of clips by (clip, view)."""
    stride, measured = model.autoencoder.stride[1], []
    frames = sound.codes.shape[2] * stride
    min_frames = MIN_SECONDS * model.sample_rate / model.spectrogram.config.hop_length
    for clip, view, shift in candidates:
        other, part, begin = decoded[clip, view], image, 0
        covered = frames < other.shape[1], frames >= other.shape[1]
        if min(frames, other.shape[1]) < min_frames:
            covered = True, True
        if part is None:
            if covered[0]:
                continue
            begin = max(0, (shift - 1) * stride)
            end = min(frames, (shift + 2) * stride + other.shape[1])
            part = _decode_frames(model, sound.codes, begin, end)
        # A view begins later than its clip by less than a column.
        shifts = range((shift - 1) * stride - begin, (shift + 2) * stride - begin + 1)
        db = difference_db(part, other, model.spectrogram.config.range_db, shifts, covered)
        if db is not None:
            share = shared_codes(sound.codes, known.clip(clip, view), min_frames / stride)
            path, offset = known.names[clip]
            nearest = Nearest(path, offset, share, db, is_copy(known, share, db))
            measured.append((nearest, clip, shift))
    return measured


def _shortlists(
    model: Model,
    known: KnownClips,
    sounds: Sequence[Encoded],
    images: Sequence[Tensor | None],
    max_values: int,
) -> Iterator[list[tuple[int, int]]]:
    """For each sound the nearest clips by `known.bands`: (clip, shift in columns).

    Squared differences at all shifts come from energies and a cross-correlation by FFT.
    """
    count = known.bands.shape[1]
    bands = [
        _bands(model, sound.codes, image, count)
        for sound, image in zip(sounds, images, strict=True)
    ]
    longest, widest = max(len(b) for b in bands), int(known.columns.max())
    n_fft = 1 << (longest + widest - 1).bit_length()
    step = max(1, max_values // (n_fft * max(count, len(sounds))))
    ranked: list[list[tuple[float, int, int]]] = [[] for _ in sounds]
    starts = nn.functional.pad(known.columns.long().cumsum(0), (1, 0))
    # Of all sounds at once, as matrices (bands, sounds), one per frequency.
    spectra = torch.stack([torch.fft.rfft(image.T, n_fft) for image in bands], dim=2).movedim(1, 0)
    for first in range(0, len(known), step):
        counts = known.columns[first : first + step].long()
        clips = torch.zeros(len(counts), int(counts.max()), count)
        mask = torch.arange(clips.shape[1]) < counts[:, None]
        rows = known.bands[starts[first] : starts[first + len(counts)]]
        clips[mask] = rows.float() / 255
        energy = _cumulative(clips.square().sum(dim=2))
        transformed = torch.fft.rfft(clips, n_fft, dim=1).conj().resolve_conj()
        products = transformed.movedim(1, 0) @ spectra
        for index, (image, candidates) in enumerate(zip(bands, ranked, strict=True)):
            correlation = torch.fft.irfft(products[:, :, index].T, n_fft)
            distances, shifts = _coarse_distances(model, image, correlation, energy, counts)
            order = distances.topk(min(SHORTLIST, len(counts)), largest=False).indices
            candidates += zip(
                distances[order].tolist(),
                (first + order).tolist(),
                shifts[order].tolist(),
                strict=True,
            )
    for candidates in ranked:
        best = sorted(candidates)[:SHORTLIST]
        yield [(clip, shift) for distance, clip, shift in best if distance < math.inf]


def _coarse_distances(
    model: Model, image: Tensor, correlation: Tensor, energy: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """Distance, 0 to 1, of each clip from a sound at its best shift, and that shift, (clips,) each.

    image (columns, bands); correlation (clips, n_fft), circular; energy (clips, columns + 1), cumulative and constant
    after a clip's end; counts (clips,), columns of each clip. Infinite where no shift overlaps enough.
    """
    width, widest = len(image), energy.shape[1] - 1
    shifts = torch.arange(1 - widest, width)
    # What depends on a clip's length alone, (lengths, shifts).
    lengths, length_of = counts.unique(return_inverse=True)
    begin, end = shifts.clamp(min=0), (shifts + lengths[:, None]).clamp(max=width)
    overlap = end - begin
    image_energy = _cumulative(image.square().sum(dim=1)[None])[0]
    ours = image_energy[torch.maximum(end, begin)] - image_energy[begin]
    ours_covered = ours >= MIN_OVERLAP * image_energy[-1]
    min_frames = MIN_SECONDS * model.sample_rate / model.spectrogram.config.hop_length
    short = overlap < min_frames / model.autoencoder.stride[1]
    asks_ours = ((width < lengths)[:, None] | short) & (overlap > 0)
    asks_theirs = ((width >= lengths)[:, None] | short) & (overlap > 0)
    possible = (overlap > 0) & (ours_covered | ~asks_ours)

    # `index_select` is several times as fast as an index in brackets.
    last, first = (width - shifts).clamp(max=widest), (-shifts).clamp(min=0)
    theirs = energy.index_select(1, last) - energy.index_select(1, first)
    both = ours.index_select(0, length_of) + theirs
    product = correlation.index_select(1, shifts % correlation.shape[1])
    distance = (both - 2 * product) / both.clamp_min(1e-6)
    valid = possible.index_select(0, length_of) & (both > 0)
    valid &= (theirs >= MIN_OVERLAP * energy[:, -1:]) | ~asks_theirs.index_select(0, length_of)
    values, indices = distance.masked_fill(~valid, torch.inf).min(dim=1)
    return values, shifts[indices]


def _diagonals(values: Tensor) -> Tensor:
    """values (rows, columns), each row moved right by its number: (rows, rows + columns - 1), zeros elsewhere."""
    rows, columns = values.shape
    flat = nn.functional.pad(values, (0, rows)).flatten()
    return flat[: rows * (rows + columns - 1)].view(rows, rows + columns - 1)


def _cumulative(values: Tensor) -> Tensor:
    """Cumulative sums (rows, columns + 1) of values (rows, columns), from 0."""
    return nn.functional.pad(values.cumsum(dim=1), (1, 0))


def _bands(model: Model, codes: Tensor, image: Tensor | None, count: int) -> Tensor:
    """Means (columns, bands) of the decoded spectrogram of codes (quantizers, rows, columns), which is
    `image` (bins, frames), or decoded in parts."""
    stride, columns = model.autoencoder.stride[1], codes.shape[2]
    if image is not None:
        return nn.functional.adaptive_avg_pool2d(image[None], (count, columns))[0].T
    step = max(1, WINDOW_FRAMES // stride)
    parts = []
    for begin in range(0, columns, step):
        end = min(begin + step, columns)
        image = _decode_frames(model, codes, begin * stride, end * stride)
        parts.append(nn.functional.adaptive_avg_pool2d(image[None], (count, end - begin))[0].T)
    return torch.cat(parts)


def _decode_frames(model: Model, codes: Tensor, begin: int, end: int) -> Tensor:
    """Frames `begin` to `end` of the decoded spectrogram (bins, frames), on the CPU."""
    with torch.inference_mode():
        return frames_of(model, codes, begin, end)[0, 0].cpu()
