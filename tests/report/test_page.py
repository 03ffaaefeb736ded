"""The report in Chromium: sounds play, pictures load, everything is reached by keyboard."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
from test_sections import picture
from test_sections import report as made_up

from audiovq.dataset.dataset import Dataset
from audiovq.models.checkpoint import load
from audiovq.pipeline import write_report
from audiovq.report.sections import write


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
        steps = page.get_by_role("region", name="What next").inner_text()
        for verb in ("app", "generate", "pack", "evaluate"):
            assert f"audiovq {verb} " in steps


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
@pytest.mark.parametrize("width", WIDTHS)
def test_sounds_of_unlike_lengths_are_equally_wide_each_on_its_own_seconds(
    browser: Any, tmp_path: Path, width: int
) -> None:
    lengths = {"hit": 0.08, "note": 1.5, "texture": 6.0}
    sounds = [picture(f"{name} {i}", s) for name, s in lengths.items() for i in range(8)]
    write(tmp_path / "page.html", made_up(generated=sounds, sample_rate=8000))
    with opened(browser, (tmp_path / "page.html").as_uri(), width) as page:
        cards = page.locator("section").first.locator(".card")
        assert cards.count() == len(sounds) == 24
        assert len({round(box["width"]) for box in map(_box, cards.locator("img").all())}) == 1
        for name, seconds in lengths.items():
            card = cards.filter(has_text=f"{name} 0")
            assert f"{seconds:.2f}" in card.locator("figcaption").inner_text()
            *_, last = card.locator(".seconds span").all_inner_texts()
            assert 0.5 * seconds <= float(last.removesuffix("s")) <= seconds
        check_pictures_load(page)


def _box(part: Any) -> dict[str, float]:
    found: dict[str, float] = part.bounding_box()
    return found


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


@pytest.mark.slow
def test_percent_are_written_in_one_way(browser: Any, report: str) -> None:
    with opened(browser, report) as page:
        page.get_by_text("For experts").click()
        text = page.locator("body").inner_text()
        assert re.search(r"\d %", text)
        assert not re.search(r"\d%", text)


@pytest.mark.slow
def test_a_chart_of_one_point_shows_it_and_a_stereo_sound_where_it_is(
    browser: Any, tmp_path: Path
) -> None:
    mono = picture("moving", 0.5)
    gains = np.linspace(0, 1, mono.waveform.size, dtype=np.float32)
    both = np.stack([mono.waveform * (1 - gains), mono.waveform * gains])
    stereo = replace(mono, waveform=both)
    row = {"stage": "autoencoder", "step": 800, "validation_error_db": 3.67}
    shown = made_up(generated=[stereo], channels=2, metrics=[row], codes=[])
    write(tmp_path / "page.html", shown)
    with opened(browser, (tmp_path / "page.html").as_uri()) as page:
        line = page.locator(".screen .balance").bounding_box()
        assert line == page.locator(".screen").first.bounding_box()
        assert "stereo" in page.locator("header").inner_text()
        page.get_by_text("For experts").click()
        chart = page.locator("figure", has=page.get_by_role("heading", name="Autoencoder: error"))
        dot, frame = (chart.locator(part).bounding_box() for part in ("circle", "svg"))
        assert dot["width"] >= 7
        assert frame["x"] < dot["x"]
        assert dot["x"] + dot["width"] <= frame["x"] + frame["width"]
