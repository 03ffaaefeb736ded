"""A folder of recordings → a dataset.

First, headers are scanned and all settings are chosen. Then each shard is made independently, by any executor. A
shard appears only when it is complete, so a run that was stopped resumes, and its dataset has the same bytes. A
fingerprint of all recordings' bytes identifies what a dataset was made from; a run that resumes does not read
files again whose size and times are unchanged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from audiovq.audio import reading
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.manifest import (
    SPLITS,
    Clip,
    Recipe,
    Skipped,
    write_manifests,
)
from audiovq.dataset.numbers import is_note, require_numbers
from audiovq.dataset.source import relative_or_noted
from audiovq.preprocessing.catalog import (
    Catalog,
    Recording,
    catalog,
    read_contents,
    with_near_copies,
    write_contents,
)
from audiovq.preprocessing.character import character
from audiovq.preprocessing.folder import fingerprint_of, prepare, require_same
from audiovq.preprocessing.labels import Numbered, joined, synonyms
from audiovq.preprocessing.settings import choose_channels, choose_settings, voters
from audiovq.preprocessing.shard import (
    ShardJob,
    in_words,
    make_shard,
    shard_notes,
    shard_rows,
    stretches_at,
)
from audiovq.preprocessing.similar import MOST
from audiovq.preprocessing.slicing import Slicing, sound_samples
from audiovq.preprocessing.splits import (
    Assignment,
    equal_sounds,
    held_shares,
    notes_of,
    of_largest,
    of_several,
    splits_of,
)
from audiovq.runtime.executors import local_executor, process_pool
from audiovq.runtime.files import (
    clear,
    lock_folder,
    read_json,
    sha256,
)
from audiovq.runtime.progress import progress
from audiovq.spectral.numpy_spectrogram import Analysis

CONTENTS = "contents.txt"
"""File in `work` with the checksums of the recordings, for a run that resumes."""
TRANSPOSED = 2
"""Transposed copies of each training recording where a note is a number."""
ROUNDS = 3
"""Most times that splits are chosen: they are chosen again if unusable recordings leave one empty."""


@dataclass(frozen=True)
class Limits:
    """Sizes into which `preprocess` cuts its work."""

    files_per_shard: int = 256
    """Maximum number of files per shard; larger where a dataset would have more than 1024 shards."""
    shard_bytes: int = 1 << 30
    """Bytes of the array of a shard."""
    process_shards: int = 32
    """Shards from which on processes are used: threads finish fewer before processes have started."""
    block_samples: int = reading.BLOCK
    """Samples of a recording that are read at a time: see `reading.blocks`."""


@dataclass
class Summary:
    """What a run of `preprocess` found and made."""

    found: int
    """Files below the source folder."""
    used: int
    """Files that clips were cut from."""
    skipped: list[Skipped]
    clips: dict[str, int]
    """Number of clips in each split."""
    seconds: float
    """Total length of all clips, without padding."""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Run:
    """A run of `preprocess` after its settings have been chosen."""

    source: Path
    """Absolute, as another machine has another working folder."""
    target: Path
    files: Catalog
    recipe: Recipe
    slicing: Slicing
    numbers: Numbered
    limits: Limits
    say: Callable[[str], None]

    @property
    def config(self) -> PreprocessConfig:
        return self.recipe.preprocess

    @property
    def work(self) -> Path:
        """Folder of unfinished shards; absolute like `source`."""
        return (self.target / "work").absolute()


# Longer than 60 lines because of its arguments: the steps below are one function each.
def preprocess(
    source: Path,
    target: Path,
    config: PreprocessConfig | None = None,
    *,
    overwrite: bool = False,
    executor: Executor | None = None,
    processes: bool = False,
    measured: Mapping[str, Mapping[str, str]] | None = None,
    described: Sequence[str] = (),
    numbers: Collection[str] = (),
    transpose: int | None = None,
    join: Mapping[str, str] = MappingProxyType({}),
    near: bool = True,
    limits: Limits = Limits(),
    say: Callable[[str], None] = print,
) -> Summary:
    """Make the dataset `target` from the recordings below `source`.

    Settings that `config` leaves open are chosen from the recordings. If a run was stopped, the same
    call resumes it, and the dataset has the same bytes.

    Args:
        source, target: folders of the recordings and of the dataset.
        config: settings; None: all defaults.
        overwrite: replace the dataset in `target`.
        executor: makes the shards; None: threads.
        processes: without an executor, use processes if there are many shards. A script may ask for them
            only below its `if __name__ == "__main__"`.
        measured: further labels (name → value) of recordings, by path; those of `config` have precedence.
        described: names by which `measured` was asked for (`--describe`), for dataset.json.
        numbers: names of the labels that are numbers (see `dataset.numbers`).
        transpose: copies of each training recording, higher or lower by up to labels.FARTHEST semitones, that
            training clips are cut from, too, so that notes in between occur; None: two if a note is a number.
        join: values of labels and those that replace them, so that kinds named differently are one.
        near: keep near copies in one split, too (see `similar`); their beginnings are read once more for it.
        limits: sizes into which the work is cut.
        say: is called with every line for the user.

    Raises:
        AudiovqError: no recording can be used, or `target` holds something else.
    """
    config = config or PreprocessConfig()
    source, target = Path(source), Path(target)
    with (
        _naming_lost_workers(target),
        contextlib.nullcontext(executor) if executor else local_executor() as workers,
    ):
        files = catalog(source, target, config, workers, read_contents(target / "work" / CONTENTS))
        if measured:
            labels = {path: {**measured.get(path, {}), **row} for path, row in files.labels.items()}
            files = dataclasses.replace(files, labels=labels)
        if join:
            files = dataclasses.replace(files, labels=joined(files.labels, join))
        numbered = _numbered(numbers, transpose)
        found = {name for row in (measured or {}).values() for name in row}
        # Only words by --labels, which have precedence, can be found here.
        require_numbers(
            files.labels, found.intersection(numbers), "--describe beside --labels with"
        )
        words = numbered.words(files.labels)
        if near:
            files = with_near_copies(files, source, workers)
        infos = voters(source, files.headers, config)
        listen = functools.partial(character, [source / path for path in infos])
        settings, clip_frames, warnings = choose_settings(config, list(infos.values()), listen)
        settings, stereo_notes = choose_channels(config, settings, source, files.headers)
        warnings += stereo_notes
        Analysis(settings)  # raises AudiovqError on impossible settings, before anything is written
        fingerprint = fingerprint_of(config, settings, clip_frames, files, numbered)
        options = _options(described, {*numbers} - found, transpose, join, near=near)
        recipe = Recipe(
            source.absolute(), settings, clip_frames, config, fingerprint, numbered.names, options
        )
        slicing = Slicing.of(config, settings, clip_frames, limits.block_samples)
        run = _Run(source.absolute(), target, files, recipe, slicing, numbered, limits, say)
        warnings += files.notes + synonyms(files.labels.values(), numbered.names) + numbered.notes
        if near and len({*files.samples.values()}) > MOST:
            warnings.append(f"near copies are not looked for among more than {MOST:,} recordings")
        assigned = splits_of(
            list(files.headers),
            config,
            sounds=files.sounds,
            clips=_clips_by_header(run),
            labels=words,
        )
        with lock_folder(target):
            if (target / "dataset.json").exists() and not overwrite:
                return _existing(run)
            prepare(target, fingerprint, overwrite)
            write_contents(target / "work" / CONTENTS, files.contents)
            for warning in warnings:
                say(f"note: {warning}")
            may_fork = processes and isinstance(workers, ThreadPoolExecutor) and executor is None
            assigned = _without_copies(run, assigned, workers)
            jobs, assigned = _make_all_shards(run, assigned, workers, may_fork)
            made = _as_made(jobs, assigned)
            later = notes_of(made, files.sounds, config, near=bool(files.similar))
            of_files = itertools.chain.from_iterable(map(shard_notes, jobs))
            later += in_words(of_files, len(files.headers))
            summary = _assemble(run, jobs, assigned, workers)
            later += summary.warnings
            for note in later:
                say(f"note: {note}")
            summary.warnings = warnings + later
            return summary


def _options(
    described: Sequence[str],
    numbers: Collection[str],
    transpose: int | None,
    join: Mapping[str, str],
    *,
    near: bool,
) -> dict[str, Any]:
    """Requests beside the settings, by the names of the command's flags, without defaults."""
    options = {
        "describe": list(described),
        "numbers": sorted(numbers),
        "transpose": transpose,
        "join": dict(join),
        "near_copies": None if near else False,
    }
    return {name: value for name, value in options.items() if value not in (None, [], {})}


def _numbered(numbers: Collection[str], transpose: int | None) -> Numbered:
    """The labels that are numbers, and the number of transposed copies: by default TRANSPOSED if a note is one."""
    if transpose is None:
        transpose = TRANSPOSED if any(map(is_note, numbers)) else 0
    return Numbered(frozenset(numbers), transpose)


def _existing(run: _Run) -> Summary:
    """The summary of a finished dataset. Raises AudiovqError if it was made from something else."""
    require_same(run.target, run.recipe.fingerprint, run.files)
    shutil.rmtree(run.target / "work", ignore_errors=True)  # of a run killed at its end
    relative_or_noted(run.source, run.target, run.recipe.fingerprint)  # as others may have made it
    run.say(
        f"{run.target}: already complete; made from the same {len(run.files.headers)} recordings with the"
        " same settings"
    )
    return read_summary(run.target)


def _make_all_shards(
    run: _Run, assigned: Assignment, workers: Executor, may_fork: bool
) -> tuple[list[ShardJob], Assignment]:
    """Make all shards; again with other splits, up to ROUNDS times, if a split turns out to be empty.

    Returns the jobs and splits of the last round.
    """
    for number in range(ROUNDS):
        folder = run.work / str(number) if number else run.work
        folder.mkdir(exist_ok=True)
        recordings = list(run.numbers.recordings(run.files.recordings(assigned)))
        jobs = list(_jobs(run, folder, recordings))
        forks = may_fork and len(jobs) >= run.limits.process_shards
        with process_pool() if forks else contextlib.nullcontext(workers) as executor:
            _make_shards(run, jobs, executor)
        if number == ROUNDS - 1:
            break
        better = _refill_empty_splits(jobs, assigned, run, workers)
        if better == assigned:
            break
        assigned = better
    return jobs, assigned


def _clips_by_header(run: _Run) -> dict[str, int]:
    """Estimated number of clips of each recording, before silence at its ends is known."""
    seconds = run.slicing.clip_samples / run.slicing.spectrogram.sample_rate
    return {path: math.ceil(info.seconds / seconds) for path, info in run.files.headers.items()}


def _without_copies(run: _Run, assigned: Assignment, workers: Executor) -> Assignment:
    """`assigned` without near copies of recordings that are split in time: their stretches begin elsewhere in the same sound.

    Of each group of copies the recording with the most sound stays, and those with the same samples.
    """
    samples, sounds, shares = run.files.samples, run.files.sounds, held_shares(run.config)
    in_time = {path: sounds[path] for path, splits in assigned.items() if len(splits) > 1}
    groups = [group for group in equal_sounds(in_time) if len({samples[p] for p in group}) > 1]
    paths = list(itertools.chain.from_iterable(groups))
    files = [run.source / path for path in paths]
    # Executors of clusters take lists only.
    found = workers.map(sound_samples, files, len(files) * [run.slicing])
    lengths = dict(zip(paths, found, strict=True))
    left_out: Assignment = {}
    for group in groups:
        kept = max(group, key=lambda path: lengths[path])
        wanted = {split: shares[split] for split in assigned[kept] if split != "train"}
        # A recording too short to be split in time is all training, and so are its copies.
        if sum(map(bool, stretches_at(run.slicing, lengths[kept], wanted).values())) > 1:
            others = (path for path in group if lengths[path] and samples[path] != samples[kept])
            left_out |= dict.fromkeys(others, ())
    return assigned | left_out


def _as_made(jobs: list[ShardJob], assigned: Assignment) -> Assignment:
    """`assigned`, but for recordings split in time only the splits that have clips of them, or one if none has."""
    made = {
        (clip.path, job.split)
        for job in jobs
        for clip in _clips([job])
        if len(assigned[clip.path]) > 1
    }
    return {
        path: tuple(split for split in splits if (path, split) in made) or splits[:1]
        for path, splits in assigned.items()
    }


def _refill_empty_splits(
    jobs: list[ShardJob], assigned: Assignment, run: _Run, workers: Executor
) -> Assignment:
    """Better splits than `assigned`, by the clips that were made, if a split is needlessly empty; else `assigned`."""
    files, config = run.files, run.config
    missing = {"train", *(split for split, share in held_shares(config).items() if share)}
    for job in jobs:
        if job.split in missing and next(_clips([job]), None):
            missing.remove(job.split)
    if not missing:
        return assigned
    clips = Counter(clip.path for clip in _clips(jobs) if not clip.transposed)
    # A recording that was left out, as a copy of it is split in time, counts as much as that.
    sounds, of_sound = files.sounds, Counter[str]()
    for path, count in clips.items():
        of_sound[sounds[path]] = max(of_sound[sounds[path]], count)
    clips |= Counter({p: of_sound[sounds[p]] for p, splits in assigned.items() if not splits})
    used = [path for path in files.headers if clips[path]]
    if not used:
        return assigned
    has_pattern = config.test is not None
    if has_pattern and not any("test" in assigned[path] for path in used):
        config = dataclasses.replace(config, test=None, test_share=0.0)
    elif has_pattern and all(assigned[path] == ("test",) for path in used):
        return assigned
    words = run.numbers.words(files.labels)
    better = splits_of(used, config, sounds=sounds, clips=clips, labels=words)
    better = _without_copies(run, better, workers)
    return dict.fromkeys(files.headers, ("train",)) | better


def _make_shards(run: _Run, jobs: list[ShardJob], executor: Executor) -> None:
    """Make the shards that do not exist yet."""
    todo = [job for job in jobs if not (job.target / f"{job.name}.jsonl").exists()]
    if len(todo) < len(jobs):
        run.say(f"{run.target}: resuming, {len(jobs) - len(todo)} of {len(jobs)} shards done")
    futures = [executor.submit(make_shard, job) for job in todo]
    total = sum(len(job.recordings) for job in jobs)
    left = sum(len(job.recordings) for job in todo)
    with progress("preprocess", total, "files", total - left) as step:
        for future in as_completed(futures):
            step(future.result())


@contextlib.contextmanager
def _naming_lost_workers(target: Path) -> Iterator[None]:
    """Turn the death of a worker process within the block into an AudiovqError."""
    try:
        yield
    except BrokenExecutor as error:
        raise AudiovqError(
            f"{target}: a worker process was killed; run the same command to resume"
        ) from error


def _jobs(run: _Run, folder: Path, recordings: list[Recording]) -> Iterator[ShardJob]:
    """Jobs for the recordings of each split, in order, in shards of nearly equal numbers of files."""
    slicing = run.slicing
    clip_bytes = slicing.spectrogram.stored_rows * slicing.clip_frames * 2
    clips_limit = max(1, run.limits.shard_bytes // clip_bytes)
    most_files = max(run.limits.files_per_shard, len(recordings) // 1024)
    shares = held_shares(run.config)
    for split in SPLITS:
        members = [recording for recording in recordings if split in recording.splits]
        files_limit = math.ceil(len(members) / max(1, math.ceil(len(members) / most_files)))
        shards: list[list[Recording]] = []
        clips = 0
        for recording in members:
            more = math.ceil(recording.info.seconds / slicing.clip_seconds) + 1
            if not shards or clips + more > clips_limit or len(shards[-1]) >= files_limit:
                shards.append([])
                clips = 0
            shards[-1].append(recording)
            clips += more
        for number, shard in enumerate(shards):
            name = f"{split}-{number:05d}"
            yield ShardJob(name, run.source, folder, tuple(shard), slicing, shares)


def _assemble(run: _Run, jobs: list[ShardJob], assigned: Assignment, executor: Executor) -> Summary:
    """Move finished shards into the dataset and write its manifests; dataset.json, written last, completes it."""
    target, config = run.target, run.config
    shards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    left_out = [
        Skipped(path, "is a near copy of a recording that is split in time")
        for path, splits in assigned.items()
        if not splits
    ]
    by_path: Counter[str] = Counter()  # clips, without those of transposed copies
    unusable: dict[str, Skipped] = {}  # by path: a recording that splits share is skipped once
    for job in jobs:
        count = 0
        for row in shard_rows(job):
            if isinstance(row, Clip):
                count += 1
                by_path[row.path] += not row.transposed
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
    skipped = sorted([*run.files.skipped, *left_out, *unusable.values()], key=lambda s: s.path)
    if not shards["train"]:
        # Not the folder, which may be a link; where it is empty, `lock_folder` removes it.
        clear(target)
        if not unusable:
            raise AudiovqError(f"{target}: no recording is left to train on")
        first = unusable[min(unusable)]
        raise AudiovqError(f"no recording can be used for training: {first.path} {first.reason}")
    clips = {split: _clips([job for job in jobs if job.split == split]) for split in SPLITS}
    totals = write_manifests(target, clips, shards, skipped, run.files.found, run.recipe)
    shutil.rmtree(target / "work")
    seconds = run.slicing.clip_seconds
    warnings = [*totals.notes, *of_largest(by_path), *of_several(by_path, seconds)]
    counts = {split: sum(shard["clips"] for shard in shards[split]) for split in SPLITS}
    asked = {"validation": config.validation_share, "test": config.test or config.test_share}
    if empty := [split for split, share in asked.items() if share and not counts[split]]:
        warnings.append(f"too few distinct clips for a {' and a '.join(empty)} split")
    return Summary(run.files.found, totals.used, skipped, counts, totals.seconds, warnings)


def _clips(jobs: Iterable[ShardJob]) -> Iterator[Clip]:
    """All clips of finished shards."""
    for job in jobs:
        for row in shard_rows(job):
            if isinstance(row, Clip):
                yield row


def read_summary(target: Path) -> Summary:
    """The summary of the run that made the dataset `target`, without its warnings."""
    header = read_json(target / "dataset.json", "a dataset")
    try:
        with open(target / "skipped.jsonl", encoding="utf-8") as file:
            skipped = [Skipped(**json.loads(line)) for line in file]
        clips = {split: int(header["splits"][split]["clips"]) for split in SPLITS}
        files = header["files"]
        return Summary(files["found"], files["used"], skipped, clips, header["seconds"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AudiovqError(f"{target}: damaged ({error!r}); run preprocess again") from error
