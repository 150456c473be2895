"""``up``, ``status``, ``parity`` and ``down``: a cluster that outlives the command."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.cluster.nodes import free_ports, wait_until
from tests.cluster.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tool(tmp_path: Path) -> Iterator[Tool]:
    """The command; a cluster that a test kept is ended."""
    tool = Tool(tmp_path)
    yield tool
    tool.run("down")
    left = tool.processes()
    for process in left:
        process.kill()
    assert not left


def test_up_keeps_a_cluster_that_down_ends(tool: Tool) -> None:
    """up, status, a write, parity, down: each does what it says."""
    up = tool.run("up", "--followers", "2", "--k", "2", "--delay", "0:5", "--json")
    assert up.returncode == 0, up.stderr
    status = json.loads(tool.run("status", "--json").stdout)
    leader_url = json.loads(up.stdout)["leader_url"]
    assert httpx.put(f"{leader_url}/kv/x", json={"value": "1"}).json()["follower_acks"] == 2
    assert leader_url in json.dumps(status)
    parity = tool.run("parity")
    assert parity.returncode == 0, parity.stderr
    second = tool.run("up")
    assert second.returncode != 0
    assert "quorumeter down" in second.stderr
    assert len(tool.processes("kv_app")) == 3
    assert tool.run("down").returncode == 0
    tool.assert_nothing_left()
    assert tool.run("down").returncode == 0


def test_down_tolerates_nodes_that_died(tool: Tool) -> None:
    """Down ends what is left, and says what was gone."""
    assert tool.run("up", "--followers", "2").returncode == 0
    tool.node("follower1").kill()
    down = tool.run("down")
    assert down.returncode == 0, down.stderr
    tool.assert_nothing_left()


def test_up_on_a_taken_port_is_one_clear_sentence(tool: Tool) -> None:
    """A port that somebody has is named, and nothing is left of the attempt."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = tool.run("up", "--followers", "1", "--port", str(port))
    assert up.returncode not in {0, 64}
    assert str(port) in up.stderr
    assert "Traceback" not in up.stderr
    tool.assert_nothing_left()


def test_web_serves_locusts_page_until_it_is_stopped(tool: Tool) -> None:
    """`web` starts a cluster and Locust's UI with our fields in its form, and ends both."""
    port = free_ports(1)[0]
    with tool.started("web", "--followers", "1", "--web-port", str(port)) as process:

        def page() -> str:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).text
            except httpx.HTTPError:
                return ""

        text = wait_until(page, "the page is served", 30)
        assert "write_quorum" in text
        assert "rate" in text
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143
    tool.assert_nothing_left()
