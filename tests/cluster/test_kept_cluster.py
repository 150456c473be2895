"""``up``, ``status``, ``parity`` and ``down``: a cluster that outlives the command."""

from __future__ import annotations

import json
import shutil
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


def test_of_two_up_at_once_one_keeps_a_cluster(tool: Tool) -> None:
    """No node is left that `down` would not know of."""
    with (
        tool.started("up", "--followers", "1") as first,
        tool.started("up", "--followers", "1") as second,
    ):
        outcomes = [(process, process.communicate(timeout=60)[0]) for process in (first, second)]
    assert sorted(process.returncode for process, _ in outcomes) == [0, 2]
    [told] = [text for process, text in outcomes if process.returncode]
    assert "is at work" in told or "A cluster runs already" in told
    assert len(tool.processes("kv_app")) == 2
    assert tool.run("down").returncode == 0
    tool.assert_nothing_left()


def test_nodes_of_an_up_that_was_killed_are_ended_by_down(tool: Tool) -> None:
    """They are noted before they are ready."""
    with tool.started("up", "--followers", "5") as up:
        wait_until((tool.home / "state" / "cluster.json").exists, "the nodes are noted")
        up.kill()
        up.wait()
    down = tool.run("down")
    assert down.returncode == 0, down.stderr
    assert "Ended 6 of 6 nodes" in down.stdout
    tool.assert_nothing_left()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [("started", "answers at http"), ("start_id", "is not the node that was started")],
)
def test_down_forgets_no_node_that_lives(tool: Tool, spoil: str, words: str) -> None:
    """Whatever is wrong with the note: it says so, keeps it, and ends what it surely knows."""
    assert tool.run("up", "--followers", "1").returncode == 0
    state = tool.home / "state" / "cluster.json"
    noted = state.read_text()
    body = json.loads(noted)
    if spoil == "start_id":
        body["start_id"] = "0000"
    else:
        body["nodes"][1]["process"]["started"] += 1
    state.write_text(json.dumps(body))
    down = tool.run("down")
    assert down.returncode == 2
    assert words in down.stderr
    assert str(state) in down.stderr
    assert "follower1" in down.stderr
    state.write_text(noted)
    assert tool.run("down").returncode == 0
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


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv, of Linux")
def test_a_web_that_is_killed_leaves_nothing(tool: Tool) -> None:
    """Nodes and Locust end with it, though it could not end them."""
    with tool.started("web", "--followers", "1") as process:
        wait_until(lambda: tool.processes("locust"), "Locust runs", 40)
        process.kill()
    wait_until(lambda: not tool.processes(), f"gone: {tool.processes()}", 20)
