"""`inspect` agrees with `preprocess` on files and settings, and measures what it reports."""

import io
import json
import math
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import Waveform

from audiovq.audio import reading
from audiovq.cli.main import main
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.evaluation import fidelity
from audiovq.inspection.inspect import inspect
from audiovq.inspection.measure import measure
from audiovq.inspection.table import _bins as length_bins
from audiovq.inspection.table import inspection_table
from audiovq.models.folder import SEEDS, spectrogram_of
from audiovq.preprocessing.labels import guess_pattern, labels_of
from audiovq.preprocessing.preprocess import preprocess

Voice = Callable[..., Waveform]


def write_unusable_files(folder: Path, voice: Voice) -> dict[str, str]:
    """Write one file of each unusable kind, and a usable one; returns a part of the reason by name."""
    good = folder / "good.wav"
    soundfile.write(good, voice(0.5), 8000)
    (folder / "zero.wav").write_bytes(b"")
    (folder / "truncated.wav").write_bytes(good.read_bytes()[:30])
    (folder / "notes.wav").write_text("no sound at all")
    (folder / "notes.txt").write_text("words")
    soundfile.write(folder / "none.wav", np.zeros(0), 8000)
    soundfile.write(folder / "silent.wav", np.zeros(8000), 8000)
    soundfile.write(folder / "constant.wav", np.full(8000, 0.25), 8000)
    broken = voice(0.5)
    broken[100] = np.nan
    soundfile.write(folder / "nan.wav", broken, 8000, subtype="FLOAT")
    os.symlink(folder, folder / "loop")
    os.symlink(folder / "nowhere.wav", folder / "broken-link.wav")
    shutil.copy(good, os.fsencode(folder) + b"/odd\xff.wav")
    return {
        "zero.wav": "is empty",
        "truncated.wav": "is broken",
        "notes.wav": "is broken or not a sound file",
        "notes.txt": "has an unsupported file type (.txt)",
        "none.wav": "holds no samples",
        "silent.wav": "is silent",
        "constant.wav": "is silent",
        "nan.wav": "not numbers",
        "loop": "is a link to a folder",
        "broken-link.wav": "broken link",
        "odd?.wav": "is not UTF-8",
    }


def test_unusable_files_have_the_same_reasons_as_in_preprocess(
    voice: Voice, tmp_path: Path
) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    expected = write_unusable_files(folder, voice)
    soundfile.write(folder / "loud.wav", np.clip(3 * voice(0.4, 150), -0.9, 0.9), 8000)
    soundfile.write(folder / "again.flac", reading.read(folder / "good.wav")[0], 8000)
    soundfile.write(folder / "faster.wav", voice(0.3, sample_rate=16000), 16000)
    found = inspect(folder)
    reasons = {file.path: file.reason for file in found.skipped}
    assert reasons.keys() == expected.keys()
    assert all(reason in reasons[name] for name, reason in expected.items())
    summary = preprocess(folder, tmp_path / "dataset", say=lambda _: None)
    assert found.skipped == summary.skipped
    assert (found.found, found.usable) == (summary.found, summary.used)
    assert found.clips == sum(summary.clips.values())
    assert list(found.clipped) == ["loud.wav"]
    assert found.duplicates == [["again.flac", "good.wav"]]
    assert found.rates == {8000: 3, 16000: 1}
    table = inspection_table(found)
    assert all(name in table for name in expected)
    assert "8,000 Hz: the rate of most files" in table


def test_silent_files_are_not_counted_among_those_of_a_lower_rate(
    voice: Voice, tmp_path: Path
) -> None:
    for number in range(3):
        sound = voice(0.3, 100 + 20 * number, sample_rate=16000)
        soundfile.write(tmp_path / f"{number}.wav", sound, 16000)
    soundfile.write(tmp_path / "low.wav", voice(0.3), 8000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(4000), 8000)
    reasons = inspect(tmp_path, config=PreprocessConfig(sample_rate=16000)).reasons
    assert any("1 of 4 files has a lower sample rate than 16,000 Hz" in one for one in reasons)


def test_a_folder_without_usable_files_is_rejected_with_the_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 8000)
    (tmp_path / "empty.wav").write_bytes(b"")
    for number in range(9):
        (tmp_path / f"a{number}.txt").touch()
    assert main(["inspect", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "empty.wav is empty (0 bytes); silent.wav is silent throughout" in message
    with pytest.raises(AudiovqError, match="no such folder"):
        inspect(tmp_path / "nowhere")


def test_real_digits_get_8_khz_with_a_reason(fsdd: Path, tmp_path: Path) -> None:
    for path in sorted(fsdd.glob("*.wav"))[::30]:
        shutil.copy(path, tmp_path)
    found = inspect(tmp_path)
    assert found.settings.sample_rate == 8000
    assert found.reasons[0].startswith("8,000 Hz: the rate of all files")
    assert found.preset == "tiny"
    assert len(found.labels["label1"]) == 10
    assert 0.05 < found.ceiling["spectral_convergence"] < 0.3


@pytest.mark.parametrize(("top", "rate"), [(3_000, 8_000), (6_500, 16_000), (15_000, 44_100)])
def test_the_rate_fits_the_bandwidth_of_the_recordings(
    top: float, rate: int, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    for number in range(3):
        spectrum = np.fft.rfft(generator.standard_normal(44100))
        spectrum[int(top) :] = 0
        noise = np.fft.irfft(spectrum).astype(np.float32)
        soundfile.write(tmp_path / f"{number}.wav", 0.2 * noise, 44100)
    found = inspect(tmp_path)
    assert found.settings.sample_rate == rate
    assert found.reaches[-1] == pytest.approx(top, abs=200)
    if rate == 8_000:
        requested = inspect(tmp_path, config=PreprocessConfig(sample_rate=22050))
        assert requested.settings.sample_rate == 22050


def test_the_suggested_command_makes_the_dataset_that_was_described(
    own_recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flat = tmp_path / "it's flat"
    flat.mkdir()
    for path in own_recordings.rglob("*.wav"):
        shutil.copy(path, flat)
    found = inspect(flat, config=PreprocessConfig(trim=False, range_db=70))
    assert main(shlex.split(found.commands[0])[1:]) == 0
    dataset = Dataset(tmp_path / "dataset")
    assert dataset.spectrogram == found.settings
    assert dataset.clip_frames * 64 / 8000 == found.clip_seconds
    assert dataset.labels == found.labels == {"label1": ["0", "1", "2"], "label2": ["jan", "sam"]}
    assert not dataset.preprocess.trim
    assert found.commands[1] == "audiovq train dataset model --preset tiny"


@pytest.mark.parametrize("seed", ["sounds", "notes"])
def test_few_recordings_above_24_khz_start_from_a_seed_of_their_kind_and_their_dataset_is_as_described(
    seed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own").mkdir()
    for number in range(4):
        time = np.arange(24_000 + 400 * number)
        sound = np.random.default_rng(number).uniform(-0.5, 0.5, len(time)) * np.exp(-time / 900)
        if seed == "notes":
            partials = np.outer(np.arange(1, 70), 0.04 * (1 + number / 20) * time)
            sound = 0.02 * np.sin(partials).sum(axis=0)
        soundfile.write(f"own/{number}.wav", sound, 44_100)
    found = inspect("own")
    assert found.commands[0].startswith(f"audiovq preprocess own dataset --like {seed}")
    assert found.commands[1] == f"audiovq train dataset model --from {seed}"
    assert "--n-fft" not in found.commands[0]
    assert found.reasons[0].startswith(f"start from {seed}, a model of {SEEDS[seed]}, as 4 clips")
    assert main(shlex.split(found.commands[0])[1:]) == 0
    dataset = Dataset(Path("dataset"))
    assert dataset.spectrogram == found.settings == spectrogram_of(seed)
    frame = dataset.spectrogram.hop_length / dataset.spectrogram.sample_rate
    assert dataset.clip_frames * frame == found.clip_seconds
    advice = f"4 clips are few; --like {seed} makes"
    assert advice not in capsys.readouterr().out
    for flags, advised in (([], True), (["--hop-length", "128"], False)):
        folder = f"other{len(flags)}"
        assert main(["preprocess", "own", folder, *flags]) == 0
        assert (advice in capsys.readouterr().out) == advised
    asked = inspect("own", config=PreprocessConfig(hop_length=128)).commands
    assert asked[1] == "audiovq train dataset model --preset tiny"


def test_a_recording_that_gives_most_of_the_clips_is_named(voice: Voice, tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", voice(0.3, 100 + 20 * number), 8000)
    soundfile.write(folder / "walk.wav", voice(9.0, 90), 8000)
    config = PreprocessConfig(clip_seconds=1.0)
    found = inspect(folder, config=config)
    (note,) = [note for note in found.notes if "walk.wav" in note]
    assert note.startswith("walk.wav gives 9 of 13 clips")
    assert "take the file out of the folder, or cut it" in note
    said: list[str] = []
    preprocess(folder, tmp_path / "dataset", config, say=said.append)
    assert any(line.startswith("note: walk.wav gives ") for line in said)
    assert found.reasons[-2] == "clips of up to 1.02 s: longer files are cut"
    (folder / "walk.wav").unlink()
    fits = inspect(folder, config=config).reasons[-2]
    assert fits == "clips of up to 1.02 s: the longest file fits"


def test_the_ceiling_of_stereo_recordings_is_that_of_both_channels(
    voice: Voice, tmp_path: Path
) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(4):
        sides = np.stack([voice(0.5, 110 + 10 * number), voice(0.5, 400 + 10 * number)])
        soundfile.write(folder / f"{number}.wav", sides.T, 8000, subtype="FLOAT")
    found = inspect(folder, tmp_path / "out")
    assert found.settings.channels == 2
    assert "--channels stereo" in found.commands[0]
    assert any("4 of 4 sound files are stereo" in note for note in found.notes)
    written = sorted((tmp_path / "out").glob("*.wav"))
    originals, inverted = (
        [reading.read(path, channels=2)[0] for path in written if kind in path.name]
        for kind in ("original", "inverted")
    )
    assert {soundfile.info(path).channels for path in written} == {2}
    again = fidelity.waveform_scores(originals, inverted, found.settings)
    assert found.ceiling["spectral_convergence"] == pytest.approx(
        again["spectral_convergence"], abs=2e-3
    )
    mono = inspect(folder, config=PreprocessConfig(channels="mono"))
    assert mono.settings.channels == 1
    assert mono.ceiling["spectral_convergence"] != found.ceiling["spectral_convergence"]


def test_labels_by_folder_are_shown_and_need_no_flag(recordings: Path) -> None:
    found = inspect(recordings)
    assert found.labels == {"folder": ["jan", "sam"]}
    assert "--labels" not in found.commands[0]


@pytest.mark.parametrize(
    ("usable", "silent", "flag"),
    [
        (["kick/0", "kick/1", "snare/0", "snare/1"], ["empty/0"], ["--labels", "folder"]),
        (["kick/0", "kick/1"], ["empty/0", "empty/1"], ["--labels", "none"]),
        (["kick/0", "kick/1", "snare/0", "snare/1"], ["snare/2"], []),
    ],
)
def test_the_suggested_command_gives_the_labels_shown_where_silent_files_would_decide_otherwise(
    usable: list[str],
    silent: list[str],
    flag: list[str],
    voice: Voice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(usable + silent):
        path = Path("-sounds") / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = voice(0.3, 100 + 20 * number) * (name in usable)
        soundfile.write(path, sound, 8000)
    found = inspect("./-sounds")
    words = shlex.split(found.commands[0])[1:]
    assert words[1] == "./-sounds", "with a dash, it would be a flag"
    assert words[words.index("--labels") :][:2] == flag if flag else "--labels" not in words
    words[2] = "./-dataset"
    assert main(words) == 0
    assert "next: audiovq train ./-dataset MODEL" in capsys.readouterr().out
    assert Dataset(Path("-dataset")).labels == found.labels


def test_wavs_of_inspect_are_not_written_among_the_recordings(
    own_recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(own_recordings), "--out", str(own_recordings / "new/check")]) == 2
    assert "is inside the input" in capsys.readouterr().err
    assert not (own_recordings / "new").exists()


def test_where_near_copies_are_not_looked_for_none_are_counted(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiovq.inspection.inspect.MOST", 3)
    found = inspect(recordings)
    assert found.near_copies is None
    assert "near copies not looked for among more than" in inspection_table(found)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["{d}_{s}_{n}.wav"], ["label1", "label2"]),
        (["take-{n}-{s}.flac"], ["label1"]),
        (["{n}.wav"], []),
        (["{d}_{s}_{n}.wav", "other.wav"], []),
    ],
)
def test_labels_are_guessed_from_file_names_of_one_pattern(
    names: list[str], labels: list[str]
) -> None:
    import re

    paths = [
        name.format(d=d, s=s, n=f"{d}{i}{s}")
        for name in names
        for d in range(3)
        for s in ("ada", "bob")
        for i in range(5)
    ]
    pattern = guess_pattern(paths)
    if not labels:
        assert pattern is None
        return
    assert pattern is not None
    matches = [re.search(pattern, f"some_folder/{path}") for path in paths]
    assert all(match and list(match.groupdict()) == labels for match in matches)
    assert {match.groups() for match in matches if match} == (
        {(str(d), s) for d in range(3) for s in ("ada", "bob")}
        if len(labels) == 2
        else {("ada",), ("bob",)}
    )


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["Kick {}.wav", "kick_soft{}.wav", "Snare-Rim ({}).wav"], {"kick", "snare"}),
        (["bd_boom{}.flac", "loop_amen_full{}.flac", "elec{}.flac"], {"bd", "loop", "elec"}),
        (["Kick {}.wav", "Snare {}.wav", "0{}.wav"], None),  # a third begin with no word
        (["take {}.wav", "Take_{}.wav"], None),  # a single word tells nothing apart
        (["{}kick.wav", "{}snare.wav"], None),
    ],
)
def test_the_first_word_of_file_names_is_a_label_where_a_few_words_begin_them_all(
    names: list[str], values: set[str] | None
) -> None:
    paths = [f"a folder/{name.format(i)}" for name in names for i in range(10)]
    pattern = guess_pattern(paths)
    labels, notes = labels_of(Path(), paths, None)
    assert not any(labels.values())
    if values is None:
        assert pattern is None
        assert notes == []
        return
    (note,) = notes
    assert pattern is not None
    assert pattern in shlex.split(note)
    found, left = labels_of(Path(), paths, pattern)
    assert {row["name"] for row in found.values()} == values
    assert left == []
    assert (
        guess_pattern([f"{chr(97 + i // 26)}{chr(97 + i % 26)} 1.wav" for i in range(90)]) is None
    )


def test_no_file_names_have_no_pattern() -> None:
    assert guess_pattern([]) is None


def test_clips_and_their_inverted_spectrograms_are_written_with_figures(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["inspect", str(recordings), "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["settings"]["sample_rate"] == 8000
    figures = json.loads((out / "figures.json").read_text())
    assert figures["all"] == printed["ceiling"]
    originals = sorted(out.glob("*_original.wav"))
    assert len(originals) == len(figures["spectral_convergence"]) == 6
    names = dict(zip([p.name for p in originals], figures["spectral_convergence"], strict=True))
    for path in originals:
        original, inverted = (
            reading.read(path.with_name(path.name.replace("original", kind)))[0]
            for kind in ("original", "inverted")
        )
        assert len(original) == len(inverted)
        error = fidelity.spectral_convergence(original, inverted, 256, 64)
        assert error == pytest.approx(figures["spectral_convergence"][names[path.name]], abs=1e-3)
        assert 0.01 < error < 0.5
    assert main(["inspect", str(recordings), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_statistics_do_not_depend_on_the_block_size(voice: Voice, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    clipped = np.clip(4 * voice(2.048), -0.5, 0.5)
    soundfile.write(path, np.concatenate([clipped, np.zeros(16384)]), 8000)
    whole = measure(path, 50)
    in_blocks = measure(path, 50, block_samples=4096)
    assert in_blocks.sha256 == whole.sha256
    assert in_blocks.silent == whole.silent == pytest.approx(0.5, abs=0.02)
    assert in_blocks.bandwidth_hz == pytest.approx(whole.bandwidth_hz, rel=0.05)
    assert in_blocks.clipped == pytest.approx(whole.clipped, rel=0.02)
    assert whole.clipped > 0.05
    soundfile.write(path, voice(2.048), 8000)
    assert measure(path, 50).clipped == 0


@pytest.mark.parametrize("channels", [1, 2])
def test_an_empty_block_as_a_truncated_file_may_end_with_changes_no_figure(
    channels: int, voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack(channels * [voice(0.3)], axis=1), 8000)
    expected, blocks = measure(tmp_path / "a.wav", 50), reading.blocks

    def with_empty(path: Path, **settings: Any) -> Iterator[Waveform]:
        for block in blocks(path, **settings):
            yield block
            yield block[..., :0]

    monkeypatch.setattr(reading, "blocks", with_empty)
    assert measure(tmp_path / "a.wav", 50) == expected


@pytest.mark.parametrize("block_samples", [reading.BLOCK, 500])
@pytest.mark.parametrize("side", [1, -1])
def test_clipped_samples_equal_the_one_before_and_the_maximum_or_minimum(
    tmp_path: Path, block_samples: int, side: int
) -> None:
    path = tmp_path / "a.wav"

    def clipped(samples: Waveform) -> float:
        soundfile.write(path, side * samples, 8000)
        return measure(path, 50, block_samples=block_samples).clipped

    sound = 0.6 * np.sin(np.arange(8000) * 0.3)
    sound[100] = 0.99
    one_sided = np.maximum(sound, -0.5)
    repeats = (one_sided[1:] == -0.5) & (one_sided[:-1] == -0.5)
    assert repeats.mean() > 0.05
    assert clipped(one_sided) == pytest.approx(repeats.mean(), rel=1e-3)
    held = sound.copy()
    held[3000:3400] = 0.95  # the maximum of its block, not of the sound
    assert clipped(held) == 0
    assert clipped(np.maximum(sound, 0)) == 0  # silence on one side


def test_clipping_of_one_of_two_channels_is_found(voice: Voice, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    clipped, other = np.clip(4 * voice(1.0), -0.5, 0.5), 0.4 * voice(1.0, 150)
    soundfile.write(path, clipped, 8000)
    alone = measure(path, 50).clipped
    assert alone > 0.05
    soundfile.write(path, np.stack([other, clipped], axis=1), 8000)
    assert measure(path, 50).clipped == pytest.approx(alone, rel=0.01)


def test_recordings_with_swapped_channels_are_not_identical(voice: Voice, tmp_path: Path) -> None:
    sides = np.stack([voice(0.5), 0.2 * voice(0.5, 300)], axis=1)
    pair = (32767 * sides).astype(np.int16)
    paths = [tmp_path / name for name in ("a.wav", "b.wav", "c.flac")]
    for path, sound in zip(paths, (pair, pair[:, ::-1], pair), strict=True):
        soundfile.write(path, sound, 8000)
    a, b, c = (measure(path, 50).sha256 for path in paths)
    assert a == c != b


@pytest.mark.parametrize("num_samples", [500, 1500, 2000])
def test_bandwidth_is_measured_up_to_the_last_sample(num_samples: int, tmp_path: Path) -> None:
    burst = np.zeros(num_samples)
    burst[-400:] = np.random.default_rng(0).uniform(-0.5, 0.5, 400)
    soundfile.write(tmp_path / "burst.wav", burst, 44_100)
    assert measure(tmp_path / "burst.wav", 50).bandwidth_hz > 20_000


def test_the_suggested_command_is_accepted_for_the_shortest_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clicks").mkdir()
    for number in range(4):
        click = np.random.default_rng(number).uniform(-0.5, 0.5, 200)
        soundfile.write(f"clicks/{number}.wav", click, 44_100)
    found = inspect("clicks", config=PreprocessConfig(hop_length=12))
    assert found.clip_seconds < 0.02
    assert main(shlex.split(found.commands[0])[1:]) == 0
    dataset = Dataset(Path("dataset"))
    frame = dataset.spectrogram.hop_length / dataset.spectrogram.sample_rate
    assert dataset.clip_frames * frame == found.clip_seconds


def test_silent_clips_have_no_ceiling(
    voice: Voice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    late = np.concatenate([np.zeros(8 * 8000, np.float32), voice(1.0)])
    soundfile.write(tmp_path / "in" / "late.wav", late, 8000)
    assert main(["inspect", str(tmp_path / "in"), "--no-trim", "--clip-seconds", "2"]) == 0
    assert "not measured: these clips are silent" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_terminals_of_any_encoding_show_the_table(
    encoding: str, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stdout)
    assert main(["inspect", str(recordings)]) == 0
    stdout.flush()
    table = stdout.buffer.getvalue().decode(encoding)
    assert ("█" if encoding == "utf-8" else "##") in table
    assert "?" not in table


def test_histograms_count_every_recording(recordings: Path) -> None:
    found = inspect(recordings)
    lines = inspection_table(found).splitlines()
    assert lines[0].endswith("24 of 24 files usable, 8 s of sound")
    bars = [int(line.split()[-2]) for line in lines if line.endswith("█")]
    assert sum(bars) == 3 * 24  # rates, lengths, bandwidths; empty ranges have no bar
    assert lines[-3:] == found.commands
    assert math.isclose(sum(found.lengths), found.seconds)


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        ([1.0] * 60 + [60.0], [("1.00 s", 60), ("60.00 s", 1)]),
        ([1.0] * 99 + [3.0, 60.0], [("1.00 s", 99), ("3.00 to 60.00 s", 2)]),
        ([1.0] * 60 + [1.0005], [("1.00 s", 61)]),
        ([0.0], [("0.00 s", 1)]),
    ],
)
def test_a_histogram_of_nearly_equal_values_shows_the_longest_too(
    lengths: list[float], rows: list[tuple[str, int]]
) -> None:
    assert length_bins(lengths, "s", ".2f") == rows
