"""Tests of the benchmarks import them from the repository; the installed package has none."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the benchmarks, whose modules can be imported as `benchmarks.…`."""
    folder = ROOT / "benchmarks"
    if not folder.is_dir():
        pytest.skip("benchmarks/ is missing: it comes with the repository, not the package")
    monkeypatch.syspath_prepend(ROOT)
    return folder
