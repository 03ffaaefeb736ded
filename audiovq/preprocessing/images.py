"""Grayscale images ↔ a dataset's grids: the small pictures that lessons begin with.

A column of pixels stands where a sound has a frame, the lowest row where it has its lowest bin; white
is 1. So every network here learns images as it learns spectrograms.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiovq.audio.finding import find, require_file
from audiovq.audio.waveform import AudioError
from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import to_json
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.dataset.manifest import (
    SPLITS,
    VERSION,
    Clip,
    Skipped,
    read_dataset_header,
    without_paths,
    write_manifests,
    write_shard_header,
)
from audiovq.preprocessing.labels import labels_of
from audiovq.preprocessing.preprocess import Summary, prepare
from audiovq.preprocessing.splits import notes_of, splits_of
from audiovq.runtime.files import atomic, lock_folder, sha256

Pixels = npt.NDArray[np.uint8]
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}
IDX = "-idx3-ubyte", "-idx3-ubyte.gz"
"""How the files of MNIST (LeCun et al. 1998) are named; labels are in -idx1-ubyte."""
EXAMPLE = "digits"
"""Instead of a folder: 1,797 handwritten digits that come with scikit-learn, enlarged to 28 × 28."""
SMALLEST, LARGEST = 8, 1024
"""Pixels of a side."""


@dataclass(frozen=True)
class Image:
    """An image and what its collection tells of it."""

    path: str
    """Of its file; where a file holds many, with its number."""
    pixels: Pixels
    """(rows, columns), the top row first, 255 is white."""
    label: str | None = None


def preprocess_images(
    source: Path,
    target: Path,
    config: PreprocessConfig | None = None,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Summary:
    """Make the dataset `target` from the images below `source`, all of them read into memory.

    `source` holds PNGs (JPEGs and BMPs too; colours become grey), labelled as recordings are, or
    files as those of MNIST, plain or gzipped, whose `t10k` images are the test split; or it is the
    word `digits`, see EXAMPLE. Images of another size than most are skipped. Raises AudiovqError
    where there is nothing to use or `target` holds something else.
    """
    config, source, target = config or PreprocessConfig(), Path(source), Path(target)
    images, skipped = _read(source)
    found = len(images) + len(skipped)
    sizes = Counter(image.pixels.shape for image in images)
    if not sizes:
        reason = f"; {skipped[0].path} {skipped[0].reason}" if skipped else ""
        raise AudiovqError(f"{source}: holds no images ({', '.join(sorted(SUFFIXES))}){reason}")
    rows, columns = size = max(sizes, key=lambda size: (sizes[size], size))
    if min(size) < SMALLEST or max(size) > LARGEST:
        raise AudiovqError(
            f"{source}: its images are {rows} × {columns} pixels; give {SMALLEST} to {LARGEST} a side"
        )
    for image in images:
        if (shape := image.pixels.shape) != size:
            reason = f"is {shape[0]} × {shape[1]} pixels, where most are {rows} × {columns}"
            skipped.append(Skipped(image.path, reason))
    images = [image for image in images if image.pixels.shape == size]
    labels, notes = _labelled(source, images, config)
    sums = {image.path: hashlib.sha256(image.pixels.tobytes()).hexdigest() for image in images}
    splits, split_notes = _split(sums, labels, config)
    notes += split_notes
    grids: dict[str, list[Pixels]] = {split: [] for split in SPLITS}
    clips: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for image in images:
        path, (split,) = image.path, splits[image.path]
        grids[split].append(image.pixels)
        clips[split].append(
            Clip(path, 0, columns - 1, 1, 0, labels[path], sums[path], (True, True))
        )
    settings = SpectrogramConfig.for_images(rows)
    manifest = [
        (clip.path, clip.sha256, clip.labels, split) for split in SPLITS for clip in clips[split]
    ]
    made_with = [VERSION, to_json(without_paths(config)), to_json(settings)]
    text = json.dumps([*made_with, manifest], sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    summary = Summary(found, len(images), skipped, {s: len(clips[s]) for s in SPLITS}, 0.0, notes)
    with lock_folder(target):
        if (target / "dataset.json").exists() and not overwrite:
            if read_dataset_header(target).get("fingerprint") != fingerprint:
                raise AudiovqError(
                    f"{target}: holds another dataset; name another folder, or add --overwrite"
                )
            say(f"{target}: complete already, made from these images with these settings")
            return summary
        prepare(target, fingerprint, overwrite)
        shards = {split: _write_shard(target, split, grids[split], size) for split in SPLITS}
        folder = source if source.exists() else None
        totals = write_manifests(
            target, clips, shards, skipped, found, settings, columns, config, fingerprint, folder
        )
        shutil.rmtree(target / "work")
    notes += totals.notes
    for note in notes:
        say(f"note: {note}")
    return summary


def _write_shard(
    target: Path, split: str, images: list[Pixels], size: tuple[int, int]
) -> list[dict[str, object]]:
    """All of a split's images as one shard, as a dataset lists it; none where there are none."""
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
    """Each image's labels, and what the user should know of them."""
    if config.labels is None and any(image.label is not None for image in images):
        return {i.path: {} if i.label is None else {"digit": i.label} for i in images}, []
    return labels_of(source, [image.path for image in images], config.labels)


def _split(
    sums: dict[str, str], labels: dict[str, dict[str, str]], config: PreprocessConfig
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Each image's split, and what the user should know of them: where the collection has test images of
    its own, none but these are, and their copies."""
    if config.test is None and any(path.startswith("t10k") for path in sums):
        config = replace(config, test="^t10k")
    splits = splits_of(list(sums), config, sounds=sums, labels=labels)
    return splits, notes_of(splits, sums, config, lambda n: f"{n} images")


def _read(source: Path) -> tuple[list[Image], list[Skipped]]:
    """All images of a source, in the order of their names, and what is none, with the reason."""
    if str(source) == EXAMPLE and not source.exists():
        return list(_example()), []
    recordings, others = find(source)
    images: list[Image] = []
    skipped: list[Skipped] = []
    for name in sorted(recordings + others, key=lambda name: name.split("/")):
        path = source / name
        try:
            require_file(path)
            if name.endswith(IDX):
                images += _idx(path, name)
            elif path.suffix.lower() in SUFFIXES:
                images.append(Image(name, _pixels(path)))
            elif "-idx1-ubyte" not in name:
                skipped.append(Skipped(name, "is not an image by its name"))
        except (AudioError, OSError, EOFError, ValueError, SyntaxError, zlib.error) as error:
            skipped.append(Skipped(name, f"cannot be read as an image ({error!s:.120})"))
    return images, skipped


def _pixels(path: Path) -> Pixels:
    """An image file in grey. Raises what Pillow raises, and ValueError where it is too large."""
    import PIL.Image

    with PIL.Image.open(path) as image:
        if max(image.size) > LARGEST:
            raise ValueError(
                f"{image.height} × {image.width} pixels are more than {LARGEST} a side"
            )
        if image.mode.startswith("I"):  # 16 bits, of which grey keeps the upper ones
            return (np.asarray(image) >> 8).astype(np.uint8)
        return np.asarray(image.convert("L"))


def _idx(path: Path, name: str) -> Iterator[Image]:
    """The images of a file of MNIST, with the labels of the file beside it."""
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
    """Bytes of an IDX file (LeCun: http://yann.lecun.com/exdb/mnist), in its shape."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        head = file.read(4 + 4 * dimensions)
        if head[:4] != bytes((0, 0, 8, dimensions)) or len(head) < 4 + 4 * dimensions:
            raise ValueError(f"{path.name} is no IDX file of bytes in {dimensions} dimensions")
        shape = np.frombuffer(head, ">u4", offset=4).tolist()
        size = math.prod(shape)
        data = file.read(min(size, 1 << 32) + 1)
    if len(data) != size:
        raise ValueError(f"{path.name} does not hold the {size} bytes that it says")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _example() -> Iterator[Image]:
    """EXAMPLE: 8 × 8 pixels of 17 greys, enlarged to 24 × 24 by cubic splines, 2 of black around."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        large = zoom(image / 16, 3, order=3).clip(0, 1)
        pixels = np.pad((255 * large).round().astype(np.uint8), 2)
        yield Image(f"{EXAMPLE}/{number:04d}", pixels, str(label))
