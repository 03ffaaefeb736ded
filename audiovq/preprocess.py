"""A folder of recordings → a dataset.

Headers are scanned and all settings chosen first; then each shard is made on its own, by any
executor, from a list of files to one array and one manifest. A shard is there whole or not at all,
so a run that was stopped goes on where it stood and ends in the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiovq import audio
from audiovq.analysis import Analysis
from audiovq.catalog import Recording, Skipped, catalog
from audiovq.choice import choose_settings, voters
from audiovq.config import AudiovqError, PreprocessConfig, SpectrogramConfig, to_json
from audiovq.files import (
    claimed,
    clear,
    is_blank,
    read_json,
    read_object,
    require_new,
    sha256,
    sweep,
    write_json,
)
from audiovq.manifest import SPLITS, Clip, as_dict, write_manifests
from audiovq.pool import pool, quick
from audiovq.progress import progress
from audiovq.shard import ShardJob, in_words, make_shard, shard_notes, shard_rows

FILES_PER_SHARD = 256
SHARD_BYTES = 1 << 30
MANY_SHARDS = 32
"""With fewer, threads are done before processes have started."""


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
        infos = voters(source, {r.path: r.info for r in recordings}, config)
        settings, clip_frames, warnings = choose_settings(config, list(infos.values()))
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
                told = list(itertools.chain.from_iterable(map(shard_notes, jobs)))
                summary = _assemble(
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
            for note in in_words(told, summary.used):
                summary.warnings.append(note)
                say(f"note: {note}")
            return summary


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
    if plan.exists() and read_object(plan, "a plan").get("fingerprint") == fingerprint:
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
        for row in shard_rows(job):
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
        own = [one for one in skipped if audio.is_recording(one.path)] or skipped
        worst = own[0] if own else Skipped(str(target), "nothing is left to learn from")
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
        for row in shard_rows(job):
            if isinstance(row, Clip):
                yield row


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
