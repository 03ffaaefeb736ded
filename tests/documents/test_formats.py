"""Formats are stable: golden files give the recorded values, and docs/formats.md suffices to read them.

`Document` below is written from that page alone, with nothing of the program in it.
"""

import hashlib
import json
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import plain

from audiovq.codec.archive import UNEQUAL, unpack
from audiovq.codec.probabilities import CODERS
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.numbers import Numbers
from audiovq.models.checkpoint import load
from audiovq.preprocessing.preprocess import preprocess

GOLDEN = Path(__file__).parents[1] / "golden"
ARCHIVES = [*(("few", coder) for coder in CODERS), ("many", "context")]
MODULUS = 1 << 64


def expected(name: str) -> Any:
    """What an archive must give: levels, samples and codes by name."""
    return json.loads((GOLDEN / f"{name}.expected.json").read_text())


# --- The program ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "coder"), ARCHIVES)
def test_golden_archives_decode_to_the_recorded_codes(name: str, coder: str) -> None:
    model = load(GOLDEN / "model")
    try:
        sounds = unpack(model, (GOLDEN / f"{name}.{coder}.avq").read_bytes())
    except AudiovqError as error:
        if coder == "prior" and str(error) == UNEQUAL:
            # As documented: only the context coder's archives must decode on every machine.
            pytest.skip("the prior's probabilities are those of another machine")
        raise
    assert plain(sounds) == expected(name)
    assert list(sounds) == list(expected(name))


def test_the_golden_dataset_gives_the_recorded_spectrograms() -> None:
    dataset = Dataset(GOLDEN / "dataset")
    assert dataset.labels == {"folder": ["anna", "zoë"]}
    for split in (dataset.train, dataset.validation, dataset.test):
        sums = [
            float(split.spectrograms(torch.tensor([i])).double().sum()) for i in range(len(split))
        ]
        assert sums == expected("dataset")[split.name]
        assert len(sums) > 0


def test_the_golden_stereo_dataset_gives_the_recorded_planes() -> None:
    dataset = Dataset(GOLDEN / "stereo-dataset")
    assert dataset.spectrogram.channels == 2
    for split in dataset.splits:
        sums = [
            split.spectrograms(torch.tensor([i]))[0].double().sum(dim=(1, 2)).tolist()
            for i in range(len(split))
        ]
        assert sums == expected("stereo-dataset")[split.name]


def test_the_golden_stereo_model_is_read() -> None:
    model = load(GOLDEN / "stereo-model")
    assert model.channels == 2
    assert model.autoencoder.planes == 3


def test_the_golden_model_with_numbers_gives_the_recorded_levels() -> None:
    model = load(GOLDEN / "numbers-model")
    assert model.header["version"] == 7
    note = model.labels["note"]
    assert note == Numbers(40.0, 64.0, notes=True)
    assert model.prior is not None
    labels = torch.tensor([[0, 0], [1, 900], [2, len(note)]])
    with torch.inference_mode():
        logits = model.prior(torch.zeros(3, 1, dtype=torch.long), labels)[:, 0].double()
    recorded = torch.tensor(expected("numbers-model"), dtype=torch.double)
    torch.testing.assert_close(logits.softmax(dim=1), recorded, rtol=1e-4, atol=1e-6)


def test_the_golden_dataset_with_numbers_is_read_and_its_indices_are_those_of_the_page() -> None:
    dataset = Dataset(GOLDEN / "numbers-dataset")
    header = json.loads((GOLDEN / "numbers-dataset/dataset.json").read_bytes())
    assert header["version"] == 4
    low, high = header["labels"]["note"]["low"], header["labels"]["note"]["high"]
    span, margin = max(high - low, 1e-6, 1), max(max(high - low, 1) / 10, 2)
    digits = math.ceil(math.log10(2000 / span))
    first = math.floor((low - margin) * 10**digits)
    place = list(dataset.labels).index("note")
    transposed = 0
    for clip, index in zip(dataset.train.clips, dataset.train.label_indices, strict=True):
        text = clip.labels["note"]
        note = {"A2": 45.0}[text] if text == "A2" else float(text)
        assert abs((first + int(index[place])) / 10**digits - note) <= 0.5 / 10**digits
        transposed += clip.transposed != 0
    assert transposed == len(dataset.train) // 2 > 0
    last = math.ceil((high + margin) * 10**digits)
    assert len(dataset.labels["note"]) == last - first + 1


def test_the_golden_files_are_few_and_small() -> None:
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 260_000


# --- The page ---------------------------------------------------------------------------------


def tensors(path: Path) -> dict[str, np.ndarray]:
    """safetensors, as the page has it."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    types = {"I16": "<i2", "I32": "<i4", "F16": "<f2", "F32": "<f4"}
    found = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + place for place in entry["data_offsets"])
            found[name] = np.frombuffer(data[begin:end], types[entry["dtype"]]).reshape(
                entry["shape"]
            )
    return found


def evenly(n: int) -> np.ndarray:
    return np.array([i * (2**24 // n) for i in range(n)] + [2**24])


def by_counts(counts: np.ndarray) -> np.ndarray:
    counts, n = counts.astype(np.float32), len(counts)
    sums = np.cumsum(counts, dtype=np.float32)  # one after another, from the left
    scale = np.float32(2**24 - n) / sums[-1]
    before = np.concatenate([np.zeros(1, np.float32), sums[:-1]])
    return np.append(np.arange(n) + np.floor(before * scale).astype(np.int64), 2**24)


class RangeDecoder:
    def __init__(self, words: list[int]) -> None:
        self.words = iter(words)
        self.lower, self.range = 0, MODULUS - 1
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        return next(self.words, 0)

    def symbol(self, left: np.ndarray) -> int:
        scale = self.range >> 24
        quantile = (self.point - self.lower) % MODULUS // scale
        assert quantile < 2**24
        symbol = int(np.searchsorted(left, quantile, side="right")) - 1
        self.lower = (self.lower + scale * int(left[symbol])) % MODULUS
        self.range = scale * int(left[symbol + 1] - left[symbol])
        if self.range < 2**32:
            self.lower = (self.lower << 32) % MODULUS
            self.range = (self.range << 32) % MODULUS
            self.point = (self.point << 32) % MODULUS | self.word()
        return symbol


class Document:
    """A model's folder, as far as decoding needs it."""

    neighbours = ((0, -1), (-1, 0), (-1, -1), (1, -1), (0, -2), (-2, 0))

    def __init__(self, folder: Path) -> None:
        self.header = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.digests = [
            hashlib.sha256((folder / f"{part}.safetensors").read_bytes()).hexdigest()
            for part in ("autoencoder", "context", "prior")
        ]
        self.tables = tables = tensors(folder / "context.safetensors")
        self.quantizers, self.size, _ = tables["vectors"].shape
        self.rows, _ = tables["rows.0"].shape
        patch = self.header["autoencoder"]["config"]["network"]["patch"]
        self.per_column = patch[1] * self.header["spectrogram"]["hop_length"]
        self.exponential = [
            max(1, round(2**18 * float(np.exp(-below / 64)))) for below in range(832)
        ]

    def counts(self, grid: np.ndarray, row: int, column: int, q: int) -> np.ndarray:
        """grid (quantizers, rows, columns), -1 where no code is known."""
        seen = []
        for r, c in self.neighbours:
            inside = 0 <= row + r < self.rows and column + c >= 0
            codes = grid[:, row + r, column + c] if inside else [-1] * self.quantizers
            seen += enumerate(codes)
        seen += [(s, grid[s, row, column]) for s in range(q)]
        hidden = self.tables[f"rows.{q}"][row].astype(np.int64)
        for place, (s, code) in enumerate(seen):
            if code < 0:
                hidden = hidden + self.tables[f"edges.{q}"][place]
            else:
                vector = self.tables["vectors"][s, code].astype(np.int64)
                said = vector @ self.tables[f"maps.{q}"][place].astype(np.int64)
                hidden = hidden + (said + 2048) // 4096
        hidden = hidden.clip(0, 512)
        logits = hidden @ self.tables[f"weights.{q}"].astype(np.int64) + self.tables[f"biases.{q}"]
        below = np.minimum(831, (logits.max() - logits) >> 8)
        return np.array([self.exponential[i] for i in below])

    def decode(self, data: bytes) -> dict[str, Any]:
        """An archive's bytes, coder 0 or 1 → what its .expected.json holds."""
        magic, damage, coder, model, predictor, content, sounds, length = struct.unpack_from(
            "<4sIB4s4sIII", data
        )
        assert magic == b"AVQ\x01"
        assert damage == zlib.crc32(data[8:])
        assert coder in (0, 1)
        assert model.hex() == self.digests[0][:8]
        assert predictor == hashlib.sha256(self.digests[1].encode()).digest()[:4]
        block, names = zlib.decompress(data[29 : 29 + length]), []
        while block:
            end = 2 + int.from_bytes(block[:2], "little")
            names.append(block[2:end].decode())
            block = block[end:]
        assert len(names) == sounds
        stream = RangeDecoder(np.frombuffer(data[29 + length :], "<u4").tolist())
        levels, columns, samples = self.sides(stream, sounds)
        grids = [np.full((self.quantizers, self.rows, n), -1) for n in columns]
        cuts = [
            (sound, begin, min(128, n - begin))
            for sound, n in enumerate(columns)
            for begin in range(0, n, 128)
        ]
        whole = [cut for cut in cuts if cut[2] == 128]
        others = sorted((cut for cut in cuts if cut[2] < 128), key=lambda cut: -cut[2])
        order = whole + others
        for first in range(0, len(order), 256):
            self.group(stream, coder, grids, order[first : first + 256])
        crc = 0
        for level, num_samples, grid in zip(levels, samples, grids, strict=True):
            crc = zlib.crc32(struct.pack("<IQ", level, num_samples), crc)
            crc = zlib.crc32(grid.astype("<u4").tobytes(), crc)
        assert crc == content
        return {
            name: {"level": level, "num_samples": num_samples, "codes": grid.tolist()}
            for name, level, num_samples, grid in zip(names, levels, samples, grids, strict=True)
        }

    def sides(self, stream: RangeDecoder, sounds: int) -> tuple[list[int], list[int], list[int]]:
        level, column = by_counts(self.tables["levels"]), by_counts(self.tables["columns"])
        levels = [stream.symbol(level) for _ in range(sounds)]
        columns = [stream.symbol(column) for _ in range(sounds)]
        rare = [sound for sound in range(sounds) if columns[sound] == 0]
        for shift in (16, 0):
            for sound in rare:
                columns[sound] |= stream.symbol(evenly(1 << 16)) << shift
        rests = [stream.symbol(evenly(max(2, self.per_column))) for _ in range(sounds)]
        samples = [(n - 1) * self.per_column + rest for n, rest in zip(columns, rests, strict=True)]
        return levels, columns, samples

    def group(
        self,
        stream: RangeDecoder,
        coder: int,
        grids: list[np.ndarray],
        cuts: list[tuple[int, int, int]],
    ) -> None:
        for column in range(cuts[0][2]):
            for row in range(self.rows):
                for q in range(self.quantizers):
                    for sound, begin, length in cuts:
                        if column < length:
                            part = grids[sound][:, :, begin : begin + length]
                            even = np.ones(self.size)
                            counts = self.counts(part, row, column, q) if coder else even
                            part[q, row, column] = stream.symbol(by_counts(counts))


@pytest.mark.parametrize(("name", "coder"), [a for a in ARCHIVES if a[1] != "prior"])
def test_the_page_suffices_to_decode_an_archive(name: str, coder: str) -> None:
    data = (GOLDEN / f"{name}.{coder}.avq").read_bytes()
    assert Document(GOLDEN / "model").decode(data) == expected(name)


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_the_page_suffices_to_check_a_folder(kind: str) -> None:
    data = (GOLDEN / kind / f"{kind}.json").read_bytes()
    header = json.loads(data)
    zeros = data.replace(header["sha256"].encode(), b"0" * 64)
    assert hashlib.sha256(zeros).hexdigest() == header["sha256"]
    listed = dict(header.get("manifests", {}))
    for part in ("autoencoder", "context", "prior"):
        if part in header:
            listed[header[part]["file"]] = header[part]["sha256"]
    for split in header.get("splits", {}).values():
        listed |= {shard["file"]: shard["sha256"] for shard in split["shards"]}
    for name, digest in listed.items():
        assert hashlib.sha256((GOLDEN / kind / name).read_bytes()).hexdigest() == digest
    assert listed.keys() | {f"{kind}.json"} == {p.name for p in (GOLDEN / kind).iterdir()}


def test_the_page_suffices_to_read_a_shard() -> None:
    folder = GOLDEN / "dataset"
    header = json.loads((folder / "dataset.json").read_bytes())
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    data = (folder / "train-00000.npy").read_bytes()
    assert data[:8] == bytes.fromhex("93 4E 55 4D 50 59 01 00".replace(" ", ""))
    begin = 10 + int.from_bytes(data[8:10], "little")
    shape = tuple(map(int, re.findall(rb"\d+", data[data.index(b"shape") : begin])))
    assert shape == (len(lines), 16, header["clip_frames"])
    numbers = np.frombuffer(data[begin:], "<f2").reshape(shape).astype(np.float64)
    for line, clip, total in zip(lines, numbers, expected("dataset")["train"], strict=True):
        frames = 1 + json.loads(line)["num_samples"] // header["spectrogram"]["hop_length"]
        assert clip[:, :frames].sum() == clip.sum() == total


# --- Balance and coherence, from the page -----------------------------------------------------


def stereo_rows(left: np.ndarray, right: np.ndarray, level: int, n_mels: int) -> np.ndarray:
    """(2 B, frames) of a complete clip with windows of 64 samples and a hop of 16, at 8 kHz."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)
    frames = 1 + len(left) // 16
    spectra = []
    for side in (left, right):
        padded = np.pad(side.astype(np.float64), 64)
        rows = [padded[32 + 16 * k : 96 + 16 * k] * window for k in range(frames)]
        spectra.append(np.fft.rfft(rows).T / 16)
    knee = 15 + 27 * np.log(4) / np.log(6.4)  # mel of 4 kHz
    mel = np.linspace(0, knee, n_mels + 2)
    hertz = np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    bins = np.linspace(0, 4000, 33)
    filters = np.stack(
        [np.interp(bins, hertz[m : m + 3], [0, 1, 0], left=0, right=0) for m in range(n_mels)]
    )
    filters /= filters.sum(axis=1, keepdims=True)
    count = min(16, n_mels)
    of_band = np.arange(n_mels) * count // n_mels
    bands = np.stack([filters[of_band == b].sum(axis=0) for b in range(count)])
    bands /= bands.sum(axis=1, keepdims=True)
    powers = []
    for a, b in ((0, 0), (1, 1), (0, 1)):
        power = bands @ (spectra[a] * spectra[b].conj()).real
        powers.append(np.stack([np.convolve(row, [1, 2, 3, 2, 1])[2:-2] / 9 for row in power]))
    floor = 10 ** ((3 - 1.5 * level - 60) / 10)
    first, second, cross = (power / floor for power in powers)
    ratio = np.sqrt((np.minimum(first, second) + 1) / (np.maximum(first, second) + 1))
    distance = (1 - np.log(1 + 15 * ratio) / np.log(16)) * np.where(second > first, 1, -1)
    bias = 1 + 0.005 * (first + second)
    cosine = (cross + bias) / (np.sqrt(first * second) + bias)
    coherence = 1 - np.arccos(np.clip(cosine, -1, 1)) / np.pi
    return np.concatenate([(1 + distance) / 2, coherence])


def test_the_page_has_the_rows_of_balance_and_coherence(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    left = generator.normal(0, 0.1, 800).astype(np.float32)
    sides = np.stack([left, 0.3 * left + 0.02 * generator.normal(0, 1, 800).astype(np.float32)])
    soundfile.write(tmp_path / "in.wav", sides.T, 8000, subtype="FLOAT")
    (tmp_path / "in").mkdir()
    (tmp_path / "in.wav").rename(tmp_path / "in" / "a.wav")
    config = PreprocessConfig(
        n_fft=64, hop_length=16, n_mels=16, trim=False, test_share=0.0, validation_share=0.0
    )
    preprocess(tmp_path / "in", tmp_path / "out", config, say=lambda line: None)
    stored = np.load(tmp_path / "out" / "train-00000.npy")[0].astype(np.float64)
    clip = json.loads((tmp_path / "out" / "train.jsonl").read_text())
    expected_rows = stereo_rows(*sides, clip["level"], 16)
    np.testing.assert_allclose(stored[16:, :51], expected_rows, atol=4e-3)
