"""Editing a recording: variations, continuations, repainted regions.

Waveforms at the model's rate, mono or stereo, go in, new sounds come out. `repaint` and `extend` keep the recording's
samples where nothing is new (`keep_unmasked`, `keep_beginning`); `vary` keeps codes, so the sound is as the model's
codec decodes it. Labels that are not given are inferred from the recording (`infer_labels`): a repainted seven stays
a seven.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from audiovq.audio.channels import to_channels
from audiovq.audio.ends import Spans, add, join
from audiovq.audio.reading import read_channels
from audiovq.audio.resampling import resample as resample_waveform
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.config.checks import derived_seed, require_count, require_seed
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation.generate import batch_size
from audiovq.generation.inpaint import AnyPrior, inpaint
from audiovq.generation.labels import Labels, infer_labels
from audiovq.generation.long import require_samples
from audiovq.generation.sound import Kept, Sound, decode_sounds, end_in_silence, pick_prior, settled
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.sampling import sample
from audiovq.spectral.stft import istft, num_frames, stft

Span = tuple[float, float]
"""From, to."""


def vary(
    model: Model,
    waveform: Waveform,
    n: int = 8,
    strength: float = 0.5,
    labels: Labels | None = None,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    inversion: Inversion = Inversion(),
    seed: int = 0,
) -> list[Sound]:
    """`n` variations of a recording (samples,): each code is resampled with probability `strength`.

    At 0 the result is the recording's nearest codes, decoded; at 1 only its length, level and labels are
    left. Raises AudiovqError where `strength` is not from 0 to 1, or the model has no prior.
    """
    require_strength(strength)
    encoded = encode_nearest(model, waveform)

    def random_masks(count: int, batch_seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(batch_seed)
        return torch.rand(count, *encoded.codes.shape, generator=generator) < strength

    return _resample(model, encoded, random_masks, labels, n, sampling, inversion, seed)


def repaint(
    model: Model,
    waveform: Waveform,
    time: Span | None = None,
    band: Span | None = None,
    labels: Labels | None = None,
    n: int = 1,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    inversion: Inversion = Inversion(),
    seed: int = 0,
) -> list[Sound]:
    """`n` versions of a recording (samples,) with the region given by `time` (seconds), `band` (Hz), or
    both resampled (Bazin et al. 2020, NOTONO).

    All codes that touch the region are resampled, conditioned on all others. Outside of their columns, the
    recording's samples are kept, with a crossfade at each seam: see `keep_unmasked`. Raises AudiovqError where no
    region is given, the region contains no code, or the model has no prior.
    """
    encoded = encode_nearest(model, waveform)
    mask = region_mask(model, encoded, time, band)
    sounds = resample(
        model, encoded, mask, labels, n, sampling=sampling, inversion=inversion, seed=seed
    )
    return [keep_unmasked(model, waveform, sound, mask) for sound in sounds]


def resample(
    model: Model,
    encoded: Encoded,
    mask: Tensor,
    labels: Labels | None = None,
    n: int = 1,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    inversion: Inversion = Inversion(),
    seed: int = 0,
) -> list[Sound]:
    """`n` versions of an encoded sound with the codes where `mask` (rows, columns) is True resampled,
    conditioned on all others. Raises AudiovqError where the model has no prior."""
    return _resample(model, encoded, lambda *_: mask, labels, n, sampling, inversion, seed)


def extend(
    model: Model,
    waveform: Waveform,
    seconds: float | None = None,
    labels: Labels | None = None,
    n: int = 1,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    inversion: Inversion = Inversion(),
    seed: int = 0,
) -> list[Sound]:
    """`n` continuations of a recording (samples,), each `seconds` long in total.

    None: until the autoregressive prior samples END, after at least one new column. The recording's last
    half window is resampled too, because its end is part of those frames; its samples before are kept, with a
    crossfade: see `keep_beginning`. Raises AudiovqError where `seconds` is not longer than the recording, or the model
    has no prior.
    """
    prior, sampling = pick_prior(model, sampling, "time"), settled(model, sampling)
    if seconds is None and not isinstance(prior, Prior):
        raise AudiovqError(
            "continue: the masked prior cannot choose the length; give one with --length"
        )
    length = None if seconds is None else require_samples(model, seconds)
    samples = waveform.shape[-1]
    if length is not None and length <= samples:
        duration = samples / model.sample_rate
        raise AudiovqError(
            f"length {seconds:g}: the recording is already {duration:.2f} s long; give more"
        )
    batches = split_batches(model, n, max(samples, length or 0), seed)
    encoded = encode_nearest(model, waveform)
    prefix = _unaffected_columns(model, encoded)
    row = infer_labels(model, encoded, labels, prefix)
    sounds = []
    for count, batch_seed in batches:
        codes = encoded.codes[None, :, :, :prefix].expand(count, -1, -1, -1)
        rows, levels = row.expand(count, -1), torch.full((count,), encoded.level)
        generator = torch.Generator().manual_seed(batch_seed)
        if length is None:
            assert isinstance(prior, Prior)
            grids = _sample_to_end(prior, codes, rows, levels, sampling, generator)
            hop_length = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
            lengths = [grid.shape[2] * hop_length - 1 for grid in grids]  # the most that fit
        else:
            grids = _sample_to_length(
                model, prior, codes, rows, levels, length, sampling, generator
            )
            lengths = [length] * count
        made = [
            Encoded(*parts) for parts in zip(grids, [encoded.level] * count, lengths, strict=True)
        ]
        decoded = decode_sounds(model, made, labels, inversion, batch_seed)
        ended = [end_in_silence(model, sound, trims=False) for sound in decoded]
        sounds += [keep_beginning(model, waveform, sound, prefix) for sound in ended]
    return sounds


def keep_unmasked(model: Model, original: Waveform, sound: Sound, mask: Tensor) -> Sound:
    """A resampled sound that keeps the samples of `original` (samples,) where no cell of `mask` is True.

    mask (rows, columns), bool. In columns of which some rows are masked, the spectra of both are joined: frequencies
    of masked rows are the sound's, others the original's.
    """
    step = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    made = sound.waveform
    original = to_channels(original, made.ndim)
    columns = mask.any(dim=0)
    change = None
    if not bool(mask.all(dim=0)[columns].all()):
        original = _as_long(original, made.shape[-1])
        made = _joined_spectra(model, original, made, mask)
        change = made - original
    edges = np.flatnonzero(np.diff(columns.int().numpy(), prepend=0, append=0)).reshape(-1, 2)
    spans = [
        (int(first) * step, min(int(last) * step, made.shape[-1]))
        for first, last in edges
        if first * step < made.shape[-1]
    ]
    return _keep(model, original, replace(sound, waveform=made), spans, change)


def keep_beginning(model: Model, original: Waveform, sound: Sound, columns: int) -> Sound:
    """A continuation that keeps the samples of `original` (samples,) before its first new column, `columns`."""
    step = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    num_samples = sound.waveform.shape[-1]
    original = to_channels(original, sound.waveform.ndim)
    begin = min(columns * step, original.shape[-1], num_samples)
    return _keep(model, original, sound, [(begin, num_samples)])


def with_original(kept: Kept, sample_rate: int, source: Path) -> tuple[Waveform, int]:
    """An edited sound with the samples of its recording's file, (channels, samples), and their rate.

    The model reads a recording at its rate and channels, without DC offset and within full scale; so the sound as the
    model made it, at `sample_rate`, is resampled and joined with the file's samples. Where only some frequencies are
    new, their change is resampled and added, to each channel, so that others stay as they are in the file, above the
    model's too. Raises AudiovqError where the file
    cannot be read.
    """
    try:
        original, rate = read_channels(source)
    except AudioError as error:
        raise AudiovqError(f"{source}: {error}") from error
    made = resample_waveform(kept.made if kept.change is None else kept.change, sample_rate, rate)
    if made.ndim == 2 and len(original) == 1:  # a stereo model's, of a mono recording
        original = np.repeat(original, 2, axis=0)
    elif made.ndim == 2 and len(original) > 2:
        made = made.mean(axis=0)
    spans = [(round(a * rate / sample_rate), round(b * rate / sample_rate)) for a, b in kept.spans]
    missing = original.shape[1] - made.shape[-1]
    added = kept.made.shape[-1] / sample_rate - original.shape[1] / rate  # seconds
    if (
        abs(missing) <= rate // 1000 and added <= 1 / sample_rate
    ):  # the same length but for rounding
        made = _as_long(made, original.shape[1])
    if kept.spans and kept.spans[-1][1] >= kept.made.shape[-1]:
        spans[-1] = spans[-1][0], made.shape[-1]
    if kept.change is not None:
        return add(_as_long(original, made.shape[-1]), made, spans, rate), rate
    return join(original, made, spans, rate), rate


def require_strength(strength: float) -> None:
    """Raise AudiovqError where `strength` is not from 0 to 1."""
    if not 0 <= strength <= 1:
        raise AudiovqError(f"strength {strength:g}: give a number from 0 to 1")


def split_batches(model: Model, n: int, num_samples: int, seed: int) -> list[tuple[int, int]]:
    """`n` edited sounds of `num_samples` each, split into batches that fit into memory: (size, seed) each.

    The first batch's seed is `seed` itself, so a batch made alone equals the same batch among all. Raises
    AudiovqError where `n` or `seed` is out of range.
    """
    require_count(n)
    require_seed(seed)
    size = batch_size(model, num_samples)
    return [
        (min(size, n - begin), derived_seed(seed, begin // size) if begin else seed)
        for begin in range(0, n, size)
    ]


def encode_nearest(model: Model, waveform: Waveform) -> Encoded:
    """A waveform (samples,) as its nearest codes, the kind that priors are trained on."""
    return codec.encode(model, [waveform], rate_weight=0)[0]


def region_mask(model: Model, encoded: Encoded, time: Span | None, band: Span | None) -> Tensor:
    """(rows, columns) bool: the codes that touch `time` (seconds) and `band` (Hz); None: no restriction.

    Raises AudiovqError where both are None, or no code touches the region.
    """
    if time is None and band is None:
        raise AudiovqError("repaint: give a time, such as 0.2:0.5, or a band, such as 1000:3000")
    for name, span in (("time", time), ("band", band)):
        if span is not None and not all(map(math.isfinite, span)):
            raise AudiovqError(f"{name} {span[0]:g}:{span[1]:g}: give two numbers, FROM:TO")
    _, rows, columns = encoded.codes.shape
    mask = torch.ones(rows, columns, dtype=torch.bool)
    if time is not None:
        mask &= _columns_in(model, columns, time)
        is_beyond = time[0] * model.sample_rate >= encoded.num_samples
        if not mask.any() or time[1] <= time[0] or is_beyond:
            duration = encoded.num_samples / model.sample_rate
            raise AudiovqError(
                f"time {time[0]:g}:{time[1]:g}: give a start before an end, within {duration:.3g} s"
            )
    if band is not None:
        mask &= _rows_in(model, rows, band)[:, None]
        if not mask.any():
            raise AudiovqError(
                f"band {band[0]:g}:{band[1]:g}: give a wider band, low before high,"
                f" up to {model.sample_rate / 2:g} Hz"
            )
    return mask


def _columns_in(model: Model, columns: int, time: Span) -> Tensor:
    """(columns,) bool: columns of codes that overlap a span of time in seconds."""
    hop_length = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    edges = torch.arange(columns + 1) * hop_length
    last = float(edges[-1])  # integers beyond 64 bits have no tensor
    begin, end = (round(min(max(0.0, t * model.sample_rate), last)) for t in time)
    return (edges[:-1] < end) & (edges[1:] > begin)


def _rows_in(model: Model, rows: int, band: Span) -> Tensor:
    """(rows,) bool: rows of codes that contain a bin centred within a band in Hz."""
    config, stride = model.spectrogram.config, model.autoencoder.stride[0]
    centres = torch.arange(config.n_fft // 2) * (config.sample_rate / config.n_fft)
    if model.spectrogram.mel is not None:
        centres = model.spectrogram.mel.cpu().argmax(dim=1) * config.sample_rate / config.n_fft
    mask = (centres >= band[0]) & (centres <= band[1])
    return nn.functional.pad(mask, (0, rows * stride - len(mask))).view(rows, stride).any(dim=1)


def _resample(
    model: Model,
    encoded: Encoded,
    masks: Callable[[int, int], Tensor],
    labels: Labels | None,
    n: int,
    sampling: SamplingConfig,
    inversion: Inversion,
    seed: int,
) -> list[Sound]:
    """`resample` with masks that differ by sound: `masks` is called with each batch's size and seed."""
    batches = split_batches(model, n, encoded.num_samples, seed)
    prior, sampling = pick_prior(model, sampling, "masked"), settled(model, sampling)
    row = infer_labels(model, encoded, labels)
    sounds = []
    for count, batch_seed in batches:
        codes = inpaint(
            prior,
            encoded.codes.expand(count, -1, -1, -1),
            masks(count, batch_seed),
            torch.full((count,), encoded.level),
            row.expand(count, -1),
            sampling=sampling,
            generator=torch.Generator().manual_seed(derived_seed(batch_seed, 1)),
        )
        made = [Encoded(grid, encoded.level, encoded.num_samples) for grid in codes]
        sounds += decode_sounds(model, made, labels, inversion, batch_seed)
    return sounds


def _unaffected_columns(model: Model, encoded: Encoded) -> int:
    """Number of columns of codes before the recording's last half window; at least 1."""
    config, stride = model.spectrogram.config, model.autoencoder.stride[1]
    columns = (encoded.num_samples - config.n_fft // 2) // (stride * config.hop_length)
    return min(max(1, columns), encoded.codes.shape[2])


def _sample_to_length(
    model: Model,
    prior: AnyPrior,
    codes: Tensor,
    labels: Tensor,
    levels: Tensor,
    num_samples: int,
    sampling: SamplingConfig,
    generator: torch.Generator,
) -> list[Tensor]:
    """Codes (n, quantizers, rows, columns), continued to sounds of `num_samples`."""
    frames = num_frames(num_samples, model.spectrogram.config.hop_length)
    columns, prefix = -(-frames // model.autoencoder.stride[1]), codes.shape[3]
    grid = nn.functional.pad(codes, (0, columns - prefix))
    mask = torch.arange(columns) >= prefix
    return list(inpaint(prior, grid, mask, levels, labels, sampling=sampling, generator=generator))


def _sample_to_end(
    prior: Prior,
    codes: Tensor,
    labels: Tensor,
    levels: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
) -> list[Tensor]:
    """Codes (n, quantizers, rows, columns), each continued until the prior samples END."""
    vocabulary, device = prior.vocabulary, prior.head.weight.device
    before = max(0, codes.shape[3] - vocabulary.max_columns // 2)
    context = codes[..., before:]
    counts = torch.full((len(codes),), context.shape[3])
    tokens = vocabulary.tokens(context, counts, levels)[0][:, :-1].to(device)
    shortest = min(context.shape[3] + 1, vocabulary.max_columns)
    sampled = sample(prior, labels.to(device), sampling, generator, tokens, shortest)
    grids, num_columns, _ = vocabulary.codes(sampled.cpu())
    return [
        torch.cat([head, grid[..., :width]], dim=2)
        for head, grid, width in zip(codes[..., :before], grids, num_columns.tolist(), strict=True)
    ]


def _keep(
    model: Model, original: Waveform, sound: Sound, spans: Spans, change: Waveform | None = None
) -> Sound:
    rate, made = model.sample_rate, sound.waveform
    waveform = (
        join(original, made, spans, rate) if change is None else add(original, change, spans, rate)
    )
    return replace(sound, waveform=waveform, kept=Kept(made, tuple(spans), change))


def _as_long(waveform: Waveform, num_samples: int) -> Waveform:
    """A waveform (samples,) or (channels, samples), cut or filled up with zeros to `num_samples`."""
    missing = max(0, num_samples - waveform.shape[-1])
    widths = [(0, 0)] * (waveform.ndim - 1) + [(0, missing)]
    return np.pad(waveform, widths)[..., :num_samples]


def _joined_spectra(model: Model, original: Waveform, made: Waveform, mask: Tensor) -> Waveform:
    """`made` at the frequencies of the masked rows of each column, `original` at all others; both (samples,) or both
    (2, samples)."""
    if made.ndim == 2:
        pairs = zip(original, made, strict=True)
        return np.stack([_joined_spectra(model, *pair, mask) for pair in pairs])
    config, (tall, wide) = model.spectrogram.config, model.autoencoder.stride
    spectra = stft(torch.from_numpy(np.stack([original, made])), config.n_fft, config.hop_length)
    bins, frames = spectra.shape[1:]
    bands = torch.arange(bins).clamp(max=config.bins - 1)
    if model.spectrogram.mel is not None:
        bands = _bands_of_bins(model.spectrogram.mel.cpu())
    rows = bands // tall
    chosen = mask[rows][:, (torch.arange(frames) // wide).clamp(max=mask.shape[1] - 1)]
    spectrum = torch.where(chosen, spectra[1], spectra[0])
    joined: Waveform = istft(
        spectrum[None], config.n_fft, config.hop_length, torch.tensor([len(made)])
    )[0].numpy()
    return joined


def _bands_of_bins(filters: Tensor) -> Tensor:
    """The band (bins,) that each bin contributes to most, of filters (bands, bins); beyond the ends the nearest."""
    bands = filters.argmax(dim=0)
    covered = filters.amax(dim=0) > 0
    first, last = (int(i) for i in covered.nonzero()[[0, -1], 0])
    bands[:first], bands[last + 1 :] = bands[first], bands[last]
    return bands
