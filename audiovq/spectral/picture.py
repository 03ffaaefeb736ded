"""Spectrograms as PNG files and as data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from audiovq.runtime.files import atomic


def write_images(folder: Path, grids: Tensor, names: list[str]) -> list[Path]:
    """Write grids (n, 1, bins, frames) in [0, 1] as NAME.png in `folder`; returns the paths."""
    import PIL.Image

    paths = [folder / f"{name}.png" for name in names]
    pixels = (255 * grids.clamp(0, 1)).round().byte().cpu().numpy()[:, 0, ::-1]
    for path, image in zip(paths, pixels, strict=True):
        with atomic(path) as temporary:
            PIL.Image.fromarray(np.ascontiguousarray(image)).save(temporary, format="png")
    return paths


def png(spectrogram: npt.NDArray[np.float32]) -> str:
    """`png_bytes` as a data URI."""
    return data_uri("image/png", io.BytesIO(png_bytes(spectrogram)))


def png_bytes(spectrogram: npt.NDArray[np.float32]) -> bytes:
    """Spectrogram (bins, frames) in [0, 1] as a PNG, one pixel per cell, low frequencies at the bottom."""
    from matplotlib import colormaps
    from PIL import Image

    cells = np.nan_to_num(spectrogram) if spectrogram.size else np.zeros((1, 1))
    image = Image.fromarray((256 * cells[::-1]).clip(0, 255).astype(np.uint8))
    colours = (255 * colormaps["magma"](np.arange(256))[:, :3]).round().astype(np.uint8)
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def data_uri(kind: str, file: io.BytesIO) -> str:
    """Data URI of a file's bytes; `kind` is their MIME type."""
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
