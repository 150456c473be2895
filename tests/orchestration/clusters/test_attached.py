"""Clusters that stand already: found, used, left as they were."""

import json
from typing import Any

import httpx
import pytest

from orchestration.clusters.attached import AttachedCluster
from orchestration.control import Control
from orchestration.errors import ClusterError

LEADER = "http://leader"


class FakeNodes:
    """A leader that knows two followers by names of an inner network."""

    def __init__(self, *, unready_answers: int = 0) -> None:
        self.known_leader: str | None = None
        self.unready_answers = unready_answers
        self.quorum = 2
        self.delays = [5.0, 7.0]
        self.authorizations: set[str | None] = set()

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What the node at the request's URL says."""
        self.authorizations.add(request.headers.get("authorization"))
        name, path = request.url.host, request.url.path
        sent: dict[str, Any] = json.loads(request.content) if request.content else {}
        if path == "/health":
            role = "leader" if name == "leader" else "follower"
            body = {"node_id": name, "role": role, "epoch": 1, "start_id": "s"}
            return httpx.Response(200, json=body)
        if path == "/ready" and self.unready_answers > 0:
            self.unready_answers -= 1
            error = {"code": "not_ready", "message": "The leader is not ready: 0 of 2 count."}
            return httpx.Response(503, json={"error": error})
        if path == "/admin/status":
            return httpx.Response(200, json={"leader_url": self.known_leader})
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
        assert sum(slept_s) < 30


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


def test_a_leader_that_is_gone_at_the_end_is_no_error() -> None:
    """There is nothing to restore on it."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    nodes = FakeNodes()
    cluster = AttachedCluster(LEADER, nodes.control())
    cluster.start()
    cluster._control = Control(transport=httpx.MockTransport(refuse))
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
