"""Opus at any sample rate, by the programs `opusenc` and `opusdec`, each sound a separate file.

Its rate counts the payload: the bytes of the packets, without the Ogg container and without Opus's two header
packets. Settings are the programs' own: variable rate, frames of 20 ms, 48 kHz inside.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from audiovq.audio import reading, writing
from audiovq.audio.waveform import Waveform
from audiovq.config.errors import AudiovqError

HEADERS = 2
"""Packets at the beginning that hold no sound: OpusHead and OpusTags (RFC 7845)."""


def opus(
    waveforms: Sequence[Waveform], sample_rate: int, kilobits: int
) -> tuple[list[Waveform], int]:
    """Code and decode waveforms (samples,) at `kilobits` kbit/s: the same lengths, and bits of the payload.

    Raises AudiovqError if the programs are not installed or fail.
    """
    decoded, bits = [], 0
    with tempfile.TemporaryDirectory() as folder:
        original, coded, other = (Path(folder) / name for name in ("in.wav", "a.opus", "out.wav"))
        for waveform in waveforms:
            writing.write(original, waveform, sample_rate)
            _run("opusenc", "--quiet", "--bitrate", str(kilobits), str(original), str(coded))
            _run(
                "opusdec", "--quiet", "--float", "--rate", str(sample_rate), str(coded), str(other)
            )
            samples = reading.read(other, sample_rate)[0][: len(waveform)]
            decoded.append(np.pad(samples, (0, len(waveform) - len(samples))))
            bits += 8 * sum(list(packet_bytes(coded.read_bytes()))[HEADERS:])
    return decoded, bits


def packet_bytes(ogg: bytes) -> Iterator[int]:
    """Size of each packet of an Ogg file with one stream (RFC 3533, section 6)."""
    offset = size = 0
    while offset < len(ogg):
        if ogg[offset : offset + 4] != b"OggS":
            raise AudiovqError("not an Ogg file")
        segments = ogg[offset + 27 : offset + 27 + ogg[offset + 26]]
        for segment in segments:
            size += segment
            if segment < 255:  # the last segment of its packet
                yield size
                size = 0
        offset += 27 + len(segments) + sum(segments)


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise AudiovqError(f"{command[0]} is not installed; apt-get install opus-tools")
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise AudiovqError(f"{command[0]} failed: {lines[-1] if lines else done.returncode}")
