"""The five sets of real sounds that `sounds.py` measures: where they are, and how their files are labelled."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from audiovq.config.errors import AudiovqError

SHARED = Path(__file__).resolve().parents[3] / "shared"
"""Folder beside the repository that holds `sounds` and `fsdd`."""
DRUMKITS = Path("/usr/share/hydrogen/data/drumkits")
"""Where Debian's package hydrogen-drumkits puts its recordings."""


@dataclass(frozen=True)
class SoundSet:
    """A set of recordings with labels."""

    name: str
    data: str
    """What the recordings are."""
    labels: str
    """As in `preprocess --labels`."""
    test: str | None = None
    """As in `preprocess --test`."""
    pitched: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Values of a label whose sounds have a clear pitch: that of their label `note`, a MIDI note."""
    speech: bool = False


SETS = {
    one.name: one
    for one in (
        SoundSet("drums", "754 drum hits of Debian's hydrogen-drumkits", "folder"),
        SoundSet(
            "body",
            "202 claps, stomps and snaps (Versilian, sfzinstruments; CC0)",
            r"(?P<kind>[a-z]+)_(?:(?P<side>[lr])_)?(?:(?P<velocity>vl\d)_)?rr\d+",
        ),
        SoundSet("foley", "ESC-10: 400 field recordings of ten kinds, 5 s each", "folder"),
        SoundSet(
            "notes",
            "1,200 notes of ten instruments of FluidR3 GM",
            r"(?P<instrument>[a-z]+)_(?P<note>\d+)_(?P<velocity>\d+)",
            # swift-f0 finds the note of each of their recordings. It is wrong on two thirds of the
            # organ's, whose stops sound octaves higher, and on up to a quarter of the other three's.
            pitched={
                "instrument": (
                    "cello",
                    "fingerbass",
                    "harpsichord",
                    "oboe",
                    "pizzicato",
                    "steelguitar",
                )
            },
        ),
        SoundSet(
            "fsdd",
            "Free Spoken Digit Dataset, official split: takes 0 to 4 test, the rest training",
            r"(?P<digit>\d)_(?P<speaker>[a-z]+)_\d+\.wav$",
            test=r"_[0-4]\.wav$",
            speech=True,
        ),
    )
}


def recordings(sounds: SoundSet, shared: Path, work: Path) -> Path:
    """Folder of a set's recordings; drums are linked, and notes rendered, in `work`.

    Raises AudiovqError with the reason if the set is not on this machine.
    """
    if sounds.name == "drums":
        return _linked(shared / "sounds" / "drums.csv", DRUMKITS, work / "drums")
    if sounds.name == "notes":
        return _rendered(shared / "sounds" / "notes.py", work / "notes")
    folder = shared / "fsdd" / "recordings" if sounds.speech else shared / "sounds" / sounds.name
    if not folder.is_dir():
        raise AudiovqError(
            f"{folder}: no such folder; give the folder that holds sounds and fsdd with --shared"
        )
    return folder


def _linked(table: Path, drumkits: Path, folder: Path) -> Path:
    """Links to the files of `table`, as kind/kit__name."""
    if not drumkits.is_dir():
        raise AudiovqError(f"{drumkits}: no such folder; apt-get install hydrogen-drumkits")
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise AudiovqError(f"{table}: cannot be read ({error.strerror}); see --shared") from error
    for row in rows:
        link = folder / row["kind"] / row["path"].replace("/", "__")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(drumkits / row["path"])
    return folder


def _rendered(script: Path, folder: Path) -> Path:
    """The notes, rendered by `script` unless they are in `folder` already."""
    if not script.is_file():
        raise AudiovqError(
            f"{script}: no such file; give the folder that holds sounds and fsdd with --shared"
        )
    if folder.is_dir() and len(list(folder.glob("*.wav"))) >= 1_200:
        return folder
    if importlib.util.find_spec("mido") is None:
        raise AudiovqError("rendering notes needs mido: pip install -e '.[bench]'")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        raise AudiovqError(
            f"{script}: {reason} (it needs fluidsynth and fluid-soundfont-gm: apt-get install both)"
        )
    return folder
