"""Stereo: ways to code two channels, and a stereo model beside a mono one.

    python benchmarks/quality/stereo.py body
    python benchmarks/quality/stereo.py body --minutes 6 --work WORK --out body.json

Measured are the recordings of a split that are truly stereo (`audio.channels.is_stereo`), up to `--files` of them and
the first seconds of each. First, true spectrograms are inverted: of left and right apart, of mid and side, and of
loudness, balance and coherence. Then, with `--minutes`, a stereo model is trained for so long, and a mono one whose
autoencoder takes as many steps, without a prior. Both code the same recordings: the mono one their mean. "In the
middle" are recordings of that mean in both channels, coded by the stereo model; their price is the ratio of their bits
to those of the mono model.

Columns: ViSQOL (as `sounds.py`) of left and of right, averaged; of the sum of both channels against that of the
recording; the median over loud cells of the errors of balance, in dB, and of coherence, the correlation of both channels
from -1 to 1; bit/s of an archive without names. "Hard left" is the level of the right channel, relative to the left
one, of sounds that were in the left channel alone. The cells are apart from the codec's own: 24 mel bands of windows of
2,048 samples, averaged over four, within 30 dB of the loudest of a recording.

Of new sounds, the distances (Kolmogorov and Smirnov, 0 to 1) between the distributions of coherence and of balance
over loud cells and those of the split's clips are stated, beside those of training clips.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import numpy as np
import numpy.typing as npt
import torch
import tyro
from scipy.stats import ks_2samp
from tyro.conf import Positional

from audiovq.audio.channels import is_stereo
from audiovq.audio.waveform import Waveform
from audiovq.codec import archive, codec
from audiovq.config.presets import PRESETS
from audiovq.config.settings import TrainConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset, Split
from audiovq.evaluation import originals
from audiovq.generation.generate import generate
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.files import write_json
from audiovq.spectral.inversion import invert
from audiovq.spectral.scale import mel_bands
from audiovq.spectral.spectrogram import Spectrogram
from audiovq.spectral.stft import stft
from audiovq.training.run import train
from benchmarks.command import refusing
from benchmarks.provenance import stamp
from benchmarks.quality.packages import visqol
from benchmarks.quality.sets import SETS, SHARED, recordings
from benchmarks.quality.stated import data_of, trained_minutes

WINDOW, HOP, BANDS, AVERAGED = 2048, 512, 24, 4
LOUD_DB = 30.0
"""Cells within this of a recording's loudest are loud."""
MOST_DB = 30.0
"""Balances are clamped to this."""
SECONDS = 3.0
"""Beginning of a recording that is measured."""
Floats = npt.NDArray[np.float64]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Measure stereo on a set of real sounds."""

    set: Positional[Literal["body", "drums"]]
    split: Literal["validation", "test"] = "validation"
    minutes: float = 0.0
    """Time limit of the training in stereo; 0: only true spectrograms are measured."""
    steps: int | None = None
    """Steps of both autoencoders, which are trained alone, within `--minutes`; None: as many as the stereo one takes
    in its share of `--minutes`."""
    preset: str = "small"
    n: int = 100
    """New sounds of the stereo model; 0: none."""
    files: int = 24
    """Recordings that are measured, at most."""
    shared: Path = SHARED
    """Folder with `sounds`."""
    recordings: Path | None = None
    """Folder of the set's recordings; None: where `sets.py` says."""
    work: Path | None = None
    """Folder for datasets and models; a training in it is resumed. None: a new temporary folder."""
    out: Path | None = None
    """JSON file for the figures."""


@dataclass(frozen=True)
class Cells:
    """What a stereo waveform is like in each band and frame."""

    power: Floats
    """(bands, frames) of both channels."""
    balance: Floats
    """(bands, frames) dB, right over left, -MOST_DB to MOST_DB."""
    coherence: Floats
    """(bands, frames) correlation, -1 to 1."""

    @property
    def loud(self) -> npt.NDArray[np.bool_]:
        """(bands, frames)"""
        found: npt.NDArray[np.bool_] = self.power > self.power.max() * 10 ** (-LOUD_DB / 10)
        return found


def cells(stereo: Waveform, rate: int) -> Cells:
    """Cells of a waveform (2, samples)."""
    spectrum = stft(torch.from_numpy(np.pad(stereo, ((0, 0), (0, WINDOW)))), WINDOW, HOP).numpy()
    left, right = spectrum.astype(np.complex128)
    filters = mel_bands(rate, WINDOW, BANDS)
    kernel = np.ones(AVERAGED)
    powers = [
        np.stack([np.convolve(row, kernel) for row in filters @ (a * b.conj()).real])
        for a, b in ((left, left), (right, right), (left, right))
    ]
    first, second, cross = powers
    smallest = 1e-12 * max(1e-12, float((first + second).max()))
    ratio = 10 * np.log10((second + smallest) / (first + smallest))
    return Cells(
        first + second,
        ratio.clip(-MOST_DB, MOST_DB),
        cross / np.sqrt(first * second).clip(smallest),
    )


def row(
    name: str,
    real: Sequence[Waveform],
    made: Sequence[Waveform],
    rate: int,
    bits: float | None = None,
) -> Figures:
    """All figures of stereo waveforms made from recordings."""
    sides, sums, balances, coherences = [], [], [], []
    for original, other in zip(real, made, strict=True):
        pairs = zip(original, other, strict=True)
        sides.append(np.mean([visqol(a, b, rate) for a, b in pairs if a.any()]))
        sums.append(visqol(original.mean(axis=0), other.mean(axis=0), rate))
        wanted, found = cells(original, rate), cells(other, rate)
        loud = wanted.loud
        balances.append(np.abs(wanted.balance - found.balance)[loud])
        audible = loud & (np.abs(wanted.balance) < 20)
        coherences.append(np.abs(wanted.coherence - found.coherence)[audible])
    return {
        "name": name,
        "visqol_sides": float(np.mean(sides)),
        "visqol_sum": float(np.mean(sums)),
        "balance_error_db": float(np.median(np.concatenate(balances))),
        "coherence_error": float(np.median(np.concatenate(coherences))),
        "bits_per_second": bits,
    }


def mono_row(
    name: str,
    real: Sequence[Waveform],
    made: Sequence[Waveform],
    rate: int,
    bits: float | None = None,
) -> Figures:
    """ViSQOL of mono waveforms made from the sums of recordings."""
    scores = [visqol(a.mean(axis=0), b, rate) for a, b in zip(real, made, strict=True)]
    return {"name": name, "visqol_sum": float(np.mean(scores)), "bits_per_second": bits}


def of_true_spectrograms(real: Sequence[Waveform], dataset: Dataset) -> list[Figures]:
    """Rows of the ways to code two channels, by inverted true spectrograms."""
    stereo = Spectrogram(dataset.spectrogram)
    mono = Spectrogram(dataclasses.replace(dataset.spectrogram, channels=1))
    rate = dataset.spectrogram.sample_rate
    mid, side, left, right = (
        invert(mono, [np.ascontiguousarray(part) for part in parts])
        for parts in (
            [w.mean(axis=0) for w in real],
            [(w[0] - w[1]) / 2 for w in real],
            [w[0] for w in real],
            [w[1] for w in real],
        )
    )
    apart = [np.stack(pair) for pair in zip(left, right, strict=True)]
    sums = [np.stack([a + b, a - b]) for a, b in zip(mid, side, strict=True)]
    return [
        mono_row("mono: the sum alone", real, mid, rate),
        row("left and right apart", real, apart, rate),
        row("mid and side", real, sums, rate),
        row("loudness, balance, coherence", real, invert(stereo, real), rate),
    ]


def coded(
    model: Model, waveforms: Sequence[Waveform], seconds: float
) -> tuple[list[Waveform], float]:
    """Waveforms as decoded from one archive, and its bit/s without names."""
    encoded = codec.encode(model, waveforms)
    packed = archive.pack(model, {str(i): sound for i, sound in enumerate(encoded)})
    decoded = codec.decode(model, list(archive.unpack(model, packed).values()))
    return decoded, 8 * archive.size_without_names(packed) / seconds


def hard_left_db(model: Model, real: Sequence[Waveform]) -> list[float]:
    """Level in dB of the right channel over the left one, of decoded sounds that were in the left one alone; median
    and highest."""
    alone = [np.stack([w.mean(axis=0), np.zeros_like(w[0])]) for w in real]
    decoded = codec.decode(model, codec.encode(model, alone))
    powers = [np.square(w, dtype=np.float64).sum(axis=1) + 1e-20 for w in decoded]
    levels = [float(10 * np.log10(right / left)) for left, right in powers]
    return [float(np.median(levels)), max(levels)]


def distances(some: Sequence[Waveform], others: Sequence[Waveform], rate: int) -> Figures:
    """Distances between the distributions of coherence and balance over the loud cells of two sets of sounds."""
    figures = {}
    for name in ("coherence", "balance"):
        pooled = []
        for sounds in (some, others):
            found = [cells(w, rate) for w in sounds if w.any()]
            pooled.append(np.concatenate([getattr(c, name)[c.loud] for c in found]))
        figures[name] = round(float(ks_2samp(*pooled).statistic), 3)
    return figures


def trained(
    settings: Settings, datasets: dict[str, Dataset], work: Path
) -> tuple[dict[str, Model], dict[str, float | None]]:
    """A stereo model, trained for `--minutes`, and a mono one whose autoencoder takes as many steps; or both for
    `--steps`. And the time limits of both trainings, in minutes."""
    whole = dataclasses.replace(PRESETS[settings.preset], max_minutes=settings.minutes)
    models: dict[str, Model] = {}
    minutes: dict[str, float | None] = {}
    steps = settings.steps
    for channels in ("stereo", "mono"):
        config = whole if steps is None else alone(whole, steps)
        folder = work / f"{settings.set}-{channels}"
        models[channels] = train(datasets[channels], folder, config, device="cpu", say=_say)
        minutes[channels] = trained_minutes(folder)
        summary = models[channels].header["autoencoder"]["summary"]
        steps = steps or round(summary["step"] / summary["progress"])  # of all, not of the best
    return models, minutes


def alone(config: TrainConfig, steps: int) -> TrainConfig:
    """The training of an autoencoder and its context tables alone, in `steps` steps."""
    return dataclasses.replace(
        config,
        autoencoder_share=1.0,
        vivid_share=0.0,
        masked_share=0.0,
        autoencoder_training=dataclasses.replace(config.autoencoder_training, steps=steps),
    )


def measure(settings: Settings) -> Figures:
    """All figures."""
    sounds = SETS[settings.set]
    work = settings.work or Path(tempfile.mkdtemp(prefix="audiovq-stereo-"))
    source = settings.recordings or recordings(sounds, settings.shared, work)
    datasets = {}
    for channels in ("mono", "stereo"):
        folder = work / f"{sounds.name}-{channels}-dataset"
        config = PreprocessConfig(labels=sounds.labels, test=sounds.test, channels=channels)
        preprocess(source, folder, config, say=_say)
        datasets[channels] = Dataset(folder, source)
    dataset = datasets["stereo"]
    split: Split = getattr(dataset, settings.split)
    found = originals.beginnings(dataset, split, seconds=SECONDS)
    real = list(itertools.islice((w for w in found if is_stereo(w)), settings.files))
    rate, seconds = dataset.spectrogram.sample_rate, 0.0
    seconds = sum(w.shape[1] for w in real) / rate
    figures: Figures = {
        **stamp(),
        "set": sounds.name,
        "data": data_of(sounds, dataset, settings.recordings),
        "split": settings.split,
        "recordings": len(real),
        "seconds": round(seconds, 1),
        "rows": of_true_spectrograms(real, dataset),
    }
    if not settings.minutes:
        return figures
    models, figures["minutes"] = trained(settings, datasets, work)
    mono, stereo = models["mono"], models["stereo"]
    figures["steps"] = {c: m.header["autoencoder"]["summary"]["step"] for c, m in models.items()}
    rows, sums = figures["rows"], [w.mean(axis=0) for w in real]
    made, mono_bits = coded(mono, sums, seconds)
    rows.append(mono_row("mono model", real, made, rate, mono_bits))
    halves = [codec.decode(mono, codec.encode(mono, [w[i] for w in real])) for i in range(2)]
    apart = [np.stack(pair) for pair in zip(*halves, strict=True)]
    rows.append(row("mono model, left and right apart", real, apart, rate))
    made, bits = coded(stereo, real, seconds)
    rows.append(row("stereo model", real, made, rate, bits))
    made, bits = coded(stereo, [np.stack([w, w]) for w in sums], seconds)
    middle = [w.mean(axis=0) for w in made]
    rows.append(mono_row("stereo model, in the middle", real, middle, rate, bits))
    figures["price_of_the_middle"] = round(bits / mono_bits, 3)
    figures["hard_left_db"] = hard_left_db(stereo, real)
    if settings.n and stereo.prior is not None:
        new = [s.waveform for s in generate(stereo, settings.n, seed=1, keep_copies=True)]
        clips = originals.whole_clips(dataset, split, settings.n)
        training = originals.whole_clips(dataset, dataset.train, len(clips))
        figures["new_sounds"] = distances(new, clips, rate)
        figures["training_clips"] = distances(training, clips, rate)
    return figures


COLUMNS = {
    "visqol_sides": ("ViSQOL left, right", "{:.3f}"),
    "visqol_sum": ("of the sum", "{:.3f}"),
    "balance_error_db": ("balance dB", "{:.2f}"),
    "coherence_error": ("coherence", "{:.3f}"),
    "bits_per_second": ("bit/s", "{:,.0f}"),
}


def table(figures: Figures) -> str:
    """The figures as Markdown."""
    lines = [
        f"{figures['set']}, {figures['split']}: {figures['recordings']} stereo recordings,"
        f" {figures['seconds']} s",
        "",
        "| | " + " | ".join(title for title, _ in COLUMNS.values()) + " |",
        "|---" * (1 + len(COLUMNS)) + "|",
    ]
    for found in figures["rows"]:
        values = [
            "" if found.get(key) is None else form.format(found[key])
            for key, (_, form) in COLUMNS.items()
        ]
        lines.append(f"| {found['name']} | " + " | ".join(values) + " |")
    lines.append("")
    lines += [
        f"{key}: {figures[key]}"
        for key in ("steps", "price_of_the_middle", "hard_left_db", "new_sounds", "training_clips")
        if key in figures
    ]
    return "\n".join(lines)


def main(settings: Settings) -> None:
    """Measure, print and write."""
    figures = measure(settings)
    print(table(figures))
    if settings.out is not None:
        write_json(settings.out, figures)


def _say(line: str) -> None:
    """Print to standard error: standard output has the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    with refusing("stereo"):
        main(tyro.cli(Settings))
