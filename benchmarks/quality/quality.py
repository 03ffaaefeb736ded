"""Quality at a bit rate: models and other codecs on the same speech, with the same scores.

    python benchmarks/quality/quality.py --rate 1000 --rate 2000 --rate 4000 --minutes 60
    python benchmarks/quality/quality.py --rate 2000 --minutes 60 --leave-one-out --no-codecs
    python benchmarks/quality/quality.py --rate 2000 --minutes 11 --unseen-words
    python benchmarks/quality/quality.py --model MODEL RECORDINGS
    python benchmarks/quality/quality.py --from-json RESULTS --picture quality.png

The recordings are those of the Free Spoken Digit Dataset, six speakers at 8 kHz; its official test
files are takes 0 to 4. A model stores them in one archive, as `audiovq encode` does, with `--rate` if a
rate is given. Its rate is the archive's size without file names, over the seconds of the recordings; the
scores are those of the sounds decoded from the archive. Other codecs get the test files as one stream
in name order with 0.1 s of silence between them, which suits them better than separate clips; their
rate is the payload over the seconds of the stream, pauses included. A codec of variable rate spends
little on pauses, so its payload is also given over the seconds of the recordings alone, as for ours.
`scores.py` computes the scores, with the packages of the extra `eval`.

The comparison favours ours: the model is trained on other takes of the same ten words by the same six
speakers; its rate weight is chosen on the scored files themselves; it codes whole recordings, while the
other codecs are made for live speech; and the size of the model (megabytes) is not counted. Two options
remove the first advantage. With `--leave-one-out`, for each speaker a model is trained on the other
five and scored on the official test files of that speaker. With `--unseen-words`, a model is trained on
the words zero to four and scored on the official test files of five to nine, together with the other
codecs on these files and a model trained on five to nine only.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import tyro
from tyro.conf import Positional, UseAppendAction

from audiovq.audio import finding, reading
from audiovq.audio.waveform import Waveform
from audiovq.codec import archive, codec
from audiovq.config.errors import AudiovqError
from audiovq.config.presets import PRESETS
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.models.checkpoint import load
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.device import pick_device
from audiovq.spectral import inversion
from audiovq.spectral.spectrogram import Spectrogram
from audiovq.training.run import train
from benchmarks.command import refusing
from benchmarks.provenance import commit, machine, today
from benchmarks.quality.peers import PEERS, Missing, Peer, encode_decode
from benchmarks.quality.points import (
    CEILING,
    OURS,
    SAME_WORDS,
    UNSEEN,
    UNSEEN_WORDS,
    Point,
    Results,
    Skipped,
    plot,
    read,
    require_same_files,
    table,
    write,
)
from benchmarks.quality.scores import RATE, Scores, cut, join, score
from benchmarks.quality.stated import trained_minutes

ROOT = Path(__file__).resolve().parents[2]
LABELS = r"(?P<digit>\d)_(?P<speaker>[a-z]+)_\d+\.wav$"
TEST = r"_[0-4]\.wav$"
LEARNT_WORDS, OTHER_WORDS = "01234", "56789"
"""Digits that `--unseen-words` trains on, and digits that it scores."""
DATA = "Free Spoken Digit Dataset, official split: takes 0 to 4 test, the rest training"


@dataclass(frozen=True)
class Settings:
    """Measure quality at a bit rate."""

    recordings: Positional[Path] = ROOT.parent / "shared" / "fsdd" / "recordings"
    """Folder of the digits' recordings."""
    rate: UseAppendAction[tuple[int, ...]] = ()
    """Train the preset for this rate in bit/s: 1000, 2000 or 4000. May be repeated."""
    model: UseAppendAction[tuple[Path, ...]] = ()
    """Score the model in this folder. May be repeated."""
    minutes: float = 60.0
    """Time limit of each training."""
    leave_one_out: bool = False
    """For each speaker, train a model without that speaker and score it on that speaker."""
    speakers: UseAppendAction[tuple[str, ...]] = ()
    """Leave out this speaker only. May be repeated; none: each of the six in turn."""
    unseen_words: bool = False
    """Train a model on the words zero to four, and one on five to nine; score both on five to nine."""
    codecs: bool = True
    """Also measure the other codecs."""
    work: Path | None = None
    """Folder for datasets and models; trainings in it are resumed. None: a new temporary folder."""
    out: Path | None = None
    """JSON file to add the results to; points of the same name and speaker are replaced."""
    picture: Path | None = None
    """Plot quality over rate, as a PNG."""
    from_json: Path | None = None
    """Read these results instead of measuring."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


@dataclass(frozen=True)
class Clips:
    """The official test files, in name order."""

    names: list[str]
    speakers: list[str]
    waveforms: list[Waveform]

    @property
    def seconds(self) -> float:
        """Total duration."""
        return sum(map(len, self.waveforms)) / RATE

    def of(self, speaker: str) -> Clips:
        """The clips of one speaker."""
        return self._at([i for i, s in enumerate(self.speakers) if s == speaker])

    def saying(self, digits: str) -> Clips:
        """The clips of these digits."""
        return self._at([i for i, name in enumerate(self.names) if name[0] in digits])

    def _at(self, indices: Sequence[int]) -> Clips:
        return Clips(
            [self.names[i] for i in indices],
            [self.speakers[i] for i in indices],
            [self.waveforms[i] for i in indices],
        )

    def score(self, others: Sequence[Waveform]) -> Scores:
        """Scores of reconstructions of these clips."""
        return score(self.waveforms, others, self.speakers)


def read_clips(recordings: Path) -> Clips:
    """Read the test files of a folder. Raises AudiovqError if it has none."""
    if not recordings.is_dir():
        raise AudiovqError(
            f"{recordings}: no such folder; give the folder of the digits' recordings"
        )
    names = finding.find(recordings)[0]
    paths = [recordings / name for name in names if re.search(TEST, name)]
    speakers = [found["speaker"] for path in paths if (found := re.search(LABELS, path.name))]
    if not paths or len(speakers) < len(paths):
        raise AudiovqError(f"{recordings}: no test files with names like 7_george_0.wav")
    return Clips([p.name for p in paths], speakers, [reading.read(p, RATE)[0] for p in paths])


def data_in(recordings: Path) -> str:
    """What the recordings are: DATA where the folder is the usual one; of another one its name, without the path."""
    folder = recordings.resolve()
    if folder == Settings.recordings.resolve():
        return DATA
    return f"folder {folder.name}: takes 0 to 4 test, the rest training"


def preset_of(rate: int) -> str:
    """The name of the preset for a rate in bit/s. Raises AudiovqError if there is none."""
    preset = f"rate-{rate // 1000}k"
    if preset not in PRESETS or rate % 1000:
        raise AudiovqError(f"--rate {rate}: no preset for it; give 1000, 2000 or 4000")
    return preset


def held_out(without: str | None) -> str:
    """Pattern of the files held out of training: the official test files, and all files of the speaker
    or the digits `without`."""
    if without is None:
        return TEST
    if without.isdigit():
        return rf"{TEST}|(^|/)[{without}]_[a-z]+_\d+\.wav$"
    return rf"{TEST}|_{without}_\d+\.wav$"


def train_model(
    settings: Settings, rate: int, without: str | None = None
) -> tuple[Model, float | None]:
    """Train the model for a rate, or resume its training in the work folder: the model, and its time limit in minutes."""
    preset = preset_of(rate)
    # Only the autoencoder is needed: no time for a prior.
    config = dataclasses.replace(
        PRESETS[preset], max_minutes=settings.minutes, autoencoder_share=1.0
    )
    assert settings.work is not None
    folder = settings.work / (f"without-{without}" if without else "official")
    how = PreprocessConfig(labels=LABELS, test=held_out(without))
    preprocess(settings.recordings, folder / "dataset", how, say=_say)
    model = train(folder / "dataset", folder / preset, config, device=settings.device, say=_say)
    return model, trained_minutes(folder / preset)


def measure_model(
    model: Model,
    name: str,
    clips: Clips,
    allowed: int | None = None,
    minutes: float | None = None,
) -> Point:
    """The rate of a model, at most `allowed` bit/s, and its scores.

    Raises AudiovqError if its sample rate is another, or it cannot meet the rate.
    """
    if model.sample_rate != RATE:
        raise AudiovqError(
            f"{name}: a model for {model.sample_rate} Hz; this benchmark scores {RATE} Hz only"
        )
    weight = None if allowed is None else archive.weight_within(model, clips.waveforms, allowed)
    encoded = codec.encode(model, clips.waveforms, rate_weight=weight)
    sounds = dict(zip(clips.names, encoded, strict=True))
    packed = archive.pack(model, sounds)
    unpacked = archive.unpack(model, packed)
    decoded = codec.decode(model, [unpacked[name] for name in clips.names])
    rate = round(8 * archive.size_without_names(packed) / clips.seconds, 1)
    return Point(name, OURS, rate, clips.score(decoded), minutes=minutes, files=len(clips.names))


def ceiling(model: Model, clips: Clips) -> Point:
    """Scores of the true spectrograms, inverted: the upper bound for models on such spectrograms."""
    config = model.spectrogram.config
    inverted = inversion.invert(Spectrogram(config), clips.waveforms)
    name = f"{CEILING}, {config.n_fft}/{config.hop_length}, {config.bins} bands"
    return Point(name, CEILING, None, clips.score(inverted), files=len(clips.names))


def measure_codecs(
    clips: Clips, suffix: str = "", peers: Sequence[Peer] = PEERS
) -> Iterator[Point | Skipped]:
    """All other codecs on the clips as one stream; `suffix` is added to their names and families."""
    stream = join(clips.waveforms)
    lengths = [len(w) for w in clips.waveforms]
    for peer in peers:
        _say(f"{peer.name} …")
        try:
            decoded, bits, seconds = encode_decode(peer, stream)
        except Missing as missing:
            yield Skipped(peer.name + suffix, str(missing))
            continue
        yield Point(
            peer.name + suffix,
            peer.family + suffix,
            round(bits / seconds, 1),
            clips.score(cut(decoded, lengths)),
            recordings_bits_per_second=round(bits / clips.seconds, 1) if peer.variable else None,
            files=len(clips.names),
        )


def models(settings: Settings, clips: Clips) -> Iterator[Point | Skipped]:
    """Load or train the models of the settings, one after another, and measure them."""
    for folder in settings.model:
        model = load(folder, pick_device(settings.device))
        yield ceiling(model, clips)
        name = f"{OURS} {folder.name}"
        yield measure_model(model, name, clips, minutes=trained_minutes(folder))
    for rate in settings.rate:
        name = f"{OURS} {preset_of(rate)}"
        if settings.unseen_words:
            yield from measure_on_words(settings, rate, clips.saying(OTHER_WORDS))
        elif not settings.leave_one_out:
            model, minutes = train_model(settings, rate)
            yield ceiling(model, clips)
            yield measure_model(model, name, clips, rate, minutes)
        else:
            for speaker in settings.speakers or sorted(set(clips.speakers)):
                model, minutes = train_model(settings, rate, without=speaker)
                point = measure_model(model, name, clips.of(speaker), rate, minutes)
                yield dataclasses.replace(point, family=UNSEEN, speaker=speaker)


def measure_on_words(settings: Settings, rate: int, clips: Clips) -> Iterator[Point | Skipped]:
    """Measure, on clips of OTHER_WORDS, the other codecs, a model trained on LEARNT_WORDS, and a model
    trained on OTHER_WORDS."""
    name = f"{OURS} {preset_of(rate)}"
    if settings.codecs:
        yield from measure_codecs(clips, ", words 5 to 9")
    for without, family, suffix in (
        (OTHER_WORDS, UNSEEN_WORDS, "unseen"),
        (LEARNT_WORDS, SAME_WORDS, "alone learnt"),
    ):
        model, minutes = train_model(settings, rate, without)
        point = measure_model(model, f"{name}, words 5 to 9 {suffix}", clips, rate, minutes)
        yield dataclasses.replace(point, family=family)


def measure(settings: Settings) -> Results:
    """Measure everything in the settings; write after each point, since the next may take hours."""
    clips = read_clips(settings.recordings)
    if unknown := set(settings.speakers) - set(clips.speakers):
        raise AudiovqError(
            f"--speakers {min(unknown)}: unknown; choose from {', '.join(sorted(set(clips.speakers)))}"
        )
    results = Results(data_in(settings.recordings), len(clips.names), round(clips.seconds, 2))
    if settings.out is not None:
        require_same_files(settings.out, results)  # now, not after hours of training
    everything = settings.codecs and not settings.unseen_words
    for found in chain(measure_codecs(clips) if everything else (), models(settings, clips)):
        if isinstance(found, Point):
            found = dataclasses.replace(found, machine=machine(), date=today(), commit=commit())
        results = results.plus(found)
        if settings.out is not None:
            results = write(settings.out, results)
    return results


def main(settings: Settings) -> None:
    """Measure or read, then print and plot."""
    for rate in settings.rate:
        preset_of(rate)  # raises now, not after hours of training
    if (settings.leave_one_out or settings.unseen_words) and not settings.rate:
        raise AudiovqError(
            "--leave-one-out and --unseen-words need --rate, the rate to train models for"
        )
    if settings.leave_one_out and settings.unseen_words:
        raise AudiovqError("--leave-one-out and --unseen-words cannot be combined")
    if settings.rate and settings.work is None:
        settings = dataclasses.replace(
            settings, work=Path(tempfile.mkdtemp(prefix="audiovq-quality-"))
        )
        _say(f"working in {settings.work}; to resume, add --work {settings.work}")
    results = measure(settings) if settings.from_json is None else read(settings.from_json)
    print(table(results))
    if settings.picture is not None:
        plot(results, settings.picture)


def _say(line: str) -> None:
    """Print to standard error: standard output has the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    with refusing("quality"):
        main(tyro.cli(Settings))
