"""How a node that led tries to lead again: until it does, and never in step with another one."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Any, cast

from kv_app import comeback as module
from kv_app.comeback import Comeback
from kv_app.errors import OutbidError
from kv_app.settings import Settings
from tests.kv_app.roles import make_replica
from tests.simulation.virtual_loop import Clock, VirtualLoop

if TYPE_CHECKING:
    from kv_app.promoter import Wish

ATTEMPTS = 8


class FakeNode:
    """A node whose attempts are all outbid, and which stops after some."""

    def __init__(self) -> None:
        self.replica = make_replica(Settings())
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
        raise OutbidError("another one goes on")

    @property
    def pauses_s(self) -> list[float]:
        """How long it waited between its attempts."""
        return [after - before for before, after in itertools.pairwise(self.tried_s)]


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
    loop = VirtualLoop(Clock())
    try:
        loop.run_until_complete(check())
    finally:
        loop.close()
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
        comeback.begin_anew()
        assert comeback._task is not None
        await comeback._task

    loop = VirtualLoop(Clock())
    try:
        loop.run_until_complete(check())
    finally:
        loop.close()
    assert set(node.asked) == {("http://n1:1",)}
