"""Quality at a rate: models and other codecs on the same speech, scored in the same way.

    python benchmarks/quality/quality.py --rate 1000 --rate 2000 --rate 4000 --minutes 60
    python benchmarks/quality/quality.py --rate 2000 --minutes 60 --leave-one-out --no-codecs
    python benchmarks/quality/quality.py --rate 2000 --minutes 11 --unseen-words
    python benchmarks/quality/quality.py --model MODEL RECORDINGS
    python benchmarks/quality/quality.py --from-json RESULTS --picture quality.png

The recordings are those of the Free Spoken Digit Dataset, six speakers at 8 kHz; its official test
files are the takes 0 to 4. A model stores them all in one archive, as `audiovq encode --rate` does
where a rate is named. The rate is the archive's size but for the file names, over the seconds of the
recordings; what is scored is decoded from the archive. Other codecs get the test files as one stream
in name order with 0.1 s of silence between, which suits them better than clips one by one; theirs is
the payload over the stream's seconds, pauses included. A codec of variable rate spends little on
pauses, so its payload is also given over the seconds of the recordings alone, the span that ours is
given over. How it is scored stands in `scores.py`. Needs the packages of the extra `eval`.

What favours ours: a model has learnt from other takes of the same ten words by the same six speakers;
its weight of bits is found on the very files that are scored; it codes a recording as a whole, where
the other codecs are made for live speech; and its own size (megabytes) is not counted. Two options
take the first away. With `--leave-one-out`, for each speaker a model learns from the other five and is
scored on the official test files of the one. With `--unseen-words`, a model learns from the words zero
to four and is scored on the official test files of five to nine; beside it stand the other codecs on
these files, and a model that has learnt from five to nine alone.
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
from audiovq.config.settings import PreprocessConfig
from audiovq.models.checkpoint import load
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.device import pick_device
from audiovq.spectral import inversion
from audiovq.spectral.spectrogram import Spectrogram
from audiovq.training.run import train
from benchmarks.provenance import commit, machine, today
from benchmarks.quality.peers import PEERS, Missing, through
from benchmarks.quality.points import (
    CEILING,
    OURS,
    SAME_WORDS,
    UNSEEN,
    UNSEEN_WORDS,
    Point,
    Results,
    Skipped,
    draw,
    read,
    table,
    write,
)
from benchmarks.quality.scores import RATE, Scores, cut, join, score

ROOT = Path(__file__).resolve().parents[2]
LABELS = r"(?P<digit>\d)_(?P<speaker>[a-z]+)_\d+\.wav$"
TEST = r"_[0-4]\.wav$"
LEARNT_WORDS, OTHER_WORDS = "01234", "56789"
"""The digits that `--unseen-words` learns from, and those that it scores."""
DATA = "Free Spoken Digit Dataset, official split: takes 0 to 4 test, the rest training"


@dataclass(frozen=True)
class Settings:
    """Measure quality at a rate."""

    recordings: Positional[Path] = ROOT.parent / "shared" / "fsdd" / "recordings"
    """Folder of the digits' recordings."""
    rate: UseAppendAction[tuple[int, ...]] = ()
    """Train the preset of this many bit/s: 1000, 2000 or 4000. May be repeated."""
    model: UseAppendAction[tuple[Path, ...]] = ()
    """Score the model in this folder. May be repeated."""
    minutes: float = 60.0
    """Time limit of each training."""
    leave_one_out: bool = False
    """Train a model without each speaker, and score it on that one."""
    speakers: UseAppendAction[tuple[str, ...]] = ()
    """Leave out this one only. May be repeated; none: each of the six in turn."""
    unseen_words: bool = False
    """Train a model on the words zero to four, and one on five to nine; score both on five to nine."""
    codecs: bool = True
    """Measure the other codecs too."""
    work: Path | None = None
    """Folder for datasets and models; what is there is gone on with. None: a new temporary one."""
    out: Path | None = None
    """Write the results as JSON, together with what the file holds already."""
    picture: Path | None = None
    """Draw rate and quality as a PNG."""
    from_json: Path | None = None
    """Measure nothing; take these results."""
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
        return sum(map(len, self.waveforms)) / RATE

    def of(self, speaker: str) -> Clips:
        """One speaker's."""
        return self._at([i for i, s in enumerate(self.speakers) if s == speaker])

    def saying(self, digits: str) -> Clips:
        """Those of some words."""
        return self._at([i for i, name in enumerate(self.names) if name[0] in digits])

    def _at(self, places: Sequence[int]) -> Clips:
        return Clips(
            [self.names[i] for i in places],
            [self.speakers[i] for i in places],
            [self.waveforms[i] for i in places],
        )

    def score(self, others: Sequence[Waveform]) -> Scores:
        """Of others in place of these."""
        return score(self.waveforms, others, self.speakers)


def read_clips(recordings: Path) -> Clips:
    """The test files below a folder. Raises AudiovqError where it holds none."""
    if not recordings.is_dir():
        raise AudiovqError(f"{recordings}: no such folder; name that of the digits' recordings")
    names = finding.find(recordings)[0]
    paths = [recordings / name for name in names if re.search(TEST, name)]
    speakers = [found["speaker"] for path in paths if (found := re.search(LABELS, path.name))]
    if not paths or len(speakers) < len(paths):
        raise AudiovqError(f"{recordings}: test files are not named as 7_george_0.wav is")
    return Clips([p.name for p in paths], speakers, [reading.read(p, RATE)[0] for p in paths])


def preset_of(rate: int) -> str:
    """The name of the preset for a rate in bit/s. Raises AudiovqError where there is none."""
    preset = f"rate-{rate // 1000}k"
    if preset not in PRESETS or rate % 1000:
        raise AudiovqError(f"--rate {rate}: no preset has it; give 1000, 2000 or 4000")
    return preset


def unheard(without: str | None) -> str:
    """Pattern of the files that a model must not learn from: the official test files, and all of the
    speaker, or of the digits, `without`."""
    if without is None:
        return TEST
    if without.isdigit():
        return rf"{TEST}|(^|/)[{without}]_[a-z]+_\d+\.wav$"
    return rf"{TEST}|_{without}_\d+\.wav$"


def trained(settings: Settings, rate: int, without: str | None = None) -> Model:
    """The model of a rate point; what the work folder holds of it is gone on with."""
    preset = preset_of(rate)
    # Codes are all that is needed: no time goes to a prior.
    config = dataclasses.replace(
        PRESETS[preset], max_minutes=settings.minutes, autoencoder_share=1.0
    )
    assert settings.work is not None
    folder = settings.work / (f"without-{without}" if without else "official")
    how = PreprocessConfig(labels=LABELS, test=unheard(without))
    preprocess(settings.recordings, folder / "dataset", how, say=_say)
    return train(folder / "dataset", folder / preset, config, device=settings.device, say=_say)


def measured(
    model: Model,
    name: str,
    clips: Clips,
    allowed: int | None = None,
    minutes: float | None = None,
) -> Point:
    """A model's rate, at most the one allowed, and its scores.

    Raises AudiovqError where it is made for another sample rate, or cannot meet the rate.
    """
    if model.sample_rate != RATE:
        raise AudiovqError(f"{name}: codes {model.sample_rate} Hz; only {RATE} Hz is scored here")
    weight = None if allowed is None else archive.weight_within(model, clips.waveforms, allowed)
    encoded = codec.encode(model, clips.waveforms, rate_weight=weight)
    sounds = dict(zip(clips.names, encoded, strict=True))
    packed = archive.pack(model, sounds)
    unpacked = archive.unpack(model, packed)
    decoded = codec.decode(model, [unpacked[name] for name in clips.names])
    rate = round(8 * archive.size_without_names(packed) / clips.seconds, 1)
    return Point(name, OURS, rate, clips.score(decoded), minutes=minutes, files=len(clips.names))


def ceiling(model: Model, clips: Clips) -> Point:
    """What decoding the true spectrograms gives: no model on such spectrograms can do better."""
    config = model.spectrogram.config
    inverted = inversion.invert(Spectrogram(config), clips.waveforms)
    name = f"{CEILING}, {config.n_fft}/{config.hop_length}, {config.bins} bands"
    return Point(name, CEILING, None, clips.score(inverted), files=len(clips.names))


def others(clips: Clips, said: str = "") -> Iterator[Point | Skipped]:
    """All other codecs on the clips as one stream; `said` is added to their names and families."""
    stream = join(clips.waveforms)
    lengths = [len(w) for w in clips.waveforms]
    for peer in PEERS:
        _say(f"{peer.name} …")
        try:
            decoded, bits, seconds = through(peer, stream)
        except Missing as missing:
            yield Skipped(peer.name + said, str(missing))
            continue
        yield Point(
            peer.name + said,
            peer.family + said,
            round(bits / seconds, 1),
            clips.score(cut(decoded, lengths)),
            recordings_bits_per_second=round(bits / clips.seconds, 1) if peer.variable else None,
            files=len(clips.names),
        )


def models(settings: Settings, clips: Clips) -> Iterator[Point | Skipped]:
    """The models that the settings name: loaded, or trained one after the other."""
    for folder in settings.model:
        model = load(folder, pick_device(settings.device))
        yield ceiling(model, clips)
        yield measured(model, f"{OURS} {folder.name}", clips)
    for rate in settings.rate:
        name = f"{OURS} {preset_of(rate)}"
        if settings.unseen_words:
            yield from on_words(settings, rate, clips.saying(OTHER_WORDS))
        elif not settings.leave_one_out:
            model = trained(settings, rate)
            yield ceiling(model, clips)
            yield measured(model, name, clips, rate, settings.minutes)
        else:
            for speaker in settings.speakers or sorted(set(clips.speakers)):
                model = trained(settings, rate, without=speaker)
                point = measured(model, name, clips.of(speaker), rate, settings.minutes)
                yield dataclasses.replace(point, family=UNSEEN, speaker=speaker)


def on_words(settings: Settings, rate: int, clips: Clips) -> Iterator[Point | Skipped]:
    """Clips of OTHER_WORDS by the other codecs, by a model that has learnt LEARNT_WORDS, and by one
    that has learnt OTHER_WORDS."""
    name = f"{OURS} {preset_of(rate)}"
    if settings.codecs:
        yield from others(clips, ", words 5 to 9")
    for without, family, said in (
        (OTHER_WORDS, UNSEEN_WORDS, "unseen"),
        (LEARNT_WORDS, SAME_WORDS, "alone learnt"),
    ):
        model = trained(settings, rate, without)
        point = measured(model, f"{name}, words 5 to 9 {said}", clips, rate, settings.minutes)
        yield dataclasses.replace(point, family=family)


def measure(settings: Settings) -> Results:
    """All that the settings ask for, written after each point: the next may take hours."""
    clips = read_clips(settings.recordings)
    if unknown := set(settings.speakers) - set(clips.speakers):
        raise AudiovqError(
            f"--speakers {min(unknown)}: take {', '.join(sorted(set(clips.speakers)))}"
        )
    results = Results(DATA, len(clips.names), round(clips.seconds, 2))
    everything = settings.codecs and not settings.unseen_words
    for found in chain(others(clips) if everything else (), models(settings, clips)):
        if isinstance(found, Point):
            found = dataclasses.replace(found, machine=machine(), date=today(), commit=commit())
        results = results.plus(found)
        if settings.out is not None:
            results = write(settings.out, results)
    return results


def main(settings: Settings) -> None:
    """Measure or read, then print and draw."""
    for rate in settings.rate:
        preset_of(rate)  # before hours are spent on those that go well
    if (settings.leave_one_out or settings.unseen_words) and not settings.rate:
        raise AudiovqError(
            "--leave-one-out, --unseen-words: need --rate; models are trained for it"
        )
    if settings.leave_one_out and settings.unseen_words:
        raise AudiovqError("--leave-one-out and --unseen-words: give one of them")
    if settings.rate and settings.work is None:
        settings = dataclasses.replace(
            settings, work=Path(tempfile.mkdtemp(prefix="audiovq-quality-"))
        )
        _say(f"working in {settings.work}; with --work {settings.work} it goes on from there")
    results = measure(settings) if settings.from_json is None else read(settings.from_json)
    print(table(results))
    if settings.picture is not None:
        draw(results, settings.picture)


def _say(line: str) -> None:
    """To standard error: standard output is the table's."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings))
    except AudiovqError as error:
        _say(f"quality: {error}")
        sys.exit(2)
