"""Rounds of questions: who leads knows it only by answers to questions put after it was asked."""

from __future__ import annotations

import asyncio

import pytest

from kv_app.confirmations import Confirmations
from kv_app.errors import TooManyInFlightError
from tests.kv_app.fakes import run, until

LONG_S = 5.0
LIMIT = 10


def test_reads_of_one_turn_share_a_round_and_later_ones_do_not() -> None:
    """A question that was put before a read arrived tells it nothing."""

    async def check() -> None:
        asked: list[int] = []
        confirmations = Confirmations(asked.append, LIMIT)
        reads = [asyncio.create_task(confirmations.wait(1, LONG_S)) for _ in range(3)]
        await until(lambda: asked)
        late = asyncio.create_task(confirmations.wait(1, LONG_S))
        await until(lambda: len(asked) == 2)
        confirmations.note(0, asked[0], is_voter=True)
        assert await asyncio.gather(*reads) == [True] * 3
        assert not late.done()
        confirmations.note(0, asked[1], is_voter=True)
        assert await late

    run(check)


def test_answer_to_a_later_round_is_one_to_all_before_it() -> None:
    """The follower followed then, so it had followed before."""

    async def check() -> None:
        asked: list[int] = []
        confirmations = Confirmations(asked.append, LIMIT)
        first = asyncio.create_task(confirmations.wait(2, LONG_S))
        await until(lambda: asked)
        second = asyncio.create_task(confirmations.wait(2, LONG_S))
        await until(lambda: len(asked) == 2)
        confirmations.note(0, asked[1], is_voter=True)
        confirmations.note(0, asked[1], is_voter=True)  # again, by the same follower
        assert not first.done()
        confirmations.note(1, asked[1], is_voter=True)
        assert await asyncio.gather(first, second) == [True, True]

    run(check)


def test_learners_confirm_no_read_and_count_where_all_are_asked_for() -> None:
    """They may have forgotten what they promised."""

    async def check() -> None:
        confirmations = Confirmations(lambda _: None, LIMIT)
        read = asyncio.create_task(confirmations.wait(1, LONG_S))
        await asyncio.sleep(0)
        number = confirmations.begin()
        confirmations.note(0, number, is_voter=False)
        assert (confirmations.voters(number), confirmations.all(number)) == (0, 1)
        assert not read.done()
        confirmations.note(1, number, is_voter=True)
        assert (confirmations.voters(number), confirmations.all(number)) == (1, 2)
        confirmations.note(0, number, is_voter=True)  # it has become a voter
        assert (confirmations.voters(number), confirmations.all(number)) == (2, 2)
        confirmations.forget(0)
        assert (confirmations.voters(number), confirmations.all(number)) == (1, 1)
        assert await read

    run(check)


def test_wait_ends_by_its_time_or_with_the_leadership_and_leaves_nothing() -> None:
    """Both are no confirmation; a leader without followers needs none."""

    async def check() -> None:
        confirmations = Confirmations(lambda _: None, LIMIT)
        assert await confirmations.wait(0, LONG_S)
        assert not await confirmations.wait(1, 0.001)
        assert not any(confirmations._waits.values())
        read = asyncio.create_task(confirmations.wait(1, LONG_S))
        await asyncio.sleep(0)
        confirmations.end()
        assert not await read

    run(check)


class Counted(int):
    """A round that counts how often it is compared."""

    compared = 0

    def __le__(self, other: int) -> bool:
        """Compares, and counts it."""
        Counted.compared += 1
        return int(self) <= other


def test_answer_looks_at_no_wait_that_it_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many reads as may wait, answers cost as much as the reads that they end."""
    reads = 100

    async def check() -> None:
        confirmations = Confirmations(lambda _: None, reads)
        begin = confirmations.begin
        monkeypatch.setattr(confirmations, "begin", lambda: Counted(begin()))
        waits = []
        for _ in range(reads):
            waits.append(asyncio.create_task(confirmations.wait(2, LONG_S)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        Counted.compared = 0
        for number in range(1, reads + 1):
            confirmations.note(0, number, is_voter=True)
            confirmations.note(1, number - 1, is_voter=True)
        assert sum(wait.done() for wait in waits) == 0
        confirmations.note(1, reads, is_voter=True)
        assert await asyncio.gather(*waits) == [True] * reads
        assert Counted.compared <= 4 * reads

    run(check)


def test_reads_that_wait_are_bounded() -> None:
    """A leader that nobody confirms takes no more of them than it says."""

    async def check() -> None:
        confirmations = Confirmations(lambda _: None, 1)
        read = asyncio.create_task(confirmations.wait(1, LONG_S))
        await asyncio.sleep(0)
        with pytest.raises(TooManyInFlightError, match="1 of 1 already"):
            await confirmations.wait(1, LONG_S)
        confirmations.end()
        assert not await read

    run(check)
