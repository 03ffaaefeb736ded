"""The seeds: what the project synthesizes, and the script that makes the models."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiovq.inspection.describe import describe
from audiovq.library import synthesis
from audiovq.models.checkpoint import load
from audiovq.pipeline import DEMO_KINDS, demo


@pytest.fixture
def make_seed(script: Callable[[str], Any]) -> Any:
    """`scripts.make_seed`."""
    return script("make_seed")


def test_takes_are_stereo_bounded_end_in_silence_and_differ_and_a_number_gives_the_same_again() -> (
    None
):
    for kind in synthesis.KINDS:
        first, second = synthesis.take(kind, 0), synthesis.take(kind, 1)
        assert first.shape[1:] == (2,)
        assert np.isfinite(first).all()
        assert np.abs(first).max() == pytest.approx(synthesis.PEAK)
        assert not first[-1].any()
        assert 0.1 < len(first) / synthesis.RATE < 2.5
        assert np.array_equal(first, synthesis.take(kind, 0))
        shortest = min(len(first), len(second))
        assert not np.allclose(first[:shortest], second[:shortest], atol=0.1)


def test_notes_of_a_soundfont_have_the_pitch_in_their_names(
    script: Callable[[str], Any], tmp_path: Path
) -> None:
    soundfont = script("soundfont")
    if not soundfont.SOUNDFONT.exists() or shutil.which("fluidsynth") is None:
        pytest.skip("needs Debian's fluidsynth and fluid-soundfont-gm")
    pytest.importorskip("mido")
    paths = soundfont.render(tmp_path, "flute", 4)
    assert len(paths) == 4
    for path in paths:
        name, note, velocity = path.stem.split("_")
        assert name == "flute"
        assert int(velocity) in soundfont.VELOCITIES
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
        assert sound.shape == (round(soundfont.SECONDS * soundfont.RATE), 2)
        pitch = describe(sound.mean(axis=1), rate).pitch_hz
        assert pitch is not None
        assert 69 + 12 * np.log2(pitch / 440) == pytest.approx(int(note), abs=0.3)


@pytest.mark.slow
def test_the_script_makes_a_model_that_names_its_sources(make_seed: Any, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    make_seed.main(
        "sounds",
        tmp_path / "seed",
        nothing,
        nothing,
        nothing,
        takes=3,
        max_minutes=0.1,
        work=tmp_path / "w",
    )
    model = load(tmp_path / "seed")
    assert {"kick", "bell", "rain"} <= set(model.labels["kind"])
    card = (tmp_path / "seed" / "README.md").read_text("utf-8")
    assert "CC0, made by this project" in card
    assert not (tmp_path / "seed" / "training").exists()
    assert model.prior is None
    assert model.masked is not None


@pytest.mark.slow
def test_the_demo_of_sounds_shows_hits_and_notes_at_44_1_khz(tmp_path: Path) -> None:
    demo(tmp_path, sounds=True, max_minutes=0.3, device="cpu", say=lambda _: None)
    names = [path.name for path in sorted((tmp_path / "sounds").glob("*.wav"))]
    assert len(names) == 4 * len(DEMO_KINDS)
    assert all(any(kind in name for name in names) for kind in DEMO_KINDS)
    assert soundfile.info(tmp_path / "sounds" / names[0]).samplerate == 44_100
    assert (tmp_path / "report.html").exists()
    model = load(tmp_path / "model")
    assert model.header["origin"]["name"] == "sounds"
    assert "CC BY 3.0" in (tmp_path / "model" / "README.md").read_text("utf-8")
