"""How a node that led tries to lead again: until it does, and never in step with another one."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Any, cast

from kv_app import comeback as module
from kv_app.comeback import Comeback
from kv_app.errors import OutbidError, StorageError
from kv_app.meta import Role
from kv_app.promoter import NobodyHoldsDataError
from kv_app.settings import Settings
from tests.kv_app.roles import make_replica
from tests.simulation.virtual_loop import Clock, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import pytest

    from kv_app.promoter import Wish

ATTEMPTS = 8


class FakeNode:
    """A node whose attempts all fail, by default since they are outbid, and which stops after some.

    Attributes:
        errors: With what the next attempts fail instead.
        forms: Whether it makes a new cluster, each time that it is asked to.
    """

    def __init__(self, role: Role = Role.LEADER) -> None:
        self.replica = make_replica(Settings(role=role))
        self.errors: list[Exception] = []
        self.forms: list[bool] = []
        self.leader = None
        self.is_draining = self.is_led = False
        self.candidacy = self
        self.tried_s: list[float] = []
        self.asked: list[tuple[str, ...]] = []

    async def promote(self, wish: Wish) -> None:
        """Notes when, and leads nothing."""
        assert wish.is_own
        self.asked.append(wish.urls)
        self.tried_s.append(asyncio.get_running_loop().time())
        self.is_draining = len(self.tried_s) == ATTEMPTS
        raise self.errors.pop(0) if self.errors else OutbidError("another one goes on")

    def form_if_blank(self) -> bool:
        """Says whether it makes a new cluster."""
        return self.forms.pop(0)

    @property
    def pauses_s(self) -> list[float]:
        """How long it waited between its attempts."""
        return [after - before for before, after in itertools.pairwise(self.tried_s)]


def run_simulated(check: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a test's coroutine function on a clock that jumps to what is next."""
    loop = VirtualLoop(Clock())
    try:
        loop.run_until_complete(check())
    finally:
        loop.close()


async def lead_again(node: FakeNode) -> Comeback:
    """Has a node try until it does no more."""
    comeback = Comeback(cast("Any", node))
    comeback.begin(after_s=0)
    assert comeback._task is not None
    await comeback._task
    return comeback


def test_pauses_between_attempts_grow_and_are_never_those_of_another_node() -> None:
    """Two nodes that try at once outbid each other; in step they would for ever."""
    one, other = FakeNode(), FakeNode()

    async def check() -> None:
        comebacks = [Comeback(cast("Any", node)) for node in (one, other)]
        for comeback in comebacks:
            comeback.begin(after_s=0)
        for comeback in comebacks:
            assert comeback._task is not None
            await comeback._task

    random.seed(1)  # that no two pauses are equal by chance
    run_simulated(check)
    assert len(one.pauses_s) == len(other.pauses_s) == ATTEMPTS - 1
    for number, (pause_s, other_s) in enumerate(zip(one.pauses_s, other.pauses_s, strict=True)):
        mean_s = min(module.FIRST_PAUSE_S * 2**number, module.MAX_PAUSE_S)
        for taken_s in (pause_s, other_s):
            assert 0.49 * mean_s <= taken_s <= 1.51 * mean_s
        assert abs(pause_s - other_s) > 1e-6


def test_who_begins_anew_asks_whom_it_was_told_to_ask() -> None:
    """A node that was called back knows no others."""
    node = FakeNode()

    async def check() -> None:
        comeback = Comeback(cast("Any", node))
        comeback.begin(after_s=1.0, urls=("http://n1:1",))
        waits = comeback._task
        assert waits is not None
        comeback.begin_anew()
        began_s = asyncio.get_running_loop().time()
        assert comeback._task is not None
        await comeback._task
        assert waits.cancelled()  # two would outbid each other
        assert node.tried_s[0] == began_s

    run_simulated(check)
    assert set(node.asked) == {("http://n1:1",)}


def test_attempts_go_on_after_what_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    """A cluster would stay without a leader; the bug is in the log, and told to who asks."""
    node = FakeNode()
    node.errors = [ValueError("a bug of the tests")]

    async def check() -> None:
        await lead_again(node)
        assert len(node.tried_s) == ATTEMPTS

    run_simulated(check)
    assert "a bug of the tests" in caplog.text


def nobody_holds_data() -> NobodyHoldsDataError:
    """Returns the error of a node that finds no data anywhere."""
    return NobodyHoldsDataError("No data.", required=1, sealed=0, missing=[])


def test_leader_without_data_tries_on_until_it_may_make_a_new_cluster() -> None:
    """That its followers are busy the first time must not end it for ever."""
    node = FakeNode()
    node.errors = [nobody_holds_data(), nobody_holds_data(), nobody_holds_data()]
    node.forms = [False, False, True]

    async def check() -> None:
        await lead_again(node)
        assert (len(node.tried_s), node.forms) == (3, [])

    run_simulated(check)


def test_follower_without_data_makes_no_new_cluster_and_tries_on() -> None:
    """Only who was told to lead may found one."""
    node = FakeNode(Role.FOLLOWER)
    node.errors = [nobody_holds_data()]

    async def check() -> None:
        assert (await lead_again(node)).obstacle == "another one goes on"
        assert len(node.tried_s) == ATTEMPTS

    run_simulated(check)


def test_disk_that_fails_ends_the_attempts() -> None:
    """The process ends: what the disk holds is not known any more."""
    node = FakeNode()
    node.errors = [StorageError("no space")]

    async def check() -> None:
        await lead_again(node)
        assert len(node.tried_s) == 1

    run_simulated(check)
