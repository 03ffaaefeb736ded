"""Fuzz the readers of files: every damaged file must be refused in one line.

    python benchmarks/robustness/fuzz.py --cases 200000 --out benchmarks/results/fuzz.json

Changes bits, bytes, blocks and fields of the golden files in `tests/golden`. In half of the cases the
checksums are repaired, so that the code behind them is reached; such a file may be valid. All others must
be refused with an AudiovqError of one line. No case may exceed the limits of memory and time below. The
exit code is 1 after faults; `--first N --cases 1` repeats case N alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import re
import resource
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import torch
import tyro

from audiovq.codec.archive import HEADER, pack, unpack, with_checksum
from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset
from audiovq.models.checkpoint import load
from audiovq.models.model import Model
from audiovq.runtime.checksums import CHECKSUM_PLACEHOLDER, add_checksum
from audiovq.runtime.files import write_json
from audiovq.runtime.tensors import read_tensors, save_tensors
from benchmarks.provenance import stamp

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
LIMIT_SECONDS = 5.0
"""CPU seconds for one case."""
LIMIT_BYTES = 1 << 30
"""Memory for all cases together, beyond the memory in use before the first."""
Files = dict[str, bytes]
EXTREMES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**400),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), "", "a", "..", "../a", "/etc/passwd", "C:\\a"),
    *("a\0b", "a\nb", "\ud800", "x" * 100_000, "<script>", [], [[]], [1], {}, {"a": 1}, {"": {}}),
)
NESTED = "[" * 100_000 + "]" * 100_000


@dataclass(frozen=True)
class Target:
    """A valid file or folder."""

    name: str
    files: Files
    repair: Callable[[Files], Files]
    """Changed files → the same with correct checksums."""
    read: Callable[[Files], Any]
    """Files → their content as read, in values that can be compared."""


@dataclass
class Summary:
    """Counts and limits over all cases."""

    seed: int
    cases: int = 0
    refused: int = 0
    """Cases refused with an AudiovqError."""
    same: int = 0
    """Checksums repaired, and read as unchanged: the changed bytes have no meaning."""
    valid: int = 0
    """Checksums repaired, and read as another valid file."""
    by_target: dict[str, dict[str, int]] = field(default_factory=dict)
    slowest_seconds: float = 0.0
    grown_bytes: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


# --- Valid files ------------------------------------------------------------------------------


def targets(folder: Path) -> list[Target]:
    """The golden files; changed ones are written to `folder`."""
    model = load(GOLDEN / "model")
    found = []
    for coder in ("plain", "context", "prior"):
        name = f"few.{coder}.avq"
        data = (GOLDEN / name).read_bytes()
        if coder == "prior":  # depends on the machine and the number of threads: pack it here
            sounds = unpack(model, (GOLDEN / "few.context.avq").read_bytes())
            data = pack(model, sounds, coder)
        files = {name: data}
        found.append(Target(coder, files, _repair_archive, _ArchiveReader(model, name)))
    for name, kind, read in (
        ("model", "model", _read_model),
        ("dataset", "dataset", _read_dataset),
        ("stereo-model", "model", _read_model),
        ("stereo-dataset", "dataset", _read_dataset),
    ):
        files = {path.name: path.read_bytes() for path in sorted((GOLDEN / name).iterdir())}
        repair = _FolderRepair(files, f"{kind}.json")
        found.append(Target(name, files, repair, _FolderReader(folder / name, files, read)))
    path = folder / "state" / "a.safetensors"
    save_tensors(path, {"a": torch.arange(6.0)}, {"state": '{"step": 3}'})
    files = {path.name: path.read_bytes()}
    found.append(
        Target("state", files, _repair_state, _FolderReader(path.parent, files, _read_state))
    )
    return found


@dataclass(frozen=True)
class _ArchiveReader:
    model: Model
    name: str

    def __call__(self, files: Files) -> Any:
        sounds = unpack(self.model, files[self.name])
        size = self.model.autoencoder.config.bottleneck.num_codes
        for sound in sounds.values():
            valid = bool(((sound.codes >= 0) & (sound.codes < size)).all())
            if not valid or sound.num_samples < 0:
                raise ValueError(f"codes or length out of range: {sound}")
        return [
            (name, s.level, s.num_samples, tuple(s.codes.shape), s.codes.flatten().tolist())
            for name, s in sounds.items()
        ]


class _FolderReader:
    """Writes changed files to a folder and reads the folder."""

    def __init__(self, folder: Path, files: Files, read: Callable[[Path], Any]) -> None:
        self._folder, self._read, self._written = folder, read, Files()
        folder.mkdir(exist_ok=True)
        self._write(files)

    def __call__(self, files: Files) -> Any:
        self._write(files)
        return self._read(self._folder)

    def _write(self, files: Files) -> None:
        for name, data in files.items():
            if self._written.get(name) != data:
                (self._folder / name).write_bytes(data)
        self._written = dict(files)


def _read_model(folder: Path) -> Any:
    model = load(folder)
    parts = [model.autoencoder.state_dict()]
    if model.prior is not None:
        parts.append(model.prior.state_dict())
    if model.context is not None:
        parts.append(model.context.integers)
        shape = model.context.num_quantizers, model.context.rows, 2
        codes = torch.arange(shape[0] * shape[1] * 2).view(shape) % model.context.codebook_size
        sounds = {"a": _encoded(codes, model)}
        if not torch.equal(unpack(model, pack(model, sounds))["a"].codes, codes):
            raise ValueError("unpacked codes differ from the packed ones")
    weights = [(n, t.dtype, t.numpy().tobytes()) for part in parts for n, t in part.items()]
    return weights, model.labels, model.label_counts, model.clip_frames


def _encoded(codes: torch.Tensor, model: Model) -> Any:
    from audiovq.codec.windows import Encoded

    per_column = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    return Encoded(codes, 1, (codes.shape[2] - 1) * per_column)


def _read_dataset(folder: Path) -> Any:
    dataset = Dataset(folder)
    splits = dataset.train, dataset.validation, dataset.test
    images = [
        split.spectrograms(torch.arange(len(split))).numpy().tobytes()
        for split in splits
        if len(split)
    ]
    labels = [split.label_indices.tolist() for split in splits]
    return [split.clips for split in splits], images, labels, dataset.spectrogram


def _read_state(folder: Path) -> Any:
    tensors, metadata = read_tensors(folder / "a.safetensors", sealed=True)
    return [(name, t.dtype, t.shape, t.tolist()) for name, t in tensors.items()], metadata


# --- Repairing checksums ----------------------------------------------------------------------


def _repair_archive(files: Files) -> Files:
    return {name: with_checksum(data) for name, data in files.items()}


class _FolderRepair:
    """Replaces the checksums of the original files by those of the changed ones."""

    def __init__(self, files: Files, header: str) -> None:
        self._digests = {name: _digest(data) for name, data in files.items()}
        self._header = header

    def __call__(self, files: Files) -> Files:
        text = files[self._header]
        for name, data in files.items():
            if name != self._header:
                text = text.replace(self._digests[name], _digest(data))
        return files | {self._header: _sealed(text)}


def _repair_state(files: Files) -> Files:
    return {name: _sealed(data) for name, data in files.items()}


def _sealed(data: bytes) -> bytes:
    return add_checksum(
        re.sub(rb'("sha256": ?")[0-9a-f]{64}', rb"\g<1>" + CHECKSUM_PLACEHOLDER, data, count=1)
    )


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


# --- Damaging files ---------------------------------------------------------------------------


def mutate(rng: random.Random, name: str, data: bytes) -> bytes:
    """Apply one random change: of arbitrary bytes, or of a field of the format."""
    if rng.random() < 0.5:
        return rng.choice(BLIND)(rng, data)
    if name.endswith(".json"):
        return _mutate_json(rng, data)
    if name.endswith(".jsonl"):
        lines = data.splitlines(keepends=True)
        index = rng.randrange(len(lines)) if lines else 0
        changed = _mutate_json(rng, lines[index], None) + b"\n" if lines else b"{}\n"
        return b"".join([*lines[:index], changed, *lines[index + 1 :]])
    if name.endswith(".safetensors"):
        (length,) = struct.unpack_from("<Q", data)
        header = _mutate_json(rng, data[8 : 8 + length], None)
        return struct.pack("<Q", len(header)) + header + data[8 + length :]
    if name.endswith(".npy"):
        number = rng.choice(["0", "1", "-1", "99999999", str(2**62), "None", "'a'", "True", "1,"])
        numbers = list(re.finditer(rb"\d+|False|<f2", data[:128]))
        chosen = rng.choice(numbers)
        head = (data[: chosen.start()] + number.encode() + data[chosen.end() : 127])[:127]
        return head.ljust(127) + b"\n" + data[128:]
    return _mutate_archive(rng, data)


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _insert(rng: random.Random, data: bytes) -> bytes:
    position = rng.randrange(len(data) + 1)
    return data[:position] + rng.randbytes(rng.choice((1, 2, 4, 100))) + data[position:]


def _delete(rng: random.Random, data: bytes) -> bytes:
    position = rng.randrange(len(data) + 1)
    return data[:position] + data[position + rng.choice((1, 2, 4, 100)) :]


def _swap(rng: random.Random, data: bytes) -> bytes:
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _append(rng: random.Random, data: bytes) -> bytes:
    return data + rng.choice((b"\0", b"\n", b" ", data, rng.randbytes(rng.randrange(1, 50))))


def _zero(rng: random.Random, data: bytes) -> bytes:
    position, length = rng.randrange(len(data) + 1), rng.choice((1, 4, 8, 64, 1000))
    return (
        data[:position] + bytes(len(data[position : position + length])) + data[position + length :]
    )


def _extreme(rng: random.Random, data: bytes) -> bytes:
    """Set an integer near the beginning to its maximum or minimum."""
    size = rng.choice((1, 2, 4, 8))
    position = rng.randrange(max(1, min(64, len(data) - size)))
    value = rng.choice((b"\0" * size, b"\xff" * size, b"\xff" * (size - 1) + b"\x7f"))
    return data[:position] + value + data[position + size :]


BLIND = (_flip, _truncate, _insert, _delete, _swap, _append, _zero, _extreme)


def _mutate_json(rng: random.Random, data: bytes, indent: int | None = 2) -> bytes:
    """Change one value, key or list."""
    root = json.loads(data)
    container, key = rng.choice(list(_entries(root)))
    action = rng.randrange(5)
    if action == 0:
        del container[key]
    elif action == 1 and isinstance(container, dict):
        container[rng.choice(("a", "", "file", "\ud800", "x\ny"))] = container.pop(key)
    elif action == 2 and isinstance(container[key], list | dict) and container[key]:
        container[key] = list(container[key]) * rng.choice((2, 100))
    elif action == 3 and isinstance(container[key], int | float):
        container[key] = container[key] * rng.choice((-1, 2, 1000, 10**9)) + rng.choice((0, 1, -1))
    else:
        container[key] = rng.choice((*EXTREMES, NESTED))
    text = json.dumps(root, indent=indent)
    return text.replace(f'"{NESTED}"', NESTED).encode()


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry at any depth: its container, and its key or index there."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _entries(inner)


def _mutate_archive(rng: random.Random, data: bytes) -> bytes:
    """Change a field of the header, the names, or the coded words."""
    fields = list(HEADER.unpack_from(data))
    begin, end = HEADER.size, HEADER.size + fields[-1]
    names, words = data[begin:end], data[end:]
    action = rng.randrange(4)
    if action == 0:
        index = rng.choice((2, 5, 6, 7))
        limit = 2**8 if index == 2 else 2**32
        fields[index] = rng.choice((0, 1, limit - 1, limit // 2, fields[index] + 1)) % limit
    elif action == 1:
        changed = zlib.compress(rng.choice(BLIND)(rng, zlib.decompress(names)))
        names = rng.choice((_bomb(), changed, names * 2))
        fields[-1] = len(names)
    elif action == 2:
        fill = rng.choice((b"\0", b"\xff", rng.randbytes(1)))
        words = rng.choice((fill * len(words), b"", words[:8], words + fill * 4, fill * 4 + words))
    else:
        words = _flip(rng, words)
    return HEADER.pack(*fields) + names + words


@functools.cache
def _bomb() -> bytes:
    """128 MiB of zeros, deflated."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(128)) + packer.flush()


# --- Running cases ----------------------------------------------------------------------------


def run(cases: int, seed: int = 0, first: int = 0, say: Callable[[str], None] = print) -> Summary:
    """Run `cases` cases from number `first` on; each depends on (seed, number) only."""
    summary = Summary(seed)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        kinds = targets(Path(folder))
        originals = {kind.name: kind.read(kind.files) for kind in kinds}
        before = _peak_bytes()
        for number in range(first, first + cases):
            outcome = _case(number, seed, kinds, originals, summary)
            summary.cases += 1
            if outcome.startswith("fault"):
                summary.faults.append(outcome)
                say(outcome)
            elif summary.cases % 10_000 == 0:
                say(f"{summary.cases} cases, {len(summary.faults)} faults")
            if _peak_bytes() - before > LIMIT_BYTES:
                summary.faults.append(f"fault: case {number} took too much memory")
                before = _peak_bytes()
        summary.grown_bytes = max(0, _peak_bytes() - before)
    summary.seconds = round(time.perf_counter() - started, 1)
    return summary


def _case(
    number: int, seed: int, kinds: list[Target], originals: dict[str, Any], summary: Summary
) -> str:
    """Run one case → `refused`, `same`, `valid`, or `fault` with a description."""
    rng = random.Random(f"{seed} {number}")
    kind = rng.choice(kinds)
    name = rng.choice(list(kind.files))
    files, resealed = dict(kind.files), rng.random() < 0.5
    while files == kind.files:
        files[name] = mutate(rng, name, kind.files[name])
        if rng.random() < 0.2:
            files[name] = rng.choice(BLIND)(rng, files[name])
    if resealed:
        files = kind.repair(files)
    begun = time.process_time()
    where = f"case {number}: {kind.name} {name}{', checksums repaired' if resealed else ''}"
    try:
        found = kind.read(files)
    except AudiovqError as error:
        text = str(error)
        bad = "\n" in text or not text or "allocate" in repr(error.__cause__)
        outcome = f"fault in {where}: {text!r}" if bad else "refused"
    except BaseException as error:  # a panic in Rust is not an Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome = f"fault in {where}: {''.join(traceback.format_exception(error))}"
    else:
        outcome = "same" if found == originals[kind.name] else "valid"
        if not resealed:
            outcome = f"fault in {where}: was not refused"
    seconds = time.process_time() - begun
    summary.slowest_seconds = max(summary.slowest_seconds, round(seconds, 3))
    if seconds > LIMIT_SECONDS:
        outcome = f"fault in {where}: takes {seconds:.1f} s"
    if outcome in ("refused", "same", "valid"):
        setattr(summary, outcome, getattr(summary, outcome) + 1)
    counts = Counter(summary.by_target.get(kind.name, {}))
    counts[outcome.partition(" ")[0]] += 1
    summary.by_target[kind.name] = dict(counts)
    return outcome


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(cases: int = 200_000, seed: int = 0, first: int = 0, out: Path | None = None) -> None:
    """Fuzz the readers of archives, models, datasets and training states.

    Args:
        cases: Number of cases.
        seed: Seed of the changes.
        first: Number of the first case.
        out: JSON file for the summary.
    """
    torch.set_num_threads(1)
    summary = run(cases, seed, first)
    print(json.dumps(asdict(summary) | {"faults": len(summary.faults)}, indent=2))
    if out is not None:
        write_json(out, stamp() | asdict(summary))
    sys.exit(1 if summary.faults else 0)


if __name__ == "__main__":
    tyro.cli(main)
