"""Followers and leaders that go, come back, are slow, or are strangers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.cluster.nodes import http_client, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.cluster.nodes import Cluster, MakeCluster, Node


class Writers:
    """Some clients that write without pause until they are stopped."""

    def __init__(self, cluster: Cluster, workers: int = 4) -> None:
        self._url = cluster.leader.url
        self._stop = threading.Event()
        self.answered = 0
        self._pool = ThreadPoolExecutor(workers)
        self._futures = [self._pool.submit(self._run, worker) for worker in range(workers)]

    def _run(self, worker: int) -> list[httpx.Response]:
        answers = []
        with http_client(timeout_s=10) as client:
            while not self._stop.is_set():
                url = f"{self._url}/kv/load-{worker}-{len(answers) % 50}"
                answers.append(client.put(url, json={"value": str(len(answers))}))
                self.answered += 1
        return answers

    def wait_more(self, answers: int) -> None:
        """Waits until so many further writes were answered."""
        goal = self.answered + answers
        wait_until(lambda: self.answered >= goal, f"{answers} further writes are answered")

    def finish(self) -> list[httpx.Response]:
        """Stops them, and returns every answer that they got."""
        self._stop.set()
        with self._pool:
            return [answer for future in self._futures for answer in future.result()]


@pytest.fixture
def writers_of() -> Iterator[type[Writers]]:
    """Writers whose threads end with the test, also when it fails."""
    made: list[Writers] = []

    class Tracked(Writers):
        def __init__(self, cluster: Cluster, workers: int = 4) -> None:
            super().__init__(cluster, workers)
            made.append(self)

    yield Tracked
    for writers in made:
        writers.finish()


def dumps_of(cluster: Cluster) -> list[dict[str, str]]:
    """What each node shows, the leader first."""
    return [cluster.client.get(f"{node.url}/dump").json() for node in cluster.nodes.values()]


def assert_equal_everywhere(cluster: Cluster) -> None:
    """All replicas show the same, and something."""
    cluster.wait_converged()
    leader, *followers = dumps_of(cluster)
    assert leader
    assert all(dump == leader for dump in followers)


def test_follower_restarted_empty_under_load_gets_everything(
    make_cluster: MakeCluster, writers_of: type[Writers]
) -> None:
    """A follower that comes back without its data converges by itself while writes go on."""
    cluster = make_cluster(3, 2)
    cluster.wait_connected()
    writers = writers_of(cluster)
    writers.wait_more(100)
    cluster.followers[1].kill()
    writers.wait_more(100)
    cluster.start("follower2")
    cluster.wait_connected()
    writers.wait_more(100)
    answers = writers.finish()
    assert {answer.status_code for answer in answers} == {200}
    assert_equal_everywhere(cluster)


def test_learner_does_not_count_before_it_has_caught_up(make_cluster: MakeCluster) -> None:
    """A follower without its data counts for no write until it holds what it had missed."""
    cluster = make_cluster(1, 1, REQUEST_TIMEOUT="0.5")
    cluster.wait_connected()
    for i in range(20):
        assert cluster.put(f"learn-{i}", "x").status_code == 200
    cluster.admin("quorum", write_quorum=0).raise_for_status()
    cluster.followers[0].kill()
    wait_until(lambda: not cluster.links()["links"]["follower1"]["connected"], "the link is down")
    cluster.admin("links/follower1", state="down").raise_for_status()
    cluster.start("follower1")
    # Two seconds of delay, counted from the append, keep the newest entry from the learner.
    cluster.admin("delays", min_delay_ms=2000, max_delay_ms=2000)
    before = cluster.links()["last_seq"]
    assert cluster.put("late", "x").status_code == 200
    cluster.admin("delays", min_delay_ms=0, max_delay_ms=0)
    assert cluster.admin("quorum", write_quorum=1).status_code == 504  # nobody hears of it yet
    cluster.admin("links/follower1", state="up").raise_for_status()
    link = wait_until(
        lambda: (
            (found := cluster.links()["links"]["follower1"])["contiguous"] == before
            and found["connected"]
            and found
        ),
        "the learner has the entries that are due",
    )
    assert (link["connected"], link["learner"]) == (True, True)
    refused = cluster.put("too-early", "x")
    assert refused.status_code == 503
    assert refused.json()["error"]["reason"] == "too_few_followers"
    assert cluster.client.get(f"{cluster.followers[0].url}/ready").status_code == 503
    cluster.wait_connected()
    assert cluster.put("in-time", "x").status_code == 200


def test_follower_behind_the_log_gets_the_whole_state(
    make_cluster: MakeCluster, writers_of: type[Writers]
) -> None:
    """Who needs entries that the log has dropped gets the state in one stream, under load."""
    cluster = make_cluster(2, 1, LOG_ENTRIES="50", MAX_IN_FLIGHT="50")
    cluster.wait_connected()
    cluster.put("deleted", "x")
    cluster.client.delete(f"{cluster.leader.url}/kv/deleted")
    answers = cluster.put_many([(f"state-{i}", "x" * 6000) for i in range(250)], workers=4)
    assert {answer.status_code for answer in answers} == {200}
    cluster.followers[0].kill()
    writers = writers_of(cluster, workers=2)
    writers.wait_more(200)
    cluster.start("follower1")
    cluster.wait_connected()
    assert {answer.status_code for answer in writers.finish()} == {200}
    assert_equal_everywhere(cluster)
    for node in cluster.nodes.values():
        assert cluster.get("deleted", node).status_code == 404


def test_follower_paused_for_a_while_converges(
    make_cluster: MakeCluster, writers_of: type[Writers]
) -> None:
    """A follower that froze goes on where it was; the others carried the quorum meanwhile."""
    cluster = make_cluster(3, 2, HEARTBEAT_TIMEOUT_S="0.5")
    cluster.wait_connected()
    writers = writers_of(cluster)
    with cluster.followers[0].paused():
        wait_until(
            lambda: not cluster.links()["links"]["follower1"]["connected"],
            "the silent link is found to be down",
        )
        writers.wait_more(100)
    cluster.wait_connected()
    assert {answer.status_code for answer in writers.finish()} == {200}
    assert_equal_everywhere(cluster)


def test_too_few_followers_is_a_definite_503_until_they_are_back(
    make_cluster: MakeCluster,
) -> None:
    """With fewer than k followers a write is refused before it is tried."""
    cluster = make_cluster(2, 2)
    cluster.wait_connected()
    cluster.followers[0].kill()
    wait_until(lambda: not cluster.links()["links"]["follower1"]["connected"], "the link is down")
    answer = cluster.put("refused", "x")
    error = answer.json()["error"]
    assert answer.status_code == 503
    assert (error["code"], error["reason"]) == ("not_attempted", "too_few_followers")
    assert (error["definite"], error["follower_acks"], error["required"]) == (True, 0, 2)
    ready = cluster.client.get(f"{cluster.leader.url}/ready")
    assert ready.status_code == 503
    assert ready.json()["error"]["code"] == "not_ready"
    assert cluster.links()["last_seq"] == 0
    cluster.start("follower1")
    cluster.wait_connected()
    assert cluster.put("taken", "x").status_code == 200


def test_quorum_above_the_followers_refuses_writes_and_says_so(
    make_cluster: MakeCluster,
) -> None:
    """With k > n the node runs, warns, and answers writes with 503."""
    cluster = make_cluster(1, 3)
    wait_until(lambda: cluster.links()["links"]["follower1"]["connected"], "the link is up")
    answer = cluster.put("never", "x")
    assert answer.status_code == 503
    assert "only 1 followers" in answer.json()["error"]["message"]
    assert cluster.admin("quorum", write_quorum=1).status_code == 200
    assert cluster.put("now", "x").status_code == 200


def test_leader_restarted_empty_wipes_nobody_and_says_what_it_lacks(
    make_cluster: MakeCluster,
) -> None:
    """With k=1 all followers have to answer: it tells who does not, and they keep what they have.

    Only when nobody holds anything any more, it makes a new cluster.
    """
    cluster = make_cluster(3, 1)
    cluster.wait_connected()
    cluster.put("kept", "x")
    cluster.wait_converged()
    away, *others = cluster.followers
    away.kill()
    cluster.leader.kill()
    cluster.start("leader")

    def refusal() -> dict[str, object] | None:
        error = cluster.put("lost", "x").json()["error"]
        is_told = error.get("reason") == "recovering" and away.url in error["message"]
        return error if is_told else None

    error = wait_until(refusal, "the leader has found out")
    assert error["definite"] is True
    for follower in others:
        assert cluster.get("kept", follower).json()["value"] == "x"
        assert cluster.get("lost", follower).status_code == 404
        follower.kill()
    cluster.start(*(follower.name for follower in cluster.followers))
    wait_until(lambda: cluster.put("new", "x").status_code == 200, "a new cluster is made")
    assert cluster.get("kept").status_code == 404


def test_leader_alone_serves_writes(make_cluster: MakeCluster) -> None:
    """A leader without followers is a plain store."""
    cluster = make_cluster(0, 0)
    assert cluster.put("alone", "x").json()["follower_acks"] == 0
    assert cluster.get("alone").json()["value"] == "x"


def test_two_followers_of_one_name_count_once(make_cluster: MakeCluster) -> None:
    """Acknowledgments count per NODE_ID: a twin is refused, and shown as not connected."""
    cluster = make_cluster(2, 1)
    cluster.wait_connected()
    cluster.followers[1].kill()
    twin = cluster.followers[1]
    twin.environment["NODE_ID"] = "follower1"
    twin.name = "follower1"
    cluster._launch(twin)
    detail = wait_until(
        lambda: next(
            (
                link["detail"]
                for link in cluster.client.get(f"{cluster.leader.url}/admin/links")
                .json()["links"]
                .values()
                if "also that of" in link["detail"]
            ),
            None,
        ),
        "the twin is refused",
    )
    assert "follower1" in detail
    assert cluster.admin("quorum", write_quorum=2).status_code == 504  # nobody hears of it
    assert cluster.put("twice", "x").status_code == 503


def test_follower_is_not_taken_from_a_living_leader(make_cluster: MakeCluster) -> None:
    """A second leader is refused, and the first one goes on."""
    cluster = make_cluster(1, 1)
    cluster.wait_connected()
    thief = make_cluster(0, 0)
    thief.leader.kill()
    thief.leader.environment.update(FOLLOWER_URLS=cluster.followers[0].url, WRITE_QUORUM="1")
    thief.start("leader")
    wait_until(
        lambda: (
            "is no member of the cluster" in thief.put("stolen", "x").json()["error"]["message"]
        ),
        "the second leader is refused",
    )
    refused = thief.put("stolen", "x")
    assert (refused.status_code, refused.json()["error"]["reason"]) == (503, "recovering")
    assert cluster.put("mine", "x").status_code == 200
    assert cluster.get("stolen", cluster.followers[0]).status_code == 404


def test_changing_quorum_under_load_loses_and_blocks_no_write(
    cluster: Cluster, writers_of: type[Writers]
) -> None:
    """K may change at any moment: every write is answered, and with the acks that it needed."""
    cluster.admin("delays", min_delay_ms=0, max_delay_ms=20)
    writers = writers_of(cluster)
    for k in [0, 5, 1, 4, 2, 5, 0, 3]:
        assert cluster.admin("quorum", write_quorum=k).status_code == 200
        writers.wait_more(20)
    answers = writers.finish()
    assert {answer.status_code for answer in answers} == {200}
    assert_equal_everywhere(cluster)


def test_lowering_quorum_helps_writes_that_wait(make_cluster: MakeCluster) -> None:
    """A write that waits for a lost follower is answered when k falls."""
    cluster = make_cluster(2, 2, REQUEST_TIMEOUT="10")
    cluster.wait_connected()
    with cluster.followers[0].paused(), ThreadPoolExecutor(1) as pool:
        start_s = time.monotonic()
        waiting = pool.submit(cluster.put, "helped", "x")
        wait_until(lambda: cluster.links()["last_seq"] == 1, "the write is in the log")
        assert cluster.get("helped").status_code == 404
        cluster.admin("quorum", write_quorum=1)
        assert waiting.result(timeout=5).status_code == 200
        assert time.monotonic() - start_s < 5


def test_changing_delays_under_load_acts_at_once(
    cluster: Cluster, writers_of: type[Writers]
) -> None:
    """Delays may change at any moment; the next write has the new ones."""
    writers = writers_of(cluster)
    for low, high in [(0, 5), (20, 30), (0, 0), (0, 50), (0, 0)]:
        assert cluster.admin("delays", min_delay_ms=low, max_delay_ms=high).status_code == 200
        assert cluster.put("probe", "x").elapsed.total_seconds() * 1000 >= low
        writers.wait_more(20)
    assert {answer.status_code for answer in writers.finish()} == {200}
    assert_equal_everywhere(cluster)


def test_dead_follower_does_not_fail_replica_status(make_cluster: MakeCluster) -> None:
    """One dead and one frozen follower are errors in the answer, not of the answer."""
    cluster = make_cluster(3, 1)
    cluster.wait_connected()
    cluster.put("shown", "x")
    cluster.wait_converged()
    dead, frozen, alive = cluster.followers
    dead.kill()
    with frozen.paused():
        status = cluster.client.get(f"{cluster.leader.url}/admin/replica-status").json()
    assert status["leader"] == {"shown": "x"}
    assert status["followers"][alive.url] == {"shown": "x"}
    for node in (dead, frozen):
        assert status["followers"][node.url]["error"]["code"] == "unreachable"


def test_token_guards_admin_dump_and_replication(make_cluster: MakeCluster) -> None:
    """With a token, only who bears it may administrate, dump or replicate."""
    cluster = make_cluster(1, 1, CLUSTER_TOKEN="secret")
    bearer = {"Authorization": "Bearer secret"}

    def is_connected() -> bool:
        answer = cluster.client.get(f"{cluster.leader.url}/admin/links", headers=bearer)
        return all(link["connected"] for link in answer.json()["links"].values())

    wait_until(is_connected, "the follower accepts the leader's token")
    assert cluster.put("open", "x").status_code == 200
    for url in ("/admin/links", "/admin/quorum", "/dump"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            answer = cluster.client.get(cluster.leader.url + url, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "unauthorized"
            assert "secret" not in answer.text
        assert cluster.client.get(cluster.leader.url + url, headers=bearer).status_code == 200
    stranger = make_cluster(0, 0)
    stranger.leader.kill()
    stranger.leader.environment.update(FOLLOWER_URLS=cluster.followers[0].url, WRITE_QUORUM="0")
    stranger.start("leader")
    wait_until(lambda: "403" in detail_of(stranger.leader, stranger), "the stranger is refused")


def detail_of(node: Node, cluster: Cluster) -> str:
    """Why a leader's links are down."""
    links = cluster.client.get(f"{node.url}/admin/links").json()["links"]
    return " ".join(link["detail"] for link in links.values())
