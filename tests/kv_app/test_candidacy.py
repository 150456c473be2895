"""How a node comes to lead: how long it waits for others to hold its base."""

from __future__ import annotations

import asyncio
import dataclasses
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from kv_app import candidacy as module
from kv_app.candidacy import Candidacy, Promoted
from kv_app.errors import NotAttemptedError, OutbidError, StorageError
from kv_app.meta import BaseRecord, Config, Member, Promise, Role
from kv_app.node import Node
from kv_app.promoter import Promotion, Wish
from kv_app.settings import Settings
from tests.kv_app.fakes import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kv_app.leader import Leader
    from tests.kv_app.fakes import FakeNetwork

    MakeNetwork = Callable[[int], FakeNetwork]


class FakeCandidate:
    """A leader to whose followers so much comes of its base, each time that one looks."""

    def __init__(self, taught: list[int], *, opens: bool) -> None:
        self.epoch = 2
        self.opened = asyncio.Event()
        self.is_given_up = False
        self._taught, self._opens = taught, opens

    @property
    def taught(self) -> int:
        """How much came so far."""
        taught = self._taught.pop(0)
        if self._opens and not self._taught:
            self.opened.set()
        return taught

    def abdicate(self, promised: int) -> list[asyncio.Task[None]]:
        """Is told that it was not to be."""
        assert promised == 0
        self.is_given_up = True
        return []


class FakeNode:
    """Has a candidate perhaps, and nothing else."""

    def __init__(self, candidate: FakeCandidate | None = None) -> None:
        self.candidate = candidate
        self.leader = self.respondent = None
        self.is_draining = False


@pytest.mark.parametrize(
    ("taught", "opens"),
    [
        ([0, 0], False),
        ([5, 7, 9, 9], False),
        ([5, 7, 9, *range(10, 10_000)], False),
        ([0, 1, 4], True),
        ([9, 3, 7], True),
    ],
)
def test_candidate_is_given_up_once_nothing_more_of_its_base_comes_to_others(
    monkeypatch: pytest.MonkeyPatch, taught: list[int], *, opens: bool
) -> None:
    """A base of many keys may take its time; but none is waited for without an end."""
    monkeypatch.setattr(module, "OPEN_TIMEOUT_S", 0.001)
    monkeypatch.setattr(module, "OPEN_LIMIT_S", 0.1)

    async def check() -> None:
        candidate = FakeCandidate(taught, opens=opens)
        node = FakeNode(candidate)
        waits = Candidacy(cast("Any", node), cast("Any", None), lambda _: None)
        if opens:
            await waits._wait_open(cast("Leader", candidate))
        else:
            with pytest.raises(OutbidError, match="did not come to a majority"):
                await waits._wait_open(cast("Leader", candidate))
        assert candidate.is_given_up is not opens
        assert (node.candidate is None) is not opens

    run(check)


OWN = Wish(is_own=True)
FORCED = Wish(force=True)


@pytest.mark.parametrize(
    ("under_way", "wish", "joins"),
    [
        (OWN, Wish(), True),
        (OWN, OWN, True),
        (FORCED, Wish(), True),
        (FORCED, OWN, True),
        (Wish(write_quorum=2), Wish(write_quorum=2), True),
        (OWN, FORCED, False),
        (OWN, Wish(write_quorum=2), False),
        (Wish(write_quorum=1), Wish(write_quorum=2), False),
        (OWN, Wish(("http://a",)), False),
    ],
)
def test_attempt_under_way_is_joined_if_it_does_what_is_wished(
    monkeypatch: pytest.MonkeyPatch, under_way: Wish, wish: Wish, *, joins: bool
) -> None:
    """An operator's force would be lost in an attempt that is refused; after it, it is made."""
    made: list[Wish] = []

    async def check() -> None:
        is_asked = asyncio.Event()

        async def attempt(_node: object, _peers: object, wish: Wish) -> None:
            made.append(wish)
            await is_asked.wait()
            raise OutbidError(f"attempt {len(made)}")

        monkeypatch.setattr(module, "promote", attempt)
        candidacy = Candidacy(cast("Any", FakeNode()), cast("Any", None), lambda _: None)
        tasks = []
        for one in (under_way, wish):
            tasks.append(asyncio.create_task(candidacy.promote(one)))
            await asyncio.sleep(0)  # each has seen what is under way
            await asyncio.sleep(0)
        is_asked.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(one) for one in results] == ["attempt 1", "attempt 1" if joins else "attempt 2"]

    run(check)
    assert made == ([under_way] if joins else [under_way, wish])


def test_force_that_waited_for_an_attempt_which_succeeds_begins_no_other_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is to be forced any more, and what was acknowledged since is not to be risked."""

    async def check() -> None:
        node, is_asked, made = FakeNode(), asyncio.Event(), []
        leader = SimpleNamespace(
            base="its base", is_open=True, epoch=2, write_quorum=1, log=SimpleNamespace(last_seq=3)
        )

        async def attempt(_candidacy: Candidacy, wish: Wish) -> None:
            made.append(wish)
            await is_asked.wait()
            node.leader = cast("Any", leader)

        monkeypatch.setattr(Candidacy, "_promote", attempt)
        candidacy = Candidacy(cast("Any", node), cast("Any", None), lambda _: None)
        own = asyncio.create_task(candidacy.promote(OWN))
        await asyncio.sleep(0)
        forced = asyncio.create_task(candidacy.promote(FORCED))
        await asyncio.sleep(0)
        is_asked.set()
        await own
        assert (await forced).epoch == 2
        assert made == [OWN]

    run(check)


OWN_URL = "http://n0:1"


def promotion_of(node: Node, urls: Iterable[str]) -> Promotion:
    """Returns an attempt that has made a node's log the base of epoch 2, in a cluster of some."""
    members = tuple(Member(url, url) for url in urls)
    meta = node.replica.meta
    record = BaseRecord(2, meta.node_id, meta.incarnation, Config(members, 1, 1, 1), 0)
    promise = Promise(2, meta.node_id, "attempt")
    node.replica.save(cluster_id="c", base=record, promise=promise)
    return Promotion(record, promise, False, (), (), 1, 0, "")  # noqa: FBT003  its is_blank


def test_node_that_stops_opens_no_epoch_whose_base_others_come_to_hold(
    make_network: MakeNetwork,
) -> None:
    """It would take writes in its last second, and leave them without an answer."""
    urls = (OWN_URL, *make_network(2).followers)

    async def check(*, is_draining: bool) -> bool:
        node = Node(Settings(role=Role.FOLLOWER, node_id=OWN_URL, advertise_url=OWN_URL))
        node.start()
        candidate = node.stand(promotion_of(node, urls))
        if is_draining:
            node.drain()
        candidate.on_base_held(candidate.links[0])
        is_open = candidate.is_open
        await node.stop()
        return is_open

    async def both() -> None:
        assert await check(is_draining=False)
        assert not await check(is_draining=True)

    run(both)


def test_node_that_stops_while_it_is_promoted_leads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The attempt ends behind the beginning of the end; the next start may lead with its base."""

    async def check() -> None:
        node = FakeNode()

        async def attempt(*_: object) -> None:
            node.is_draining = True

        monkeypatch.setattr(module, "promote", attempt)
        candidacy = Candidacy(cast("Any", node), cast("Any", None), lambda _: None)
        with pytest.raises(NotAttemptedError, match="promote another one"):
            await candidacy.promote(Wish())

    run(check)


def test_disk_that_fails_during_a_promotion_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the disk holds is not known any more, so the node must neither lead nor follow on."""

    async def check() -> None:
        failures: list[StorageError] = []
        failed = StorageError("no space")

        async def attempt(*_: object) -> None:
            raise failed

        monkeypatch.setattr(module, "promote", attempt)
        candidacy = Candidacy(cast("Any", FakeNode()), cast("Any", None), failures.append)
        with pytest.raises(StorageError):
            await candidacy.promote(Wish())
        assert failures == [failed]

    run(check)


def test_promotion_of_the_node_that_leads_says_that_nothing_was_done() -> None:
    """No node was sealed, no position filled, and nothing lost: its epoch goes on."""

    async def check() -> None:
        node = FakeNode()
        log = SimpleNamespace(last_seq=3)
        node.leader = cast(
            "Any",
            SimpleNamespace(base="its base", is_open=True, epoch=2, write_quorum=1, log=log),
        )
        candidacy = Candidacy(cast("Any", node), cast("Any", None), lambda _: None)
        assert await candidacy.promote(Wish()) == Promoted(
            epoch=2,
            sealed=(),
            write_quorum=1,
            required=0,
            holes_filled=0,
            entries=3,
            may_have_lost="",
        )

    run(check)


@pytest.mark.parametrize(
    ("role", "others", "is_told"),
    [
        (Role.LEADER, ("http://f1:1",), True),
        (Role.LEADER, ("http://f2:1", "http://f1:1"), False),
        (Role.LEADER, (), False),
        (Role.FOLLOWER, ("http://f1:1",), False),
    ],
    ids=["fewer", "the same", "none", "a follower's"],
)
def test_leader_that_lost_its_data_says_whom_its_cluster_has_beside_it(
    make_network: MakeNetwork,
    caplog: pytest.LogCaptureFixture,
    role: Role,
    others: tuple[str, ...],
    *,
    is_told: bool,
) -> None:
    """Its followers know: a ``FOLLOWER_URLS`` that was changed for the restart does not hold."""
    urls = (OWN_URL, *make_network(2).followers)

    async def check() -> None:
        node = Node(Settings(role=Role.FOLLOWER, node_id=OWN_URL, advertise_url=OWN_URL))
        node.start()
        node.settings = dataclasses.replace(node.settings, role=role, follower_urls=others)
        node.stand(promotion_of(node, urls))
        await node.stop()

    run(check)
    told = "FOLLOWER_URLS is ignored: this node's cluster was made with http://f1:1, http://f2:1"
    assert (told in caplog.text) is is_told
