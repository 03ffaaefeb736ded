"""The app in Chromium: each test does what a person would do, by mouse or keyboard, and looks at what the page shows."""

import contextlib
import io
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
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

LISTEN = """() => {
  window.heard = [];
  new MutationObserver(() => {
    const key = document.body.dataset.playing;
    if (key && key !== window.heard.at(-1)) window.heard.push(key);
  }).observe(document.body, {attributeFilter: ["data-playing"]});
}"""
"""Writes down what is played, as sounds are short."""
REFUSED = "status of 400"
"""What the browser's console says of a move that the server refuses."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def app(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a running app."""
    with serving(folder, free_port(), tmp_path_factory.mktemp("app") / "log.txt") as address:
        yield address


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@contextlib.contextmanager
def serving(folder: Path, port: str, log: Path) -> Iterator[str]:
    """URL of an app that runs; checks at the end that it contacted no other host."""
    script = Path(__file__).parents[1] / "helpers" / "no_network.py"
    command = [sys.executable, script, "app", folder, "--port", port, "--device", "cpu"]
    with (
        open(log, "w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            line, address = process.stdout.readline(), f"http://127.0.0.1:{port}/"
            serving = f"serving on {address}: open it in a browser; Ctrl-C stops the server\n"
            assert line == serving, log.read_text()
            yield address
        finally:  # or the failed test would wait for the server for ever
            process.terminate()
    assert re.findall("OUTSIDE.*|Traceback.*", log.read_text()) == []


@contextlib.contextmanager
def app_page(
    browser: Any, app: str, width: int = 1280, scheme: str = "light", expected: str = ""
) -> Iterator[Any]:
    """The app, with its first sounds."""
    with opened(browser, app, width, scheme, expected) as page:
        page.get_by_role("gridcell").first.wait_for()
        idle(page)
        page.evaluate(LISTEN)
        yield page


def idle(page: Any) -> None:
    until(page, "document.body.ariaBusy === 'false'")


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def names(page: Any) -> list[str]:
    """Names of the sounds on the shelf."""
    found: list[str] = page.locator("#cards .words b").all_inner_texts()
    return found


def codes_of_cells(page: Any) -> dict[str, str]:
    """The codes of all cells of the open sound, by row and column."""
    found: dict[str, str] = page.get_by_role("gridcell").evaluate_all(
        "cells => Object.fromEntries(cells.map(cell => [cell.dataset.cell, cell.dataset.codes]))"
    )
    return found


def drag(page: Any, first: str, last: str) -> None:
    """Drag the mouse from one cell to another, each `row,column`."""
    cells = [page.locator(f'[data-cell="{cell}"]') for cell in (first, last)]
    start, end = (cell.bounding_box() for cell in cells)
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] / 2, steps=4)
    page.mouse.up()


def heard(page: Any) -> str:
    """The next sound that was played: its key, or `code ROW CODE`."""
    until(page, "window.heard.length")
    key: str = page.evaluate("window.heard.shift()")
    return key


def open_key(page: Any) -> str:
    key: str = page.locator("#play").get_attribute("data-play")
    return key


def act(page: Any, name: str) -> None:
    """Press a button and wait for the model."""
    button(page, name).click()
    idle(page)


@pytest.mark.slow
def test_a_sound_is_there_on_load_and_plays(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        assert len(names(page)) == 3
        check_pictures_load(page)
        assert page.evaluate("document.body.dataset.playing") == ""  # silent until it is asked
        button(page, "Play").click()
        assert heard(page) == open_key(page)
        until(page, "document.body.dataset.playing === ''")  # and it ends
        button(page, "Play all").click()
        played = set()
        while len(played) < 3:
            played.add(heard(page))


@pytest.mark.slow
def test_no_button_is_dead(browser: Any, app: str) -> None:
    """Disabled buttons say why; all others work without an error on a new desk."""
    with app_page(browser, app) as page:
        disabled = page.locator("button:disabled")
        reasons = disabled.evaluate_all("all => all.map(one => [one.innerText, one.title])")
        assert dict(reasons).keys() == {"Undo", "Redo", "Redraw marked cells"}
        assert all(reason for _, reason in reasons)
        labels = page.locator("button:enabled:visible:not([role=gridcell])")
        for label in labels.evaluate_all("all => all.map(o => o.ariaLabel || o.innerText)"):
            if label not in ("Open a recording", "Record") and button(page, label).count():
                button(page, label).first.click()
                idle(page)
                assert page.get_by_role("alert").count() == 0, label


@pytest.mark.slow
def test_an_error_says_what_to_do_and_goes_away(browser: Any, app: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 11), 8000)
    (tmp_path / "large.wav").write_bytes(bytes(21 << 20))
    (tmp_path / "text.wav").write_text("no sound")
    with app_page(browser, app, expected=REFUSED) as page:
        page.clock.install()
        alert = page.get_by_role("alert")
        for name, words in (
            ("long.wav", "long.wav: lasts 11.0 s; give a recording of 10 s at most"),
            ("large.wav", "large.wav: is larger than 20 MB; cut it to the part that you want"),
            ("text.wav", "text.wav: is broken"),
        ):
            page.locator("#file").set_input_files(tmp_path / name)
            page.get_by_text(words).wait_for()
            assert alert.is_visible()
            if name == "long.wav":
                button(page, "Close the message").click()
            elif name == "large.wav":
                page.clock.fast_forward(11_000)
            else:
                button(page, "Make new sounds").click()  # the next move that succeeds
            alert.wait_for(state="detached")
        assert len(names(page)) > 3


def test_the_open_sound_is_kept_where_it_stands(browser: Any, app: str) -> None:
    """The shelf, with a star for each sound, is out of sight after a redraw."""
    with app_page(browser, app) as page:
        act(page, "☆ Keep")
        pressed = page.locator("#cards .card").first.locator("[data-do=keep]")
        assert pressed.get_attribute("aria-pressed") == "true"
        page.get_by_text("Download 1 starred as a pack").wait_for()
        act(page, "★ Kept")
        assert pressed.get_attribute("aria-pressed") == "false"


def test_a_drag_redraws_what_it_marks_as_a_take_that_is_played(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        assert page.get_by_text("Drag over the picture").is_visible()
        grid = page.get_by_role("grid")
        assert grid.evaluate("one => getComputedStyle(one).cursor") == "crosshair"
        assert "drag" in grid.get_attribute("aria-label")
        before, original, old = (
            codes_of_cells(page),
            page.locator("#name").inner_text(),
            names(page),
        )
        changed: set[str] = set()
        while not changed:  # the new codes may equal the old ones
            drag(page, "1,0", "2,1")
            idle(page)
            heard(page)
            after = codes_of_cells(page)
            changed = {cell for cell in before if before[cell] != after[cell]}
        assert changed <= {"1,0", "1,1", "2,0", "2,1"}
        assert names(page)[0].startswith(f"{original}, take ")
        assert names(page)[-3:] == old, "the original stays on the shelf"
        assert open_key(page) == page.locator(".card").first.get_attribute("data-key")
        original_box = page.locator("#original")
        assert original_box.inner_text() == f"Original: {original}"
        check_pictures_load(page)
        page.evaluate("window.heard = []")
        page.wait_for_timeout(600)  # the take has ended
        page.keyboard.press("o")
        until(page, "window.heard.length")
        original_key = page.locator("#play-original").get_attribute("data-play")
        assert original_key in page.evaluate("window.heard")


@pytest.mark.slow
def test_marked_cells_are_redrawn_when_asked_without_at_once(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        page.get_by_label("at once, when I let go").uncheck()
        drag(page, "0,0", "1,1")
        page.get_by_text("4 cells are marked.").wait_for()
        assert len(names(page)) == 3
        act(page, "Redraw marked cells")
        assert len(names(page)) == 4
        page.locator('[data-cell="0,0"]').focus()
        for _ in range(3):  # held down: the browser repeats the key
            page.keyboard.down("Enter")
        idle(page)
        assert len(names(page)) == 5


@pytest.mark.slow
def test_a_code_is_heard_before_it_is_written_into_marked_cells(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        page.get_by_label("at once, when I let go").uncheck()
        drag(page, "1,1", "1,2")
        swatches = page.locator(".swatches button")
        swatches.first.wait_for()
        check_pictures_load(page)
        before = codes_of_cells(page)
        new = next(
            code
            for code in swatches.evaluate_all("all => all.map(one => one.dataset.code)")
            if code not in (before["1,1"], before["1,2"])
        )
        swatch = page.locator(f'.swatches [data-code="{new}"]')
        swatch.hover()
        assert heard(page) == f"code 1 {new}"
        swatch.click()
        page.get_by_text("written in 2 cells").first.wait_for()
        after = codes_of_cells(page)
        assert {cell for cell in after if after[cell] != before[cell]} == {"1,1", "1,2"}
        assert after["1,1"] == after["1,2"] == new
        page.get_by_label("or code").fill(before["1,1"])
        button(page, "Hear it").click()
        while heard(page) != f"code 1 {before['1,1']}":
            pass
        act(page, "Write it")
        assert codes_of_cells(page)["1,1"] == before["1,1"]


@pytest.mark.slow
def test_an_empty_shelf_is_silent_and_the_last_sound_that_was_discarded_is_restored(
    browser: Any, app: str
) -> None:
    with app_page(browser, app) as page:
        page.get_by_label("Loop").check()
        drag(page, "0,0", "0,1")  # a take, which has an original
        idle(page)
        until(page, "document.body.dataset.playing")
        before = names(page)
        for _ in before:
            page.locator("[data-do=discard]").last.click()
            idle(page)
        assert names(page) == []
        assert page.evaluate("document.body.dataset.playing") == ""
        page.evaluate("window.heard = []")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for key in "po":
            page.keyboard.press(key)
        for _ in before:
            act(page, "Undo")
        assert names(page) == before
        assert [url for url in asked if url.endswith(".wav")] == page.evaluate("heard") == []


@pytest.mark.slow
def test_a_sound_that_does_not_load_is_said_and_plays_at_the_next_click(
    browser: Any, app: str
) -> None:
    with app_page(browser, app, expected="ERR_INTERNET_DISCONNECTED") as page:
        page.context.set_offline(True)
        button(page, "Play").click()
        page.get_by_role("alert").get_by_text("does not answer").wait_for()
        page.context.set_offline(False)
        button(page, "Play").click()
        assert heard(page) == open_key(page)


@pytest.mark.slow
def test_all_sounds_play_but_one_that_does_not_load(browser: Any, app: str) -> None:
    with app_page(browser, app, expected="ERR_FAILED") as page:
        cards = page.locator(".card").all()
        first, broken, last = (card.get_attribute("data-key") for card in cards)
        page.route(f"**/sounds/{broken}.wav", lambda route: route.abort())
        button(page, "Play all").click()
        assert [heard(page), heard(page)] == [first, last]
        assert page.get_by_role("alert").count() == 1


@pytest.mark.slow
def test_what_is_asked_for_while_sounds_are_made_comes_between_them_and_its_error_stays(
    browser: Any, app: str
) -> None:
    with app_page(browser, app, expected=REFUSED) as page:
        page.evaluate(
            """() => {
                const real = window.fetch;
                window.asked = [];
                window.fetch = (url, options) => {
                    if (options?.body) window.asked.push(JSON.parse(options.body).move);
                    return real(url, options);
                };
            }"""
        )
        page.get_by_label("how many").fill("4")
        page.get_by_label("Continue to").fill("")
        # In one go, so that no sound is made between the clicks.
        page.evaluate(
            """() => {
                for (const one of ["#make button", "[value=extend]", "[data-do=keep]"])
                    document.querySelector(one).click();
            }"""
        )
        until(page, "window.asked.length === 6")
        idle(page)
        assert page.evaluate("window.asked") == ["make", "extend", "keep", *["make"] * 3]
        assert "length 0" in page.get_by_role("alert").inner_text()


@pytest.mark.slow
def test_an_empty_code_is_not_written(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        page.get_by_label("at once, when I let go").uncheck()
        drag(page, "0,0", "0,1")
        before = names(page)
        page.get_by_label("or code").fill("")
        act(page, "Write it")
        assert names(page) == before
        page.get_by_label("or code").fill("1")
        act(page, "Write it")
        assert len(names(page)) == len(before) + 1


@pytest.mark.slow
def test_every_move_is_undone_and_redone(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        start = names(page), codes_of_cells(page)
        drag(page, "0,0", "1,1")
        idle(page)
        act(page, "Vary it")
        end = names(page), codes_of_cells(page)
        assert len(end[0]) == 5
        for _ in range(2):
            act(page, "Undo")
        assert (names(page), codes_of_cells(page)) == start
        assert button(page, "Undo").is_disabled()
        page.keyboard.press("Control+Shift+Z")
        idle(page)
        act(page, "Redo")
        assert (names(page), codes_of_cells(page)) == end
        assert button(page, "Redo").is_disabled()


@pytest.mark.slow
def test_sounds_are_kept_renamed_discarded_and_downloaded_as_a_pack(
    browser: Any, app: str, tmp_path: Path
) -> None:
    with app_page(browser, app) as page:
        cards = page.locator("#cards > li")
        cards.nth(1).get_by_title("rename").click()
        page.get_by_label("New name").fill("my best kick")
        page.keyboard.press("Enter")
        page.locator(".words b", has_text="my best kick").wait_for()
        cards.nth(2).get_by_title("discard").click()
        until(page, "document.querySelectorAll('#cards > li').length === 2")
        with page.expect_download() as saved:
            page.get_by_role("link", name="Save my best kick as a WAV").click()
        assert saved.value.suggested_filename == "my-best-kick.wav"
        saved.value.save_as(tmp_path / "kick.wav")
        assert soundfile.info(tmp_path / "kick.wav").samplerate == 8000
        for count, wanted in ((2, "Download all as a pack"), (1, "Download 1 starred as a pack")):
            with page.expect_download() as packed:
                page.get_by_role("link", name=wanted).click()
            packed.value.save_as(tmp_path / "pack.zip")
            with zipfile.ZipFile(tmp_path / "pack.zip") as archive:
                top = zipfile.Path(archive, "model-sounds/")  # all of it lies in one folder
                assert [path.name for path in zipfile.Path(archive).iterdir()] == ["model-sounds"]
                files = [path.name for path in top.iterdir()]
                wavs = [name for name in files if name.endswith(".wav")]
                assert len(wavs) == count
                assert {"index.html", "drumkit.xml"} < set(files)
                assert all(name in (top / "model.sfz").read_text(encoding="utf-8") for name in wavs)
                sound, rate = soundfile.read(io.BytesIO((top / "my-best-kick.wav").read_bytes()))
                assert (rate, len(sound) > 0) == (8000, True)
            star = cards.nth(1).get_by_role("button", name="Keep my best kick")
            if count == 2:
                star.click()
                page.get_by_text("Download 1 starred as a pack").wait_for()
                assert star.get_attribute("aria-pressed") == "true"


@pytest.mark.slow
def test_a_name_is_typed_to_its_end_while_another_sound_arrives(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        count = page.locator("#cards > li").count()
        button(page, "Make new sounds").click()
        page.locator("#cards > li").first.get_by_title("rename").click()
        page.keyboard.type("half")
        until(page, f"document.querySelectorAll('#cards > li').length > {count}")
        page.keyboard.type(" pop")
        page.keyboard.press("Enter")
        page.locator(".words b", has_text="half pop").wait_for()


@pytest.mark.slow
def test_work_is_kept_over_a_reload_and_other_browsers_have_their_own(
    browser: Any, app: str
) -> None:
    with app_page(browser, app) as page, app_page(browser, app) as other:
        drag(page, "0,0", "1,1")
        idle(page)
        shelf, codes = names(page), codes_of_cells(page)
        page.reload()
        page.get_by_role("gridcell").first.wait_for()
        assert (names(page), codes_of_cells(page)) == (shelf, codes)
        act(page, "Undo")
        assert len(names(page)) == 3
        other.reload()
        other.get_by_role("gridcell").first.wait_for()
        assert len(names(other)) == 3
        assert shelf[0] not in names(other)


@pytest.mark.slow
def test_work_is_kept_over_a_restart_of_the_server(
    browser: Any, folder: Path, tmp_path: Path
) -> None:
    port, kept = free_port(), []
    with contextlib.ExitStack() as stack:
        with serving(folder, port, tmp_path / "one.txt") as address:
            page = stack.enter_context(app_page(browser, address))
            drag(page, "0,0", "1,1")
            idle(page)
            page.get_by_role("button", name="Keep").first.click()
            idle(page)
            kept = [names(page), codes_of_cells(page), page.locator("#original").inner_text()]
            assert len(kept[0]) == 4
            page.get_by_text("over a restart").wait_for()
        with serving(folder, port, tmp_path / "two.txt"):
            page.reload()
            page.get_by_role("gridcell").first.wait_for()
            idle(page)
            assert [
                names(page),
                codes_of_cells(page),
                page.locator("#original").inner_text(),
            ] == kept
            assert page.get_by_title("kept").count() == 1
            check_pictures_load(page)
            drag(page, "1,1", "2,2")
            idle(page)
            assert names(page)[0].endswith("take 3")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_space_is_empty_and_controls_stay_in_reach(browser: Any, app: str, scheme: str) -> None:
    def box(page: Any, selector: str) -> dict[str, float]:
        found: dict[str, float] = page.locator(selector).bounding_box()
        return found

    with app_page(browser, app, 1280, scheme) as page:
        stage, shelf, aside = (box(page, one) for one in (".stage", ".shelf", "aside"))
        assert 0 < shelf["y"] - stage["y"] - stage["height"] < 40
        assert shelf["width"] == stage["width"]
        assert aside["x"] > stage["x"] + stage["width"]
        drag(page, "0,0", "1,1")  # codes are shown, and the original: the stage is taller
        idle(page)
        stage, shelf = box(page, ".stage"), box(page, ".shelf")
        assert 0 < shelf["y"] - stage["y"] - stage["height"] < 40
        page.mouse.wheel(0, 4000)
        until(page, "scrollY > 0")
        assert 0 <= box(page, "aside")["y"] < 40
        wide = [box(page, f"{form} .menus")["width"] for form in ("#make", "#change")]
        alone = box(page, "#change .menus label")["width"]  # the model has one label
        assert alone == wide[1]
    with app_page(browser, app, 390, scheme) as page:
        tops = [box(page, one)["y"] for one in (".stage", "aside", ".shelf")]
        assert tops == sorted(tops)


@pytest.mark.slow
def test_playback_loops_and_has_a_volume_and_axes_have_units(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        page.get_by_label("Loop").check()
        button(page, "Play").click()
        heard(page)
        page.wait_for_timeout(900)  # longer than any of the sounds
        assert page.evaluate("document.body.dataset.playing") == open_key(page)
        page.get_by_label("Loop").uncheck()
        until(page, "document.body.dataset.playing === ''")
        page.get_by_label("Volume").fill("0.3")
        page.reload()
        assert page.get_by_label("Volume").input_value() == "0.3"
        page.get_by_role("gridcell").first.wait_for()
        assert re.match(r"0\.\d\d s", page.locator("#facts").inner_text())
        seconds = page.locator(".plot .seconds li").all_inner_texts()
        hertz = page.locator(".plot .hertz li").all_inner_texts()
        assert (seconds[0][:1], seconds[-1]) == ("0", "s")
        assert "1k" in hertz
        assert hertz[-1] == "Hz"


@pytest.mark.slow
def test_settings_have_words(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        page.get_by_text("How they are made").click()
        for name, values in {
            "Temperature": {"0.1": "only the likeliest", "0.8": "as learnt", "1.9": "wild"},
            "Guidance": {"0": "loosely", "1": "clearly", "5": "exaggerated"},
            "Strength": {"0": "unchanged", "0.5": "clearly", "1": "only length and loudness stay"},
        }.items():
            slider = page.get_by_role("slider", name=name)
            for value, words in values.items():
                slider.fill(value)
                assert slider.get_attribute("aria-valuetext") == f"{value}, {words}"
                assert page.get_by_text(f"{value} {words}").first.is_visible()
            about = page.locator(f"#{slider.get_attribute('aria-describedby')}")
            assert len(about.inner_text()) > 20


@pytest.mark.slow
def test_new_sounds_have_the_label_and_length_asked_for(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        form = page.locator("#make")
        form.get_by_label("folder").select_option("sam")
        form.get_by_label("seconds").fill("0.5")
        form.get_by_label("how many").fill("2")
        button(page, "Make new sounds").click()
        until(page, "document.querySelectorAll('#cards > li').length === 5")
        idle(page)
        assert names(page)[:2] == ["sam", "sam"]
        assert page.locator("#facts").inner_text().startswith("0.50 s")


@pytest.mark.slow
def test_an_upload_says_what_it_is_turned_into_and_is_changed(
    browser: Any, app: str, tmp_path: Path
) -> None:
    time = np.arange(9600) / 48000
    both = np.stack([np.sin(2 * np.pi * 300 * time), np.sin(2 * np.pi * 440 * time)], axis=1)
    soundfile.write(tmp_path / "tone.flac", 0.3 * both, 48000)
    with app_page(browser, app) as page:
        page.locator("#file").set_input_files(tmp_path / "tone.flac")
        page.get_by_text("tone.flac: 48,000 Hz stereo → 8,000 Hz mono").wait_for()
        assert names(page)[:2] == ["tone", "tone, decoded"]
        heard(page)
        page.get_by_label("Morph to").select_option(label="tone, decoded")
        act(page, "Morph")
        assert names(page)[3] == "tone → tone, decoded 4/4"
        length = page.get_by_label("Continue to")
        assert length.input_value() == "0.7", "half a second longer than the open sound"
        length.fill("0.5")
        act(page, "Continue")
        assert length.input_value() == "0.5", "as typed"
        assert page.locator("#facts").inner_text().startswith("0.50 s · continued")
        length.fill("99")  # of no meaning to a variation
        act(page, "Vary it")
        assert "varied" in page.locator("#facts").inner_text()
        check_pictures_load(page)


@pytest.mark.slow
def test_the_microphone_records_until_it_is_pressed_again(browser: Any, app: str) -> None:
    with app_page(browser, app) as page:
        button(page, "Record").click()
        button(page, "Stop recording").wait_for()
        page.wait_for_timeout(400)
        button(page, "Stop recording").click()
        page.get_by_text("microphone.wav:").wait_for()
        assert page.get_by_text("stopped by itself").count() == 0
        assert names(page)[0] == "microphone"


@pytest.mark.slow
def test_the_microphone_stops_by_itself_at_the_longest_recording_and_says_so(
    browser: Any, app: str
) -> None:
    with app_page(browser, app) as page:
        page.evaluate("document.body.dataset.mostSeconds = 0.4")
        button(page, "Record").click()
        page.get_by_text("Recording stopped by itself at 0.4 s, the longest.").wait_for()
        assert names(page)[0] == "microphone"
        assert button(page, "Record").get_attribute("aria-pressed") == "false"


@pytest.mark.slow
def test_the_microphone_is_asked_for_once_however_often_it_is_pressed(
    browser: Any, app: str
) -> None:
    slow = """() => {
      const devices = navigator.mediaDevices, ask = devices.getUserMedia.bind(devices);
      const allowed = new Promise(resolve => { window.allow = resolve; });
      window.asked = 0;
      devices.getUserMedia = async what => { window.asked++; await allowed; return ask(what); };
    }"""
    with app_page(browser, app) as page:
        page.evaluate(slow)
        for _ in range(2):
            button(page, "Record").click()
        page.evaluate("window.allow()")
        button(page, "Stop recording").wait_for()
        assert page.evaluate("window.asked") == 1


@pytest.mark.slow
def test_a_screen_reader_is_told_what_a_cell_is_what_is_marked_and_what_happened(
    browser: Any, app: str, tmp_path: Path
) -> None:
    with app_page(browser, app) as page:
        cell = page.locator('[data-cell="1,2"]')
        assert re.fullmatch(
            r"[\d,]+ to [\d,]+ Hz, column 3, code \d+", cell.get_attribute("aria-label")
        )
        cell.evaluate("one => one.click()")  # as a screen reader clicks: without a pointer
        assert cell.get_attribute("aria-selected") == "true"
        assert page.locator('[aria-selected="true"]').count() == 1
        heading = page.locator("#name").inner_text()
        assert page.get_by_role("region", name=heading).count() == 1
        for name in ("Playback", "Marked cells", "Common codes of this row"):
            assert page.get_by_role("group", name=name).count() == 1
        play = page.locator("#play")
        assert play.get_attribute("aria-pressed") == "false"
        page.get_by_label("Loop").check()
        play.click()
        until(page, "document.getElementById('play').ariaPressed === 'true'")
        soundfile.write(tmp_path / "tone.wav", np.full(2000, 0.1), 8000)
        page.locator("#file").set_input_files(tmp_path / "tone.wav")
        page.get_by_role("status").filter(has_text="tone.wav: 8,000 Hz mono").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_is_legible_and_is_reached_by_keyboard(
    browser: Any, app: str, width: int, scheme: str
) -> None:
    with app_page(browser, app, width, scheme) as page:
        page.locator('[data-cell="1,0"]').click()
        page.keyboard.press("Shift+ArrowUp")
        page.keyboard.press("Shift+ArrowRight")
        marked = page.locator('[aria-selected="true"]')
        cells = marked.evaluate_all("cells => cells.map(cell => cell.dataset.cell).sort()")
        assert cells == ["1,0", "1,1", "2,0", "2,1"]
        page.keyboard.press("Enter")
        until(page, "document.querySelectorAll('#cards > li').length === 4")
        idle(page)
        check_pictures_load(page)
        check_text_is_legible(page)
        if scheme == "light":
            check_keyboard_reaches_everything(page)
        look = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", look)[:3])) > 380) == (scheme == "light")


@pytest.mark.slow
def test_a_port_in_use_is_reported_in_one_line(app: str, folder: Path) -> None:
    port = app.rstrip("/").rpartition(":")[2]
    command = [sys.executable, "-m", "audiovq", "app", folder, "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == f"audiovq: port {port}: is taken; give another with --port\n"
