"""Where a model is, and its model.json. Imports no torch, so that `preprocess --like` does not load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import from_json
from audiovq.config.spectrogram import WIDE_ABOVE, PreprocessConfig, SpectrogramConfig
from audiovq.runtime.checksums import AGAIN, read_header

FORMAT = "audiovq-model"
VERSION, STEREO_VERSION, NUMBERS_VERSION = VERSIONS = 5, 6, 7
"""Of a model of mono sounds, of stereo ones, and of either with labels that are numbers; all are read."""
SHIPPED = Path(__file__).parents[1] / "pretrained"
"""Folder of the models in the package, which are loaded by name: `digits`, `notes`, `sounds`."""
SEEDS = {"sounds": "hits, notes and textures", "notes": "notes of instruments"}
"""Those that few recordings are best learnt from, and what each has learnt. The first is for all sounds but tones."""
FEW_CLIPS = 200
"""Clips below which recordings are few: a prior cannot learn further codes from them."""


def shipped_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/model.json"))


def located(folder: Path | str) -> Path:
    """Folder of a model: `folder`, or the folder in SHIPPED of that name where `folder` does not exist."""
    shipped = SHIPPED / Path(folder).name
    return (
        shipped
        if Path(folder) == Path(shipped.name) and not Path(folder).exists()
        else Path(folder)
    )


def require_model(folder: Path | str) -> Path:
    """`located`. Raises AudiovqError where a name is none of `shipped_names`."""
    folder = located(folder)
    if folder.parent == SHIPPED and not folder.is_dir():
        raise AudiovqError(
            f"{folder.name}: no such model; give a folder made by train, or a bundled model:"
            f" {', '.join(shipped_names())}"
        )
    return folder


def seed_for(settings: SpectrogramConfig) -> str:
    """The one of SEEDS with the same windows and bands, which are chosen by what recordings are; else the first."""
    for name in SEEDS:
        theirs = spectrogram_of(name)
        if all(
            getattr(settings, x) == getattr(theirs, x) for x in ("n_fft", "hop_length", "n_mels")
        ):
            return name
    return next(iter(SEEDS))


def like_seed(
    config: PreprocessConfig, clips: int, settings: SpectrogramConfig
) -> tuple[str, PreprocessConfig] | None:
    """The one of SEEDS that this number of clips with these settings should start from, and `config` with its
    spectrograms.

    None where they are many, their rate is that of speech, or `config` asks for other spectrograms.
    """
    if clips >= FEW_CLIPS or settings.sample_rate <= WIDE_ABOVE:
        return None
    name = seed_for(settings)
    try:
        return name, config.like(spectrogram_of(name), name)
    except AudiovqError:
        return None


def read_model_header(folder: Path) -> dict[str, Any]:
    """model.json without its checksum. Raises AudiovqError where it is missing, damaged or of another version."""
    return read_header(folder / "model.json", "model", VERSIONS, AGAIN)


def spectrogram_of(folder: Path | str) -> SpectrogramConfig:
    """Settings of the spectrograms of a model in a folder, or by name. Raises AudiovqError as `read_model_header`."""
    folder = require_model(folder)
    found = read_model_header(folder).get("spectrogram")
    return from_json(SpectrogramConfig, found, f"{folder}/model.json")
