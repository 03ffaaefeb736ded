"""A folder of grayscale images → a dataset, for the lessons, which begin with small pictures.

A column of pixels becomes a frame, a row becomes a bin, the lowest row the lowest bin; white is 1. So every
network learns images as it learns spectrograms.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiovq.audio.finding import require_file
from audiovq.audio.waveform import AudioError
from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import to_json
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.dataset.manifest import (
    SPLITS,
    VERSION,
    Clip,
    Recipe,
    Skipped,
    read_dataset_header,
    without_paths,
    write_manifests,
    write_shard_header,
)
from audiovq.preprocessing.catalog import names_outside
from audiovq.preprocessing.folder import prepare
from audiovq.preprocessing.labels import labels_of
from audiovq.preprocessing.preprocess import Summary
from audiovq.preprocessing.splits import notes_of, splits_of
from audiovq.runtime.files import atomic, lock_folder, sha256

Pixels = npt.NDArray[np.uint8]
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}
IDX = "-idx3-ubyte", "-idx3-ubyte.gz"
"""Suffixes of image files in the format of MNIST (LeCun et al. 1998); labels are in -idx1-ubyte."""
IDX_TEST = r"(^|/)t10k"
"""Test images of MNIST, in any folder."""
EXAMPLE = "digits"
"""A source that is not a folder: the 1,797 handwritten digits of scikit-learn, enlarged to 28 × 28."""
SMALLEST, LARGEST = 8, 1024
"""Range of an image's height and width in pixels."""


@dataclass(frozen=True)
class Image:
    """An image with its path and label."""

    path: str
    """Path of its file, below the source folder; of a file that holds many, followed by its number."""
    pixels: Pixels
    """(rows, columns), top row first, 255 is white."""
    label: str | None = None
    """Digit, from a file of labels."""


def preprocess_images(
    source: Path,
    target: Path,
    config: PreprocessConfig | None = None,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Summary:
    """Make the dataset `target` from the images below `source`. All are read into memory.

    `source` holds PNGs (or JPEGs, BMPs; colours are converted to grey), with labels as recordings have
    them, or files in the format of MNIST, plain or gzipped, whose `t10k` images are the test split; or it
    is the word `digits`, see EXAMPLE. Images are skipped if their size is not the most frequent one.
    Raises AudiovqError if no image can be used, or `target` holds something else or the images.
    """
    config, source, target = config or PreprocessConfig(), Path(source), Path(target)
    images, skipped = _read(source, target)
    found = len(images) + len(skipped)
    images, (rows, columns) = _of_one_size(source, images, skipped)
    labels, notes = _labelled(source, images, config)
    checksums = {i.path: hashlib.sha256(i.pixels.tobytes()).hexdigest() for i in images}
    splits, split_notes = _split(checksums, labels, config)
    notes += split_notes
    grids: dict[str, list[Pixels]] = {split: [] for split in SPLITS}
    clips: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for image in images:
        path, (split,) = image.path, splits[image.path]
        grids[split].append(image.pixels)
        clips[split].append(
            Clip(path, 0, columns - 1, 1, 0, labels[path], checksums[path], (True, True))
        )
    spectrogram = SpectrogramConfig.for_images(rows)
    fingerprint = _fingerprint(config, spectrogram, clips)
    folder = source if source.exists() else None
    recipe = Recipe(folder, spectrogram, columns, config, fingerprint)
    summary = Summary(found, len(images), skipped, {s: len(clips[s]) for s in SPLITS}, 0.0, notes)
    with lock_folder(target):
        if (target / "dataset.json").exists() and not overwrite:
            if read_dataset_header(target).get("fingerprint") != fingerprint:
                raise AudiovqError(
                    f"{target}: holds another dataset; choose another folder, or add --overwrite"
                )
            say(f"{target}: already complete; made from the same images with the same settings")
            return summary
        prepare(target, fingerprint, overwrite)
        shards = {s: _write_shard(target, s, grids[s], (rows, columns)) for s in SPLITS}
        totals = write_manifests(target, clips, shards, skipped, found, recipe)
        shutil.rmtree(target / "work")
    notes += totals.notes
    for note in notes:
        say(f"note: {note}")
    return summary


def _of_one_size(
    source: Path, images: list[Image], skipped: list[Skipped]
) -> tuple[list[Image], tuple[int, int]]:
    """The images of the most frequent size, and that size; adds the others to `skipped`.

    Raises AudiovqError if there are none, or their size is out of range.
    """
    sizes = Counter(image.pixels.shape for image in images)
    if not sizes:
        reason = f"; {skipped[0].path} {skipped[0].reason}" if skipped else ""
        raise AudiovqError(f"{source}: holds no images ({', '.join(sorted(SUFFIXES))}){reason}")
    rows, columns = size = max(sizes, key=lambda size: (sizes[size], size))
    if min(size) < SMALLEST or max(size) > LARGEST:
        raise AudiovqError(
            f"{source}: images of {rows} × {columns} pixels; supported are {SMALLEST} to {LARGEST} per side"
        )
    for image in images:
        if (shape := image.pixels.shape) != size:
            reason = f"is {shape[0]} × {shape[1]} pixels, where most are {rows} × {columns}"
            skipped.append(Skipped(image.path, reason))
    return [image for image in images if image.pixels.shape == size], (rows, columns)


def _fingerprint(
    config: PreprocessConfig, spectrogram: SpectrogramConfig, clips: dict[str, list[Clip]]
) -> str:
    """SHA-256 of the settings and of each image's path, pixels, labels and split."""
    manifest = [
        (clip.path, clip.sha256, clip.labels, split) for split in SPLITS for clip in clips[split]
    ]
    made_with = [VERSION, to_json(without_paths(config)), to_json(spectrogram)]
    text = json.dumps([*made_with, manifest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_shard(
    target: Path, split: str, images: list[Pixels], size: tuple[int, int]
) -> list[dict[str, object]]:
    """Write all images of a split as one shard; its entry in dataset.json, or none without images."""
    if not images:
        return []
    path = target / f"{split}-00000.npy"
    with atomic(path) as temporary, open(temporary, "wb") as file:
        write_shard_header(file, (len(images), *size))
        for pixels in images:
            file.write((pixels[::-1] / 255).astype("<f2").tobytes())
    return [{"file": path.name, "clips": len(images), "sha256": sha256(path)}]


def _labelled(
    source: Path, images: list[Image], config: PreprocessConfig
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Labels of each image, and notes for the user."""
    if config.labels is None and any(image.label is not None for image in images):
        return {i.path: {} if i.label is None else {"digit": i.label} for i in images}, []
    return labels_of(source, [image.path for image in images], config.labels)


def _split(
    checksums: dict[str, str], labels: dict[str, dict[str, str]], config: PreprocessConfig
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Split of each image, and notes for the user. MNIST's test images, and their copies, are the test split, where
    there are others."""
    tested = {checksum for path, checksum in checksums.items() if re.search(IDX_TEST, path)}
    if config.test is None and tested and tested != set(checksums.values()):
        config = replace(config, test=IDX_TEST)
    splits = splits_of(list(checksums), config, sounds=checksums, labels=labels)
    return splits, notes_of(splits, checksums, config, lambda n: f"{n} images")


def _read(source: Path, target: Path) -> tuple[list[Image], list[Skipped]]:
    """Read all images of a source, in the order of their names; the other files, with the reason."""
    if str(source) == EXAMPLE and not source.exists():
        return list(_example()), []
    names = names_outside(source, target)
    images: list[Image] = []
    skipped: list[Skipped] = []
    for name in sorted(names, key=lambda name: name.split("/")):
        path = source / name
        try:
            require_file(path)
            if name.endswith(IDX[1]) and (plain := name.removesuffix(".gz")) in names:
                skipped.append(Skipped(name, f"is left out, as {plain} is there"))
            elif name.endswith(IDX):
                images += _idx(path, name)
            elif path.suffix.lower() in SUFFIXES:
                images.append(Image(name, _pixels(path)))
            elif "-idx1-ubyte" not in name:
                skipped.append(Skipped(name, f"is not an image ({path.suffix or 'no suffix'})"))
        except (AudioError, OSError, EOFError, ValueError, SyntaxError, zlib.error) as error:
            skipped.append(Skipped(name, f"cannot be read as an image ({error!s:.120})"))
    return images, skipped


def _pixels(path: Path) -> Pixels:
    """Read an image file in grey, transparent ones on white. Raises Pillow's errors, and ValueError if it is too large."""
    import PIL.Image

    try:
        opened = PIL.Image.open(path)
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"too large; at most {LARGEST} pixels a side are supported") from error
    with opened as image:
        if max(image.size) > LARGEST:
            raise ValueError(
                f"{image.height} × {image.width} pixels; at most {LARGEST} a side are supported"
            )
        if image.mode.startswith("I"):  # 16 bits: keep the upper eight
            return (np.asarray(image) >> 8).astype(np.uint8)
        if (
            image.has_transparency_data
        ):  # the colour below, which is dropped, is often black throughout
            white = PIL.Image.new("RGBA", image.size, "white")
            return np.asarray(PIL.Image.alpha_composite(white, image.convert("RGBA")).convert("L"))
        return np.asarray(image.convert("L"))


def _idx(path: Path, name: str) -> Iterator[Image]:
    """Images of a file in the format of MNIST, with the labels of its companion file, if it exists."""
    pixels = _idx_array(path, 3)
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    labels = _idx_array(beside, 1) if beside.exists() else None
    if labels is not None and len(labels) != len(pixels):
        raise ValueError(f"{beside.name} holds {len(labels)} labels for {len(pixels)} images")
    stem = name.partition("-images")[0]
    for number, image in enumerate(pixels):
        label = None if labels is None else str(labels[number])
        yield Image(f"{stem}/{number:05d}", image, label)


def _idx_array(path: Path, dimensions: int) -> Pixels:
    """Array in an IDX file of bytes (LeCun: http://yann.lecun.com/exdb/mnist). Raises ValueError if it is damaged."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        head = file.read(4 + 4 * dimensions)
        if head[:4] != bytes((0, 0, 8, dimensions)) or len(head) < 4 + 4 * dimensions:
            raise ValueError(f"{path.name} is not an IDX file of bytes in {dimensions} dimensions")
        shape = np.frombuffer(head, ">u4", offset=4).tolist()
        size = math.prod(shape)
        data = file.read(min(size, 1 << 32) + 1)
    if len(data) != size:
        raise ValueError(f"{path.name} does not hold {size} bytes, as its header states")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _example() -> Iterator[Image]:
    """The images of EXAMPLE: 8 × 8 pixels enlarged to 24 × 24 by cubic splines, in a black margin of 2."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        large = zoom(image / 16, 3, order=3).clip(0, 1)
        pixels = np.pad((255 * large).round().astype(np.uint8), 2)
        yield Image(f"{EXAMPLE}/{number:04d}", pixels, str(label))
