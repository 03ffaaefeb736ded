"""A folder of recordings → a dataset.

Headers are scanned and all settings chosen first; then each shard is made on its own, by any
executor, from a list of files to one array and one manifest. A shard is there whole or not at all,
so a run that was stopped goes on where it stood and ends in the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audiovq import audio
from audiovq.analysis import Analysis
from audiovq.catalog import Recording, Skipped, catalog
from audiovq.config import AudiovqError, PreprocessConfig, SpectrogramConfig, to_json
from audiovq.files import (
    atomic,
    claimed,
    clear,
    is_blank,
    read_json,
    require_new,
    sha256,
    sweep,
    write_json,
    write_text,
)
from audiovq.manifest import (
    SPLITS,
    Clip,
    as_dict,
    json_line,
    write_manifests,
    write_shard_header,
)
from audiovq.pool import pool, quick
from audiovq.progress import progress

FILES_PER_SHARD = 256
SHARD_BYTES = 1 << 30
MANY_SHARDS = 32
"""With fewer, threads are done before processes have started."""
RUN_SAMPLES = 1 << 20
"""Of short recordings, before or after resampling, that are held and resampled at a time."""
HEAP = 1 << 24
"""Bytes of an array up to which its memory is used again; to clear new pages takes longer than what we
do with them."""
FRAMES_MULTIPLE = 16
"""Clips are whole multiples of so many frames, which every network's stride divides."""


@dataclass(frozen=True)
class ShardJob:
    """All that one shard is made from; small, and can be sent to another machine."""

    name: str
    source: Path
    target: Path
    recordings: tuple[Recording, ...]
    spectrogram: SpectrogramConfig
    clip_frames: int
    trim_db: float | None

    @property
    def split(self) -> str:
        """That all its clips are in."""
        return self.name.rpartition("-")[0]

    @property
    def clip_samples(self) -> int:
        """Of the longest clip: as many as give just `clip_frames`."""
        return self.clip_frames * self.spectrogram.hop_length - 1


@dataclass
class Summary:
    """What a run of `preprocess` did."""

    found: int
    used: int
    skipped: list[Skipped]
    clips: dict[str, int]
    seconds: float
    """Of sound in all clips, padding not counted."""
    warnings: list[str] = field(default_factory=list)


def preprocess(
    source: Path,
    target: Path,
    config: PreprocessConfig | None = None,
    *,
    overwrite: bool = False,
    executor: Executor | None = None,
    processes: bool = False,
    say: Callable[[str], None] = print,
) -> Summary:
    """Make the dataset `target` from the recordings below `source`.

    Everything that `config` leaves open is chosen from the recordings. Run again, it goes on where
    it stopped. `executor` makes the shards; None: threads, and with `processes`, which a script may ask
    for below its `if __name__ == "__main__"`, processes where there are many shards. Raises AudiovqError where there is nothing to use or `target` holds something else.
    """
    config = config or PreprocessConfig()
    source, target = Path(source), Path(target)
    with contextlib.nullcontext(executor) if executor else quick() as makers:
        files = catalog(source, target, config, makers)
        recordings, skipped = files.recordings, files.skipped
        settings, clip_frames, warnings = choose_settings(config, [r.info for r in recordings])
        Analysis(settings)  # refuses what cannot be, before anything is written
        warnings += files.notes
        fingerprint = _fingerprint(config, settings, clip_frames, recordings, skipped)
        with claimed(target):
            if (target / "dataset.json").exists() and not overwrite:
                from audiovq.dataset import Dataset  # and torch, which nothing else here needs

                if Dataset(target).fingerprint != fingerprint:
                    raise AudiovqError(
                        f"{target}: holds another dataset; name another folder, or add --overwrite"
                    )
                shutil.rmtree(target / "work", ignore_errors=True)  # of a run killed at its end
                say(f"{target}: complete already, made from these recordings with these settings")
                return read_summary(target)
            prepare(target, fingerprint, overwrite)
            for warning in warnings:
                say(f"note: {warning}")
            work = (target / "work").absolute()  # another machine has another working folder
            jobs = list(_jobs(source.absolute(), work, recordings, settings, clip_frames, config))
            slow = processes and isinstance(makers, ThreadPoolExecutor) and executor is None
            with (
                pool()
                if slow and len(jobs) >= MANY_SHARDS
                else contextlib.nullcontext(makers) as makers
            ):
                _make_shards(target, jobs, makers, say)
                return _assemble(
                    target,
                    jobs,
                    makers,
                    config,
                    settings,
                    clip_frames,
                    fingerprint,
                    skipped,
                    files.found,
                    warnings,
                )


def choose_settings(
    config: PreprocessConfig, headers: list[audio.AudioInfo]
) -> tuple[SpectrogramConfig, int, list[str]]:
    """The spectrogram's settings, frames per clip, and what the user should know of the choice."""
    rates = Counter(header.sample_rate for header in headers)
    rate = config.sample_rate or min(rates, key=lambda r: (-rates[r], r))
    settings = SpectrogramConfig.for_rate(
        rate, config.n_fft, config.hop_length, config.n_mels, config.range_db
    )
    warnings = []
    if lower := sum(n for r, n in rates.items() if r < rate):
        warnings.append(
            f"{lower} of {len(headers)} files have a lower rate than {rate} Hz;"
            " bringing them up adds nothing to their sound (--sample-rate sets another)"
        )
    seconds = config.clip_seconds
    if seconds is None:
        lengths = [h.seconds for h in headers]
        longest = max(lengths)
        seconds = min(2.0, float(np.quantile(lengths, 0.99)))
        if longest <= 2.5:
            seconds = longest + 1 / rate  # a clip of n frames ends one sample before n hops
    frames = math.ceil(seconds * rate / settings.hop_length / FRAMES_MULTIPLE) * FRAMES_MULTIPLE
    if longer := sum(h.seconds * rate >= frames * settings.hop_length for h in headers):
        warnings.append(
            f"{longer} of {len(headers)} files are longer than a clip of"
            f" {frames * settings.hop_length / rate:.2f} s and are cut into several"
        )
    return settings, frames, warnings


def _make_shards(
    target: Path, jobs: list[ShardJob], executor: Executor, say: Callable[[str], None]
) -> None:
    """Make those shards that are not there yet."""
    todo = [job for job in jobs if not (job.target / f"{job.name}.jsonl").exists()]
    if len(todo) < len(jobs):
        say(
            f"{target}: going on where it stopped, {len(jobs) - len(todo)} of {len(jobs)} shards done"
        )
    futures = [executor.submit(make_shard, job) for job in todo]
    total, left = (sum(len(job.recordings) for job in some) for some in (jobs, todo))
    with progress("preprocess", total, "files", total - left) as step:
        try:
            for future in as_completed(futures):
                step(future.result())
        except BrokenExecutor as error:
            raise AudiovqError(
                f"{target}: a process at work on it was ended from outside; run again, it goes on"
            ) from error


def make_shard(job: ShardJob) -> int:
    """Write one shard: NAME.npy, then NAME.jsonl, which marks it done. Returns the files read.

    Neither a recording nor the shard's array is ever whole in memory: clips go to the disk as they
    come.
    """
    np.empty(HEAP, np.uint8)  # freed at once; the system's allocator then keeps what arrays leave
    rows: list[dict[str, Any]] = []
    levels: list[int] = []
    shape = job.spectrogram.bins, job.clip_frames
    with atomic(job.target / f"{job.name}.npy") as temporary, open(temporary, "wb") as file:
        write_shard_header(file, (0, *shape))
        analysis = Analysis(job.spectrogram)
        for images, batch_levels in analysis.batches(_pieces(job, rows), job.clip_frames):
            file.write(images.data)
            levels += batch_levels
        file.seek(0)
        write_shard_header(file, (len(levels), *shape))
    for row, level in zip((row for row in rows if "level" in row), levels, strict=True):
        row["level"] = level
    write_text(job.target / f"{job.name}.jsonl", "".join(json_line(row) for row in rows))
    return len(job.recordings)


class Plan(NamedTuple):
    """What a first pass over a recording tells."""

    blocks: Iterator[audio.Waveform]
    """All of it, for the second pass."""
    peak: float
    spans: list[tuple[int, int]]
    """Each clip's start and end. They come one after another; a short rest is covered by a clip that
    ends with it."""


def _pieces(job: ShardJob, rows: list[dict[str, Any]]) -> Iterator[audio.Waveform]:
    """The samples of every clip; its row, or the file's reason to be skipped, is added to `rows`."""
    for recording, path, checksum, found in _plans(job):
        if isinstance(found, str):
            rows.append({"path": recording.path, "reason": found})
            continue
        blocks, peak, spans = found
        for (start, end), piece in zip(spans, _cut(path, blocks, spans), strict=True):
            rows.append(
                {
                    "path": recording.path,
                    "offset": start - spans[0][0],
                    "num_samples": end - start,
                    "sample_rate": recording.info.sample_rate,
                    "level": 0,
                    "labels": recording.labels,
                    "sha256": checksum,
                }
            )
            yield piece / np.float32(peak) if peak > 1 else piece


def _plans(job: ShardJob) -> Iterator[tuple[Recording, str, str, Plan | str]]:
    """Each recording, its path, its SHA-256 and its plan, or the reason why it is left out.

    Short ones that follow each other are read once, and resampled together.
    """
    rate = job.spectrogram.sample_rate
    for run in _runs(job):
        paths = [os.path.join(job.source, recording.path) for recording in run]
        found: list[tuple[audio.Waveform, int, str] | str | None] = []
        for recording, path in zip(run, paths, strict=True):
            try:
                found.append(audio.short(path, _most(recording.info, rate)))
            except (audio.AudioError, OSError) as error:
                found.append(_reason(error))
        sounds = [sound for sound in found if isinstance(sound, tuple)]
        resampled = {}
        for own in {sound[1] for sound in sounds}:
            alike = [sound[0] for sound in sounds if sound[1] == own]
            resampled[own] = iter(audio.resample_all(alike, own, rate))
        for recording, path, sound in zip(run, paths, found, strict=True):
            checksum = ""
            planned: Plan | str
            try:
                if sound is None:
                    checksum, planned = sha256(path), plan(path, job)
                elif isinstance(sound, str):
                    planned = sound
                else:
                    _, own, checksum = sound
                    planned = _planned(next(resampled[own]), job)
            except (audio.AudioError, OSError) as error:
                planned = _reason(error)
            yield recording, path, checksum, planned


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", str(error))


def _runs(job: ShardJob) -> Iterator[list[Recording]]:
    """A shard's recordings in order: short ones together, up to RUN_SAMPLES, long ones alone."""
    run: list[Recording] = []
    room = RUN_SAMPLES
    for recording in job.recordings:
        info = recording.info
        size = math.ceil(info.num_samples * max(1, job.spectrogram.sample_rate / info.sample_rate))
        if run and size > room:
            yield run
            run, room = [], RUN_SAMPLES
        run.append(recording)
        room -= size
    if run:
        yield run


def _most(info: audio.AudioInfo, rate: int) -> int:
    """Samples up to which a recording is short: its blocks, at either rate, would be one."""
    return max(1, int(audio.BLOCK / info.channels * min(1, info.sample_rate / rate)))


def plan(path: Path | str, job: ShardJob) -> Plan:
    """A first pass over a file, in blocks. Raises AudioError with the reason where it is left out."""
    rate = job.spectrogram.sample_rate
    extent = audio.Extent(rate, job.trim_db is not None)
    for block in audio.blocks(path, rate):
        extent.add(block)
    short = extent.num_samples == len(block)  # and so need not be read again
    blocks = iter([block]) if short else audio.blocks(path, rate)
    return Plan(blocks, extent.peak, _spans(extent, job))


def _planned(waveform: audio.Waveform, job: ShardJob) -> Plan:
    """The plan of a recording that is there already. Raises as `plan` does."""
    extent = audio.Extent(job.spectrogram.sample_rate, job.trim_db is not None)
    extent.add(waveform)
    return Plan(iter([waveform]), extent.peak, _spans(extent, job))


def _spans(extent: audio.Extent, job: ShardJob) -> list[tuple[int, int]]:
    """Where the clips of a recording lie. Raises AudioError where it has none."""
    rate = job.spectrogram.sample_rate
    if extent.peak == 0:
        raise audio.AudioError("is silent throughout")
    start, end = 0, extent.num_samples
    if job.trim_db is not None:
        start, end = extent.trim(job.trim_db)
    if end - start < job.spectrogram.n_fft:
        raise audio.AudioError(
            f"is shorter than one window ({1000 * (end - start) / rate:.0f} ms of sound,"
            f" a window is {1000 * job.spectrogram.n_fft / rate:.0f} ms)"
        )
    starts = list(range(start, end, job.clip_samples))
    if len(starts) > 1 and end - starts[-1] < job.clip_samples // 4:
        starts[-1] = end - job.clip_samples
    return [(at, min(at + job.clip_samples, end)) for at in starts]


def excerpt(job: ShardJob, path: str, offset: int = 0) -> audio.Waveform:
    """The samples (samples,) of the clip of a recording that begins at `offset`, as `Clip` counts it.

    Raises AudioError where the recording cannot be used, or has no such clip.
    """
    blocks, peak, spans = plan(job.source / path, job)
    for start, end in spans:
        if start - spans[0][0] == offset:
            return next(_cut(job.source / path, blocks, [(start, end)])) / np.float32(max(1, peak))
    raise audio.AudioError(f"has no clip at {offset}")


def _cut(
    path: Path | str, blocks: Iterator[audio.Waveform], spans: list[tuple[int, int]]
) -> Iterator[audio.Waveform]:
    """The samples from each start to its end, out of blocks; starts only rise."""
    held, at = np.zeros(0, np.float32), 0
    try:
        for start, end in spans:
            while at + len(held) < end:
                passed = min(start - at, len(held))
                held, at = np.concatenate([held[passed:], next(blocks)]), at + passed
            yield held[start - at : end - at]
    except (audio.AudioError, StopIteration) as error:
        raise AudiovqError(f"{path}: changed while it was read; run preprocess again") from error


def _fingerprint(
    config: PreprocessConfig,
    settings: SpectrogramConfig,
    clip_frames: int,
    recordings: list[Recording],
    skipped: list[Skipped],
) -> str:
    """SHA-256 over all that the dataset is made from, short of the recordings' samples."""
    encode = json.JSONEncoder(sort_keys=True, default=as_dict).encode
    settled = encode([to_json(config), to_json(settings), clip_frames])
    digest = hashlib.sha256(settled[:-1].encode())
    for rows in (recordings, skipped):  # of which the text may be long: a row at a time
        digest.update(b", [")
        for number, row in enumerate(rows):
            digest.update((", " * (number > 0) + encode(row)).encode())
        digest.update(b"]")
    digest.update(b"]")
    return digest.hexdigest()


def prepare(target: Path, fingerprint: str, overwrite: bool) -> None:
    """Leave `target` empty but for shards of this very dataset."""
    plan = target / "work" / "plan.json"
    if plan.exists() and read_json(plan, "a plan").get("fingerprint") == fingerprint:
        sweep(target)
        return
    if plan.exists() or (overwrite and (target / "dataset.json").exists()):
        if not overwrite:
            raise AudiovqError(
                f"{target}: holds a started dataset of other recordings or settings;"
                " name another folder, or add --overwrite"
            )
        write_json(plan, {"fingerprint": None})  # a run killed now leaves what can be overwritten
        clear(target, but=plan.parent)
        clear(plan.parent, but=plan)
    elif overwrite and not is_blank(target):
        raise AudiovqError(f"{target}: exists and is no dataset; empty it, or name another folder")
    else:
        require_new(target, overwrite=False)
        sweep(target)
    write_json(plan, {"fingerprint": fingerprint})


def _jobs(
    source: Path,
    work: Path,
    recordings: list[Recording],
    settings: SpectrogramConfig,
    clip_frames: int,
    config: PreprocessConfig,
) -> Iterator[ShardJob]:
    """Each split's recordings in order, as many to a shard as its size allows."""
    clip_seconds = clip_frames * settings.hop_length / settings.sample_rate
    clips_limit = max(1, SHARD_BYTES // (settings.bins * clip_frames * 2))
    most_files = max(FILES_PER_SHARD, len(recordings) // 1024)
    trim_db = config.trim_db if config.trim else None
    for split in SPLITS:
        own = [recording for recording in recordings if recording.split == split]
        files_limit = math.ceil(len(own) / max(1, math.ceil(len(own) / most_files)))  # all alike
        shards: list[list[Recording]] = []
        clips = 0
        for recording in own:
            more = math.ceil(recording.info.seconds / clip_seconds) + 1
            if not shards or clips + more > clips_limit or len(shards[-1]) >= files_limit:
                shards.append([])
                clips = 0
            shards[-1].append(recording)
            clips += more
        for number, shard in enumerate(shards):
            name = f"{split}-{number:05d}"
            yield ShardJob(name, source, work, tuple(shard), settings, clip_frames, trim_db)


def _assemble(
    target: Path,
    jobs: list[ShardJob],
    executor: Executor,
    config: PreprocessConfig,
    settings: SpectrogramConfig,
    clip_frames: int,
    fingerprint: str,
    skipped: list[Skipped],
    found: int,
    warnings: list[str],
) -> Summary:
    """Shards' manifests → the dataset's; dataset.json comes last and makes it a dataset."""
    shards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    skipped = list(skipped)
    for job in jobs:
        count = 0
        for row in _rows(job):
            if isinstance(row, Clip):
                count += 1
            else:
                skipped.append(row)
        made, final = job.target / f"{job.name}.npy", target / f"{job.name}.npy"
        if count:
            if made.exists():
                os.replace(made, final)
            shards[job.split].append({"file": final.name, "clips": count})
    listed = [shard for split in SPLITS for shard in shards[split]]
    paths = [target.absolute() / shard["file"] for shard in listed]
    for shard, checksum in zip(listed, executor.map(sha256, paths), strict=True):
        shard["sha256"] = checksum
    skipped.sort(key=lambda s: s.path)
    if not shards["train"]:
        worst = skipped[0] if skipped else Skipped(str(target), "nothing is left to learn from")
        shutil.rmtree(target)
        raise AudiovqError(f"no recording can be learnt from: {worst.path} {worst.reason}")
    totals = write_manifests(
        target,
        {split: _clips([job for job in jobs if job.split == split]) for split in SPLITS},
        shards,
        skipped,
        found,
        settings,
        clip_frames,
        config,
        fingerprint,
        jobs[0].source,
    )
    shutil.rmtree(target / "work")
    counts = {split: sum(shard["clips"] for shard in shards[split]) for split in SPLITS}
    return Summary(found, totals.used, skipped, counts, totals.seconds, warnings)


def _clips(jobs: Iterable[ShardJob]) -> Iterator[Clip]:
    """All clips of some finished shards."""
    for job in jobs:
        for row in _rows(job):
            if isinstance(row, Clip):
                yield row


def _rows(job: ShardJob) -> Iterator[Clip | Skipped]:
    """What a finished shard's manifest says, clip by clip."""
    with open(job.target / f"{job.name}.jsonl", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield Skipped(**row) if "reason" in row else Clip(**row)


def read_summary(target: Path) -> Summary:
    """What the run that made the dataset `target` did."""
    header = read_json(target / "dataset.json", "a dataset")
    try:
        with open(target / "skipped.jsonl", encoding="utf-8") as file:
            skipped = [Skipped(**json.loads(line)) for line in file]
        clips = {split: int(header["splits"][split]["clips"]) for split in SPLITS}
        files = header["files"]
        return Summary(files["found"], files["used"], skipped, clips, header["seconds"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AudiovqError(f"{target}: damaged ({error!r}); run preprocess again") from error
