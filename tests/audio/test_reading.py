"""`audiovq.audio` reads any file as mono float32 within full scale, or refuses it with a reason."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from file_modes import modes_hold
from hypothesis import example, given
from hypothesis import strategies as st

from audiovq.audio import finding, reading, writing
from audiovq.audio.reading import AudioInfo, bits_of
from audiovq.audio.resampling import resample, resample_all
from audiovq.audio.silence import SilenceDetector, trim
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.config.errors import AudiovqError
from audiovq.inspection.describe import load_librosa

RATES = (8000, 11_025, 16_000, 22_050, 44_100, 48_000)


def sine(frequency: float, sample_rate: int, num_samples: int) -> Waveform:
    time = np.arange(num_samples) / sample_rate
    return (0.5 * np.sin(2 * math.pi * frequency * time)).astype(np.float32)


def noise(num_samples: int, seed: int = 0) -> Waveform:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, num_samples).astype(np.float32)


def reason(path: Path) -> str:
    """Why a file cannot be read."""
    with pytest.raises(AudioError) as caught:
        reading.read(path)
    return str(caught.value)


# --- Find -------------------------------------------------------------------------------------


def test_recordings_in_all_folders_are_listed_in_order_without_hidden_files(
    tmp_path: Path,
) -> None:
    names = ["b.wav", "a.FLAC", "c/d/e.Mp3", "c/a.ogg", "a/z.aiff", "notes.txt", "c/noending"]
    hidden = [".a.wav", ".cache/b.wav", "c/.git/d.wav", ".notes.txt"]
    for name in names + hidden:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    recordings, others = finding.find(tmp_path)
    assert recordings == ["a/z.aiff", "a.FLAC", "b.wav", "c/a.ogg", "c/d/e.Mp3"]
    assert others == ["c/noending", "notes.txt"]
    assert set(recordings + others) == set(names)
    assert [tmp_path / name for name in recordings] == sorted(map(tmp_path.joinpath, recordings))


def test_a_hidden_folder_is_searched_when_it_is_the_root(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.wav").touch()
    assert finding.find(tmp_path / ".hidden") == (["a.wav"], [])


def test_a_path_that_is_not_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.wav").touch()
    for path in (tmp_path / "file.wav", tmp_path / "missing"):
        with pytest.raises(AudiovqError, match=path.name):
            finding.find(path)


def test_a_folder_that_cannot_be_looked_up_or_opened_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    closed = tmp_path / "closed"
    (closed / "in").mkdir(parents=True)
    (closed / "in" / "a.wav").touch()
    with pytest.raises(AudiovqError, match=r"xx: cannot be opened \(File name too long\)"):
        finding.find(tmp_path / ("x" * 300))
    with modes_hold():
        closed.chmod(0o000)
        for path in (closed, closed / "in"):
            with pytest.raises(AudiovqError, match=rf"{path}: cannot be opened \(Permission"):
                finding.find(path)
        assert finding.find(tmp_path) == ([], ["closed"])
        closed.chmod(0o700)


# --- Read -------------------------------------------------------------------------------------

LOSSLESS = [
    ("wav", "PCM_U8", 8),
    ("wav", "PCM_16", 16),
    ("wav", "PCM_24", 24),
    ("wav", "PCM_32", 24),  # float32 holds 24 bits
    ("wav", "FLOAT", 24),
    ("wav", "DOUBLE", 24),
    ("flac", "PCM_16", 16),
    ("flac", "PCM_24", 24),
    ("aiff", "PCM_16", 16),
]


@pytest.mark.parametrize(("suffix", "subtype", "bits"), LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_lossless_file_gives_the_mean_of_its_channels(
    tmp_path: Path, suffix: str, subtype: str, bits: int, channels: int
) -> None:
    samples = np.stack([noise(1000, seed) for seed in range(channels)], axis=1)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, samples, 22_050, subtype=subtype)
    waveform, rate = reading.read(path)
    assert (rate, waveform.dtype, waveform.shape) == (22_050, np.float32, (1000,))
    np.testing.assert_allclose(waveform, samples.mean(axis=1), atol=1.01 * 2.0 ** (1 - bits))
    assert reading.info(path) == AudioInfo(22_050, channels, 1000)


@pytest.mark.parametrize(
    ("suffix", "container", "subtype"),
    [("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS"), ("mp3", "MP3", "MPEG_LAYER_III")],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_lossy_file_is_read_close_to_the_original(
    tmp_path: Path, suffix: str, container: str, subtype: str, channels: int
) -> None:
    sound = sine(440, 48_000, 24_000)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(
        path, np.stack([sound] * channels, axis=1), 48_000, format=container, subtype=subtype
    )
    waveform, rate = reading.read(path)
    assert (rate, waveform.dtype, waveform.ndim) == (48_000, np.float32, 1)
    assert abs(len(waveform) - len(sound)) < 0.05 * 48_000
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    assert np.argmax(spectrum) * rate / len(waveform) == pytest.approx(440, abs=4)
    assert np.sqrt(np.mean(waveform**2)) == pytest.approx(0.5 / math.sqrt(2), rel=0.05)


def test_waveforms_equal_those_of_librosa(digits: Path) -> None:
    for path in sorted(digits.glob("*.wav"))[::100]:
        expected, rate = load_librosa().load(path, sr=None, mono=True)
        waveform, found_rate = reading.read(path)
        assert found_rate == rate
        np.testing.assert_array_equal(waveform, expected)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("peak", [1.5, 1e6, 3.3e38])
def test_a_float_file_beyond_full_scale_is_scaled_down_to_it(
    tmp_path: Path, channels: int, peak: float
) -> None:
    sound = np.concatenate([noise(500), [np.float32(1)]])
    path = tmp_path / "a.wav"
    samples = np.stack([sound * np.float32(peak)] * channels, axis=1)
    soundfile.write(path, samples, 8000, subtype="FLOAT")
    np.testing.assert_allclose(reading.read(path)[0], sound, atol=1e-6)


def test_a_float_file_within_full_scale_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.01 * noise(500), 8000, subtype="FLOAT")
    np.testing.assert_array_equal(reading.read(path)[0], np.float32(0.01) * noise(500))


@pytest.mark.parametrize("rate", RATES)
def test_a_recording_resampled_to_any_rate_is_within_full_scale(tmp_path: Path, rate: int) -> None:
    square = np.sign(sine(997, 16_000, 4000) + 1e-9)  # rings above full scale when resampled
    path = tmp_path / "a.wav"
    soundfile.write(path, square, 16_000, subtype="PCM_16")
    waveform, found_rate = reading.read(path, rate)
    assert found_rate == rate
    assert np.abs(waveform).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    sound = noise(100)
    sound[50] = value
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    assert "NaN" in reason(tmp_path / "a.wav")


def test_a_file_that_is_not_sound_is_refused_with_a_one_line_reason(tmp_path: Path) -> None:
    good = tmp_path / "good.wav"
    soundfile.write(good, noise(1000), 8000)
    broken = {
        "empty.wav": b"",
        "text.wav": b"Dear diary, today I recorded nothing.\n" * 20,
        "header.wav": good.read_bytes()[:20],
        "garbage.flac": np.random.default_rng(0).bytes(5000),
        "garbage.mp3": bytes(5000),
        "named.ogg": b"OggS" + bytes(100),
    }
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
    soundfile.write(tmp_path / "none.wav", noise(0), 8000)
    for name in [*broken, "none.wav", "missing.wav"]:
        for read in (reading.read, reading.info):
            with pytest.raises(AudioError) as caught:
                read(tmp_path / name)
            text = str(caught.value)
            assert text
            assert "\n" not in text
            assert str(tmp_path) not in text  # the caller names the file
    assert "UTF-8" in reason(tmp_path / "caf\udce9.wav")
    assert reason(tmp_path / "empty.wav") == "is empty (0 bytes)"
    assert "not a sound file" in reason(tmp_path / "text.wav")
    assert "no samples" in reason(tmp_path / "none.wav")
    assert "cannot be opened" in reason(tmp_path / "missing.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_truncated_file_gives_the_rest_of_its_sound_or_a_reason(
    tmp_path: Path, suffix: str
) -> None:
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    soundfile.write(whole, sine(440, 44_100, 44_100), 44_100)
    data = whole.read_bytes()
    for part in (0.01, 0.1, 0.5, 0.9, 0.99):
        cut.write_bytes(data[: int(part * len(data))])
        try:
            waveform, _ = reading.read(cut)
        except AudioError:
            continue
        assert np.isfinite(waveform).all()
        assert np.abs(waveform).max() <= 1


@given(st.data())
def test_a_damaged_file_gives_sound_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.wav"
    subtype = data.draw(st.sampled_from(["PCM_16", "FLOAT"]))
    soundfile.write(path, noise(40), 8000, subtype=subtype)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        waveform, _ = reading.read(path)
    except AudioError:
        return
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert np.abs(waveform).max() <= 1  # and so no NaN


# --- Blocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [None, 8000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_joined_are_the_whole_recording(
    tmp_path: Path, suffix: str, rate: int | None, channels: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([noise(5000), noise(5000, 1)][:channels], axis=1), 16_000)
    blocks = list(reading.blocks(path, rate, block_samples=1000))
    assert len(blocks) >= 5
    assert all(block.dtype == np.float32 for block in blocks)
    assert all(len(block) < 4000 for block in blocks)  # more than 1000: the resampler has a delay
    (whole,) = reading.blocks(path, rate)
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_a_beginning_is_that_of_the_whole_and_nothing_after_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(5000), 16_000)
    whole, rate = reading.read(path)
    for seconds, samples in ((0.1, 1600), (9.0, 5000), (0.0, 1)):
        np.testing.assert_array_equal(reading.beginning(path, seconds)[0], whole[:samples])
    taken = []

    def blocks(*_: object, **__: object) -> Iterator[Waveform]:
        for begin in range(0, 5000, 1000):
            taken.append(begin)
            yield whole[begin : begin + 1000]

    monkeypatch.setattr(reading, "blocks", blocks)
    assert len(reading.beginning(path, 1500 / rate)[0]) == 1500
    assert taken == [0, 1000]


@given(
    num_samples=st.integers(1, 4000),
    from_rate=st.sampled_from([*RATES, 44_101, 22_254]),
    to_rate=st.sampled_from(RATES),
)
def test_resampled_blocks_have_as_many_samples_as_the_whole(
    tmp_path_factory: pytest.TempPathFactory, num_samples: int, from_rate: int, to_rate: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks.wav"
    soundfile.write(path, noise(num_samples), from_rate, subtype="FLOAT")
    found = np.concatenate(list(reading.blocks(path, to_rate, block_samples=700)))
    assert abs(len(found) - num_samples * to_rate / from_rate) <= 0.5
    resampled = resample(reading.read(path)[0], from_rate, to_rate)
    np.testing.assert_array_equal(found, resampled)


def test_samples_that_are_not_finite_are_refused_in_any_block(tmp_path: Path) -> None:
    sound = noise(5000)
    sound[4321] = np.nan
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        list(reading.blocks(tmp_path / "a.wav", block_samples=1000))


# --- Short recordings -------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_16"), ("wav", "PCM_24"), ("flac", "PCM_16"), ("mp3", "MPEG_LAYER_III")],
)
def test_a_short_recording_gives_its_one_block(
    tmp_path: Path, suffix: str, subtype: str, channels: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    sound = np.stack([noise(5000), noise(5000, 1)][:channels], axis=1) + np.float32(0.05)
    soundfile.write(path, sound, 16_000, subtype=subtype)
    (block,) = reading.blocks(path)
    found = reading.short(path, len(block) + 1)
    assert found is not None
    np.testing.assert_array_equal(found[0], block)
    assert found[1] == 16_000
    assert reading.short(path, len(block)) is None
    header = soundfile.info(path)
    assert reading.info(path) == AudioInfo(header.samplerate, header.channels, header.frames)


@given(st.data())
def test_a_damaged_plain_wav_header_is_read_as_libsndfile_reads_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.wav"
    soundfile.write(path, noise(40), 8000, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, 43))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 2]))])
    try:
        header = soundfile.info(path)
        samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
        is_read = reading.LOWEST_RATE <= header.samplerate <= reading.HIGHEST_RATE
    except soundfile.LibsndfileError:
        is_read = False
    if not is_read:
        with pytest.raises(AudioError):
            reading.info(path)
        return
    if header.frames == 0:
        return
    assert reading.info(path) == AudioInfo(header.samplerate, header.channels, header.frames)
    found = reading.short(path, 1000)
    assert found is not None
    assert len(found[0]) == len(samples)


# --- Offset -----------------------------------------------------------------------------------


def test_a_dc_offset_that_exceeds_the_sound_is_removed(
    tmp_path: Path, voice: Callable[..., Waveform]
) -> None:
    sound = np.float32(0.2) * voice(0.5)
    soundfile.write(tmp_path / "a.wav", sound + np.float32(0.4), 8000, subtype="FLOAT")
    np.testing.assert_allclose(reading.read(tmp_path / "a.wav")[0], sound, atol=2e-3)


@pytest.mark.parametrize("value", [1.0, -1.0, 0.3])
@pytest.mark.parametrize("rate", [8000, 11_025])
def test_a_constant_signal_is_read_as_silence(tmp_path: Path, value: float, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(4000, value), 8000, subtype="FLOAT")
    assert not reading.read(tmp_path / "a.wav", rate)[0].any()


@pytest.mark.parametrize("offset", [0.001, 0.01, 0.1, 0.5])
def test_a_dc_offset_does_not_change_what_is_trimmed(
    tmp_path: Path, offset: float, voice: Callable[..., Waveform]
) -> None:
    sound = np.concatenate([np.zeros(2000, np.float32), voice(0.5), np.zeros(2000, np.float32)])
    soundfile.write(tmp_path / "a.wav", sound + np.float32(offset), 8000, subtype="FLOAT")
    assert trim(reading.read(tmp_path / "a.wav")[0], 8000, 50) == trim(sound, 8000, 50)


# --- Resample ---------------------------------------------------------------------------------


@given(
    num_samples=st.integers(1, 3000),
    from_rate=st.sampled_from(RATES),
    to_rate=st.sampled_from(RATES),
)
def test_resampling_keeps_the_length_in_seconds(
    num_samples: int, from_rate: int, to_rate: int
) -> None:
    resampled = resample(noise(num_samples), from_rate, to_rate)
    assert resampled.dtype == np.float32
    assert abs(len(resampled) - num_samples * to_rate / from_rate) <= 0.5


@pytest.mark.parametrize("from_rate", RATES)
@pytest.mark.parametrize("to_rate", RATES)
def test_a_sine_resampled_is_the_sine_at_the_other_rate(from_rate: int, to_rate: int) -> None:
    resampled = resample(sine(440, from_rate, from_rate), from_rate, to_rate)
    middle = slice(to_rate // 10, -to_rate // 10)  # the ends ring
    np.testing.assert_allclose(
        resampled[middle], sine(440, to_rate, to_rate)[middle], atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("from_rate", [*RATES, 22_254, 44_056])
@pytest.mark.parametrize("to_rate", [8000, 16_000, 22_050, 44_100])
def test_waveforms_resampled_together_equal_those_resampled_alone(
    from_rate: int, to_rate: int
) -> None:
    """Within float32 rounding of each waveform's own peak, whatever the peaks of the others."""
    gains = [10.0**power for power in (0, -8, 3, 30, -30, -2)]
    lengths = [1, 2, 777, 3000, 160, 5]
    waveforms = [
        (gain * noise(length, seed)).astype(np.float32)
        for seed, (gain, length) in enumerate(zip(gains, lengths, strict=True))
    ]
    waveforms.insert(2, np.zeros(100, np.float32))
    together = resample_all(waveforms, from_rate, to_rate)
    for waveform, found in zip(waveforms, together, strict=True):
        alone = resample(waveform, from_rate, to_rate)
        assert found.dtype == np.float32
        atol = 4e-6 * float(np.abs(waveform).max())
        np.testing.assert_allclose(found, alone, atol=atol, rtol=0)


def test_frequencies_above_the_new_nyquist_are_removed() -> None:
    resampled = resample(sine(6000, 16_000, 16_000), 16_000, 8000)
    assert np.abs(resampled[800:-800]).max() < 1e-4


# --- Trim -------------------------------------------------------------------------------------


@given(
    before=st.integers(0, 3000),
    length=st.integers(400, 3000),
    after=st.integers(0, 3000),
    sample_rate=st.sampled_from([8000, 11_025, 16_000]),
)
def test_trimming_cuts_silence_and_keeps_all_sound(
    before: int, length: int, after: int, sample_rate: int
) -> None:
    waveform = np.concatenate([np.zeros(before), noise(length), np.zeros(after)]).astype(np.float32)
    start, end = trim(waveform, sample_rate, 50)
    kept = sample_rate // 100  # 10 ms on each side
    assert 0 <= start <= max(0, before - kept)
    assert min(len(waveform), before + length + kept) <= end <= len(waveform)
    assert before - start <= 0.03 * sample_rate
    assert end - (before + length) <= 0.04 * sample_rate


@given(seed=st.integers(0, 1000), trim_db=st.sampled_from([20.0, 50.0]))
def test_trimming_cuts_only_windows_far_below_the_loudest(seed: int, trim_db: float) -> None:
    rng = np.random.default_rng(seed)
    steps = np.repeat(10.0 ** rng.uniform(-4, 0, 20), 240)
    waveform = (steps * noise(len(steps), seed)).astype(np.float32)
    start, end = trim(waveform, 8000, trim_db)
    power = np.convolve(waveform.astype(np.float64) ** 2, np.ones(160), mode="same")
    is_cut = np.ones(len(waveform), bool)
    is_cut[max(0, start - 80) : end + 80] = False  # windows of 20 ms that were cut entirely
    limit = power.max() * 10 ** (-trim_db / 10)
    assert power[is_cut].max(initial=0) <= 4 * limit  # 4: these windows are not those of `trim`


@given(st.data())
def test_any_blocks_are_trimmed_as_the_whole_recording(data: st.DataObject) -> None:
    waveform = np.concatenate([np.zeros(500), noise(1000), np.zeros(700)]).astype(np.float32)
    detector = SilenceDetector(8000)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(waveform)), max_size=8)))
    for block in np.split(waveform, cuts):
        detector.add(block)
    assert detector.num_samples == len(waveform)
    assert detector.peak == np.abs(waveform).max()
    assert detector.trim(50) == trim(waveform, 8000, 50)


def test_trimming_does_not_depend_on_the_level(voice: Callable[..., Waveform]) -> None:
    waveform = np.concatenate([1e-4 * noise(2000), voice(0.5), 1e-4 * noise(2000)])
    assert trim(waveform, 8000, 50) == trim(waveform / 1024, 8000, 50)
    assert trim(waveform, 8000, 50)[0] > 1500


@given(st.integers(0, 500))
@example(0)
def test_silence_of_any_length_is_trimmed_to_nothing(num_samples: int) -> None:
    assert trim(np.zeros(num_samples, np.float32), 8000, 50) == (0, 0)


@given(st.integers(2, 500))
def test_a_sound_without_silence_is_kept_whole(num_samples: int) -> None:
    assert trim(noise(num_samples) + np.float32(0.01), 8000, 50) == (0, num_samples)


# --- Write ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hertz", [10, 25, 50])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_a_square_wave_is_no_silence(hertz: int, channels: tuple[int, ...]) -> None:
    square = np.where(np.arange(8000) * 2 * hertz // 8000 % 2 == 0, 0.5, -0.5).astype(np.float32)
    start, end = trim(np.broadcast_to(square, (*channels, 8000)), 8000, 50)
    half = 8000 // (2 * hertz)
    assert start <= half
    assert end >= 8000 - half


def test_bits_are_those_of_the_samples(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 2000)
    kinds = {"ALAC_16": "16", "ALAC_24": "24", "ALAC_32": "32f", "PCM_32": "32f"}
    for kind, bits in kinds.items():
        soundfile.write(tmp_path / "a.caf", sound, 8000, format="CAF", subtype=kind)
        assert bits_of(tmp_path / "a.caf") == bits


def test_a_16_bit_recording_read_and_written_is_identical(tmp_path: Path) -> None:
    samples = np.arange(-32_767, 32_768).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="PCM_16")
    waveform, rate = reading.read(tmp_path / "a.wav")
    assert writing.write(tmp_path / "b.wav", waveform, rate) is False
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_a_written_waveform_is_read_back_within_16_bit_rounding(tmp_path: Path) -> None:
    assert writing.write(tmp_path / "a.wav", noise(5000), 11_025) is False
    waveform, rate = reading.read(tmp_path / "a.wav")
    assert rate == 11_025
    np.testing.assert_allclose(waveform, noise(5000), atol=0.51 / 32_768, rtol=0)


@pytest.mark.parametrize("gain", [1.2, -1.2, 7.0, -1e6])
def test_a_loud_waveform_is_turned_down_and_never_clipped(tmp_path: Path, gain: float) -> None:
    sound = noise(5000)
    assert writing.write(tmp_path / "a.wav", np.float32(gain) * sound, 8000) is True
    waveform, _ = reading.read(tmp_path / "a.wav")
    full_scale = math.copysign(1, gain) * sound / np.abs(sound).max()
    np.testing.assert_allclose(waveform, full_scale, atol=2 / 32_768, rtol=0)
    assert np.count_nonzero(np.abs(waveform) >= 32_767 / 32_768) == 1  # its peak alone


def test_writing_does_not_change_the_waveform_given(tmp_path: Path) -> None:
    loud = 3 * noise(500)
    writing.write(tmp_path / "a.wav", loud, 8000)
    np.testing.assert_array_equal(loud, 3 * noise(500))


@pytest.mark.parametrize("num_samples", [0, 1])
def test_the_shortest_waveforms_can_be_written(tmp_path: Path, num_samples: int) -> None:
    writing.write(tmp_path / "new" / "a.wav", noise(num_samples), 8000)
    assert soundfile.info(tmp_path / "new" / "a.wav").frames == num_samples
    assert len(list((tmp_path / "new").iterdir())) == 1


# --- Channels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.ogg", "a.mp3"])
def test_channels_are_read_as_they_are_at_the_rate_of_the_file(tmp_path: Path, name: str) -> None:
    sound = np.stack([noise(30_000), 0.5 * noise(30_000, 1)])
    soundfile.write(tmp_path / name, sound.T, 22_050)
    expected, _ = soundfile.read(tmp_path / name, dtype="float32")
    found, rate = reading.read_channels(tmp_path / name)
    assert rate == 22_050
    np.testing.assert_allclose(found, expected.T, atol=1e-6)  # an MP3 may differ by rounding
    assert reading.bits_of(tmp_path / name) == "16"
    for subtype, bits in (("PCM_24", "24"), ("FLOAT", "32f"), ("PCM_U8", "16")):
        soundfile.write(tmp_path / "b.wav", sound.T, 22_050, subtype)
        assert reading.bits_of(tmp_path / "b.wav") == bits


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_channels_of_a_truncated_file_are_read_up_to_its_last_sample(
    tmp_path: Path, name: str
) -> None:
    soundfile.write(tmp_path / name, np.stack([noise(30_000), noise(30_000, 1)], 1), 8000)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50_000])
    found, _ = reading.read_channels(tmp_path / name)
    assert found.shape == (2, len(reading.read(tmp_path / name)[0]))
    (tmp_path / "text.wav").write_text("words")
    for read in (reading.read_channels, reading.bits_of):
        with pytest.raises(AudioError, match="is broken or not a sound file"):
            read(tmp_path / "text.wav")
