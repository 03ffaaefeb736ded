"""Which new sounds are copies: each is compared with the training clips over all shifts in time.

First roughly, with all clips: what they decode to, averaged over a column of codes and a few bands.
Then closely, with the few nearest: how many codes are equal, and how many decibels the decoded
spectrograms differ. Both are of the shorter of two sounds, of which most must lie within the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from audiovq.codec.windows import WINDOW_FRAMES, Encoded, frames_of
from audiovq.dataset.dataset import Split
from audiovq.models.known import KnownClips
from audiovq.models.model import Model

MOST_CLIPS = 20_000
"""Training clips that are kept, evenly spread over all, and"""
MOST_CODES = 1 << 25
"""codes that all their views have."""
BANDS = 16
"""Of the rough comparison."""
SHORTLIST = 6
"""Clips that are compared closely, and"""
VIEWED = 2
"""the nearest of them, of which all views are, where the clip itself is not further than"""
WORTH = 4
"""times the decibels that make a copy."""
VIEWS = 4
"""Of each clip that is kept: itself, and begun a part of a column later."""
COPY_SHARE = 0.75
"""A sound that shares more of its codes with one training clip is a copy, where it sounds like it too:
in twice the decibels that make a copy by themselves."""
COVERED = 0.8
"""Of the loud part of the shorter of two sounds, what lies within the other at the least."""
SHORTEST = 0.1
"""Seconds that two sounds must have in common, unless it is most of both: a click is no copy of a word."""
LOUD_DB = 40.0
"""Below full scale of a clip: cells that are quieter in both are not compared."""
LOUDER_DB = 12.0
"""By which a copy may be louder or softer: a clip without its loudest part is normalized otherwise."""
EDGE = 2
"""Frames at both ends of what two sounds have in common that are not compared: a cut leaves a click."""
ROOM = 1 << 22
"""Numbers held in the rough comparison at a time."""
CALIBRATED = 100
"""Clips of each kind that the threshold is drawn from."""
FEWEST = 20
"""With fewer validation clips, the threshold is drawn from shifted training clips alone."""
MISTAKE = 3.0
"""How much worse it is to call a real clip a copy than to miss a copy."""
MISSED = 0.03
"""Share of the copies that may be missed."""
WIDER = 1.25
"""By which the threshold may lie above what shifted training clips need, where real clips leave room."""
LATEST = 16
"""Frames by which those are shifted at most."""


@dataclass(frozen=True)
class Nearest:
    """The training clip that is nearest to a sound."""

    path: str
    """Its recording, relative to the folder of the training data."""
    offset: int
    """Where it begins in that, in samples."""
    share: float
    """Of the codes of the shorter of the two: how many are equal, at the best shift by columns."""
    db: float
    """Root mean square of what the decoded spectrograms differ by, over the cells that are loud in
    either, at the best shift by frames."""
    is_copy: bool


def compare(
    model: Model, sounds: Sequence[Encoded], known: KnownClips | None = None
) -> list[Nearest | None]:
    """The nearest training clip to each of some sounds, of those in `known`; None: in `model.known`.

    None where a sound is too quiet to be compared, or like no clip for long enough, and of all where
    the model has no codes of its training clips.
    """
    known = known or model.known
    if known is None or not sounds:
        return [None] * len(sounds)
    found: list[Nearest | None] = []
    seen: dict[tuple[int, int], Tensor] = {}
    for sound, places in zip(sounds, _shortlists(model, known, sounds), strict=True):
        first = [(place, 0, shift) for place, shift in places]
        ranked = sorted(_measured(model, known, sound, first, seen), key=lambda one: one[0].db)
        later = [
            (place, view, shift)
            for one, place, shift in ranked[:VIEWED]
            if one.db <= WORTH * known.threshold_db
            for view in range(1, len(known.codes))
        ]
        ranked += _measured(model, known, sound, later, seen)
        nearest = [one for one, _, _ in ranked]
        found.append(min(nearest, key=lambda one: (not one.is_copy, one.db)) if nearest else None)
    return found


def _measured(
    model: Model,
    known: KnownClips,
    sound: Encoded,
    wanted: Sequence[tuple[int, int, int]],
    seen: dict[tuple[int, int], Tensor],
) -> list[tuple[Nearest, int, int]]:
    """How far a sound is from views of clips, (place, view, shift in columns) each, with place and shift;
    those left out that have too little in common. `seen` keeps what was decoded."""
    new = [key for place, view, _ in wanted if (key := (place, view)) not in seen]
    seen |= zip(new, _images(model, [known.clip(*key) for key in new]), strict=True)
    stride, measured = model.autoencoder.stride[1], []
    frames = sound.codes.shape[2] * stride
    least = SHORTEST * model.sample_rate / model.spectrogram.config.hop_length
    is_long = frames > WINDOW_FRAMES
    own = None if is_long else _spectrogram(model, sound.codes, 0, frames)
    for place, view, shift in wanted:
        image, begin = seen[place, view], 0
        needs = frames < image.shape[1], frames >= image.shape[1]
        if min(frames, image.shape[1]) < least:
            needs = True, True
        if is_long:
            begin = max(0, (shift - 1) * stride)
            end = min(frames, (shift + 2) * stride + image.shape[1])
            own = _spectrogram(model, sound.codes, begin, end)
            if needs[0]:
                continue
        assert own is not None
        # A view begins later than its clip by less than a column.
        shifts = range((shift - 1) * stride - begin, (shift + 2) * stride - begin + 1)
        db = decibels(own, image, model.spectrogram.config.range_db, shifts, needs)
        if db is not None:
            share = shared(sound.codes, known.clip(place, view), least / stride)
            path, offset = known.names[place]
            nearest = Nearest(path, offset, share, db, is_copy(known, share, db))
            measured.append((nearest, place, shift))
    return measured


def is_copy(known: KnownClips, share: float, db: float) -> bool:
    """Whether a sound so near to a training clip is a copy of it."""
    return db <= known.threshold_db or (share > COPY_SHARE and db <= 2 * known.threshold_db)


def shared(codes: Tensor, others: Tensor, least: float) -> float:
    """Codes (quantizers, rows, columns) of two sounds → the share of the shorter one's that are equal
    to the other's at the same place, at the best shift; of the longer one's where the shorter has less
    than `least` columns."""
    most = 0
    a, b = codes.shape[2], others.shape[2]
    for shift in range(1 - b, a):
        begin, end = max(0, shift), min(a, shift + b)
        if (end - begin) * codes.shape[0] * codes.shape[1] <= most:
            continue
        same = codes[..., begin:end] == others[..., begin - shift : end - shift]
        most = max(most, int(same.sum()))
    length = min(a, b) if min(a, b) >= least else max(a, b)
    return most / (length * codes.shape[0] * codes.shape[1])


def decibels(
    image: Tensor,
    other: Tensor,
    range_db: float,
    shifts: Sequence[int],
    needs: tuple[bool, bool] = (False, True),
) -> float | None:
    """Spectrograms (bins, frames) in [0, 1] of two sounds → how far apart they are, in dB, at the best of
    some shifts by frames of the second.

    The root mean square is over cells that are loud in either, within the frames that both have but
    EDGE at both ends, once the one is as loud as the other, by LOUDER_DB at most. These frames must hold COVERED of the loud cells of each that `needs` names. None where no shift does.
    """
    floor = 1 - LOUD_DB / range_db
    loud, other_loud = image > floor, other > floor
    (a, b), (own_all, other_all) = (
        (image.shape[1], other.shape[1]),
        (COVERED * int(loud.sum()), COVERED * int(other_loud.sum())),
    )
    if not own_all or not other_all:
        return None
    best = math.inf
    for shift in shifts:
        begin, end = max(0, shift), min(a, shift + b)
        if begin >= end:
            continue
        here, there = slice(begin, end), slice(begin - shift, end - shift)
        own, others = loud[:, here], other_loud[:, there]
        if (needs[0] and int(own.sum()) < own_all) or (needs[1] and int(others.sum()) < other_all):
            continue
        either = own | others
        if end - begin > 10 * EDGE:
            either[:, :EDGE] = either[:, -EDGE:] = False
        if bool(either.any()):
            apart = (image[:, here] - other[:, there])[either]
            louder = float(apart.mean().clamp(-LOUDER_DB / range_db, LOUDER_DB / range_db))
            best = min(best, float((apart - louder).square().mean()))
    return math.sqrt(best) * range_db if best < math.inf else None


def _shortlists(
    model: Model, known: KnownClips, sounds: Sequence[Encoded]
) -> Iterator[list[tuple[int, int]]]:
    """For each sound the nearest clips by the means of `known.bands`: (place, shift in columns)."""
    bands = [_bands(model, sound.codes, known.bands.shape[1]) for sound in sounds]
    longest, widest = max(len(b) for b in bands), int(known.columns.max())
    points = 1 << (longest + widest - 1).bit_length()
    step = max(1, ROOM // (points * known.bands.shape[1]))
    best: list[list[tuple[float, int, int]]] = [[] for _ in sounds]
    starts = nn.functional.pad(known.columns.long().cumsum(0), (1, 0))
    spectra = [torch.fft.rfft(own.T, points) for own in bands]
    for first in range(0, len(known), step):
        counts = known.columns[first : first + step].long()
        clips = torch.zeros(len(counts), int(counts.max()), known.bands.shape[1])
        inside = torch.arange(clips.shape[1]) < counts[:, None]
        rows = known.bands[starts[first] : starts[first + len(counts)]]
        clips[inside] = rows.float() / 255
        energy = _summed(clips.square().sum(dim=2))
        transformed = torch.fft.rfft(clips.transpose(1, 2), points).conj()
        for own, spectrum, ranked in zip(bands, spectra, best, strict=True):
            product = (spectrum * transformed).sum(dim=1)
            matches = torch.fft.irfft(product, points)
            apart, shift = _apart(model, own, matches, energy, counts)
            order = apart.topk(min(SHORTLIST, len(counts)), largest=False).indices
            ranked += zip(
                apart[order].tolist(), (first + order).tolist(), shift[order].tolist(), strict=True
            )
    for ranked in best:
        kept = sorted(ranked)[:SHORTLIST]
        yield [(place, shift) for apart, place, shift in kept if apart < math.inf]


def _apart(
    model: Model, own: Tensor, matches: Tensor, energy: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """How far each clip is from a sound at its best shift, from 0 to 1, and that shift, (clips,) each.

    own (columns, bands); matches (clips, points), circular cross-correlation; energy (clips, columns
    + 1), summed up; counts (clips,).
    """
    width, widest = len(own), energy.shape[1] - 1
    shifts = torch.arange(1 - widest, width)
    begin, end = shifts.clamp(min=0), (shifts + counts[:, None]).clamp(max=width)
    overlap = end - begin
    end = torch.maximum(end, begin)
    summed = _summed(own.square().sum(dim=1)[None])[0]
    ours = summed[end] - summed[begin]
    theirs = energy.gather(1, end - shifts) - energy.gather(1, (begin - shifts).expand_as(end))
    both = ours + theirs
    apart = (both - 2 * matches[:, shifts % matches.shape[1]]) / both.clamp_min(1e-6)
    covers = ours >= COVERED * summed[-1], theirs >= COVERED * energy[:, -1:]
    shorter = torch.where((width < counts)[:, None], covers[0], covers[1])
    least = SHORTEST * model.sample_rate / model.spectrogram.config.hop_length
    short = overlap < least / model.autoencoder.stride[1]
    fits = torch.where(short, covers[0] & covers[1], shorter) & (overlap > 0) & (both > 0)
    values, places = apart.masked_fill(~fits, torch.inf).min(dim=1)
    return values, shifts[places]


def _summed(values: Tensor) -> Tensor:
    """(rows, columns) → (rows, columns + 1): the sums up to each place."""
    return nn.functional.pad(values.cumsum(dim=1), (1, 0))


def _bands(model: Model, codes: Tensor, count: int) -> Tensor:
    """Codes (quantizers, rows, columns) → (columns, bands): the means of what they decode to."""
    stride, columns = model.autoencoder.stride[1], codes.shape[2]
    step = max(1, WINDOW_FRAMES // stride)
    parts = []
    for begin in range(0, columns, step):
        end = min(begin + step, columns)
        image = _spectrogram(model, codes, begin * stride, end * stride)
        parts.append(nn.functional.adaptive_avg_pool2d(image[None], (count, end - begin))[0].T)
    return torch.cat(parts)


def _spectrogram(model: Model, codes: Tensor, begin: int, end: int) -> Tensor:
    """(bins, frames) of codes (quantizers, rows, columns), from one frame to another, on the CPU."""
    with torch.inference_mode():
        return frames_of(model, codes, begin, end)[0, 0].cpu()


def _images(model: Model, clips: Sequence[Tensor]) -> list[Tensor]:
    """Codes (quantizers, rows, columns) → (bins, frames) each, decoded together."""
    images: list[Tensor] = []
    stride = model.autoencoder.stride[1]
    for begin in range(0, len(clips), 64):
        part = clips[begin : begin + 64]
        columns = torch.tensor([clip.shape[2] for clip in part])
        widest = int(columns.max())
        batch = torch.stack([nn.functional.pad(c, (0, widest - c.shape[2])) for c in part])
        with torch.inference_mode():
            made = model.autoencoder.decode(batch.to(model.device), columns)[:, 0].cpu()
        images += [i[:, : n * stride] for i, n in zip(made, columns.tolist(), strict=True)]
    return images


def know(model: Model, train: Split, validation: Split, *, seed: int = 0) -> KnownClips:
    """The codes of a model's training clips, and the decibels that make a copy.

    Codes are the nearest ones, of each clip as it is and of VIEWS less one that begin later. Clips
    beyond MOST_CLIPS, or MOST_CODES, are left out, evenly. The threshold is drawn from real sounds:
    see `_calibrated`.
    """
    stride = model.autoencoder.stride[1]
    views = min(VIEWS, stride)
    each = views * model.vocabulary.slots * int(train.num_frames.float().mean().ceil())
    places = _spread(len(train), max(1, min(MOST_CLIPS, MOST_CODES * stride // each)))
    later = [
        torch.full_like(places, view * stride // views).minimum(train.num_frames[places] - 1)
        for view in range(views)
    ]
    names = [(train.clips[i].path, train.clips[i].offset) for i in places.tolist()]
    known = assembled(
        model,
        [[clip.codes for clip in coded(model, train, places, by)] for by in later],
        names,
        len(train),
        {"threshold_db": 0.0},
    )
    return replace(known, calibration=_calibrated(model, known, train, validation, places, seed))


def assembled(
    model: Model,
    views: Sequence[Sequence[Tensor]],
    names: list[tuple[str, int]],
    of: int,
    calibration: dict[str, float],
) -> KnownClips:
    """Codes (quantizers, rows, columns) of each view of each clip → what a model keeps of them; a view
    has no more columns than the first."""
    first, size = views[0], model.vocabulary.codebook_size
    columns = torch.tensor([clip.shape[2] for clip in first], dtype=torch.int32)
    shape = len(views), int(columns.sum()), *first[0].shape[:2]
    codes = torch.full(shape, -1, dtype=torch.int16 if size < 1 << 15 else torch.int32)
    begins = (columns.cumsum(0) - columns).tolist()
    for kept, view in zip(codes, views, strict=True):
        for begin, clip in zip(begins, view, strict=True):
            kept[begin : begin + clip.shape[2]] = clip.permute(2, 0, 1)
    count = min(BANDS, model.spectrogram.config.bins)
    bands = [
        nn.functional.adaptive_avg_pool2d(image[None], (count, clip.shape[2]))[0].T
        for begin in range(0, len(first), 64)
        for image, clip in zip(
            _images(model, first[begin : begin + 64]), first[begin : begin + 64], strict=True
        )
    ]
    rounded = (255 * torch.cat(bands)).round().clamp(0, 255).to(torch.uint8)
    return KnownClips(codes, rounded, columns, names, of, calibration)


def _calibrated(
    model: Model, known: KnownClips, train: Split, validation: Split, places: Tensor, seed: int
) -> dict[str, float]:
    """The decibels below which a sound is a copy, from what real sounds stand away from their nearest
    training clip: validation clips, which are none, and training clips begun later, which are.

    The threshold is the lowest that tells most of both kinds rightly, with a mistake about a real clip
    weighing MISTAKE times as much, and MISSED copies nothing. `found` and `mistaken` are the shares of them that are called
    copies.
    """
    generator = torch.Generator().manual_seed(seed)
    shifts = torch.randint(1, LATEST + 1, (CALIBRATED,), generator=generator)
    some = places[_spread(len(places), CALIBRATED)]
    frames = train.num_frames[some]
    shifts = torch.minimum(shifts[: len(some)], frames // 4)
    copied = _distances(model, known, coded(model, train, some, shifts))
    real = _distances(model, known, coded(model, validation, _spread(len(validation), CALIBRATED)))
    threshold = 1.0
    if len(real) >= FEWEST:
        both = torch.cat([copied, real]).sort().values
        missed = (copied > both[:, None]).sum(dim=1) / max(1, len(copied)) - MISSED
        mistaken = (real <= both[:, None]).sum(dim=1) / len(real)
        best = (missed.clamp(min=0) + MISTAKE * mistaken).argmin()
        threshold = float(both[best])
        if not mistaken[best]:  # there is room up to the nearest real clip: half of it is taken
            threshold = min(WIDER * threshold, (threshold + float(real.min())) / 2)
    elif len(copied):
        threshold = float(copied.quantile(0.95))
    return {
        "threshold_db": threshold,
        "found": float((copied <= threshold).float().mean()) if len(copied) else 0.0,
        "mistaken": float((real <= threshold).float().mean()) if len(real) else 0.0,
    }


def _distances(model: Model, known: KnownClips, clips: Sequence[Encoded]) -> Tensor:
    """(clips,) decibels to the nearest training clip, of those that can be compared."""
    uncalibrated = replace(known, calibration={"threshold_db": math.inf})
    found = compare(model, clips, uncalibrated)
    return torch.tensor([one.db for one in found if one is not None])


def _spread(count: int, most: int) -> Tensor:
    """Up to `most` places of `count`, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def coded(
    model: Model, split: Split, places: Tensor, shifts: Tensor | None = None
) -> list[Encoded]:
    """Clips of a split, begun some frames later → their nearest codes."""
    clips: list[Encoded] = []
    if not len(places):
        return clips
    shifts = torch.zeros_like(places) if shifts is None else shifts
    for part, later in zip(places.split(64), shifts.split(64), strict=True):
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
    return clips
