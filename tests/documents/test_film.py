"""The pictures of the app and the page in the docs are made by a script from the real thing, which still runs."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_script_films_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("playwright.sync_api", reason="needs Playwright: the extra [browser]")
    spec = importlib.util.spec_from_file_location("make_film", ROOT / "docs" / "make_film.py")
    assert spec is not None
    assert spec.loader is not None
    make_film = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_film)
    if make_film.chromium_path() is None:
        pytest.skip("no chromium is installed")
    monkeypatch.setattr(make_film, "PICTURES", tmp_path)
    make_film.main()
    assert (tmp_path / "redraw.gif").stat().st_size <= make_film.MAX_BYTES
    for name in ("redraw.gif", "app.png", "report.png"):
        with Image.open(tmp_path / name) as made, Image.open(ROOT / "docs/pictures" / name) as kept:
            assert made.size[0] == kept.size[0], "run python docs/make_film.py"
