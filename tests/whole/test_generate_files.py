"""Files of generate, vary, continue, repaint and morph: resumed runs, manifests, any arguments."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from audiovq.app import desk as moves
from audiovq.app.desk import Desk
from audiovq.audio import reading, writing
from audiovq.cli import main
from audiovq.cli.arguments import parse_labels
from audiovq.codec.codec import decode
from audiovq.config.errors import AudiovqError
from audiovq.config.output import OutputConfig
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation import edit, files, generate, known
from audiovq.generation.morph import morph
from audiovq.generation.output.run import gain_of
from audiovq.models.checkpoint import save
from audiovq.models.model import Model
from audiovq.runtime.files import name_of

PLAIN = SamplingConfig(temperature=1.0, guidance=0.0, steps=3)
QUICK: dict[str, Any] = {"sampling": PLAIN, "inversion": Inversion("griffin-lim", 1)}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(masked=True)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "MAX_BATCH", 3)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 300)
    soundfile.write(tmp_path / "own.wav", noise, 8000)
    return tmp_path / "own.wav"


def write(model: Model, out: Path, n: int = 8, **options: Any) -> list[Path]:
    return files.generate_files(
        model, out, n, say=lambda _: None, **({"seed": 5} | QUICK | options)
    )


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


WAYS: dict[str, Callable[..., list[Path]]] = {
    "generate": lambda model, source, out, **more: write(model, out, **more),
    "vary": lambda model, source, out, **more: files.vary_files(
        model, source, out, 8, seed=5, say=lambda _: None, **QUICK, **more
    ),
    "continue": lambda model, source, out, **more: files.extend_files(
        model, source, out, 0.05, 8, seed=5, say=lambda _: None, **QUICK, **more
    ),
    "repaint": lambda model, source, out, **more: files.repaint_files(
        model, source, out, (0.0, 0.02), None, 8, seed=5, say=lambda _: None, **QUICK, **more
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_resumed_run_gives_the_same_bytes_and_makes_no_batch_twice(
    model: Model, tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch, way: str, stop: int
) -> None:  # fmt: skip
    straight, out = tmp_path / "straight", tmp_path / "out"
    WAYS[way](model, recording, straight)
    plain, written = writing.write, 0

    def stopping(*arguments: Any) -> bool:
        nonlocal written
        if written == stop:
            raise KeyboardInterrupt
        written += 1
        return plain(*arguments)

    monkeypatch.setattr(writing, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        WAYS[way](model, recording, out)
    early = {path: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    assert len(early) == stop
    assert not (out / "manifest.json").exists()
    monkeypatch.setattr(writing, "write", plain)
    made: list[int] = []
    for module, name in ((generate.codec, "decode"),):
        inner = getattr(module, name)

        def spy(model: Model, sounds: Any, inner: Any = inner, **rest: Any) -> Any:
            made.append(len(sounds))
            return inner(model, sounds, **rest)

        monkeypatch.setattr(module, name, spy)
    WAYS[way](model, recording, out)
    assert sum(made) == 8 - 3 * (stop // 3), "whole batches are not made again"
    assert content(out) == content(straight)
    assert all(path.stat().st_mtime_ns == when for path, when in early.items())


def test_functions_and_files_give_the_same_sounds(
    model: Model, tmp_path: Path, recording: Path
) -> None:
    waveform, _ = reading.read(recording, 8000)
    for name, sounds in (
        ("generate", generate.generate(model, 8, seed=5, **QUICK)),
        ("vary", edit.vary(model, waveform, 8, seed=5, **QUICK)),
        ("continue", edit.extend(model, waveform, 0.05, n=8, seed=5, **QUICK)),
        ("repaint", edit.repaint(model, waveform, (0.0, 0.02), n=8, seed=5, **QUICK)),
    ):
        paths = WAYS[name](model, recording, tmp_path / name)
        for path, sound in zip(paths, sounds, strict=True):
            gain, _ = gain_of(sound, 8000, OutputConfig())
            assert np.abs(reading.read(path)[0] - gain * sound.waveform).max() < 1e-3


def test_another_command_is_refused_and_overwrite_removes_earlier_files_only(
    model: Model, tmp_path: Path
) -> None:
    write(model, tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    with pytest.raises(AudiovqError, match="exists already"):
        write(model, tmp_path / "out", 3, seed=6)
    with pytest.raises(AudiovqError, match="unknown label"):
        write(model, tmp_path / "out", 3, labels={"what": "1"}, overwrite=True)
    assert len(list((tmp_path / "out").glob("*.wav"))) == 8, "what is refused loses nothing"
    paths = write(model, tmp_path / "out", 3, seed=6, overwrite=True)
    assert set(content(tmp_path / "out")) == {*(p.name for p in paths), "manifest.json", "mine.txt"}


def test_a_variation_does_not_overwrite_its_source(model: Model, tmp_path: Path) -> None:
    first, *_ = write(model, tmp_path / "out", 2)
    before = content(tmp_path / "out")
    with pytest.raises(AudiovqError, match="would be overwritten"):
        files.vary_files(model, first, tmp_path / "out", 2, overwrite=True, **QUICK)
    assert content(tmp_path / "out") == before


def test_a_manifest_names_no_folder_of_this_machine(
    model: Model, tmp_path: Path, recording: Path
) -> None:
    for way in WAYS:
        WAYS[way](model, recording, tmp_path / way)
        for path in (tmp_path / way).iterdir():
            if path.suffix != ".wav":
                assert str(tmp_path) not in path.read_text()


def test_copies_are_counted_and_named_in_the_manifest(tmp_path: Path) -> None:
    model = tiny_model(clip_frames=120)
    sounds = generate.generate(model, 8, seed=5, **QUICK)
    learnt = [sounds[i].encoded.codes for i in (1, 4)]
    names = [("a.wav", 0), ("b.wav", 800)]
    model.known = known.assemble(model, [learnt], names, 2, {"threshold_db": 2.0})
    said: list[str] = []
    files.generate_files(
        model, tmp_path / "out", 8, seed=5, keep_copies=True, say=said.append, **QUICK
    )
    rows = json.loads((tmp_path / "out" / "manifest.json").read_text())["sounds"]
    found = [row.get("nearest_training_clip", {}) for row in rows]
    assert found[4] == {
        "file": "b.wav",
        "seconds": 0.1,
        "codes_shared": 1.0,
        "db": pytest.approx(0, abs=0.01),
        "is_copy": True,
    }
    count = sum(bool(one.get("is_copy")) for one in found)
    assert any(line.startswith(f"{count} of 8 sounds are near copies") for line in said)
    said.clear()
    write(model, tmp_path / "again")
    files.generate_files(model, tmp_path / "more", 8, seed=5, say=said.append, **QUICK)
    assert any(f"{count} of 8 sounds were near copies" in line for line in said)
    model.known = None
    said.clear()
    files.generate_files(model, tmp_path / "none", 1, say=said.append, **QUICK)
    assert any("not checked for copies" in line for line in said)


# --- Names of files -----------------------------------------------------------------------------


@given(st.integers(0, 10**7), st.lists(st.text(), max_size=4))
def test_file_names_begin_with_the_number_and_are_short_for_any_labels(
    number: int, values: list[str]
) -> None:
    name = name_of(number, values)
    assert name.startswith(f"{number:04d}")
    assert len(name.encode()) <= 120
    assert "/" not in name
    assert "\0" not in name
    assert name.isprintable() or not "".join(values).isprintable()


@pytest.mark.parametrize("value", ["日" * 80, "x" * 300, "é" * 120, "../../up/x", "\udcff\n"])
def test_long_labels_are_cut_in_file_names_and_whole_in_the_manifest(
    tmp_path: Path, value: str
) -> None:
    model = tiny_model(labels={"one": [value, "b"], "two": [value, "c", "d"]})
    (path,) = write(model, tmp_path / "out", 1, labels={"one": value, "two": value})
    assert len(path.name.encode()) <= 124
    assert path.parent == tmp_path / "out"
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert json.loads(text)["sounds"][0]["labels"] == {"one": value, "two": value}


# --- Arguments ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = tiny_model(masked=True)
    for stage in ("autoencoder", "prior", "masked"):
        save(folder, model, stage, {})
    return folder


NUMBERS = st.sampled_from(
    ["0", "1", "2", "-1", "-0.0", "1e-40", "1e-320", "1e30", "nan", "inf", "-inf", "0.5", "20", "1000000000"]
)  # fmt: skip
WHOLE = st.sampled_from(
    ["0", "1", "3", "-1", "10000", str(2**31), "9300000000000", str(2**63 - 1), str(2**63), str(2**64)]
)  # fmt: skip
SPANS = st.builds("{}:{}".format, NUMBERS, NUMBERS) | st.sampled_from(["", ":", "1", "0:1:2"])
FLAGS = {
    "--seed": WHOLE,
    "--n-iter": st.sampled_from(["0", "1", "-1", "10001", str(2**70)]),
    "--temperature": NUMBERS,
    "--top-p": NUMBERS,
    "--top-k": WHOLE,
    "--guidance": NUMBERS,
    "--steps": WHOLE,
    "--order": st.sampled_from(["auto", "time", "masked"]),
    "--phase": st.sampled_from(["pghi", "griffin-lim"]),
    "--label": st.sampled_from(["digit=1", "digit=7", "digit", "=", "speaker=cyd", "speaker=ada"]),
}
LENGTH = {"--length": NUMBERS.filter(lambda x: x != "20")}
OWN_FLAGS = {
    "generate": LENGTH | {"--best-of": st.sampled_from(["0", "1", "2", "-1", str(2**40)])},
    "vary": {"--strength": NUMBERS},
    "continue": LENGTH,
    "repaint": {"--time": SPANS, "--band": SPANS},
}


@st.composite
def commands(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """A verb and up to three of its flags, with good and bad values."""
    verb = draw(st.sampled_from(list(OWN_FLAGS)))
    flags = FLAGS | OWN_FLAGS[verb]
    chosen = draw(st.lists(st.sampled_from(list(flags)), max_size=3, unique=True))
    return verb, {flag: draw(flags[flag]) for flag in chosen}


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # fmt: skip
@given(
    command=commands(),
    n=st.sampled_from(["1", "2", "2", "0", "-1", "1000000000000"]),
)
def test_any_arguments_give_sounds_or_one_line(
    saved: Path,
    tmp_path: Path,
    recording: Path,
    capfd: pytest.CaptureFixture[str],
    command: tuple[str, dict[str, str]],
    n: str,
) -> None:
    verb, flags = command
    out = tmp_path / "out"
    given = [f"{flag}={value}" for flag, value in flags.items()]
    source = [str(recording)] if verb != "generate" else []
    status = main.main(
        [verb, str(saved), *source, str(out), f"-n={n}", *given, "--device=cpu", "--overwrite"]
    )
    said = capfd.readouterr().err
    assert status in (0, 2), said
    lines = [line for line in said.splitlines() if line.startswith("audiovq: ")]
    assert len(lines) == (status == 2)
    if status == 0:
        assert len(list(out.glob("*.wav"))) == int(n)
        assert all(np.isfinite(reading.read(path)[0]).all() for path in out.glob("*.wav"))


@pytest.mark.parametrize("seed", [-1, 1 << 63, 1 << 64, 1.5, math.nan])
def test_every_function_refuses_a_seed_out_of_range(
    model: Model, saved: Path, tmp_path: Path, recording: Path, seed: Any
) -> None:
    waveform, _ = reading.read(recording, 8000)
    how = {}, PLAIN, seed
    desk = moves.make(model, Desk(), {}, PLAIN, 0)
    for call in (
        lambda: generate.generate(model, 1, seed=seed),
        lambda: edit.vary(model, waveform, 1, seed=seed),
        lambda: edit.extend(model, waveform, 0.05, seed=seed),
        lambda: edit.repaint(model, waveform, (0, 1), seed=seed),
        lambda: morph(model, waveform, waveform, 2, seed=seed),
        lambda: decode(model, [desk.selected.sound.encoded], seed=seed),
        lambda: moves.make(model, desk, *how),
        lambda: moves.vary(model, desk, 0.5, *how),
        lambda: moves.extend(model, desk, 0.2, *how),
        lambda: moves.redraw(model, desk, [[0, 0]], *how[1:]),
    ):
        with pytest.raises(AudiovqError, match=r"seed .*: give a whole number from 0 to"):
            call()
    for seed in (9_300_000_000_000, (1 << 63) - 1):
        assert len(generate.generate(model, 1, seed=seed, **QUICK)) == 1
        assert len(edit.extend(model, waveform, n=1, seed=seed, **QUICK)) == 1


def test_a_label_given_twice_is_refused() -> None:
    with pytest.raises(AudiovqError, match="--label digit=8: digit is given already"):
        parse_labels(("digit=7", "digit=8"))


def test_a_value_absent_from_training_is_refused_by_name_and_not_suggested(model: Model) -> None:
    with pytest.raises(
        AudiovqError, match="no training clip has the value 'cyd'; values with training clips: ada"
    ):
        generate.generate(model, 1, {"speaker": "cyd"})


# --- The app ------------------------------------------------------------------------------------


def test_the_app_redraws_as_the_command_does(model: Model, recording: Path) -> None:
    waveform, _ = reading.read(recording, 8000)
    desk = moves.record(model, Desk(), recording, recording.name)
    time = (0.008, 0.02)
    mask = edit.region_mask(model, desk.selected.sound.encoded, time, None)
    sampling = SamplingConfig(temperature=1.0, guidance=2.0)
    cells = mask.nonzero().tolist()
    labels = desk.selected.sound.labels  # those that are inferred
    repainted = moves.redraw(model, desk, cells, sampling, 7).selected.sound
    (sound,) = edit.repaint(model, waveform, time, None, labels, sampling=sampling, seed=7)
    assert torch.equal(repainted.encoded.codes, sound.encoded.codes)
    assert np.array_equal(repainted.waveform, sound.waveform)
    assert repainted.labels == sound.labels == labels
    (inferred,) = edit.repaint(model, waveform, time, None, sampling=sampling, seed=7)
    assert torch.equal(inferred.encoded.codes, sound.encoded.codes)
