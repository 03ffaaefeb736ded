"""Verbs that make sounds: generate, vary, continue, repaint, morph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from audiovq.cli.arguments import (
    Count,
    Device,
    Options,
    Output,
    Overwrite,
    PhaseInversion,
    SeedOrRandom,
    SoundOptions,
    Threads,
    drawn_seed,
    load_model,
    loading,
    parse_bars,
    parse_span,
    say,
)
from audiovq.config.errors import AudiovqError
from audiovq.config.output import Bars, OutputConfig
from audiovq.config.sampling import Inversion
from audiovq.runtime.files import require_apart


def generate(
    model: Positional[Path],
    out: Positional[Path],
    n: Annotated[int | None, arg(aliases=("-n",), help="Number of sounds; 16 by default.")] = None,
    length: Annotated[
        float | None, arg(help="Length in seconds; by default the model decides.")
    ] = None,
    loop: Annotated[bool, arg(help="Make seamless loops.")] = False,
    bpm: Annotated[
        float | None, arg(help="Tempo of --bars; by default that of a label bpm or tempo.")
    ] = None,
    bars: Annotated[
        float | None,
        arg(
            help="Make loops of this many bars, exact to the sample, with their tempo in the file."
        ),
    ] = None,
    beats_per_bar: Annotated[int, arg(help="Beats of a bar.")] = Bars.beats_per_bar,
    each: Annotated[
        int | None,
        arg(help="Generate this number of sounds of each value of a label, in place of -n."),
    ] = None,
    by: Annotated[
        str | None,
        arg(help="The label of --each; by default the only one that --label leaves open."),
    ] = None,
    more: Annotated[
        bool, arg(help="Add other sounds to those in OUT, numbered after them.")
    ] = False,
    best_of: Annotated[
        int, arg(help="Generate N candidates per sound and keep the most likely.")
    ] = 1,
    keep_copies: Annotated[
        bool,
        arg(help="Keep near copies of training clips; by default they are sampled again."),
    ] = False,
    options: Options = SoundOptions(),
) -> None:
    """Generate new sounds.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        out: Folder for the WAVs and their manifest.json; images are PNGs without one.
    """
    labels = options.labels
    if each is not None and n is not None:
        raise AudiovqError(
            f"-n {n}: --each {each} sets the number of sounds; leave one of them out"
        )
    length_in_bars = parse_bars(bpm, bars, beats_per_bar, labels)
    require_apart(out, model)
    with loading(model) as step:
        import torch  # noqa: F401  (the largest part, so that the bar moves)

        step(1)
        from audiovq.generation.files import generate_files

        step(1)
        loaded = options.load(model)
        step(1)
    paths = generate_files(
        loaded,
        out,
        16 if n is None else n,
        labels,
        sampling=options.sampling,
        inversion=options.inversion,
        seed=drawn_seed(options.seed, more),
        best_of=best_of,
        seconds=length,
        loop=loop,
        bars=length_in_bars,
        each=each,
        by=by,
        keep_copies=keep_copies,
        output=options.output,
        more=more,
        overwrite=options.overwrite,
        say=say,
    )
    _print_written(paths, out)


def vary(
    model: Positional[Path],
    recording: Positional[Path],
    out: Positional[Path],
    n: Count = 8,
    strength: Annotated[
        float, arg(help="Share of the codes that is resampled: 0 keeps all, 1 none.")
    ] = 0.5,
    options: Options = SoundOptions(),
) -> None:
    """Make variations of a recording.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        recording: The recording to vary.
        out: Folder for the WAVs and their manifest.json.
    """
    labels = options.labels

    from audiovq.generation.files import vary_files

    require_apart(out, model, recording)
    paths = vary_files(
        options.load(model),
        recording,
        out,
        n,
        strength,
        labels,
        sampling=options.sampling,
        inversion=options.inversion,
        seed=drawn_seed(options.seed),
        output=options.output,
        overwrite=options.overwrite,
        say=say,
    )
    _print_written(paths, out)


def continue_(
    model: Positional[Path],
    recording: Positional[Path],
    out: Positional[Path],
    n: Count = 8,
    length: Annotated[
        float | None,
        arg(help="Total length in seconds, recording included; by default the model decides."),
    ] = None,
    options: Options = SoundOptions(),
) -> None:
    """Continue a recording; its last column of codes is made again, its samples before are kept.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        recording: The recording to continue.
        out: Folder for the WAVs and their manifest.json.
    """
    labels = options.labels

    from audiovq.generation.files import extend_files

    require_apart(out, model, recording)
    paths = extend_files(
        options.load(model),
        recording,
        out,
        length,
        n,
        labels,
        sampling=options.sampling,
        inversion=options.inversion,
        seed=drawn_seed(options.seed),
        output=options.output,
        overwrite=options.overwrite,
        say=say,
    )
    _print_written(paths, out)


def repaint(
    model: Positional[Path],
    recording: Positional[Path],
    out: Positional[Path],
    time: Annotated[
        str | None,
        arg(
            metavar="FROM:TO",
            help="Time range in seconds, such as 0.2:0.5; rounded outward to columns of codes.",
        ),
    ] = None,
    band: Annotated[
        str | None, arg(metavar="FROM:TO", help="Frequency range in Hz, such as 1000:3000.")
    ] = None,
    n: Count = 8,
    options: Options = SoundOptions(),
) -> None:
    """Regenerate part of a recording, given by --time, --band or both; keep the rest.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        recording: The recording to change.
        out: Folder for the WAVs and their manifest.json.
    """
    labels = options.labels
    spans = parse_span("time", time), parse_span("band", band)
    if spans == (None, None):
        raise AudiovqError("repaint: give --time 0.2:0.5, --band 1000:3000, or both")

    from audiovq.generation.files import repaint_files

    require_apart(out, model, recording)
    paths = repaint_files(
        options.load(model),
        recording,
        out,
        *spans,
        n,
        labels,
        sampling=options.sampling,
        inversion=options.inversion,
        seed=drawn_seed(options.seed),
        output=options.output,
        overwrite=options.overwrite,
        say=say,
    )
    _print_written(paths, out)


def morph(
    model: Positional[Path],
    first: Positional[Path],
    second: Positional[Path],
    out: Positional[Path],
    steps: Annotated[int, arg(help="Number of sounds, both ends included.")] = 8,
    inversion: PhaseInversion = Inversion(),
    seed: SeedOrRandom = 0,
    output: Output = OutputConfig(),
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Morph one recording into another in a number of steps.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        first: The recording to start from.
        second: The recording to end with.
        out: Folder for the WAVs and their manifest.json.
    """
    from audiovq.generation.files import morph_files

    require_apart(out, model, first, second)
    paths = morph_files(
        load_model(model, device, threads),
        first,
        second,
        out,
        steps,
        inversion=inversion,
        seed=drawn_seed(seed),
        output=output,
        overwrite=overwrite,
        say=say,
    )
    _print_written(paths, out)


def _print_written(paths: list[Path], out: Path) -> None:
    kind = "image" if paths[0].suffix == ".png" else "recording"
    print(f"wrote {len(paths)} {kind}{'s' * (len(paths) != 1)} to {out}")
