"""Which recordings, and which stretches of a long one, are learnt from, validated on and tested on.

By recording, the hash of its path decides, so that one that is added moves few others. Where recordings
are too few for that, or one holds most of the sound, they are split in time. Equal sounds stay together.
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
"""Different recordings, below which each split takes its share of them in the order of their hashes."""
LARGEST = 1 / 3
"""Share of all clips, above which one recording is split in time."""
ROUND = 50
"""Clips of a recording that is split in time, in which each split has one stretch."""
GAP_SECONDS = 1.0
"""Longest gap between stretches of different splits; a clip's length where that is shorter."""
Dealt = dict[str, tuple[str, ...]]
"""Each path's split; all splits that share it, where it is split in time."""


def splits_of(
    paths: Sequence[str],
    config: PreprocessConfig,
    *,
    sounds: Mapping[str, str] | None = None,
    clips: Mapping[str, int] | None = None,
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> Dealt:
    """The split of each path; several where a recording is to be split in time.

    `sounds` names what each path holds, the same name where it is the same (None: all differ), `clips`
    says how many clips it gives (None: one each, never split in time). From three clips on every split
    that `config` asks for has one, and each value of `labels` has one in training where that is
    possible. Raises AudiovqError where the test pattern is none, or fits no path, or all.
    """
    groups = _Groups(paths, sounds or {}, clips or {}, labels or {})
    tested = _tested(paths, config, groups)
    rest = [name for name in groups.order if name not in tested]
    shares = held_shares(config)
    wanted = [split for split in SPLITS[1:] if shares[split] and not (split == "test" and tested)]
    dealt: Dealt = dict.fromkeys(tested, ("test",))
    dealt |= _deal(rest, groups, {split: shares[split] for split in wanted})
    if wanted:
        _keep_labels(rest, groups, dealt)
    return {path: dealt[groups.of[path]] for path in paths}


def held_shares(config: PreprocessConfig) -> dict[str, float]:
    """The shares of validation and test, of all that no test pattern names."""
    test = config.test_share if config.test is None else 0.0
    return {"validation": (1 - test) * config.validation_share, "test": test}


class _Groups:
    """Paths of equal sounds, as one."""

    def __init__(
        self,
        paths: Iterable[str],
        sounds: Mapping[str, str],
        clips: Mapping[str, int],
        labels: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.of: dict[str, str] = {}
        """Each path's group, named by the first of its paths."""
        self.clips: dict[str, int] = {}
        self.labels: dict[str, set[tuple[str, str]]] = {}
        first: dict[str, str] = {}
        for path in sorted(paths):
            name = self.of[path] = first.setdefault(sounds.get(path, "/" + path), path)
            self.clips[name] = max(self.clips.get(name, 0), clips.get(path, 1))
            self.labels.setdefault(name, set()).update(labels.get(path, {}).items())
        self.share = {name: _share(name) for name in self.clips}
        self.order = sorted(self.clips, key=lambda name: (self.share[name], name))
        """By their hashes."""


def _share(path: str) -> float:
    """A number from 0 to 1 that only the path decides."""
    return int(hashlib.sha256(path.encode()).hexdigest()[:12], 16) / 16**12


def _tested(paths: Sequence[str], config: PreprocessConfig, groups: _Groups) -> set[str]:
    """The groups that the test pattern names by any path."""
    if config.test is None:
        return set()
    try:
        test = re.compile(config.test)
    except re.error as error:
        raise AudiovqError(f"--test {config.test}: not a pattern ({error})") from error
    found = [path for path in paths if test.search(path)]
    if not found:
        raise AudiovqError(f"--test {config.test}: fits none of {len(paths)} recordings")
    if len(found) == len(paths):
        raise AudiovqError(f"--test {config.test}: fits every recording; none is left to learn")
    tested = {groups.of[path] for path in found}
    if len(tested) == len(groups.order):
        raise AudiovqError(
            f"--test {config.test}: fits every recording or an equal one; none is left to learn"
        )
    return tested


def _deal(rest: Sequence[str], groups: _Groups, shares: Mapping[str, float]) -> Dealt:
    """The splits of the groups `rest`, in the order of their hashes; `shares` are of those wanted."""
    needed = 1 + len(shares)
    total = sum(groups.clips[name] for name in rest)
    if not shares or total < needed:
        return dict.fromkeys(rest, ("train",))
    in_time = [name for name in rest if groups.clips[name] >= max(needed, LARGEST * total + 1e-9)]
    dealt: Dealt = dict.fromkeys(in_time, ("train", *shares))
    others = [name for name in rest if name not in dealt]
    if not in_time and len(others) < needed:  # two recordings, of three or four clips in all
        small, large = sorted(others, key=lambda name: groups.clips[name])
        return {large: ("train", "validation"), small: ("test",)}
    by_hash = {name: _by_hash(groups.share[name], shares) for name in others}
    if not in_time:
        _fill(others, by_hash, shares)
    return dealt | {name: (split,) for name, split in by_hash.items()}


def _by_hash(share: float, shares: Mapping[str, float]) -> str:
    if share >= 1 - shares.get("test", 0.0):
        return "test"
    return "validation" if share < shares.get("validation", 0.0) else "train"


def _fill(order: Sequence[str], dealt: dict[str, str], shares: Mapping[str, float]) -> None:
    """Give each split its number of the groups in `order`, where they are few, and else one at least."""
    counts = {
        split: max(1, round(share * len(order)))
        if len(order) < FEW
        else max(1, sum(found == split for found in dealt.values()))
        for split, share in shares.items()
    }
    while sum(counts.values()) >= len(order):  # training comes first
        counts[max(counts, key=lambda split: counts[split])] -= 1
    low = counts.get("validation", 0)
    high = len(order) - counts.get("test", 0)
    for place, name in enumerate(order):
        dealt[name] = "validation" if place < low else "test" if place >= high else "train"


def _keep_labels(rest: Sequence[str], groups: _Groups, dealt: Dealt) -> None:
    """Bring a group of each label value to training, in exchange for another where its split would be
    empty. Labels whose values hardly repeat, such as captions, are left out."""
    values: Counter[str] = Counter()
    holders: dict[tuple[str, str], list[str]] = {}
    for name in rest:
        for label in groups.labels[name]:
            holders.setdefault(label, []).append(name)
    values.update(name for name, _ in holders)
    learnt = Counter(dict.fromkeys(holders, 0))
    sizes: Counter[str] = Counter()
    for name in rest:
        sizes.update(dealt[name])
        learnt.update(label for label in groups.labels[name] if "train" in dealt[name])

    def move(name: str, split: str) -> None:
        change = 1 if split == "train" else -1
        sizes.subtract(dealt[name])
        sizes[split] += 1
        dealt[name] = (split,)
        for label in groups.labels[name]:
            learnt[label] += change

    for label in sorted(holders):
        if learnt[label] or 2 * values[label[0]] > len(rest):
            continue
        moved = max(holders[label], key=lambda name: (sizes[dealt[name][0]], name))
        (split,) = dealt[moved]
        if sizes[split] == 1:
            spare = (
                name
                for name in (reversed(rest) if split == "test" else rest)
                if dealt[name] == ("train",) and all(learnt[own] > 1 for own in groups.labels[name])
            )
            if (given := next(spare, None)) is None:
                continue
            move(given, split)
        move(moved, "train")


Stretch = tuple[int, int]
"""Begin and end, in samples, the end exclusive."""


def clips_of(begin: int, end: int, clip: int) -> list[Stretch]:
    """A stretch cut into clips of `clip` samples; a short rest is covered by a clip that ends with it."""
    starts = list(range(begin, end, clip))
    if len(starts) > 1 and end - starts[-1] < clip // 4:
        starts[-1] = end - clip
    return [(start, min(start + clip, end)) for start in starts]


def stretches(
    length: int, clip: int, window: int, longest_gap: int, shares: Mapping[str, float]
) -> dict[str, list[Stretch]]:
    """A recording of `length` samples → the stretches of each split, training and those in `shares`.

    Between stretches of different splits lies a gap, of `window` samples at least. What gives fewer
    clips than there are splits is for training alone.
    """
    splits = ("train", *shares)
    alone = {split: [(0, length)] if split == "train" else [] for split in splits}
    if len(clips_of(0, length, clip)) < len(splits):
        return alone
    gap = max(window, min(longest_gap, clip, length // 12))
    rounds = max(1, round(length / (ROUND * clip)))
    found: dict[str, list[Stretch]] = {split: [] for split in splits}
    for number in range(rounds):
        begin, end = (length * place // rounds for place in (number, number + 1))
        end -= gap * (number < rounds - 1)
        usable = end - begin - gap * len(shares)
        sizes = [clip * max(1, round(share * usable / clip)) for share in shares.values()]
        if usable - sum(sizes) < clip:
            sizes = [min(clip, usable // len(splits))] * len(shares)
        sizes = [usable - sum(sizes), *sizes]
        if min(sizes) < window:
            return alone
        for split, size in zip(splits, sizes, strict=True):
            rest = size % clip if size > clip else 0
            # Of a shorter rest no clip of its own would be made, but one again of most of the last.
            short = rest < clip // 4
            found[split].append((begin, begin + size - short * rest))
            begin += size + gap
    return found


def equal_sounds(sounds: Mapping[str, str]) -> list[list[str]]:
    """The paths of each sound that several of them hold, in order."""
    groups: dict[str, list[str]] = {}
    for path in sorted(sounds):
        groups.setdefault(sounds[path], []).append(path)
    return [paths for paths in groups.values() if len(paths) > 1]


def notes_of(
    dealt: Mapping[str, tuple[str, ...]],
    sounds: Mapping[str, str],
    config: PreprocessConfig,
    many: Callable[[int], str] = lambda n: f"{n} recordings",
) -> list[str]:
    """What the user should know of the splits: equal sounds, and recordings split in time."""
    notes = []
    if groups := equal_sounds(sounds):
        first, second = groups[0][:2]
        notes.append(
            f"{sum(map(len, groups))} of {many(len(sounds))} are equal to another one ({first} and"
            f" {second}, for example); equal ones are kept in the same split"
        )
        if config.test is not None:
            pattern = re.compile(config.test)
            drawn = [p for p in dealt if dealt[p] == ("test",) and not pattern.search(p)]
            if drawn:
                notes.append(
                    f"{len(drawn)} of them ({drawn[0]}, for example) are in the test split because --test"
                    " fits an equal one"
                )
    if in_time := sorted(path for path, splits in dealt.items() if len(splits) > 1):
        more = f" and {len(in_time) - 1} more" if len(in_time) > 1 else ""
        notes.append(
            f"{in_time[0]}{more}: split in time into {', '.join(dealt[in_time[0]])}, with gaps between"
        )
    return notes
