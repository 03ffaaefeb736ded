"""Fifty clips: a training from a model that ships, against one from scratch on the same clips, and on all of their kinds.

    python benchmarks/quality/fifty.py drums prepare --work W
    python benchmarks/quality/fifty.py drums train --arm seed --minutes 5 --work W
    python benchmarks/quality/fifty.py drums measure --work W --out fifty-drums.json

The sets: kick, snare and hat of `drums`, without the kits that the model has learnt from; cello and steel guitar of
`notes`; dog of `foley`, which the model has not learnt. Files are divided at random: held-out test files, files with
fifty clips, and the rest. The arms: `seed` (fifty clips, from the model), `fifty` (the same, from scratch), `all` (all
but the test files, from scratch). Trainings from scratch have default settings, those of the preset small.

Each arm makes new sounds as `audiovq generate` does: near copies are sampled again. Two judges (`classifier.py`,
`listener.py`), trained on all other clips of all kinds of the set, name the new sounds, and give Fréchet distances to
the test clips, beside those of reconstructed test clips, and of the training clips.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

from audiovq.audio.channels import to_channels
from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.config.presets import PRESETS
from audiovq.config.sampling import Inversion
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset, Split
from audiovq.evaluation import classifier, listener
from audiovq.evaluation.distances import class_spreads, frechet_distance
from audiovq.evaluation.originals import clip_waveforms
from audiovq.generation.copies import compare
from audiovq.generation.generate import generate
from audiovq.models.checkpoint import load
from audiovq.models.folder import spectrogram_of
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.files import read_json, write_json
from audiovq.spectral.spectrogram import Spectrogram, waveform_images
from audiovq.training.origin import Origin
from audiovq.training.run import train
from benchmarks.command import refusing
from benchmarks.provenance import stamp
from benchmarks.quality.sets import SETS, SHARED, recordings
from benchmarks.quality.stated import trained_minutes

LEARNT_KITS = "Audiophob", "rumpf_kit_z01_h2"
"""Kits of `drums` that the model `sounds` has learnt from."""
FOLDERS = {"seed": "fifty", "fifty": "fifty", "all": "all"}
"""Folder of files that each arm learns from."""
Figures = dict[str, Any]


@dataclass(frozen=True)
class Division:
    """How the files of a kind are divided."""

    test: int
    fifty: int


KINDS: dict[str, dict[str, Division]] = {
    "drums": {"kick": Division(15, 17), "snare": Division(20, 17), "hat": Division(20, 16)},
    "notes": {"cello": Division(30, 25), "steelguitar": Division(30, 25)},
    "foley": {"dog-bark": Division(14, 18)},
}
"""Files of each kind of the sets. A file of `foley` has up to three clips."""


@dataclass(frozen=True)
class Settings:
    """Trainings on fifty clips."""

    set: Positional[Literal["drums", "notes", "foley"]]
    do: Positional[Literal["prepare", "train", "measure"]]
    work: Path
    """Folder for files, datasets and models."""
    arm: Literal["seed", "fifty", "all"] = "seed"
    """What to train."""
    name: str | None = None
    """Name of the model in `work`; None: the arm's name. An arm may be trained several times."""
    models: tuple[str, ...] = ("seed", "fifty", "all")
    """Names of the models to measure."""
    minutes: float = 5.0
    """Time limit of a training."""
    seed_model: str | None = None
    """The model that the arm `seed` starts from; None: `notes` for notes, `sounds` for the other sets."""
    n: int = 150
    """Number of new sounds."""
    seed: int = 0
    """Seed of judges and new sounds."""
    shared: Path = SHARED
    """Folder with `sounds`."""
    out: Path | None = None
    """JSON file for the figures; those of other sets already in it stay."""

    @property
    def started_from(self) -> str:
        """`seed_model`, or the one for the set."""
        return self.seed_model or ("notes" if self.set == "notes" else "sounds")


def prepare(settings: Settings) -> None:
    """Divide the files, by links, and make the datasets."""
    work, wanted = settings.work, KINDS[settings.set]
    source = recordings(SETS[settings.set], settings.shared, work)
    files: dict[str, list[Path]] = {}
    for path in (p for p in source.rglob("*") if p.is_file()):
        kind = path.name.partition("_")[0] if settings.set == "notes" else path.parent.name
        if not path.name.startswith(LEARNT_KITS):
            files.setdefault(kind, []).append(path)
    for kind, paths in files.items():
        paths.sort(key=lambda p: hashlib.sha256(p.name.encode()).hexdigest())
        for number, path in enumerate(paths):
            role = _role(number, wanted[kind]) if kind in wanted else "rest"
            _link(path, work / "judge" / kind / f"{role}__{path.name}")
            for arm in ("fifty", "all") if kind in wanted else ():
                if role == "fifty" or (role == "rest" and arm == "all"):
                    _link(path, work / arm / kind / f"{role}__{path.name}")
    mono = PreprocessConfig(
        labels="folder", test=r"test__", channels="mono", n_fft=1_024, hop_length=256, n_mels=128
    )
    preprocess(work / "judge", work / "judge-dataset", mono)
    plain = PreprocessConfig(labels="folder", test_share=0.0)
    like = plain.like(spectrogram_of(settings.started_from), settings.started_from)
    preprocess(work / "fifty", work / "seed-dataset", like)
    for arm in ("fifty", "all"):
        preprocess(work / arm, work / f"{arm}-dataset", plain)


def _role(number: int, division: Division) -> str:
    """What the file of this number in its kind is for."""
    if number < division.test:
        return "test"
    return "fifty" if number < division.test + division.fifty else "rest"


def _link(path: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        os.symlink(path.resolve(), link)


def _folder(work: Path, name: str) -> Path:
    """Folder of the model of a name."""
    return work / f"{name}-model"


def train_arm(settings: Settings) -> None:
    """Train one arm; again, it resumes."""
    work, arm, config = settings.work, settings.arm, PRESETS["small"]
    origin = settings.started_from if arm == "seed" else None
    if origin is not None:
        config = Origin.read(origin).adopt(config)
    config = dataclasses.replace(config, max_minutes=settings.minutes)
    model = _folder(work, settings.name or arm)
    earlier = _seconds_before(model)
    began = time.perf_counter()
    train(work / f"{arm}-dataset", model, config, origin=origin, device="cpu")
    seconds = None if earlier is None else round(earlier + time.perf_counter() - began, 1)
    write_json(model / "took.json", {"arm": arm, "seconds": seconds})


def _seconds_before(model: Path) -> float | None:
    """Seconds of the runs so far that trained the model in a folder; None where one was stopped, as it noted none."""
    if not (model / "training" / "settings.json").exists():
        return 0.0
    took = model / "took.json"
    seconds = read_json(took, "a training")["seconds"] if took.exists() else None
    return None if seconds is None else float(seconds)


class Judges:
    """Two judges of a set, and their features of its test clips."""

    def __init__(self, dataset: Dataset, kinds: Sequence[str], seed: int) -> None:
        self.dataset = dataset
        ((self.label, self.values),) = dataset.labels.items()
        self.first = classifier.train_classifier(
            [dataset.train, dataset.validation], seed, pool=classifier.pooling(dataset.spectrogram)
        )
        learnt = list(clip_waveforms(dataset, dataset.train.clips))
        self.second = listener.train_listener(
            [self._mel(waveform) for waveform in learnt if waveform is not None],
            dataset.train.label_indices,
            [len(self.values)],
            seed,
        )
        self.test = self.of(self.waveforms(dataset.test, kinds))

    def waveforms(self, split: Split, kinds: Iterable[str], role: str = "") -> list[Waveform]:
        """Recordings of the clips of some kinds, of files of a role."""
        clips = [
            clip
            for clip in split.clips
            if clip.labels[self.label] in kinds and Path(clip.path).name.startswith(role)
        ]
        return [one for one in clip_waveforms(self.dataset, clips) if one is not None]

    def of(self, waveforms: Sequence[Waveform]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Features by both judges, and probabilities of the values by each."""
        mono = [to_channels(waveform, 1) for waveform in waveforms]
        images = waveform_images(Spectrogram(self.dataset.spectrogram), mono)
        one = classifier.judge(self.first, list(images))
        two = listener.listen(self.second, [self._mel(waveform) for waveform in mono])
        return one.features, two.features, [one.probabilities[0], two.probabilities[0]]

    def figures(self, waveforms: Sequence[Waveform], kinds: Sequence[str]) -> Figures:
        """Fréchet distances to the test clips, by both judges, and the share of sounds whose kinds are named."""
        first, second, probabilities = self.of(waveforms)
        asked = torch.tensor([self.values.index(kind) for kind in kinds])
        spreads = class_spreads(first, asked[:, None])
        return {
            "sounds": len(waveforms),
            "frechet": [
                round(frechet_distance(first, self.test[0]), 2),
                round(frechet_distance(second, self.test[1]), 2),
            ],
            "named": [
                round(float((p.argmax(1) == asked).float().mean()), 3) for p in probabilities
            ],
            "diversity": round(sum(spreads.values()) / max(1, len(spreads)), 2),
        }

    def _mel(self, waveform: Waveform) -> Tensor:
        return listener.mel_image(waveform, self.dataset.spectrogram.sample_rate)


def measure(settings: Settings) -> Figures:
    """Figures of real clips and of each model."""
    work, kinds = settings.work, list(KINDS[settings.set])
    dataset = Dataset(work / "judge-dataset", work / "judge")
    judges = Judges(dataset, kinds, settings.seed)
    figures: Figures = {**stamp(), "test_clips": len(judges.test[0])}
    for name, split, role in (
        ("test clips", dataset.test, ""),
        ("training clips of the fifty", dataset.train, "fifty"),
        ("all training clips", dataset.train, ""),
    ):
        chosen = [
            clip
            for clip in split.clips
            if clip.labels[judges.label] in kinds and Path(clip.path).name.startswith(role)
        ]
        waveforms = [one for one in clip_waveforms(dataset, chosen) if one is not None]
        figures[name] = judges.figures(waveforms, [c.labels[judges.label] for c in chosen])
        print(name, figures[name], flush=True)
    for name in settings.models:
        figures[name] = of_model(settings, judges, load(_folder(work, name)), kinds)
        figures[name] |= read_json(_folder(work, name) / "took.json", "a training")
        figures[name]["minutes"] = trained_minutes(_folder(work, name))
        print(name, figures[name], flush=True)
    return figures


def of_model(settings: Settings, judges: Judges, model: Model, kinds: list[str]) -> Figures:
    """Figures of a model: reconstructed test clips, new sounds, and near copies."""
    test = judges.dataset.test
    clips = [clip for clip in test.clips if clip.labels[judges.label] in kinds]
    waveforms = [one for one in clip_waveforms(judges.dataset, clips) if one is not None]
    given = [to_channels(waveform, model.channels) for waveform in waveforms]
    encoded = codec.encode(model, given, rate_weight=0)
    labels = [clip.labels[judges.label] for clip in clips]
    figures: Figures = {}
    for decoder in ("faithful", "vivid"):
        decoded = codec.decode(model, encoded, inversion=Inversion(decoder=decoder))
        figures[decoder] = judges.figures(decoded, labels)["frechet"]
    codes = torch.cat([sound.codes.flatten() for sound in encoded])
    figures["codebook_use"] = round(
        len(codes.unique()) / model.autoencoder.config.bottleneck.num_codes, 3
    )
    sounds = generate(model, settings.n, seed=1 + settings.seed)
    (label,) = model.labels
    figures |= judges.figures([s.waveform for s in sounds], [s.labels[label] for s in sounds])
    real = compare(model, encoded)
    return figures | {
        "copy_threshold_db": round(model.known.threshold_db, 2) if model.known else None,
        "sampled_again": sum(sound.tries > 1 for sound in sounds),
        "copies_left": sum(bool(s.nearest and s.nearest.is_copy) for s in sounds),
        "test_clips_called_copies": sum(bool(one and one.is_copy) for one in real),
    }


def main(settings: Settings) -> None:
    """Prepare, train or measure."""
    if settings.do == "prepare":
        prepare(settings)
    elif settings.do == "train":
        train_arm(settings)
    else:
        figures = measure(settings)
        if settings.out is not None:
            before = read_json(settings.out, "results") if settings.out.exists() else {}
            write_json(settings.out, before | {settings.set: figures})


if __name__ == "__main__":
    with refusing("fifty"):
        main(tyro.cli(Settings))
