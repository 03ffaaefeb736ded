"""Verbs that look into a model: evaluate, report, summary, plot, app, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from audiovq.cli.arguments import (
    Device,
    Json,
    Overwrite,
    Plot,
    Recordings,
    Sampling,
    Seed,
    Threads,
    load_model,
    say,
)
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import SamplingConfig
from audiovq.runtime.files import json_text, require_apart, require_new


def evaluate(
    model: Positional[Path],
    dataset: Positional[Path],
    n: Annotated[int, arg(aliases=("-n",), help="Number of sounds to generate and score.")] = 200,
    sampling: Sampling = SamplingConfig(),
    seed: Seed = 0,
    recordings: Recordings = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure a model on a dataset's test clips: reconstruction, codebook, prior, generation.

    Without a test split, validation clips are used, or else training clips; the table says so.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        dataset: Folder made by preprocess.
    """
    from audiovq.dataset.dataset import Dataset
    from audiovq.evaluation.evaluate import evaluate
    from audiovq.evaluation.verdict import copies_of, facts_of, verdict
    from audiovq.evaluation.wording import figure_table
    from audiovq.runtime.files import write_json

    def say_progress(line: str) -> None:
        if not as_json:
            print(line, flush=True)
        elif line.startswith("note:"):
            say(line)

    loaded = load_model(model, device, threads)
    figures = evaluate(
        loaded,
        Dataset(dataset, recordings),
        n=n,
        sampling=sampling,
        seed=seed,
        say=say_progress,
    )
    print(json_text(figures, 2) if as_json else figure_table(figures), flush=True)
    if not as_json:
        print(f"in short: {verdict(facts_of(loaded), figures, copies_of(figures))}", flush=True)
    if model.is_dir():  # a model that ships is not written into
        # `report` reads it, unless the model has been trained further since.
        write_json(model / "evaluation.json", figures | {"networks": loaded.checksums})


def report(
    model: Positional[Path],
    dataset: Positional[Path | None] = None,
    out: Annotated[Path | None, arg(help="The page; by default MODEL/report.html.")] = None,
    recordings: Recordings = None,
    device: Device = "auto",
    overwrite: Annotated[bool, arg(help="Replace the file that --out names.")] = False,
) -> None:
    """Write an HTML page with a model's sounds, spectrograms and metrics.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        dataset: Folder made by preprocess; by default the model's training dataset.
    """
    from audiovq.dataset.dataset import Dataset
    from audiovq.models.folder import located
    from audiovq.pipeline import write_report
    from audiovq.training.folder import trained_on

    if not model.is_dir():  # a model that ships is not written into
        model, out = located(model), out or Path("report.html")
    if out is not None and out.resolve() != (model / "report.html").resolve():
        require_apart(out, model, *filter(None, [dataset]))
        require_new(out, overwrite)
        if out.is_dir():
            raise AudiovqError(f"{out}: is a folder; give a file name such as report.html")
    loaded = load_model(model, device)
    opened = Dataset(dataset, recordings) if dataset else trained_on(model, recordings)
    path = write_report(loaded, opened, model, out, say=say)
    print(f"wrote {path}")


def summary(model: Positional[Path], as_json: Json = False) -> None:
    """Print a model's layers, shapes, parameters, receptive field and bit rate.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
    """
    import dataclasses

    from audiovq.models.summary import summarize, summary_table

    found = summarize(load_model(model, "cpu"))
    print(json_text(dataclasses.asdict(found), 2) if as_json else summary_table(found))


def plot(
    model: Positional[Path],
    out: Positional[Path],
    kind: Annotated[Plot, arg(help="latent-grid takes a model with a latent vector of size 2.")] = (
        "reconstructions"
    ),
    dataset: Annotated[
        Path | None,
        arg(help="Folder made by preprocess; by default the model's training dataset."),
    ] = None,
    n: Annotated[
        int | None,
        arg(
            aliases=("-n",),
            help="Number of clips, of steps between two clips, or of points per side of the grid; by default 8.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        arg(help="Seed for choosing clips, of reconstructions and interpolation; by default 0."),
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool, arg(help="Replace an earlier plot and the WAVs that it wrote; no other WAVs.")
    ] = False,
) -> None:
    """Plot reconstructions, latents, or the codebook; interpolations are written as WAVs too.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        out: The PNG to write; WAVs go next to it: for plot.png, plot-00.wav and so on.
    """
    from audiovq.dataset.dataset import Dataset
    from audiovq.models.folder import located
    from audiovq.report.plots import plot
    from audiovq.training.folder import trained_on

    require_apart(out, model, *filter(None, [dataset]))
    kinds: dict[str, tuple[str, ...]] = {
        "-n": ("reconstructions", "latent-grid", "interpolation"),
        "--seed": ("reconstructions", "interpolation"),
    }
    for flag, value in (("-n", n), ("--seed", seed)):
        if value is not None and kind not in kinds[flag]:
            raise AudiovqError(
                f"{flag}: is for {', '.join(kinds[flag])}; leave it out with --kind {kind}"
            )
    paths = plot(
        load_model(model, device),
        Dataset(dataset) if dataset else trained_on(located(model)),
        out,
        kind,
        n=n,
        seed=seed or 0,
        overwrite=overwrite,
        say=say,
    )
    print(f"wrote {out}" + f" and {len(paths) - 1} recordings beside it" * (len(paths) > 1))


def app(
    model: Positional[Path],
    port: Annotated[int, arg(help="Port to serve on (localhost only).")] = 7860,
    device: Device = "auto",
) -> None:
    """Open a model in the browser: make sounds, edit them by hand, listen.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
    """
    if not 1 <= port <= 65_535:
        raise AudiovqError(f"port {port}: give 1 to 65535")

    from audiovq.app.server import serve

    serve(load_model(model, device), model.resolve().name, port)


def export(
    model: Positional[Path],
    out: Positional[Path],
    form: Annotated[
        Literal["onnx", "pt2"],
        arg(name="format", help="onnx: for any runtime; pt2: torch.export, for torch only."),
    ] = "onnx",
    overwrite: Overwrite = False,
) -> None:
    """Export encoder, decoder and prior as programs that run without audiovq.

    Of priors, only an autoregressive transformer: of `sounds`, which has a masked prior alone, none is written.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        out: Folder for the programs and programs.json, which describes their inputs and outputs.
    """
    from audiovq.models.export import write_programs

    require_apart(out, model)
    paths = write_programs(load_model(model, "cpu"), out, form, overwrite=overwrite)
    print(f"wrote {', '.join(path.name for path in paths)} and programs.json to {out}")
    if "prior" not in (path.stem for path in paths):
        print("no program of a prior: the model has no autoregressive transformer")
