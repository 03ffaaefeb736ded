"""Folders that were tampered with by someone who knows the checksums: all are made right again."""

import json
from pathlib import Path
from typing import Any

from audiovq.runtime.checksums import header_bytes
from audiovq.runtime.files import sha256


def _right(listed: Any, folder: Path) -> None:
    """The checksum beside every file that is named anywhere in `listed`."""
    for value in listed.values() if isinstance(listed, dict) else listed:
        if isinstance(value, dict | list):
            _right(value, folder)
    if isinstance(listed, dict) and isinstance(listed.get("file"), str):
        path = folder / listed["file"]
        if "\0" not in listed["file"] and path.is_file():
            listed["sha256"] = sha256(path)


def reseal(folder: Path) -> None:
    """Every checksum in a dataset's or model's header, and its own, as the files are now.

    A model's parts are of its autoencoder again.
    """
    (path,) = (p for p in (folder / "dataset.json", folder / "model.json") if p.exists())
    header = json.loads(path.read_text(encoding="utf-8"))
    _right(header, folder)
    if isinstance(manifests := header.get("manifests"), dict):
        manifests |= {n: sha256(folder / n) for n in manifests if (folder / n).is_file()}
    header.pop("sha256", None)
    path.write_bytes(header_bytes(header))
