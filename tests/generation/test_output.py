"""Files of new sounds: levels, bits, loops of bars, sounds of each label value, more sounds of an earlier run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import tiny_model, untrained

from audiovq.audio import chunks, writing
from audiovq.audio.chunks import Tags
from audiovq.audio.waveform import peak_of
from audiovq.cli.arguments import drawn_seed, parse_bars
from audiovq.cli.main import main
from audiovq.config.errors import AudiovqError
from audiovq.config.output import Bars, OutputConfig
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation import files, generate
from audiovq.generation.generate import label_rows
from audiovq.generation.labels import label_indices
from audiovq.generation.output import run
from audiovq.models.checkpoint import save
from audiovq.models.model import Model
from audiovq.spectral.loudness import SILENT, integrated_loudness

QUICK: dict[str, Any] = {
    "sampling": SamplingConfig(temperature=1.0, guidance=0.0, steps=3),
    "inversion": Inversion("griffin-lim", 1),
    "say": lambda _: None,
}
RATE = 8000


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = tiny_model()
    for stage in ("autoencoder", "prior"):
        save(folder, model, stage, {})
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return found


def test_no_sound_reaches_full_scale_and_a_lower_peak_can_be_asked_for(
    model: Model, tmp_path: Path
) -> None:
    for peak in (-1.0, -20.0):
        paths = files.generate_files(
            model, tmp_path / str(peak), 6, output=OutputConfig(peak=peak), **QUICK
        )
        peaks = [np.abs(soundfile.read(path)[0]).max() for path in paths]
        assert max(peaks) <= 10 ** (peak / 20) + 2**-15
        limited = [row["peak_limited"] for row in manifest(tmp_path / str(peak))["sounds"]]
        assert [p > 10 ** (peak / 20) - 2**-14 for p in peaks] == limited
    assert any(limited)


def test_sounds_have_the_loudness_asked_for(model: Model, tmp_path: Path) -> None:
    measured = 0
    for loudness in (None, -40.0):
        output = OutputConfig(bits="32f", loudness=loudness, bext=True)
        paths = files.generate_files(
            model, tmp_path / str(loudness), 6, seconds=0.5, output=output, **QUICK
        )
        for path in paths:
            sound, rate = soundfile.read(path, dtype="float32")
            found = integrated_loudness(sound, rate)
            assert soundfile.info(path).subtype == "FLOAT"
            assert chunks.read(path).loudness == pytest.approx(found, abs=0.01)
            natural, _ = soundfile.read(tmp_path / "None" / path.name, dtype="float32")
            if loudness is not None and integrated_loudness(natural, rate) > -60:
                measured += 1
                assert found == pytest.approx(loudness, abs=0.01)
    assert measured >= 3


def test_loudness_counts_channels_and_silence() -> None:
    time = np.arange(2 * 48_000) / 48_000
    sine = np.sin(2 * np.pi * 997 * time).astype(np.float32)  # BS.1770-4, annex 1: -3.01 LKFS
    assert integrated_loudness(sine, 48_000) == pytest.approx(-3.01, abs=0.1)
    assert integrated_loudness(np.stack([sine, sine]), 48_000) == pytest.approx(0, abs=0.1)
    assert integrated_loudness(np.zeros(10, np.float32), 48_000) == SILENT
    silent = np.zeros_like(sine)
    surround = np.stack([sine, silent, silent, sine, silent, silent])  # the fourth: effects
    assert integrated_loudness(surround, 48_000) == pytest.approx(-3.01, abs=0.1)
    eight = np.stack([sine] * 8)
    assert integrated_loudness(eight, 48_000) == pytest.approx(0, abs=0.1)


def test_a_file_states_how_its_sound_was_made(model: Model, tmp_path: Path) -> None:
    labelled = tiny_model(labels={"note": ["57", "60"], "speaker": ["ada", "bob"]})
    (path,) = files.generate_files(
        labelled, tmp_path / "out", 1, {"note": "57", "speaker": "ada"}, seed=5, **QUICK
    )
    tags = chunks.read(path)
    assert tags.root == 57
    assert tags.loop is tags.tempo is None
    assert tags.info["ISFT"].startswith("audiovq ")
    assert "seed 5" in tags.info["ICMT"]
    assert "speaker ada" in tags.info["ICMT"]
    (flac,) = files.generate_files(
        model, tmp_path / "flac", 1, output=OutputConfig(format="flac", bits="24"), **QUICK
    )
    assert flac.suffix == ".flac"
    assert soundfile.info(flac).subtype == "PCM_24"


@pytest.mark.parametrize(
    ("bars", "samples"),
    [
        (Bars(120, 1, 1), 4000),
        (Bars(97, 0.5), round(2 * 60 / 97 * RATE)),
        (Bars(133.3, 1, 3), round(3 * 60 / 133.3 * RATE)),
    ],
)
def test_bars_are_loops_exact_to_the_sample_with_their_tempo_in_the_file(
    model: Model, tmp_path: Path, bars: Bars, samples: int
) -> None:
    paths = files.generate_files(model, tmp_path / "out", 2, bars=bars, **QUICK)
    for path in paths:
        assert soundfile.info(path).frames == samples
        tags = chunks.read(path)
        assert tags.loop == (0, samples)
        assert tags.tempo == pytest.approx(bars.tempo)
        assert (tags.beats, tags.beats_per_bar) == (bars.beats, bars.beats_per_bar)
        assert len(tags.cues) == bars.beats
        assert all(a == round(i * samples / bars.beats) for i, a in enumerate(tags.cues))


def test_a_tempo_that_is_a_label_is_a_condition_too() -> None:
    model = tiny_model(labels={"bpm": ["100", "120"], "speaker": ["ada", "bob"]})
    sounds = generate.generate(
        model, 4, bars=Bars(100, 1, 1), sampling=QUICK["sampling"], inversion=QUICK["inversion"]
    )
    assert {sound.labels["bpm"] for sound in sounds} == {"100"}
    assert parse_bars(None, 2, 4, {"bpm": "100"}) == Bars(100, 2, 4)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--bpm", "120"], "--bpm 120: give the length, too, such as --bars 2"),
        (["--bars", "2"], "--bars 2: give the tempo, too, such as --bpm 120"),
        (["--bars", "2", "--bpm", "0"], "bpm 0: give beats per minute from 20 to 400"),
        (["--bars", "2", "--bpm", "nan"], "bpm nan: give beats"),
        (["--bars", "0", "--bpm", "120"], "bars 0: give a number above 0, up to 256"),
        (
            ["--bars", "0.3", "--bpm", "120"],
            "bars 0.3: a loop of 1.2 beats; give whole beats, such as 0.25",
        ),
        (["--bars", "2", "--bpm", "120", "--length", "1"], "leave out --length"),
        (
            ["--bars", "2", "--bpm", "120", "--beats-per-bar", "0"],
            "beats-per-bar 0: give 1 to 32",
        ),
        (["--beats-per-bar", "3"], "--beats-per-bar 3: give the length, too, such as --bars 2"),
        (["--peak", "1"], "peak 1.0: give dBFS from -60 to 0"),
        (["--loudness", "3"], "loudness 3.0: give LUFS from -70 to 0"),
        (["--format", "flac", "--bits", "32f"], "format flac: has no floating-point samples"),
        (["--format", "flac", "--bext"], "bext: is a chunk of WAVs, which FLAC has not"),
        (["--each", "2"], "each: several labels are open; give --by NAME, one of digit, speaker"),
        (["--each", "2", "--by", "x"], "unknown or fixed label 'x'; give --by NAME"),
        (["--each", "0", "--by", "digit"], "each 0: give 1"),
        (["--by", "digit"], "by: names the label of --each; give --each, too"),
        (["--more", "--overwrite"], "more: adds to the manifest of earlier sounds; leave out"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused_in_one_line(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    number = [] if "--each" in flags else ["-n", "1"]
    assert main(["generate", str(saved), str(tmp_path / "out"), *number, *flags]) == 2
    said = capfd.readouterr().err
    assert said.startswith("audiovq: ")
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_settings_of_codes_are_refused_where_latents_are_sampled(tmp_path: Path) -> None:
    model = untrained(bottleneck="gaussian")
    for settings in ({"sampling": SamplingConfig(temperature=0.5)}, {"best_of": 2}):
        with pytest.raises(AudiovqError, match="this model samples latents; leave them out"):
            files.generate_files(model, tmp_path / "out", 1, **settings)
    files.generate_files(model, tmp_path / "out", 1, say=lambda _: None)


def test_a_model_that_has_not_learnt_labels_takes_none_and_names_no_sound_by_them(
    tmp_path: Path,
) -> None:
    plain, by_label = (untrained(bottleneck="gaussian", conditional=c) for c in (False, True))
    asked: list[dict[str, Any]] = [{"labels": {"digit": "1"}}, {"each": 1, "by": "digit"}]
    quiet = {"say": QUICK["say"]}
    for number, labels in enumerate(asked):
        with pytest.raises(AudiovqError, match="the model has not learnt labels; leave"):
            files.generate_files(plain, tmp_path / "out", 1, **labels, **quiet)
        paths = files.generate_files(by_label, tmp_path / str(number), 1, **labels, **quiet)
        assert paths[-1].name.split("_")[1] == "1"
    (path,) = files.generate_files(plain, tmp_path / "out", 1, **quiet)
    assert path.name == "0000.wav"
    assert manifest(tmp_path / "out")["sounds"][0]["labels"] == {}


@pytest.mark.parametrize("bottleneck", ["none", "gaussian", "vq"])
def test_an_edit_that_the_model_cannot_make_is_refused_before_anything_is_said(
    bottleneck: str, recordings: Path, tmp_path: Path
) -> None:
    model, source = untrained(bottleneck=bottleneck), min(recordings.rglob("*.wav"))
    for refused in (
        lambda: files.vary_files(model, source, tmp_path / "out", 1, say=pytest.fail),
        lambda: files.repaint_files(model, source, tmp_path / "out", (0, 0.1), say=pytest.fail),
    ):
        with pytest.raises(AudiovqError, match=r"no codes to sample|has no prior yet"):
            refused()
    assert not (tmp_path / "out").exists()


def test_settings_of_the_masked_prior_without_effect_are_named(tmp_path: Path) -> None:
    said: list[str] = []
    for order in ("time", "masked"):
        sampling = SamplingConfig(order, steps=2, sweeps=1)
        files.generate_files(
            tiny_model(masked=True), tmp_path / order, 1, sampling=sampling, say=said.append
        )
    notes = [line for line in said if line.startswith("note: steps and sweeps: without effect")]
    assert len(notes) == 1
    assert notes[0].endswith("(--order masked: in steps)")
    rows = [
        json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("time", "masked")
    ]
    assert [row["made_with"]["order"] for row in rows] == ["time", "masked"]


def test_edits_name_the_settings_of_the_masked_prior_that_have_no_effect(
    model: Model, tmp_path: Path
) -> None:
    source, both = tmp_path / "source.wav", tiny_model(masked=True)
    soundfile.write(source, np.random.default_rng(0).uniform(-0.5, 0.5, 400), RATE)
    said: list[str] = []
    quick: dict[str, Any] = {
        "sampling": SamplingConfig(steps=2),
        "inversion": QUICK["inversion"],
        "say": said.append,
    }
    ways = {
        "vary": lambda m, out: files.vary_files(m, source, out, 1, **quick),
        "repaint": lambda m, out: files.repaint_files(m, source, out, (0, 0.02), None, 1, **quick),
        "continue": lambda m, out: files.extend_files(m, source, out, 0.06, 1, **quick),
    }
    for verb, way in ways.items():
        for name, one in (("time", model), ("both", both)):
            said.clear()
            way(one, tmp_path / verb / name)
            in_time = one is model or verb == "continue"  # a continuation is sampled in time order
            assert any("note: steps: without effect" in line for line in said) == in_time


def test_each_makes_equal_numbers_of_each_value_that_was_learnt(model: Model) -> None:
    quick = {k: v for k, v in QUICK.items() if k != "say"}
    sounds = generate.generate(model, each=3, by="speaker", **quick)
    values = [sound.labels["speaker"] for sound in sounds]
    assert values == ["ada"] * 3 + ["bob"] * 3  # no training clip has cyd
    sounds = generate.generate(model, labels={"digit": "0"}, each=2, **quick)
    assert [s.labels for s in sounds] == [
        {"digit": "0", "speaker": v} for v in ("ada", "ada", "bob", "bob")
    ]


def test_each_leaves_out_values_that_do_not_occur_with_the_labels_asked_for(model: Model) -> None:
    quick = {k: v for k, v in QUICK.items() if k != "say"}
    sounds = generate.generate(model, labels={"speaker": "bob"}, each=1, by="digit", **quick)
    assert [sound.labels["digit"] for sound in sounds] == ["0"]  # COUNTS: no clip of bob has 1


def test_more_adds_other_sounds_after_the_earlier_ones(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = files.generate_files(model, out, 3, **QUICK)
    before = {path.name: path.read_bytes() for path in first}
    second = files.generate_files(model, out, 2, more=True, **QUICK)
    third = files.generate_files(model, out, 2, more=True, **QUICK)
    names = [path.name for path in (*first, *second, *third)]
    assert [name[:4] for name in names] == [f"{i:04d}" for i in range(7)]
    assert {name: (out / name).read_bytes() for name in before} == before
    assert len({path.read_bytes() for path in out.glob("*.wav")}) == 7
    found = manifest(out)
    assert [row["file"] for row in found["sounds"]] == names
    assert [run["start"] for run in found["more"]] == [3, 5]
    with pytest.raises(AudiovqError, match="exists already"):
        files.generate_files(model, out, 2, **QUICK)
    files.generate_files(model, out, 1, overwrite=True, **QUICK)
    assert len(list(out.glob("*.wav"))) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.wav").write_bytes(b"x")
    with pytest.raises(AudiovqError, match=r"has no manifest\.json; --more adds to sounds"):
        files.generate_files(model, tmp_path / "mine", 2, more=True, **QUICK)


def test_more_overwrites_no_sound_where_another_was_taken_out_of_the_manifest(
    model: Model, tmp_path: Path
) -> None:
    first, *rest = files.generate_files(model, tmp_path, 3, **QUICK)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    first.unlink()
    del manifest["sounds"][0]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    before = [path.read_bytes() for path in rest]
    (new,) = files.generate_files(model, tmp_path, 1, more=True, **QUICK)
    assert new.name.startswith("0003")
    assert [path.read_bytes() for path in rest] == before
    sounds = json.loads((tmp_path / "manifest.json").read_text())["sounds"]
    assert [row["file"] for row in sounds] == [path.name for path in (*rest, new)]
    before = {path: path.read_bytes() for path in (*rest, new)}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"sounds": sounds[:-1]}))
    (last,) = files.generate_files(model, tmp_path, 1, more=True, **QUICK)
    assert last.name.startswith("0004")
    assert {path: path.read_bytes() for path in before} == before
    for key, damaged in (
        ("sounds", [1]),
        ("sounds", [{}]),
        ("sounds", 5),
        ("more", 5),
        ("more", [1]),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | {key: damaged}))
        with pytest.raises(AudiovqError, match=r"manifest\.json: damaged"):
            files.generate_files(model, tmp_path, 1, more=True, **QUICK)


def test_more_refuses_sounds_of_another_verb(model: Model, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(800)), RATE)
    files.vary_files(model, tmp_path / "a.wav", tmp_path / "out", 1, **QUICK)
    with pytest.raises(AudiovqError, match="are of vary; --more adds to sounds of generate"):
        files.generate_files(model, tmp_path / "out", 1, more=True, **QUICK)


def test_more_refuses_sounds_of_another_model(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    files.generate_files(model, out, 2, **QUICK)
    before = {path: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setitem(model.header, "autoencoder", {"sha256": "0" * 64})
    with pytest.raises(AudiovqError, match="of another model; give --more another folder"):
        files.generate_files(model, out, 2, more=True, **QUICK)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("stop", [0, 2, "manifest"])
def test_a_stopped_run_of_more_resumes(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Any
) -> None:
    for out in (tmp_path / "straight", tmp_path / "out"):
        files.generate_files(model, out, 3, **QUICK)
    files.generate_files(model, tmp_path / "straight", 4, more=True, **QUICK)
    written, write, end = 0, writing.write, run.copies_note

    def stopping(*arguments: Any) -> bool:
        nonlocal written
        if written == stop:
            raise KeyboardInterrupt
        written += 1
        return write(*arguments)

    def stop_after_manifest(rows: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "write", stopping)
    if stop == "manifest":
        monkeypatch.setattr(run, "copies_note", stop_after_manifest)
    with pytest.raises(KeyboardInterrupt):
        files.generate_files(model, tmp_path / "out", 4, more=True, **QUICK)
    monkeypatch.setattr(writing, "write", write)
    monkeypatch.setattr(run, "copies_note", end)
    if stop == 2:
        said = (
            "run that command again or choose another folder .--overwrite also deletes the sounds"
        )
        with pytest.raises(AudiovqError, match=said):
            files.generate_files(model, tmp_path / "out", 5, more=True, **QUICK)
    files.generate_files(model, tmp_path / "out", 4, more=True, **QUICK)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("straight", "out")
    ]
    assert contents[0] == contents[1]


def test_a_drawn_seed_is_printed_and_recorded(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seeds = set()
    for name in ("a", "b"):
        out = tmp_path / name
        arguments = [
            "generate",
            str(saved),
            str(out),
            "-n",
            "1",
            "--seed",
            "random",
            "--n-iter",
            "1",
        ]
        assert main(arguments) == 0
        seed = manifest(out)["made_with"]["seed"]
        says = f"seed {seed}: --seed {seed} in the same command makes the same sounds again"
        assert says in capfd.readouterr().err
        seeds.add(seed)
    assert len(seeds) == 2
    assert drawn_seed(7) == 7


def test_an_edit_keeps_samples_and_bits_of_the_recording(model: Model, tmp_path: Path) -> None:
    loud = np.random.default_rng(0).uniform(-1, 1, 2000)
    loud[100] = -1
    for subtype in ("PCM_16", "PCM_24", "FLOAT"):
        source = tmp_path / f"{subtype}.wav"
        soundfile.write(source, loud, RATE, subtype)
        (path,) = files.extend_files(model, source, tmp_path / subtype, 0.4, 1, **QUICK)
        assert soundfile.info(path).subtype == subtype
        kept = 2000 - 16 - 32 - 80
        read = [soundfile.read(p, dtype="float64")[0][:kept] for p in (source, path)]
        assert np.array_equal(*read)
        (path,) = files.repaint_files(
            model, source, tmp_path / f"{subtype}-r", (0.1, 0.12), None, 1, **QUICK
        )
        whole = [soundfile.read(p, dtype="float64")[0] for p in (source, path)]
        assert np.array_equal(whole[0][:600], whole[1][:600])
        assert np.array_equal(whole[0][1200:], whole[1][1200:])
        assert peak_of(whole[1].astype(np.float32)) == 1


@pytest.mark.parametrize("rate", [8000, 11_025])
def test_an_edit_keeps_channels_and_rate_of_the_recording(
    model: Model, tmp_path: Path, rate: int
) -> None:
    source = tmp_path / "stereo.wav"
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (rate // 4, 2)) * [1, 0.5]
    soundfile.write(source, sound, rate, "PCM_16")
    original = soundfile.read(source)[0]
    (path,) = files.extend_files(model, source, tmp_path / "longer", 0.4, 1, **QUICK)
    read, found = soundfile.read(path)
    kept = round((0.25 - 0.003 - 0.004 - 0.01) * rate)
    assert found == rate
    assert read.shape == (round(0.4 * rate), 2)
    assert np.array_equal(read[:kept], original[:kept])
    (path,) = files.repaint_files(model, source, tmp_path / "part", (0.1, 0.12), None, 1, **QUICK)
    read = soundfile.read(path)[0]
    assert read.shape == original.shape
    changed = np.flatnonzero((read != original).any(axis=1)) / rate
    assert 0.08 < changed.min() < 0.1
    assert 0.12 < changed.max() < 0.14
    ((begin, end),) = manifest(path.parent)["sounds"][0]["new_seconds"]
    assert begin - 0.011 <= changed.min() <= begin + 0.002
    assert end - 0.002 <= changed.max() <= end + 0.011


def test_repaint_says_which_part_it_has_changed(model: Model, tmp_path: Path) -> None:
    source = tmp_path / "noise.wav"
    soundfile.write(source, np.random.default_rng(0).uniform(-0.5, 0.5, 2000), RATE, "PCM_16")
    for time, says in (
        ((0.1, 0.119), "changed: 0.090 to 0.130 s: whole columns of codes, with cross-fades"),
        (
            (0.2, 9.0),
            "changed: 0.190 to 0.250 s: whole columns of codes, with cross-fades; the recording ends there",
        ),
    ):
        lines: list[str] = []
        more = {**QUICK, "say": lines.append}
        (path,) = files.repaint_files(model, source, tmp_path / f"{time[0]}", time, None, 1, **more)
        assert lines[-1] == says
        changed = np.flatnonzero(soundfile.read(path)[0] != soundfile.read(source)[0]) / RATE
        begin, end = (float(word) for word in says.split()[1:4:2])
        assert begin <= changed.min() < begin + 0.003
        assert end - 0.003 < changed.max() < end


def test_kept_samples_above_full_scale_are_kept_as_floating_point_or_turned_down_with_a_note(
    model: Model, tmp_path: Path
) -> None:
    source = tmp_path / "loud.wav"
    soundfile.write(source, np.random.default_rng(0).uniform(-2, 2, 2000), 11_025, "FLOAT")
    original = soundfile.read(source)[0]
    outputs = OutputConfig(), OutputConfig(bits="16"), OutputConfig("flac")
    for number, output in enumerate(outputs):
        said: list[str] = []
        quick = QUICK | {"say": said.append}
        out = tmp_path / str(number)
        (path,) = files.extend_files(model, source, out, 0.4, 1, output=output, **quick)
        kept = soundfile.read(path)[0][:1500]
        turned_down = output != OutputConfig()
        gain = float(np.abs(kept).max() / np.abs(original[:1500]).max())
        assert gain < 0.51 if turned_down else gain == 1
        np.testing.assert_allclose(kept, gain * original[:1500], atol=2**-15 if turned_down else 0)
        assert manifest(out)["sounds"][0]["peak_limited"] == turned_down
        assert any(line.startswith("note: turned down 1 of 1") for line in said) == turned_down


def test_edits_have_the_bits_of_their_recording_and_of_loud_mp3s_floating_point(
    model: Model, tmp_path: Path
) -> None:
    clipped = np.sign(np.sin(np.arange(8000) * 0.3))
    soundfile.write(tmp_path / "loud.mp3", clipped, RATE)
    soundfile.write(tmp_path / "quiet.mp3", 0.5 * clipped, RATE)
    soundfile.write(tmp_path / "24.wav", clipped, RATE, "PCM_24")
    subtypes = {"loud.mp3": "FLOAT", "quiet.mp3": "PCM_16", "24.wav": "PCM_24"}
    for name, subtype in subtypes.items():
        source = tmp_path / name
        (path,) = files.repaint_files(
            model, source, tmp_path / f"{name}-r", (0.1, 0.12), None, 1, **QUICK
        )
        assert soundfile.info(path).subtype == subtype
    (path,) = files.vary_files(model, tmp_path / "24.wav", tmp_path / "v24", 1, **QUICK)
    assert soundfile.info(path).subtype == "PCM_24"
    (path,) = files.vary_files(model, tmp_path / "loud.mp3", tmp_path / "vmp3", 1, **QUICK)
    assert soundfile.info(path).subtype == "PCM_16"


def test_edits_of_channels_or_rates_that_flac_does_not_hold_are_refused_before_they_are_made(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for channels in (8, 9):
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2000, channels))
        soundfile.write(tmp_path / f"{channels}.wav", noise, RATE, "PCM_16")
    flac = OutputConfig("flac")
    edit = (0.1, 0.12), None, 1
    (path,) = files.repaint_files(
        model, tmp_path / "8.wav", tmp_path / "a", *edit, output=flac, **QUICK
    )
    assert soundfile.info(path).channels == 8
    files.vary_files(model, tmp_path / "9.wav", tmp_path / "b", 1, output=flac, **QUICK)
    monkeypatch.setattr(files, "repaint", None)
    with pytest.raises(AudiovqError, match="has 9 channels, and FLAC holds up to 8; give --format"):
        files.repaint_files(model, tmp_path / "9.wav", tmp_path / "c", *edit, output=flac, **QUICK)
    soundfile.write(tmp_path / "96001.wav", noise[:, 0], 96_001, "PCM_16")
    with pytest.raises(AudiovqError, match=r"has 96,001 Hz, and FLAC .*multiples of 10; give --"):
        files.repaint_files(
            model, tmp_path / "96001.wav", tmp_path / "c", *edit, output=flac, **QUICK
        )
    with pytest.raises(AudiovqError, match="FLAC holds up to 8"):
        writing.write(tmp_path / "d.flac", np.zeros((9, 10), np.float32), RATE)


@pytest.mark.parametrize(
    ("label", "value", "found"),
    [
        ("note", "A3", "57"),
        ("note", "60.0", "60"),
        ("pitch", "Bb2", "A#2"),
        ("pitch", "46", "A#2"),
        ("brightness", "0.7", "0.67"),
        ("brightness", "1", "1"),
        ("digit", "1", "1"),
    ],
)
def test_a_value_may_be_another_name_of_a_note_or_near_a_rank(
    label: str, value: str, found: str
) -> None:
    labels = {
        "note": ["57", "60"],
        "pitch": ["A#2", "C3"],
        "brightness": ["0", "0.33", "0.67", "1"],
        "digit": ["0", "1"],
    }
    model = tiny_model(labels=labels)
    model.label_counts[:] = [((i % 2, i % 2, i, i % 2), 1) for i in range(4)]
    index = label_indices(model, {label: value})[list(labels).index(label)]
    assert labels[label][index] == found


def test_a_label_may_be_asked_for_by_another_of_its_names_and_by_one_only() -> None:
    model = tiny_model(labels={"note": ["57", "60"], "bpm": ["100", "120"]})
    assert label_indices(model, {"pitch": "60", "tempo": "120"}) == {0: 1, 1: 1}
    for labels in ({"pitch": "60", "midi": "57"}, {"note": "60", "pitch": "60"}):
        with pytest.raises(AudiovqError, match=f"labels {', '.join(labels)}: are one label; give"):
            label_indices(model, labels)
    by_another = label_rows(model, 0, {}, 0, each=2, by="pitch")
    assert torch.equal(by_another, label_rows(model, 0, {}, 0, each=2, by="note"))
    with pytest.raises(AudiovqError, match="unknown or fixed label 'note'"):
        label_rows(model, 0, {"midi": "60"}, 0, each=2, by="pitch")
    bars = Bars(100, 1, 1)
    quick = {"sampling": QUICK["sampling"], "inversion": QUICK["inversion"]}
    (sound,) = generate.generate(model, 1, {"tempo": "100"}, bars=bars, **quick)
    assert sound.labels["bpm"] == "100"


@pytest.mark.parametrize(
    ("label", "value"),
    [("note", "A4"), ("brightness", "1.5"), ("brightness", "nan"), ("digit", "0.9")],
)
def test_a_value_that_stands_for_no_other_is_refused(label: str, value: str) -> None:
    model = tiny_model(labels={"note": ["57"], "brightness": ["0", "0.5"], "digit": ["0", "1"]})
    model.label_counts[:] = [((0, i, i), 1) for i in range(2)]
    with pytest.raises(AudiovqError, match=f"label {label}: unknown value"):
        label_indices(model, {label: value})


def test_a_repainted_loop_is_still_a_loop_at_its_tempo(model: Model, tmp_path: Path) -> None:
    source = tmp_path / "loop.wav"
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 2000).astype(np.float32)
    tags = Tags(root=50, loop=(0, 2000), tempo=120.0, beats=1, cues=(0, 1000), info={"INAM": "x"})
    writing.write(source, sound, RATE, None, "16", tags)
    (path,) = files.repaint_files(model, source, tmp_path / "a", (0.1, 0.12), None, 1, **QUICK)
    found = chunks.read(path)
    assert replace(found, info={}) == replace(tags, info={})
    assert "seed 0" in found.info["ICMT"]
    (path,) = files.extend_files(model, source, tmp_path / "b", 0.4, 1, **QUICK)
    assert chunks.read(path).loop is None
