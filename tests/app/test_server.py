"""The server of the app: it answers its own page only, refuses what is damaged, and forgets old desks."""

import errno
import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_model

from audiovq.app import desk as moves
from audiovq.app import server as serving
from audiovq.app import stored
from audiovq.app.server import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(tiny_model(), "tiny", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: Server, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, Any]:
    """Status, body and headers of a request."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}", body, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def test_other_pages_are_refused(server: Server) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        for path, body in (("/desk", None), ("/move", b'{"move": "undo"}')):
            status, answer, _ = ask(server, path, body, **headers)
            assert status == 403
            assert b"its own page" in answer
    own = f"http://127.0.0.1:{server.server_port}"
    assert ask(server, "/desk", Origin=own)[0] == 200


def test_the_page_loads_nothing_from_elsewhere_and_is_not_stored(server: Server) -> None:
    status, page, headers = ask(server, "/")
    assert status == 200
    assert b"http:" not in page
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    known = {"Cookie": cookie.partition(";")[0]}
    assert ask(server, "/", **known)[2]["Set-Cookie"] == cookie, "it lasts as long as it is used"
    assert "Set-Cookie" not in ask(server, "/desk", **known)[2]
    damaged = {"Cookie": cookie.partition("=")[0] + '="a\\015\\012X-Evil: 1"'}
    status, _, headers = ask(server, "/", **damaged)
    assert (status, headers["X-Evil"]) == (200, None)
    assert headers["Set-Cookie"].partition("=")[2].partition(";")[0] not in ("a", "")
    for path in ("/codes/0", "/codes/0/1.wav"):  # another model may have the same address
        assert ask(server, path, **known)[2]["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/nothing", None, "is not here"),
        ("/assets/..%2Fserver.py", None, "is not here"),
        ("/assets/missing.js", None, "is not here"),
        (f"/assets/{'x' * 300}.js", None, "is not here"),
        ("/sounds/nothing.wav", None, "not on the shelf any more"),
        ("/codes/99", None, "row 99: give 0 to"),
        ("/codes/0/99999.wav", None, "code 99999: give 0 to"),
        ("/codes/x", None, "damaged"),
        ("/move", b"no json", "damaged"),
        ("/move", b"[]", "damaged"),
        ("/move", b'{"move": "dance"}', "is unknown"),
        ("/move", b'{"move": "redraw"}', "damaged"),
        ("/move", b'{"move": "redraw", "cells": [["a"]]}', "damaged"),
        ("/move", b'{"move": "make", "seed": 1e400}', "damaged"),
        ("/move", 100_000 * b"[", "damaged"),
        ("/move", b'{"move": "make", "temperature": 99}', "temperature 99"),
        ("/move", b'{"move": "make", "labels": {"digit": "x"}}', "unknown value 'x'"),
        ("/recording?name=a.wav", b"no sound", "a.wav"),
    ],
)
def test_requests_that_are_damaged_are_refused_with_a_reason(
    server: Server, path: str, body: bytes | None, says: str
) -> None:
    status, answer, _ = ask(server, path, body)
    assert status in (400, 404)
    assert says in json.loads(answer)["error"]


def test_an_upload_without_room_on_the_disk_says_what_to_do(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    status, answer, _ = ask(server, "/recording?name=a.wav", b"a sound")
    assert status == 500
    assert "(No space left on device); make room on that disk" in json.loads(answer)["error"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.putrequest("POST", "/recording?name=long.wav")
    connection.putheader("Content-Length", str(21 << 20))
    connection.endheaders()
    with connection.getresponse() as answer:
        assert answer.status == 400
        assert "long.wav: is larger than 20 MB" in json.loads(answer.read())["error"]
    connection.close()


def test_every_sound_is_served_as_wav_and_picture(server: Server) -> None:
    _, answer, headers = ask(server, "/desk")
    cookie = {"Cookie": headers["Set-Cookie"].partition(";")[0]}
    for sound in json.loads(answer)["sounds"]:
        wav = ask(server, f"/sounds/{sound['key']}.wav", **cookie)
        assert wav[1][:4] == b"RIFF"
        png = ask(server, f"/sounds/{sound['key']}.png?columns=9", **cookie)
        assert png[1][:4] == b"\x89PNG"
    saved = ask(server, f"/sounds/{sound['key']}.wav?save", **cookie)[2]
    assert saved["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("error", "is_printed"),
    [
        (BrokenPipeError(32, "Broken pipe"), False),
        (ConnectionResetError(), False),
        (OSError(), True),
    ],
)
def test_a_browser_that_leaves_before_its_answer_is_no_error(
    server: Server, error: Exception, is_printed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        raise error
    except OSError:
        server.handle_error(None, ("127.0.0.1", 1))
    assert ("Traceback" in capsys.readouterr().err) == is_printed


def test_a_desk_is_that_of_an_earlier_server(server: Server, tmp_path: Path) -> None:
    with Server(server.model, "tiny", 0, tmp_path) as first:
        first.keep("browser", moves.discard(first.first, first.first.key))
        stored.save(tmp_path, "browser", first.desks["browser"])
    with Server(server.model, "tiny", 0, tmp_path) as second:
        found = second.desk("browser")
        assert [i.key for i in found.shelf] == [i.key for i in first.desks["browser"].shelf]
        assert second.desk("another") is second.first


def test_a_desk_that_is_loaded_does_not_replace_a_newer_one(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    newer = moves.discard(server.first, server.first.key)
    moving = threading.Thread(target=server.keep, args=("a browser", newer))
    free: list[bool] = []

    def load(store: Path, key: str) -> None:
        """Another request comes meanwhile; it has to wait."""
        asking = threading.Thread(target=lambda: free.append(server.desks_lock.acquire(False)))
        asking.start()
        asking.join()
        moving.start()

    monkeypatch.setattr(server, "store", tmp_path)
    monkeypatch.setattr(stored, "load", load)
    server.desk("a browser")
    moving.join()
    assert free == [False]
    assert server.desk("a browser") is newer


def test_desks_are_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_DESKS", 3)
    for number in range(5):
        ask(server, "/desk", Cookie=f"audiovq-{server.server_port}=browser{number}")
    assert list(server.desks) == ["browser2", "browser3", "browser4"]
