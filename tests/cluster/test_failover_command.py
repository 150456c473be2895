"""``failover`` and ``watch`` as a user runs them, on a cluster whose leader dies."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.cluster.nodes import Cluster, MakeCluster, Node, http_client, wait_until
from tests.cluster.tool import Tool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    """The command, with a home of its own."""
    return Tool(tmp_path)


def status_of(cluster: Cluster, node: Node) -> dict[str, Any]:
    """Where a node stands; empty if it does not answer."""
    try:
        return dict(cluster.client.get(f"{node.url}/admin/status").json())
    except httpx.HTTPError:
        return {}


def open_leaders(cluster: Cluster) -> list[tuple[int, str]]:
    """Who says that it leads and takes writes, with its epoch."""
    statuses = {node.name: status_of(cluster, node) for node in cluster.nodes.values()}
    return [(one["epoch"], name) for name, one in statuses.items() if one.get("is_open")]


def test_failover_explains_then_does_it_and_shows_the_first_write(
    make_cluster: MakeCluster, tool: Tool
) -> None:
    """One URL names the others; a dry run changes nothing; afterwards writes go on."""
    cluster = make_cluster(3, 2)
    cluster.wait_connected()
    for number in range(10):
        assert cluster.put(f"k{number}", "before").status_code == 200
    cluster.wait_converged()
    cluster.leader.kill()
    known = ("--node", cluster.followers[1].url)
    dry = tool.run("failover", *known, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert cluster.leader.url in dry.stdout
    assert "silent" in dry.stdout
    assert "3 of 3 electors answer" in dry.stdout
    assert not open_leaders(cluster)
    new = cluster.followers[2]
    done = tool.run("failover", *known, "--to", new.url, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    promotion = told["promotion"]
    assert (promotion["epoch"], promotion["leader"], promotion["write_quorum"]) == (2, new.name, 2)
    assert 0 < promotion["open_ms"] <= promotion["first_write_ms"]
    assert list(told["silent"]) == [cluster.leader.url]
    dump = cluster.client.get(f"{new.url}/dump").json()
    assert dump == {f"k{number}": "before" for number in range(10)}  # and no probe is left
    assert cluster.client.put(f"{new.url}/kv/a", json={"value": "1"}).json()["epoch"] == 2
    again = tool.run("failover", *known, "--yes")
    assert again.returncode == 0, again.stderr
    assert "leads epoch 2" in again.stdout
    assert open_leaders(cluster) == [(2, new.name)]


def test_nodes_that_know_each_other_by_other_urls_are_each_seen_once(
    make_cluster: MakeCluster, tool: Tool
) -> None:
    """As behind published ports; one was not heard when the cluster was made, and has no name."""
    cluster = make_cluster(3, 2)
    cluster.stop()
    cluster.client = http_client(timeout_s=20)
    inside = {
        node.name: node.url.replace("127.0.0.1", "localhost") for node in cluster.nodes.values()
    }
    for name, node in cluster.nodes.items():
        node.environment["ADVERTISE_URL"] = inside[name]
    followers = (inside[node.name] for node in cluster.followers)
    cluster.leader.environment["FOLLOWER_URLS"] = ",".join(followers)
    cluster.start("leader", "follower1", "follower2")
    cluster.wait_ready()
    cluster.start("follower3")
    late = cluster.followers[2]
    wait_until(lambda: status_of(cluster, late).get("members"), "the late one is a member")
    assert status_of(cluster, late)["url"] == inside["follower3"]
    assert cluster.put("a", "1").status_code == 200
    cluster.leader.kill()
    nodes = [word for node in cluster.nodes.values() for word in ("--node", node.url)]
    done = tool.run("failover", *nodes, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told["nodes"]) == {node.url for node in cluster.followers}
    assert list(told["silent"]) == [cluster.leader.url]
    assert (told["answering"], told["survivors"]) == (3, 3)


def test_failover_that_would_be_refused_names_who_is_missing(
    make_cluster: MakeCluster, tool: Tool
) -> None:
    """Nothing is changed; by force it goes on, and says what may be lost."""
    cluster = make_cluster(3, 1)
    cluster.wait_connected()
    assert cluster.put("a", "1").status_code == 200
    dead = cluster.followers[2]
    cluster.leader.kill()
    dead.kill()
    known = ("--node", cluster.followers[0].url)
    refused = tool.run("failover", *known, "--yes")
    assert refused.returncode == 2, refused.stderr
    assert dead.url in refused.stdout
    # By the name, if one of those that live has heard it; else by the address.
    assert dead.name in refused.stderr or dead.url in refused.stderr
    assert "--force" in refused.stderr
    assert not open_leaders(cluster)
    forced = tool.run("failover", *known, "--yes", "--force")
    assert forced.returncode == 0, forced.stderr
    assert dead.url in forced.stdout
    assert [epoch for epoch, _ in open_leaders(cluster)] == [2]


def test_leader_that_has_a_channel_to_nobody_is_replaced(
    make_cluster: MakeCluster, tool: Tool
) -> None:
    """It answers and is open, but acknowledges nothing; who replaces it is told that."""
    cluster = make_cluster(3, 2)
    cluster.wait_connected()
    assert cluster.put("a", "1").status_code == 200
    for node in cluster.followers:
        path = f"{cluster.leader.url}/admin/links/{node.name}"
        assert cluster.client.post(path, json={"state": "down"}).status_code == 200
    followers = cluster.followers
    wait_until(
        lambda: not any(status_of(cluster, node)["is_led"] for node in followers),
        "no follower is led",
    )
    assert open_leaders(cluster) == [(1, "leader")]
    done = tool.run("failover", "--node", followers[0].url, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert "leader leads epoch 1, but no follower that answers has a channel to it" in done.stderr
    told = json.loads(done.stdout)
    assert (told["cut_off"]["node_id"], told["leader"]) == ("leader", None)
    new = [(2, told["promotion"]["leader"])]
    wait_until(lambda: open_leaders(cluster) == new, "only the new one leads")


def test_failover_without_a_terminal_and_without_yes_changes_nothing(
    make_cluster: MakeCluster, tool: Tool
) -> None:
    """Nobody agreed; and where no cluster is known, one sentence says what to do."""
    cluster = make_cluster(2, 1)
    cluster.wait_connected()
    cluster.leader.kill()
    asked = tool.run("failover", "--node", cluster.followers[0].url)
    assert asked.returncode == 2, asked.stderr
    assert "Nothing was changed" in asked.stderr
    assert "--yes" in asked.stderr
    assert not open_leaders(cluster)
    unknown = tool.run("failover")
    assert unknown.returncode != 0
    assert "--node" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_watchers_and_an_operator_never_make_two_leaders(
    make_cluster: MakeCluster, tool: Tool
) -> None:
    """The leader dies under two watchers while somebody promotes by hand: one new leader."""
    cluster = make_cluster(3, 2, HEARTBEAT_TIMEOUT_S="1")
    cluster.wait_connected()
    assert cluster.put("a", "1").status_code == 200
    cluster.wait_converged()
    nodes = [word for node in cluster.followers for word in ("--node", node.url)]
    watching = ("watch", *nodes, "--after", "500ms")
    with tool.started(*watching) as first, tool.started(*watching) as second:
        for watcher in (first, second):
            assert watcher.stdout is not None
            assert "leader leads epoch 1" in watcher.stdout.readline()
        cluster.leader.kill()
        tool.run("failover", *nodes, "--yes")
        wait_until(lambda: len(open_leaders(cluster)) == 1, "one node leads")
        [(epoch, name)] = open_leaders(cluster)
        new = cluster.nodes[name]

        def acknowledges() -> bool:
            answer = cluster.client.put(f"{new.url}/kv/b", json={"value": "2"})
            return answer.status_code == 200

        wait_until(acknowledges, "the new leader acknowledges")
        # The old one comes back by itself, as a follower; no watcher interferes any more.
        cluster.start("leader")
        wait_until(
            lambda: status_of(cluster, cluster.leader).get("base_epoch") == epoch,
            "the old leader follows",
        )
        assert open_leaders(cluster) == [(epoch, name)]
        for watcher in (first, second):
            assert watcher.poll() is None
            watcher.send_signal(signal.SIGINT)
            told = watcher.communicate(timeout=10)[0]
            assert watcher.returncode == 130, told
            assert f"{name} leads epoch {epoch}." in told
            assert "Traceback" not in told
    assert cluster.client.get(f"{new.url}/kv/a").json()["value"] == "1"
