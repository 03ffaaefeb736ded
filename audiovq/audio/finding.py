"""Find recordings in a folder by their file names, and say why other files are left out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from audiovq.audio import waveform
from audiovq.audio.waveform import AudioError
from audiovq.config.errors import AudiovqError


def find(folder: Path) -> tuple[list[str], list[str]]:
    """List the files below `folder`, except hidden ones: (recordings, others), each sorted folder by folder.

    A name is a path relative to `folder`, with forward slashes.

    A link to a file counts as a file, even if broken. Links to folders are not followed, so that loops
    are not walked and no recording is found twice; they are listed among the others, as are folders
    that cannot be opened. Raises AudiovqError if `folder` is not a folder, or cannot be opened.
    """
    try:
        is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudiovqError(f"{folder}: no such folder") from error
    except OSError as error:
        raise AudiovqError(f"{folder}: cannot be opened ({error.strerror})") from error
    if not is_folder:
        raise AudiovqError(f"{folder}: is a file; give the folder that holds it")
    found: list[str] = []
    prefix = len(os.path.join(folder, ""))

    def add_unreadable(error: OSError) -> None:
        name = error.filename[prefix:].replace(os.sep, "/")
        if not name:
            raise AudiovqError(f"{folder}: cannot be opened ({error.strerror})") from error
        found.append(name)

    for root, folders, files in os.walk(folder, onerror=add_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        visible = (name for name in files + links if not name.startswith("."))
        found += [os.path.join(root, name)[prefix:].replace(os.sep, "/") for name in visible]
    recordings: list[str] = []
    others: list[str] = []
    # A string as the sort key: lists of path parts would take more memory.
    for name in sorted(found, key=lambda name: name.replace("/", "\0")):
        (recordings if is_recording(name) else others).append(name)
    return recordings, others


def require_file(path: Path | str) -> None:
    """Raise AudioError if `path` is not a regular file: reading from a pipe, for example, would block."""
    if os.path.isfile(path):
        return
    path = Path(path)
    if path.is_symlink():
        if path.is_dir():
            raise AudioError("is a link to a folder; name that folder itself, or copy it here")
        if not path.exists():
            raise AudioError("is a broken link")
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
"""Suffixes of the formats that libsndfile reads."""
KINDS = "WAV, FLAC, OGG, Opus, MP3, AIFF, CAF, W64, RF64, AU and others"
"""SUFFIXES in words, for messages."""
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
"""Suffixes of audio formats that libsndfile does not read."""
HEADERLESS = frozenset({".raw", ".pcm", ".gsm", ".vox"})
"""Suffixes of audio formats without a header, whose sample rate and sample format are unknown."""


def is_recording(name: str) -> bool:
    """Whether a file name has the suffix of a readable audio format."""
    return suffix(name) in SUFFIXES


def why_not(name: str) -> str:
    """Reason, for the user, why a file is left out because of its name."""
    kind = suffix(name)
    if kind in UNREADABLE:
        return (
            f"is in a format that cannot be read ({kind}); convert it to WAV or FLAC, for example"
            f" with: ffmpeg -i IN{kind} OUT.flac"
        )
    if kind in HEADERLESS:
        return f"has no header with its sample rate ({kind}); convert it to WAV or FLAC"
    return f"has an unsupported file type ({kind})" if kind else "has no suffix such as .wav"


def suffix(name: str) -> str:
    """Suffix of a file name, with its dot, in lower case."""
    return os.path.splitext(name)[1].lower()


def no_recording(path: Path) -> str:
    """Reason, for the user, why a path without an audio suffix is left out."""
    try:
        require_file(path)
    except waveform.AudioError as error:
        return str(error)
    return why_not(path.name)
