"""A store for the load's tests: a leader alone, as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START_LIMIT_S = 15.0


@pytest.fixture(scope="session")
def leader_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a leader without followers; its log stands in the message if it fails."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url, start_id = f"http://127.0.0.1:{port}", f"load-tests-{os.getpid()}"
    log_path = tmp_path_factory.mktemp("leader") / "leader.log"
    settings = {"ROLE": "leader", "PORT": str(port), "FOLLOWER_URLS": "", "START_ID": start_id}
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kv_app"], env={**os.environ, **settings}, stdout=log, stderr=log
        )
    try:
        wait_until_up(url, start_id, lambda: process.poll() is None)
        yield url
    except TimeoutError:
        pytest.fail(f"the leader did not start:\n{log_path.read_text()}")
    finally:
        process.terminate()
        process.wait(timeout=10)


def wait_until_up(url: str, start_id: str, is_running: Callable[[], bool]) -> None:
    """Returns once the very process that was started answers; TimeoutError if it will not."""
    deadline_s = time.monotonic() + START_LIMIT_S
    while is_running() and time.monotonic() < deadline_s:
        try:
            if httpx.get(f"{url}/health").json().get("start_id") == start_id:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError
