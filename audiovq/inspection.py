"""What a folder of recordings holds, and which settings fit it: to be asked before any training.

What would be skipped, and which settings are chosen, is told by `preprocess`' own code.
"""

from __future__ import annotations

import hashlib
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from audiovq import audio, codec, fidelity
from audiovq.catalog import Skipped, guess_pattern, labels_of, scan
from audiovq.choice import choose_settings, voters
from audiovq.config import AudiovqError, PreprocessConfig, SpectrogramConfig, to_json
from audiovq.extent import SILENT, Extent
from audiovq.files import filling, name_of, sha256, write_json
from audiovq.flags import flags
from audiovq.progress import progress
from audiovq.shard import ShardJob, first_clip, in_words, plan
from audiovq.spectrogram import Spectrogram

WINDOW = 1024
"""Samples of a spectrum by which bandwidth is told."""
REACH_DB = 60
"""What lies further below a recording's strongest frequency is not counted as its sound."""
RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100)
"""To which recordings may be brought down, where their sound reaches no higher than"""
USABLE = 0.45
"""so much of one."""
CLIPPED = 1e-3
"""A recording is clipped that stands still at its very peak for such a share of its samples."""
CLIPS = 6
"""So many are brought to spectrograms and back."""


@dataclass(frozen=True)
class Heard:
    """One recording, listened to at its own rate from end to end."""

    peak: float
    """Of its absolute values."""
    silent: float
    """Share of its 20 ms windows."""
    clipped: float
    """Share of its samples at its very peak, or lowest point, that do not leave it at once."""
    reaches: float
    """Hz up to which it has sound."""
    sha256: str
    """Of its samples and its rate, in whatever kind of file."""
    notes: tuple[str, ...] = ()
    """What its user should know, as `audio.blocks` tells it."""


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found; of plain values, so that it can become JSON."""

    source: str
    found: int
    usable: int
    seconds: float
    """Of all usable recordings."""
    rates: dict[int, int]
    """Hz → recordings."""
    lengths: list[float]
    """Seconds of each usable recording, rising."""
    silent: float
    """Share of all that is silence."""
    reaches: list[float]
    """Hz up to which each usable recording has sound, rising."""
    clipped: dict[str, float]
    """Those that are, with the share of their samples, the worst first."""
    duplicates: list[list[str]]
    """Groups of recordings whose samples are the same."""
    skipped: list[Skipped]
    """With the reasons, as `preprocess` gives them."""
    labels: dict[str, list[str]]
    notes: list[str]
    """What the user should know."""
    settings: SpectrogramConfig
    clip_seconds: float
    clips: int
    """That the recordings become."""
    preset: str
    reasons: list[str]
    """For the settings, a sentence each."""
    commands: list[str]
    """That make a dataset with these settings, and a model."""
    ceiling: dict[str, float]
    """`fidelity.waveform_scores` of a few clips after their true spectrograms were inverted: no
    model on these settings can exceed them."""
    inverted: dict[str, float]
    """Those clips' recordings, with their spectral convergence."""


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

        def listen(path: str) -> Heard | str:
            try:
                return hear(source / path, config.trim_db)
            except audio.AudioError as error:
                return str(error)

        heard: dict[str, Heard] = {}
        unheard: list[Skipped] = []
        with progress("inspect: listening", len(headers), "files") as step:
            for path, result in zip(headers, executor.map(listen, headers), strict=True):
                if isinstance(result, Heard):
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
            except audio.AudioError as error:  # what could not be listened to among them
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
    ceiling, inverted = _invert(job, chosen, Path(out) if out else None, overwrite)
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
    )


def hear(path: Path, trim_db: float) -> Heard:
    """Listen to a recording, block by block. Raises AudioError where it cannot be read.

    Sound that was clipped and then made softer, or stored with loss, is not told from other sound.
    """
    rate = audio.info(path).sample_rate
    extent = Extent(rate)
    digest = hashlib.sha256(str(rate).encode())
    power, held = np.zeros(WINDOW // 2 + 1), Counter[float]()
    notes: list[str] = []
    for block in audio.blocks(path, note=notes.append):
        extent.add(block)
        digest.update(block.tobytes())
        power += _power(block)
        stays = block[1:][block[1:] == block[:-1]]
        for extreme in (float(block.max()), float(block.min())) if len(stays) else ():
            held[extreme] += int((stays == extreme).sum())
    still = sum(n for value, n in held.items() if abs(value) > 0.9 * extent.peak)
    strong = np.flatnonzero(power > power.max() * 10 ** (-REACH_DB / 10))
    loud = extent.loud(trim_db)
    return Heard(
        peak=extent.peak,
        silent=1 - float(loud.mean()),
        clipped=still / extent.num_samples,
        reaches=min(rate / 2, (int(strong[-1]) + 1) * rate / WINDOW) if len(strong) else 0.0,
        sha256=digest.hexdigest(),
        notes=tuple(notes),
    )


def _power(block: audio.Waveform) -> npt.NDArray[np.float64]:
    """(samples,) → (WINDOW / 2 + 1,): the power of each frequency, summed over windows."""
    whole = max(1, len(block) // WINDOW) * WINDOW
    padded = np.pad(block[:whole], (0, max(0, whole - len(block)))).reshape(-1, WINDOW)
    spectra = np.fft.rfft((padded - padded.mean(axis=1, keepdims=True)) * np.blackman(WINDOW))
    power: npt.NDArray[np.float64] = (np.abs(spectra) ** 2).sum(axis=0)
    return power


def _nothing(source: Path, skipped: list[Skipped]) -> str:
    recordings_first = sorted(skipped, key=lambda one: not audio.is_recording(one.path))
    first = "; ".join(f"{one.path} {one.reason}" for one in recordings_first[:8])
    more = f"; and {len(skipped) - 8} more" if len(skipped) > 8 else ""
    return f"{source}: none of {len(skipped)} files can be used: {first}{more}"


def _settings(
    config: PreprocessConfig, voting: dict[str, audio.AudioInfo], heard: dict[str, Heard]
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


def _alike(heard: dict[str, Heard]) -> list[list[str]]:
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
    job: ShardJob, paths: Sequence[str], out: Path | None, overwrite: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """The first clips of recordings → true spectrograms → waveforms; scores of all, and of each."""
    pieces = [first_clip(job, path) for path in paths]
    whole = codec.invert(Spectrogram(job.spectrogram), [piece.samples for piece in pieces])
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
        with filling(out, overwrite, command, sources) as filled:
            for number, (path, *pair) in enumerate(zip(paths, originals, inverted, strict=True)):
                stem = name_of(number, [path.replace("/", "_").rpartition(".")[0]], 2)
                for kind, waveform in zip(("original", "inverted"), pair, strict=True):
                    filled.expect(f"{stem}_{kind}.wav")
                    target = out / f"{stem}_{kind}.wav"
                    audio.write(target, waveform, job.spectrogram.sample_rate)
            filled.expect("figures.json")
            write_json(out / "figures.json", {"all": scores, "spectral_convergence": each})
    return scores, each


# --- In words -----------------------------------------------------------------------------------

BAR = 24
"""Characters of the longest bar."""
LISTED = 12
"""So many of a long list are shown; `--json` has all."""


def inspection_table(found: Inspection) -> str:
    """An inspection as lines of text, with small histograms."""
    lines = [
        f"{found.source}: {found.usable:,} of {found.found:,} files can be used,"
        f" {_duration(found.seconds)} of sound",
        "",
        *_histogram("rate", [(f"{r:,} Hz", n) for r, n in found.rates.items()]),
        *_histogram("length", _bins(found.lengths, "s", ".2f")),
        *_histogram("sound up to", _bins(found.reaches, "Hz", ",.0f")),
        "",
        f"silence     {found.silent:.0%} of all; what is at both ends is cut off",
        f"clipped     {len(found.clipped)} files",
        *_listed([f"{path}: {share:.1%} of its samples" for path, share in found.clipped.items()]),
        f"duplicates  {sum(len(group) - 1 for group in found.duplicates)} files",
        *_listed([" = ".join(group) for group in found.duplicates]),
        f"skipped     {len(found.skipped)} files",
        *_listed([f"{one.path}: {one.reason}" for one in found.skipped]),
        f"labels      {'none' if not found.labels else ''}".rstrip(),
        *_listed([f"{name}: {_some(values)}" for name, values in found.labels.items()]),
        *(f"note: {note}" for note in found.notes),
        "",
        "What fits",
        *(f"  {reason}" for reason in found.reasons),
        "",
        f"What no model on these settings can exceed ({len(found.inverted)} clips, from their true"
        " spectrograms)",
        f"  spectral convergence {found.ceiling['spectral_convergence']:.3f} (0 is exact)"
        + (f", PESQ {found.ceiling['pesq']:.2f} (at most 4.5)" if "pesq" in found.ceiling else ""),
        "",
        *found.commands,
    ]
    return "\n".join(lines)


def _histogram(title: str, rows: Sequence[tuple[str, int]]) -> list[str]:
    """Rows of name, number and bar, the title before the first."""
    most = max(n for _, n in rows)
    sign = _sign("█", "#")
    return [
        f"{title if i == 0 else '':<11} {name:>20} {n:>7,}  {sign * math.ceil(BAR * n / most)}".rstrip()
        for i, (name, n) in enumerate(rows)
    ]


def _sign(wanted: str, plain: str) -> str:
    """`wanted`, or `plain` where the standard output has no such sign."""
    try:
        wanted.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return plain
    return wanted


def _bins(values: Sequence[float], unit: str, how: str) -> list[tuple[str, int]]:
    """Rising values → up to six ranges of one width with their numbers; the last takes the longest tail."""
    low, high = values[0], float(np.quantile(values, 0.98))
    if high - low < 1e-3 * high:
        return [(f"{low:{how}} {unit}", len(values))]
    edges = np.linspace(low, high, 7)
    edges[-1] = max(values[-1], high)
    counts = np.histogram(values, edges)[0].tolist()
    return [
        (f"{a:{how}} to {b:{how}} {unit}", n)
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _listed(lines: Sequence[str]) -> list[str]:
    more = [f"  and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
    return [f"  {line}" for line in lines[:LISTED]] + more


def _some(values: Sequence[str]) -> str:
    return f"{len(values)} values: {', '.join(values[:LISTED])}{_sign(', …', ', ...') * (len(values) > LISTED)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
