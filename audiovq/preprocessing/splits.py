"""Assign recordings, or stretches of long ones, to training, validation and test.

The hash of a recording's path decides, so that adding one moves few others. If recordings are too few for
that, or one holds most of the sound, they are split in time. Recordings with equal sound are in one split. Near copies of
one that is split in time are left out, as a part of them may be of any split.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.manifest import SPLITS

FEW = 20
"""With fewer different recordings, each split gets its share of them exactly, in the order of their hashes."""
LARGEST = 1 / 3
"""A recording with at least this share of all clips is split in time."""
ROUND = 50
"""A recording that is split in time has one stretch of each split in this many clips."""
GAP_SECONDS = 1.0
"""Longest gap between stretches of different splits; the length of a clip if that is shorter."""
SEVERAL = 5
"""Recordings from which on one is not to give most of the clips."""
Assignment = dict[str, tuple[str, ...]]
"""The split of each path; several for a path that is split in time, none for one that is left out."""


def splits_of(
    paths: Sequence[str],
    config: PreprocessConfig,
    *,
    sounds: Mapping[str, str] | None = None,
    clips: Mapping[str, int] | None = None,
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> Assignment:
    """Assign each path to a split, or to several if it is to be split in time.

    From three clips on, every split that `config` asks for gets one; and each label value gets a training
    clip if possible.

    Args:
        paths: of the recordings.
        config: shares of the splits and the pattern of test recordings.
        sounds: an identifier of each path's sound, the same for equal ones; None: all differ.
        clips: number of clips of each path; None: one each, which are never split in time.
        labels: of each path.

    Raises:
        AudiovqError: the test pattern is invalid, or matches no path or all.
    """
    groups = _Groups(paths, sounds or {}, clips or {}, labels or {})
    tested = _tested(paths, config, groups)
    rest = [name for name in groups.order if name not in tested]
    shares = held_shares(config)
    wanted = [split for split in SPLITS[1:] if shares[split] and not (split == "test" and tested)]
    assigned: Assignment = dict.fromkeys(tested, ("test",))
    assigned |= _assign(rest, groups, {split: shares[split] for split in wanted})
    if wanted:
        _keep_labels(rest, groups, assigned)
    return {path: assigned[groups.of[path]] for path in paths}


def held_shares(config: PreprocessConfig) -> dict[str, float]:
    """Shares of validation and test among the recordings that the test pattern does not match."""
    test = config.test_share if config.test is None else 0.0
    return {"validation": (1 - test) * config.validation_share, "test": test}


class _Groups:
    """Groups of paths with equal sound, each named by the first of its paths."""

    def __init__(
        self,
        paths: Iterable[str],
        sounds: Mapping[str, str],
        clips: Mapping[str, int],
        labels: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.of: dict[str, str] = {}
        """The group of each path."""
        self.clips: dict[str, int] = {}
        """Number of clips of each group."""
        self.labels: dict[str, set[tuple[str, str]]] = {}
        """Labels of each group, as (name, value)."""
        first: dict[str, str] = {}
        for path in sorted(paths):
            name = self.of[path] = first.setdefault(sounds.get(path, "/" + path), path)
            self.clips[name] = max(self.clips.get(name, 0), clips.get(path, 1))
            self.labels.setdefault(name, set()).update(labels.get(path, {}).items())
        self.share = {name: _share(name) for name in self.clips}
        self.order = sorted(self.clips, key=lambda name: (self.share[name], name))
        """Groups in the order of their hashes."""


def _share(path: str) -> float:
    """Hash of a path as a number from 0 to 1."""
    return int(hashlib.sha256(path.encode()).hexdigest()[:12], 16) / 16**12


def _tested(paths: Sequence[str], config: PreprocessConfig, groups: _Groups) -> set[str]:
    """Groups of which the test pattern matches any path. Raises AudiovqError as `splits_of`."""
    if config.test is None:
        return set()
    try:
        test = re.compile(config.test)
    except re.error as error:
        raise AudiovqError(
            f"--test {config.test}: not a valid regular expression ({error})"
        ) from error
    found = [path for path in paths if test.search(path)]
    if not found:
        raise AudiovqError(f"--test {config.test}: matches none of {len(paths)} recordings")
    if len(found) == len(paths):
        raise AudiovqError(
            f"--test {config.test}: matches every recording; leave some for training"
        )
    tested = {groups.of[path] for path in found}
    if len(tested) == len(groups.order):
        raise AudiovqError(
            f"--test {config.test}: matches every recording or a copy of it; leave some for training"
        )
    return tested


def _assign(rest: Sequence[str], groups: _Groups, shares: Mapping[str, float]) -> Assignment:
    """Assign the groups `rest`, in the order of their hashes, to training and the splits in `shares`."""
    needed = 1 + len(shares)
    total = sum(groups.clips[name] for name in rest)
    if not shares or total < needed:
        return dict.fromkeys(rest, ("train",))
    in_time = [name for name in rest if groups.clips[name] >= max(needed, LARGEST * total + 1e-9)]
    assigned: Assignment = dict.fromkeys(in_time, ("train", *shares))
    others = [name for name in rest if name not in assigned]
    if not in_time and len(others) < needed:  # two recordings with three or four clips in total
        small, large = sorted(others, key=lambda name: groups.clips[name])
        return {large: ("train", "validation"), small: ("test",)}
    by_hash = {name: _by_hash(groups.share[name], shares) for name in others}
    if not in_time:
        _fill(others, by_hash, shares)
    return assigned | {name: (split,) for name, split in by_hash.items()}


def _by_hash(share: float, shares: Mapping[str, float]) -> str:
    """The split of a hash from 0 to 1: the lowest are validation, the highest test."""
    if share >= 1 - shares.get("test", 0.0):
        return "test"
    return "validation" if share < shares.get("validation", 0.0) else "train"


def _fill(order: Sequence[str], assigned: dict[str, str], shares: Mapping[str, float]) -> None:
    """Correct `assigned` so that each split has its exact share of few groups, and at least one of many."""
    counts = {
        split: max(1, round(share * len(order)))
        if len(order) < FEW
        else max(1, sum(found == split for found in assigned.values()))
        for split, share in shares.items()
    }
    while sum(counts.values()) >= len(order):  # leave one for training
        counts[max(counts, key=lambda split: counts[split])] -= 1
    low = counts.get("validation", 0)
    high = len(order) - counts.get("test", 0)
    for index, name in enumerate(order):
        assigned[name] = "validation" if index < low else "test" if index >= high else "train"


def _keep_labels(rest: Sequence[str], groups: _Groups, assigned: Assignment) -> None:
    """Move one group of each label value to training, in exchange for another if its split would be empty.

    Labels whose values hardly repeat, such as captions, are ignored.
    """
    values: Counter[str] = Counter()
    holders: dict[tuple[str, str], list[str]] = {}
    for name in rest:
        for label in groups.labels[name]:
            holders.setdefault(label, []).append(name)
    values.update(name for name, _ in holders)
    trained = Counter(dict.fromkeys(holders, 0))
    sizes: Counter[str] = Counter()
    for name in rest:
        sizes.update(assigned[name])
        trained.update(label for label in groups.labels[name] if "train" in assigned[name])

    def move(name: str, split: str) -> None:
        change = 1 if split == "train" else -1
        sizes.subtract(assigned[name])
        sizes[split] += 1
        assigned[name] = (split,)
        for label in groups.labels[name]:
            trained[label] += change

    for label in sorted(holders):
        if trained[label] or 2 * values[label[0]] > len(rest):
            continue
        moved = max(holders[label], key=lambda name: (sizes[assigned[name][0]], name))
        (split,) = assigned[moved]
        if sizes[split] == 1:
            spare = (
                name
                for name in (reversed(rest) if split == "test" else rest)
                if assigned[name] == ("train",)
                and all(trained[other] > 1 for other in groups.labels[name])
            )
            if (given := next(spare, None)) is None:
                continue
            move(given, split)
        move(moved, "train")


Stretch = tuple[int, int]
"""Begin and end, in samples, the end exclusive."""


def clips_of(begin: int, end: int, clip: int) -> list[Stretch]:
    """Cut a stretch into clips of `clip` samples. A rest below a quarter is covered by a clip that overlaps the
    one before."""
    starts = list(range(begin, end, clip))
    if len(starts) > 1 and end - starts[-1] < clip // 4:
        starts[-1] = end - clip
    return [(start, min(start + clip, end)) for start in starts]


def stretches(
    length: int, clip: int, window: int, longest_gap: int, shares: Mapping[str, float]
) -> dict[str, list[Stretch]]:
    """Divide a recording of `length` samples into stretches of training and of the splits in `shares`.

    Args:
        length, clip, window, longest_gap: samples of the recording, of a clip, of a window (the smallest
            gap), and of the largest gap between stretches of different splits.
        shares: of each split besides training.

    Returns:
        The stretches of each split. A recording with fewer clips than splits is all training.
    """
    splits = ("train", *shares)
    all_training = {split: [(0, length)] if split == "train" else [] for split in splits}
    if len(clips_of(0, length, clip)) < len(splits):
        return all_training
    gap = max(window, min(longest_gap, clip, length // 12))
    rounds = max(1, round(length / (ROUND * clip)))
    found: dict[str, list[Stretch]] = {split: [] for split in splits}
    for number in range(rounds):
        begin, end = (length * index // rounds for index in (number, number + 1))
        end -= gap * (number < rounds - 1)
        usable = end - begin - gap * len(shares)
        sizes = [clip * max(1, round(share * usable / clip)) for share in shares.values()]
        if usable - sum(sizes) < clip:
            sizes = [min(clip, usable // len(splits))] * len(shares)
        sizes = [usable - sum(sizes), *sizes]
        if min(sizes) < window:
            return all_training
        for split, size in zip(splits, sizes, strict=True):
            rest = size % clip if size > clip else 0
            # A shorter rest is left out: its clip would repeat most of the one before.
            is_short = rest < clip // 4
            found[split].append((begin, begin + size - is_short * rest))
            begin += size + gap
    return found


def of_largest(clips: Mapping[str, int]) -> list[str]:
    """A note on the recording that gives more than half of the clips, of SEVERAL recordings or more.

    `clips`: number of clips of each recording.
    """
    total = sum(clips.values())
    path = max(clips, key=lambda name: clips[name], default="")
    if len(clips) < SEVERAL or 2 * clips[path] <= total:
        return []
    return [
        f"{path} gives {clips[path]:,} of {total:,} clips, and decides most of training, tests and new sounds; to prevent"
        " it, take the file out of the folder, or cut it to a short excerpt"
    ]


def of_several(clips: Mapping[str, int], seconds: float) -> list[str]:
    """A note on the recordings that give several clips, as they are longer than one: `clips` of each, of up to `seconds`."""
    several = sum(count > 1 for count in clips.values())
    if not several:
        return []
    are = "is" if several == 1 else "are"
    return [
        f"{several:,} of {len(clips):,} recordings {are} longer than a clip of {seconds:.2f} s and {are} cut into several"
    ]


def equal_sounds(sounds: Mapping[str, str]) -> list[list[str]]:
    """Groups of paths with equal sound, of two and more, in order."""
    groups: dict[str, list[str]] = {}
    for path in sorted(sounds):
        groups.setdefault(sounds[path], []).append(path)
    return [paths for paths in groups.values() if len(paths) > 1]


def notes_of(
    assigned: Mapping[str, tuple[str, ...]],
    sounds: Mapping[str, str],
    config: PreprocessConfig,
    many: Callable[[int], str] = lambda n: f"{n} recordings",
    near: bool = False,
) -> list[str]:
    """Notes for the user on the splits: equal sounds, and recordings split in time.

    `many` words a number of recordings. `near`: near copies have the same sound in `sounds`, too.
    """
    notes = []
    if groups := equal_sounds(sounds):
        first, second = groups[0][:2]
        like = "copies or near copies of" if near else "identical to"
        notes.append(
            f"{sum(map(len, groups))} of {many(len(sounds))} are {like} another (such as"
            f" {first} and {second}); {'these' if near else 'identical ones'} are kept in the same split"
        )
        if config.test is not None:
            pattern = re.compile(config.test)
            copies = [p for p in assigned if assigned[p] == ("test",) and not pattern.search(p)]
            if copies:
                are = "is" if len(copies) == 1 else "are"
                notes.append(
                    f"{len(copies)} of them (for example {copies[0]}) {are} in the test split because"
                    " --test matches a copy"
                )
    if left := sorted(path for path, splits in assigned.items() if not splits):
        are = "is" if len(left) == 1 else "are"
        notes.append(
            f"{len(left)} of {many(len(sounds))} (such as {left[0]}) {are} left out: near copies of others that are split"
            " in time, of which the one with the most sound is used (--no-near-copies uses all)"
        )
    if in_time := sorted(path for path, splits in assigned.items() if len(splits) > 1):
        more = f" and {len(in_time) - 1} more" if len(in_time) > 1 else ""
        notes.append(
            f"{in_time[0]}{more}: split in time into {', '.join(assigned[in_time[0]])}, with gaps between"
        )
    return notes
