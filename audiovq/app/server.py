"""The server of the app, on 127.0.0.1 only: the page, moves of desks as JSON, pictures and sounds.

Each browser has a desk, named by a cookie, so that work is kept over a reload, and by `stored` over a restart. Moves run one at a time in one thread.
Requests of other pages are refused: by the host that they name, and their origin.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

from audiovq.app import actions, pack, stored, view
from audiovq.app import desk as moves
from audiovq.app.desk import Desk, Item
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import SamplingConfig
from audiovq.generation.sound import settled
from audiovq.models.model import Model
from audiovq.runtime.files import cannot_write, is_full
from audiovq.runtime.templates import asset, render

PACKAGE = "audiovq.app"
"""The package of the templates and assets."""
ASSETS = {"css": "text/css", "js": "text/javascript"}
"""Types of the assets by suffix."""
MAX_MOVE_BYTES = 1 << 20
MAX_WAITING = 32
"""Maximum number of requests that wait for the model; more are refused with a message."""
MAX_DESKS = 100
"""Maximum number of desks; the least recently used is dropped first."""
SECONDS_OPEN = 60
"""How long a connection may be silent."""
POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'"
)
"""The page's content policy: it loads nothing from elsewhere."""
T = TypeVar("T")
PLAIN_NAME = re.compile(r"[\w.-]+")
PLAIN_KEY = re.compile(r"[\w-]{1,64}", re.ASCII)
"""Of a desk, as `secrets.token_urlsafe` makes it."""


@dataclass(frozen=True)
class Answer:
    """A response."""

    body: bytes
    type: str
    status: int = 200
    file_name: str = ""
    """Name under which a browser saves it; "" shows it."""
    lasts: bool = False
    """Whether the address always has the same content."""


def serve(model: Model, name: str, port: int) -> None:
    """Serve the app on 127.0.0.1 until Ctrl-C. Raises AudiovqError if the port is in use, or the model has no codes."""
    with Server(model, name, port, stored.folder_of(model)) as server:
        print(
            f"serving on http://127.0.0.1:{port}/: open it in a browser; Ctrl-C stops the server",
            flush=True,
        )
        server.serve_forever()


class Server(ThreadingHTTPServer):
    """The app of one model. A first sound is made before it serves."""

    daemon_threads = True

    def __init__(self, model: Model, name: str, port: int, store: Path | None = None) -> None:
        """`port` 0: a free one; `store`: folder where desks are kept, None: in memory alone. Raises AudiovqError if the port is in use, or the model has no codes or makes images."""
        _ = model.autoencoder.quantizer  # raises AudiovqError without codes
        if model.spectrogram.config.images:
            raise AudiovqError(
                f"{name}: the app is for sounds, and this model makes images; use `audiovq plot`"
            )
        self.worker = ThreadPoolExecutor(max_workers=1)
        """Moves run here, one at a time: threads of torch belong to the thread that calls it."""
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise AudiovqError(f"port {port}: is taken; give another with --port") from error
        self.model, self.name, self.store = model, name, store
        self.waiting = threading.BoundedSemaphore(MAX_WAITING)
        self.desks: OrderedDict[str, Desk] = OrderedDict()
        # Requests are answered side by side, and a desk that one of them loads must not replace a newer one.
        self.desks_lock = threading.RLock()
        self.first = self.run(lambda: actions.first_desk(model))

    def server_close(self) -> None:
        """Free the port, and end the thread of moves."""
        super().server_close()
        self.worker.shutdown(cancel_futures=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error of a request, but not that a browser left before its answer, such as on a reload."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def run(self, work: Callable[[], T]) -> T:
        """`work`, after all work that was asked for before. Raises AudiovqError if too much waits."""
        if not self.waiting.acquire(blocking=False):
            raise AudiovqError("the model is busy: try again in a moment")
        try:
            return self.worker.submit(work).result()
        finally:
            self.waiting.release()

    def desk(self, key: str) -> Desk:
        """A browser's desk, or that of an earlier server; new ones have the first sounds."""
        with self.desks_lock:
            desk = self.desks.get(key)
            if desk is None and self.store is not None:
                desk = stored.load(self.store, key)
            self.keep(key, desk or self.first)
            return desk or self.first

    def keep(self, key: str, desk: Desk) -> None:
        """Store a browser's desk."""
        with self.desks_lock:
            self.desks[key] = desk
            self.desks.move_to_end(key)
            while len(self.desks) > MAX_DESKS:
                self.desks.popitem(last=False)

    @functools.cached_property
    def page(self) -> bytes:
        """The page, which is the same for every desk."""
        about = view.describe_model(self.model, self.name)
        return render(
            PACKAGE, "app.html", model=about, defaults=settled(self.model, SamplingConfig())
        ).encode()


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server_version = "audiovq"
    sys_version = ""
    timeout = SECONDS_OPEN
    server: Server

    def do_GET(self) -> None:
        """The page, its assets, and what belongs to the browser's desk."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """A move, or a recording."""
        self._answer(self._post)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the terminal stays readable."""

    def _answer(self, work: Callable[[str], Answer]) -> None:
        """Send what `work` makes of the desk's key, or an error as JSON."""
        key, is_new = self._key()
        try:
            answer = self._refused() or work(key)
        except AudiovqError as error:
            answer = _json({"error": str(error)}, 400)
        except OSError as error:
            if not is_full(error):
                raise
            name = error.filename or tempfile.gettempdir()
            answer = _json({"error": str(cannot_write(name, error))}, 500)
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            answer = _json({"error": f"the request is damaged ({error}); reload the page"}, 400)
        self.send_response(answer.status)
        headers = {
            "Content-Type": answer.type,
            "Content-Length": str(len(answer.body)),
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, max-age=3600" if answer.lasts else "no-store",
        }
        if is_new or urlsplit(self.path).path == "/":  # so that it does not end while it is used
            headers["Set-Cookie"] = (
                f"{self._cookie}={key}; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000"
            )
        if answer.file_name:
            name = quote(answer.file_name)
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
        for header, value in headers.items():
            self.send_header(header, value)
        if answer.status >= 400:
            self.close_connection = True  # the body of a refused request is not read
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    @property
    def _cookie(self) -> str:
        return f"audiovq-{self.server.server_port}"

    def _key(self) -> tuple[str, bool]:
        """The key of the browser's desk, and whether it is new."""
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        # Other local pages can set it, and it is sent back in a header.
        if self._cookie in cookies and PLAIN_KEY.fullmatch(cookies[self._cookie].value):
            return cookies[self._cookie].value, False
        return secrets.token_urlsafe(16), True

    def _refused(self) -> Answer | None:
        """An error where another page asks, under another name of this machine or from another origin."""
        hosts = {f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in hosts and (
            origin is None or origin in {f"http://{host}" for host in hosts}
        ):
            return None
        return _json({"error": "this server answers its own page only"}, 403)

    def _get(self, key: str) -> Answer:
        server, url = self.server, urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query, True).items()}
        match url.path.strip("/").split("/"):
            case [""]:
                return Answer(server.page, "text/html; charset=utf-8")
            case ["assets", name] if PLAIN_NAME.fullmatch(name):
                return _asset(name)
            case ["desk"]:
                return self._desk(server.desk(key))
            case ["sounds", name]:
                item = _find(server.desk(key), name.partition(".")[0])
                return self._media(item, name.rpartition(".")[2], query)
            case ["codes", row]:
                # Neither these nor their sounds are stored by the browser: another model may have the same address.
                return _json(server.run(lambda: view.row_codes(server.model, int(row))))
            case ["codes", row, name]:
                code = int(name.removesuffix(".wav"))
                body = server.run(lambda: view.code_wav(server.model, int(row), code))
                return Answer(body, "audio/wav")
            case ["pack.zip"]:
                desk = server.desk(key)
                body = server.run(lambda: pack.zipped(server.model, server.name, desk))
                return Answer(
                    body, "application/zip", file_name=f"{pack.folder_name(server.name)}.zip"
                )
        return _json({"error": f"{url.path}: is not here"}, 404)

    def _media(self, item: Item, kind: str, query: Mapping[str, str]) -> Answer:
        """A sound as a WAV or as a picture."""
        model = self.server.model
        if kind == "png":
            columns = int(query["columns"]) if "columns" in query else None
            columns = None if columns is None else max(1, min(columns, 1 << 14))
            return Answer(
                self.server.run(lambda: view.png(model, item, columns)), "image/png", lasts=True
            )
        saved = view.file_name(item) if "save" in query else ""
        return Answer(view.wav(model, item), "audio/wav", file_name=saved, lasts=not saved)

    def _post(self, key: str) -> Answer:
        server = self.server
        url = urlsplit(self.path)
        if url.path == "/recording":
            name = parse_qs(url.query).get("name", ["recording.wav"])[-1]
            body = self._body(view.MAX_UPLOAD_BYTES, name)
            return self._moved(key, lambda desk: _record(server.model, desk, name, body))
        if url.path == "/move":
            asked = json.loads(self._body(MAX_MOVE_BYTES, "move"))
            if not isinstance(asked, dict):
                raise ValueError("no move")
            return self._moved(key, lambda desk: actions.act(server.model, desk, asked))
        return _json({"error": f"{url.path}: is not here"}, 404)

    def _body(self, most: int, name: str) -> bytes:
        """The request's body. Raises AudiovqError where it is larger than `most` bytes."""
        size = int(self.headers.get("Content-Length", "0"))
        if not 0 <= size <= most:
            raise AudiovqError(
                f"{name}: is larger than {most >> 20} MB; cut it to the part that you want"
            )
        return self.rfile.read(size)

    def _moved(self, key: str, move: Callable[[Desk], Desk]) -> Answer:
        """The desk after a move."""

        def work() -> Desk:
            after = move(self.server.desk(key))
            self.server.keep(key, after)
            if self.server.store is not None:
                stored.save(self.server.store, key, after)
            return after

        return self._desk(self.server.run(work))

    def _desk(self, desk: Desk) -> Answer:
        return _json(view.describe_desk(self.server.model, desk))


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), "application/json", status)


def _asset(name: str) -> Answer:
    kind = ASSETS.get(name.rpartition(".")[2])
    try:
        if kind is not None:
            return Answer(asset(PACKAGE, name).encode(), f"{kind}; charset=utf-8")
    except OSError:  # none of that name, or a name too long to have a file
        pass
    return _json({"error": f"{name}: is not here"}, 404)


def _find(desk: Desk, key: str) -> Item:
    """A sound of the desk, or the original of one."""
    items = [*desk.shelf, *(item.original for item in desk.shelf if item.original)]
    for item in items:
        if item.key == key:
            return item
    raise AudiovqError("that sound is not on the shelf any more: choose another")


def _record(model: Model, desk: Desk, name: str, body: bytes) -> Desk:
    """The desk with an uploaded recording."""
    with tempfile.TemporaryDirectory() as folder:
        suffix = Path(name).suffix[:8]
        path = Path(folder) / f"recording{suffix if PLAIN_NAME.fullmatch(suffix) else ''}"
        path.write_bytes(body)
        return moves.record(model, desk, path, Path(name).name)
