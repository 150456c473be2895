"""The two yardsticks as processes: a bare server, and a naive replicated store."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.clusters.local import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
START_TIMEOUT_S = 20.0
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def uvicorn(app: str, port: int, **environment: str) -> Iterator[str]:
    """Serves an application for as long as the block lasts; gives its URL."""
    options = ["--port", str(port), "--log-level", "warning", "--no-access-log"]
    # The naive store logs what it loses under load; wrk counts it.
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", app, *options],
        env={**os.environ, **environment},
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_listening(process, port)
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextlib.contextmanager
def bare_server() -> Iterator[str]:
    """A PUT that does nothing."""
    with uvicorn("tests.bench.bare_app:app", free_ports(1)[0]) as url:
        yield url


@contextlib.contextmanager
def naive_store(followers: int, write_quorum: int) -> Iterator[str]:
    """A leader that POSTs each write to each follower."""
    app = "tests.bench.naive_store:app"
    leader_port, *ports = free_ports(followers + 1)
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(uvicorn(app, port)) for port in ports]
        settings = {"FOLLOWERS": ",".join(urls), "QUORUM": str(write_quorum)}
        yield stack.enter_context(uvicorn(app, leader_port, **settings))


def _wait_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise SystemExit(f"uvicorn ended with {process.returncode}; see above.")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"uvicorn did not listen on {port} within {START_TIMEOUT_S:g} s.")
