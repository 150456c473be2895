"""Real nodes that lose their leader: promotions, restarts, a leader that was frozen."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.cluster.nodes import Cluster, MakeCluster, Node, http_client, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import httpx


def promote(cluster: Cluster, node: Node, **body: Any) -> httpx.Response:
    """Asks a node to lead."""
    return cluster.client.post(f"{node.url}/admin/promote", json=body)


def status(cluster: Cluster, node: Node) -> dict[str, Any]:
    """Where a node stands."""
    return dict(cluster.client.get(f"{node.url}/admin/status").json())


def put(cluster: Cluster, node: Node, key: str, value: str) -> httpx.Response:
    """Writes at a node."""
    return cluster.client.put(f"{node.url}/kv/{key}", json={"value": value})


def wait_follows(cluster: Cluster, node: Node, leader: Node, epoch: int) -> None:
    """Waits until a node holds the base of a leader's epoch."""

    def follows() -> bool:
        found = status(cluster, node)
        return found["base_epoch"] == epoch and found["leader_url"] == leader.url

    wait_until(follows, f"{node.name} follows {leader.name} in epoch {epoch}")


def wait_equal(cluster: Cluster) -> None:
    """Waits until all nodes show the same."""

    def digests() -> set[str]:
        answers = [cluster.client.get(f"{node.url}/digest") for node in cluster.nodes.values()]
        return {json.dumps(answer.json()["buckets"]) for answer in answers}

    wait_until(lambda: len(digests()) == 1, "all nodes show the same")


def put_on_disks(cluster: Cluster, folder: Path) -> None:
    """Starts a cluster anew, with its data in a folder per node."""
    cluster.stop()
    cluster.client = http_client(timeout_s=20)
    for node in cluster.nodes.values():
        node.environment["DATA_DIR"] = str(folder / node.name)
    cluster.start(*cluster.nodes)


@pytest.mark.parametrize("is_durable", [False, True], ids=["memory", "disk"])
def test_cluster_goes_on_under_another_leader_and_the_old_one_follows(
    make_cluster: MakeCluster, tmp_path: Path, *, is_durable: bool
) -> None:
    """Promote, write, start the old one again: it follows by itself, and all are equal."""
    cluster = make_cluster(3, 2)
    if is_durable:
        put_on_disks(cluster, tmp_path)
    cluster.wait_connected()
    old, new = cluster.leader, cluster.followers[1]
    for number in range(20):
        assert cluster.put(f"k{number}", "before").status_code == 200
    old.kill()
    done = promote(cluster, new)
    assert done.status_code == 200, done.text
    body = done.json()
    assert (body["epoch"], body["leader"], body["write_quorum"]) == (2, new.name, 2)
    assert set(body["sealed"]) == {node.url for node in cluster.followers}
    for number in range(20):
        shown = cluster.client.get(f"{new.url}/kv/k{number}?consistency=linearizable")
        assert shown.json()["value"] == "before"
    assert put(cluster, new, "k0", "after").json()["epoch"] == 2
    refused = put(cluster, cluster.followers[0], "k0", "x")
    assert (refused.status_code, refused.json()["error"]["leader_url"]) == (403, new.url)
    cluster.start(old.name)
    wait_follows(cluster, old, new, 2)
    wait_equal(cluster)
    assert cluster.client.get(f"{old.url}/kv/k0").json()["value"] == "after"
    again = promote(cluster, new)
    assert (again.status_code, again.json()["epoch"]) == (200, 2)  # it leads already


def test_frozen_leader_that_wakes_after_it_was_replaced(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """It acknowledges nothing more, confirms no read, follows, and keeps its tail apart."""
    cluster = make_cluster(3, 2, REQUEST_TIMEOUT="1", HEARTBEAT_TIMEOUT_S="1")
    put_on_disks(cluster, tmp_path)
    cluster.wait_connected()
    old, new = cluster.leader, cluster.followers[0]
    assert cluster.put("a", "settled").status_code == 200
    cluster.wait_converged()
    # A tail that nobody else has: one link is down, and the others die before they read it.
    assert cluster.admin(f"links/{new.name}", state="down").status_code == 200
    others = cluster.followers[1:]
    for follower in others:
        psutil.Process(follower.pid).suspend()
    assert cluster.put("a", "tail").status_code == 504
    for follower in others:
        follower.kill()
    with ThreadPoolExecutor(1) as pool:
        with old.paused():
            cluster.start(*[follower.name for follower in others])
            done = promote(cluster, new)
            assert (done.status_code, done.json()["epoch"]) == (200, 2), done.text
            assert put(cluster, new, "b", "new").status_code == 200
            waiting = pool.submit(put, cluster, old, "c", "sent while it was frozen")
        read = cluster.client.get(f"{old.url}/kv/a?consistency=linearizable")
        assert read.status_code != 200
        assert waiting.result().status_code != 200
    statuses = []

    def names_the_new_one() -> bool:
        answer = put(cluster, old, "c", "late")
        statuses.append(answer.status_code)
        return answer.status_code == 403 and answer.json()["error"]["leader_url"] == new.url

    wait_until(names_the_new_one, "the old leader names the new one")
    assert 200 not in statuses
    wait_follows(cluster, old, new, 2)
    wait_equal(cluster)
    shown = {node.name: cluster.client.get(f"{node.url}/dump").json() for node in (old, new)}
    assert shown[old.name] == shown[new.name]
    assert shown[old.name].keys() == {"a", "b"}
    assert cluster.get("a", old).json()["value"] == "settled"
    kept = [
        json.loads(line)
        for file in sorted((tmp_path / old.name / "quarantine").iterdir())
        for line in file.read_text().splitlines()
    ]
    tail = [(entry["epoch"], entry["key"], entry["value"]) for entry in kept]
    assert tail[0] == (1, "a", "tail")
    assert {key for _, key, _ in tail[1:]} <= {"c"}


def test_leader_that_is_killed_and_started_leads_again(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """Nobody helps; what it acknowledged is there, in memory mode because others have it."""
    del tmp_path
    cluster = make_cluster(3, 2)
    cluster.wait_connected()
    for number in range(50):
        assert cluster.put(f"k{number}", "x").status_code == 200
    cluster.leader.kill()
    cluster.start("leader")
    cluster.wait_ready()
    found = status(cluster, cluster.leader)
    assert (found["epoch"], found["is_open"]) == (2, True)
    assert len(cluster.client.get(f"{cluster.leader.url}/dump").json()) == 50
    assert cluster.put("later", "x").json()["epoch"] == 2
    wait_equal(cluster)


@pytest.mark.parametrize("is_durable", [False, True], ids=["memory", "disk"])
def test_promoted_follower_that_is_killed_and_started_leads_again(
    make_cluster: MakeCluster, tmp_path: Path, *, is_durable: bool
) -> None:
    """Without a disk it does not know that it led, and nobody's URL: the others tell it."""
    cluster = make_cluster(2, 1)
    if is_durable:
        put_on_disks(cluster, tmp_path)
    cluster.wait_connected()
    old, new = cluster.leader, cluster.followers[1]
    assert cluster.put("a", "before").status_code == 200
    assert promote(cluster, new).status_code == 200
    wait_follows(cluster, old, new, 2)
    assert put(cluster, new, "b", "before").status_code == 200
    new.kill()
    cluster.start(new.name)
    wait_until(lambda: put(cluster, new, "c", "after").status_code == 200, "it leads again")
    assert cluster.client.get(f"{new.url}/kv/b").json()["value"] == "before"
    for node in (old, cluster.followers[0]):
        wait_follows(cluster, node, new, status(cluster, new)["epoch"])
    wait_equal(cluster)


def test_promotion_with_too_few_names_who_is_missing(make_cluster: MakeCluster) -> None:
    """At k=1 every follower has to answer, for any may be the only one."""
    cluster = make_cluster(3, 1)
    cluster.wait_connected()
    assert cluster.put("a", "1").status_code == 200
    dead = cluster.followers[2]
    cluster.leader.kill()
    dead.kill()
    refused = promote(cluster, cluster.followers[0])
    assert refused.status_code == 409
    error = refused.json()["error"]
    assert (error["code"], error["definite"]) == ("not_enough_survivors", True)
    assert (error["required"], error["sealed"]) == (3, 2)
    assert set(error["missing"]) == {cluster.leader.url, dead.url}
    forced = promote(cluster, cluster.followers[0], force=True)
    assert forced.status_code == 200
    assert dead.url in forced.json()["may_have_lost"]
    assert put(cluster, cluster.followers[0], "a", "2").status_code == 200


def test_write_quorum_survives_a_change_of_leader(make_cluster: MakeCluster) -> None:
    """It is in the log, not in the settings."""
    cluster = make_cluster(3, 1)
    cluster.wait_connected()
    raised = cluster.admin("quorum", write_quorum=3)
    assert raised.status_code == 200
    wait_until(
        lambda: status(cluster, cluster.leader)["floor"] == 3, "the floor follows the quorum"
    )
    cluster.leader.kill()
    new = cluster.followers[2]
    done = promote(cluster, new)
    assert done.json()["write_quorum"] == 2  # two others were sealed
    assert status(cluster, new)["wanted"] == 3
    cluster.start("leader")
    wait_until(lambda: status(cluster, new)["write_quorum"] == 3, "k rises again")
    assert put(cluster, new, "a", "1").json()["follower_acks"] == 3
