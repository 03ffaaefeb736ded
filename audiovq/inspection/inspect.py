"""What a folder of recordings holds, and which settings fit it: to be asked before any training.

What would be skipped, and which settings are chosen, is told by `preprocess`' own code.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from audiovq.audio import finding, writing
from audiovq.audio.reading import AudioInfo
from audiovq.audio.silence import SILENT
from audiovq.audio.waveform import AudioError
from audiovq.config.errors import AudiovqError
from audiovq.config.flags import flags
from audiovq.config.serialize import to_json
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.dataset.manifest import Skipped
from audiovq.evaluation import fidelity
from audiovq.inspection.describe import describe
from audiovq.inspection.listen import Inspection, RecordingStats, measure
from audiovq.preprocessing.catalog import scan
from audiovq.preprocessing.labels import guess_pattern, labels_of
from audiovq.preprocessing.settings import choose_settings, voters
from audiovq.preprocessing.shard import ShardJob, first_clip, in_words, plan
from audiovq.runtime.files import name_of, sha256, write_json
from audiovq.runtime.outputs import writing_into
from audiovq.runtime.progress import progress
from audiovq.spectral import inversion
from audiovq.spectral.numpy_spectrogram import Piece
from audiovq.spectral.spectrogram import Spectrogram

RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100)
"""To which recordings may be brought down, where their sound reaches no higher than"""
USABLE = 0.45
"""so much of one."""
CLIPPED = 1e-3
"""A recording is clipped that stands still at its very peak for such a share of its samples."""
CLIPS = 6
"""So many are brought to spectrograms and back."""


def inspect(
    source: Path | str,
    out: Path | str | None = None,
    config: PreprocessConfig | None = None,
    *,
    overwrite: bool = False,
) -> Inspection:
    """Listen to all recordings below `source`, choose what `config` leaves open, and say why.

    Where `out` is given, it gets a few clips as WAVs, beside what their true spectrograms give, and
    figures.json. However long recordings are, little of them is in memory. Raises AudiovqError where
    there are none, or none that can be used, with what is wrong with each of the first few.
    """
    source, config = Path(source), config or PreprocessConfig()
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        headers, others, broken = scan(source, None, executor)
        skipped = others + broken
        trim_db = config.trim_db if config.trim else None

        def listen(path: str) -> RecordingStats | str:
            try:
                return measure(source / path, config.trim_db)
            except AudioError as error:
                return str(error)

        heard: dict[str, RecordingStats] = {}
        unheard: list[Skipped] = []
        with progress("inspect: listening", len(headers), "files") as step:
            for path, result in zip(headers, executor.map(listen, headers), strict=True):
                if isinstance(result, RecordingStats):
                    heard[path] = result
                else:
                    unheard.append(Skipped(path, result))
                step(1)
        if not heard:
            raise AudiovqError(_nothing(source, skipped + unheard))
        settings, frames, reasons = _settings(config, voters(source, headers, config), heard)
        job = ShardJob("", source, source, (), settings, frames, trim_db)

        def fit(path: str) -> list[tuple[int, int]] | str:
            try:
                return plan(source / path, job).spans
            except AudioError as error:  # what could not be listened to among them
                return str(error)

        spans: dict[str, list[tuple[int, int]]] = {}
        with progress("inspect: cutting clips", len(headers), "files") as step:
            for path, found in zip(headers, executor.map(fit, headers), strict=True):
                if isinstance(found, str):
                    skipped.append(Skipped(path, found))
                else:
                    spans[path] = found
                step(1)
    if not spans:
        raise AudiovqError(_nothing(source, skipped))
    skipped.sort(key=lambda one: one.path)
    heard = {path: heard[path] for path in spans}
    lengths = sorted(headers[path].seconds for path in spans)
    how = config.labels or guess_pattern(list(spans))
    by_folder, notes = labels_of(source, list(spans), config.labels)
    told = [(path, note) for path, one in heard.items() for note in one.notes]
    labelled = by_folder
    if not any(by_folder.values()) and how:
        labelled, notes = labels_of(source, list(spans), how)
    elif config.labels is None:
        how = None
    clips = sum(map(len, spans.values()))
    preset, why = _preset(clips, sum(lengths))
    chosen = sorted(spans)[:: max(1, len(spans) // CLIPS)][:CLIPS]
    pieces = [first_clip(job, path) for path in chosen]
    ceiling, inverted = _invert(job, chosen, pieces, Path(out) if out else None, overwrite)
    return Inspection(
        source=str(source),
        found=len(spans) + len(skipped),
        usable=len(spans),
        seconds=sum(lengths),
        rates=dict(Counter(headers[path].sample_rate for path in spans).most_common()),
        lengths=lengths,
        silent=sum(heard[path].silent * headers[path].seconds for path in spans) / sum(lengths),
        reaches=sorted(one.reaches for one in heard.values()),
        clipped={
            path: one.clipped
            for path, one in sorted(heard.items(), key=lambda item: -item[1].clipped)
            if one.clipped > CLIPPED
        },
        duplicates=_alike(heard),
        skipped=skipped,
        labels=_values(labelled),
        notes=notes + in_words(told, len(spans)),
        settings=settings,
        clip_seconds=frames * settings.hop_length / settings.sample_rate,
        clips=clips,
        preset=preset,
        reasons=[*reasons, why],
        commands=_commands(source, config, job, how, preset),
        ceiling=ceiling,
        inverted=inverted,
        descriptions={
            path: describe(piece.own(piece.samples), settings.sample_rate)
            for path, piece in zip(chosen, pieces, strict=True)
        },
    )


def _nothing(source: Path, skipped: list[Skipped]) -> str:
    recordings_first = sorted(skipped, key=lambda one: not finding.is_recording(one.path))
    first = "; ".join(f"{one.path} {one.reason}" for one in recordings_first[:8])
    more = f"; and {len(skipped) - 8} more" if len(skipped) > 8 else ""
    return f"{source}: none of {len(skipped)} files can be used: {first}{more}"


def _settings(
    config: PreprocessConfig, voting: dict[str, AudioInfo], heard: dict[str, RecordingStats]
) -> tuple[SpectrogramConfig, int, list[str]]:
    """Those of `preprocess`, at a lower rate where that holds all sound; and why."""
    infos = list(voting.values())
    settings, frames, notes = choose_settings(config, infos)
    rate = settings.sample_rate
    same = sum(info.sample_rate == rate for info in infos)
    sure = [heard[path] for path in voting if path in heard]
    reaches = [one.reaches for one in sure if one.peak >= SILENT]
    reach = float(np.quantile(reaches or [0.0], 0.9))
    reason = f"{rate:,} Hz: as asked"
    if config.sample_rate is None:
        files = "all files have it" if same == len(infos) else "most files have it"
        reason = f"{rate:,} Hz: {files}, and sound up to {min(reach, rate / 2):,.0f} Hz"
        lower = [r for r in RATES if r < rate and reach <= USABLE * r]
        if lower:
            config = replace(config, sample_rate=lower[0])
            settings, frames, notes = choose_settings(config, infos)
            reason = (
                f"{lower[0]:,} Hz: nine in ten files have no sound above {reach:,.0f} Hz, so that"
                f" {rate:,} Hz, which most have, would hold little more"
            )
    milliseconds = 1000 * settings.n_fft / settings.sample_rate
    return (
        settings,
        frames,
        [
            reason,
            f"windows of {settings.n_fft} samples ({milliseconds:.0f} ms), one every"
            f" {settings.hop_length}: short enough for words, long enough for tones",
            f"clips of up to {frames * settings.hop_length / settings.sample_rate:.2f} s: "
            + (
                "longer files are cut"
                if any("cut into" in note for note in notes)
                else "the longest file fits"
            ),
            *(note for note in notes if "cut into" not in note),
        ],
    )


def _preset(clips: int, seconds: float) -> tuple[str, str]:
    """The preset of training that fits, and why."""
    if torch.cuda.is_available() and seconds >= 3600:
        return "base", "preset base: there is an hour of sound or more, and a GPU to learn it"
    if clips < 200:
        return "tiny", f"preset tiny: {clips} clips are few; some hundred make better models"
    return "small", f"preset small: twenty minutes of a laptop are enough for {clips:,} clips"


def _values(labels: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    names = sorted({name for of_one in labels.values() for name in of_one})
    return {name: sorted({of.get(name, "") for of in labels.values()} - {""}) for name in names}


def _alike(heard: dict[str, RecordingStats]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for path, one in heard.items():
        groups.setdefault(one.sha256, []).append(path)
    return [paths for paths in groups.values() if len(paths) > 1]


def _commands(
    source: Path, config: PreprocessConfig, job: ShardJob, labels: str | None, preset: str
) -> list[str]:
    """The command lines with everything filled in."""
    settings = job.spectrogram
    seconds = job.clip_frames * settings.hop_length / settings.sample_rate
    filled = replace(
        config,
        sample_rate=settings.sample_rate,
        clip_seconds=math.floor(1000 * seconds) / 1000,
        n_fft=settings.n_fft,
        hop_length=settings.hop_length,
        n_mels=settings.n_mels,
        labels=labels,
    )
    words = flags(filled, PreprocessConfig())
    return [
        " ".join(["audiovq preprocess", shlex.quote(str(source)), "dataset", *words]),
        f"audiovq train dataset model --preset {preset}",
    ]


def _invert(
    job: ShardJob,
    paths: Sequence[str],
    pieces: Sequence[Piece],
    out: Path | None,
    overwrite: bool,
) -> tuple[dict[str, float], dict[str, float]]:
    """The first clips of recordings → true spectrograms → waveforms; scores of all, and of each."""
    whole = inversion.invert(Spectrogram(job.spectrogram), [piece.samples for piece in pieces])
    originals = [piece.own(piece.samples) for piece in pieces]
    inverted = [piece.own(waveform) for piece, waveform in zip(pieces, whole, strict=True)]
    grid = job.spectrogram.n_fft, job.spectrogram.hop_length
    each = {
        path: fidelity.spectral_convergence(a, b, *grid)
        for path, a, b in zip(paths, originals, inverted, strict=True)
    }
    scores = fidelity.waveform_scores(originals, inverted, job.spectrogram)
    if out:
        sources = [job.source / path for path in paths]
        command = {
            "verb": "inspect",
            "spectrogram": to_json(job.spectrogram),
            "bytes": [sha256(source) for source in sources],
        }
        with writing_into(out, overwrite, command, sources) as filled:
            for number, (path, *pair) in enumerate(zip(paths, originals, inverted, strict=True)):
                stem = name_of(number, [path.replace("/", "_").rpartition(".")[0]], 2)
                for kind, waveform in zip(("original", "inverted"), pair, strict=True):
                    filled.expect(f"{stem}_{kind}.wav")
                    target = out / f"{stem}_{kind}.wav"
                    writing.write(target, waveform, job.spectrogram.sample_rate)
            filled.expect("figures.json")
            write_json(out / "figures.json", {"all": scores, "spectral_convergence": each})
    return scores, each


def bar_sign(wanted: str, plain: str) -> str:
    """`wanted`, or `plain` where the standard output has no such sign."""
    try:
        wanted.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return plain
    return wanted
