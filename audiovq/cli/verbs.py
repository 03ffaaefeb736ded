"""What can be asked of audiovq: verbs and their flags; no logic.

`cli` makes a command line of them. Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from audiovq.config.errors import AudiovqError
from audiovq.config.settings import PreprocessConfig, SamplingConfig, TrainConfig
from audiovq.runtime.files import json_text, require_apart, require_new

Labels = UseAppendAction[tuple[str, ...]]
Device = Annotated[str, arg(help="auto, cpu, cuda or mps.")]
Overwrite = Annotated[bool, arg(help="Replace what the output folder holds.")]
Json = Annotated[bool, arg(name="json", help="Print the figures as JSON, and nothing else.")]
Recordings = Annotated[
    Path | None,
    arg(
        help="Folder of the dataset's recordings, to compare with; None: where they were when the"
        " dataset was made, seen from its folder."
    ),
]
Phase = Annotated[Literal["pghi", "griffin-lim"], arg(help="Where Griffin-Lim starts.")]
Iterations = Annotated[
    int | None, arg(help="Griffin-Lim's iterations; None: 16 after pghi, else 32.")
]
Sampling = Annotated[SamplingConfig, arg(name="")]
Preset = Literal[
    "tiny",
    "small",
    "base",
    "rate-1k",
    "rate-2k",
    "rate-4k",
    "lesson-ae",
    "lesson-dae",
    "lesson-vae",
    "lesson-cvae",
    "lesson-vqvae",
    "lesson-vqvae-residual",
    "lesson-pixelcnn",
]
Plot = Literal["reconstructions", "latent-scatter", "latent-grid", "interpolation", "codebook"]


def inspect(
    audio_dir: Positional[Path],
    out: Annotated[
        Path | None,
        arg(help="Folder for a few clips and what their true spectrograms give, as WAVs."),
    ] = None,
    config: Annotated[PreprocessConfig, arg(name="")] = PreprocessConfig(),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Tell what a folder of recordings holds, what would be left out, and which settings fit.

    Args:
        audio_dir: Folder of WAV, FLAC, OGG, MP3, AIFF and other files, in folders of any depth.
    """
    import dataclasses

    from audiovq.inspection.inspect import inspect
    from audiovq.inspection.table import inspection_table

    if out is not None:
        require_apart(out, audio_dir)
    found = inspect(audio_dir, out, config, overwrite=overwrite)
    print(json_text(dataclasses.asdict(found), 2) if as_json else inspection_table(found))


def preprocess(
    audio_dir: Positional[Path],
    dataset: Positional[Path],
    config: Annotated[PreprocessConfig, arg(name="")] = PreprocessConfig(),
    images: Annotated[
        bool,
        arg(
            help="Grayscale images in place of recordings: PNGs of one size, or MNIST's files; or"
            " `digits`, the handwritten ones that come with scikit-learn."
        ),
    ] = False,
    cluster: Annotated[
        str | None,
        arg(help="Address of a Dask scheduler, such as tcp://head:8786; None: this machine."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a dataset of spectrograms from a folder of recordings.

    Args:
        audio_dir: Folder of WAV, FLAC, OGG, MP3, AIFF and other files, in folders of any depth.
        dataset: Folder to be made.
    """
    if config.labels and config.labels.endswith(".csv"):
        require_apart(dataset, Path(config.labels), emptied=True)
    if images:
        from audiovq.preprocessing.images import preprocess_images

        summary = preprocess_images(audio_dir, dataset, config, overwrite=overwrite)
    else:
        from audiovq.preprocessing.preprocess import preprocess
        from audiovq.runtime import executors as dask

        with dask.cluster(cluster) if cluster else contextlib.nullcontext() as executor:
            summary = preprocess(
                audio_dir, dataset, config, overwrite=overwrite, executor=executor, processes=True
            )
    print(f"found {summary.found} files, used {summary.used}, skipped {len(summary.skipped)}")
    for skipped in summary.skipped[:10]:
        print(f"  skipped {skipped.path}: {skipped.reason}")
    if len(summary.skipped) > 10:
        print(f"  and {len(summary.skipped) - 10} more, in {dataset}/skipped.jsonl")
    clips = ", ".join(f"{n} {split}" for split, n in summary.clips.items())
    sound = (
        "" if images else f"; {summary.seconds:.{0 if summary.seconds >= 10 else 1}f} s of sound"
    )
    print(f"{'images' if images else 'clips'}: {clips}{sound}")
    print(f"wrote {dataset}")


def train_from(preset_config: TrainConfig) -> Callable[..., None]:
    """The verb `train`, whose flags start from a preset's settings."""

    def train(
        dataset: Positional[Path],
        model: Positional[Path],
        preset: Preset = "small",
        config: Annotated[TrainConfig, arg(name="")] = preset_config,
        recordings: Recordings = None,
        device: Device = "auto",
        overwrite: Overwrite = False,
    ) -> None:
        """Train a model on a dataset: the autoencoder, then the prior. Run again, it goes on.

        Args:
            dataset: Folder made by preprocess.
            model: Folder to be made.
            preset: Where all settings start: tiny (5 minutes at most), small (20 at most),
                base (a GPU); rate-1k, rate-2k, rate-4k (60 at most): archives of so many bit/s;
                lesson-…: the tutorials' networks (2 to 5 at most), see docs/learn.md.
        """
        from audiovq.dataset.dataset import Dataset
        from audiovq.pipeline import train, write_report
        from audiovq.runtime import distributed

        require_apart(model, dataset, emptied=True)
        opened = Dataset(dataset, recordings)
        trained = train(opened, model, config, device=device, overwrite=overwrite)
        if not distributed.is_main():
            return
        if not trained.spectrogram.config.images:
            page = write_report(trained, opened, model, say=print)
            print(f"{page}: open it in a browser to look and listen")
        print(f"wrote {model}")

    return train


def generate(
    model: Positional[Path],
    out: Positional[Path],
    n: Annotated[int, arg(aliases=("-n",), help="How many recordings.")] = 16,
    label: Annotated[
        Labels, arg(metavar="NAME=VALUE", help="Such as digit=7; repeat for several labels.")
    ] = (),
    sampling: Sampling = SamplingConfig(),
    phase: Phase = "pghi",
    n_iter: Iterations = None,
    length: Annotated[
        float | None, arg(help="Seconds, as many as you like; None: as the model finds.")
    ] = None,
    loop: Annotated[bool, arg(help="Make sounds whose end leads to their beginning.")] = False,
    like: Annotated[Path | None, arg(help="A recording, to make variations of.")] = None,
    strength: Annotated[float, arg(help="How far they go from it, 0 to 1.")] = 0.5,
    go_on: Annotated[
        Path | None, arg(name="continue", help="A recording, to go on with; --length is of all.")
    ] = None,
    repaint: Annotated[
        Path | None, arg(help="A recording, of which --time, --band or both are drawn anew.")
    ] = None,
    time: Annotated[str | None, arg(metavar="FROM:TO", help="Seconds, such as 0.2:0.5.")] = None,
    band: Annotated[str | None, arg(metavar="FROM:TO", help="Hertz, such as 1000:3000.")] = None,
    best_of: Annotated[
        int, arg(help="Draw so many for each and keep the one that the prior finds likeliest.")
    ] = 1,
    keep_copies: Annotated[
        bool,
        arg(help="Keep sounds that are near copies of training clips; else they are drawn again."),
    ] = False,
    seed: int = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Make new recordings, out of nothing or out of one that there is.

    Args:
        model: Folder made by train, or `digits`, which comes with audiovq.
        out: Folder for the WAVs and their manifest.json.
    """
    sources = {"like": like, "continue": go_on, "repaint": repaint}
    ways = [name for name, path in sources.items() if path is not None]
    if len(ways) > 1:
        raise AudiovqError(f"--{ways[0]}, --{ways[1]}: give one of the two")
    way = ways[0] if ways else ""
    _require_fitting(
        way,
        length=length,
        loop=loop,
        time=time,
        band=band,
        best_of=best_of,
        keep_copies=keep_copies,
    )
    spans: dict[str, Any] = {"time": _span("time", time), "band": _span("band", band)}

    from audiovq.generation import edit, files
    from audiovq.models.checkpoint import load
    from audiovq.runtime.device import pick_device

    require_apart(out, model, *filter(None, sources.values()))
    common: dict[str, Any] = {
        "n": n,
        "labels": _labels(label),
        "sampling": sampling,
        "seed": seed,
        "phase": phase,
        "n_iter": n_iter,
        "overwrite": overwrite,
        "say": _tell,
    }
    loaded = load(model, pick_device(device))
    if like is not None:
        paths = files.play_files(loaded, [like], out, edit.variations, strength=strength, **common)
    elif go_on is not None:
        paths = files.play_files(loaded, [go_on], out, edit.extend, seconds=length, **common)
    elif repaint is not None:
        paths = files.play_files(loaded, [repaint], out, edit.repaint, **spans, **common)
    else:
        paths = files.generate_files(
            loaded,
            out,
            seconds=length,
            loop=loop,
            best_of=best_of,
            keep_copies=keep_copies,
            **common,
        )
    print(f"wrote {len(paths)} {'images' if paths[0].suffix == '.png' else 'recordings'} to {out}")


def morph(
    model: Positional[Path],
    first: Positional[Path],
    second: Positional[Path],
    out: Positional[Path],
    steps: Annotated[int, arg(help="How many recordings, both ends among them.")] = 8,
    phase: Phase = "pghi",
    n_iter: Iterations = None,
    seed: int = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Make the recordings that lie between two.

    Args:
        model: Folder made by train, or `digits`, which comes with audiovq.
        first: A recording.
        second: Another.
        out: Folder for the WAVs and their manifest.json.
    """
    from audiovq.generation import edit
    from audiovq.generation.files import play_files
    from audiovq.models.checkpoint import load
    from audiovq.runtime.device import pick_device

    require_apart(out, model, first, second)
    paths = play_files(
        load(model, pick_device(device)),
        [first, second],
        out,
        edit.morph,
        steps=steps,
        seed=seed,
        phase=phase,
        n_iter=n_iter,
        overwrite=overwrite,
        say=_tell,
    )
    print(f"wrote {len(paths)} recordings to {out}")


def _require_fitting(way: str, **flags: Any) -> None:
    """Raise AudiovqError where a flag is given that has no say with --like, --continue or --repaint,
    or without them."""
    takes = {
        "": ("length", "loop", "best_of", "keep_copies"),
        "like": (),
        "continue": ("length",),
        "repaint": ("time", "band"),
    }[way]
    unasked = {"loop": False, "best_of": 1, "keep_copies": False}
    for name, value in flags.items():
        if name not in takes and value != unasked.get(name):
            there = f"with --{way}" if way else "without --repaint FILE"
            raise AudiovqError(f"--{name.replace('_', '-')}: has no say {there}; leave it out")


def _span(name: str, text: str | None) -> tuple[float, float] | None:
    """`0.2:0.5` → (0.2, 0.5)."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(":"))
    except ValueError as error:
        raise AudiovqError(f"--{name} {text}: give FROM:TO, such as 0.2:0.5") from error
    return low, high


def encode(
    model: Positional[Path],
    source: Positional[Path],
    out: Positional[Path],
    coder: Annotated[
        Literal["context", "prior", "plain"] | None,
        arg(
            help="context: decodes on every machine; prior: smallest, decodes on machines that"
            " compute alike; plain: packed bits. None: context where the model has it."
        ),
    ] = None,
    rate: Annotated[
        float | None, arg(help="Bits per second that it may take; None: the model's own choice.")
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Store recordings as codes, in one small archive.

    Args:
        model: Folder made by train.
        source: A recording, or a folder of them.
        out: The archive to be written, such as sounds.avq.
    """
    from audiovq.models.checkpoint import load
    from audiovq.pipeline import encode_files
    from audiovq.runtime.device import pick_device

    require_apart(out, model)
    figures = encode_files(
        load(model, pick_device(device)),
        source,
        out,
        coder=coder,
        rate=rate,
        overwrite=overwrite,
        say=_tell,
    )
    _print_rates(figures, out, as_json)


def decode(
    model: Positional[Path],
    source: Positional[Path],
    out: Positional[Path],
    phase: Phase = "pghi",
    n_iter: Iterations = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Bring an archive's recordings back.

    Args:
        model: Folder that the archive was made with.
        source: Archive made by encode.
        out: Folder for the WAVs, or a .wav where the archive holds one recording.
    """
    from audiovq.models.checkpoint import load
    from audiovq.pipeline import decode_files
    from audiovq.runtime.device import pick_device

    require_apart(out, model)
    paths = decode_files(
        load(model, pick_device(device)),
        source,
        out,
        phase=phase,
        n_iter=n_iter,
        overwrite=overwrite,
        say=_tell,
    )
    print(f"wrote {len(paths)} recordings to {out}")


def reconstruct(
    model: Positional[Path],
    source: Positional[Path],
    out: Positional[Path],
    phase: Phase = "pghi",
    n_iter: Iterations = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Bring recordings through the codes and back.

    Args:
        model: Folder made by train.
        source: A recording, or a folder of them.
        out: The WAV, or the folder, to be written.
    """
    from audiovq.models.checkpoint import load
    from audiovq.pipeline import reconstruct_files
    from audiovq.runtime.device import pick_device

    require_apart(out, model)
    figures = reconstruct_files(
        load(model, pick_device(device)),
        source,
        out,
        phase=phase,
        n_iter=n_iter,
        overwrite=overwrite,
        say=_tell,
    )
    _print_rates(figures, out, as_json)


def _tell(line: str) -> None:
    """To standard error: standard output is the result's."""
    print(line, file=sys.stderr)


def _print_rates(figures: dict[str, float], out: Path, as_json: bool) -> None:
    if as_json:
        print(json_text(figures))
        return
    print(
        f"{figures['files']:.0f} files, {figures['seconds']:.1f} s,"
        f" {figures['stored_bits_per_second']:.0f} bit/s as stored"
        f" ({figures['nominal_bits_per_second']:.0f} nominal)"
    )
    print(f"wrote {out}")


def evaluate(
    model: Positional[Path],
    dataset: Positional[Path],
    n: Annotated[int, arg(aliases=("-n",), help="How many new sounds are judged.")] = 200,
    sampling: Sampling = SamplingConfig(),
    seed: int = 0,
    recordings: Recordings = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model on a dataset's test clips: reconstruction, codebook, prior, generation.

    Without a test split validation clips are measured, without those training clips; the table says so.

    Args:
        model: Folder made by train.
        dataset: Folder made by preprocess.
    """
    from audiovq.dataset.dataset import Dataset
    from audiovq.evaluation.evaluate import evaluate
    from audiovq.evaluation.wording import figure_table
    from audiovq.models.checkpoint import load
    from audiovq.runtime.device import pick_device
    from audiovq.runtime.files import write_json

    def say(line: str) -> None:
        if not as_json:
            print(line)
        elif line.startswith("note:"):
            _tell(line)

    figures = evaluate(
        load(model, pick_device(device)),
        Dataset(dataset, recordings),
        n=n,
        sampling=sampling,
        seed=seed,
        say=say,
    )
    print(json_text(figures, 2) if as_json else figure_table(figures), flush=True)
    if model.is_dir():  # a model that ships is not written into
        write_json(model / "evaluation.json", figures)  # where `report` finds them


def report(
    model: Positional[Path],
    dataset: Positional[Path | None] = None,
    out: Annotated[Path | None, arg(help="The page; None: MODEL/report.html.")] = None,
    recordings: Recordings = None,
    device: Device = "auto",
    overwrite: Annotated[bool, arg(help="Replace the file that --out names.")] = False,
) -> None:
    """Write one HTML page to look at and listen to a model.

    Args:
        model: Folder made by train.
        dataset: Folder made by preprocess; None: the one that the model was trained on.
    """
    from audiovq.dataset.dataset import Dataset
    from audiovq.models.checkpoint import load, located
    from audiovq.pipeline import write_report
    from audiovq.runtime.device import pick_device
    from audiovq.training.folder import trained_on

    if not model.is_dir():  # a model that ships is not written into
        model, out = located(model), out or Path("report.html")
    if out is not None and out.resolve() != (model / "report.html").resolve():
        require_apart(out, model, *filter(None, [dataset]))
        require_new(out, overwrite)
        if out.is_dir():
            raise AudiovqError(f"{out}: is a folder; name the page, such as report.html")
    loaded = load(model, pick_device(device))
    opened = Dataset(dataset, recordings) if dataset else trained_on(model, recordings)
    path = write_report(loaded, opened, model, out, say=_tell)
    print(f"wrote {path}")


def summary(model: Positional[Path], as_json: Json = False) -> None:
    """Tell what a model is: layers, shapes, parameters, receptive field, bit rate.

    Args:
        model: Folder made by train.
    """
    import dataclasses

    from audiovq.models.checkpoint import load
    from audiovq.models.summary import summarize, summary_table

    found = summarize(load(model))
    print(json_text(dataclasses.asdict(found), 2) if as_json else summary_table(found))


def plot(
    model: Positional[Path],
    out: Positional[Path],
    kind: Annotated[Plot, arg(help="What is drawn; a grid is of a model with dense 2.")] = (
        "reconstructions"
    ),
    dataset: Annotated[
        Path | None,
        arg(help="Folder made by preprocess; None: the one that the model was trained on."),
    ] = None,
    n: Annotated[
        int, arg(aliases=("-n",), help="Clips, steps between two, or points on a side of the grid.")
    ] = 8,
    seed: Annotated[int, arg(help="Which clips are drawn.")] = 0,
    device: Device = "auto",
    overwrite: Annotated[bool, arg(help="Replace files that are there.")] = False,
) -> None:
    """Draw what comes back, the latents, or the codebook; what lies between clips as WAVs too.

    Args:
        model: Folder made by train.
        out: The PNG to be written; WAVs go beside it, as OUT-00.wav.
    """
    from audiovq.dataset.dataset import Dataset
    from audiovq.models.checkpoint import load, located
    from audiovq.report.plots import plot
    from audiovq.runtime.device import pick_device
    from audiovq.training.folder import trained_on

    require_apart(out, model, *filter(None, [dataset]))
    paths = plot(
        load(model, pick_device(device)),
        Dataset(dataset) if dataset else trained_on(located(model)),
        out,
        kind,
        n=n,
        seed=seed,
        overwrite=overwrite,
        say=_tell,
    )
    print(f"wrote {out}" + f" and {len(paths) - 1} recordings beside it" * (len(paths) > 1))


def export(
    model: Positional[Path],
    out: Positional[Path],
    form: Annotated[
        Literal["onnx", "pt2"],
        arg(name="format", help="onnx: for any runtime; pt2: torch.export's, for torch alone."),
    ] = "onnx",
    overwrite: Overwrite = False,
) -> None:
    """Write encoder, decoder and prior as programs that run without audiovq.

    Args:
        model: Folder made by train.
        out: Folder for the programs, and programs.json, which says what goes in and comes out.
    """
    from audiovq.models.checkpoint import load
    from audiovq.models.export import write_programs

    require_apart(out, model)
    paths = write_programs(load(model), out, form, overwrite=overwrite)
    print(f"wrote {', '.join(path.name for path in paths)} and programs.json to {out}")


def app(
    model: Positional[Path],
    port: Annotated[int, arg(help="Of 127.0.0.1, where the page is shown.")] = 7860,
    device: Device = "auto",
) -> None:
    """Play with a model in the browser: make sounds, change them by hand, hear what comes of it.

    Args:
        model: Folder made by train, or `digits`, which comes with audiovq.
    """
    if not 1 <= port <= 65_535:
        raise AudiovqError(f"port {port}: give 1 to 65535")

    from audiovq.app.page import serve
    from audiovq.models.checkpoint import load
    from audiovq.runtime.device import pick_device

    serve(load(model, pick_device(device)), model.name, port)


def demo(
    out: Positional[Path] = Path("demo"),
    max_minutes: Annotated[float, arg(help="Limit of the training.")] = 3.0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """The whole story on the spoken digits that ship: dataset, model, new sounds, figures, page.

    Args:
        out: Folder for all of it.
    """
    from audiovq.pipeline import demo

    demo(out, max_minutes=max_minutes, device=device, overwrite=overwrite)


def _labels(pairs: tuple[str, ...]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise AudiovqError(f"--label {pair}: give NAME=VALUE, such as digit=7")
        if name in labels:
            raise AudiovqError(f"--label {pair}: {name} is given already; give each label once")
        labels[name] = value
    return labels
