"""Verbs of the codec: encode, decode, reconstruct."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from audiovq.cli.arguments import Device, Json, Overwrite, PhaseInversion, Threads, load_model, say
from audiovq.config.sampling import Inversion
from audiovq.runtime.files import json_text, require_apart


def encode(
    model: Positional[Path],
    source: Positional[Path],
    out: Positional[Path],
    coder: Annotated[
        Literal["context", "prior", "plain"] | None,
        arg(
            help="context: decodes on every machine; prior: smallest, only decodes on machines with"
            " identical floating-point results; plain: packed bits. By default context, or plain if the"
            " model has no context tables."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        arg(
            help="Bit rate to use, in bits per second: the best codes within it, which may be more bits than without"
            " it; by default the model decides."
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Encode recordings into one small archive.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        source: A recording, or a folder of them.
        out: The archive to write, such as sounds.avq.
    """
    from audiovq.pipeline import encode_files

    require_apart(out, model)
    figures = encode_files(
        load_model(model, device, threads),
        source,
        out,
        coder=coder,
        rate=rate,
        overwrite=overwrite,
        say=say,
    )
    _print_rates(figures, out, as_json)


def decode(
    model: Positional[Path],
    source: Positional[Path],
    out: Positional[Path],
    inversion: PhaseInversion = Inversion(),
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Decode an archive to WAVs.

    Args:
        model: The model that made the archive.
        source: Archive made by encode.
        out: Folder for the WAVs, or a .wav if the archive holds one recording.
    """
    from audiovq.pipeline import decode_files

    require_apart(out, model)
    paths = decode_files(
        load_model(model, device, threads),
        source,
        out,
        inversion=inversion,
        overwrite=overwrite,
        say=say,
    )
    print(f"wrote {len(paths)} recording{'s' * (len(paths) != 1)} to {out}")


def reconstruct(
    model: Positional[Path],
    source: Positional[Path],
    out: Positional[Path],
    inversion: PhaseInversion = Inversion(),
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Encode and decode recordings, to hear what the codec keeps.

    Args:
        model: Folder made by train, or `digits`, `notes` or `sounds`, which come with audiovq.
        source: A recording, or a folder of them.
        out: The WAV or the folder to write.
    """
    from audiovq.pipeline import reconstruct_files

    require_apart(out, model)
    figures = reconstruct_files(
        load_model(model, device, threads),
        source,
        out,
        inversion=inversion,
        overwrite=overwrite,
        say=say,
    )
    _print_rates(figures, out, as_json)


def _print_rates(figures: dict[str, float], out: Path, as_json: bool) -> None:
    if as_json:
        print(json_text(figures))
        return
    print(
        f"{figures['files']:.0f} file{'s' * (figures['files'] != 1)}, {figures['seconds']:.1f} s,"
        f" {figures['stored_bits_per_second']:.0f} bit/s as stored"
        f" ({figures['nominal_bits_per_second']:.0f} nominal)"
    )
    print(f"wrote {out}")
