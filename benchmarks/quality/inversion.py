"""Ways to invert spectrograms, on validation clips of a set of real sounds, true or as a model decodes them.

    python benchmarks/quality/inversion.py notes --files 30
    python benchmarks/quality/inversion.py fsdd --model audiovq/pretrained/digits --out inversion-fsdd.json

smooth    Griffin-Lim that holds the least-squares magnitudes of the bins, 16 and 48 iterations
bands     Griffin-Lim that holds the bands, as `audiovq` does it
no grain  the same from a start without grain
noise     the same from random phases
admm      the alternating direction method of multipliers with the bands as constraint: Y. Masuyama, N. Ueno,
          N. Ono, arXiv 2501.05557 (2025), with multiplicative steps to the bands, damped by one half
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import numpy as np
import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

from audiovq.audio.waveform import Waveform
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion
from audiovq.config.serialize import to_json
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.evaluation import originals
from audiovq.evaluation.envelopes import envelope_figures
from audiovq.evaluation.fidelity import speech_scores
from audiovq.models.checkpoint import load
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.files import write_json
from audiovq.spectral.griffin_lim import griffin_lim
from audiovq.spectral.pghi import pghi
from audiovq.spectral.spectrogram import Spectrogram
from audiovq.spectral.stft import Packing
from benchmarks.command import refusing
from benchmarks.provenance import stamp
from benchmarks.quality.packages import visqol
from benchmarks.quality.sets import SETS, SHARED, recordings

Invert = Callable[[Spectrogram, Tensor, Tensor, Tensor], Tensor]
"""(spectrogram, images (batch, 1, bins, frames), levels, num_samples (batch,)) → waveforms (batch, samples)."""


@dataclass(frozen=True)
class Settings:
    """Compare ways to invert spectrograms."""

    set: Positional[Literal["drums", "body", "foley", "notes", "fsdd"]]
    """Name of the set."""
    files: int = 30
    """Validation recordings, at most."""
    seconds: float = 60.0
    """Their total duration, about."""
    n_fft: int | None = None
    hop_length: int | None = None
    n_mels: int | None = None
    """As in `preprocess`."""
    model: Path | None = None
    """Invert what this model decodes, in place of true spectrograms; its spectrogram settings are used."""
    shared: Path = SHARED
    """Folder with `sounds` and `fsdd`."""
    out: Path | None = None
    """JSON file for the figures."""


def smooth(n_iter: int) -> Invert:
    """Hold the bins' least-squares magnitudes."""

    def invert(
        spectrogram: Spectrogram, images: Tensor, levels: Tensor, num_samples: Tensor
    ) -> Tensor:
        grid = spectrogram.config.n_fft, spectrogram.config.hop_length
        magnitude = spectrogram.magnitude(images)
        phase = pghi(magnitude, *grid, num_samples)
        made = griffin_lim(magnitude, *grid, num_samples, n_iter=n_iter, phase=phase)
        return made * _gain(spectrogram, levels)

    return invert


def held(spectrogram: Spectrogram, images: Tensor, levels: Tensor, num_samples: Tensor) -> Tensor:
    """Hold the bands, from PGHI's phases and magnitudes without grain."""
    grid = spectrogram.config.n_fft, spectrogram.config.hop_length
    magnitude = spectrogram.magnitude(images)
    made = griffin_lim(
        magnitude,
        *grid,
        num_samples,
        n_iter=48,
        phase=pghi(magnitude, *grid, num_samples),
        bands=spectrogram.bands,
        wanted=spectrogram.linear(images),
    )
    return made * _gain(spectrogram, levels)


def admm(spectrogram: Spectrogram, images: Tensor, levels: Tensor, num_samples: Tensor) -> Tensor:
    """Alternate between consistent spectra and spectra with the bands, with a damped dual variable."""
    config, bands = spectrogram.config, spectrogram.bands
    assert bands is not None  # checked in `main`
    magnitude = spectrogram.magnitude(images)
    phase = pghi(magnitude, config.n_fft, config.hop_length, num_samples)
    packing = Packing(num_samples, config.n_fft, config.hop_length, envelope_floor=0.1)
    wanted = packing.pack(spectrogram.linear(images))
    close = torch.polar(packing.pack(magnitude), packing.pack(phase))
    dual = torch.zeros_like(close)
    for _ in range(48):
        consistent = packing.analyse(packing.synthesise(close + dual))
        dual = 0.5 * (dual + close - consistent)
        close = consistent - dual
        close = close * bands.gain(close.abs(), wanted)
    return packing.unpack(packing.synthesise(close)) * _gain(spectrogram, levels)


def _gain(spectrogram: Spectrogram, levels: Tensor) -> Tensor:
    return 10 ** (spectrogram.level_db(levels)[:, None] / 20) * (spectrogram.config.n_fft / 4)


def _as_audiovq(phase: Literal["pghi", "griffin-lim"]) -> Invert:
    def invert(spectrogram: Spectrogram, images: Tensor, levels: Tensor, length: Tensor) -> Tensor:
        return spectrogram.inverse(images, levels, length, inversion=Inversion(phase))

    return invert


WAYS: dict[str, Invert] = {
    "smooth, 16": smooth(16),
    "smooth, 48": smooth(48),
    "bands": _as_audiovq("pghi"),
    "no grain": held,
    "noise": _as_audiovq("griffin-lim"),
    "admm": admm,
}


def figures(
    real: list[Waveform], made: list[Waveform], rate: int, hop_length: int, speech: bool
) -> dict[str, Any]:
    """ViSQOL, or PESQ and ESTOI of speech, and figures of the envelopes."""
    scores = speech_scores(real, made, rate) if speech else {}
    if not speech:
        pairs = zip(real, made, strict=True)
        scores["visqol"] = float(np.mean([visqol(a, b, rate) for a, b in pairs]))
    rounded = {name: round(score, 3) for name, score in scores.items()}
    return rounded | envelope_figures(made, rate, hop_length / rate)


def read(settings: Settings, model: Model | None) -> tuple[list[Waveform], Spectrogram]:
    """Beginnings of validation recordings, and the spectrogram that the recordings or the model ask for."""
    chosen = SETS[settings.set]
    grid = settings.n_fft, settings.hop_length, settings.n_mels
    asked = PreprocessConfig(None, None, *grid, labels=chosen.labels, test=chosen.test)
    if model is not None:
        if any(grid):
            raise AudiovqError(
                "--n-fft, --hop-length and --n-mels are those of --model; leave them out"
            )
        asked = asked.like(model.spectrogram.config, str(settings.model))
    with tempfile.TemporaryDirectory() as work:
        source = recordings(chosen, settings.shared, Path(work))
        preprocess(source, Path(work) / "dataset", asked, say=lambda _: None)
        dataset = Dataset(Path(work) / "dataset", source)
        found = originals.beginnings(dataset, dataset.validation, total_seconds=settings.seconds)
        real = list(itertools.islice(found, settings.files))
    spectrogram = model.spectrogram if model else Spectrogram(dataset.spectrogram)
    if spectrogram.bands is None:
        raise AudiovqError("linear spectrograms have one way: give mel bands")
    return real, spectrogram


def main(settings: Settings) -> None:
    """Measure, print, and write if asked to."""
    model = load(settings.model) if settings.model else None
    real, spectrogram = read(settings, model)
    config, speech = spectrogram.config, SETS[settings.set].speech
    grid = config.sample_rate, config.hop_length, speech
    rows = {"real": figures(real, real, *grid)}
    with torch.inference_mode():
        clips = []
        for waveform in real:
            images, level = spectrogram(torch.from_numpy(waveform)[None])
            if model is not None:
                output = model.autoencoder(images, torch.tensor([images.shape[3]])).spectrogram
                images = model.autoencoder.apply_contrast(output)
            clips.append((images, level, torch.tensor([len(waveform)])))
        for name, invert in WAYS.items():
            begin = time.perf_counter()
            made = [invert(spectrogram, *clip)[0].numpy() for clip in clips]
            seconds = time.perf_counter() - begin
            rows[name] = {"seconds": round(seconds, 2), **figures(real, made, *grid)}
            print(name, rows[name], flush=True)
    if settings.out:
        described = {
            "set": settings.set,
            "model": None if settings.model is None else settings.model.name,
            "spectrogram": to_json(config),
        }
        write_json(settings.out, stamp() | {"settings": described, "rows": rows})


if __name__ == "__main__":
    with refusing("inversion"):
        main(tyro.cli(Settings, description=__doc__))
