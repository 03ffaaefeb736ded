"""Chromium, driven by Playwright: opens pages, checks that they load nothing from elsewhere, and that all can use them."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

WIDTHS = [390, 1280]
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --mute-audio --autoplay-policy=no-user-gesture-required
--use-fake-ui-for-media-stream --use-fake-device-for-media-stream"""
TIMEOUT_MS = 20_000
"""Timeout of a move on a busy machine."""
LEAST_CONTRAST = 4.5
"""Of text and what is behind it: WCAG, level AA."""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The browser; skips if it or Playwright is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: the extra [browser]")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS.split())
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(
    browser: Any, address: str, width: int = 1280, scheme: str = "light", expected: str = ""
) -> Iterator[Any]:
    """A page; checks at the end that it had no errors but `expected`, and sent no request to another host."""
    errors: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(TIMEOUT_MS)

    def on_console(message: Any) -> None:
        if message.type == "error" and not (expected and expected in message.text):
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


def until(page: Any, condition: str) -> None:
    """Wait until an expression of JavaScript is true. Pages forbid Playwright's own wait, which needs `eval`."""
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def check_pictures_load(page: Any) -> None:
    """Every visible picture loads, and nothing is wider than the window."""
    until(
        page,
        "[...document.images].filter(i => i.checkVisibility()).every(i => i.naturalWidth > 0)",
    )
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def check_keyboard_reaches_everything(page: Any) -> None:
    """Repeated Tab reaches everything that can be clicked, filled in or played, and all of it has a name."""
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
    nameless = page.evaluate(
        """window.wanted.filter(one => !(one.ariaLabel || one.innerText?.trim()
             || one.closest("label")?.innerText.trim())).map(one => one.outerHTML.slice(0, 150))"""
    )
    assert nameless == []
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


def check_text_is_legible(page: Any) -> None:
    """All visible text of controls that are not disabled has the contrast that WCAG asks for."""
    faint = page.evaluate(
        """least => {
          const parse = text => text.match(/[\\d.]+/g).map(Number);
          const channel = x => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
          const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
          const behind = one => {
            for (; one; one = one.parentElement) {
              const [r, g, b, a = 1] = parse(getComputedStyle(one).backgroundColor);
              if (a === 1) return [r, g, b];
            }
            return [255, 255, 255];
          };
          const texts = [...document.querySelectorAll("body *")].filter(one =>
            one.checkVisibility({visibilityProperty: true}) && !one.disabled && !one.closest("option, svg, [role=grid]")
            && [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
          return texts.map(one => {
            const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
            return [(a + .05) / (b + .05), one.outerHTML.slice(0, 120)];
          }).filter(([contrast]) => contrast < least);
        }""",
        LEAST_CONTRAST,
    )
    assert faint == []
