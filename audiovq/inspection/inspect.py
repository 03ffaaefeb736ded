"""Inspect a folder of recordings before training: contents, unusable files, suitable settings.

Skipped files and settings are found by the code of `preprocess`, so that both agree.
"""

from __future__ import annotations

import functools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from audiovq.audio import finding, writing
from audiovq.audio.channels import to_channels
from audiovq.audio.reading import AudioInfo
from audiovq.audio.silence import SILENT
from audiovq.audio.waveform import AudioError, peak_of
from audiovq.config.errors import AudiovqError
from audiovq.config.flags import as_argument, flags
from audiovq.config.serialize import to_json
from audiovq.config.spectrogram import (
    LONGEST_CLIP,
    SHORTEST_CLIP,
    PreprocessConfig,
    SpectrogramConfig,
)
from audiovq.dataset.manifest import Skipped
from audiovq.evaluation import fidelity
from audiovq.inspection.describe import describe
from audiovq.inspection.enough import expectation_lines
from audiovq.inspection.measure import Inspection, RecordingStats, measure
from audiovq.models.folder import FEW_CLIPS, SEEDS, like_seed
from audiovq.preprocessing.catalog import scan
from audiovq.preprocessing.character import character, evenly_spaced
from audiovq.preprocessing.labels import default_source, guess_pattern, labels_of, synonyms
from audiovq.preprocessing.settings import choose_channels, choose_settings, voters
from audiovq.preprocessing.shard import in_words
from audiovq.preprocessing.similar import MOST, near_copies
from audiovq.preprocessing.slicing import Slicing, first_clip, plan
from audiovq.preprocessing.splits import of_largest, of_several
from audiovq.runtime.files import name_of, require_outside, sha256, write_json
from audiovq.runtime.outputs import writing_into
from audiovq.runtime.progress import progress
from audiovq.spectral import inversion
from audiovq.spectral.numpy_spectrogram import Piece
from audiovq.spectral.spectrogram import Spectrogram

RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100)
"""Sample rates that may be suggested in place of a higher one."""
USABLE = 0.45
"""Bandwidth that a sample rate can represent, as a share of the rate."""
CLIPPED = 1e-3
"""Share of clipped samples above which a recording is reported as clipped."""
CLIPS = 6
"""Largest number of clips that are described, and converted to spectrograms and back."""
OF_SPECTROGRAMS = 2
"""The first reasons for settings: the one for the rate, and the one for the windows."""
_T = TypeVar("_T")
Spans = list[tuple[int, int]]
"""First and last sample of each clip of a recording."""


def inspect(
    source: Path | str,
    out: Path | str | None = None,
    config: PreprocessConfig | None = None,
    *,
    overwrite: bool = False,
) -> Inspection:
    """Inspect all recordings below `source`, and choose the settings that `config` leaves open.

    Writes into `out`, if given, a few clips as WAVs, original and from their true spectrograms, and
    figures.json. Recordings are read in blocks. Raises AudiovqError if there is no usable recording, with
    the reasons for the first few files, and if `out` is below `source`: WAVs there would be recordings.
    """
    source, config = Path(source), config or PreprocessConfig()
    if out is not None:
        require_outside(Path(out), source)
    folder = _read(source, config)
    slicing, settings, stats = folder.slicing, folder.slicing.spectrogram, folder.stats
    seconds = {path: info.seconds for path, info in folder.headers.items()}
    lengths = sorted(seconds.values())
    by_path, how, notes = _labels(source, folder.readable, list(stats), config.labels)
    labels = _values(by_path)
    by_file = {path: len(found) for path, found in folder.spans.items()}
    clips = sum(by_file.values())
    typical = character([source / path for path in sorted(stats)], settings.sample_rate)
    preset, reason = _preset(clips, sum(lengths), folder.seed is not None)
    paths = evenly_spaced(sorted(stats), CLIPS)
    pieces = [first_clip(source / path, slicing) for path in paths]
    ceiling, inverted = _invert(
        source, slicing, paths, pieces, Path(out) if out else None, overwrite
    )
    descriptions = {}
    with progress("inspect: describing", len(paths), "recordings") as step:
        for path, piece in zip(paths, pieces, strict=True):
            sound = to_channels(piece.cut_to_clip(piece.samples), 1)
            descriptions[path] = describe(sound, settings.sample_rate)
            step(1)
    mono = settings.channels == 1  # in stereo no channels cancel each other
    file_notes = [(path, note) for path, one in stats.items() for note in one.notes if mono]
    return Inspection(
        source=str(source),
        found=len(stats) + len(folder.skipped),
        usable=len(stats),
        seconds=sum(lengths),
        rates=dict(Counter(i.sample_rate for i in folder.headers.values()).most_common()),
        lengths=lengths,
        silent=sum(one.silent * seconds[path] for path, one in stats.items()) / sum(lengths),
        reaches=sorted(one.bandwidth_hz for one in stats.values()),
        clipped=_clipped(stats),
        duplicates=_duplicates(stats),
        near_copies=folder.near_copies,
        skipped=folder.skipped,
        labels=labels,
        notes=[
            *notes,
            *folder.notes,
            *in_words(file_notes, len(stats)),
            *of_largest(by_file),
            *of_several(by_file, slicing.clip_seconds),
        ],
        settings=settings,
        clip_seconds=slicing.clip_seconds,
        clips=clips,
        preset=preset,
        reasons=[*folder.reasons, reason],
        commands=_commands(source, config, slicing, how, preset, folder.seed),
        expected=expectation_lines(
            clips,
            labels,
            _counts(by_path, folder.spans),
            None if typical is None else typical.kind,
            settings.sample_rate,
        ),
        ceiling=ceiling,
        inverted=inverted,
        descriptions=descriptions,
    )


@dataclass(frozen=True)
class _Folder:
    """What reading a folder gives; `headers`, `stats` and `spans` by path of the usable recordings."""

    readable: list[str]
    """Recordings of which the headers can be read: `preprocess` chooses the source of labels by these."""
    headers: dict[str, AudioInfo]
    stats: dict[str, RecordingStats]
    spans: dict[str, Spans]
    skipped: list[Skipped]
    """Sorted by path."""
    near_copies: list[list[str]] | None
    """Groups of recordings with different samples; None: there are more than `similar.MOST`."""
    slicing: Slicing
    """With the chosen settings."""
    reasons: list[str]
    """For the settings."""
    notes: list[str]
    """Messages about the channels."""
    seed: str | None
    """The one of SEEDS that training should start from, with its settings, as there are few clips."""


def _read(source: Path, config: PreprocessConfig) -> _Folder:
    """Read all recordings twice: to choose the settings, and to cut clips by them."""
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        headers, others, broken = scan(source, None, executor)
        skipped = others + broken
        stats, unreadable = _for_each(
            "inspect: measuring",
            list(headers),
            lambda path: measure(source / path, config.trim_db),
            executor,
        )
        if not stats:
            raise AudiovqError(_no_usable_file(source, skipped + unreadable))
        voting = voters(source, headers, config)
        settings, frames, reasons = _settings(source, config, voting, stats)
        settings, notes = choose_channels(config, settings, source, headers)
        slicing = Slicing.of(config, settings, frames)
        spans, rejected = _cut(source, headers, slicing, executor)
        clips = sum(map(len, spans.values()))
        seed, like = like_seed(config, clips, settings) or (None, config)
        if seed is not None:
            settings, frames, reasons = _settings(source, like, voting, stats)
            settings, notes = choose_channels(like, settings, source, headers)
            slicing = Slicing.of(like, settings, frames)
            spans, rejected = _cut(source, headers, slicing, executor)
            reasons = [_as_seed(seed, settings, clips), *reasons[OF_SPECTROGRAMS:]]
        is_cut = any(len(found) > 1 for found in spans.values())
        reasons.append(
            f"clips of up to {slicing.clip_seconds:.2f} s: "
            + ("longer files are cut" if is_cut else "the longest file fits")
        )
        distinct = {one.sha256: path for path, one in reversed(stats.items()) if path in spans}
        groups: dict[str, list[str]] = {}
        for path, first in near_copies(source, sorted(distinct.values()), executor).items():
            groups.setdefault(first, []).append(path)
        copies = sorted(map(sorted, groups.values())) if len(distinct) <= MOST else None
    skipped += rejected
    if not spans:
        raise AudiovqError(_no_usable_file(source, skipped))
    return _Folder(
        list(headers),
        {path: headers[path] for path in spans},
        {path: stats[path] for path in spans},
        spans,
        sorted(skipped, key=lambda file: file.path),
        copies,
        slicing,
        reasons,
        notes,
        seed,
    )


def _cut(
    source: Path, paths: Iterable[str], slicing: Slicing, executor: Executor
) -> tuple[dict[str, Spans], list[Skipped]]:
    """The clips of each recording, and the recordings that have none."""
    return _for_each(
        "inspect: cutting clips",
        list(paths),
        lambda path: plan(source / path, slicing).spans,
        executor,
    )


def _as_seed(seed: str, settings: SpectrogramConfig, clips: int) -> str:
    """Why to start from one of SEEDS, and with which spectrograms."""
    few = f"{clips} clip{'s are' if clips != 1 else ' is'} few"
    channels = "stereo" if settings.channels > 1 else "mono"
    return (
        f"start from {seed}, a model of {SEEDS[seed]}, as {few}, and with its spectrograms:"
        f" {settings.sample_rate:,} Hz, {channels}, windows of {settings.n_fft} samples"
    )


def _for_each(
    task: str, paths: Sequence[str], function: Callable[[str], _T], executor: Executor
) -> tuple[dict[str, _T], list[Skipped]]:
    """Results of `function` by path, and the paths for which it raised AudioError."""

    def attempt(path: str) -> tuple[_T] | AudioError:
        try:
            return (function(path),)
        except AudioError as error:
            return error

    results: dict[str, _T] = {}
    failed: list[Skipped] = []
    with progress(task, len(paths), "files") as step:
        for path, result in zip(paths, executor.map(attempt, paths), strict=True):
            if isinstance(result, AudioError):
                failed.append(Skipped(path, str(result)))
            else:
                (results[path],) = result
            step(1)
    return results, failed


def _labels(
    source: Path, readable: list[str], usable: list[str], asked: str | None
) -> tuple[dict[str, dict[str, str]], str | None, list[str]]:
    """Labels of each usable path, the `--labels` for `preprocess`, and messages.

    As `asked`; by default by folder, or else by a pattern that fits the names of the usable files.
    """
    how = asked or default_source(usable)
    if asked is None and how == "none":
        how = guess_pattern(usable) or "none"
    labels, notes = labels_of(source, readable, how)
    labels = {path: labels[path] for path in usable}
    # The default of `preprocess` may be another, as silent recordings count there.
    needs_no_flag = asked is None and how == default_source(readable)
    return labels, None if needs_no_flag else how, notes + synonyms(labels.values())


def _no_usable_file(source: Path, skipped: list[Skipped]) -> str:
    recordings_first = sorted(skipped, key=lambda file: not finding.is_recording(file.path))
    first = "; ".join(f"{file.path} {file.reason}" for file in recordings_first[:8])
    more = f"; and {len(skipped) - 8} more" if len(skipped) > 8 else ""
    return f"{source}: none of {len(skipped)} files can be used: {first}{more}"


def _settings(
    source: Path,
    config: PreprocessConfig,
    voting: Mapping[str, AudioInfo],
    stats: Mapping[str, RecordingStats],
) -> tuple[SpectrogramConfig, int, list[str]]:
    """Settings, frames per clip, and reasons: as in `preprocess`, with a lower rate if it suffices.

    `voting`: the recordings that `preprocess` chooses its settings by.
    """
    audible = {p: i for p, i in voting.items() if p in stats and stats[p].peak >= SILENT}
    infos = list((audible or voting).values())
    listen = functools.cache(functools.partial(character, [source / path for path in voting]))
    settings, frames, notes = choose_settings(config, infos, listen)
    rate = settings.sample_rate
    reason = f"{rate:,} Hz: as requested"
    if config.sample_rate is None:
        bandwidths = [stats[path].bandwidth_hz for path in audible]
        bandwidth = float(np.quantile(bandwidths or [0.0], 0.9))
        files = "all" if all(info.sample_rate == rate for info in infos) else "most"
        reason = (
            f"{rate:,} Hz: the rate of {files} files, with sound up to"
            f" {min(bandwidth, rate / 2):,.0f} Hz"
        )
        lower = [r for r in RATES if r < rate and bandwidth <= USABLE * r]
        if lower:
            config = replace(config, sample_rate=lower[0])
            settings, frames, notes = choose_settings(config, infos, listen)
            reason = (
                f"{lower[0]:,} Hz: 90 % of the files have no sound above {bandwidth:,.0f} Hz;"
                f" {rate:,} Hz, the rate of most, would add little"
            )
    milliseconds = 1000 * settings.n_fft / settings.sample_rate
    windows = [note for note in notes if "the recordings are" in note] or [
        f"windows of {settings.n_fft} samples ({milliseconds:.0f} ms), hop {settings.hop_length}:"
        " short enough for words, long enough for tones"
    ]
    return settings, frames, [reason, *windows, *(note for note in notes if note not in windows)]


def _preset(clips: int, seconds: float, few: bool) -> tuple[str, str]:
    """A suitable preset of `train`, and the reason. `few`: whether it starts from one of SEEDS."""
    if few:
        return "small", "up to 20 minutes on a laptop; several hundred clips make better models"
    if torch.cuda.is_available() and seconds >= 3600:
        return "base", "preset base: an hour of sound or more, and a GPU"
    if clips < FEW_CLIPS:
        only = f"{clips} clip{'s' * (clips != 1)}"
        return "tiny", f"preset tiny: only {only}; several hundred make better models"
    return "small", "preset small: 20 minutes on a laptop; --max-minutes 60 trains longer"


def _values(labels: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """The sorted values of each label, from the labels of each path."""
    names = sorted({name for of_path in labels.values() for name in of_path})
    return {name: sorted({of.get(name, "") for of in labels.values()} - {""}) for name in names}


def _counts(
    labels: Mapping[str, Mapping[str, str]], spans: Mapping[str, Spans]
) -> dict[str, Counter[str]]:
    """Clips of each value of each label."""
    counts: dict[str, Counter[str]] = {}
    for path, of_path in labels.items():
        for name, value in of_path.items():
            counts.setdefault(name, Counter())[value] += len(spans.get(path, ()))
    return counts


def _clipped(stats: Mapping[str, RecordingStats]) -> dict[str, float]:
    """Shares of clipped samples above CLIPPED, the largest first."""
    worst_first = sorted(stats.items(), key=lambda item: -item[1].clipped)
    return {path: one.clipped for path, one in worst_first if one.clipped > CLIPPED}


def _duplicates(stats: Mapping[str, RecordingStats]) -> list[list[str]]:
    """Groups of paths with identical samples."""
    groups: dict[str, list[str]] = {}
    for path, one in stats.items():
        groups.setdefault(one.sha256, []).append(path)
    return [paths for paths in groups.values() if len(paths) > 1]


def _commands(
    source: Path,
    config: PreprocessConfig,
    slicing: Slicing,
    labels: str | None,
    preset: str,
    seed: str | None,
) -> list[str]:
    """Command lines with all settings filled in, those of the spectrograms by `--like` where training starts from
    `seed`."""
    settings = slicing.spectrogram
    seconds = math.floor(1000 * slicing.clip_seconds) / 1000
    # A length that may not be asked for is chosen again.
    may_be_asked = SHORTEST_CLIP <= seconds <= LONGEST_CLIP
    filled = replace(
        config,
        sample_rate=settings.sample_rate,
        clip_seconds=seconds if may_be_asked else config.clip_seconds,
        n_fft=settings.n_fft,
        hop_length=settings.hop_length,
        n_mels=settings.n_mels,
        labels=labels,
        channels="stereo" if settings.channels > 1 else config.channels,
    )
    if seed is not None:
        filled = replace(config, clip_seconds=filled.clip_seconds, labels=labels)
    words = [*(["--like", seed] if seed else []), *flags(filled, PreprocessConfig())]
    how = f"--from {seed}" if seed else f"--preset {preset}"
    return [
        " ".join(["audiovq preprocess", as_argument(source), "dataset", *words]),
        f"audiovq train dataset model {how}",
        "audiovq generate model out",
    ]


def _invert(
    source: Path,
    slicing: Slicing,
    paths: Sequence[str],
    pieces: Sequence[Piece],
    out: Path | None,
    overwrite: bool,
) -> tuple[dict[str, float], dict[str, float]]:
    """Convert clips to spectrograms and back: scores of all, and spectral convergence by path.

    Writes originals and results as WAVs into `out`, if given, with figures.json.
    """
    waveforms = inversion.invert(
        Spectrogram(slicing.spectrogram), [piece.samples for piece in pieces]
    )
    originals = [piece.cut_to_clip(piece.samples) for piece in pieces]
    inverted = [
        piece.cut_to_clip(waveform) for piece, waveform in zip(pieces, waveforms, strict=True)
    ]
    grid = slicing.spectrogram.n_fft, slicing.spectrogram.hop_length
    convergence = {
        path: fidelity.spectral_convergence(a, b, *grid)
        for path, a, b in zip(paths, originals, inverted, strict=True)
        if peak_of(a) > fidelity.INAUDIBLE  # of silence, an error is 0 / 0
    }
    scores = fidelity.waveform_scores(originals, inverted, slicing.spectrogram)
    if out:
        sources = [source / path for path in paths]
        command = {
            "verb": "inspect",
            "spectrogram": to_json(slicing.spectrogram),
            "bytes": [sha256(path) for path in sources],
        }
        with writing_into(out, overwrite, command, sources) as filled:
            for number, (path, *pair) in enumerate(zip(paths, originals, inverted, strict=True)):
                stem = name_of(number, [path.replace("/", "_").rpartition(".")[0]], 2)
                for kind, waveform in zip(("original", "inverted"), pair, strict=True):
                    filled.expect(f"{stem}_{kind}.wav")
                    target = out / f"{stem}_{kind}.wav"
                    writing.write(target, waveform, slicing.spectrogram.sample_rate)
            filled.expect("figures.json")
            write_json(out / "figures.json", {"all": scores, "spectral_convergence": convergence})
    return scores, convergence
