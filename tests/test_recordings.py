"""Files to an archive and back: names, lengths, levels, figures, and nothing outside the folder."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiovq import archive, audio, codec
from audiovq.checkpoint import Model
from audiovq.codec import Encoded
from audiovq.config import AudiovqError
from audiovq.recordings import decode_files, encode_files, reconstruct_files


def test_a_folder_comes_back_as_reconstruct_makes_it(
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
        assert len(decoded) == len(audio.read(original, rate)[0])


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
    audio.write(tmp_path / "long.wav", np.tile(voice(0.5), 12), 8000)
    for coder in archive.CODERS:
        encode_files(model, tmp_path / "long.wav", tmp_path / f"{coder}.avq", coder=coder)
        (path,) = decode_files(model, tmp_path / f"{coder}.avq", tmp_path / f"{coder}.wav")
        assert soundfile.info(path).frames == 48_000


def test_what_cannot_be_read_is_said_and_left_out(
    model: Model, own_recordings: Path, tmp_path: Path
) -> None:
    (own_recordings / "broken.wav").write_bytes(b"RIFFxxxx")
    said: list[str] = []
    figures = encode_files(model, own_recordings, tmp_path / "all.avq", say=said.append)
    assert figures["files"] == 24
    assert len(said) == 1
    assert "broken.wav" in said[0]


def test_nothing_is_written_over(model: Model, recordings: Path, tmp_path: Path) -> None:
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
    with pytest.raises(AudiovqError, match=r"evil\.avq: .*leads out"):
        decode_files(model, tmp_path / "evil.avq", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(
    os.name == "nt", reason="on Windows a backslash parts folders, so no name has one"
)
def test_what_could_not_be_decoded_is_not_encoded(
    model: Model, own_recordings: Path, tmp_path: Path
) -> None:
    odd = own_recordings / "a\\b.wav"
    shutil.copy(next(own_recordings.rglob("*.wav")), odd)
    said: list[str] = []
    figures = encode_files(model, own_recordings, tmp_path / "all.avq", say=said.append)
    assert figures["files"] == 24
    assert said == [f"left out: {odd}: no archive holds such a name; rename it"]
    assert len(decode_files(model, tmp_path / "all.avq", tmp_path / "out")) == 24
    with pytest.raises(AudiovqError, match="rename it"):
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


def test_a_long_recording_is_read_and_written_in_pieces_all_the_same(
    model: Model, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    pieces = [soundfile.read(path)[0] for path in sorted(recordings.rglob("*.wav"))]
    soundfile.write(folder / "long.wav", np.concatenate(pieces), 8000, "FLOAT")
    soundfile.write(folder / "loud.wav", 5 * np.concatenate(pieces[:4]), 8000, "FLOAT")
    encode_files(model, folder, tmp_path / "whole.avq")
    decode_files(model, tmp_path / "whole.avq", tmp_path / "whole")
    monkeypatch.setattr(codec, "BATCH_FRAMES", 600)
    monkeypatch.setattr(audio, "BLOCK", 1000)
    encode_files(model, folder, tmp_path / "pieces.avq")
    assert (tmp_path / "pieces.avq").read_bytes() == (tmp_path / "whole.avq").read_bytes()
    monkeypatch.setattr(codec, "WINDOW_FRAMES", 400)
    decode_files(model, tmp_path / "pieces.avq", tmp_path / "pieces")
    for name in ("long.wav", "loud.wav"):
        whole, joined = (soundfile.read(tmp_path / part / name)[0] for part in ("whole", "pieces"))
        assert len(whole) == len(joined) == soundfile.info(folder / name).frames
        assert np.square(joined).mean() == pytest.approx(np.square(whole).mean(), rel=0.1)


def test_sounds_that_were_made_softer_are_told_of(
    model: Model, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_files(model, recordings, tmp_path / "all.avq")
    said: list[str] = []
    decode_files(model, tmp_path / "all.avq", tmp_path / "all", say=said.append)
    assert said == []
    monkeypatch.setattr(codec, "decode", lambda *a, **k: [np.full(5, 2.0, np.float32)] * 24)
    decode_files(model, tmp_path / "all.avq", tmp_path / "loud", say=said.append)
    assert ["24 of 24 sounds" in line for line in said] == [True]


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
