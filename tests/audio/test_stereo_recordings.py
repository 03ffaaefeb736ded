"""Recordings read as left and right, more channels by their layout, and written again."""

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiovq.audio import reading, writing
from audiovq.audio.channels import SIDES, is_stereo, layout_of_mask, to_channels
from audiovq.audio.ends import ended, from_silence
from audiovq.audio.headers import opus_has_layout
from audiovq.audio.resampling import Resampler, resample, resample_all
from audiovq.audio.silence import SilenceDetector
from audiovq.audio.waveform import AudioError, Waveform

RATE = 8000
HALF = np.float32(0.5**0.5)


def noise(seed: int, samples: int = 4000) -> Waveform:
    return np.random.default_rng(seed).uniform(-0.1, 0.1, samples).astype(np.float32)


def read(path: Path) -> tuple[Waveform, list[str]]:
    """As stereo, by both ways of reading, and the notes."""
    notes: list[str] = []
    waveform, _ = reading.read(path, note=notes.append, channels=2)
    notes_of_short: list[str] = []
    short = reading.short(path, 1 << 20, notes_of_short.append, channels=2)
    assert short is not None
    np.testing.assert_array_equal(waveform, short[0])
    assert notes_of_short == notes
    return waveform, notes


def write_extensible(path: Path, channels: list[Waveform], mask: int) -> None:
    """A 16-bit WAV whose header has a channel mask."""
    count = len(channels)
    data = np.rint(np.stack(channels, axis=1) * 32768).astype("<i2").tobytes()
    guid = b"\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
    form = struct.pack(
        "<HHIIHHHHI", 0xFFFE, count, RATE, 2 * count * RATE, 2 * count, 16, 22, 16, mask
    )
    chunks = b"fmt " + struct.pack("<I", 40) + form + guid
    chunks += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_two_channels_are_left_and_right_and_one_is_both(tmp_path: Path, subtype: str) -> None:
    left, right = noise(0), noise(1)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype=subtype)
    waveform, notes = read(tmp_path / "a.wav")
    assert notes == []
    np.testing.assert_allclose(waveform, np.stack([left, right]), atol=4e-5)
    soundfile.write(tmp_path / "b.wav", left, RATE, subtype=subtype)
    waveform, notes = read(tmp_path / "b.wav")
    assert notes == []
    np.testing.assert_allclose(waveform, np.stack([left, left]), atol=4e-5)


def test_a_surround_recording_is_mixed_by_its_layout_without_the_effects(tmp_path: Path) -> None:
    """ITU-R BS.775: left + .707 centre + .707 left surround."""
    speakers = [noise(seed) for seed in range(6)]  # L R C LFE Ls Rs
    expected = np.stack(
        [
            speakers[0] + HALF * speakers[2] + HALF * speakers[4],
            speakers[1] + HALF * speakers[2] + HALF * speakers[5],
        ]
    )
    for mask in (0x3F, 0x60F):  # back or side
        write_extensible(tmp_path / "a.wav", speakers, mask)
        waveform, notes = read(tmp_path / "a.wav")
        np.testing.assert_allclose(waveform, expected, atol=1e-4)
        assert notes == ["6 channels are mixed to stereo by their layout (ITU-R BS.775)"]
    soundfile.write(tmp_path / "a.flac", np.stack(speakers, axis=1), RATE)
    waveform, notes = read(tmp_path / "a.flac")
    np.testing.assert_allclose(waveform, expected, atol=1e-4)
    assert "BS.775" in notes[0]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([1, HALF, 0], [0, HALF, 1]),  # L C R
        ([1, 0, HALF, 0], [0, 1, 0, HALF]),  # L R BL BR
        ([1, HALF, 0, HALF, 0], [0, HALF, 1, 0, HALF]),  # L C R BL BR
        ([1, HALF, 0, HALF, 0, 0], [0, HALF, 1, 0, HALF, 0]),  # L C R BL BR LFE
        ([1, HALF, 0, HALF, 0, 0.5, 0], [0, HALF, 1, 0, HALF, 0.5, 0]),  # L C R SL SR BC LFE
        ([1, HALF, 0, HALF, 0, HALF, 0, 0], [0, HALF, 1, 0, HALF, 0, HALF, 0]),  # … BL BR LFE
    ],
)
def test_ogg_has_the_layout_of_vorbis(
    tmp_path: Path, subtype: str, left: list[float], right: list[float]
) -> None:
    count, rate = len(left), 48_000
    turn = 0.3 * np.sin(2 * np.pi * 200 * np.arange(4800) / rate)
    in_turns = np.kron(np.eye(count), turn[:, None])  # codecs drop what louder channels mask
    soundfile.write(tmp_path / "a.ogg", in_turns, rate, subtype, format="OGG")
    stereo, notes = read(tmp_path / "a.ogg")
    middles = stereo.reshape(2, count, -1)[:, :, 960:-960]  # whole periods
    found = np.sqrt(2 * np.mean(middles**2, axis=2)) / 0.3
    np.testing.assert_allclose(found, [left, right], atol=0.05)
    assert "BS.775" in notes[0]


def test_opus_of_another_mapping_family_has_no_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.opus"
    soundfile.write(path, np.zeros((480, 3)), 48_000, "OPUS", format="OGG")
    assert opus_has_layout(str(path))
    data = bytearray(path.read_bytes())
    data[46] = 255  # channel mapping family: no meaning
    path.write_bytes(data)
    assert not opus_has_layout(str(path))


def test_a_w64_is_mixed_by_the_layout_in_its_header(tmp_path: Path) -> None:
    speakers = [noise(seed) for seed in range(6)]
    write_extensible(tmp_path / "a.wav", speakers, 0x60F)
    wav = (tmp_path / "a.wav").read_bytes()
    form, samples = wav[20:60], wav[68:]

    def chunk(name: bytes, content: bytes) -> bytes:
        rest = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
        return name + rest + struct.pack("<Q", 24 + len(content)) + content

    wave = b"wave\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
    whole = wave + chunk(b"fmt ", form) + chunk(b"data", samples)
    riff = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
    (tmp_path / "a.w64").write_bytes(riff + struct.pack("<Q", 24 + len(whole)) + whole)
    waveform, notes = read(tmp_path / "a.w64")
    np.testing.assert_array_equal(waveform, read(tmp_path / "a.wav")[0])
    assert "BS.775" in notes[0]


def test_channels_without_a_layout_alternate_between_left_and_right(tmp_path: Path) -> None:
    channels = [noise(seed) for seed in range(5)]
    soundfile.write(tmp_path / "a.wav", np.stack(channels, axis=1), RATE, subtype="PCM_16")
    waveform, notes = read(tmp_path / "a.wav")
    expected = [np.mean(channels[::2], axis=0), np.mean(channels[1::2], axis=0)]
    np.testing.assert_allclose(waveform, np.stack(expected), atol=1e-4)
    assert "unknown layout" in notes[0]


def test_a_mask_of_another_number_of_channels_is_no_layout() -> None:
    assert layout_of_mask(0x3F, 5) is None
    assert layout_of_mask(0, 3) is None
    assert layout_of_mask(0x3, 2) == SIDES[:2]
    above = layout_of_mask(0x7 | 1 << 17, 4)
    assert above is not None
    assert above[3] == (0.0, 0.0)


def test_each_side_loses_its_own_offset(tmp_path: Path) -> None:
    left, right = noise(0), noise(1)
    both = np.stack([left + 0.3, right], axis=1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", both, RATE, subtype="FLOAT")
    waveform, _ = read(tmp_path / "a.wav")
    np.testing.assert_allclose(waveform[0], left - left.mean(), atol=1e-4)
    np.testing.assert_allclose(waveform[1], right, atol=1e-6)


def test_samples_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    left, right = noise(0), noise(1)
    right[7] = np.nan
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="not numbers"):
        reading.read(tmp_path / "a.wav", channels=2)


@pytest.mark.parametrize("rate", [RATE, 6000, 11_025])
def test_each_side_is_resampled_as_alone_in_blocks_or_not(tmp_path: Path, rate: int) -> None:
    both = np.stack([noise(0), noise(1)])
    alone = [resample(np.ascontiguousarray(side), RATE, rate) for side in both]
    np.testing.assert_allclose(resample(both, RATE, rate), np.stack(alone), atol=1e-6)
    many = resample_all([both, both[:, :900]], RATE, rate)
    np.testing.assert_allclose(many[0], np.stack(alone), atol=1e-6)
    resampler = Resampler(RATE, rate, 2)
    parts = [resampler(both[:, :1000], False), resampler(both[:, 1000:], True)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), np.stack(alone), atol=1e-6)
    soundfile.write(tmp_path / "a.wav", both.T, RATE, subtype="FLOAT")
    blocks = list(reading.blocks(tmp_path / "a.wav", rate, block_samples=1024, channels=2))
    assert len(blocks) > 4
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), np.stack(alone), atol=1e-6)


def test_a_sound_is_silent_only_where_both_sides_are() -> None:
    sound = np.zeros((2, RATE), np.float32)
    sound[0, 3000:4000], sound[1, 5000:6000] = noise(0, 1000), noise(1, 1000)
    detector = SilenceDetector(RATE)
    for begin in range(0, RATE, 777):
        detector.add(sound[:, begin : begin + 777])
    start, end = detector.trim(50)
    assert 2800 <= start <= 3000
    assert 6000 <= end <= 6200
    assert detector.num_samples == RATE


def test_both_sides_are_faded_and_end_together() -> None:
    sound = np.stack([np.ones(RATE, np.float32), np.ones(RATE, np.float32)])
    faded = from_silence(sound, RATE)
    for side in faded:
        np.testing.assert_array_equal(side, from_silence(sound[0], RATE))
    late = np.zeros((2, RATE), np.float32)
    late[0, :1000], late[1, :3000] = 0.5, 0.5
    # The right side's step is in the windows of 20 ms from 360 and from 370 ms on, and 10 ms of silence follow.
    assert ended(late, RATE, trims=True).shape == (2, 40 * RATE // 100)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    both = np.stack([noise(0), noise(1)])
    assert not writing.write(tmp_path / "a.wav", both, RATE)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getnchannels() == 2
        assert file.getnframes() == both.shape[1]
    waveform, _ = read(tmp_path / "a.wav")
    np.testing.assert_allclose(waveform, both, atol=4e-5)
    writing.write_blocks(tmp_path / "b.wav", [both[:, :100], both[:, 100:]], RATE)
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_two_channels_are_stereo_where_their_difference_is_not_negligible() -> None:
    sound = noise(0)
    assert not is_stereo(np.stack([sound, sound]))
    assert not is_stereo(np.stack([sound, sound * np.float32(1.01)]))
    assert is_stereo(np.stack([sound, sound * np.float32(1.1)]))
    assert is_stereo(np.stack([sound, -sound]))
    assert is_stereo(np.stack([sound, 0 * sound]))
    assert not is_stereo(np.zeros((2, 10), np.float32))


def test_waveforms_are_brought_to_a_number_of_channels() -> None:
    left, right = noise(0), noise(1)
    both = np.stack([left, right])
    np.testing.assert_array_equal(to_channels(left, 2), np.stack([left, left]))
    np.testing.assert_allclose(to_channels(both, 1), both.mean(axis=0), atol=1e-7)
    assert to_channels(both, 2) is both
    assert to_channels(left, 1) is left
    np.testing.assert_array_equal(to_channels(np.stack([left, -left]), 1), left)
