"""The server behind the live page: who may ask, and what is refused before it costs anything."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cli import main
from bench.live import server as serving
from bench.live.answers import Answers, Superseded
from bench.live.networks import ZOO, catalogue
from bench.live.server import CONNECTIONS, TABS, Busy, Queue, Server

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def answers() -> Answers:
    return Answers(catalogue(ZOO, "digits"), torch.device("cpu"))


@pytest.fixture
def server(answers: Answers) -> Iterator[Server]:
    with Server(answers) as server, server.serving():
        yield server


Reply = tuple[int, dict[str, str], bytes]


def ask(server: Server, way: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    link.request(way, path, body, named)
    reply = link.getresponse()
    content = reply.read()
    link.close()
    return reply.status, dict(reply.getheaders()), content


def question(**changes: Any) -> bytes:
    asked = {"exhibit": 0, "input": "example:0", "method": "yoto_tuned", "setting": [0.2]}
    return json.dumps(asked | changes).encode()


JSON = {"Content_Type": "application/json"}
BYTES = {"Content_Type": "application/octet-stream"}


def test_a_question_is_answered_and_the_page_is_served(server: Server) -> None:
    status, headers, page = ask(server, "GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'self';" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    for file in re.findall(rb'(?:src|href)="([a-z]+\.[a-z]+)"', page):
        assert ask(server, "GET", f"/{file.decode()}")[0] == 200, file
    assert ask(server, "GET", "/backend.js")[0] == 200
    assert not re.search(rb"<script>| style=| on[a-z]+=", page)  # the policy would not have them
    status, _, listed = ask(server, "GET", "/api/exhibits")
    assert (status, json.loads(listed)[0]["task"]) == (200, "β-VAE, handwritten digits")
    status, _, answer = ask(server, "POST", "/api/answer", question(rest=True), **JSON)
    assert (status, set(json.loads(answer)["own"]["measures"])) == (
        200, {"loss", "kl", "reconstruction", "elbo"}
    )  # fmt: skip
    status, headers, picture = ask(server, "POST", "/api/original", question(), **JSON)
    assert (status, headers["Content-Type"], picture[1:4]) == (200, "image/png", b"PNG")


@pytest.mark.parametrize("path", ["/../pyproject.toml", "/%2e%2e/README.md", "/demo.html", "/x",
                                  "/api/x", "//etc/passwd", "/server.js"])  # fmt: skip
def test_no_path_is_served(server: Server, path: str) -> None:
    status, _, content = ask(server, "GET", path)
    assert status == 404
    assert b"yoto-bench" not in content


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example:80", ""])
def test_another_name_for_this_machine_is_refused(server: Server, host: str) -> None:
    """As a page has whose name was made to mean 127.0.0.1."""
    for way, path in (("GET", "/"), ("GET", "/api/exhibits"), ("POST", "/api/answer")):
        status, _, content = ask(server, way, path, question(), Host=host, **JSON)
        assert status == 421
        assert b"answers to no other name" in content


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
     {"Sec_Fetch_Site": "same-site"}],
)  # fmt: skip
def test_another_page_may_not_ask(server: Server, headers: dict[str, str]) -> None:
    status, replied, _ = ask(server, "POST", "/api/answer", question(), **JSON, **headers)
    assert status == 403
    assert not any("access-control" in name.lower() for name in replied)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "words"),
    [
        ("/api/answer", question(), {"Content_Type": "text/plain"}, 415, "application/json"),
        ("/api/picture?exhibit=0", b"x", JSON, 415, "octet-stream"),
        ("/api/answer", b"{", JSON, 400, "none"),
        ("/api/answer", b"[" * 50_000, JSON, 400, "none"),
        ("/api/answer", b"\xff", JSON, 400, "none"),
        ("/api/answer", question(setting=["a"]), JSON, 400, "setting"),
        ("/api/answer", question(setting=[1e300]), JSON, 400, "setting"),
        ("/api/answer", question(setting=[-1]), JSON, 400, "setting"),
        ("/api/answer", question(setting=[1] * 99), JSON, 400, "length"),
        ("/api/answer", question(more=1), JSON, 400, "more"),
        ("/api/answer", question(exhibit=7), JSON, 422, "no such task"),
        ("/api/answer", question(method="x"), JSON, 422, "no such method"),
        ("/api/inputs", b"-1", JSON, 422, "no such task"),
        ("/api/inputs", b"9" * 40, JSON, 422, "no such task"),
        ("/api/picture?exhibit=0", b"no picture", BYTES, 422, "no JPEG"),
        ("/api/picture?exhibit=x", b"no picture", BYTES, 422, "no such task"),
        ("/api/nothing", b"", JSON, 404, "no such question"),
    ],
)  # fmt: skip
def test_bad_questions_are_told_why(
    server: Server, path: str, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    answered, _, content = ask(server, "POST", path, body, **headers)
    assert answered == status
    assert words in json.loads(content)["error"]
    assert ask(server, "GET", "/api/exhibits")[0] == 200  # and it goes on


@pytest.mark.parametrize(
    ("length", "status"),
    [("25000001", 413), ("9" * 30, 413), ("-1", 411), ("+5", 411), ("١", 411), ("", 411)],
)
def test_what_is_too_long_is_not_read(server: Server, length: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        head = (
            f"POST /api/picture?exhibit=0 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        )
        link.sendall(head.encode())
        link.settimeout(5)
        assert f" {status} ".encode() in link.recv(200)


def test_other_ways_of_asking_are_none(server: Server) -> None:
    for way in ("OPTIONS", "PUT", "DELETE", "HEAD", "TRACE"):
        assert ask(server, way, "/api/answer")[0] == 501


def test_beyond_the_loopback_a_token_is_needed(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "LOOPBACK", ())  # as if this address were another
    with Server(answers) as server, server.serving():
        token = server.address.partition("#")[2]
        assert len(token) >= 32
        assert ask(server, "GET", "/")[0] == 200  # the page says nothing
        for given in ({}, {"X_Token": "x"}, {"X_Token": token[:-1]}):
            status, _, content = ask(server, "GET", "/api/exhibits", **given)
            assert (status, b"its #" in content) == (401, True)
        assert ask(server, "GET", "/api/exhibits", X_Token=token)[0] == 200


def test_as_many_connections_as_are_too_many_do_no_harm(server: Server) -> None:
    links = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS)]
    time.sleep(0.2)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(server, "GET", "/")
    for link in links:
        link.close()
    for _ in range(100):
        try:
            assert ask(server, "GET", "/")[0] == 200
            break
        except (ConnectionError, http.client.HTTPException):
            time.sleep(0.05)
    else:
        raise AssertionError("it does not answer again")


def test_an_error_of_ours_is_told_and_survived(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Answers, "answer", broken)
    status, _, content = ask(server, "POST", "/api/answer", question(), **JSON)
    assert (status, json.loads(content)["error"]) == (500, "this failed here: no room")
    assert ask(server, "GET", "/api/exhibits")[0] == 200


# The queue ----------------------------------------------------------------------------------------


def test_of_a_tab_the_latest_question_counts_and_others_wait_their_turn() -> None:
    queue, gate, begun, order = Queue(), threading.Event(), threading.Event(), []

    def slow(superseded: Any) -> str:
        begun.set()
        gate.wait(10)
        return "superseded" if superseded() else "done"

    def quick(name: str) -> Any:
        return lambda _: order.append(name) or name

    first = queue.ask("a", slow)
    begun.wait(10)
    older, other, newer = (queue.ask(t, quick(n)) for t, n in (("a", "2"), ("b", "3"), ("a", "4")))
    with pytest.raises(Superseded):
        older.result(5)
    gate.set()
    assert first.result(5) == "superseded"
    assert (other.result(5), newer.result(5)) == ("3", "4")
    assert order == ["3", "4"]
    queue.end()


def test_a_full_queue_refuses_and_an_error_is_the_askers() -> None:
    queue, gate, begun = Queue(), threading.Event(), threading.Event()
    queue.ask("first", lambda _: (begun.set(), gate.wait(10)))
    begun.wait(10)
    waiting = [queue.ask(f"tab {i}", lambda _: 1 / 0) for i in range(TABS)]
    with pytest.raises(Busy):
        queue.ask("one more", lambda _: None)
    gate.set()
    for each in waiting:
        with pytest.raises(ZeroDivisionError):
            each.result(5)
    assert queue.ask("later", lambda _: "well").result(5) == "well"
    queue.end()


# The command --------------------------------------------------------------------------------------


def test_the_command_prints_its_address_and_writes_nothing(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "run_bench.py"), "demo", str(ZOO), "digits"]
    before = {path: path.stat().st_mtime_ns for path in ZOO.rglob("*")}
    process = subprocess.Popen(
        [*words, "--no-browser"], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("Ctrl-C"):
                break
        assert printed[0] == "digits (trained): fixed_grid_tuned, yoto_tuned\n"
        (port,) = re.findall(r"open http://127\.0\.0\.1:(\d+)/\n", "".join(printed))
        link = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
        link.request(
            "POST", "/api/answer", question(rest=True), {"Content-Type": "application/json"}
        )
        assert link.getresponse().status == 200
        link.close()
    finally:
        process.terminate()
        process.wait(30)
    assert not list(tmp_path.iterdir())
    assert {path: path.stat().st_mtime_ns for path in ZOO.rglob("*")} == before


def test_misuse_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["demo", str(tmp_path / "none")], "name a results folder, or `run` first"),
        (["demo", str(ZOO), "digit"], "no network of 'digit'"),
        (["demo", str(ZOO), "--host", "256.0.0.1"], "cannot be had"),
        (["demo", str(ZOO), "--seed", "99"], "is finished"),
    ):
        assert main([*words, "--no-browser"]) == 2
        assert message in capsys.readouterr().err
