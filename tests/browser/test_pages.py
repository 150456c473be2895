"""Pages in a real browser, against nodes without a token on this machine: none reaches anything.

The same pages reach everything of a node that believes them, so each attempt is known to be one.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

from kv_app.failover.calls import Probe, Seal
from kv_app.messages import PROTOCOL_VERSION, Hello
from kv_app.meta import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = Path(__file__).with_name("attack.html").read_text(encoding="utf-8")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
HOST = "127.0.0.1"
WAIT_S = 30.0
# Of another site, of another port of this machine, of a frame without an origin, and of a site
# whose name is made to point at the node once the page is there.
PAGES = ("foreign", "port", "sandboxed", "rebound")
# What a page cannot see is looked for on the node.
WRITES = ("put", "text", "beacon", "form")
HELLO = Hello(PROTOCOL_VERSION, "evil", 1 << 40, "evil", "http://evil:1", 0, "evil", is_formed=True)
SEAL = Seal("evil", Promise(9, "evil", "evil"))


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def packed(message: object) -> str:
    """A message of nodes, as text that a page can hold."""
    return base64.b64encode(msgspec.msgpack.encode(message)).decode()


@dataclass
class Node:
    """A node without a token: the true one, or one that believes every page."""

    module: str
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://{HOST}:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Runs it, and waits until it answers."""
        own = {name: text for name, text in os.environ.items() if name in {"PATH", "HOME"}}
        environment = {**own, **self.settings, "PORT": str(self.port)}
        command = [sys.executable, "-m", self.module]
        with subprocess.Popen(command, env=environment, cwd=ROOT) as process:
            try:
                self._wait(process)
                yield
            finally:
                process.kill()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end_s = time.monotonic() + WAIT_S
        while time.monotonic() < end_s and process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection((HOST, self.port), timeout=1).close()
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.module} does not answer")

    def ask(self, path: str) -> Any:
        """What it tells a program."""
        return httpx.get(self.url + path, trust_env=False).raise_for_status().json()


class Site(BaseHTTPRequestHandler):
    """Serves the attacking pages, and takes their reports."""

    def __init__(self, config: dict[str, Any], reports: queue.Queue[Any], *arguments: Any) -> None:
        self._config = config
        self._reports = reports
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Serves ``/attack/PAGE``, and the page of frames that shows all of them."""
        kind = self.path.rpartition("/")[2]
        text = PAGE.replace("CONFIG", json.dumps({**self._config, "page": kind}))
        if kind == "all":
            text = self._config["frames"]
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(text.encode())

    def do_POST(self) -> None:
        """Takes a report."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self._reports.put(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def site(port: int, config: dict[str, Any], reports: queue.Queue[Any]) -> Iterator[None]:
    """Runs a server of pages."""
    handler = functools.partial(Site, config, reports)
    with ThreadingHTTPServer((HOST, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def browser(url: str, profile: Path) -> Iterator[None]:
    """Shows a page in a browser; every name below ``example`` is this machine."""
    assert BROWSER is not None, "There is no chromium here; install it."
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
        # A browser may keep pages away from this machine; a node does not rely on that.
        "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
        f"--host-resolver-rules=MAP *.example {HOST}",
        f"--user-data-dir={profile}",
        "--remote-debugging-port=0",  # without it a browser without a window would end at once
        url,
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@dataclass
class Outcome:
    """What pages saw, and what became of the nodes."""

    seen: dict[str, dict[str, Any]]
    keys: dict[str, set[str]]
    delays: list[dict[str, Any]]
    follower: dict[str, Any]


def show_pages(module: str, profile: Path) -> Outcome:
    """Shows all pages at once, in frames of their own origins, to nodes of one kind."""
    leader, rebound = Node(module), Node(module)
    follower = Node(module, {"ROLE": "follower"})
    reports: queue.Queue[Any] = queue.Queue()
    port = free_port()
    frames = (
        f'<iframe src="http://foreign.example:{port}/attack/foreign"></iframe>'
        f'<iframe src="http://localhost:{port}/attack/port"></iframe>'
        f'<iframe src="/attack/sandboxed" sandbox="allow-scripts allow-forms"></iframe>'
        f'<iframe src="http://rebound.example:{rebound.port}/attack/rebound"></iframe>'
    )
    config = {
        "leader": leader.url,
        "follower": follower.url,
        "report": f"http://{HOST}:{port}/report",
        "waits": False,
        "frames": frames,
        "hello": packed(HELLO),
        "probe": packed(Probe()),
        "seal": packed(SEAL),
    }
    own = f"http://rebound.example:{rebound.port}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(leader.running())
        stack.enter_context(follower.running())
        httpx.put(f"{leader.url}/kv/secret", json={"value": "x"}, trust_env=False)
        stack.enter_context(site(port, config, reports))
        seen: dict[str, Any] = {}
        with site(rebound.port, {**config, "leader": own, "follower": own, "waits": True}, reports):
            stack.enter_context(browser(f"http://top.example:{port}/attack/all", profile))
            while "rebound" not in seen:
                report = reports.get(timeout=WAIT_S)
                seen[report["page"]] = report["seen"]
        stack.enter_context(rebound.running())
        while len(seen) < len(PAGES) or seen["rebound"] is None:
            report = reports.get(timeout=WAIT_S)
            seen[report["page"]] = report["seen"]
        return Outcome(
            seen,
            {node.url: set(node.ask("/dump")) for node in (leader, rebound)},
            [node.ask("/admin/delays") for node in (leader, rebound)],
            follower.ask("/admin/status"),
        )


@pytest.fixture(scope="module")
def true_nodes(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What became of the store's own nodes."""
    return show_pages("kv_app", tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def careless_nodes(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What became of nodes that believe every page."""
    return show_pages("tests.browser.careless", tmp_path_factory.mktemp("profile"))


@pytest.mark.parametrize("page", PAGES)
def test_page_reaches_nothing_of_a_node(true_nodes: Outcome, page: str) -> None:
    """Neither channel nor calls, administration, data, keys, health or metrics."""
    seen = true_nodes.seen[page]
    assert not [name for name, outcome in seen.items() if outcome not in {False, None}]
    for keys in true_nodes.keys.values():
        assert not [key for key in keys if key.endswith(page)]


def test_nodes_are_as_they_were_after_all_pages(true_nodes: Outcome) -> None:
    """Also what no page can see of its attempts did nothing."""
    assert [set(keys) for keys in true_nodes.keys.values()] == [{"secret"}, set()]
    assert [one["max_delay_ms"] for one in true_nodes.delays] == [0, 0]
    follower = true_nodes.follower
    assert (follower["epoch"], follower["cluster_id"], follower["promise"]) == (0, "", None)


@pytest.mark.parametrize("page", PAGES)
def test_same_page_reaches_everything_of_a_node_that_believes_it(
    careless_nodes: Outcome, page: str
) -> None:
    """Each attempt is one that works where nobody refuses it."""
    seen = careless_nodes.seen[page]
    missing = {"key"} if page == "rebound" else set()  # that node has none
    assert {name for name, outcome in seen.items() if outcome not in {True, None}} == missing
    written = set().union(*careless_nodes.keys.values())
    assert {f"{way} {page}" for way in WRITES} <= written


def test_what_no_page_can_see_changes_a_node_that_believes_it(careless_nodes: Outcome) -> None:
    """The delays of both leaders, and to whom the follower has promised itself."""
    assert [one["max_delay_ms"] for one in careless_nodes.delays] == [2, 2]
    assert careless_nodes.follower["promise"] == "evil"
