"""A dataset that preprocess wrote can be opened; one that was changed in any way is refused."""

import contextlib
import json
import mmap
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reseal import reseal

from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.manifest import SPLITS


@pytest.fixture
def own(dataset_folder: Path, tmp_path: Path) -> Path:
    """A dataset's folder that a test may damage."""
    return shutil.copytree(dataset_folder, tmp_path / "dataset")


def change_header(folder: Path, change: Callable[[Any], Any]) -> None:
    path = folder / "dataset.json"
    header = json.loads(path.read_text())
    change(header)
    path.write_text(json.dumps(header))
    reseal(folder)


def change_clip(folder: Path, **values: Any) -> None:
    """Change the second line of the training manifest."""
    path = folder / "train.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **values})
    path.write_text("\n".join(lines) + "\n")
    reseal(folder)


def splits(dataset: Dataset) -> list[Split]:
    return [dataset.train, dataset.validation, dataset.test]


def refusal(folder: Path) -> str:
    with pytest.raises(AudiovqError) as caught:
        Dataset(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- What is there ----------------------------------------------------------------------------


def test_every_recording_is_in_exactly_one_split(dataset: Dataset) -> None:
    paths = [{clip.path for clip in split.clips} for split in splits(dataset)]
    assert sum(map(len, paths)) == len(set.union(*paths)) == 24
    assert len(dataset.train) > len(dataset.validation)


def test_spectrograms_are_cut_to_the_longest_clip_of_the_batch(dataset: Dataset) -> None:
    train = dataset.train
    for indices in (torch.tensor([0]), torch.tensor([3, 1]), torch.arange(len(train))):
        batch = train.spectrograms(indices)
        frames = int(train.num_frames[indices].max())
        assert batch.shape == (len(indices), 1, dataset.spectrogram.bins, frames)
        assert batch.dtype == torch.float32
        for image, index in zip(batch, indices.tolist(), strict=True):
            alone = train.spectrograms(torch.tensor([index]))[0]
            torch.testing.assert_close(image[:, :, : alone.shape[2]], alone, rtol=0, atol=0)
            assert not image[:, :, alone.shape[2] :].any()  # the rest is floor
            assert alone[:, :, -2:].any()


@pytest.mark.gpu
def test_a_split_held_on_a_gpu_equals_the_split_on_disk(dataset: Dataset) -> None:
    indices, device = torch.tensor([5, 0, 5, 2]), torch.device("cuda", 0)
    on_disk = dataset.train.spectrograms(indices)
    with dataset.train.held(device):
        held = dataset.train.spectrograms(indices)
    assert held.device == device
    assert torch.equal(held.cpu(), on_disk)
    assert dataset.train.spectrograms(indices).device.type == "cpu"


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="this system cannot be asked")
def test_reading_ahead_requests_exactly_the_bytes_of_the_clips(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Dataset(own).train
    real, asked = train._rows, []

    class Watched:
        """A shard of which what is asked of its file is noted."""

        def __init__(self, shard: Any) -> None:
            self.shard, self.offset, self.base = shard, shard.offset, self

        def __getitem__(self, place: int) -> Any:
            return self.shard[place]

        def madvise(self, advice: int, begin: int, length: int) -> None:
            assert (advice, begin % mmap.PAGESIZE) == (mmap.MADV_WILLNEED, 0)
            self.shard.base.madvise(advice, begin, length)
            asked.append(bytes(self.shard.base[begin : begin + length]))

    monkeypatch.setattr(train, "_rows", lambda i: [(Watched(s), row) for s, row in real(i)])
    for places in ([0], [len(train) - 1], list(range(len(train))), []):
        asked.clear()
        train.read_ahead(torch.tensor(places, dtype=torch.long))
        assert len(asked) == len(places)
        for (shard, row), data in zip(real(torch.tensor(places)), asked, strict=True):
            assert data.endswith(shard[row].tobytes())
            assert len(data) < shard[row].nbytes + mmap.PAGESIZE


def test_a_batch_may_be_empty(dataset: Dataset) -> None:
    none = dataset.train.spectrograms(torch.tensor([], dtype=torch.long))
    assert none.shape[:3] == (0, 1, dataset.spectrogram.bins)


def test_label_indices_point_to_the_values_and_a_missing_label_past_the_last(own: Path) -> None:
    change_clip(own, labels={})
    dataset = Dataset(own)
    assert dataset.labels == {"folder": ["jan", "sam"]}
    train = dataset.train
    assert train.label_indices.shape == (len(train), 1)
    for clip, (place,) in zip(train.clips, train.label_indices.tolist(), strict=True):
        assert [*dataset.labels["folder"], None][place] == clip.labels.get("folder")
    assert train.label_indices[1] == 2


def test_an_empty_split_can_be_opened(own: Path) -> None:
    change_header(own, lambda header: header["splits"]["test"].update(clips=0, shards=[]))
    (own / "test.jsonl").write_text("")
    reseal(own)
    test = Dataset(own).test
    assert len(test) == 0
    assert test.label_indices.shape == (0, 1)


def test_a_dataset_can_be_moved(own: Path, tmp_path: Path, dataset: Dataset) -> None:
    shutil.move(own, tmp_path / "moved")
    indices = torch.arange(3)
    moved = Dataset(tmp_path / "moved").train.spectrograms(indices)
    assert torch.equal(moved, dataset.train.spectrograms(indices))


def test_a_dataset_opens_by_relative_path_and_through_a_link(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(own)
    monkeypatch.chdir(tmp_path)
    assert len(Dataset(Path("dataset")).train) == len(Dataset(Path("link")).train) > 0
    monkeypatch.chdir(own)
    assert len(Dataset(Path(".")).train) > 0


# --- What is refused --------------------------------------------------------------------------


def test_any_file_with_a_flipped_bit_or_another_size_is_refused_by_its_path(own: Path) -> None:
    for path in sorted(own.iterdir()):
        data = path.read_bytes()
        places = {0, len(data) // 3, len(data) - 2, len(data) - 1} if data else set()
        damaged = [data[:p] + bytes([data[p] ^ 4]) + data[p + 1 :] for p in places if p >= 0]
        for bad in (*damaged, data + b"\n", data + b"\0", data[:-1] if data else b" "):
            path.write_bytes(bad)
            assert str(own) in refusal(own)
        path.unlink()
        assert str(own) in refusal(own)
        path.write_bytes(data)
    Dataset(own)


def test_a_shard_with_bytes_after_its_array_is_refused(own: Path) -> None:
    shard = own / "train-00000.npy"
    shard.write_bytes(shard.read_bytes() + b"\0\0")
    reseal(own)
    assert "bytes instead of" in refusal(own)


def test_a_shard_that_is_not_a_c_ordered_array_is_refused(own: Path) -> None:
    shard = own / "train-00000.npy"
    good = np.load(shard)
    for bad in (np.asfortranarray(good), good.astype(">f2")):
        np.save(shard, bad)
        reseal(own)
        assert "row by row" in refusal(own)


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000])
def test_deeply_nested_json_is_refused(own: Path, deep: str) -> None:
    for name in ("train.jsonl", "dataset.json"):
        before = (own / name).read_text()
        (own / name).write_text(deep)
        if name != "dataset.json":
            reseal(own)
        assert name in refusal(own)
        (own / name).write_text(before)


def test_a_folder_that_is_not_a_dataset_is_refused(tmp_path: Path) -> None:
    assert "not a dataset" in refusal(tmp_path)
    assert "no such dataset" in refusal(tmp_path / "missing")
    for header in ("[]", "3", "{}", '{"format": "other"}'):
        (tmp_path / "dataset.json").write_text(header)
        assert "not a dataset" in refusal(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": "audiovq-dataset", "version": 99}')
    assert "version 99" in refusal(tmp_path)


@pytest.mark.parametrize("key", ["spectrogram", "preprocess", "labels", "clip_frames", "splits"])
@pytest.mark.parametrize("value", [None, "text", [3], {"a": 3}])
def test_a_damaged_header_is_refused_by_its_path(own: Path, key: str, value: Any) -> None:
    change_header(own, lambda header: header.update({key: value}))
    assert str(own) in refusal(own)


@pytest.mark.parametrize(
    "key", ["spectrogram", "preprocess", "labels", "clip_frames", "fingerprint", "splits", "source"]
)
def test_a_header_with_a_part_missing_is_refused_by_its_path(own: Path, key: str) -> None:
    change_header(own, lambda header: header.pop(key))
    assert str(own) in refusal(own)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_dataset_with_a_damaged_header_opens_or_is_refused(
    own: Path, dataset_folder: Path, data: st.DataObject
) -> None:
    content = bytearray((dataset_folder / "dataset.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(32, 126))
    (own / "dataset.json").write_bytes(content)
    with contextlib.suppress(ValueError, KeyError, AttributeError, TypeError):
        reseal(own)
    try:
        dataset = Dataset(own)
    except AudiovqError:
        return
    for split in splits(dataset):
        assert len(split.label_indices) == len(split)
        if len(split):
            split.spectrograms(torch.arange(len(split)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_dataset_with_a_damaged_shard_header_opens_or_is_refused(
    own: Path, dataset_folder: Path, data: st.DataObject
) -> None:
    content = bytearray((dataset_folder / "train-00000.npy").read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        content[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
    (own / "train-00000.npy").write_bytes(content)
    reseal(own)
    try:
        train = Dataset(own).train
    except AudiovqError:
        return
    assert train.spectrograms(torch.arange(len(train))).shape[0] == len(train)


@pytest.mark.parametrize("size", [0, 3, 100, 5000])
def test_a_truncated_shard_is_refused_by_its_path(own: Path, size: int) -> None:
    shard = own / "train-00000.npy"
    shard.write_bytes(shard.read_bytes()[:size])
    assert "checksum" in refusal(own)
    reseal(own)
    assert str(shard) in refusal(own)


def test_a_shard_of_another_shape_type_or_length_is_refused(own: Path) -> None:
    shard = own / "train-00000.npy"
    good = np.load(shard)
    for bad in (
        good.astype(np.float32),
        good[:, :-1],
        good[:, :, :-1],
        good[:-1],
        good[0],
        np.concatenate([good, good]),
        np.float16(3),
    ):
        np.save(shard, bad)
        reseal(own)
        assert "checksum" not in refusal(own)
    with open(shard, "wb") as file:
        np.savez(file, good)
    reseal(own)
    assert "checksum" not in refusal(own)
    np.save(shard, np.array([{"a": 3}], dtype=object), allow_pickle=True)
    reseal(own)
    assert "checksum" not in refusal(own)
    shard.unlink()
    assert str(shard) in refusal(own)


def test_a_shard_outside_the_folder_is_refused(own: Path, tmp_path: Path) -> None:
    shutil.copy(own / "train-00000.npy", tmp_path / "outside.npy")
    (own / "inner").mkdir()
    shutil.copy(own / "train-00000.npy", own / "inner" / "inside.npy")
    tricks = ["../outside.npy", str(tmp_path / "outside.npy"), "inner/../../outside.npy"]
    for trick in [*tricks, "inner/inside.npy", "..", ""]:
        change_header(own, lambda h, t=trick: h["splits"]["train"]["shards"][0].update(file=t))
        assert "outside its folder" in refusal(own) or "own folder" in refusal(own)
    (own / "link.npy").symlink_to(tmp_path / "outside.npy")
    change_header(own, lambda h: h["splits"]["train"]["shards"][0].update(file="link.npy"))
    assert "outside its folder" in refusal(own) or "own folder" in refusal(own)


@pytest.mark.parametrize(
    "values",
    [
        {"path": "../secret.wav"},
        {"path": "jan/../../secret.wav"},
        {"path": "/etc/passwd"},
        {"path": 3},
        {"path": None},
        {"num_samples": 0},
        {"num_samples": -64},
        {"num_samples": 1_000_000},
        {"num_samples": "many"},
        {"num_samples": 800.5},
        {"num_samples": True},
        {"offset": -1},
        {"level": -1},
        {"level": 64},
        {"level": None},
        {"labels": []},
        {"labels": {"folder": 3}},
        {"sha256": None},
        {"complete": None},
        {"complete": [True]},
        {"complete": [1, 0]},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_manifest_with_forged_values_is_refused(own: Path, values: dict[str, Any]) -> None:
    change_clip(own, **values)
    assert "train.jsonl" in refusal(own)


def test_unusual_but_harmless_names_are_read(own: Path) -> None:
    change_clip(own, path="..a/b..c/...wav")
    assert Dataset(own).train.clips[1].path == "..a/b..c/...wav"


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("damage", [b"{", b"[]\n", b"3\n", b"\n", b"\xff\n", None])
def test_a_damaged_manifest_is_refused_by_its_path(
    own: Path, name: str, damage: bytes | None
) -> None:
    path = own / f"{name}.jsonl"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + damage)
        reseal(own)
    assert str(path) in refusal(own)


def test_a_manifest_with_more_or_fewer_clips_than_the_shards_is_refused(own: Path) -> None:
    path = own / "train.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for other in (lines[:-1], [*lines, lines[0]], []):
        path.write_text("".join(other))
        reseal(own)
        assert "train.jsonl lists" in refusal(own)
