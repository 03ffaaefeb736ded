"""The report and the app in Chromium: sounds play, pictures load, everything is reached by keyboard."""

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiovq.dataset.dataset import Dataset
from audiovq.models.checkpoint import load
from audiovq.pipeline import write_report

WIDTHS = [390, 1280]
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --mute-audio --autoplay-policy=no-user-gesture-required"""
TIMEOUT_MS = 20_000
"""Timeout of a move on a busy machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright; skips if either is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: the extra [browser]")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(dataset: Dataset, folder: Path) -> str:
    """URL of a report."""
    return write_report(load(folder), dataset, folder).as_uri()


@pytest.fixture(scope="module")
def app(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a running app; checks at the end that it contacted no other host."""
    pytest.importorskip("gradio", reason="the app needs the extra [app]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    log = tmp_path_factory.mktemp("app") / "log.txt"
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
    assert re.findall("OUTSIDE.*", log.read_text()) == []


@contextlib.contextmanager
def opened(browser: Any, address: str, width: int) -> Iterator[Any]:
    """A page; checks at the end that it had no errors and sent no request to another host."""
    errors: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(TIMEOUT_MS)

    def on_console(message: Any) -> None:
        if message.type == "error":
            errors.append(message.text)

    def on_request(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:", "file:")):
            errors.append(f"request to {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", on_request)
    page.goto(address)
    yield page
    assert errors == []
    page.close()


@contextlib.contextmanager
def app_page(browser: Any, app: str, width: int = 1280) -> Iterator[Any]:
    """The app, loaded."""
    with opened(browser, app, width) as page:
        page.get_by_role("button", name="Generate", exact=True).wait_for()
        yield page


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def generate(page: Any, **labels: str) -> None:
    """Generate sounds with labels and seed 1, and wait for them."""
    page.get_by_label("seed").fill("1")
    for label, value in labels.items():
        page.get_by_label(label).click()
        page.get_by_role("option", name=value, exact=True).click()
    button(page, "Generate").click()
    page.get_by_role("grid").wait_for()


def check_everything_loads(page: Any) -> None:
    """Every picture and sound loads, and nothing is wider than the window."""
    page.wait_for_function("[...document.querySelectorAll('audio')].every(a => a.duration > 0)")
    page.wait_for_function("[...document.querySelectorAll('img')].every(i => i.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def check_every_sound_plays(page: Any) -> None:
    played = page.evaluate(
        """async () => {
          const played = [];
          for (const sound of document.querySelectorAll("audio")) {
            await sound.play();
            while (!(sound.currentTime > 0)) await new Promise(requestAnimationFrame);
            sound.pause();
            played.push(sound.currentTime);
          }
          return played;
        }"""
    )
    assert played
    assert all(seconds > 0 for seconds in played)


def check_keyboard_reaches_everything(page: Any) -> None:
    """Repeated Tab reaches everything that can be clicked, filled in or played."""
    wanted = page.evaluate(
        """() => {
          document.activeElement.blur();
          const able = "a[href], button, input, select, textarea, summary, audio[controls]";
          window.wanted = [...document.querySelectorAll(able)].filter(one =>
            one.checkVisibility({visibilityProperty: true}) && !one.disabled
            && one.type !== "file" && !one.closest("[role=grid]"));
          window.reached = new Set();
          return window.wanted.length;
        }"""
    )
    assert wanted
    for _ in range(4 * wanted + 40):
        page.keyboard.press("Tab")
        if page.evaluate(
            """() => {
              window.reached.add(document.activeElement);
              return window.wanted.every(one => window.reached.has(one));
            }"""
        ):
            return
    missed = page.evaluate(
        "window.wanted.filter(o => !window.reached.has(o)).map(o => o.outerHTML.slice(0, 150))"
    )
    assert missed == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_loads_plays_and_is_reached_by_keyboard(
    browser: Any, report: str, width: int
) -> None:
    with opened(browser, report, width) as page:
        check_everything_loads(page)
        check_keyboard_reaches_everything(page)
        if width == WIDTHS[0]:
            check_every_sound_plays(page)


@pytest.mark.parametrize("width", WIDTHS)
def test_generated_sounds_have_the_label_load_play_and_download(
    browser: Any, app: str, tmp_path: Path, width: int
) -> None:
    with app_page(browser, app, width) as page:
        generate(page, folder="sam")
        names = page.locator("figure figcaption").all_inner_texts()
        assert [name.split(" ", 1)[1] for name in names[1:]] == ["sam"] * 4
        check_everything_loads(page)
        check_every_sound_plays(page)
        check_keyboard_reaches_everything(page)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").first.click()
        assert download.value.suggested_filename == "sam.wav"
        download.value.save_as(tmp_path / "sam.wav")
        with wave.open(str(tmp_path / "sam.wav")) as file:
            assert file.getframerate() == 8000
            assert file.getnframes() > 0


def test_an_uploaded_recording_is_encoded_morphed_continued_and_varied(
    browser: Any, app: str, recordings: Path
) -> None:
    with app_page(browser, app) as page:
        page.locator("input[type=file]").set_input_files(recordings / "jan" / "0_jan_0.wav")
        page.get_by_text("1: 0_jan_0", exact=True).wait_for()
        page.get_by_text("2: 0_jan_0, encoded and decoded").wait_for()
        assert page.evaluate("document.querySelector('.editor audio').duration") == 0.2
        button(page, "Morph to this sound").click()
        page.get_by_text("4/4").first.wait_for()
        assert page.get_by_role("button", name="Edit").count() == 6
        page.get_by_label("number input for total seconds").fill("0.5")
        button(page, "Continue").click()
        page.get_by_text(", continued").first.wait_for()
        assert page.evaluate("document.querySelector('.editor audio').duration") == 0.5
        button(page, "Vary").click()
        page.get_by_text(", varied 4").wait_for()
        check_everything_loads(page)


def codes_of_cells(page: Any) -> list[str]:
    """The codes of all cells of the selected sound."""
    cells = page.get_by_role("gridcell")
    codes: list[str] = cells.evaluate_all("cells => cells.map(cell => cell.dataset.codes)")
    return codes


def test_only_selected_cells_change_when_a_code_is_set_or_they_are_regenerated(
    browser: Any, app: str
) -> None:
    with app_page(browser, app) as page:
        generate(page)
        before = codes_of_cells(page)
        cell = page.locator('[data-cell="1,1"]')
        cell.click()
        code = page.get_by_label("code", exact=True)
        assert code.input_value() == cell.get_attribute("data-codes")
        new = "7" if code.input_value() != "7" else "8"
        sound = page.locator(".editor audio")
        previous = sound.get_attribute("src")
        code.fill(new)
        button(page, "Set code").click()
        page.locator(f'[data-cell="1,1"][data-codes="{new}"]').wait_for()
        after = codes_of_cells(page)
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
        assert sound.get_attribute("src") != previous
        page.wait_for_function("document.querySelector('.editor audio').played.length > 0")

        corner = page.locator('[data-cell="2,0"]')  # select four cells from there, by keyboard
        corner.click()
        page.keyboard.press("Shift+ArrowUp")
        page.keyboard.press("Shift+ArrowRight")
        selection = page.locator('[aria-selected="true"]')
        selected = selection.evaluate_all("cells => cells.map(cell => cell.dataset.cell).sort()")
        assert selected == ["2,0", "2,1", "3,0", "3,1"]
        for seed in "23456":  # the new codes may equal the old ones
            page.get_by_label("seed").fill(seed)
            button(page, "Regenerate selection").click()
            page.wait_for_timeout(300)
            page.wait_for_function("!document.querySelector('.pending, .generating')")
            if codes_of_cells(page) != after:
                break
        cells = page.get_by_role("gridcell").evaluate_all("all => all.map(c => c.dataset.cell)")
        changed = zip(cells, after, codes_of_cells(page), strict=True)
        moved = {cell for cell, a, b in changed if a != b}
        assert moved
        assert moved <= set(selected)
        for _ in range(40):
            if codes_of_cells(page) == before:
                break
            button(page, "Undo").click()
            page.wait_for_timeout(200)
        assert codes_of_cells(page) == before


def test_recordings_that_are_too_long_or_too_large_are_rejected_with_a_message(
    browser: Any, app: str, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 11), 8000)
    soundfile.write(tmp_path / "large.wav", np.zeros(11_000_000), 44100)
    with app_page(browser, app) as page:
        page.locator("input[type=file]").set_input_files(tmp_path / "long.wav")
        message = page.get_by_text("lasts 11.0 s; give a recording of 10 s at most")
        message.wait_for()
        assert re.fullmatch(r"long\.wav: [^\n]*", message.inner_text())
        assert page.get_by_role("grid").count() == 0
    page = browser.new_page()  # here the browser reports the rejection, too
    page.goto(app)
    page.locator("input[type=file]").set_input_files(tmp_path / "large.wav")
    page.get_by_text('exceed the maximum allowed size of 20.0 Mb: "large.wav"').wait_for()
    page.close()
    # The server rejects uploads that bypass the page.
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    request = urllib.request.Request(
        f"{app}gradio_api/upload",
        form + bytes(21 << 20) + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    with pytest.raises(urllib.error.HTTPError) as rejected:
        urllib.request.urlopen(request)
    assert rejected.value.code == 413
    rejected.value.close()


def test_two_users_have_separate_desks(browser: Any, app: str) -> None:
    with app_page(browser, app) as one, app_page(browser, app) as other:
        for page, value in ((one, "jan"), (other, "sam")):
            page.get_by_label("folder").click()
            page.get_by_role("option", name=value, exact=True).click()
        for page in (one, other):
            button(page, "Generate").click(no_wait_after=True)
        for page, value in ((one, "jan"), (other, "sam")):
            page.get_by_role("grid").wait_for()
            names = page.locator("figure figcaption").all_inner_texts()[1:]
            assert {name.split(" ", 1)[1] for name in names} == {value}


@pytest.mark.slow
def test_a_port_in_use_and_missing_gradio_are_reported_in_one_line(
    app: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from audiovq.cli.main import main

    port = app.rstrip("/").rpartition(":")[2]
    command = [sys.executable, "-m", "audiovq", "app", folder, "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == f"audiovq: port {port}: is taken; give another with --port\n"
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "audiovq.app.page", raising=False)
    assert main(["app", str(folder)]) == 2
    message = capsys.readouterr().err
    assert message == "audiovq: the app needs Gradio: pip install 'audiovq[app]'\n"
