"""What the store promises of each write, checked on real processes."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from kv_app.delays import DelayModel
from tests.cluster.nodes import WAIT_TIMEOUT_S, http_client

if TYPE_CHECKING:
    from tests.cluster.nodes import Cluster, MakeCluster

SEED = 7  # shared_cluster's DELAY_SEED


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_write_with_delays_waits_for_its_kth_smallest_draw(cluster: Cluster, k: int) -> None:
    """I2: no write is answered earlier than the k-th smallest delay that was drawn for it."""
    cluster.admin("quorum", write_quorum=k)
    cluster.admin("delays", min_delay_ms=0, max_delay_ms=60)
    model = DelayModel(0, 60, SEED)

    def timed(index: int) -> tuple[float, dict[str, Any]]:
        start_ns = time.monotonic_ns()
        answer = cluster.put(f"i2-{index % 7}", str(index))
        return (time.monotonic_ns() - start_ns) / 1e6, answer.json()

    with ThreadPoolExecutor(8) as pool:
        for took_ms, body in pool.map(timed, range(60)):
            draws = sorted(
                model.draw_ns(node.name, body["epoch"], body["seq"]) / 1e6
                for node in cluster.followers
            )
            assert took_ms >= draws[k - 1]


def test_fifo_link_never_lets_an_entry_overtake(make_cluster: MakeCluster) -> None:
    """On a FIFO link an entry waits for all before it, so a follower never has a hole."""
    cluster = make_cluster(
        2, 0, MAX_DELAY_MS="80", DELAY_MODEL="fifo", DELAY_SEED=str(SEED), REQUEST_TIMEOUT="3"
    )
    cluster.wait_connected()
    answers = cluster.put_many([(f"fifo-{i}", "x") for i in range(80)], workers=4)
    assert all(answer.status_code == 200 for answer in answers)
    holes = set()
    while True:
        status = cluster.links()
        holes |= {link["holes"] for link in status["links"].values()}
        if all(link["contiguous"] == status["last_seq"] for link in status["links"].values()):
            break
    assert holes == {0}


@pytest.mark.parametrize("k", [1, 3, 5])
def test_answered_write_is_on_k_followers_but_not_on_all(cluster: Cluster, k: int) -> None:
    """I3: at the answer at least k followers show the entry; below n not all of them do."""
    cluster.admin("quorum", write_quorum=k)
    cluster.admin("delays", min_delay_ms=0, max_delay_ms=400)
    shown_by = []
    for index in range(6):
        key = f"i3-{k}-{index}"
        assert cluster.put(key, "x").json()["follower_acks"] >= k
        with ThreadPoolExecutor(5) as pool:
            answers = pool.map(lambda node, key=key: cluster.get(key, node), cluster.followers)
            shown_by.append(sum(answer.status_code == 200 for answer in answers))
    assert min(shown_by) >= k
    if k < 5:
        assert min(shown_by) < 5


def test_leader_shows_nothing_before_the_quorum_has_it(make_cluster: MakeCluster) -> None:
    """A value that is not committed is not visible on the leader; followers may show it."""
    cluster = make_cluster(2, 2, REQUEST_TIMEOUT="0.5")
    cluster.wait_connected()
    with cluster.followers[1].paused():
        answer = cluster.put("uncommitted", "x")
        error = answer.json()["error"]
        assert answer.status_code == 504
        assert (error["code"], error["definite"]) == ("outcome_unknown", False)
        assert (error["follower_acks"], error["required"]) == (1, 2)
        assert cluster.get("uncommitted").status_code == 404
        assert cluster.get("uncommitted", cluster.followers[0]).json()["seq"] == error["seq"]
    cluster.wait_converged()
    assert cluster.get("uncommitted").json()["seq"] == error["seq"]


def test_retry_with_the_same_key_is_one_write(make_cluster: MakeCluster) -> None:
    """I5: a retry gets the original's position, while it waits and after it committed."""
    cluster = make_cluster(1, 1, REQUEST_TIMEOUT="0.5")
    cluster.wait_connected()
    retry = {"Idempotency-Key": "once"}
    with cluster.followers[0].paused():
        first = cluster.put("retried", "x", **retry)
        second = cluster.put("retried", "x", **retry)
        assert first.status_code == second.status_code == 504
        assert first.json()["error"]["seq"] == second.json()["error"]["seq"]
    third = cluster.put("retried", "x", **retry)
    assert third.status_code == 200
    assert third.json()["seq"] == first.json()["error"]["seq"]
    assert cluster.put("retried", "other", **retry).status_code == 422
    assert cluster.links()["last_seq"] == third.json()["seq"]


def test_definite_failures_under_kills_are_never_visible(make_cluster: MakeCluster) -> None:
    """I5: under kills a definite failure never shows, an unknown write at most once."""
    cluster = make_cluster(3, 2, REQUEST_TIMEOUT="0.5")
    cluster.wait_connected()
    stop, refused = threading.Event(), threading.Event()

    def write(worker: int) -> list[tuple[str, str, dict[str, Any]]]:
        outcomes = []
        with http_client(timeout_s=10) as client:
            for index in count():
                if stop.is_set():
                    return outcomes
                value = f"{worker}-{index}"
                answer = client.put(
                    f"{cluster.leader.url}/kv/i5-{worker}-{index}",
                    json={"value": value},
                    headers={"Idempotency-Key": value},
                )
                outcomes.append((f"i5-{worker}-{index}", value, answer.json()))
                if answer.status_code == 503:
                    refused.set()
        return outcomes

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, worker) for worker in range(4)]
        try:
            for victims in ([0], [1], [0, 2], [1, 2]):
                refused.clear()
                for victim in victims:
                    cluster.followers[victim].kill()
                # At first every writer may wait for what it began before.
                assert len(victims) == 1 or refused.wait(WAIT_TIMEOUT_S), "k=2 of one must fail"
                cluster.start(*(cluster.followers[victim].name for victim in victims))
                cluster.wait_connected()
        finally:
            stop.set()
        outcomes = [outcome for writer in writers for outcome in writer.result()]
    cluster.wait_converged()

    dumps = [cluster.client.get(f"{node.url}/dump").json() for node in cluster.nodes.values()]
    for key, value, body in outcomes:
        error = body.get("error")
        if error is None:
            assert [dump.get(key) for dump in dumps] == [value] * 4
        elif error["definite"]:
            assert [dump.get(key) for dump in dumps] == [None] * 4
    positions = [body["seq"] for _, _, body in outcomes if "error" not in body]
    assert len(set(positions)) == len(positions)


def test_replicas_never_go_back_and_agree_on_every_position(cluster: Cluster) -> None:
    """I6: one value per position everywhere; per key a replica's versions only rise."""
    cluster.admin("delays", min_delay_ms=0, max_delay_ms=30)
    keys = [f"i6-{i}" for i in range(3)]
    written: dict[tuple[int, int], str] = {}
    done = threading.Event()

    def watch(url: str) -> list[tuple[str, str | None, int, int]]:
        seen = []
        with http_client(timeout_s=10) as client:
            while not done.is_set():
                for key in keys:
                    body = client.get(f"{url}/kv/{key}").json()
                    held = body.get("error", body)
                    if held.get("seq"):
                        seen.append((key, body.get("value"), held["epoch"], held["seq"]))
        return seen

    with ThreadPoolExecutor(6) as pool:
        watchers = [pool.submit(watch, node.url) for node in cluster.nodes.values()]
        chooser = random.Random(SEED)
        answers = cluster.put_many(
            [(chooser.choice(keys), f"value-{i}") for i in range(300)], workers=8
        )
        done.set()
        seen_by = [watcher.result() for watcher in watchers]
    for answer in answers:
        body = answer.json()
        written[body["epoch"], body["seq"]] = body["value"]
    for seen in seen_by:
        newest: dict[str, tuple[int, int]] = {}
        for key, value, epoch, seq in seen:
            assert written[epoch, seq] == value
            assert (epoch, seq) >= newest.get(key, (0, 0))
            newest[key] = (epoch, seq)


def test_all_replicas_are_equal_once_writes_stop(cluster: Cluster) -> None:
    """I7: with all connected and no writes, live keys, versions and deletions are the same."""
    cluster.admin("quorum", write_quorum=1)
    cluster.admin("delays", min_delay_ms=0, max_delay_ms=50)
    keys = [f"i7-{i}" for i in range(10)]
    cluster.put_many([(keys[i % 10], str(i)) for i in range(200)])
    cluster.client.delete(f"{cluster.leader.url}/kv/{keys[0]}")
    cluster.wait_converged()
    expected = cluster.versions(cluster.leader, keys)
    assert expected[keys[0]][0] is None
    assert all(seq is not None for _, _, seq in expected.values())
    for node in cluster.followers:
        assert cluster.versions(node, keys) == expected
