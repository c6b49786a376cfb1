"""The page of `demo` and its answers, over HTTP: the standard library's server, on the loopback.

    with Server(answers) as server:
        print(server.address)
        server.serve_forever()

Nothing is written and no path is served: the few files of the page are read by name when the server
begins. What is asked is checked before it costs anything: the Host and Origin of a request, so that
no other page in the browser may ask; its length, before it is read; a picture's pixels, before it
is decoded. On another address than the loopback every question needs the token of the printed
address. One thread answers; of a tab only the latest question counts.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import json
import secrets
import socket
import threading
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from bench.files import printable
from bench.live.answers import Answers, Asked, Refused, Superseded

PAGE = Path(__file__).parent / "page"
SHARED = Path(__file__).parent.parent / "report" / "templates"  # the report's look and chart
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
UPLOAD, QUESTION = 25_000_000, 100_000  # bytes at most
TABS, CONNECTIONS = 16, 64  # waiting, and open
PATIENCE = 120  # seconds that a question may wait for its answer, and 30 a connection for a word


STOPPED = "the server was stopped: start it again and reload"


class Busy(Exception):
    """Too many ask, or nobody answers any more; the message says which."""


class Queue:
    """Questions of several tabs for one thread. A tab's newer question takes the place of its
    older one, whose future then raises Superseded, also while it is being answered."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, tuple[Future, Callable[[Callable[[], bool]], Any]]] = (
            OrderedDict()
        )
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def ask(self, tab: str, work: Callable[[Callable[[], bool]], Any]) -> Future:
        """`work` is called with a function that tells whether it has been superseded. Raises Busy
        where as many tabs wait as may."""
        future: Future = Future()
        with self._changed:
            if self._ended:
                raise Busy(STOPPED)
            older = self._waiting.pop(tab, None)
            if older is None and len(self._waiting) >= TABS:
                raise Busy("too many pages ask at once: close some, or try again")
            self._waiting[tab] = future, work
            self._changed.notify()
        if older is not None:
            older[0].set_exception(Superseded())
        return future

    def end(self) -> None:
        """Answer no more; what is being answered is waited for, though not for long."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(PATIENCE / 10)
        for future, _ in self._waiting.values():
            future.set_exception(Busy(STOPPED))

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if self._ended:
                    return
                tab, (future, work) = self._waiting.popitem(last=False)
            try:
                future.set_result(work(functools.partial(self._waiting.__contains__, tab)))
            except BaseException as error:  # it is the asker's
                future.set_exception(error)


class Server(ThreadingHTTPServer):
    """Bound when it is made. host, port: "127.0.0.1" and 0, for any free port, where not given.
    Raises OSError where that cannot be had."""

    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, answers: Answers, host: str = "127.0.0.1", port: int = 0) -> None:
        self.answers, self.queue = answers, Queue()
        self.files = {
            f"/{path.name}": (path.read_bytes(), KINDS[path.suffix])
            for path in (*PAGE.iterdir(), SHARED / "page.css", SHARED / "chart.js")
            if path.suffix in KINDS
        }
        self.files["/"] = self.files.pop("/demo.html")
        self.files["/backend.js"] = self.files.pop("/server.js")
        self.open = threading.BoundedSemaphore(CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)
        self.host, self.port = host, self.server_address[1]
        self.token = "" if host in LOOPBACK else secrets.token_urlsafe(24)

    @property
    def address(self) -> str:
        """What is opened in a browser; the token is behind the `#`, which no server is sent."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if host in ("0.0.0.0", "[::]"):
            host = socket.gethostname()
        return f"http://{host}:{self.port}/" + (f"#{self.token}" if self.token else "")

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve in a thread of its own, while it lasts."""
        thread = threading.Thread(target=self.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()

    def hosts(self) -> set[str]:
        """The names that a browser on this machine may call the server by."""
        names = ("127.0.0.1", "localhost", "[::1]")
        return {f"{name}:{self.port}" for name in names} | (
            set(names) if self.port == 80 else set()
        )

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.open.acquire(blocking=False):  # one too many: it is told nothing
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.open.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is no error of ours."""

    def server_close(self) -> None:
        self.queue.end()
        super().server_close()
        # What idle connections still hold of the server has no tensors, which a thread must not
        # free while the process ends.
        with contextlib.suppress(AttributeError):
            del self.answers


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or small answers wait 40 ms for an acknowledgement
    server_version, sys_version = "yoto-bench", ""
    timeout = 30

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self._refused():
            return
        if path in self.server.files:
            self._send(200, *self.server.files[path])
        elif path == "/api/exhibits":
            self._answer(lambda _: self.server.answers.listed())
        else:
            self._say(404, "there is no such page")

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        kinds = {
            "/api/answer": ("application/json", QUESTION),
            "/api/original": ("application/json", QUESTION),
            "/api/inputs": ("application/json", QUESTION),
            "/api/picture": ("application/octet-stream", UPLOAD),
        }
        if self._refused():
            return
        if path not in kinds:
            return self._say(404, "there is no such question")
        kind, most = kinds[path]
        if self.headers.get_content_type() != kind:  # what no form of another page can send
            return self._say(415, f"send {kind}")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal():
            return self._say(411, "say how long it is")
        if len(length) > 12 or int(length) > most:
            return self._say(413, f"this is more than {most // 1000:,} kB: make it smaller")
        body = self.rfile.read(int(length))
        if path == "/api/picture":
            exhibit = dict(urllib.parse.parse_qsl(query)).get("exhibit", "")
            place = int(exhibit) if exhibit.isdecimal() and len(exhibit) < 9 else -1
            return self._answer(lambda _: self.server.answers.receive(place, body))
        if path == "/api/inputs":
            number = _number(body)
            return self._answer(lambda _: self.server.answers.inputs(number))
        try:
            asked = msgspec.json.decode(body, type=Asked)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return self._say(400, f"this question is none: {printable(error)}")
        if path == "/api/original":
            return self._answer(lambda _: self.server.answers.original(asked))
        self._answer(lambda superseded: self.server.answers.answer(asked, superseded))

    # Whether it may ask

    def _refused(self) -> bool:
        """Whether a request was answered with a refusal, before any of it was looked at."""
        server = self.server
        if not server.token and self.headers.get("Host", "") not in server.hosts():
            self._say(421, f"this is {server.address} and answers to no other name")
            return True
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{self.headers.get('Host')}":
            self._say(403, "another page may not ask")
            return True
        followed = self.command == "GET" and self.headers.get("Sec-Fetch-Mode") == "navigate"
        near = self.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")
        if not near and not (followed and self.path == "/"):  # a link to the page is none to ask
            self._say(403, "another page may not ask")
            return True
        given = self.headers.get("X-Token", "").encode("utf-8", "replace")
        wanted = self.path.startswith("/api/") and server.token
        if wanted and not hmac.compare_digest(given, server.token.encode()):
            self._say(401, "open the address that was printed, with what follows its #")
            return True
        return False

    # What is said

    def _answer(self, work: Callable[[Callable[[], bool]], Any]) -> None:
        """Ask, wait, and send: JSON, or a picture."""
        tab = self.headers.get("X-Tab", "")[:32] + self.path.partition("?")[0]
        try:
            answer = self.server.queue.ask(tab, work).result(PATIENCE)
        except Superseded:
            return self._say(409, "superseded")
        except Refused as error:
            return self._say(422, str(error))
        except Busy as error:
            return self._say(503, str(error))
        except TimeoutError:
            return self._say(504, "no answer in two minutes: try a smaller picture")
        except Exception as error:
            return self._say(500, f"this failed here: {printable(error) or type(error).__name__}")
        if isinstance(answer, bytes):
            return self._send(200, answer, "image/png")
        self._send(200, json.dumps(answer).encode(), "application/json")

    def _say(self, status: int, message: str) -> None:
        self.close_connection = True  # what else was sent is not read
        self._send(status, json.dumps({"error": message}).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(content)),
                "Content-Security-Policy": POLICY,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cache-Control": "no-store",
                **({"Connection": "close"} if self.close_connection else {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)


def _number(body: bytes) -> int:
    return int(body) if body.isdigit() and len(body) < 9 else -1
