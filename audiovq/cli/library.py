"""Verbs of sound libraries: pack, find."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from audiovq.cli.arguments import (
    Device,
    Json,
    Options,
    Overwrite,
    SoundOptions,
    Threads,
    drawn_seed,
    load_model,
    say,
)
from audiovq.config.errors import AudiovqError
from audiovq.runtime.files import json_text, require_apart, require_new
from audiovq.runtime.progress import in_one_line

if TYPE_CHECKING:
    from audiovq.audio.waveform import Waveform
    from audiovq.library.index import Index
    from audiovq.models.model import Model


def pack(
    model: Positional[Path],
    out: Positional[Path],
    each: Annotated[int, arg(help="Number of sounds of each value of the label.")] = 8,
    by: Annotated[
        str | None, arg(help="The label; by default the only one that --label leaves open.")
    ] = None,
    length: Annotated[
        float | None, arg(help="Length in seconds; by default the model decides.")
    ] = None,
    loop: Annotated[bool, arg(help="Make seamless loops.")] = False,
    options: Options = SoundOptions(),
) -> None:
    """Make a pack: sounds of each label value without copies, an SFZ, a Hydrogen drum kit, a page.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        out: Folder for the pack, whose name is that of the instrument.
    """
    labels = options.labels

    from audiovq.library.pack import PackConfig, write_pack

    require_apart(out, model)
    paths = write_pack(
        options.load(model),
        out,
        PackConfig(each, by, length, loop),
        labels,
        sampling=options.sampling,
        inversion=options.inversion,
        seed=drawn_seed(options.seed),
        output=options.output,
        overwrite=options.overwrite,
        say=say,
    )
    print(f"wrote a pack of {len(paths)} recording{'s' * (len(paths) != 1)} to {out}")


def find(
    model: Positional[Path],
    folder: Positional[Path],
    query: Positional[Path | None] = None,
    n: Annotated[int, arg(aliases=("-n",), help="Number of sounds to list.")] = 10,
    page: Annotated[
        Path | None, arg(help="Write a map of the folder, such as map.html, which plays sounds.")
    ] = None,
    index: Annotated[
        Path | None,
        arg(help="File of the folder's index; by default a hidden one in the folder."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Find the sounds of a folder that sound most like a recording; without one, near-duplicates.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        folder: Folder of recordings, in folders of any depth.
        query: The recording to compare with.
    """
    from audiovq.audio import finding
    from audiovq.library.features import features
    from audiovq.library.find import near_duplicates, nearest
    from audiovq.library.index import NAME, listen, open_index

    if n < 1:
        raise AudiovqError(f"n {n}: give 1 or more")
    if page is not None:
        recordings = [folder / name for name in finding.find(folder)[0]]
        require_apart(page, model, folder / NAME, *filter(None, [query, index]), *recordings)
        require_new(page, overwrite)
    loaded = load_model(model, device, threads)
    vector = None if query is None else features(loaded.spectrogram, _beginning(loaded, query))
    known = open_index(loaded, folder, index, say)
    if vector is not None:
        found = nearest(known, vector, n)
        rows = [{"file": one.file, "similarity": one.similarity} for one in found]
        lines = [f"{one.similarity:6.3f}  {one.file}" for one in found]
        result = {"query": str(query), "recordings": len(known), "found": rows}
    else:
        groups = near_duplicates(known, lambda name: listen(loaded, folder / name))
        lines = [line for group in groups for line in (*group, "")]
        lines.append(
            f"{len(known)} recording{'s' * (len(known) != 1)}, "
            f"{len(groups)} group{'s' * (len(groups) != 1)} of near-duplicates"
        )
        result = {"recordings": len(known), "groups": groups}
    if page is not None:
        _write_map(page, folder, known)
        lines.append(f"wrote {page}")
    print(json_text(result, 2) if as_json else "\n".join(map(in_one_line, lines)))


def _beginning(model: Model, path: Path) -> Waveform:
    """The beginning of a recording. Raises AudiovqError with its path and the reason."""
    from audiovq.library.index import listen

    try:
        return listen(model, path)
    except AudiovqError as error:
        raise AudiovqError(f"{path}: {error}") from error


def _write_map(page: Path, folder: Path, index: Index) -> None:
    """Write a page with the recordings of a folder as points."""
    from audiovq.library.find import kind_of, positions
    from audiovq.report.map import Point, write_map

    base = os.path.relpath(folder.resolve(), page.resolve().parent).replace(os.sep, "/")
    points = [
        Point(name, f"{base}/{name}", (float(x), float(y)), kind_of(name))
        for name, (x, y) in zip(index.names, positions(index), strict=True)
    ]
    write_map(page, folder.resolve().name, points)
