"""Sounds and pictures inside a page: WAV and PNG files as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt


def wav(waveform: npt.NDArray[np.float32], sample_rate: int) -> str:
    """(samples,) → a 16-bit WAV; what goes beyond full scale is brought down to it as a whole."""
    import soundfile

    samples = np.nan_to_num(waveform)
    samples = samples / max(1.0, float(np.abs(samples).max(initial=0)))
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, subtype="PCM_16", format="WAV")
    return _uri("audio/wav", file)


def png(spectrogram: npt.NDArray[np.float32]) -> str:
    """(bins, frames) in [0, 1] → a PNG of 256 colours, a cell a pixel, the lowest frequency at the bottom."""
    from matplotlib import colormaps
    from PIL import Image

    cells = np.nan_to_num(spectrogram) if spectrogram.size else np.zeros((1, 1))
    image = Image.fromarray((256 * cells[::-1]).clip(0, 255).astype(np.uint8))
    colours = (255 * colormaps["magma"](np.arange(256))[:, :3]).round().astype(np.uint8)
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _uri("image/png", file)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
