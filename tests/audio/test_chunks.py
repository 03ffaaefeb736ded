"""Chunks of WAVs and comments of FLACs, read back by this package, libsndfile, ffprobe, and a reader of a few lines."""

import json
import shutil
import struct
import subprocess
import wave
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiovq.audio import chunks, writing
from audiovq.audio.chunks import Tags
from audiovq.audio.reading import read
from audiovq.config.errors import AudiovqError

RATE = 44_100
FULL = Tags(
    root=57,
    loop=(100, 900),
    tempo=120.5,
    beats=8,
    beats_per_bar=3,
    cues=(0, 300, 600),
    info={"ISFT": "audiovq 0.1.0", "ICMT": "model 12345678, seed 5, kind kick"},
    bext="0003_kick, seed 5",
    loudness=-14.25,
)
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40)


def noise(num_samples: int = 1001) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1, 1, num_samples).astype(np.float32)


tags = st.builds(
    Tags,
    root=st.none() | st.integers(0, 127),
    loop=st.none() | st.tuples(st.integers(0, 1000), st.integers(1001, 1 << 31)),
    loop_kind=st.integers(0, 2),
    cues=st.lists(st.integers(0, 1 << 31), max_size=9).map(sorted).map(tuple),
    info=st.dictionaries(st.sampled_from(["ISFT", "ICMT", "INAM"]), TEXT),
    bext=st.none() | TEXT.filter(lambda text: len(text.encode()) <= 256),
)


@given(tags, st.none() | st.tuples(st.floats(20, 400, width=32), st.integers(0, 99)), st.booleans())
def test_unpacking_is_the_inverse_of_packing(
    tags: Tags, tempo: tuple[float, int] | None, measured: bool
) -> None:
    values: dict[str, Any] = dict(vars(tags))
    if tempo is not None:
        values |= {"tempo": tempo[0], "beats": tempo[1], "beats_per_bar": 3}
    if measured and tags.bext is not None:
        values["loudness"] = -12.25
    if tags.loop is None:
        values["loop_kind"] = 0
    tags = Tags(**values)
    data = chunks.pack(tags, RATE)
    assert len(data) % 2 == 0
    assert chunks.unpack(data) == tags
    assert chunks.unpack(b"junk\3\0\0\0abc\0" + data + data[:3]) == tags


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 255))
def test_damaged_chunks_give_tags_or_none_and_no_error(
    noise: bytes, position: int, byte: int
) -> None:
    chunks.unpack(noise)
    data = bytearray(chunks.pack(FULL, RATE))
    data[position % len(data)] = byte
    chunks.unpack(bytes(data))


@pytest.mark.parametrize("bits", ["16", "24", "32f"])
@pytest.mark.parametrize("num_samples", [1000, 1001, 3])
def test_a_wav_holds_samples_and_tags(tmp_path: Path, bits: Any, num_samples: int) -> None:
    path, sound = tmp_path / "a.wav", noise(num_samples)
    assert not writing.write(path, sound, RATE, 1.0, bits, FULL)
    samples, rate = soundfile.read(path, dtype="float64")
    step = {"16": 2.0**-16, "24": 2.0**-24, "32f": 0.0}[bits]
    assert rate == RATE
    assert np.abs(samples - sound).max() <= 1.001 * step + (bits != "32f") * (sound.max() == 1)
    assert soundfile.info(path).subtype == {"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT"}[bits]
    assert chunks.read(path) == FULL
    if num_samples > 3:  # of fewer, reading removes the mean
        assert np.array_equal(read(path)[0], samples.astype(np.float32))


def test_without_tags_a_wav_of_16_bits_is_that_of_python(tmp_path: Path) -> None:
    sound = noise()
    writing.write(tmp_path / "a.wav", sound, RATE)
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.rint(sound * 32768).clip(-32768, 32767).astype("<i2").tobytes())
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("bits", ["16", "24"])
def test_flac_holds_the_same_samples_as_wav_and_comments(tmp_path: Path, bits: Any) -> None:
    sound = noise(30_001)
    for name in ("a.wav", "a.flac"):
        assert writing.write(tmp_path / name, 2 * sound, RATE, None, bits, FULL)
    samples = [soundfile.read(tmp_path / name, dtype="int32")[0] for name in ("a.wav", "a.flac")]
    assert np.array_equal(*samples)
    assert soundfile.info(tmp_path / "a.flac").subtype == f"PCM_{bits}"
    found = comments_of((tmp_path / "a.flac").read_bytes())
    assert found == {
        "ENCODER": "audiovq 0.1.0",
        "COMMENT": FULL.info["ICMT"],
        "BPM": "120.5",
        "ROOT": "57",
        "LOOPSTART": "100",
        "LOOPLENGTH": "800",
    }
    writing.write(tmp_path / "plain.flac", sound, RATE)
    assert comments_of((tmp_path / "plain.flac").read_bytes()) == {}
    assert chunks.read(tmp_path / "a.flac") == Tags()
    with pytest.raises(AudiovqError, match="no floating-point samples; give 16 or 24"):
        writing.write(tmp_path / "b.flac", sound, RATE, None, "32f")


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("bits", ["16", "24"])
def test_channels_are_written_as_they_are(tmp_path: Path, name: str, bits: Any) -> None:
    sound = np.stack([noise(), 0.5 * noise()[::-1]])
    blocks = [sound[:, :300], sound[:, 300:301], sound[:, 301:]]
    writing.write_blocks(tmp_path / name, blocks, RATE, 1.0, bits, FULL)
    samples, _ = soundfile.read(tmp_path / name, dtype="float64")
    assert samples.shape == (1001, 2)
    assert np.abs(samples.T - sound).max() <= 2.0 ** -(int(bits) - 1)


def test_a_sound_of_several_blocks_has_the_channels_of_each_even_where_one_is_empty(
    tmp_path: Path,
) -> None:
    pair = np.stack([noise(), noise()])
    for name in ("a.wav", "a.flac"):
        writing.write_blocks(tmp_path / name, [pair, pair[:, :0]], RATE)
        assert soundfile.info(tmp_path / name).channels == 2
        assert soundfile.info(tmp_path / name).frames == 1001


@pytest.mark.parametrize("rate", [1_000, 65_535, 65_540, 655_350])
def test_flac_holds_these_rates(tmp_path: Path, rate: int) -> None:
    writing.write(tmp_path / "a.flac", np.zeros(100, np.float32), rate)
    assert soundfile.info(tmp_path / "a.flac").samplerate == rate


@pytest.mark.parametrize("rate", [65_536, 96_001, 655_360, 768_000])
def test_rates_that_flac_does_not_hold_are_refused_with_what_to_give(
    tmp_path: Path, rate: int
) -> None:
    with pytest.raises(AudiovqError, match=rf"a\.flac: has {rate:,} Hz, and FLAC .*give --format"):
        writing.write(tmp_path / "a.flac", np.zeros(100, np.float32), rate)
    assert not list(tmp_path.iterdir())


def test_no_samples_are_a_wav_and_refused_as_flac(tmp_path: Path) -> None:
    writing.write(tmp_path / "a.wav", noise(0), RATE)
    assert soundfile.info(tmp_path / "a.wav").frames == 0
    with pytest.raises(AudiovqError, match=r"a\.flac: cannot be written \(FLAC holds a sample"):
        writing.write(tmp_path / "a.flac", noise(0), RATE)
    assert not (tmp_path / "a.flac").exists()


def comments_of(data: bytes) -> dict[str, str]:
    """Comments of a FLAC by RFC 9639."""
    assert data[:4] == b"fLaC"
    begin, last = 4, False
    while not last:
        last, kind = bool(data[begin] & 128), data[begin] & 127
        size = int.from_bytes(data[begin + 1 : begin + 4])
        body = data[begin + 4 : begin + 4 + size]
        begin += 4 + size
        if kind == 4:
            at = 4 + int.from_bytes(body[:4], "little")
            count, lines = int.from_bytes(body[at : at + 4], "little"), []
            at += 4
            for _ in range(count):
                size = int.from_bytes(body[at : at + 4], "little")
                lines.append(body[at + 4 : at + 4 + size].decode())
                at += 4 + size
            assert at == len(body)
            return dict(line.split("=", 1) for line in lines)
    return {}


# --- Other readers ------------------------------------------------------------------------------


class Found(NamedTuple):
    """What a reader finds in a WAV."""

    root: int
    loops: list[tuple[int, int]]
    tempo: float
    beats: int
    beats_per_bar: int
    cues: list[int]


def by_struct(path: Path) -> Found:
    """By the published layouts: `smpl` and `cue ` of RIFF, `acid` of Acid."""
    data, at, found = path.read_bytes(), 12, dict[bytes, bytes]()
    assert struct.unpack_from("<4sI4s", data) == (b"RIFF", len(data) - 8, b"WAVE")
    while at < len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        found[name] = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    assert at == len(data)
    sampler = struct.unpack("<9I", found[b"smpl"][:36])
    assert sampler[2] == round(1e9 / RATE)
    loops = [struct.unpack_from("<6I", found[b"smpl"], 36 + 24 * i)[2:4] for i in range(sampler[7])]
    count = struct.unpack_from("<I", found[b"cue "])[0]
    cues = [struct.unpack_from("<6I", found[b"cue "], 4 + 24 * i)[5] for i in range(count)]
    flags, root, _, _, beats, lower, upper, tempo = struct.unpack("<IHHfIHHf", found[b"acid"])
    assert (flags & 1, flags & 2, root, lower) == (0, 2, sampler[3], 4)
    return Found(sampler[3], [(a, b + 1) for a, b in loops], tempo, beats, upper, cues)


def by_libsndfile(path: Path) -> Found:
    """By libsndfile's SFC_GET_INSTRUMENT, SFC_GET_LOOP_INFO and SFC_GET_CUE."""
    ffi, library = soundfile._ffi, soundfile._snd
    parts = []
    with soundfile.SoundFile(path) as file:
        for command, size in ((0x10D0, 272), (0x10E0, 44), (0x10CE, 4 + 100 * 280)):
            buffer = ffi.new("char[]", size)
            assert library.sf_command(file._file, command, buffer, size) == 1
            parts.append(bytes(ffi.buffer(buffer, size)))
    instrument, loop_info, cues = parts
    count = struct.unpack_from("<i", instrument, 12)[0]
    loops = [struct.unpack_from("<iIII", instrument, 16 + 16 * i)[1:3] for i in range(count)]
    upper, _, mode, beats, tempo, root = struct.unpack_from("<hhiifi", loop_info)
    assert (root, mode) == (instrument[4], 801)  # SF_LOOP_FORWARD
    positions = [
        struct.unpack_from("<iIiiiI", cues, 4 + 280 * i)[5]
        for i in range(struct.unpack_from("<I", cues)[0])
    ]
    return Found(root, loops, tempo, beats, upper, positions)


@pytest.mark.parametrize("reader", [by_struct, by_libsndfile])
@pytest.mark.parametrize("bits", ["16", "24", "32f"])
def test_other_readers_find_root_loop_tempo_beats_and_cues(
    tmp_path: Path, reader: Any, bits: Any
) -> None:
    writing.write(tmp_path / "a.wav", noise(), RATE, None, bits, FULL)
    assert reader(tmp_path / "a.wav") == Found(57, [(100, 900)], 120.5, 8, 3, [0, 300, 600])


def test_ffprobe_finds_the_texts(tmp_path: Path) -> None:
    if not shutil.which("ffprobe"):
        pytest.skip("ffprobe is not here")
    for name in ("a.wav", "a.flac"):
        writing.write(tmp_path / name, noise(), RATE, None, "24", FULL)
        words = ["ffprobe", "-v", "error", "-of", "json", "-show_format", tmp_path / name]
        ended = subprocess.run(words, capture_output=True, text=True, check=True)
        assert ended.stderr == ""
        found = {k.lower(): v for k, v in json.loads(ended.stdout)["format"]["tags"].items()}
        assert found["encoder"] == "audiovq 0.1.0"
        if name == "a.wav":
            assert found["comment"] in (FULL.bext, FULL.info["ICMT"])
