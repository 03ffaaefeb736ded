"""Each entry of a folder of recordings is used, or listed with the reason why not."""

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from file_modes import modes_hold

from audiovq.audio import reading
from audiovq.audio.finding import no_recording
from audiovq.audio.waveform import AudioError
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.manifest import SPLITS, Clip
from audiovq.inspection.inspect import inspect
from audiovq.preprocessing.preprocess import Summary, preprocess

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


def test_unusable_files_are_listed_with_a_reason(
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
    soundfile.write(folder / "two.wav", sound[100:102], 8000)
    write("none.wav", sound[:0], "no samples")
    write("one.wav", sound[100:101], "silent")  # a constant, to the ear
    write("nan.wav", np.append(sound, np.float32(np.nan)), "NaN or infinity")
    write("infinity.wav", np.append(sound, np.float32(np.inf)), "NaN or infinity")
    write("silence.wav", 0 * sound, "silent")
    write("constant.wav", 0 * sound - 1, "silent")
    link("loop-a.wav", "loop-b.wav", "is a broken link")
    link("loop-b.wav", "loop-a.wav", "is a broken link")
    link("self.wav", "self.wav", "is a broken link")
    link("dangling.wav", "gone.wav", "is a broken link")
    link("dangling", "gone", "is a broken link")
    (folder / "inner").mkdir()
    link("inner/up", "..", "a link to a folder")
    link("inner/up.wav", "..", "a link to a folder")
    os.mkfifo(folder / "pipe.wav")
    os.mkfifo(folder / "pipe")
    expected |= dict.fromkeys(("pipe.wav", "pipe"), "neither a file nor a folder")
    (folder / "header.wav").write_bytes((folder / "good.wav").read_bytes()[:30])
    (folder / "notes").write_text("Dear diary")
    expected |= {"header.wav": "not a sound file", "notes": "has no suffix such as .wav"}

    summary, clips = run(folder, tmp_path / "out")
    found = reasons(summary)
    assert found.keys() == expected.keys()
    for path, reason in expected.items():
        assert reason in found[path], path
    assert sorted(clip.path for clip in clips) == ["good.wav", "two.wav"]


def test_unreadable_files_are_listed(tmp_path: Path, voice: Callable[..., Waveform]) -> None:
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


SUFFIXES_OF = {
    "AIFF": ("aif", "aiff", "aifc"),
    "AU": ("au", "snd"),
    "AVR": ("avr",),
    "CAF": ("caf",),
    "FLAC": ("flac",),
    "HTK": ("htk",),
    "IRCAM": ("sf", "ircam"),
    "MAT4": ("mat", "mat4"),
    "MAT5": ("mat", "mat5"),
    "MP3": ("mp3", "mp2", "mp1", "mpga"),
    "MPC2K": ("snd",),
    "NIST": ("nist", "sph"),
    "OGG": ("ogg", "oga", "opus"),
    "PAF": ("paf",),
    "PVF": ("pvf",),
    "RF64": ("rf64", "wav"),
    "SD2": ("sd2",),
    "SDS": ("sds",),
    "SVX": ("iff", "svx", "8svx", "16sv"),
    "VOC": ("voc",),
    "W64": ("w64",),
    "WAV": ("wav", "wave", "bwf", "WAV"),
    "WAVEX": ("wav",),
    "WVE": ("wve",),
    "XI": ("xi",),
}
"""Suffixes of each of libsndfile's containers that have a header."""


def test_every_readable_format_is_found_by_its_suffix(
    tmp_path: Path, voice: Callable[..., Waveform]
) -> None:
    assert SUFFIXES_OF.keys() == soundfile.available_formats().keys() - {"RAW"}
    folder = tmp_path / "in"
    folder.mkdir()
    for form, suffixes in SUFFIXES_OF.items():
        for suffix in suffixes:
            soundfile.write(folder / f"{form}.{suffix}", voice(SECONDS), 8000, format=form)
    summary, clips = run(folder, tmp_path / "out")
    assert reasons(summary) == {}
    visible = {
        path.name for path in folder.iterdir() if not path.name.startswith(".")
    }  # SD2 has two
    assert {clip.path for clip in clips} == visible


def test_every_encoding_in_every_container_is_read_back(
    tmp_path: Path, voice: Callable[..., Waveform]
) -> None:
    sound = voice(SECONDS)
    written = 0
    for form, (suffix, *_) in SUFFIXES_OF.items():
        for subtype in soundfile.available_subtypes(form):
            path = tmp_path / f"{subtype}.{form}.{suffix}"
            try:
                soundfile.write(path, sound, 8000, format=form, subtype=subtype)
            except soundfile.LibsndfileError:  # libsndfile reads it, and does not write it
                continue
            read, rate = reading.read(path)
            written += 1
            assert rate == (44_100 if form == "XI" else 8000), path  # XI has no sample rate
            assert reading.info(path).num_samples == len(read), path
            assert len(read) == pytest.approx(len(sound), abs=700), path  # whole blocks of a codec
            likeness = np.corrcoef(read[: len(sound)], sound[: len(read)])[0, 1]
            assert likeness > 0.9, path  # GSM is the worst
    assert written > 100


@pytest.mark.parametrize("suffix", ["m4a", "M4A", "aac", "wma", "mp4", "ape", "wv", "amr", "raw"])
def test_unsupported_formats_are_listed_with_advice_to_convert_them(
    suffix: str, tmp_path: Path, voice: Callable[..., Waveform]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"a.{suffix}").write_bytes(b"\0\0\0\x1cftypM4A " + bytes(100))
    kind = f".{suffix.lower()}"
    expected = f"({kind}); convert it to WAV or FLAC"
    if suffix != "raw":
        expected += f", for example with: ffmpeg -i IN{kind} OUT.flac"
    with pytest.raises(AudiovqError, match=re.escape(expected)):
        run(folder, tmp_path / "out")
    with pytest.raises(AudioError, match=re.escape(expected)):
        reading.read(folder / f"a.{suffix}")
    soundfile.write(folder / "b.wav", voice(SECONDS), 8000)
    summary, _ = run(folder, tmp_path / "out")
    assert expected in reasons(summary)[f"a.{suffix}"]
    assert no_recording(folder / f"a.{suffix}") == reasons(summary)[f"a.{suffix}"]


@pytest.mark.parametrize("rate", [8000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_near_silence_is_silent_and_quiet_sound_is_not(
    rate: int, channels: int, tmp_path: Path, voice: Callable[..., Waveform]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    random = np.random.default_rng(0)
    length = rate // 2

    def write(name: str, samples: npt.NDArray[np.floating[Any]], subtype: str = "PCM_16") -> None:
        both = np.stack([samples] * channels, axis=1)
        soundfile.write(folder / name, both, rate, subtype=subtype)

    sound = 2 * voice(0.5, sample_rate=rate)  # peak 1
    write("good.wav", 0.5 * sound)
    write("dither.wav", random.integers(-1, 2, length) / 32768)
    write("dither-and-offset.wav", 0.01 + random.integers(-1, 2, length) / 32768)
    write("dither-24.wav", random.integers(-200, 200, length) / (1 << 23), "PCM_24")
    write("below.wav", 10 ** (-82 / 20) * sound, "FLOAT")
    write("quiet.wav", 10 ** (-80 / 20) * sound, "FLOAT")
    write("quiet-16.wav", 10 ** (-79 / 20) * sound)
    summary, clips = run(folder, tmp_path / "out")
    assert {clip.path for clip in clips} == {"good.wav", "quiet.wav", "quiet-16.wav"}
    assert all("dBFS" in reason for reason in reasons(summary).values())
    assert summary.skipped == inspect(folder, config=PreprocessConfig(sample_rate=8000)).skipped


def test_preprocess_reads_an_odd_mp3_like_every_other_reader(
    tmp_path: Path, voice: Callable[..., Waveform]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "whole.mp3", voice(SECONDS), 8000)
    data = (folder / "whole.mp3").read_bytes()
    (folder / "zeros.mp3").write_bytes(bytes(100) + data)
    (folder / "tag.mp3").write_bytes(b"ID3\x04\0\0\0\0\0\0" + data)
    soundfile.write(folder / "whole.flac", voice(SECONDS), 8000)
    (folder / "byte.flac").write_bytes((folder / "whole.flac").read_bytes() + b"\n")
    summary, clips = run(folder, tmp_path / "out")
    assert reasons(summary) == {}
    lengths = {clip.path: clip.num_samples for clip in clips}
    assert lengths["zeros.mp3"] == lengths["tag.mp3"] == lengths["whole.mp3"]
    assert lengths["byte.flac"] == lengths["whole.flac"]


@pytest.mark.parametrize("rate", [1, 999, 768_001, 0x7FFFFFFF])
def test_every_reader_names_an_absurd_sample_rate(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(4000, 0.1), 8000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(data)
    for read in (reading.info, reading.read, lambda p: list(reading.blocks(p, 8000))):
        with pytest.raises(AudioError, match=f"sample rate of {rate:,} Hz"):
            read(path)
