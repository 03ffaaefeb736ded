"""Makes the pictures of the app in the docs from the app itself, with the model that ships:

    python docs/make_film.py

`docs/pictures/redraw.gif`: a rectangle is dragged over a spectrogram and redrawn; `docs/pictures/app.png`: the app
after it; `docs/pictures/report.png`: the page about the model. Needs Chromium and Playwright (the extra [browser]). Sounds are random: the film differs from run to run.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from audiovq.app.server import Server
from audiovq.dataset.dataset import Dataset
from audiovq.models.checkpoint import load
from audiovq.models.folder import SHIPPED
from audiovq.pipeline import DEMO_DATA, preprocess, write_report

PICTURES = Path(__file__).resolve().parent / "pictures"
WIDTH, HEIGHT = 1000, 640
FILM_WIDTH = 880
"""Pixels."""
FRAME_MS, STILL_MS = 60, 900
MAX_BYTES = 2_000_000
DRAGS = (((0.26, 0.22), (0.6, 0.72)), ((0.55, 0.1), (0.9, 0.5)))
"""Where each drag begins and ends: shares of the picture's width and height."""
STEPS = 9
"""Frames of a drag."""
COLOURS = 160
CURSOR = """
document.body.insertAdjacentHTML("beforeend", `<svg id="cursor" width="22" height="26" viewBox="0 0 22 26"
  style="position:fixed;z-index:99;pointer-events:none"><path d="M2 2v19l5-5 4 8 4-2-4-8h7z" fill="#fff" stroke="#000"
  stroke-width="1.5"/></svg>`);
addEventListener("pointermove", event => {
  const cursor = document.getElementById("cursor");
  cursor.style.left = event.clientX + "px";
  cursor.style.top = event.clientY + "px";
});
"""
"""The browser draws no cursor into pictures."""


class Film:
    """Frames of a page, each with its duration in milliseconds."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def take(self, duration: int) -> None:
        """Add a frame of what the page shows."""
        frame = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        size = FILM_WIDTH, FILM_WIDTH * HEIGHT // WIDTH
        self.frames.append(frame.resize(size, Image.Resampling.LANCZOS))
        self.durations.append(duration)

    def write(self, path: Path) -> None:
        """Write the film as an animated GIF."""
        palette = self.frames[-1].quantize(COLOURS)
        first, *others = (
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames
        )
        first.save(
            path,
            save_all=True,
            append_images=others,
            duration=self.durations,
            loop=0,
            optimize=True,
        )
        assert path.stat().st_size <= MAX_BYTES, f"{path} is too large"


def main() -> None:
    """Run the app, film two drags, and write both pictures."""
    with Server(load(SHIPPED / "digits"), "digits", 0) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path=chromium_path(),
            args=["--no-sandbox", "--mute-audio"],
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.get_by_role("gridcell").first.wait_for()
        page.evaluate(CURSOR)
        page.wait_for_timeout(500)
        film = Film(page)
        for start, end in DRAGS:
            drag(film, start, end)
        film.write(PICTURES / "redraw.gif")
        page.evaluate("document.getElementById('cursor').remove()")
        page.set_viewport_size({"width": 1280, "height": 900})
        page.wait_for_timeout(300)
        page.screenshot(path=PICTURES / "app.png", full_page=True)
        picture_of_report(browser)
        browser.close()
        server.shutdown()


def chromium_path() -> str | None:
    """Where Chromium is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def picture_of_report(browser: Any) -> None:
    """Write the picture of the first screen of the page about the model that ships."""
    with tempfile.TemporaryDirectory() as folder:
        recordings = Path(__file__).resolve().parents[1] / "data" / "digits"
        preprocess(recordings, Path(folder) / "dataset", DEMO_DATA, say=lambda _: None)
        dataset = Dataset(Path(folder) / "dataset", recordings)
        model = load(SHIPPED / "digits")
        path = write_report(model, dataset, SHIPPED / "digits", Path(folder) / "report.html")
        page = browser.new_page(viewport={"width": 1280, "height": 760}, color_scheme="light")
        page.goto(path.as_uri())
        page.wait_for_timeout(300)
        page.screenshot(path=PICTURES / "report.png")


def drag(film: Film, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Film a drag, the redraw, and its playback."""
    page = film.page
    box = page.locator(".plot .field").bounding_box()

    def move(share: float) -> None:
        x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
        page.mouse.move(box["x"] + x * box["width"], box["y"] + (1 - y) * box["height"])

    move(0)
    film.take(STILL_MS)
    page.mouse.down()
    for step in range(1, STEPS + 1):
        move(step / STEPS)
        film.take(FRAME_MS)
    count = page.locator("#cards > li").count()
    page.mouse.up()
    page.locator("#cards > li").nth(count).wait_for()
    for _ in range(6):  # the line of playback moves
        page.wait_for_timeout(FRAME_MS)
        film.take(FRAME_MS)
    page.wait_for_timeout(500)
    film.take(2 * STILL_MS)


if __name__ == "__main__":
    main()
