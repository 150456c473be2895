"""How a leader that has lost everything hears that it led: who tells it, and who acts on it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from kv_app.failover.calls import Recall
from kv_app.meta import Config, Member, Promise, Role
from kv_app.node import Node
from kv_app.peers import PeerError
from kv_app.recall import RECALL_PERIOD_S, Recalls
from kv_app.settings import Settings
from tests.kv_app.fake_leader import Channel, base, hello, run
from tests.kv_app.roles import make_replica
from tests.simulation.virtual_loop import Clock, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable

URLS = ("http://n0:1", "http://n1:1", "http://n2:1")
# n1 was not heard when the cluster was made.
MEMBERS = tuple(Member(name, url) for name, url in zip(("n0", "", "n2"), URLS, strict=True))


class FakeOwner:
    """A node whose log began with an epoch that n2 led, and which may miss it."""

    def __init__(self, *, misses_leader: bool, is_voter: bool = True) -> None:
        self.misses_leader = misses_leader
        self.replica = make_replica(Settings(node_id="n0"))
        record = msgspec.structs.replace(base(2), leader_id="n2", config=Config(MEMBERS, 1, 1, 1))
        self.replica.save(cluster_id="c1", base=record if is_voter else None)


class FakePeers:
    """Notes who is told what; nobody answers.

    Attributes:
        bugs: How many of the next calls meet a bug.
    """

    def __init__(self) -> None:
        self.bugs = 0
        self.told: list[tuple[str, object]] = []

    async def call(self, url: str, question: object, _timeout_s: float) -> None:
        """Notes it."""
        self.told.append((url, question))
        if self.bugs:
            self.bugs -= 1
            raise ValueError("a bug of the tests")
        raise PeerError(f"{url} did not answer")


@pytest.mark.parametrize(
    ("owner", "is_told"),
    [
        (FakeOwner(misses_leader=True), True),
        (FakeOwner(misses_leader=False), False),
        (FakeOwner(misses_leader=True, is_voter=False), False),
    ],
    ids=["misses its leader", "has one", "is no voter"],
)
def test_who_misses_its_leader_tells_whoever_may_be_it_again_and_again(
    owner: FakeOwner, *, is_told: bool
) -> None:
    """By its name, or where no name is known; that nobody answers ends nothing."""
    peers = FakePeers()

    async def check() -> None:
        recalls = Recalls(owner, cast("Any", peers))
        recalls.start()
        await asyncio.sleep(4 * RECALL_PERIOD_S)
        await recalls.stop()

    loop = VirtualLoop(Clock())
    try:
        loop.run_until_complete(check())
    finally:
        loop.close()
    recall = Recall("c1", "n2", URLS)
    assert peers.told[:4] == ([("http://n1:1", recall), ("http://n2:1", recall)] * 2) * is_told


def test_recalls_go_on_after_what_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else calls the leader back; the bug is in the log."""
    peers = FakePeers()

    async def check() -> None:
        owner = FakeOwner(misses_leader=True)
        recalls = Recalls(owner, cast("Any", peers))
        peers.bugs = 1
        recalls.start()
        await asyncio.sleep(4 * RECALL_PERIOD_S)
        await recalls.stop()

    loop = VirtualLoop(Clock())
    try:
        loop.run_until_complete(check())
    finally:
        loop.close()
    assert [url for url, _ in peers.told[:3]] == ["http://n1:1", "http://n1:1", "http://n2:1"]
    assert "a bug of the tests" in caplog.text


def blank(node: Node) -> None:
    """Leaves a node as it starts."""
    assert node.replica.is_empty


def of_another_cluster(node: Node) -> None:
    """Has a node learn in another cluster."""
    node.replica.save(cluster_id="another")


def with_a_base(node: Node) -> None:
    """Makes a node a voter."""
    node.replica.save(cluster_id="c1", base=base(), promise=Promise(1, "leader", "attempt"))


def that_stops(node: Node) -> None:
    """Has a node begin to stop."""
    node.drain()


@pytest.mark.parametrize(
    ("name", "prepare", "leads"),
    [
        ("f1", blank, True),
        ("f2", blank, False),
        ("f1", of_another_cluster, False),
        ("f1", with_a_base, False),
        ("f1", that_stops, False),
    ],
)
def test_only_the_one_that_led_and_holds_nothing_begins_to_lead_again(
    name: str, prepare: Callable[[Node], None], *, leads: bool
) -> None:
    """An empty node that merely joins leads nothing by itself, and data outlive a mistaken word."""

    async def check() -> None:
        node = Node(Settings(role=Role.FOLLOWER, node_id="f1"))
        node.start()
        prepare(node)
        await node.respondent.answer(Recall("c1", name, URLS))
        assert node._comeback.is_under_way is leads
        await node.stop()

    run(check)


def test_who_is_led_meanwhile_is_called_back_in_vain() -> None:
    """Another node leads: this one is a learner of it."""

    async def check() -> None:
        node = Node(Settings(role=Role.FOLLOWER, node_id="f1", start_id="s1"))
        node.start()
        assert node.follower is not None
        await Channel(node.follower).ask(hello())
        await node.respondent.answer(Recall("c1", "f1", URLS))
        assert not node._comeback.is_under_way
        await node.stop()

    run(check)
