"""A folder of recordings → a dataset.

Headers are scanned and all settings chosen first; then each shard is made on its own, by any
executor, from a list of files to one array and one manifest. A shard is there whole or not at all,
so a run that was stopped goes on where it stood and ends in the same bytes. What a dataset is made from is
known by its bytes; while a run is at work, size and times tell which files need not be read for it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import to_json
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.dataset.manifest import (
    SPLITS,
    VERSION,
    Clip,
    Skipped,
    as_dict,
    read_dataset_header,
    read_manifest,
    without_paths,
    write_manifests,
)
from audiovq.preprocessing.catalog import Catalog, Recording, catalog, read_contents, write_contents
from audiovq.preprocessing.settings import choose_settings, voters
from audiovq.preprocessing.shard import ShardJob, in_words, make_shard, shard_notes, shard_rows
from audiovq.preprocessing.splits import Dealt, held_shares, notes_of, splits_of
from audiovq.runtime.executors import local_executor, process_pool
from audiovq.runtime.files import (
    clear,
    is_blank,
    lock_folder,
    read_json,
    read_object,
    remove_partials,
    require_new,
    require_outside_products,
    sha256,
    write_json,
)
from audiovq.runtime.progress import progress
from audiovq.spectral.numpy_spectrogram import Analysis

FILES_PER_SHARD = 256
SHARD_BYTES = 1 << 30
MANY_SHARDS = 32
"""With fewer, threads are done before processes have started."""
CONTENTS = "contents.txt"
"""What a run at work knows of the recordings' bytes."""
ROUNDS = 3
"""How often recordings are dealt to splits at most: again where what cannot be used leaves one empty."""


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
    with (
        _naming_lost_workers(target),
        contextlib.nullcontext(executor) if executor else local_executor() as makers,
    ):
        known = read_contents(target / "work" / CONTENTS)
        files = catalog(source, target, config, makers, known)
        del known
        infos = voters(source, files.headers, config)
        settings, clip_frames, warnings = choose_settings(config, list(infos.values()))
        Analysis(settings)  # refuses what cannot be, before anything is written
        clips = _clips_by_header(files, settings, clip_frames)
        dealt = splits_of(
            list(files.headers), config, sounds=files.sounds, clips=clips, labels=files.labels
        )
        warnings += files.notes
        fingerprint = _fingerprint(config, settings, clip_frames, files)
        with lock_folder(target):
            if (target / "dataset.json").exists() and not overwrite:
                _require_same(target, fingerprint, files)
                shutil.rmtree(target / "work", ignore_errors=True)  # of a run killed at its end
                say(
                    f"{target}: complete already; the bytes of the recordings ({len(files.headers)} files) and"
                    " the settings are those that it was made from"
                )
                return read_summary(target)
            prepare(target, fingerprint, overwrite)
            write_contents(target / "work" / CONTENTS, files.contents)
            for warning in warnings:
                say(f"note: {warning}")
            told = len(warnings)
            slow = processes and isinstance(makers, ThreadPoolExecutor) and executor is None
            work = (target / "work").absolute()  # another machine has another working folder
            for number in range(ROUNDS):
                folder = work / str(number) if number else work
                folder.mkdir(exist_ok=True)
                recordings = files.recordings(dealt)
                jobs = list(
                    _jobs(source.absolute(), folder, recordings, settings, clip_frames, config)
                )
                many = slow and len(jobs) >= MANY_SHARDS
                with process_pool() if many else contextlib.nullcontext(makers) as hands:
                    _make_shards(target, jobs, hands, say)
                again = _dealt_again(jobs, dealt, files, config)
                if again == dealt:
                    break
                dealt = again
            warnings += notes_of(dealt, files.sounds, config)
            of_files = itertools.chain.from_iterable(map(shard_notes, jobs))
            warnings += in_words(of_files, len(files.headers))
            summary = _assemble(
                target, jobs, makers, config, settings, clip_frames, fingerprint, files, warnings
            )
            for note in summary.warnings[told:]:
                say(f"note: {note}")
            return summary


def _clips_by_header(
    files: Catalog, settings: SpectrogramConfig, clip_frames: int
) -> dict[str, int]:
    """About how many clips each recording gives, silence at its ends not known yet."""
    seconds = (clip_frames * settings.hop_length - 1) / settings.sample_rate
    return {path: math.ceil(info.seconds / seconds) for path, info in files.headers.items()}


def _dealt_again(
    jobs: list[ShardJob], dealt: Dealt, files: Catalog, config: PreprocessConfig
) -> Dealt:
    """The splits, by the clips that there are: other ones than those `dealt` where that leaves a split empty
    which need not be."""
    missing = {"train", *(split for split, share in held_shares(config).items() if share)}
    for job in jobs:
        if job.split in missing and next(_clips([job]), None):
            missing.remove(job.split)
    if not missing:
        return dealt
    clips = Counter(clip.path for clip in _clips(jobs))
    used = [path for path in files.headers if clips[path]]
    if not used:
        return dealt
    pattern = config.test is not None
    if pattern and not any("test" in dealt[path] for path in used):
        config = dataclasses.replace(config, test=None, test_share=0.0)
    elif pattern and all(dealt[path] == ("test",) for path in used):
        return dealt
    again = splits_of(used, config, sounds=files.sounds, clips=clips, labels=files.labels)
    return dict.fromkeys(files.headers, ("train",)) | again


def _require_same(target: Path, fingerprint: str, files: Catalog) -> None:
    """Raise AudiovqError where the dataset `target` was made from other recordings, or otherwise."""
    header = read_dataset_header(target)
    if header.get("fingerprint") == fingerprint:
        return
    clips = itertools.chain.from_iterable(
        read_manifest(target / f"{split}.jsonl") for split in SPLITS
    )
    before = {clip.path: clip.sha256 for clip in clips}
    now = {path: content.sha256 for path, content in files.contents.items()}
    changed = [path for path in before if path in now and now[path] != before[path]]
    what = "holds another dataset"
    if changed:
        what = f"{changed[0]} has changed since this dataset was made"
        if len(changed) > 1:
            what = f"{len(changed)} recordings ({changed[0]}, …) have changed since this dataset was made"
    raise AudiovqError(f"{target}: {what}; name another folder, or add --overwrite")


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
        for future in as_completed(futures):
            step(future.result())


@contextlib.contextmanager
def _naming_lost_workers(target: Path) -> Iterator[None]:
    """A worker process that dies, at whatever moment, ends the block in an AudiovqError."""
    try:
        yield
    except BrokenExecutor as error:
        raise AudiovqError(
            f"{target}: a process at work on it was killed; run the same command to resume"
        ) from error


def _fingerprint(
    config: PreprocessConfig, settings: SpectrogramConfig, clip_frames: int, files: Catalog
) -> str:
    """SHA-256 over all that the dataset is made from: the settings, and each file's name, labels and bytes."""
    encode = json.JSONEncoder(sort_keys=True, default=as_dict).encode
    made_with = [VERSION, to_json(without_paths(config)), to_json(settings), clip_frames]
    digest = hashlib.sha256(encode(made_with).encode())
    for path, content in files.contents.items():  # a row at a time: there may be many
        digest.update(encode([path, files.labels[path], content.sha256]).encode())
    for row in files.skipped:
        digest.update(encode(row).encode())
    return digest.hexdigest()


def prepare(target: Path, fingerprint: str, overwrite: bool) -> None:
    """Leave `target` empty but for shards of this very dataset."""
    require_outside_products(target)
    plan = target / "work" / "plan.json"
    if plan.exists() and read_object(plan, "a plan").get("fingerprint") == fingerprint:
        remove_partials(target)
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
        remove_partials(target)
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
    shares = held_shares(config)
    for split in SPLITS:
        own = [recording for recording in recordings if split in recording.splits]
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
            yield ShardJob(name, source, work, tuple(shard), settings, clip_frames, trim_db, shares)


def _assemble(
    target: Path,
    jobs: list[ShardJob],
    executor: Executor,
    config: PreprocessConfig,
    settings: SpectrogramConfig,
    clip_frames: int,
    fingerprint: str,
    files: Catalog,
    warnings: list[str],
) -> Summary:
    """Shards' manifests → the dataset's; dataset.json comes last and makes it a dataset."""
    shards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    unusable: dict[str, Skipped] = {}  # one that several splits share is left out once
    for job in jobs:
        count = 0
        for row in shard_rows(job):
            if isinstance(row, Clip):
                count += 1
            else:
                unusable[row.path] = row
        made, final = job.target / f"{job.name}.npy", target / f"{job.name}.npy"
        if count:
            if made.exists():
                os.replace(made, final)
            shards[job.split].append({"file": final.name, "clips": count})
    listed = [shard for split in SPLITS for shard in shards[split]]
    paths = [target.absolute() / shard["file"] for shard in listed]
    for shard, checksum in zip(listed, executor.map(sha256, paths), strict=True):
        shard["sha256"] = checksum
    skipped = sorted([*files.skipped, *unusable.values()], key=lambda s: s.path)
    if not shards["train"]:
        shutil.rmtree(target)
        if not unusable:
            raise AudiovqError(f"{target}: no recording is left to learn from")
        worst = unusable[min(unusable)]
        raise AudiovqError(f"no recording can be learnt from: {worst.path} {worst.reason}")
    totals = write_manifests(
        target,
        {split: _clips([job for job in jobs if job.split == split]) for split in SPLITS},
        shards,
        skipped,
        files.found,
        settings,
        clip_frames,
        config,
        fingerprint,
        jobs[0].source,
    )
    warnings = warnings + totals.notes
    shutil.rmtree(target / "work")
    counts = {split: sum(shard["clips"] for shard in shards[split]) for split in SPLITS}
    asked = {"validation": config.validation_share, "test": config.test or config.test_share}
    if empty := [split for split, how in asked.items() if how and not counts[split]]:
        warnings.append(f"too few different clips: none is kept for {' and '.join(empty)}")
    return Summary(files.found, totals.used, skipped, counts, totals.seconds, warnings)


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
