"""The seed `sounds` that ships."""

import re

from audiovq.config.sampling import Inversion
from audiovq.generation.generate import generate
from audiovq.models.checkpoint import load
from audiovq.models.folder import SHIPPED, located
from audiovq.training.origin import sections


def test_the_seed_that_ships_is_whole_stereo_small_and_names_its_sources() -> None:
    model, folder = load("sounds"), located("sounds")
    assert model.masked is not None
    assert model.vivid is not None
    assert model.context is not None
    assert (model.sample_rate, model.channels) == (44_100, 2)
    assert {"kick", "snare", "hat", "bell", "pluck", "rain"} <= set(model.labels["kind"])
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
    shipped = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in shipped) < 30e6
    (sources,) = sections((folder / "README.md").read_text("utf-8"), ["Sources"])
    rows = [line.split("|") for line in sources.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 3
    assert all(re.search(r"\bCC(0| BY [34]\.0)", row[3]) for row in rows), "no other licence"


def test_the_seed_that_ships_answers_with_a_kick() -> None:
    (kick,) = generate(load("sounds"), 1, {"kind": "kick"}, inversion=Inversion(n_iter=2))
    assert kick.waveform.shape[0] == 2
    assert 0.05 < kick.waveform.shape[1] / 44_100 < 2.1
    assert kick.waveform.any()
