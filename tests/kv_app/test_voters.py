"""Whom a leader lets in as a voter, and whose word tells it that it still leads."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from kv_app.errors import NotConfirmedError
from kv_app.failover.quorum_change import Quorums
from kv_app.formation import Decision, Standing
from kv_app.settings import Settings
from kv_app.voters import Voters
from tests.kv_app.fake_leader import base
from tests.kv_app.fakes import run
from tests.kv_app.roles import make_replica

if TYPE_CHECKING:
    from collections.abc import Callable

    from kv_app.channel import Link
    from tests.kv_app.fakes import FakeNetwork


@dataclass
class FakeLink:
    """A follower, as far as its leader's voters look at it."""

    index: int
    is_learner: bool
    is_older_voter: bool = False
    incarnation: str = "life 1"
    asked: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is: no founder was there."""
        return f"http://f{self.index}:1"

    def ask(self, number: int) -> None:
        """Is asked whether it still follows."""
        self.asked.append(number)

    def teach(self) -> None:
        """Is told to look again whether it may have the base."""


class FakeOwner:
    """A leader whose epoch is open, or is to be."""

    def __init__(
        self, links: list[FakeLink], floor: int, standing: Standing = Standing.OPEN
    ) -> None:
        self.links = links
        self.base = base()
        self.decision = Decision(standing)
        self.is_open = standing is Standing.OPEN
        self.now = Quorums(floor, floor, floor)

    def voters(self) -> Voters:
        """Returns its voters."""
        mine = cast("Any", self)
        replica = make_replica(Settings())
        own_url = replica.settings.advertise_url
        return Voters(replica, mine, mine, mine, own_url=own_url, is_blank=False, needed=None)


# n, f, the followers that are learners, those that confirm; whether the first one is let in.
ADMISSIONS = [
    (3, 1, {0}, {1}, True),
    (3, 1, {0}, {0}, False),
    (3, 1, {0, 1}, {0, 1}, False),
    (3, 2, {0}, {1}, False),
    (3, 2, {0}, {0, 1}, False),
    (3, 2, {0}, {1, 2}, True),
    (3, 3, {0}, {1, 2}, True),
    (5, 5, {0}, {1, 2}, False),
    (5, 5, {0}, {1, 2, 3}, True),
    (5, 2, {0}, {1, 2}, True),
    (2, 2, {0}, {1}, True),
    (3, 2, {0, 1}, {0, 1, 2}, True),
    (3, 2, {0, 1, 2}, {0, 1}, False),
    (3, 2, {0, 1, 2}, {0, 1, 2}, True),
]


@pytest.mark.parametrize(("followers", "floor", "learners", "confirm", "is_let_in"), ADMISSIONS)
def test_learner_is_let_in_once_min_of_f_and_half_of_n_voters_or_all_members_have_confirmed(
    followers: int, floor: int, learners: set[int], confirm: set[int], *, is_let_in: bool
) -> None:
    """A learner's word is none: it may have forgotten what it promised, unless all were asked."""

    async def check() -> None:
        links = [FakeLink(number, number in learners) for number in range(followers)]
        voters = FakeOwner(links, floor).voters()
        learner = cast("Link", links[0])
        assert not voters.may_admit(learner)  # nobody was asked since it connected
        voters.on_connected(learner)
        await asyncio.sleep(0)
        for link in links:
            [number] = link.asked
            if link.index in confirm:
                voters.on_confirmed(cast("Link", link), number)
        assert voters.may_admit(learner) is is_let_in

    run(check)


@pytest.mark.parametrize(
    ("standing", "confirm", "is_let_in"),
    [
        (Standing.FORMING, {0, 1, 2}, True),
        (Standing.FORMING, {1, 2}, False),
        (Standing.FORMING, {0, 1}, False),
        (Standing.RECOVERING, {0, 1, 2}, False),
    ],
)
def test_before_the_first_epoch_opens_a_learner_is_let_in_by_the_word_of_all(
    standing: Standing, confirm: set[int], *, is_let_in: bool
) -> None:
    """A founder may be lost while the cluster is made, and too few be left to open it."""

    async def check() -> None:
        links = [FakeLink(number, is_learner=number < 2) for number in range(3)]
        voters = FakeOwner(links, 1, standing).voters()
        learner = cast("Link", links[0])
        voters.on_connected(learner)
        await asyncio.sleep(0)
        for link in links:
            for number in link.asked:
                if link.index in confirm:
                    voters.on_confirmed(cast("Link", link), number)
        assert voters.may_admit(learner) is is_let_in

    run(check)


def test_word_from_before_a_learner_connected_does_not_let_it_in() -> None:
    """It may have promised newer, and lost that with its data, just before it connected."""

    async def check() -> None:
        links = [FakeLink(number, is_learner=number < 2) for number in range(3)]
        voters = FakeOwner(links, floor=1).voters()
        early, late, voter = (cast("Link", link) for link in links)
        voters.on_connected(early)
        await asyncio.sleep(0)
        [first] = links[2].asked
        voters.on_connected(late)
        voters.on_confirmed(voter, first)
        assert voters.may_admit(early)
        assert not voters.may_admit(late)
        await asyncio.sleep(0)
        voters.on_confirmed(voter, links[2].asked[-1])
        assert voters.may_admit(late)

    run(check)


def test_leader_whose_write_quorum_is_0_cannot_confirm_that_it_leads(
    make_network: Callable[[int], FakeNetwork],
) -> None:
    """A newer epoch may have acknowledged writes that none of its followers had to know of."""

    async def check() -> None:
        leader = await make_network(2).start_leader(write_quorum=0)
        with pytest.raises(NotConfirmedError, match="With a write quorum of 0"):
            await leader.voters.confirm()
        await leader.stop()

    run(check)


def test_leader_without_followers_needs_no_confirmation(
    make_network: Callable[[int], FakeNetwork],
) -> None:
    """Nobody else could lead."""

    async def check() -> None:
        leader = await make_network(0).start_leader(write_quorum=0)
        await leader.voters.confirm()
        await leader.stop()

    run(check)
