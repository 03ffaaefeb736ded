"""Verbs that train a model: train, demo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from audiovq.cli.arguments import Device, Overwrite, Preset, Recordings, Verbose
from audiovq.config.settings import TrainConfig

From = Annotated[
    Path | None,
    arg(
        name="from",
        metavar="SEED",
        help="Start from the weights of this model, a folder, `digits`, `notes` or `sounds`; its networks are then the defaults.",
    ),
]
More = Annotated[
    float | None,
    arg(help="Minutes for which a finished model is trained further; --max-minutes is ignored."),
]


def train_from(preset_config: TrainConfig) -> Callable[..., None]:
    """The verb `train`, whose flags start from a preset's settings."""

    def train(
        dataset: Positional[Path],
        model: Positional[Path],
        preset: Preset = "small",
        config: Annotated[TrainConfig, arg(name="")] = preset_config,
        origin: From = None,
        more: More = None,
        recordings: Recordings = None,
        device: Device = "auto",
        verbose: Verbose = False,
        overwrite: Overwrite = False,
    ) -> None:
        """Train a model on a dataset: the autoencoder, then the prior.

        Run the same command again to resume; with --more, a finished model is trained further.

        Args:
            dataset: Folder made by preprocess.
            model: Folder to write.
            preset: Default settings: tiny (up to 5 minutes), small (up to 20), base (for a GPU);
                rate-1k, rate-2k, rate-4k (up to 60): codecs at 1, 2 and 4 kbit/s; lesson-…: the
                networks of the tutorials (up to 6), see docs/learn.md.
        """
        from audiovq.dataset.dataset import Dataset
        from audiovq.pipeline import train, write_report
        from audiovq.report.commands import in_columns, next_steps
        from audiovq.runtime import distributed

        opened = Dataset(dataset, recordings)
        trained = train(
            opened,
            model,
            config,
            origin=origin,
            more=more,
            device=device,
            overwrite=overwrite,
            plain=not verbose,
        )
        if not distributed.is_main():
            return
        if not trained.spectrogram.config.images:
            page = write_report(trained, opened, model, say=print)
            print(f"{page}: open it in a browser to see and hear the model")
        print(
            "\n".join(
                [
                    f"wrote {model}; next:",
                    *in_columns(next_steps(trained, str(model), str(dataset))),
                ]
            )
        )

    return train


def demo(
    out: Positional[Path] = Path("demo"),
    sounds: Annotated[
        bool,
        arg(
            help="Hits and notes at 44.1 kHz, synthesized here, and the model `sounds` to start from."
        ),
    ] = False,
    max_minutes: Annotated[float, arg(help="Time limit of the training.")] = 3.0,
    device: Device = "auto",
    verbose: Verbose = False,
    overwrite: Overwrite = False,
) -> None:
    """Run the whole pipeline on the bundled spoken digits: dataset, model, new sounds, metrics, report.

    Args:
        out: Folder for all results.
    """
    from audiovq.pipeline import demo

    demo(
        out,
        sounds=sounds,
        max_minutes=max_minutes,
        device=device,
        overwrite=overwrite,
        plain=not verbose,
    )
