"""Command lines: those that made a dataset and a model, and those to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from audiovq.config.flags import as_argument, flags
from audiovq.config.presets import PRESETS
from audiovq.config.serialize import from_json
from audiovq.config.settings import TrainConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.generation.labels import learns_labels, learnt_values
from audiovq.models.model import Model
from audiovq.runtime.files import read_object
from audiovq.training.origin import FREE

Step = tuple[str, str]
"""A command line, and what it does."""


def made_by(dataset: Dataset, folder: Path) -> list[str]:
    """Command lines that make the same dataset and model, in the folder that holds both."""
    source, name = (as_argument(one.resolve().name) for one in (dataset.folder, folder))
    train = [f"audiovq train {source} {name}"]
    settings = folder / "training" / "settings.json"
    if settings.exists():
        found = read_object(settings, "settings")
        config = from_json(TrainConfig, found.get("config"), "settings")
        origin = found.get("origin")

        def given(preset: str) -> list[str]:
            """Flags beside the preset; what --from sets is left out."""
            theirs = PRESETS[preset]
            return flags(_without_networks(config, theirs) if origin else config, theirs)

        preset = min(PRESETS, key=lambda preset: len(given(preset)))
        train += [f"--from {as_argument(origin['name'])}"] if origin else []
        train += [f"--preset {preset}", *given(preset)]
    wanted = [*flags(dataset.preprocess, PreprocessConfig()), *_option_flags(dataset.options)]
    return [" ".join(["audiovq preprocess AUDIO_DIR", source, *wanted]), " ".join(train)]


def _option_flags(options: Mapping[str, Any]) -> list[str]:
    """The flags of `Dataset.options`, quoted for a shell."""
    words = []
    for name, value in options.items():
        listed = [f"{a}={b}" for a, b in value.items()] if isinstance(value, dict) else value
        text = ",".join(map(str, listed)) if isinstance(listed, list) else str(listed)
        flag = name.replace("_", "-")
        words.append(f"--no-{flag}" if value is False else f"--{flag} {shlex.quote(text)}")
    return words


def _without_networks(config: TrainConfig, preset: TrainConfig) -> TrainConfig:
    """`config` with the networks of `preset`, but for the settings that may differ from those of an origin."""

    def free(part: str, ours: Any, theirs: Any) -> Any:
        return replace(theirs, **{name: getattr(ours, name) for name in FREE[part]})

    ours, theirs = config.autoencoder, preset.autoencoder
    bottleneck = free("autoencoder.bottleneck", ours.bottleneck, theirs.bottleneck)
    return replace(
        config,
        autoencoder=replace(ours, network=theirs.network, bottleneck=bottleneck),
        prior=free("prior", config.prior, preset.prior),
        masked=free("masked", config.masked, preset.masked),
    )


def next_steps(model: Model, folder: str, dataset: str = "") -> list[Step]:
    """What to type next with the model in `folder`; with its `dataset`, `evaluate` too."""
    name = as_argument(folder)
    bottleneck, images = model.autoencoder.config.bottleneck, model.spectrogram.config.images
    generates = model.generates
    steps = []
    if bottleneck.quantizes and not images:
        steps.append((f"audiovq app {name}", "hear it and change sounds, in a browser"))
    if generates:
        kind = "images" if images else "WAVs"
        steps.append((f"audiovq generate {name} new-sounds -n 16", f"sixteen new {kind}"))
    if generates and not images:
        steps.append((_pack(model, name), "a kit for samplers, no copies"))
    if not generates and bottleneck.quantizes and not images:
        steps.append(
            (f"audiovq reconstruct {name} my-sounds out", "your sounds, coded and decoded")
        )
    if not generates and not bottleneck.quantizes:
        steps.append((f"audiovq plot {name} plot.png", "recordings, and as it decodes them"))
    if dataset and not images:
        evaluate = f"audiovq evaluate {name} {as_argument(dataset)}"
        steps.append((evaluate, "how good it is, in figures"))
    return steps


def _pack(model: Model, name: str) -> str:
    """`pack`, by the first label where there are several."""
    names = model.labels if learns_labels(model) else ()
    labels = [label for label in names if learnt_values(model, label)]
    by = f" --by {shlex.quote(labels[0])}" if len(labels) > 1 else ""
    return f"audiovq pack {name} my-kit{by}"


def in_columns(steps: Iterable[Step]) -> list[str]:
    """Steps as lines: the commands, and what they do below each other."""
    steps = list(steps)
    wide = max((len(command) for command, _ in steps), default=0)
    return [f"{command:<{wide}}  # {words}" for command, words in steps]
