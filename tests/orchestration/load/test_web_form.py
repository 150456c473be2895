"""Locust's web UI as a process: what forged requests reach, and where the cluster's token goes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from orchestration.loadgen import locustfile_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKEN = "the-clusters-token"
LIMIT_S = 60.0
FORM = {"user_count": "1", "spawn_rate": "1", "rate": "20", "warmup": "0", "duration": "1"}
WITH_LOGIN = Path(__file__).parent / "programs" / "with_login.py"


class Store(ThreadingHTTPServer):
    """Answers as a leader would, and keeps what it was sent: (path, Authorization) each."""

    daemon_threads = True

    def __init__(self) -> None:
        self.heard: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def hears(self, path: str) -> bool:
        """Whether it was asked for something that begins so."""
        return any(asked.startswith(path) for asked, _ in self.heard)

    @property
    def tokens(self) -> set[str | None]:
        """All that it was shown."""
        return {token for _, token in self.heard}


class Answer(BaseHTTPRequestHandler):
    """One answer for everything."""

    protocol_version = "HTTP/1.1"
    server: Store

    def answer(self) -> None:
        """Answers health checks and writes."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.heard.append((self.path, self.headers.get("Authorization")))
        body = b'{"role": "leader", "epoch": 1, "seq": 1, "follower_acks": 0}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = answer  # noqa: N815 -- the library's names

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def store() -> Iterator[Store]:
    """The store that Locust is started for."""
    with serving() as server:
        yield server


@pytest.fixture
def stranger() -> Iterator[Store]:
    """A server that only a form names."""
    with serving() as server:
        yield server


@contextmanager
def serving() -> Iterator[Store]:
    """A store that answers for as long as the block lasts."""
    with Store() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def web_ui(
    folder: Path, store: Store, *options: str, locustfile: Path | None = None
) -> Iterator[str]:
    """Locust's web UI with the token in its environment; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "locust", "-f", str(locustfile or locustfile_path("writes"))]
    command += ["--host", store.url, "--web-host", "127.0.0.1", "--web-port", str(port), *options]
    log_path = folder / "locust.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "CLUSTER_TOKEN": TOKEN},
            cwd=folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for(lambda: answers(url), log_path.read_text)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Store]]:
    """A web UI whose store must not hear anything, and that store."""
    with serving() as store, web_ui(tmp_path_factory.mktemp("web"), store) as url:
        yield url, store


def answers(url: str) -> bool:
    """Whether anything does, whatever it says."""
    try:
        httpx.get(url, timeout=2)
    except httpx.TransportError:
        return False
    return True


def wait_for(condition: Callable[[], bool], complaint: Callable[[], str] = str) -> None:
    """Returns once the condition holds."""
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, complaint()
        time.sleep(0.05)


def start(url: str, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
    """Sends what the form's button sends."""
    return httpx.post(f"{url}/swarm", data=FORM | fields, headers=headers, timeout=10)


def test_token_goes_to_the_store_of_the_start_and_to_nobody_else(
    tmp_path: Path, store: Store, stranger: Store
) -> None:
    """A form may name any server; it is loaded without the token."""
    with web_ui(tmp_path, store) as url:
        assert start(url, host=stranger.url).json()["success"]
        wait_for(lambda: stranger.hears("/kv/"))
        httpx.post(f"{url}/stop", timeout=10)
        assert start(url, host=store.url).json()["success"]
        wait_for(lambda: store.hears("/kv/"))
    assert stranger.tokens == {None}
    assert store.tokens == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
)
def test_other_pages_start_nothing(untouched: tuple[str, Store], headers: dict[str, str]) -> None:
    """They get 403 and a sentence; the store hears nothing."""
    url, store = untouched
    answer = start(url, headers)
    assert answer.status_code == 403
    assert "web UI" in answer.json()["message"]
    assert not store.heard


def test_nobody_reaches_the_store_before_the_login(tmp_path: Path, store: Store) -> None:
    """Not even to have its write quorum changed; the login is reached by any name."""
    with web_ui(tmp_path, store, "--web-login", locustfile=WITH_LOGIN) as url:
        answer = start(url, write_quorum="0")
        assert answer.is_redirect, answer.text
        by_name = {"Host": "load.example"}
        assert httpx.get(url, headers=by_name, timeout=10).is_redirect
        assert start(url, by_name, write_quorum="0").is_redirect
    assert not store.heard


def test_form_sets_no_option_that_it_does_not_show(
    untouched: tuple[str, Store], tmp_path: Path
) -> None:
    """Where files go is the command line's to say."""
    url, store = untouched
    folder = tmp_path / "made" / "by" / "a" / "form"
    answer = start(url, results_dir=str(folder), html_file=str(tmp_path / "x.html")).json()
    assert answer["success"] is False
    assert answer["message"].startswith("html_file, results_dir can only be set on the command")
    assert not store.heard
    assert not folder.exists()
