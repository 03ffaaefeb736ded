"""Files to an archive and back: names, lengths, levels, figures, and nothing outside the folder."""

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiovq.audio import reading, writing
from audiovq.codec import archive, codec
from audiovq.codec import recordings as module
from audiovq.codec.files import decode_files, encode_files, reconstruct_files
from audiovq.codec.windows import Encoded, Limits
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion
from audiovq.models.model import Model


def test_encode_and_decode_give_the_files_of_reconstruct(
    model: Model, recordings: Path, tmp_path: Path
) -> None:
    stored = encode_files(model, recordings, tmp_path / "all.avq")
    paths = decode_files(model, tmp_path / "all.avq", tmp_path / "decoded")
    straight = reconstruct_files(model, recordings, tmp_path / "straight")
    assert stored == straight
    originals = sorted(recordings.rglob("*.wav"))
    assert len(paths) == len(originals) == stored["files"]
    for original in originals:
        name = original.relative_to(recordings)
        decoded, rate = soundfile.read(tmp_path / "decoded" / name)
        np.testing.assert_array_equal(decoded, soundfile.read(tmp_path / "straight" / name)[0])
        assert rate == model.sample_rate
        assert len(decoded) == len(reading.read(original, rate)[0])


def test_bits_per_second_are_those_of_the_file(
    model: Model, recordings: Path, tmp_path: Path
) -> None:
    figures = encode_files(model, recordings, tmp_path / "all.avq", coder="plain")
    data = (tmp_path / "all.avq").read_bytes()
    seconds = sum(soundfile.info(path).duration for path in recordings.rglob("*.wav"))
    assert figures["seconds"] == pytest.approx(seconds)
    assert figures["stored_bits_per_second"] == pytest.approx(
        8 * archive.size_without_names(data) / seconds
    )
    smaller = encode_files(model, recordings, tmp_path / "context.avq")
    assert smaller["stored_bits_per_second"] < figures["stored_bits_per_second"]
    assert smaller["nominal_bits_per_second"] == figures["nominal_bits_per_second"]


def test_one_recording_goes_into_one_file(model: Model, recordings: Path, tmp_path: Path) -> None:
    original = next(recordings.rglob("*.wav"))
    encode_files(model, original, tmp_path / "one.avq")
    assert decode_files(model, tmp_path / "one.avq", tmp_path / "back.wav") == [
        tmp_path / "back.wav"
    ]
    assert decode_files(model, tmp_path / "one.avq", tmp_path / "folder") == [
        tmp_path / "folder" / original.name
    ]


def test_a_recording_longer_than_any_clip_comes_back_whole(
    model: Model, tmp_path: Path, voice
) -> None:
    writing.write(tmp_path / "long.wav", np.tile(voice(0.5), 12), 8000)
    for coder in archive.CODERS:
        encode_files(model, tmp_path / "long.wav", tmp_path / f"{coder}.avq", coder=coder)
        (path,) = decode_files(model, tmp_path / f"{coder}.avq", tmp_path / f"{coder}.wav")
        assert soundfile.info(path).frames == 48_000


def test_unreadable_files_are_named_and_left_out(
    model: Model, own_recordings: Path, tmp_path: Path
) -> None:
    (own_recordings / "broken.wav").write_bytes(b"RIFFxxxx")
    said: list[str] = []
    figures = encode_files(model, own_recordings, tmp_path / "all.avq", say=said.append)
    assert figures["files"] == 24
    assert len(said) == 1
    assert "broken.wav" in said[0]


def test_existing_outputs_are_not_overwritten(
    model: Model, recordings: Path, tmp_path: Path
) -> None:
    encode_files(model, recordings, tmp_path / "all.avq")
    before = (tmp_path / "all.avq").read_bytes()
    with pytest.raises(AudiovqError, match="--overwrite"):
        encode_files(model, recordings, tmp_path / "all.avq")
    encode_files(model, recordings, tmp_path / "all.avq", overwrite=True)
    assert (tmp_path / "all.avq").read_bytes() == before
    decode_files(model, tmp_path / "all.avq", tmp_path / "out")
    with pytest.raises(AudiovqError, match="--overwrite"):
        decode_files(model, tmp_path / "all.avq", tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["../out.wav", "/tmp/out.wav", "a/../../b.wav", "a\\b.wav", "", "\0"]
)
def test_no_name_leads_out_of_the_folder(model: Model, name: str, tmp_path: Path, voice) -> None:
    (sound,) = codec.encode(model, [voice(0.3)])
    assert isinstance(sound, Encoded)
    (tmp_path / "evil.avq").write_bytes(archive.pack(model, {name: sound}))
    with pytest.raises(AudiovqError, match=r"evil\.avq: .*points outside"):
        decode_files(model, tmp_path / "evil.avq", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(
    os.name == "nt", reason="on Windows a backslash parts folders, so no name has one"
)
def test_names_that_cannot_be_decoded_are_not_encoded(
    model: Model, own_recordings: Path, tmp_path: Path
) -> None:
    odd = own_recordings / "a\\b.wav"
    shutil.copy(next(own_recordings.rglob("*.wav")), odd)
    said: list[str] = []
    figures = encode_files(model, own_recordings, tmp_path / "all.avq", say=said.append)
    assert figures["files"] == 24
    assert said == [f"left out: {odd}: this name cannot be stored in an archive; rename the file"]
    assert len(decode_files(model, tmp_path / "all.avq", tmp_path / "out")) == 24
    with pytest.raises(AudiovqError, match="rename the file"):
        encode_files(model, odd, tmp_path / "one.avq")


def test_a_damaged_or_missing_archive_is_named(
    model: Model, recordings: Path, tmp_path: Path
) -> None:
    encode_files(model, recordings, tmp_path / "all.avq")
    data = (tmp_path / "all.avq").read_bytes()
    (tmp_path / "half.avq").write_bytes(data[: len(data) // 2])
    shutil.copy(next(recordings.rglob("*.wav")), tmp_path / "sound.avq")
    for name in ("half.avq", "sound.avq", "missing.avq"):
        with pytest.raises(AudiovqError, match=name):
            decode_files(model, tmp_path / name, tmp_path / "out")


def test_a_long_recording_has_the_same_codes_in_windows_and_the_same_length(
    model: Model, recordings: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    pieces = [soundfile.read(path)[0] for path in sorted(recordings.rglob("*.wav"))]
    soundfile.write(folder / "long.wav", np.concatenate(pieces), 8000, "FLOAT")
    soundfile.write(folder / "loud.wav", 5 * np.concatenate(pieces[:4]), 8000, "FLOAT")
    encode_files(model, folder, tmp_path / "whole.avq")
    decode_files(model, tmp_path / "whole.avq", tmp_path / "whole")
    limits = Limits(batch_frames=600, block_samples=1000, window_frames=400)
    encode_files(model, folder, tmp_path / "pieces.avq", limits=limits)
    assert (tmp_path / "pieces.avq").read_bytes() == (tmp_path / "whole.avq").read_bytes()
    decode_files(model, tmp_path / "pieces.avq", tmp_path / "pieces", limits=limits)
    for name in ("long.wav", "loud.wav"):
        whole, joined = (soundfile.read(tmp_path / part / name)[0] for part in ("whole", "pieces"))
        assert len(whole) == len(joined) == soundfile.info(folder / name).frames
        assert np.square(joined).mean() == pytest.approx(np.square(whole).mean(), rel=0.1)


def wavs(folder: Path) -> set[str]:
    """Paths of all WAVs below a folder."""
    paths = (path for path in folder.rglob("*.[wW][aA][vV]") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths}


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0]


TWINS = ["a.flac", "a.flac.wav", "b.wav", "B.wav", "c.flac", "c.flac.wav/d.wav", "\u00e9.wav"]
TWINS += ["e\u0301.wav"]


def write_twins(folder: Path, voice: Any) -> Path:
    for number, name in enumerate(TWINS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, voice(0.2 + 0.01 * number), 8000)
    if len({(folder / name).stat().st_ino for name in TWINS}) < len(TWINS):
        pytest.skip("this disk takes some of the names for one")
    return folder


def test_sounds_with_colliding_names_are_written_to_different_files(
    model: Model, tmp_path: Path, voice: Any
) -> None:
    source, said = write_twins(tmp_path / "in", voice), list[str]()
    figures = encode_files(model, source, tmp_path / "all.avq", say=said.append)
    assert figures["files"] == len(TWINS)
    assert {line.partition(" as ")[0] for line in said} >= {"note: decode will write a.flac"}
    said.clear()
    paths = decode_files(model, tmp_path / "all.avq", tmp_path / "out", say=said.append)
    assert "note: writing a.flac as a.flac (2).wav" in said
    assert {path.relative_to(tmp_path / "out").as_posix() for path in paths} == wavs(
        tmp_path / "out"
    )
    figures = reconstruct_files(model, source, tmp_path / "back", say=lambda _: None)
    assert figures["files"] == len(wavs(tmp_path / "back")) == len(paths) == len(TWINS)
    lengths = sorted(len(reading.read(source / name, 8000)[0]) for name in TWINS)
    for folder in ("out", "back"):
        found = [len(samples(tmp_path / folder / name)) for name in wavs(tmp_path / folder)]
        assert sorted(found) == lengths, folder


def test_an_archive_with_colliding_names_loses_no_sound(
    model: Model, tmp_path: Path, voice: Any
) -> None:
    names = ["a//b", "a/b", "a/b/", "a/./b", "A/B.wav", "x.wav", "x.wav/y.wav", "z./q", "z/q"]
    sounds = codec.encode(model, [voice(0.2 + 0.01 * i) for i in range(len(names))])
    packed = archive.pack(model, dict(zip(names, sounds, strict=True)))
    (tmp_path / "odd.avq").write_bytes(packed)
    said: list[str] = []
    paths = decode_files(model, tmp_path / "odd.avq", tmp_path / "out", say=said.append)
    assert [len(samples(path)) for path in paths] == [sound.num_samples for sound in sounds]
    assert len({str(path).casefold() for path in paths}) == len(names)
    assert sum("note: writing" in line for line in said) >= 6


@pytest.mark.parametrize("name", [".unfinished/a.wav", ".written/a.wav", ".Written/a"])
def test_names_that_audiovq_uses_are_refused_in_an_archive(
    model: Model, name: str, tmp_path: Path, voice: Any
) -> None:
    (sound,) = codec.encode(model, [voice(0.3)])
    (tmp_path / "evil.avq").write_bytes(archive.pack(model, {name: sound}))
    with pytest.raises(AudiovqError, match=r"evil\.avq: .*which audiovq reserves"):
        decode_files(model, tmp_path / "evil.avq", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_long_names_are_kept_and_an_invalid_one_is_left_out_alone(
    model: Model, tmp_path: Path, voice: Any
) -> None:
    (tmp_path / "in").mkdir()
    names = ["x" * 245 + ".flac", "x" * 250 + ".wav", "語" * 80 + ".flac", "y.wav"]
    for name in names:
        soundfile.write(tmp_path / "in" / name, voice(0.2), 8000)
    encode_files(model, tmp_path / "in", tmp_path / "long.avq", say=lambda _: None)
    paths = decode_files(model, tmp_path / "long.avq", tmp_path / "long", say=lambda _: None)
    assert len(wavs(tmp_path / "long")) == len(paths) == len(names)
    sounds = codec.encode(model, [voice(0.2), voice(0.3)])
    packed = archive.pack(model, {"n" * 300 + "/a.wav": sounds[0], "b.wav": sounds[1]})
    (tmp_path / "bad.avq").write_bytes(packed)
    said: list[str] = []
    assert decode_files(model, tmp_path / "bad.avq", tmp_path / "bad", say=said.append) == [
        tmp_path / "bad" / "b.wav"
    ]
    assert [line.startswith("left out: ") and "nnn/a.wav" in line for line in said] == [True]
    (tmp_path / "only.avq").write_bytes(archive.pack(model, {"n" * 300 + "/a": sounds[0]}))
    with pytest.raises(AudiovqError, match="cannot be written"):
        decode_files(model, tmp_path / "only.avq", tmp_path / "only")


def test_every_file_left_out_is_named_with_a_reason(
    model: Model, own_recordings: Path, tmp_path: Path
) -> None:
    (own_recordings / "notes.txt").write_text("words")
    (own_recordings / "gone.wav").symlink_to("nowhere")
    (own_recordings / "link").symlink_to("jan")
    (own_recordings / "broken.flac").write_bytes(b"fLaC not really")
    for verb in (encode_files, reconstruct_files):
        said: list[str] = []
        figures = verb(model, own_recordings, tmp_path / verb.__name__, say=said.append)
        assert figures["files"] == 24
        left = {line.split(": ")[1]: line.split(": ", 2)[2] for line in said}
        assert {Path(name).name for name in left} == {
            "notes.txt",
            "gone.wav",
            "link",
            "broken.flac",
        }
        assert all(line.startswith("left out: ") for line in said)
        assert "link to a folder" in left[str(own_recordings / "link")]
        assert "broken link" in left[str(own_recordings / "gone.wav")]
    for number in range(30):
        (own_recordings / f"{number}.txt").write_text("words")
    said = []
    encode_files(model, own_recordings, tmp_path / "more.avq", say=said.append)
    assert len(said) < 15
    assert any(line.endswith("more files") for line in said)


def test_one_gain_for_all_sounds_keeps_their_relative_levels(
    model: Model, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    encode_files(model, recordings, tmp_path / "all.avq")
    decode_files(model, tmp_path / "all.avq", tmp_path / "all", say=said.append)
    assert said == []
    real = codec.decode

    def louder(*arguments: Any, **more: Any) -> list[Any]:
        return [8 * waveform for waveform in real(*arguments, **more)]

    monkeypatch.setattr(codec, "decode", louder)
    decode_files(model, tmp_path / "all.avq", tmp_path / "loud", say=said.append)
    (line,) = said
    gain = 10 ** (-float(line.split(" by ")[1].split(" dB")[0]) / 20)
    loudest = 0
    for name in wavs(tmp_path / "all"):
        plain, loud = samples(tmp_path / "all" / name), samples(tmp_path / "loud" / name)
        # The gain is printed in hundredths of a decibel: .06 % of full scale.
        np.testing.assert_allclose(loud, 8 * gain * plain.astype(float), atol=20)
        loudest = max(loudest, int(np.abs(loud.astype(int)).max()))
    assert loudest == 32767
    limits = Limits(window_frames=32, overlap_frames=16, fade_frames=2)  # every sound is long
    decode_files(model, tmp_path / "all.avq", tmp_path / "long", limits=limits, say=said.append)
    assert wavs(tmp_path / "long") == wavs(tmp_path / "all")


def test_outputs_of_a_stopped_decode_are_not_taken_for_finished(
    model: Model, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_files(model, recordings, tmp_path / "all.avq")
    decode_files(model, tmp_path / "all.avq", tmp_path / "straight")
    real, written = writing.write_blocks, list[Path]()

    def stopped(path: Path, *rest: Any) -> bool:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        return real(path, *rest)

    monkeypatch.setattr(writing, "write_blocks", stopped)
    with pytest.raises(KeyboardInterrupt):
        decode_files(model, tmp_path / "all.avq", tmp_path / "out")
    monkeypatch.undo()
    assert len(wavs(tmp_path / "out")) == 5
    with pytest.raises(AudiovqError, match="unfinished output of another command"):
        decode_files(model, tmp_path / "all.avq", tmp_path / "out", inversion=Inversion(n_iter=1))
    decode_files(model, tmp_path / "all.avq", tmp_path / "out")
    for name in wavs(tmp_path / "straight"):
        again = (tmp_path / "out" / name).read_bytes()
        assert again == (tmp_path / "straight" / name).read_bytes()
    encode_files(model, next(recordings.rglob("*.wav")), tmp_path / "one.avq")
    decode_files(model, tmp_path / "one.avq", tmp_path / "out", overwrite=True)
    assert len(wavs(tmp_path / "out")) == 1, "what the run before wrote is gone"


def test_inputs_are_not_overwritten(model: Model, own_recordings: Path, tmp_path: Path) -> None:
    one = own_recordings / "jan" / "0_jan_0.wav"
    (tmp_path / "link.wav").symlink_to(one)
    (tmp_path / "folder").symlink_to(own_recordings)
    (tmp_path / "hard.wav").hardlink_to(one)
    encode_files(model, one, tmp_path / "one.avq")
    before = {
        path: path.read_bytes() for path in (*own_recordings.rglob("*.wav"), tmp_path / "one.avq")
    }
    tries: list[tuple[Any, Path, Path]] = [
        (encode_files, one, one),
        (encode_files, one, tmp_path / "link.wav"),
        (encode_files, tmp_path / "link.wav", one),
        (encode_files, one, tmp_path / "hard.wav"),
        (encode_files, own_recordings, one),
        (encode_files, tmp_path / "folder", own_recordings / "jan" / ".." / "jan" / one.name),
        (reconstruct_files, one, one),
        (reconstruct_files, one, one.parent),
        (reconstruct_files, own_recordings, own_recordings),
        (reconstruct_files, own_recordings, tmp_path / "folder"),
        (reconstruct_files, own_recordings / "jan", own_recordings / "sam" / ".." / "jan"),
        (decode_files, tmp_path / "one.avq", tmp_path / "one.avq"),
    ]
    for verb, source, target in tries:
        with pytest.raises(
            AudiovqError, match=r"would (overwrite|be written over)|is a file|no folder"
        ):
            verb(model, source, target, overwrite=True, say=lambda _: None)
    assert before == {path: path.read_bytes() for path in before}
    shutil.copy(tmp_path / "one.avq", tmp_path / one.name)  # an archive named as its sound
    with pytest.raises(AudiovqError, match="would be overwritten"):
        decode_files(model, tmp_path / one.name, tmp_path, overwrite=True)


def test_one_recording_is_reconstructed_to_a_wav_or_into_a_folder(
    model: Model, own_recordings: Path, tmp_path: Path
) -> None:
    one = own_recordings / "jan" / "0_jan_0.wav"
    for target, written in (
        ("a.wav", tmp_path / "a.wav"),
        ("new", tmp_path / "new" / one.name),
        ("v1.2", tmp_path / "v1.2" / one.name),
    ):
        reconstruct_files(model, one, tmp_path / target, say=lambda _: None)
        assert soundfile.info(written).format == "WAV"
    encode_files(model, one, tmp_path / "one.avq")
    for verb, source in ((reconstruct_files, one), (decode_files, tmp_path / "one.avq")):
        with pytest.raises(AudiovqError, match=r"a.mp3: sounds are written as WAVs; give a .wav"):
            verb(model, source, tmp_path / "a.mp3")


def test_progress_of_decoding_counts_seconds_of_sound_block_by_block(
    model: Model, tmp_path: Path, voice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name, seconds in (("short", 0.7), ("long", 5.5)):
        soundfile.write(tmp_path / "in" / f"{name}.wav", voice(seconds), 8000)
    encode_files(model, tmp_path / "in", tmp_path / "a.avq", say=lambda _: None)
    steps: list[int] = []

    @contextlib.contextmanager
    def counted(task: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        steps.append(total)
        assert unit == "s of sound"
        yield steps.append

    monkeypatch.setattr("audiovq.codec.files.progress", counted)
    limits = Limits(window_frames=128)
    decode_files(model, tmp_path / "a.avq", tmp_path / "out", limits=limits, say=lambda _: None)
    total, *done = steps
    assert total == sum(done) == 6
    assert max(done) <= 2


def test_an_archive_that_is_not_a_file_is_refused(model: Model, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.avq")
    for source in (tmp_path / "pipe.avq", tmp_path, Path("/dev/zero")):
        with pytest.raises(AudiovqError, match="not a regular file"):
            decode_files(model, source, tmp_path / "out")


def test_arguments_are_checked_before_anything_is_read(model: Model, tmp_path: Path) -> None:
    for rate in (math.nan, math.inf, -math.inf, 0.0, -1.0):
        with pytest.raises(AudiovqError, match="rate"):
            encode_files(model, tmp_path / "none", tmp_path / "out.avq", rate=rate)
    for verb in (decode_files, reconstruct_files):
        with pytest.raises(AudiovqError, match="n_iter -1"):
            verb(model, tmp_path / "none", tmp_path / "out", inversion=Inversion(n_iter=-1))


def test_a_sound_shorter_than_one_sample_at_the_models_rate_is_named(
    model: Model, tmp_path: Path, voice: Any
) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "click.wav", [0.5], 44_100)
    for rate in (None, 1000.0):
        with pytest.raises(
            AudiovqError, match=r"click\.wav: is shorter than one sample at 8000 Hz"
        ):
            encode_files(model, tmp_path / "in", tmp_path / "all.avq", rate=rate)
    with pytest.raises(AudiovqError, match="shorter than one sample"):
        reconstruct_files(model, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    soundfile.write(tmp_path / "in" / "voice.wav", voice(0.3), 8000)
    said: list[str] = []
    assert encode_files(model, tmp_path / "in", tmp_path / "all.avq", say=said.append)["files"] == 1
    assert ["click.wav" in line for line in said] == [True]


def clean_and_noisy(folder: Path, files: int, voice: Any) -> Path:
    """Recordings that take few bits and many, in turn."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(files):
        sound = voice(0.2)
        if number % 2:
            sound = 0.3 * random.standard_normal(len(sound)).astype(np.float32)
        soundfile.write(folder / f"{number:04d}.wav", np.clip(sound, -1, 1), 8000)
    return folder


def meets_every_rate(model: Model, source: Path, folder: Path) -> None:
    """Rates are met by the whole archive from the least one on, and refused below with the least."""
    with pytest.raises(AudiovqError, match="take at least") as caught:
        encode_files(model, source, folder / "least.avq", rate=1.0)
    least = int(str(caught.value).split("at least ")[1].split(" ")[0])
    free = encode_files(model, source, folder / "free.avq")["stored_bits_per_second"]
    assert least < free
    for rate in (least, (least + free) / 2, free):
        path = folder / f"{rate:.0f}.avq"
        figures = encode_files(model, source, path, rate=rate)
        assert figures["stored_bits_per_second"] <= rate
        bits = 8 * archive.size_without_names(path.read_bytes())
        assert bits / figures["seconds"] <= rate
    with pytest.raises(AudiovqError, match=f"take at least {least} "):
        encode_files(model, source, folder / "below.avq", rate=least - 1)


def test_a_rate_is_met_even_if_the_excerpts_take_less(
    model: Model, tmp_path: Path, voice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clean_and_noisy(tmp_path / "in", 12, voice)
    clean = [reading.read(path, 8000)[0] for path in sorted(source.iterdir())[::2]]
    monkeypatch.setattr(module, "_excerpts", lambda *_: clean)
    meets_every_rate(model, source, tmp_path)


@pytest.mark.slow
def test_a_rate_is_met_for_more_files_than_excerpts(
    model: Model, tmp_path: Path, voice: Any
) -> None:
    meets_every_rate(model, clean_and_noisy(tmp_path / "in", 256, voice), tmp_path)


def test_excerpts_are_a_random_sample_of_readable_recordings(
    model: Model, tmp_path: Path, voice: Any
) -> None:
    source = clean_and_noisy(tmp_path / "in", 32, voice)
    paths = {path.name: path for path in sorted(source.iterdir())}
    limits = Limits(rate_files=8)
    excerpts = module._excerpts(model, paths, limits)
    noisy = [np.corrcoef(waveform[1:], waveform[:-1])[0, 1] < 0.5 for waveform in excerpts]
    assert len(noisy) == 8
    assert 0 < sum(noisy) < 8, "of both kinds"
    for number in range(0, 32, 2):
        paths[f"{number:04d}.wav"].write_bytes(b"RIFF")
    assert len(module._excerpts(model, paths, limits)) == 8


def test_a_rate_asked_for_is_met_or_refused(model: Model, recordings: Path, tmp_path: Path) -> None:
    free = encode_files(model, recordings, tmp_path / "free.avq")["stored_bits_per_second"]
    high = encode_files(model, recordings, tmp_path / "high.avq", rate=2 * free)
    assert high["stored_bits_per_second"] >= free
    asked = 0.97 * free
    low = encode_files(model, recordings, tmp_path / "low.avq", rate=asked)
    assert low["stored_bits_per_second"] <= asked
    with pytest.raises(AudiovqError, match="take at least"):
        encode_files(model, recordings, tmp_path / "none.avq", rate=1.0)
    assert not (tmp_path / "none.avq").exists()
    bare = Model(model.spectrogram, model.autoencoder)
    with pytest.raises(AudiovqError, match="no context tables"):
        encode_files(bare, recordings, tmp_path / "none.avq", rate=1000.0)


@pytest.mark.parametrize(("n", "words"), [(1, "; 1 other file"), (2, "; 2 other files")])
def test_a_folder_without_recordings_is_refused_with_the_number_of_its_files(
    model: Model, tmp_path: Path, n: int, words: str
) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    for i in range(n):
        (source / f"{i}.txt").touch()
    with pytest.raises(AudiovqError, match=f"{words}$"):
        encode_files(model, source, tmp_path / "all.avq")
