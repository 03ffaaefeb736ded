"""Seconds until the app answers each move, over HTTP as the page asks it, picture included: median of several.

python -m benchmarks.speed.app MODEL --out benchmarks/results/DATE-MACHINE-app.json
"""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from audiovq.app.server import Server
from audiovq.models.checkpoint import load
from audiovq.runtime.files import write_json
from benchmarks.provenance import stamp

TRIES = 5


class Browser:
    """A page of the app without a screen: sends moves, and fetches the picture and sound of the open sound."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        self.cookie = ""
        self.desk: dict[str, Any] = json.loads(self.ask("GET", "/desk"))

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of an answer."""
        headers = {"Cookie": self.cookie} if self.cookie else {}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        self.cookie = (answer.headers["Set-Cookie"] or self.cookie).partition(";")[0]
        data = answer.read()
        assert answer.status == 200, data
        return data

    def move(self, name: str, **values: Any) -> float:
        """Seconds that a move takes until its sound and picture are there."""
        begin = time.perf_counter()
        body = json.dumps({"move": name, **values}).encode()
        self.desk = json.loads(self.ask("POST", "/move", body))
        key = self.desk["editor"]["key"]
        self.ask("GET", f"/sounds/{key}.wav")
        self.ask("GET", f"/sounds/{key}.png")
        return time.perf_counter() - begin


def measure(browser: Browser) -> dict[str, Any]:
    """Median and longest seconds of each move on the longest of several sounds."""
    seconds: dict[str, list[float]] = {}
    for seed in range(TRIES):
        seconds.setdefault("make", []).append(browser.move("make", seed=seed))
    longest = max(browser.desk["sounds"], key=lambda sound: float(sound["seconds"]))
    other = next(s for s in browser.desk["sounds"] if s is not longest)
    browser.move("take", key=longest["key"])
    editor = browser.desk["editor"]
    cells = [
        [row, column]
        for row in range(editor["rows"] // 4, editor["rows"] // 2)
        for column in range(editor["columns"] // 4, editor["columns"] // 2 + 1)
    ]
    length = min(10.0, longest["seconds"] + 0.5)
    moves: dict[str, dict[str, Any]] = {
        "redraw": {"cells": cells},
        "write": {"cells": cells, "codes": editor["codes"][0][0]},
        "vary": {"strength": 0.5},
        "extend": {"seconds": length},
        "morph": {"key": other["key"], "steps": 4},
    }
    for name, values in moves.items():
        for seed in range(TRIES):
            browser.move("take", key=longest["key"])
            seconds.setdefault(name, []).append(browser.move(name, seed=seed, **values))
            browser.move("undo")
    return {
        "sound_seconds": longest["seconds"],
        "median": {name: statistics.median(all_) for name, all_ in seconds.items()},
        "longest": {name: max(all_) for name, all_ in seconds.items()},
    }


def main(model: Positional[Path], out: Path | None = None) -> None:
    """Measure the app with a model."""
    loaded = load(model)
    with Server(loaded, model.name, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found: dict[str, Any] = stamp() | {
            "model": model.name,
            "sample_rate": loaded.sample_rate,
            "channels": loaded.channels,
            **measure(Browser(server.server_port)),
        }
        server.shutdown()
    print(json.dumps(found, indent=2))
    if out is not None:
        write_json(out, found)


if __name__ == "__main__":
    tyro.cli(main)
