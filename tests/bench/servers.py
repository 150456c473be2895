"""Servers as processes of this machine: the yardsticks, and whatever else listens on a port."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.clusters import processes
from orchestration.clusters.local import HOST, free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

START_TIMEOUT_S = 20.0
POLL_S = 0.05
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def serve(command: Sequence[str], port: int, log_path: Path, **environment: str) -> Iterator[int]:
    """Runs a server for as long as the block lasts, from when it listens; gives its pid.

    Raises:
        SystemExit: It ended or did not listen; the message has its last lines.
    """
    child = processes.spawn(command, {**os.environ, **environment}, log_path)
    started = processes.mark(child.pid)
    try:
        wait_until(
            lambda: child.poll() is not None or _is_listening(port),
            lambda: f"{command[0]} did not listen on {port}:\n{processes.tail(log_path)}",
        )
        if child.poll() is not None:
            lines = processes.tail(log_path)
            raise SystemExit(f"{command[0]} ended with {child.returncode}:\n{lines}")
        yield child.pid
    finally:
        processes.stop([started])
        child.poll()  # collects the exit status


def wait_until(is_done: Callable[[], bool], complaint: Callable[[], str]) -> None:
    """Returns once something is true.

    Raises:
        SystemExit: It took longer than ``START_TIMEOUT_S``; with the complaint.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not is_done():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"After {START_TIMEOUT_S:g} s: {complaint()}")
        time.sleep(POLL_S)


@contextlib.contextmanager
def bare_server(folder: Path) -> Iterator[str]:
    """A PUT that does nothing; gives its URL."""
    with _uvicorn("tests.bench.bare_app:app", free_ports(1)[0], folder) as url:
        yield url


@contextlib.contextmanager
def naive_store(folder: Path, followers: int, write_quorum: int) -> Iterator[str]:
    """A leader that POSTs each write to each follower; gives its URL."""
    app = "tests.bench.naive_store:app"
    leader_port, *ports = free_ports(followers + 1)
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(_uvicorn(app, port, folder)) for port in ports]
        settings = {"FOLLOWERS": ",".join(urls), "QUORUM": str(write_quorum)}
        yield stack.enter_context(_uvicorn(app, leader_port, folder, **settings))


@contextlib.contextmanager
def _uvicorn(app: str, port: int, folder: Path, **environment: str) -> Iterator[str]:
    options = ["--port", str(port), "--log-level", "warning", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT), app, *options]
    with serve(command, port, folder / f"uvicorn-{port}.log", **environment):
        yield f"http://{HOST}:{port}"


def _is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False
