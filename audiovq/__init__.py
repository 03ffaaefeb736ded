"""audiovq learns to make sound from a folder of recordings.

    import audiovq

    model = audiovq.load("demo/model")
    sounds = audiovq.generate(model, n=4, labels={"digit": "7"})
    codes = audiovq.encode(model, [sounds[0].waveform])
    waveforms = audiovq.decode(model, codes)

Names are loaded when they are first used: `import audiovq` alone loads no torch.

To read the code, start with `pipeline`; each package's docstring says what its modules hold. "May import X and
below" there refers to the order of the packages in docs/design.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiovq.audio.reading import read
    from audiovq.audio.writing import write
    from audiovq.codec.codec import decode, encode
    from audiovq.codec.windows import Encoded
    from audiovq.config.errors import AudiovqError
    from audiovq.config.sampling import Inversion, SamplingConfig
    from audiovq.config.settings import TrainConfig
    from audiovq.config.spectrogram import PreprocessConfig
    from audiovq.dataset.dataset import Dataset
    from audiovq.generation.generate import generate
    from audiovq.generation.sound import Sound
    from audiovq.models.checkpoint import load
    from audiovq.models.model import Model
    from audiovq.pipeline import evaluate
    from audiovq.preprocessing.preprocess import preprocess
    from audiovq.spectral.spectrogram import Spectrogram
    from audiovq.training.run import train

__version__ = "0.1.0"

_HOMES = {
    "AudiovqError": "config.errors",
    "Dataset": "dataset.dataset",
    "Encoded": "codec.windows",
    "Inversion": "config.sampling",
    "Model": "models.model",
    "PreprocessConfig": "config.spectrogram",
    "SamplingConfig": "config.sampling",
    "Sound": "generation.sound",
    "Spectrogram": "spectral.spectrogram",
    "TrainConfig": "config.settings",
    "decode": "codec.codec",
    "encode": "codec.codec",
    "evaluate": "pipeline",
    "generate": "generation.generate",
    "load": "models.checkpoint",
    "preprocess": "preprocessing.preprocess",
    "read": "audio.reading",
    "train": "training.run",
    "write": "audio.writing",
}

__all__ = [
    "AudiovqError",
    "Dataset",
    "Encoded",
    "Inversion",
    "Model",
    "PreprocessConfig",
    "SamplingConfig",
    "Sound",
    "Spectrogram",
    "TrainConfig",
    "decode",
    "encode",
    "evaluate",
    "generate",
    "load",
    "preprocess",
    "read",
    "train",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'audiovq' has no attribute {name!r}")
    return getattr(importlib.import_module(f"audiovq.{_HOMES[name]}"), name)
