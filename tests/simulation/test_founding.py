"""Clusters in the moment in which they are made: whoever is lost then, they come to be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.simulation.scripted import play

if TYPE_CHECKING:
    from tests.simulation.scripted import Script


@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.parametrize("followers", range(1, 6))
def test_leader_lost_while_the_cluster_is_made_comes_back_by_itself(
    followers: int, *, is_durable: bool
) -> None:
    """Some hold the base, and not enough: the others know that they have forgotten nothing."""

    async def script(one: Script) -> None:
        await one.moment(lambda: one.node(0).leader and one.node(0).leader.base)  # type: ignore[union-attr]
        await asyncio.sleep(0.0015)  # some have it by then
        one.host(0).crash(wiped=False)
        await one.pause(0.5)
        one.host(0).start()
        await one.ready()
        await one.put(one.node(0), "a", "1")

    for seed in range(3):
        play(script, followers, 1, is_durable=is_durable, seed=seed, is_formed=False)


@pytest.mark.parametrize("followers", range(1, 6))
def test_follower_that_was_heard_and_is_another_one_now_stops_no_cluster(followers: int) -> None:
    """It lost its memory between its welcome and the base, or before the others were heard."""

    async def script(one: Script) -> None:
        for number in range(2, followers + 1):
            one.host(number).crash(wiped=False)
        await one.pause(1.0)
        one.host(1).crash(wiped=False)
        for number in range(2, followers):
            one.host(number).start()
        await one.pause(1.0)
        for number in {1, followers}:
            one.host(number).start()
        await one.ready()
        await one.put(one.node(0), "a", "1")

    play(script, followers, 1, is_durable=False, is_formed=False)


@pytest.mark.parametrize("followers", range(1, 6))
def test_follower_lost_between_its_founding_and_its_base_stops_no_cluster(followers: int) -> None:
    """The base was on its way to a life that is over; all others being there, it is let in."""

    async def script(one: Script) -> None:
        await one.moment(lambda: one.node(0).leader and one.node(0).leader.base)  # type: ignore[union-attr]
        for number in range(1, followers + 1):
            one.host(number).crash(wiped=False)
            one.host(number).start()
        await one.ready()
        await one.put(one.node(0), "a", "1")

    for seed in range(3):
        play(script, followers, 1, is_durable=False, seed=seed, is_formed=False)


def test_followers_that_learned_of_a_cluster_that_is_gone_make_a_new_one() -> None:
    """They hold nothing of it, and would be other nodes in the new one: it is told before."""

    async def script(one: Script) -> None:
        for number in (1, 2, 3):
            one.host(number).crash(wiped=False)
        await one.pause(0.3)
        for number in (1, 2):
            one.host(number).start()
        await one.pause(2.0)  # they are learners now: too few confirm the leader
        one.host(0).crash(wiped=False)
        one.host(0).start()
        await one.until(lambda: one.cluster.leader() is not None)
        one.host(3).start()
        await one.ready()
        await one.put(one.node(0), "a", "1")

    play(script, 3, 2, is_durable=False)
