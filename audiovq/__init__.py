"""audiovq learns to make sound from a folder of recordings.

    import audiovq

    model = audiovq.load("demo/model")
    sounds = audiovq.generate(model, n=4, labels={"digit": "7"})
    codes = audiovq.encode(model, [sounds[0].waveform])
    waveforms = audiovq.decode(model, codes)

Names are loaded when they are first used: `import audiovq` alone loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiovq.audio import read, write
    from audiovq.checkpoint import Model, load
    from audiovq.codec import Encoded, decode, encode
    from audiovq.config import AudiovqError, PreprocessConfig, SamplingConfig, TrainConfig
    from audiovq.dataset import Dataset
    from audiovq.generation import Sound, generate
    from audiovq.pipeline import evaluate
    from audiovq.preprocess import preprocess
    from audiovq.spectrogram import Spectrogram
    from audiovq.training import train

__version__ = "0.1.0"

_HOMES = {
    "AudiovqError": "config",
    "Dataset": "dataset",
    "Encoded": "codec",
    "Model": "checkpoint",
    "PreprocessConfig": "config",
    "SamplingConfig": "config",
    "Sound": "generation",
    "Spectrogram": "spectrogram",
    "TrainConfig": "config",
    "decode": "codec",
    "encode": "codec",
    "evaluate": "pipeline",
    "generate": "generation",
    "load": "checkpoint",
    "preprocess": "preprocess",
    "read": "audio",
    "train": "training",
    "write": "audio",
}

__all__ = [
    "AudiovqError",
    "Dataset",
    "Encoded",
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
