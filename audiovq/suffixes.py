"""Which files are recordings by their names, and why others are left out."""

from __future__ import annotations

import os

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
