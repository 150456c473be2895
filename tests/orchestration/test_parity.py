"""Comparing replicas: the pure comparison, and the wait for a common position."""

import json
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.control import Control
from orchestration.parity import MAX_NAMED_KEYS, check_parity, compare

CONTENTS = st.dictionaries(st.text(max_size=3), st.text(max_size=2), max_size=8)
LEADER, KNOWN, REACHED = "http://leader", "http://inside", "http://outside"


@given(leader=CONTENTS, follower=CONTENTS)
def test_compare_names_exactly_the_keys_that_differ(
    leader: dict[str, str], follower: dict[str, str]
) -> None:
    """Against an obvious model that looks at every key of either."""
    missing_or_other = {k for k in leader if k not in follower or follower[k] != leader[k]}
    extra = {k for k in follower if k not in leader}
    found = compare("u", leader, follower)
    assert found.status == ("match" if leader == follower else "mismatch")
    assert set(found.mismatch_keys) == missing_or_other
    assert set(found.extra_keys) == extra


def test_compare_of_very_different_replicas_names_a_bounded_number_of_keys() -> None:
    """A report stays readable, and still tells how many there are."""
    found = compare("u", {f"k{i}": "v" for i in range(1_000)}, {})
    assert len(found.mismatch_keys) == MAX_NAMED_KEYS
    assert "1000 keys" in found.detail


class FakeCluster:
    """A leader and one follower behind a transport; it answers ``positions`` one by one."""

    def __init__(
        self,
        positions: list[dict[str, object]],
        leader: dict[str, str],
        follower: dict[str, str] | None,
        relayed: dict[str, object] | None = None,
    ) -> None:
        self.positions = positions
        self.leader = leader
        self.follower = follower
        self.relayed = relayed
        self.slept_s = 0.0

    def control(self) -> Control:
        """A client that reaches this cluster."""
        return Control(transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What the node at the request's URL says."""
        url = str(request.url)
        if url == f"{LEADER}/admin/links":
            remaining = self.positions
            body = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            return httpx.Response(200, json=body)
        if url == f"{LEADER}/dump":
            return httpx.Response(200, json=self.leader)
        if url == f"{REACHED}/dump" and self.follower is not None:
            return httpx.Response(200, json=self.follower)
        if url == f"{LEADER}/admin/replica-status":
            relayed = {"error": {"code": "unreachable"}} if self.relayed is None else self.relayed
            return httpx.Response(200, json={"followers": {KNOWN: relayed}})
        raise httpx.ConnectError("nobody listens", request=request)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept_s += seconds

    def clock(self) -> float:
        """The time that has passed."""
        return self.slept_s


def at(
    contiguous: int, *, last: int = 9, stable: int = 9, connected: bool = True
) -> dict[str, object]:
    """The leader's account of its one follower."""
    link = {
        "node_id": "f",
        "epoch": 1,
        "contiguous": contiguous,
        "max_seq": contiguous,
        "holes": 0,
        "connected": connected,
        "learner": False,
        "detail": "",
    }
    return {"epoch": 1, "last_seq": last, "stable_seq": stable, "links": {KNOWN: link}}


def check(cluster: FakeCluster) -> dict[str, object]:
    """The JSON form of a check of ``cluster``."""
    with cluster.control() as control:
        found = check_parity(
            control, LEADER, {KNOWN: REACHED}, clock=cluster.clock, sleep=cluster.sleep
        )
    return json.loads(json.dumps(found.as_dict()))


def test_replicas_that_hold_the_same_match() -> None:
    """Equal contents at a common position match, under the URL that was asked."""
    found = check(FakeCluster([at(9)], {"a": "1"}, {"a": "1"}))
    assert found == {"status": "match", "replicas": [{"url": REACHED, "status": "match"}]}


def test_a_follower_that_lags_is_waited_for() -> None:
    """Nothing is compared before the follower has what the leader has."""
    cluster = FakeCluster([at(3), at(7), at(9)], {"a": "1"}, {"a": "1"})
    assert check(cluster)["status"] == "match"
    assert cluster.slept_s > 0


def test_a_difference_is_a_mismatch_that_names_its_keys() -> None:
    """A lost, a wrong and an extra key are told apart."""
    cluster = FakeCluster([at(9)], {"a": "1", "b": "2"}, {"a": "0", "c": "3"})
    [replica] = check(cluster)["replicas"]
    assert replica["status"] == "mismatch"
    assert replica["mismatch_keys"] == ["a", "b"]
    assert replica["extra_keys"] == ["c"]


@pytest.mark.parametrize(
    ("relayed", "status"),
    [({"error": "1"}, "match"), ({"error": "2"}, "mismatch"), (None, "error")],
)
def test_a_follower_out_of_reach_is_asked_through_its_leader(
    relayed: dict[str, object] | None, status: str
) -> None:
    """Containers have names that only the leader can look up; also a key may be named "error"."""
    found = check(FakeCluster([at(9)], {"error": "1"}, None, relayed))
    assert found["replicas"][0]["status"] == status


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FakeCluster([at(5)], {}, {}), "5 of the leader's 9"),
        (lambda: FakeCluster([at(9, connected=False)], {}, {}), "not connected"),
        (lambda: FakeCluster([at(9)], {}, None), "does not answer"),
        (lambda: FakeCluster([at(9, stable=7)], {}, {}), "2 entries"),
    ],
)
def test_what_cannot_be_compared_is_an_error_with_its_reason(
    make: Callable[[], FakeCluster], words: str
) -> None:
    """Behind for good, cut off, dead, or not final: each says which, within a bounded time."""
    cluster = make()
    [replica] = check(cluster)["replicas"]
    assert replica["status"] == "error"
    assert words in replica["detail"]
    assert cluster.slept_s < 60


def test_a_leader_that_is_gone_is_an_error_of_every_replica() -> None:
    """A dead leader ends in a result, not in an exception."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with Control(transport=httpx.MockTransport(refuse)) as control:
        found = check_parity(control, LEADER, {KNOWN: REACHED, "http://x": "http://y"})
    assert [replica.status for replica in found.replicas] == ["error", "error"]
