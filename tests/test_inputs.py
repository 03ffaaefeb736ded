"""Whatever a folder holds: each thing in it is used, or named with the reason why not."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from modes import modes_hold

from audiovq.config import PreprocessConfig
from audiovq.dataset import Dataset
from audiovq.manifest import SPLITS, Clip
from audiovq.preprocess import Summary, preprocess

Waveform = npt.NDArray[np.float32]
SECONDS = 0.3


def run(source: Path, target: Path) -> tuple[Summary, list[Clip]]:
    """Made at 8 kHz; what holds of every dataset is checked."""
    config = PreprocessConfig(sample_rate=8000)
    summary = preprocess(source, target, config, say=lambda line: None)
    assert summary.found == summary.used + len(summary.skipped)
    for skipped in summary.skipped:
        assert skipped.reason
        assert "\n" not in skipped.reason
        assert str(source) not in skipped.reason
    dataset = Dataset(target)
    return summary, [clip for split in SPLITS for clip in getattr(dataset, split).clips]


def reasons(summary: Summary) -> dict[str, str]:
    return {skipped.path: skipped.reason for skipped in summary.skipped}


def lengthened(path: Path, frames: int) -> bytes:
    """A WAV's bytes; its header says that there are so many 16-bit frames."""
    data = path.read_bytes()
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", (2 * frames) & 0xFFFFFFFF) + data[at + 4 :]


def test_every_kind_of_recording_is_used(tmp_path: Path, voice: Callable[..., Waveform]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    sound = voice(SECONDS)

    def write(name: str, samples: Waveform = sound, rate: int = 8000, **form: str) -> Path:
        soundfile.write(folder / name, samples, rate, **form)
        return folder / name

    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"):
        write(f"{subtype}.wav", subtype=subtype)
        write(f"{subtype}-extensible.wav", subtype=subtype, format="WAVEX")
    for rate in (44_101, 22_254):
        write(f"{rate}.wav", voice(SECONDS, sample_rate=rate), rate)
    for channels in range(1, 9):
        write(f"{channels}.wav", np.stack([sound] * channels, axis=1))
    for suffix in ("flac", "ogg", "mp3", "aiff"):
        write(f"a.{suffix}")
    plain = write("plain.wav")
    for name, frames in {"long": 10**6, "longest": 2**31 - 1, "shorter": 2000}.items():
        (folder / f"header-{name}.wav").write_bytes(lengthened(plain, frames))
    (folder / "truncated.wav").write_bytes(plain.read_bytes()[:-1001])
    (folder / "trailing.wav").write_bytes(plain.read_bytes() + b"LIST\x05\0\0\0INFOx\0junk")
    write("offset.wav", np.float32(0.4) + np.float32(0.3) * sound)
    write("clipped.wav", np.clip(8 * sound, -1, 1))
    write("beyond.wav", 8 * sound, subtype="FLOAT")
    for name in ("a b.wav", "日本.wav", "a\nb.wav", "--help.wav", "-.wav"):
        write(name)
    (folder / "link.wav").symlink_to(plain)
    (folder / "folder.wav").mkdir()
    write("folder.wav/inside.wav")

    summary, clips = run(folder, tmp_path / "out")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert reasons(summary) == {}
    assert {clip.path for clip in clips} == files
    lengths = {clip.path: clip.num_samples / 8000 for clip in clips}
    for cut in ("header-shorter.wav", "truncated.wav"):
        assert 0.2 <= lengths.pop(cut) < SECONDS
    for lossy in ("a.mp3", "ALAW.wav", "ULAW.wav"):
        assert lengths.pop(lossy) == pytest.approx(SECONDS, abs=0.1)
    for path, length in lengths.items():
        assert length == pytest.approx(SECONDS, abs=0.02), path
    levels = {clip.path: clip.level for clip in clips}
    assert levels["offset.wav"] > levels["plain.wav"], "the offset is no part of the level"


def test_what_cannot_be_used_is_named_with_a_reason(
    tmp_path: Path, voice: Callable[..., Waveform]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    expected: dict[str, str] = {}

    def write(name: str, samples: Waveform, reason: str) -> None:
        soundfile.write(folder / name, samples, 8000, subtype="FLOAT")
        expected[name] = reason

    def link(name: str, to: str, reason: str) -> None:
        (folder / name).symlink_to(to)
        expected[name] = reason

    sound = voice(SECONDS)
    soundfile.write(folder / "good.wav", sound, 8000)
    write("none.wav", sound[:0], "no samples")
    write("one.wav", sound[100:101], "silent")  # a constant, to the ear
    write("two.wav", sound[100:102], "shorter than one window")
    write("nan.wav", np.append(sound, np.float32(np.nan)), "NaN or infinity")
    write("infinity.wav", np.append(sound, np.float32(np.inf)), "NaN or infinity")
    write("silence.wav", 0 * sound, "silent")
    write("constant.wav", 0 * sound - 1, "silent")
    link("loop-a.wav", "loop-b.wav", "a link that leads nowhere")
    link("loop-b.wav", "loop-a.wav", "a link that leads nowhere")
    link("self.wav", "self.wav", "a link that leads nowhere")
    link("dangling.wav", "gone.wav", "a link that leads nowhere")
    link("dangling", "gone", "a link that leads nowhere")
    (folder / "inner").mkdir()
    link("inner/up", "..", "a link to a folder")
    link("inner/up.wav", "..", "a link to a folder")
    os.mkfifo(folder / "pipe.wav")
    os.mkfifo(folder / "pipe")
    expected |= dict.fromkeys(("pipe.wav", "pipe"), "neither a file nor a folder")
    (folder / "header.wav").write_bytes((folder / "good.wav").read_bytes()[:30])
    (folder / "notes").write_text("Dear diary")
    expected |= {"header.wav": "not a sound file", "notes": "not a sound file by its name"}

    summary, clips = run(folder, tmp_path / "out")
    found = reasons(summary)
    assert found.keys() == expected.keys()
    for path, reason in expected.items():
        assert reason in found[path], path
    assert [clip.path for clip in clips] == ["good.wav"]


def test_what_may_not_be_read_is_named(tmp_path: Path, voice: Callable[..., Waveform]) -> None:
    folder = tmp_path / "in"
    (folder / "closed").mkdir(parents=True)
    for name in ("good.wav", "closed.wav", "closed/a.wav"):
        soundfile.write(folder / name, voice(SECONDS), 8000)
    for name in ("closed.wav", "closed"):
        (folder / name).chmod(0)
    try:
        with modes_hold():
            summary, _ = run(folder, tmp_path / "out")
    finally:
        (folder / "closed").chmod(0o755)
    found = reasons(summary)
    assert found.keys() == {"closed", "closed.wav"}
    assert all("cannot be opened" in reason for reason in found.values())
