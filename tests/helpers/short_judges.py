"""Short training of judges, for tests that are not about what judges say."""

import pytest

from audiovq.evaluation import judges
from audiovq.evaluation.judges import JudgeLimits

SHORT = JudgeLimits(min_steps=20, max_steps=20, second_max_steps=20)


def shorten_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the judges of `audiovq evaluate` for 20 steps each."""
    monkeypatch.setattr(judges, "DEFAULT_LIMITS", SHORT)
