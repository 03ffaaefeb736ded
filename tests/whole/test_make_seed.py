"""The seed `sounds`: what the project synthesizes, and the script that makes the model."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiovq.models.checkpoint import load

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`scripts.make_seed` and `scripts.synthesis`."""
    if not (ROOT / "scripts").is_dir():
        pytest.skip("scripts/ is missing: it comes with the repository, not the package")
    monkeypatch.syspath_prepend(ROOT)
    return [importlib.import_module(f"scripts.{name}") for name in ("make_seed", "synthesis")]


def test_takes_are_stereo_bounded_end_in_silence_and_differ_and_a_number_gives_the_same_again(
    scripts: Any,
) -> None:
    _, synthesis = scripts
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


@pytest.mark.slow
def test_the_script_makes_a_model_that_names_its_sources(scripts: Any, tmp_path: Path) -> None:
    make_seed, _ = scripts
    nothing = tmp_path / "nothing"
    make_seed.main(
        tmp_path / "seed", nothing, nothing, nothing, takes=3, max_minutes=0.1, work=tmp_path / "w"
    )
    model = load(tmp_path / "seed")
    assert {"kick", "bell", "rain"} <= set(model.labels["kind"])
    card = (tmp_path / "seed" / "README.md").read_text("utf-8")
    assert "CC0, made by this project" in card
    assert not (tmp_path / "seed" / "training").exists()
