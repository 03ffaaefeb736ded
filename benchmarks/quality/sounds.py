"""Real sounds: how well a set is reconstructed, and how new sounds compare with real ones.

    python benchmarks/quality/sounds.py drums --minutes 20 --out drums.json --picture drums.png
    python benchmarks/quality/sounds.py notes --model MODEL --dataset DATASET --split test

The set is one of drums, body, foley, notes and fsdd (`sets.py`). Its recordings are preprocessed with default
settings, in mono unless `--channels` says otherwise, and the preset small is trained with default settings, unless a
model is given. Both channels are mixed before anything is measured (`stereo.py` measures them apart). Settings are
chosen on the validation split, which is measured by default; `--split test` is for the final figures.

Of the split's recordings, the beginnings of up to 10 s, a fixed random choice of up to `--files` and about
`--seconds` in total, are stored in one archive, as by `audiovq encode`. The rate is the size of this archive
without file names over the seconds of these recordings, pauses within them included. Opus codes each of the same
recordings as a separate file; its rate is its payload, without container and headers, over the same seconds.
"Ceiling" is the true spectrogram, inverted. Where the model has a vivid decoder, the archive is decoded by
both decoders; new sounds are decoded by the vivid one, as by `audiovq generate`.

Each of these is scored against the recordings by ViSQOL (48 kHz audio mode, half a second of silence at both
ends of each) and `fidelity.py`. `envelopes.py` says what attack, pre-echo, beat and clicks are; clicks at the end are
counted of recordings that were not cut. "Clips" are the split's recordings as models are trained on them, with
silence trimmed: new sounds are to be compared with them. Pitch is measured by swift-f0 of the instruments that it
is right about in recordings (`sets.py`).

New sounds are judged by two classifiers that are trained here (`audiovq/evaluation/judges.py`): labels recognised,
and Fréchet distances to the split's clips of new sounds, of reconstructed clips, and of training clips (the
floor: real against real). The second one is a network on other features, trained without augmentation, which has
not seen the training clips of its floor. Each new sound is compared with all training clips at all shifts, and so are
as many clips of the split, chosen at random.

The results state the time limit of the model's own training, whatever `--minutes` says, and of a folder given in
place of the set its name. With `--n 0` a model of other labels may be measured; its spectrograms must be the dataset's.
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
import torch
import tyro
from tyro.conf import Positional

from audiovq.audio.channels import to_channels
from audiovq.audio.waveform import Waveform
from audiovq.codec import archive, codec
from audiovq.config.errors import AudiovqError
from audiovq.config.presets import PRESETS
from audiovq.config.sampling import Inversion
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset, Split, random_clips
from audiovq.evaluation import envelopes, originals
from audiovq.evaluation.fidelity import waveform_scores
from audiovq.evaluation.judges import evaluate_with_judges
from audiovq.generation.copies import compare
from audiovq.generation.generate import generate
from audiovq.generation.known import encode_clips
from audiovq.generation.sound import Sound
from audiovq.models.checkpoint import load
from audiovq.models.model import Model, require_match, require_spectrograms
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.device import pick_device
from audiovq.runtime.files import write_json
from audiovq.spectral import inversion
from audiovq.training.run import train
from benchmarks.command import refusing
from benchmarks.provenance import stamp
from benchmarks.quality import gallery
from benchmarks.quality.opus import opus
from benchmarks.quality.packages import PITCH_RANGE, pitch, visqol
from benchmarks.quality.sets import SETS, SHARED, SoundSet, recordings
from benchmarks.quality.stated import data_of, trained_minutes

OPUS = (8, 12, 16, 24, 32)
"""Rates in kbit/s that Opus is asked for."""
IN_TUNE_CENTS = 50.0
ASKED_SECONDS = 1.2345
"""Length that is asked for, to see whether it is exact to the sample."""
SHOWN = 12
"""Sounds in the picture."""
Figures = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Measure a model on a set of real sounds."""

    set: Positional[Literal["drums", "body", "foley", "notes", "fsdd"]]
    """Name of the set."""
    split: Literal["validation", "test"] = "validation"
    """Held-out clips that are measured; settings are chosen on validation clips."""
    minutes: float = 20.0
    """Time limit of the training."""
    preset: str = "small"
    """Default settings of the training."""
    channels: Literal["mono", "stereo"] = "mono"
    """Channels of the dataset that is made."""
    model: Path | None = None
    """Measure the model in this folder; None: train one. With `--n 0` it may have learnt other labels than the set's."""
    dataset: Path | None = None
    """Dataset of this set; None: make it."""
    recordings: Path | None = None
    """Folder of the set's recordings; None: where `sets.py` says."""
    shared: Path = SHARED
    """Folder with `sounds` and `fsdd`."""
    files: int = 100
    """Recordings that are reconstructed, at most."""
    seconds: float = 100.0
    """Their total duration, about."""
    n: int = 200
    """Number of new sounds; 0: measure reconstructions only."""
    opus: bool = True
    """Also measure Opus."""
    work: Path | None = None
    """Folder for the dataset and the model; a training in it is resumed. None: a new temporary folder."""
    out: Path | None = None
    """JSON file for the figures."""
    picture: Path | None = None
    """PNG file for spectrograms of twelve real, reconstructed and new sounds."""
    seed: int = 0
    """Seed of new sounds and judges."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


@dataclass(frozen=True)
class Real:
    """Real sounds of the split: originals of all reconstructions."""

    waveforms: list[Waveform]
    """Beginnings of recordings (samples,), channels mixed."""
    given: list[Waveform]
    """The same in the channels of the recordings, (samples,) or (2, samples)."""
    whole: list[bool]
    """Whether each is a whole recording, so that its end is a sound's end."""
    notes: list[float | None]
    """The note of each in Hz, where it is known and swift-f0 finds it."""


@dataclass(frozen=True)
class Prepared:
    """The model, and the sounds that it is measured on."""

    model: Model
    minutes: float | None
    """Time limit of the model's training; None: unknown."""
    dataset: Dataset
    data: str
    """What its recordings are."""


def prepared(settings: Settings, sounds: SoundSet) -> Prepared:
    """Load or make dataset and model.

    Raises AudiovqError with the reason where something is missing, and where the model given is not one of such
    spectrograms or, if new sounds are asked for, of such labels.
    """
    given = None
    if settings.model is not None:
        given = load(settings.model, pick_device(settings.device))
    elif settings.preset not in PRESETS:
        raise AudiovqError(f"--preset {settings.preset}: unknown; see audiovq train --help")
    work = settings.work
    if work is None:
        work = Path(tempfile.mkdtemp(prefix="audiovq-sounds-"))
        _say(f"working in {work}; to resume, add --work {work}")
    if settings.dataset is not None:
        dataset = Dataset(settings.dataset, settings.recordings)
    else:
        source = settings.recordings or recordings(sounds, settings.shared, work)
        how = PreprocessConfig(labels=sounds.labels, test=sounds.test, channels=settings.channels)
        preprocess(source, work / f"{sounds.name}-dataset", how, say=_say)
        dataset = Dataset(work / f"{sounds.name}-dataset", source)
    if not len(getattr(dataset, settings.split)):
        raise AudiovqError(f"{dataset.folder}: has no {settings.split} clips")
    data = data_of(sounds, dataset, settings.recordings, settings.dataset)
    if given is not None and settings.model is not None:
        # Judges and pitches need the labels, reconstructions do not.
        (require_match if settings.n else require_spectrograms)(given, dataset)
        return Prepared(given, trained_minutes(settings.model), dataset, data)
    config = dataclasses.replace(PRESETS[settings.preset], max_minutes=settings.minutes)
    folder = work / f"{sounds.name}-model"
    model = train(dataset, folder, config, device=settings.device, say=_say)
    return Prepared(model, trained_minutes(folder), dataset, data)


def real_sounds(settings: Settings, sounds: SoundSet, dataset: Dataset, split: Split) -> Real:
    """The recordings that are measured, and their notes."""
    beginnings = originals.described_beginnings(dataset, split, total_seconds=settings.seconds)
    found = list(itertools.islice(beginnings, settings.files))
    given = [beginning.waveform for beginning in found]
    labels = {clip.path: clip.labels for clip in split.clips}
    notes = [_hertz(sounds, labels[beginning.path]) for beginning in found]
    return Real(_mixed(given), given, [beginning.whole for beginning in found], notes)


def _hertz(sounds: SoundSet, labels: dict[str, str]) -> float | None:
    """Frequency of the labelled MIDI note; None if the set's `pitched` leaves it out, or swift-f0 does not
    find it."""
    if not any(labels.get(label) in values for label, values in sounds.pitched.items()):
        return None
    hertz = 440 * 2 ** ((int(labels["note"]) - 69) / 12)
    return hertz if PITCH_RANGE[0] < hertz < PITCH_RANGE[1] else None


def pitch_figures(
    waveforms: Sequence[Waveform], notes: Sequence[float | None], rate: int
) -> Figures:
    """Share of the sounds with a known note that are within IN_TUNE_CENTS of it, and the median error."""
    pairs = [(w, hertz) for w, hertz in zip(waveforms, notes, strict=True) if hertz and w.any()]
    if not pairs:
        return {}
    found = [(pitch(waveform, rate), hertz) for waveform, hertz in pairs]
    cents = [np.inf if at is None else abs(1200 * np.log2(at / hertz)) for at, hertz in found]
    return {
        "pitched": len(pairs),
        "in_tune": round(float(np.mean(np.array(cents) <= IN_TUNE_CENTS)), 4),
        "median_cents": round(float(np.median(cents)), 1),
    }


def reconstruction_row(
    name: str, real: Real, others: Sequence[Waveform], model: Model, bits: float | None
) -> Figures:
    """All figures of one reconstruction of the real recordings; `bits` of the coded sounds in total."""
    config = model.spectrogram.config
    rate, seconds = config.sample_rate, sum(map(len, real.waveforms)) / config.sample_rate
    pairs = list(zip(real.waveforms, others, strict=True))
    scored = [visqol(a, b, rate) for a, b in pairs if a.any()]
    return {
        "name": name,
        "bits_per_second": None if bits is None else round(bits / seconds, 1),
        "visqol": round(float(np.mean(scored)), 3),
        **waveform_scores(real.waveforms, others, config),
        **_envelope_figures(real, others, model),
        **pitch_figures(others, real.notes, rate),
    }


def _envelope_figures(real: Real, waveforms: Sequence[Waveform], model: Model) -> Figures:
    """`envelope_figures` of recordings or their reconstructions; clicks at the end only of whole ones."""
    rate, hop_length = model.sample_rate, model.spectrogram.config.hop_length
    figures = envelopes.envelope_figures(waveforms, rate, hop_length / rate)
    ends = [w for w, whole in zip(waveforms, real.whole, strict=True) if whole]
    return figures | {
        "clicks_at_end": float(np.mean([envelopes.clicks(w)[1] for w in ends])) if ends else None
    }


def archived(
    model: Model, waveforms: Sequence[Waveform], decoder: Literal["faithful", "vivid"]
) -> tuple[list[Waveform], int]:
    """Waveforms (samples,) or (2, samples) as decoded from one archive, channels mixed, and its bits without names."""
    encoded = codec.encode(model, [to_channels(w, model.channels) for w in waveforms])
    packed = archive.pack(model, {str(i): sound for i, sound in enumerate(encoded)})
    unpacked = list(archive.unpack(model, packed).values())
    decoded = codec.decode(model, unpacked, inversion=Inversion(decoder=decoder))
    return _mixed(decoded), 8 * archive.size_without_names(packed)


def _mixed(waveforms: Sequence[Waveform]) -> list[Waveform]:
    """Waveforms with their channels mixed."""
    return [to_channels(waveform, 1) for waveform in waveforms]


def reconstructions(settings: Settings, model: Model, real: Real) -> list[Figures]:
    """Rows: the recordings themselves, the ceiling, the archive, Opus."""
    rate = model.sample_rate
    _say(f"{len(real.waveforms)} recordings …")
    of_real = {
        "name": "recordings",
        **_envelope_figures(real, real.waveforms, model),
        **pitch_figures(real.waveforms, real.notes, rate),
    }
    given = [to_channels(waveform, model.channels) for waveform in real.given]
    inverted = _mixed(inversion.invert(model.spectrogram, given))
    rows = [of_real, reconstruction_row("ceiling", real, inverted, model, None)]
    decoded, bits = archived(model, real.given, "faithful")
    rows.append(reconstruction_row("audiovq", real, decoded, model, bits))
    if model.vivid is not None:
        decoded, bits = archived(model, real.given, "vivid")
        rows.append(reconstruction_row("audiovq, vivid decoder", real, decoded, model, bits))
    for kilobits in OPUS if settings.opus else ():
        _say(f"Opus {kilobits}k …")
        others, bits = opus(real.waveforms, rate, kilobits)
        rows.append(reconstruction_row(f"Opus {kilobits}k", real, others, model, bits))
    return rows


def generation(
    settings: Settings, sounds: SoundSet, model: Model, dataset: Dataset, split: Split
) -> tuple[list[Sound], list[Figures], Figures]:
    """New sounds; rows of real clips and of new sounds; figures by the judges, and distances to training
    clips."""
    config = model.spectrogram.config
    rate, hop_seconds = config.sample_rate, config.hop_length / config.sample_rate
    _say(f"{settings.n} new sounds …")
    new = generate(model, settings.n, seed=1 + settings.seed, keep_copies=True)
    waveforms = _mixed([sound.waveform for sound in new])
    clips = _mixed(originals.whole_clips(dataset, split, settings.n))
    rows = [
        {"name": "clips", **envelopes.envelope_figures(clips, rate, hop_seconds)},
        {
            "name": "new sounds",
            **envelopes.envelope_figures(waveforms, rate, hop_seconds),
            **pitch_figures(waveforms, [_hertz(sounds, sound.labels) for sound in new], rate),
        },
    ]
    _say("judges …")
    judged = evaluate_with_judges(model, dataset, split, new, settings.seed)
    asked = round(ASKED_SECONDS * rate)
    given = generate(model, 2, seconds=ASKED_SECONDS, seed=settings.seed, keep_copies=True)
    judged["length_error_samples"] = max(abs(one.waveform.shape[-1] - asked) for one in given)
    chosen = random_clips(split, settings.n, settings.seed)
    real = compare(model, encode_clips(model, split, chosen))
    for name, found in (("generated", [sound.nearest for sound in new]), ("real", real)):
        near = [one for one in found if one is not None]
        if near:
            judged.setdefault("nearest_training_clip", {})[name] = {
                "median_db": round(float(np.median([one.db for one in near])), 2),
                "least_db": round(min(one.db for one in near), 2),
                "largest_share_of_codes": round(max(one.share for one in near), 3),
                "copies": sum(one.is_copy for one in near),
                "sounds": len(found),
            }
    return new, rows, judged


def measure(settings: Settings) -> tuple[Figures, dict[str, list[Waveform]], list[str], int]:
    """All figures; the rows of the picture, their titles, and the sample rate."""
    sounds = SETS[settings.set]
    found = prepared(settings, sounds)
    model, dataset = found.model, found.dataset
    split: Split = getattr(dataset, settings.split)
    real = real_sounds(settings, sounds, dataset, split)
    figures: Figures = {
        **stamp(),
        "set": sounds.name,
        "data": found.data,
        "split": settings.split,
        "recordings": len(real.waveforms),
        "seconds": round(sum(map(len, real.waveforms)) / model.sample_rate, 1),
        "preset": settings.preset if settings.model is None else None,
        "minutes": found.minutes,
        "spectrogram": dataclasses.asdict(model.spectrogram.config),
        "rows": reconstructions(settings, model, real),
    }
    new: list[Sound] = []
    if settings.n and model.labels and (model.prior or model.masked):
        new, rows, figures["generated"] = generation(settings, sounds, model, dataset, split)
        figures["rows"] += rows
    shown, titles = pictured(dataset, split, model, new)
    return figures, shown, titles, model.sample_rate


def pictured(
    dataset: Dataset, split: Split, model: Model, new: Sequence[Sound]
) -> tuple[dict[str, list[Waveform]], list[str]]:
    """Twelve clips of the split, the same reconstructed, and new sounds with the same labels where there
    are some; the clips' labels as titles."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(1))[:SHOWN]
    clips = [split.clips[i] for i in order.tolist()]
    pairs = zip(clips, originals.clip_waveforms(dataset, clips), strict=True)
    found = [(clip.labels, waveform) for clip, waveform in pairs if waveform is not None]
    real = [waveform for _, waveform in found]
    encoded = codec.encode(model, [to_channels(waveform, model.channels) for waveform in real])
    rows = {"real": _mixed(real), "reconstructed": _mixed(codec.decode(model, encoded))}
    if model.vivid is not None:
        vivid = Inversion(decoder="vivid")
        rows["vivid"] = _mixed(codec.decode(model, encoded, inversion=vivid))
    if new:
        left = list(new)
        rows["new"] = []
        for labels, _ in found:
            best = max(left, key=lambda sound: len(sound.labels.items() & labels.items()))
            left = [sound for sound in left if sound is not best] or list(new)
            rows["new"] += _mixed([best.waveform])
    return rows, [" ".join(labels.values()) for labels, _ in found]


COLUMNS = {
    "bits_per_second": ("bit/s", "{:,.0f}"),
    "visqol": ("ViSQOL", "{:.2f}"),
    "pesq": ("PESQ", "{:.2f}"),
    "estoi": ("ESTOI", "{:.3f}"),
    "attack_ms": ("attack ms", "{0[0]:g} / {0[1]:g} / {0[2]:g}"),
    "pre_echo_db": ("pre-echo dB", "{:.1f}"),
    "beat_db": ("beat dB", "{:.1f}"),
    "clicks_at_start": ("clicks at start", "{:.0%}"),
    "clicks_at_end": ("at end", "{:.0%}"),
    "in_tune": ("within 50 cents", "{:.1%}"),
    "median_cents": ("median cents", "{:.0f}"),
}


def table(figures: Figures) -> str:
    """The figures as Markdown: a table of the rows, and lines on new sounds."""
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in figures["rows"])]
    lines = [
        f"{figures['set']}, {figures['split']} clips: {figures['recordings']} recordings,"
        f" {figures['seconds']} s",
        "",
        "| | " + " | ".join(COLUMNS[key][0] for key in keys) + " |",
        "|---" * (1 + len(keys)) + "|",
    ]
    for row in figures["rows"]:
        cells = ["" if row.get(key) is None else COLUMNS[key][1].format(row[key]) for key in keys]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_generated_lines(figures.get("generated", {}))])


def _generated_lines(generated: Figures) -> list[str]:
    """Lines on labels, Fréchet distances and copies."""
    lines = []
    for judge, section in (("first", generated), ("second", generated.get("second_judge", {}))):
        for label, shares in section.get("accuracy", {}).items():
            of = [None if shares[k] is None else f"{shares[k]:.1%}" for k in ("generated", "real")]
            lines.append(f"{judge} judge, {label}: new sounds {of[0]}, real clips {of[1]}")
        if distance := section.get("frechet_distance"):
            values = ", ".join(f"{name} {value:.2f}" for name, value in distance.items())
            lines.append(f"{judge} judge, Fréchet distance: {values}")
    if "length_error_samples" in generated:
        lines.append(
            f"{ASKED_SECONDS} s asked for: {generated['length_error_samples']} samples off"
        )
    for name, near in generated.get("nearest_training_clip", {}).items():
        lines.append(f"nearest training clip, {name}: {near}")
    return lines


def main(settings: Settings) -> None:
    """Measure, print, write and plot."""
    figures, shown, titles, sample_rate = measure(settings)
    print(table(figures))
    if settings.out is not None:
        write_json(settings.out, figures)
    if settings.picture is not None:
        gallery.plot(shown, titles, sample_rate, settings.picture)


def _say(line: str) -> None:
    """Print to standard error: standard output has the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    with refusing("sounds"):
        main(tyro.cli(Settings))
