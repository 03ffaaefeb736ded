"""The report in Chromium: sounds play, pictures load, everything is reached by keyboard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from browsing import (
    WIDTHS,
    check_keyboard_reaches_everything,
    check_pictures_load,
    check_text_is_legible,
    chromium,
    opened,
    until,
)

from audiovq.dataset.dataset import Dataset
from audiovq.models.checkpoint import load
from audiovq.pipeline import write_report


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(dataset: Dataset, folder: Path) -> str:
    """URL of a report."""
    return write_report(load(folder), dataset, folder).as_uri()


def test_the_verdict_is_the_first_sentence_and_the_notebook_is_folded(
    browser: Any, report: str
) -> None:
    with opened(browser, report) as page:
        lines = page.locator("body").inner_text().splitlines()
        assert lines[0].startswith("Sounds learned from")
        assert "would help" in next(line for line in lines[1:] if line)
        assert not page.get_by_role("heading", name="Curves").is_visible()
        page.get_by_text("For experts").click()
        assert page.get_by_role("heading", name="Curves").is_visible()
        check_pictures_load(page)


@pytest.mark.slow
def test_twenty_sounds_play_one_after_the_other(browser: Any, report: str) -> None:
    with opened(browser, report) as page:
        sounds = page.locator("section").first.locator("audio")
        assert sounds.count() >= 20
        page.get_by_role("button", name="Play all new sounds").click()
        for index in (0, 1, 2):
            until(page, f"document.querySelectorAll('audio')[{index}].currentTime > 0")
        page.get_by_role("button", name="Play all new sounds").click()
        assert page.evaluate("[...document.querySelectorAll('audio')].every(a => a.paused)")


@pytest.mark.slow
def test_original_and_result_change_places_by_one_key(browser: Any, report: str) -> None:
    with opened(browser, report) as page:
        page.locator(".row").first.get_by_role("button", name="recording").click()
        playing = (
            "[...document.querySelectorAll('audio')].find(a => !a.paused)?.ariaLabel.split(': ')[1]"
        )
        heard = []
        for _ in range(4):
            page.evaluate("document.querySelectorAll('audio').forEach(a => a.loop = true)")
            until(page, playing)
            heard.append(page.evaluate(playing))
            page.keyboard.press("x")
        assert heard == ["recording", "coded", "ceiling", "recording"]


@pytest.mark.slow
def test_a_sound_is_saved_as_a_wav(browser: Any, report: str, tmp_path: Path) -> None:
    with opened(browser, report) as page:
        with page.expect_download() as saved:
            page.get_by_role("link", name="Save").first.click()
        assert saved.value.suggested_filename.endswith(".wav")
        saved.value.save_as(tmp_path / "sound.wav")
        assert soundfile.info(tmp_path / "sound.wav").frames > 0


@pytest.mark.slow
def test_every_picture_is_as_wide_as_its_card_and_has_axes(browser: Any, report: str) -> None:
    with opened(browser, report) as page:
        for card in page.locator("section .card:has(.screen):visible").all()[:24]:
            boxes = [card.locator(part).bounding_box() for part in (".screen", "img")]
            assert boxes[0]["width"] == boxes[1]["width"] > 80
            assert card.locator(".seconds").inner_text().rstrip().endswith("s")
            assert card.locator(".screen").inner_text().rstrip().endswith("Hz")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_is_legible_and_is_reached_by_keyboard(
    browser: Any, report: str, width: int, scheme: str
) -> None:
    with opened(browser, report, width, scheme) as page:
        page.get_by_text("For experts").click()
        check_pictures_load(page)
        check_text_is_legible(page)
        if scheme == "light":
            check_keyboard_reaches_everything(page)
