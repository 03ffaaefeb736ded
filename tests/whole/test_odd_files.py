"""Odd files of other programs: all readers agree on length and samples."""

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiovq.audio import reading
from audiovq.audio.waveform import AudioError

RATE = 16_000
LENGTH = 16_000
JUNK = {
    "newline": b"\n",
    "zeros": bytes(1000),
    "noise": np.random.default_rng(1).bytes(5000),
    "tag": b"TAG" + bytes(125),
}
ID3 = b"ID3\x04\0\0" + bytes([0, 0, 1, 0]) + bytes(128)
BEFORE = {
    "zeros": bytes(100),
    "tag": ID3,
    "two-tags": ID3 + ID3,
    "tag-of-0": b"ID3\x04\0\0\0\0\0\0",
    "padding": ID3 + bytes(77),
}
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "24.wav": ("WAV", "PCM_24"),
    "float.wav": ("WAV", "FLOAT"),
    "ima.wav": ("WAV", "IMA_ADPCM"),
    "gsm.wav": ("WAV", "GSM610"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "aiff": ("AIFF", "PCM_16"),
    "aifc": ("AIFF", "FLOAT"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "alac.caf": ("CAF", "ALAC_16"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
}

Waveform = npt.NDArray[np.float32]


def sound(seconds: float = 1.0) -> Waveform:
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * 440 * time) + 0.05 * noise).astype(np.float32)


def coded(samples: Waveform, form: str, subtype: str, **how: object) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=form, subtype=subtype, **how)
    return file.getvalue()


def frames(mp3: bytes) -> list[bytes]:
    """An MP3 of ours at RATE (MPEG 2, layer III), frame by frame."""
    rates = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]
    found, at = [], 0
    while at + 4 <= len(mp3):
        assert mp3[at] == 0xFF
        size = 72_000 * rates[mp3[at + 2] >> 4] // RATE + (mp3[at + 2] >> 1 & 1)
        found.append(mp3[at : at + size])
        at += size
    return found


def vbr(samples: Waveform) -> list[bytes]:
    """Frames of an MP3 whose bit rate changes, without the first, which counts them."""
    how = {"bitrate_mode": "VARIABLE", "compression_level": 0.2}
    return frames(coded(samples, *FORMATS["mp3"], **how))[1:]


def odd() -> dict[str, bytes]:
    """Name → a file's bytes."""
    files: dict[str, bytes] = {}
    for kind in FORMATS:
        data = FILES_OF[kind]
        files[f"whole.{kind}"] = data
        files[f"half.{kind}"] = data[: len(data) // 2]
        files[f"most.{kind}"] = data[:-7]
        files[f"twice.{kind}"] = 2 * data
        files |= {f"{name}-behind.{kind}": data + junk for name, junk in JUNK.items()}
        files |= {f"{name}-before.{kind}": junk + data for name, junk in BEFORE.items()}
        files[f"half-with-tag.{kind}"] = ID3 + data[: len(data) // 2]
        files[f"from-the-middle.{kind}"] = data[1001:]
        files[f"text.{kind}"] = 99 * b"Dear diary, today I recorded nothing.\n"
    flac = bytearray(coded(sound(), *FORMATS["flac"]))
    count = flac.index(b"fLaC") + 4 + 4 + 13
    for name, number in {"unknown": 0, "tenfold": 10 * LENGTH, "less": LENGTH // 2}.items():
        flac[count] &= 0xF0
        flac[count + 1 : count + 5] = struct.pack(">I", number)
        files[f"{name}.flac"] = bytes(flac)
        files |= {f"{name}-{behind}.flac": bytes(flac) + junk for behind, junk in JUNK.items()}
    files |= unfinished()
    quiet, loud = np.zeros(LENGTH, np.float32), sound(3)
    files["starts-quiet.mp3"] = b"".join(vbr(np.concatenate([quiet, loud])))
    files["starts-loud.mp3"] = b"".join(vbr(np.concatenate([loud, quiet])))
    for behind, junk in JUNK.items():
        files[f"uncounted-{behind}.mp3"] = b"".join(vbr(sound())) + junk
    return files


def unfinished() -> dict[str, bytes]:
    """Files whose headers say that there are no samples, or without end."""
    files = {}
    for name, value in {"zero": 0, "endless": (1 << 64) - 1}.items():
        narrow = (value & 0xFFFFFFFF).to_bytes(4, "little")
        for kind in ("wav", "24.wav", "float.wav"):
            data = bytearray(FILES_OF[kind])
            place = data.index(b"data") + 4
            data[place : place + 4] = narrow
            files[f"{name}-samples.{kind}"] = bytes(data)
            data[4:8] = narrow
            files[f"{name}-in-all.{kind}"] = bytes(data)
        data = bytearray(FILES_OF["rf64"])
        place = data.index(b"ds64") + 8
        data[place : place + 24] = 3 * value.to_bytes(8, "little")
        files[f"{name}-samples.rf64"] = bytes(data)
        data = bytearray(FILES_OF["caf"])
        place = data.index(b"data") + 4
        data[place : place + 8] = value.to_bytes(8, "big")
        files[f"{name}-samples.caf"] = bytes(data)
        data = bytearray(FILES_OF["au"])
        data[8:12] = narrow
        files[f"{name}-samples.au"] = bytes(data)
        data = bytearray(FILES_OF["aiff"])
        place = data.index(b"SSND") + 4
        data[place : place + 4] = narrow
        files[f"{name}-samples.aiff"] = bytes(data)
    return files


FILES_OF = {kind: coded(sound(), *form) for kind, form in FORMATS.items()}
FILES = odd()


def lengths(path: Path) -> dict[str, int | str]:
    """By every way of reading a file: its samples, or the reason why there are none."""
    found: dict[str, int | str] = {}
    ways = {
        "info": lambda: reading.info(path).num_samples,
        "blocks": lambda: sum(map(len, reading.blocks(path))),
        "read": lambda: len(reading.read(path)[0]),
        "short": lambda: len((reading.short(path, 1 << 20) or [()])[0]),
    }
    for name, way in ways.items():
        try:
            found[name] = way()
        except AudioError as error:
            found[name] = str(error)
    return found


@pytest.mark.parametrize("name", FILES)
def test_all_readers_agree_on_every_odd_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    found = lengths(path)
    assert len(set(found.values())) == 1, found
    if not isinstance(found["info"], int):
        return
    (block,) = reading.blocks(path)
    read, rate = reading.read(path)
    short = reading.short(path, 1 << 20)
    assert short is not None
    assert rate == reading.info(path).sample_rate == short[1]
    np.testing.assert_array_equal(short[0], block)
    np.testing.assert_array_equal(read, block / max(1, np.abs(block).max()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", 1000)
        assert sum(map(len, reading.blocks(path))) == len(block)
        assert reading.info(path).num_samples == len(block)


@given(st.data())
def test_all_readers_agree_on_damaged_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Short of damage to a header's promise: what lies between is not looked at for a length."""
    name = data.draw(st.sampled_from(sorted(FILES)))
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content) - 1, 200)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    path = tmp_path_factory.getbasetemp() / f"damaged.{name.partition('.')[2]}"
    path.write_bytes(content)
    found = lengths(path)
    info = found.pop("info")
    (others,) = set(found.values())
    assert info == others or isinstance(others, str)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("kind", FORMATS)
def test_bytes_after_the_last_sample_remove_no_samples(
    kind: str, junk: str, tmp_path: Path
) -> None:
    for name in ("whole", f"{junk}-behind"):
        (tmp_path / f"{name}.{kind}").write_bytes(FILES[f"{name}.{kind}"])
    whole, _ = reading.read(tmp_path / f"whole.{kind}")
    found, _ = reading.read(tmp_path / f"{junk}-behind.{kind}")
    assert len(whole) == pytest.approx(LENGTH, abs=600)
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("name", ["unknown", "tenfold", *(f"unknown-{junk}" for junk in JUNK)])
def test_a_flac_of_unknown_or_wrong_length_gives_all_samples(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(FILES[f"{name}.flac"])
    assert reading.info(path).num_samples == LENGTH
    np.testing.assert_allclose(reading.read(path)[0], sound(), atol=1e-4)


@pytest.mark.parametrize("name", unfinished())
def test_an_unfinished_header_hides_no_samples(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    waveform, rate = reading.read(tmp_path / name)
    assert rate == RATE
    np.testing.assert_allclose(waveform, sound(), atol=1e-4)
    assert reading.info(tmp_path / name).num_samples == LENGTH


def test_an_empty_wav_with_trailing_bytes_is_empty(tmp_path: Path) -> None:
    empty = coded(sound(0), *FORMATS["wav"]) + b"LIST\x04\0\0\0INFO"
    for size in (0, len(empty) - 8):
        (tmp_path / "a.wav").write_bytes(empty[:4] + struct.pack("<I", size) + empty[8:])
        assert set(lengths(tmp_path / "a.wav").values()) == {"holds no samples"}


@pytest.mark.parametrize("name", ["starts-quiet", "starts-loud"])
def test_an_mp3_without_a_frame_count_gives_all_frames(name: str, tmp_path: Path) -> None:
    """The decoder's guess by the first one's bit rate would be four times as long, or a fourth."""
    path = tmp_path / "a.mp3"
    path.write_bytes(FILES[f"{name}.mp3"])
    assert reading.info(path).num_samples == pytest.approx(4 * RATE, abs=2000)
    waveform, _ = reading.read(path)
    place = slice(RATE, 4 * RATE) if name == "starts-quiet" else slice(0, 3 * RATE)
    assert np.square(waveform[place]).mean() == pytest.approx(np.square(sound()).mean(), rel=0.1)


@pytest.mark.parametrize("between", [b"", ID3, JUNK["tag"], JUNK["tag"] + ID3])
def test_mp3s_joined_in_one_file_are_all_read(between: bytes, tmp_path: Path) -> None:
    one = FILES["whole.mp3"]
    path = tmp_path / "a.mp3"
    path.write_bytes(ID3 + between.join([one, one, one]))
    assert lengths(path)["info"] == pytest.approx(3 * LENGTH, abs=6000)
    assert len(set(lengths(path).values())) == 1
    path.write_bytes(ID3 + one + between)
    assert lengths(path)["info"] == LENGTH


@pytest.mark.parametrize("before", BEFORE)
def test_bytes_before_the_first_frame_of_an_mp3_are_skipped(before: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(FILES[f"{before}-before.mp3"])
    assert set(lengths(path).values()) == {LENGTH}


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "aiff", "au", "w64", "rf64"])
def test_the_existing_samples_of_a_truncated_file_are_read(kind: str, tmp_path: Path) -> None:
    for name in ("whole", "half"):
        (tmp_path / f"{name}.{kind}").write_bytes(FILES[f"{name}.{kind}"])
    whole, _ = reading.read(tmp_path / f"whole.{kind}")
    half, _ = reading.read(tmp_path / f"half.{kind}")
    assert 4000 < len(half) < 0.6 * LENGTH
    np.testing.assert_array_equal(half[:4000], whole[:4000])


def test_a_flac_damaged_in_the_middle_is_broken_and_not_shortened(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    data = bytearray(coded(sound(5), *FORMATS["flac"]))
    middle = len(data) // 2
    data[middle : middle + 500] = bytes(500)
    path.write_bytes(data)
    with pytest.raises(AudioError, match="broken"):
        reading.read(path)


@pytest.mark.parametrize("suffix", ["au", "snd", "vox", "gsm", "raw", "pcm"])
def test_headerless_files_are_not_read_as_noise(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(FILES["text.wav"])
    (found,) = set(lengths(path).values())
    assert "header" in str(found)


def test_a_file_that_is_cut_while_it_is_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(1000, np.float32) / 2, 8000, subtype="PCM_16")
    real = reading.plain_info

    def cutting(head: bytes, size: int) -> object:
        path.write_bytes(path.read_bytes()[:-2])
        return real(head, size)

    monkeypatch.setattr(reading, "plain_info", cutting)
    with pytest.raises(AudioError, match="changed while it was read"):
        reading.short(path, 1 << 20)
