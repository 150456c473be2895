"""Comparing replicas: the pure comparison, and the wait for a common position."""

import json
from collections.abc import Callable
from zlib import crc32

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.control import Control
from orchestration.parity import MAX_NAMED_KEYS, ReplicaParity, check_parity, compare

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


Version = tuple[str, int, int]


def bucket_of(key: str) -> int:
    """One of a few buckets, so that keys meet in one."""
    return crc32(key.encode()) % 4


def digest_of(versions: dict[str, Version], bucket: str | None) -> dict[str, object]:
    """What a node of the store that holds these versions answers to ``/digest``."""
    parts = [sorted((k, v) for k, v in versions.items() if bucket_of(k) == n) for n in range(4)]
    body: dict[str, object] = {
        "node_id": "n",
        "max_seq": max((seq for _, _, seq in versions.values()), default=0),
        "buckets": [f"{crc32(repr(part).encode()):016x}" for part in parts],
    }
    if bucket is not None:
        body["versions"] = {key: [epoch, seq] for key, (_, epoch, seq) in parts[int(bucket)]}
    return body


class FakeStore:
    """A leader and one follower that have digests too; it notes what it is asked.

    Args:
        leader: value, epoch and sequence number per key.
        follower: the same.
        is_reachable: whether the follower can be asked directly; its leader always reaches it.
    """

    def __init__(
        self, leader: dict[str, Version], follower: dict[str, Version], *, is_reachable: bool = True
    ) -> None:
        self.nodes = {LEADER: leader, REACHED: follower}
        self.is_reachable = is_reachable
        self.asked: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What the node at the request's URL says."""
        node, path = f"http://{request.url.host}", request.url.path
        self.asked.append(f"{node}{path}")
        if node == REACHED and not self.is_reachable:
            raise httpx.ConnectError("nobody listens", request=request)
        bucket = request.url.params.get("bucket")
        contents = {key: value for key, (value, _, _) in self.nodes[REACHED].items()}
        match path:
            case "/admin/links":
                body = at(9)
            case "/admin/digests":
                body = {KNOWN: digest_of(self.nodes[REACHED], bucket)}
            case "/admin/replica-status":
                body = {"followers": {KNOWN: contents}}
            case "/digest":
                body = digest_of(self.nodes[node], bucket)
            case _:
                body = {key: value for key, (value, _, _) in self.nodes[node].items()}
        return httpx.Response(200, json=body)

    def check(self) -> ReplicaParity:
        """The comparison of its follower."""
        with Control(transport=httpx.MockTransport(self.answer)) as control:
            [found] = check_parity(control, LEADER, {KNOWN: REACHED}).replicas
        return found

    @property
    def has_moved_values(self) -> bool:
        """Whether it was asked for the data themselves."""
        return any(path.endswith(("/dump", "/replica-status")) for path in self.asked)


class FakeCluster:
    """A leader and one follower that have no digests, behind a transport.

    It answers ``positions`` one by one.
    """

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


def test_who_is_waited_for_is_told_once_and_not_at_once() -> None:
    """Most checks wait for no more than a moment, which is not worth a line."""
    said: list[tuple[float, str]] = []
    cluster = FakeCluster([at(3)] * 100 + [at(9)], {"a": "1"}, {"a": "1"})
    with cluster.control() as control:
        check_parity(
            control,
            LEADER,
            {KNOWN: REACHED},
            say=lambda text: said.append((cluster.slept_s, text)),
            clock=cluster.clock,
            sleep=cluster.sleep,
        )
    [(said_s, text)] = said
    assert 1 <= said_s < 1.1
    assert text.startswith(f"Waiting up to 10 s for followers: {KNOWN} ")


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


VERSIONS = st.dictionaries(
    st.text(max_size=2),
    st.tuples(st.text(max_size=1), st.integers(1, 2), st.integers(1, 3)),
    max_size=6,
)


# A client for each example: on a busy machine one takes its time.
@settings(deadline=None, max_examples=50)
@given(leader=VERSIONS, follower=VERSIONS, is_reachable=st.booleans())
def test_replicas_with_digests_are_compared_by_keys_values_and_versions(
    leader: dict[str, Version], follower: dict[str, Version], *, is_reachable: bool
) -> None:
    """Against an obvious model; directly or through the leader, the result is the same."""
    # What else it holds says that a follower is at the leader's position.
    leader, follower = leader | {"last": ("", 2, 9)}, follower | {"last": ("", 2, 9)}
    store = FakeStore(leader, follower, is_reachable=is_reachable)
    found = store.check()
    assert found.status == ("match" if leader == follower else "mismatch")
    differing = {k for k in leader if follower.get(k) != leader[k]}
    assert set(found.extra_keys) == follower.keys() - leader.keys()
    if any(k in follower and follower[k][1:] == leader[k][1:] for k in differing):
        # Two values at one version may stay unnamed beside a key of their bucket that lags.
        assert set(found.mismatch_keys) <= differing
    else:
        assert set(found.mismatch_keys) == differing
    if leader == follower:
        assert not store.has_moved_values


@pytest.mark.parametrize("is_reachable", [True, False])
def test_values_stay_where_they_are_if_the_versions_tell_the_difference(
    *, is_reachable: bool
) -> None:
    """A lost write is named by the versions of its bucket; a node out of reach is tried once."""
    leader = {"a": ("1", 1, 9), "b": ("2", 1, 8), "c": ("3", 1, 2)}
    store = FakeStore(leader, leader | {"b": ("2", 1, 7)}, is_reachable=is_reachable)
    found = store.check()
    assert (found.status, found.mismatch_keys, found.extra_keys) == ("mismatch", ("b",), ())
    assert not store.has_moved_values
    assert is_reachable or store.asked.count(f"{REACHED}/digest") == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"max_seq": "x"}, {"max_seq": 1, "buckets": 5}, {"buckets": ["0"], "max_seq": None}],
)
def test_store_whose_digest_is_something_else_is_compared_by_its_contents(
    body: dict[str, object],
) -> None:
    """Another store may take the path for something of its own."""
    cluster = FakeCluster([at(9)], {"a": "1"}, {"a": "2"})

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/digest":
            return httpx.Response(200, json=body)
        return cluster.answer(request)

    with Control(transport=httpx.MockTransport(answer)) as control:
        [found] = check_parity(control, LEADER, {KNOWN: REACHED}).replicas
    assert (found.status, found.mismatch_keys) == ("mismatch", ("a",))


def test_another_value_at_the_same_version_is_found() -> None:
    """The versions are equal, the digests are not: then the values are looked at."""
    leader = {"a": ("1", 1, 9), "b": ("2", 1, 8)}
    store = FakeStore(leader, leader | {"b": ("wrong", 1, 8)})
    assert store.check().mismatch_keys == ("b",)
    assert store.has_moved_values


def test_digests_of_two_positions_are_not_compared() -> None:
    """Somebody writes: that is no difference between replicas, and no proof that they are equal."""
    found = FakeStore({"a": ("1", 1, 9)}, {"a": ("2", 1, 10)}).check()
    assert found.status == "error"
    assert "10" in found.detail
    assert "nobody write" in found.detail
