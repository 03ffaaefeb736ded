"""Recordings in a folder: which files are recordings by name, and why the others are not."""

from __future__ import annotations

import os
from pathlib import Path

from audiovq.audio import waveform
from audiovq.audio.waveform import AudioError
from audiovq.config.errors import AudiovqError


def find(folder: Path) -> tuple[list[str], list[str]]:
    """The names of all that lies below `folder`, hidden ones left out: (recordings, others), each sorted.

    A name leads from `folder` to a file, with forward slashes; it sorts folder by folder.

    Links to files are files, even where they lead nowhere. Links to folders are not followed, so
    that no loop is walked and no sound comes twice: they are listed themselves, as are folders
    that cannot be opened. Raises AudiovqError where `folder` is not a folder.
    """
    if not folder.is_dir():
        raise AudiovqError(f"{folder}: no such folder")
    found: list[str] = []
    before = len(os.path.join(folder, ""))

    def closed(error: OSError) -> None:
        found.append(error.filename[before:].replace(os.sep, "/") or ".")

    for root, folders, files in os.walk(folder, onerror=closed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        shown = (name for name in files + links if not name.startswith("."))
        found += [os.path.join(root, name)[before:].replace(os.sep, "/") for name in shown]
    recordings: list[str] = []
    others: list[str] = []
    for name in sorted(found, key=lambda name: name.replace("/", "\0")):  # lists would take memory
        (recordings if is_recording(name) else others).append(name)
    return recordings, others


def require_file(path: Path | str) -> None:
    """Raise AudioError where `path` is no file: reading a pipe, say, would wait for ever."""
    if os.path.isfile(path):
        return
    path = Path(path)
    if path.is_symlink():
        if path.is_dir():
            raise AudioError("is a link to a folder; name that folder itself, or copy it here")
        if not path.exists():
            raise AudioError("is a link that leads nowhere")
    if path.is_dir():
        try:
            os.scandir(path).close()
        except OSError:
            raise AudioError("is a folder that cannot be opened") from None
        raise AudioError("is a folder; name a recording")
    if path.exists():
        raise AudioError("is neither a file nor a folder")


SUFFIXES = frozenset(
    [
        ".wav",
        ".wave",
        ".bwf",
        ".rf64",
        ".w64",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".mp2",
        ".mp1",
        ".mpga",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".snd",
        ".caf",
        ".8svx",
        ".16sv",
        ".svx",
        ".iff",
        ".avr",
        ".htk",
        ".ircam",
        ".sf",
        ".mat",
        ".mat4",
        ".mat5",
        ".nist",
        ".sph",
        ".paf",
        ".pvf",
        ".sd2",
        ".sds",
        ".voc",
        ".wve",
        ".xi",
    ]
)
"""Of all that libsndfile reads."""
KINDS = "WAV, FLAC, OGG, Opus, MP3, AIFF and others"
"""The same in a few words."""
UNREADABLE = frozenset(
    [
        ".m4a",
        ".m4b",
        ".m4p",
        ".m4r",
        ".mp4",
        ".aac",
        ".adts",
        ".alac",
        ".wma",
        ".asf",
        ".ape",
        ".wv",
        ".tta",
        ".tak",
        ".ofr",
        ".shn",
        ".mpc",
        ".mpp",
        ".dsf",
        ".dff",
        ".ac3",
        ".eac3",
        ".dts",
        ".mka",
        ".weba",
        ".webm",
        ".ra",
        ".ram",
        ".rm",
        ".amr",
        ".awb",
        ".3gp",
        ".3ga",
        ".spx",
        ".qcp",
        ".dss",
        ".aa",
        ".aax",
        ".at3",
        ".mlp",
        ".thd",
    ]
)
"""Of sound that libsndfile does not read."""
HEADERLESS = frozenset({".raw", ".pcm", ".gsm", ".vox"})
"""Of sound whose rate and kind of samples no header tells."""


def is_recording(name: str) -> bool:
    """Whether a file is a recording by its name."""
    return suffix(name) in SUFFIXES


def why_not(name: str) -> str:
    """The reason, for the user, why a file that is no recording by its name is left out."""
    kind = suffix(name)
    if kind in UNREADABLE:
        return f"is in a format that cannot be read ({kind}); convert it to WAV or FLAC"
    if kind in HEADERLESS:
        return f"has no header that tells its sample rate ({kind}); convert it to WAV or FLAC"
    return "is not a sound file by its name"


def suffix(name: str) -> str:
    """With its dot, in lower case."""
    return os.path.splitext(name)[1].lower()


def no_recording(path: Path) -> str:
    """Why what is named unlike a recording is none."""
    try:
        require_file(path)
    except waveform.AudioError as error:
        return str(error)
    return why_not(path.name)
