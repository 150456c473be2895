"""Local clusters: how nodes are set, started, told apart from strangers, and ended."""

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from orchestration.clusters import local, processes
from orchestration.clusters.local import (
    NODE_VARIABLES,
    LocalCluster,
    LocalSettings,
    free_ports,
    node_environments,
)
from orchestration.control import Control
from orchestration.errors import PortTakenError


@pytest.fixture
def control() -> Iterator[Control]:
    """A client of nodes without a token."""
    with Control() as client:
        yield client


def test_a_cluster_runs_when_start_returns_and_is_gone_after_stop(
    tmp_path: Path, control: Control
) -> None:
    """Its nodes are where it says, each with a log of its own, and none is left behind."""
    noted: list[int] = []
    foreign = {**os.environ, "ROLE": "follower", "WRITE_QUORUM": "7", "LOG_LEVEL": "nonsense"}
    cluster = LocalCluster(
        LocalSettings(followers=1, write_quorum=1),
        tmp_path / "logs",
        control,
        note=lambda: noted.append(len(cluster.nodes)),
        environment=foreign,
    )
    try:
        cluster.start()
        assert noted == [2]
        leader, follower = nodes = cluster.nodes
        assert [(node.node_id, node.role) for node in nodes] == [
            ("leader", "leader"),
            ("follower1", "follower"),
        ]
        assert cluster.leader_url == leader.url
        assert cluster.follower_urls == {follower.url: follower.url}
        for node in nodes:
            health = control.health(node.url)
            assert (health.node_id, health.start_id) == (node.node_id, cluster.start_id)
            assert node.log_path == tmp_path / "logs" / f"{node.node_id}.log"
            assert node.last_lines
            assert node.log_start == 0
        control.check_ready(leader.url)
        assert control.quorum(leader.url) == (1, 1)
        written = [node.log_path.stat().st_size for node in nodes]
    finally:
        cluster.stop()
    assert [processes.find(node.process) for node in nodes] == [None, None]
    assert cluster.nodes == ()
    cluster.stop()
    try:  # once more, into the same logs
        cluster.start()
        starts = [node.log_start for node in cluster.nodes]
        assert all(start >= size > 0 for start, size in zip(starts, written, strict=True))
    finally:
        cluster.stop()


def test_a_port_that_was_asked_for_and_is_taken_is_told(tmp_path: Path, control: Control) -> None:
    """The sentence names the address and the way out, and no node is left."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = LocalCluster(LocalSettings(followers=0, port=port), tmp_path, control)
        with pytest.raises(PortTakenError, match=f"http://127.0.0.1:{port}.*another --port"):
            cluster.start()
        assert cluster.nodes == ()


def test_a_port_that_was_taken_meanwhile_is_replaced(
    tmp_path: Path, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free ports are free for a moment only: that is no reason to give up."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        offered = iter([[port], free_ports(1)])
        monkeypatch.setattr(local, "free_ports", lambda _: next(offered))
        cluster = LocalCluster(LocalSettings(followers=0), tmp_path, control)
        try:
            cluster.start()
            assert cluster.leader_url != f"http://127.0.0.1:{port}"
        finally:
            cluster.stop()


@pytest.mark.parametrize("wrong", ["node_id", "start_id"])
def test_a_stranger_that_answers_is_not_taken_for_the_node(tmp_path: Path, wrong: str) -> None:
    """Else a sweep would measure somebody else's cluster."""

    def answer(_: httpx.Request) -> httpx.Response:
        body = {"node_id": "leader", "role": "leader", "epoch": 1, "start_id": cluster.start_id}
        return httpx.Response(200, json=body | {wrong: "another"})

    control = Control(transport=httpx.MockTransport(answer))
    [port] = free_ports(1)
    cluster = LocalCluster(LocalSettings(followers=0, port=port), tmp_path, control)
    with pytest.raises(PortTakenError, match=f"Another program answers at http://127.0.0.1:{port}"):
        cluster.start()
    assert cluster.nodes == ()


def test_ports_follow_the_one_that_was_asked_for(control: Control) -> None:
    """Users find the followers by counting on; free ports differ from each other."""
    cluster = LocalCluster(LocalSettings(followers=2, port=8100), Path(), control)
    assert cluster._ports() == [8100, 8101, 8102]
    assert len(set(LocalCluster(LocalSettings(followers=2), Path(), control)._ports())) == 3


def test_nodes_have_no_delay_and_keep_nothing_unless_they_are_told_to() -> None:
    """The plain cluster is the quick one."""
    [leader] = node_environments(LocalSettings(followers=0), [8000], "nonce")
    assert (leader["MIN_DELAY_MS"], leader["MAX_DELAY_MS"]) == ("0", "0")
    assert leader["DELAY_MODEL"] == "independent"
    assert not {"DATA_DIR", "DELAY_SEED", "WRITE_QUORUM"} & set(leader)


def test_nodes_get_their_own_settings_and_share_a_start_id() -> None:
    """The leader knows all followers and k; every node its name, its port and the delays."""
    settings = LocalSettings(
        followers=2, delay_ms=(0.5, 100.0), delay_model="fifo", delay_seed=9, write_quorum=1
    )
    leader, *followers = node_environments(settings, [8000, 8001, 8002], "nonce")
    assert leader == {
        "ROLE": "leader",
        "NODE_ID": "leader",
        "FOLLOWER_URLS": "http://127.0.0.1:8001,http://127.0.0.1:8002",
        "MIN_DELAY_MS": "0.5",
        "MAX_DELAY_MS": "100",
        "DELAY_MODEL": "fifo",
        "DELAY_SEED": "9",
        "WRITE_QUORUM": "1",
        "HOST": "127.0.0.1",
        "PORT": "8000",
        "START_ID": "nonce",
    }
    assert [(node["NODE_ID"], node["PORT"]) for node in followers] == [
        ("follower1", "8001"),
        ("follower2", "8002"),
    ]
    assert {node["ROLE"] for node in followers} == {"follower"}
    assert {node["START_ID"] for node in followers} == {"nonce"}
    names = ("MIN_DELAY_MS", "MAX_DELAY_MS", "DELAY_MODEL", "DELAY_SEED")
    delays = {tuple(node[name] for name in names) for node in followers}
    assert delays == {("0.5", "100", "fifo", "9")}  # one that is promoted does as the leader did


def test_a_leader_alone_has_no_followers() -> None:
    """n=0 is a cluster too."""
    [leader] = node_environments(LocalSettings(followers=0), [8000], "nonce")
    assert not leader["FOLLOWER_URLS"]


def test_every_variable_that_a_node_reads_is_kept_from_it() -> None:
    """The list holds all of the store's settings but the token, which both sides share."""
    source = Path(__file__).parents[3] / "kv_app" / "settings.py"
    calls = re.findall(
        r"reader\.(?:text|integer|real|choice|flag)\(\s*\"([A-Z_]+)\"", source.read_text()
    )
    assert len(calls) > 20
    assert set(calls) - {"CLUSTER_TOKEN"} <= NODE_VARIABLES


def test_nodes_with_a_disk_have_a_folder_each(tmp_path: Path) -> None:
    """Two nodes never share a folder, wherever the nodes are started."""
    settings = LocalSettings(followers=1, data_dir=tmp_path)
    folders = [node["DATA_DIR"] for node in node_environments(settings, [8000, 8001], "nonce")]
    assert folders == [str(tmp_path / "leader"), str(tmp_path / "follower1")]
