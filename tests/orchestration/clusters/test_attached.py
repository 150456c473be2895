"""Clusters that stand already: found, used, left as they were."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestration.clusters.attached import AttachedCluster
from orchestration.clusters.journal import Journal
from orchestration.control import Control
from orchestration.errors import ClusterError

LEADER = "http://leader"


class FakeNodes:
    """A leader that knows two followers by names of an inner network."""

    def __init__(self, *, unready_answers: int = 0) -> None:
        self.known_leader: str | None = None
        self.leader = "leader"
        self.start_id = "s"
        self.refused: set[str] = set()
        self.unready_answers = unready_answers
        self.quorum = 2
        self.delays = [5.0, 7.0]
        self.authorizations: set[str | None] = set()

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What the node at the request's URL says."""
        self.authorizations.add(request.headers.get("authorization"))
        name, path = request.url.host, request.url.path
        sent: dict[str, Any] = json.loads(request.content) if request.content else {}
        if (name in self.refused) or (sent and path in self.refused):
            raise httpx.ConnectError("refused", request=request)
        if path == "/health":
            role = "leader" if name == self.leader else "follower"
            body = {"node_id": name, "role": role, "epoch": 1, "start_id": self.start_id}
            return httpx.Response(200, json=body)
        if path == "/ready" and self.unready_answers > 0:
            self.unready_answers -= 1
            error = {"code": "not_ready", "message": "The leader is not ready: 0 of 2 count."}
            return httpx.Response(503, json={"error": error})
        if path == "/admin/status":
            body = {"leader_url": self.known_leader, "cluster_id": "c"}
            return httpx.Response(200, json=body)
        if path == "/admin/quorum":
            self.quorum = sent.get("write_quorum", self.quorum)
            return httpx.Response(200, json={"write_quorum": self.quorum, "followers": 2})
        if path == "/admin/delays":
            if sent:
                self.delays = [sent["min_delay_ms"], sent["max_delay_ms"]]
            low, high = self.delays
            return httpx.Response(200, json={"min_delay_ms": low, "max_delay_ms": high})
        link = {
            "epoch": 1,
            "contiguous": 0,
            "holes": 0,
            "connected": True,
            "learner": False,
        }
        links = {f"http://inner-{f}": {"node_id": f, **link} for f in ("f1", "f2")}
        body = {"epoch": 1, "last_seq": 0, "stable_seq": 0, "links": links}
        return httpx.Response(200, json=body)

    def control(self, token: str | None = None) -> Control:
        """A client that reaches these nodes."""
        return Control(token=token, transport=httpx.MockTransport(self.answer))


def test_followers_are_those_that_the_leader_knows() -> None:
    """Without further word they are asked where their leader asks them."""
    cluster = AttachedCluster(LEADER + "/", FakeNodes().control())
    cluster.start()
    assert cluster.leader_url == LEADER
    assert cluster.follower_urls == {
        "http://inner-f1": "http://inner-f1",
        "http://inner-f2": "http://inner-f2",
    }


@pytest.mark.parametrize(("unready_answers", "is_ready_in_time"), [(3, True), (10_000, False)])
def test_leader_that_is_not_ready_yet_is_waited_for(
    unready_answers: int, *, is_ready_in_time: bool
) -> None:
    """A cluster that starts is given some seconds; one that stays unready says why it is."""
    slept_s: list[float] = []
    cluster = AttachedCluster(
        LEADER,
        FakeNodes(unready_answers=unready_answers).control(),
        clock=lambda: sum(slept_s),
        sleep=slept_s.append,
    )
    if is_ready_in_time:
        cluster.start()
        assert len(slept_s) == unready_answers
    else:
        with pytest.raises(ClusterError, match="0 of 2 count"):
            cluster.start()
        assert 10 <= sum(slept_s) < 11


def test_cluster_that_takes_no_writes_can_still_be_looked_at() -> None:
    """Who only asks does not wait for readiness, and changes nothing."""
    nodes = FakeNodes(unready_answers=10_000)
    cluster = AttachedCluster(LEADER, nodes.control(), delay_ms=(1.0, 2.0))
    cluster.find()
    assert set(cluster.follower_urls) == {"http://inner-f1", "http://inner-f2"}
    cluster.stop()
    assert (nodes.quorum, nodes.delays) == (2, [5.0, 7.0])


def test_followers_elsewhere_are_matched_by_their_ids() -> None:
    """The order of the URLs that were given does not matter."""
    cluster = AttachedCluster(
        LEADER, FakeNodes().control(), reached_urls=("http://f2/", "http://f1")
    )
    cluster.start()
    assert cluster.follower_urls == {
        "http://inner-f1": "http://f1",
        "http://inner-f2": "http://f2",
    }


def test_the_write_quorum_is_restored() -> None:
    """Whatever a sweep set, k is afterwards what it was; delays were never touched."""
    nodes = FakeNodes()
    control = nodes.control()
    cluster = AttachedCluster(LEADER, control)
    cluster.start()
    control.set_quorum(LEADER, 0)
    cluster.stop()
    assert (nodes.quorum, nodes.delays) == (2, [5.0, 7.0])


def test_delays_that_were_given_hold_until_the_end() -> None:
    """--delay counts while the cluster is used, and the old delays afterwards."""
    nodes = FakeNodes()
    cluster = AttachedCluster(LEADER, nodes.control(), delay_ms=(0.0, 100.0))
    cluster.start()
    assert nodes.delays == [0.0, 100.0]
    cluster.stop()
    cluster.stop()
    assert nodes.delays == [5.0, 7.0]


def test_follower_is_asked_who_leads() -> None:
    """After a failover the URL that one knows may be that of a follower."""
    nodes = FakeNodes()
    nodes.known_leader = LEADER
    cluster = AttachedCluster("http://f1", nodes.control())
    cluster.start()
    assert cluster.leader_url == LEADER
    assert set(cluster.follower_urls) == {"http://inner-f1", "http://inner-f2"}
    cluster.stop()
    assert nodes.quorum == 2


@pytest.mark.parametrize("known", [None, "http://f2"])
def test_follower_that_knows_of_no_leader_cannot_be_attached_to(known: str | None) -> None:
    """The sentence says what to do instead."""
    nodes = FakeNodes()
    nodes.known_leader = known
    cluster = AttachedCluster("http://f1", nodes.control())
    with pytest.raises(ClusterError, match="attach to the leader of the cluster") as error:
        cluster.start()
    assert (known or "http") in str(error.value)


def test_a_password_that_a_node_names_is_not_taken() -> None:
    """The URLs of a foreign cluster's nodes go into manifest and report as well."""
    nodes = FakeNodes()
    nodes.known_leader = "http://user:hunter2@leader"
    with pytest.raises(ClusterError) as told:
        AttachedCluster("http://f1", nodes.control()).start()
    assert "hunter2" not in str(told.value)


def test_what_cannot_be_restored_is_told_with_its_command() -> None:
    """Nothing is left changed in silence: k is in the log, and outlives a leader that is gone."""
    nodes = FakeNodes()
    cluster = AttachedCluster(LEADER, nodes.control(), delay_ms=(0.0, 100.0))
    cluster.start()
    nodes.refused = {"leader", "inner-f1", "inner-f2"}
    with pytest.raises(ClusterError) as told:
        cluster.stop()
    for words in (
        "k=2",
        "curl -X POST http://leader/admin/quorum",
        '{"write_quorum": 2}',
        "delays of 5 to 7 ms",
        '{"min_delay_ms": 5.0, "max_delay_ms": 7.0}',
    ):
        assert words in str(told.value)
    nodes.refused = set()
    cluster.stop()  # as a sweep does that is interrupted meanwhile
    assert (nodes.quorum, nodes.delays) == (2, [5.0, 7.0])


@pytest.mark.parametrize("refused", ["/admin/quorum", "/admin/delays"])
def test_one_that_cannot_be_restored_keeps_the_other_from_nothing(refused: str) -> None:
    """A k that is refused, as it may be while followers are away, leaves the delays as found."""
    nodes = FakeNodes()
    control = nodes.control()
    cluster = AttachedCluster(LEADER, control, delay_ms=(0.0, 100.0))
    cluster.start()
    control.set_quorum(LEADER, 0)
    nodes.refused = {refused}
    with pytest.raises(ClusterError, match=refused):
        cluster.stop()
    is_quorum = refused == "/admin/quorum"
    expected = (0, [5.0, 7.0]) if is_quorum else (2, [0.0, 100.0])
    assert (nodes.quorum, nodes.delays) == expected


def test_the_write_quorum_is_restored_on_who_leads_at_the_end() -> None:
    """After a failover another node does, and has the sweep's k out of its log."""
    nodes = FakeNodes()
    control = nodes.control()
    cluster = AttachedCluster(LEADER, control)
    cluster.start()
    control.set_quorum(LEADER, 0)
    nodes.refused, nodes.leader = {"leader"}, "inner-f2"
    cluster.stop()
    assert nodes.quorum == 2


def test_delays_of_a_node_that_was_restarted_are_its_own_again() -> None:
    """They are not kept on a disk, so there is nothing to put back."""
    nodes = FakeNodes()
    cluster = AttachedCluster(LEADER, nodes.control(), delay_ms=(0.0, 100.0))
    cluster.start()
    nodes.start_id, nodes.delays = "another", [1.0, 2.0]
    cluster.stop()
    assert (nodes.quorum, nodes.delays) == (2, [1.0, 2.0])


def test_what_a_killed_run_has_left_is_put_back_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no time to restore anything, but had noted what it found."""
    nodes, told = FakeNodes(), list[str]()
    control, journal = nodes.control(), Journal(tmp_path)
    killed = AttachedCluster(LEADER, control, delay_ms=(0.0, 100.0), journal=journal)
    killed.start()
    control.set_quorum(LEADER, 0)
    following = AttachedCluster(LEADER, control, journal=journal, say=told.append)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 0)
        with pytest.raises(ClusterError, match="uses this cluster"):
            following.start()  # the first still runs, it seems
    following.start()
    assert (nodes.quorum, nodes.delays) == (2, [5.0, 7.0])
    assert "k=2 and delays of 5 to 7 ms" in told[0]
    control.set_quorum(LEADER, 1)
    following.stop()
    assert nodes.quorum == 2
    AttachedCluster(LEADER, control, journal=journal, say=told.append).start()
    assert len(told) == 1


def test_a_node_that_is_gone_for_good_does_not_keep_its_cluster_from_use(tmp_path: Path) -> None:
    """Delays went with it; who attaches next is told, and goes on."""
    nodes, told = FakeNodes(), list[str]()
    control, journal = nodes.control(), Journal(tmp_path)
    AttachedCluster(LEADER, control, delay_ms=(0.0, 100.0), journal=journal).start()
    control.set_quorum(LEADER, 0)
    nodes.refused, nodes.leader = {"leader"}, "inner-f2"
    following = AttachedCluster("http://inner-f2", control, journal=journal, say=told.append)
    following.start()
    assert nodes.quorum == 2
    assert "http://leader/admin/delays" in " ".join(told)
    following.stop()
    AttachedCluster("http://inner-f2", control, journal=journal, say=told.append).start()
    assert len(told) == 2


def test_a_cluster_can_be_used_where_nothing_can_be_noted(tmp_path: Path) -> None:
    """A home that cannot be written to is no reason to refuse; what that costs is told."""
    nodes, told = FakeNodes(), list[str]()
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file")
    cluster = AttachedCluster(LEADER, nodes.control(), journal=journal, say=told.append)
    cluster.start()
    assert "if this run is killed" in told[0]
    nodes.quorum = 0
    cluster.stop()
    assert nodes.quorum == 2


def test_the_token_goes_with_every_call() -> None:
    """As a bearer token in a header, never in a URL."""
    nodes = FakeNodes()
    cluster = AttachedCluster(LEADER, nodes.control(token="secret"))
    cluster.start()
    assert nodes.authorizations == {"Bearer secret"}


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.Response(200, text="<html>"), "something other than a JSON object"),
        (httpx.Response(401, json={"error": {"message": "no token"}}), "CLUSTER_TOKEN"),
        (httpx.Response(404, json={"error": {"message": "no such path"}}), "404: no such path"),
        (httpx.Response(500, json={"other": 1}), "500"),
    ],
)
def test_a_stranger_at_the_url_is_told_in_a_sentence(response: httpx.Response, words: str) -> None:
    """What answers there is no node of the store, and the message says so."""
    control = Control(transport=httpx.MockTransport(lambda _: response))
    with pytest.raises(ClusterError, match=words):
        control.health(LEADER)
