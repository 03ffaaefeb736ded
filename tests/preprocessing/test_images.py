"""A dataset of images holds every pixel, the top row on top, and lists files that are not images."""

import gzip
import struct
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fast_training import CONFIG
from PIL import Image

from audiovq.config.errors import AudiovqError
from audiovq.config.output import OutputConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.batches import shift_images
from audiovq.dataset.dataset import Dataset, Split
from audiovq.evaluation.evaluate import evaluate
from audiovq.evaluation.verdict import facts_of, verdict
from audiovq.generation.files import generate_files
from audiovq.generation.generate import generate, generate_images
from audiovq.models.checkpoint import load
from audiovq.preprocessing.images import preprocess_images
from audiovq.spectral.picture import write_images
from audiovq.training.run import train

Pixels = npt.NDArray[np.uint8]


def read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)


def silent(_: str) -> None:
    pass


def pixels(n: int, rows: int = 12, columns: int = 8) -> list[Pixels]:
    return list(np.random.default_rng(0).integers(0, 256, (n, rows, columns), dtype=np.uint8))


def write(path: Path, image: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def idx(path: Path, array: Pixels) -> None:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    data = head + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def png_without_pixels(width: int, height: int) -> bytes:
    """A PNG that states a size and ends where its pixels begin."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", crc32(c)) for c in (head, b"IDAT")
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def images_of(split: Split) -> dict[str, Pixels]:
    """Images of a split by path: top row first, 0 to 255."""
    if not len(split):
        return {}
    grids = split.spectrograms(torch.arange(len(split)))
    rows = (255 * grids).round().byte().numpy()[:, 0, ::-1]
    return {clip.path: row for clip, row in zip(split.clips, rows, strict=True)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, image in enumerate(pixels(40)):
        write(tmp_path / "in" / "ab"[number % 2] / f"{number}.png", image)
    return tmp_path / "in"


def test_a_dataset_holds_every_pixel_and_folders_as_labels(folder: Path, tmp_path: Path) -> None:
    summary = preprocess_images(folder, tmp_path / "out", say=silent)
    dataset = Dataset(tmp_path / "out")
    assert (summary.found, summary.used, dataset.clip_frames) == (40, 40, 8)
    assert dataset.labels == {"folder": ["a", "b"]}
    found = {
        k: v
        for s in (dataset.train, dataset.validation, dataset.test)
        for k, v in images_of(s).items()
    }
    for number, image in enumerate(pixels(40)):
        np.testing.assert_array_equal(found[f"{'ab'[number % 2]}/{number}.png"], image)


def test_images_written_and_read_are_identical(folder: Path, tmp_path: Path) -> None:
    preprocess_images(folder, tmp_path / "out", say=silent)
    train_split = Dataset(tmp_path / "out").train
    grids = train_split.spectrograms(torch.arange(5))
    paths = write_images(tmp_path / "again", grids, [f"{i}" for i in range(5)])
    for path, image in zip(paths, list(images_of(train_split).values()), strict=False):
        np.testing.assert_array_equal(read(path), image)


def test_files_in_the_format_of_mnist_are_read_with_labels_and_test_split(
    tmp_path: Path,
) -> None:
    images, labels = np.stack(pixels(30)), np.arange(30, dtype=np.uint8) % 10
    source = tmp_path / "mnist"
    source.mkdir()
    idx(source / "train-images-idx3-ubyte.gz", images[:20])
    idx(source / "train-labels-idx1-ubyte.gz", labels[:20])
    idx(source / "t10k-images-idx3-ubyte", images[20:])
    idx(source / "t10k-labels-idx1-ubyte", labels[20:])
    preprocess_images(source, tmp_path / "out", say=silent)
    dataset = Dataset(tmp_path / "out")
    assert len(dataset.test) == 10
    assert len(dataset.train) + len(dataset.validation) == 20
    assert [clip.labels["digit"] for clip in dataset.test.clips] == [
        str(n % 10) for n in range(20, 30)
    ]
    np.testing.assert_array_equal(images_of(dataset.test)["t10k/00003"], images[23])


def test_of_a_packed_and_an_unpacked_file_of_mnist_the_packed_one_is_left_out(
    tmp_path: Path,
) -> None:
    images = np.stack(pixels(30))
    for suffix in ("", ".gz"):
        idx(tmp_path / f"train-images-idx3-ubyte{suffix}", images)
    summary = preprocess_images(tmp_path, tmp_path / "out", say=silent)
    assert summary.used == 30
    assert [skipped.path for skipped in summary.skipped] == ["train-images-idx3-ubyte.gz"]
    assert "train-images-idx3-ubyte is there" in summary.skipped[0].reason


@pytest.mark.parametrize(("below", "train"), [("MNIST/raw/", 20), ("", 20), ("", 0)])
def test_t10k_images_of_any_folder_are_the_test_split_where_there_are_others(
    tmp_path: Path, below: str, train: int
) -> None:
    source = tmp_path / "in" / below
    source.mkdir(parents=True)
    images = np.stack(pixels(30))
    if train:
        idx(source / "train-images-idx3-ubyte", images[:train])
    idx(source / "t10k-images-idx3-ubyte", images[train:])
    preprocess_images(tmp_path / "in", tmp_path / "out", say=silent)
    dataset = Dataset(tmp_path / "out")
    assert len(dataset.train) > 10
    assert all(clip.path.startswith(f"{below}t10k/") for clip in dataset.test.clips)
    assert (len(dataset.test) == 10) == bool(train)


def test_colour_and_16_bit_images_are_converted_to_8_bit_grey(tmp_path: Path) -> None:
    (grey,) = pixels(1)
    write(tmp_path / "in" / "colour.png", np.repeat(grey[:, :, None], 3, axis=2))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    deep.save(tmp_path / "in" / "deep.png")
    preprocess_images(tmp_path / "in", tmp_path / "out", say=silent)
    dataset = Dataset(tmp_path / "out")
    found = [
        v for s in (dataset.train, dataset.validation, dataset.test) for v in images_of(s).values()
    ]
    assert len(found) == 2
    for image in found:
        np.testing.assert_array_equal(image, grey)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_images_are_read_on_white(tmp_path: Path, mode: str) -> None:
    shapes = [255 * (shape > 99).astype(np.uint8) for shape in pixels(3)]
    (tmp_path / "in").mkdir()
    for number, shape in enumerate(shapes):
        drawn = Image.new("RGBA", shape.shape[::-1], (0, 0, 0, 0))
        drawn.putalpha(Image.fromarray(shape))  # black throughout
        drawn.convert(mode).save(tmp_path / "in" / f"{number}.png")
    preprocess_images(tmp_path / "in", tmp_path / "out", say=silent)
    found = {
        path: image
        for split in Dataset(tmp_path / "out").splits
        for path, image in images_of(split).items()
    }
    for number, shape in enumerate(shapes):
        np.testing.assert_array_equal(found[f"{number}.png"], 255 - shape)


def test_unusable_files_are_listed_with_a_reason(folder: Path, tmp_path: Path) -> None:
    write(folder / "large.png", pixels(1, 20, 20)[0])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (folder / "empty.png").touch()
    (folder / "huge.png").write_bytes(png_without_pixels(30_000, 12_000))
    (folder / "notes.txt").write_text("Dear diary")
    (folder / "cut-images-idx3-ubyte").write_bytes(bytes((0, 0, 8, 3)) + b"\0\0\0\xff" * 3)
    summary = preprocess_images(folder, tmp_path / "out", say=silent)
    reasons = {skipped.path: skipped.reason for skipped in summary.skipped}
    assert (summary.found, summary.used) == (46, 40)
    assert "20 × 20 pixels, where most are 12 × 8" in reasons["large.png"]
    for name in ("broken.png", "empty.png", "cut-images-idx3-ubyte"):
        assert "cannot be read as an image" in reasons[name] or "is empty" in reasons[name]
    assert "too large; at most 1024 pixels a side" in reasons["huge.png"]
    assert reasons["notes.txt"] == "is not an image (.txt)"


def test_a_second_run_changes_nothing_and_other_images_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    preprocess_images(folder, tmp_path / "out", say=silent)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "out").iterdir()}
    preprocess_images(folder, tmp_path / "out", say=silent)
    assert before == {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "out").iterdir()
    }
    write(folder / "a" / "more.png", pixels(1)[0])
    with pytest.raises(AudiovqError, match="holds another dataset"):
        preprocess_images(folder, tmp_path / "out", say=silent)
    preprocess_images(folder, tmp_path / "out", overwrite=True, say=silent)
    assert Dataset(tmp_path / "out").header["files"]["used"] == 41


def test_a_dataset_that_holds_the_images_is_refused_and_one_below_them_is_not_read(
    folder: Path, tmp_path: Path
) -> None:
    preprocess_images(folder, folder / "dataset", say=silent)
    summary = preprocess_images(folder, folder / "dataset", say=silent)
    assert (summary.found, summary.skipped) == (40, [])
    out = tmp_path / "out"
    preprocess_images(folder, out, say=silent)
    write(out / "more" / "0.png", pixels(1)[0])
    for source in (out, out / "more"):
        with pytest.raises(AudiovqError, match="holds the files to read"):
            preprocess_images(source, out, overwrite=True, say=silent)
    assert (out / "more" / "0.png").exists()


def test_a_folder_without_images_or_with_tiny_ones_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(AudiovqError, match="holds no images"):
        preprocess_images(tmp_path / "in", tmp_path / "out", say=silent)
    write(tmp_path / "in" / "speck.png", pixels(1, 2, 2)[0])
    with pytest.raises(AudiovqError, match="2 × 2 pixels; supported are 8 to 1024 per side"):
        preprocess_images(tmp_path / "in", tmp_path / "out", say=silent)
    assert not (tmp_path / "out").exists()


def test_shifted_images_hold_the_same_pixels_elsewhere() -> None:
    image = torch.rand(2, 1, 6, 5)
    there = shift_images(image, torch.tensor([[1, -2], [0, 0]]))
    torch.testing.assert_close(there[0, 0, 1:, :3], image[0, 0, :-1, 2:])
    assert not there[0, 0, 0].any()
    assert not there[0, 0, :, 3:].any()
    torch.testing.assert_close(there[1], image[1])


def test_a_model_of_images_generates_pngs_and_refuses_to_make_sound(
    folder: Path, tmp_path: Path
) -> None:
    preprocess_images(folder, tmp_path / "dataset", PreprocessConfig(test=r"/[67]\."), say=silent)
    model = train(tmp_path / "dataset", tmp_path / "model", CONFIG, device="cpu", say=silent)
    paths = generate_files(model, tmp_path / "new", 3, {"folder": "b"}, say=silent)
    assert [path.name for path in paths] == ["0000_b.png", "0001_b.png", "0002_b.png"]
    assert {read(path).shape for path in paths} == {(12, 8)}
    again, labels = generate_images(load(tmp_path / "model"), 3, {"folder": "b"})
    assert labels == [{"folder": "b"}] * 3
    pictures = [read(path) for path in paths]
    np.testing.assert_array_equal(
        np.stack(pictures), (255 * again).round().byte().numpy()[:, 0, ::-1]
    )
    figures = evaluate(model, Dataset(tmp_path / "dataset"), n=1)
    assert {"reconstruction", "codebook", "prior"} <= figures.keys()
    assert "new images" in figures["generation"]["left_out"]
    assert "new sounds" not in verdict(facts_of(model), figures)
    with pytest.raises(AudiovqError, match="one of images"):
        generate(model, 1)
    for flags in ({"seconds": 1.0}, {"loop": True}, {"output": OutputConfig(format="flac")}):
        with pytest.raises(AudiovqError, match="this model generates images"):
            generate_files(model, tmp_path / "other", 1, **flags)
