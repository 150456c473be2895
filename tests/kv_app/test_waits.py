"""Who waits for an entry: answers, deadlines, bounds, and those who give up."""

from __future__ import annotations

import asyncio

import pytest

from kv_app.delays import DelayModel
from kv_app.errors import OutcomeUnknownError
from kv_app.log import LogRecord
from kv_app.messages import Entry, Operation
from kv_app.waits import Waits
from tests.kv_app.fakes import Clock, run, until


def make_record(seq: int = 1, required: int = 1) -> LogRecord:
    """Returns the record of a put that is not committed."""
    entry = Entry(1, seq, int(Operation.PUT), "k", "v", None)
    return LogRecord(entry, b"", 0, DelayModel(), required, required)


def start(waits: Waits, record: LogRecord) -> asyncio.Task[None]:
    """Starts to wait for a record."""
    return asyncio.create_task(waits.wait(record))


async def expect_unknown(waiting: asyncio.Task[None]) -> OutcomeUnknownError:
    """Waits for a wait that must end unknown."""
    with pytest.raises(OutcomeUnknownError) as unknown:
        await waiting
    return unknown.value


def is_empty(waits: Waits) -> bool:
    """Tells if nobody is remembered."""
    return not (waits._waiters or waits._deadlines or len(waits))


def test_wait_for_what_is_committed_is_over_at_once() -> None:
    """Nobody is kept waiting for an answer that is there."""

    async def check() -> None:
        waits = Waits(5, 1, Clock())
        record = make_record()
        record.committed = True
        await waits.wait(record)
        assert is_empty(waits)

    run(check)


def test_waits_for_a_position_are_all_answered_by_its_commit_and_no_others() -> None:
    """A retry waits beside the first one; another position goes on waiting."""

    async def check() -> None:
        waits = Waits(5, 10, Clock())
        record = make_record()
        both = [start(waits, record), start(waits, record)]
        other = start(waits, make_record(2))
        await until(lambda: len(waits) == 3)
        waits.resolve(1)
        await asyncio.gather(*both)
        assert not other.done()
        waits.resolve(2)
        await other
        waits.resolve(3)  # nobody waits for it, and that is no error
        assert len(waits) == 0
        waits.close()

    run(check)


def test_wait_whose_time_is_over_ends_unknown_and_says_how_far_it_came() -> None:
    """Position, acknowledgments and the k with which it began; and nobody is remembered."""

    async def check() -> None:
        clock = Clock()
        waits = Waits(0.02, 10, clock)
        record = make_record(7, required=3)
        record.ack_count, record.required = 1, 2
        waiting = start(waits, record)
        await until(lambda: len(waits) == 1)
        clock.advance(ms=20)
        unknown = await expect_unknown(waiting)
        assert unknown.details == {"epoch": 1, "seq": 7, "follower_acks": 1, "required": 3}
        assert "did not answer in time" in unknown.message
        assert is_empty(waits)
        waits.resolve(7)

    run(check)


def test_deadlines_of_many_waits_each_come_in_their_time() -> None:
    """One timer serves all: those that commit are answered, the others end one by one."""

    async def check() -> None:
        clock = Clock()
        waits = Waits(0.01, 10, clock)
        waiting = []
        for seq in range(1, 7):  # the deadlines are 10 to 15 ms after the start
            waiting.append(start(waits, make_record(seq)))
            await asyncio.sleep(0)
            clock.advance(ms=1)
        waits.resolve(2)
        waits.resolve(3)
        clock.advance(ms=7)
        for task in (waiting[0], waiting[3]):
            await expect_unknown(task)
        await asyncio.gather(waiting[1], waiting[2])
        timer = waits._expiry
        await until(lambda: waits._expiry is not timer)  # it looked again, and nothing was due
        assert not waiting[4].done()
        clock.advance(ms=2)
        for task in waiting[4:]:
            await expect_unknown(task)
        assert is_empty(waits)

    run(check)


def test_waits_that_are_over_make_room_for_others_behind_one_that_is_not() -> None:
    """The bound is on those that wait: one slow write does not add up with all that passed it."""

    async def check() -> None:
        limit = 4
        waits = Waits(5, limit, Clock())
        slow = start(waits, make_record())
        for seq in range(2, 10 * limit):
            waiting = start(waits, make_record(seq))
            await asyncio.sleep(0)
            waits.resolve(seq)
            await waiting
            assert len(waits._deadlines) <= 2 * limit
        assert not slow.done()
        waits.resolve(1)
        await slow
        last = start(waits, make_record(50))
        await until(lambda: len(waits._deadlines) == 1)
        waits.resolve(50)
        await last
        waits.close()

    run(check)


def test_wait_past_the_limit_is_told_to_ask_again() -> None:
    """So many wait and no more; its outcome is unknown, since the entry is in the log."""

    async def check() -> None:
        waits = Waits(5, 2, Clock())
        record = make_record(4)
        waiting = [start(waits, record) for _ in range(2)]
        await until(lambda: len(waits) == 2)
        unknown = await expect_unknown(start(waits, record))
        assert unknown.details["seq"] == 4
        assert "too many requests wait" in unknown.message
        waits.resolve(4)
        await asyncio.gather(*waiting)
        assert len(waits) == 0
        waits.close()

    run(check)


def test_wait_that_is_cancelled_disturbs_nobody() -> None:
    """Whoever gives up leaves the others waiting, and is forgotten at once."""

    async def check() -> None:
        clock = Clock()
        waits = Waits(0.02, 10, clock)
        record = make_record()
        given_up, other = start(waits, record), start(waits, record)
        await until(lambda: len(waits) == 2)
        given_up.cancel()
        await until(lambda: len(waits) == 1)
        assert len(waits._waiters[1]) == 1
        clock.advance(ms=20)
        await expect_unknown(other)
        last = start(waits, record)
        await until(lambda: len(waits) == 1)
        waits.resolve(1)
        await last
        assert waits._waiters == {}
        assert len(waits) == 0
        waits.close()

    run(check)


def test_wait_that_is_cancelled_when_its_answer_is_there_is_forgotten_too() -> None:
    """An answer and a client that leaves may meet."""

    async def check() -> None:
        waits = Waits(5, 10, Clock())
        waiting = start(waits, make_record())
        await until(lambda: len(waits) == 1)
        waits.resolve(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert waits._waiters == {}
        assert len(waits) == 0
        waits.close()

    run(check)


def test_waits_of_a_node_that_stops_end_unknown() -> None:
    """Each is told that the leader stopped; what was answered before keeps its answer."""

    async def check() -> None:
        waits = Waits(5, 10, Clock())
        waiting = [start(waits, make_record(seq)) for seq in (1, 2, 3)]
        await until(lambda: len(waits) == 3)
        waits.resolve(2)
        waits.end()
        waits.resolve(3)  # a commit that comes now changes no answer
        await waiting[1]
        for task in (waiting[0], waiting[2]):
            assert "the leader stopped" in (await expect_unknown(task)).message
        waits.close()
        assert waits._expiry is not None
        assert waits._expiry.cancelled()

    run(check)


def test_waits_that_nobody_used_close_without_a_timer() -> None:
    """A leader that never took a write stops like any other."""

    async def check() -> None:
        waits = Waits(5, 10, Clock())
        waits.close()
        assert is_empty(waits)

    run(check)


def test_wait_that_comes_after_the_end_is_answered_at_once() -> None:
    """No timer would end it: who changes k may come to it only when the epoch is over."""

    async def check() -> None:
        waits = Waits(5, 10, Clock())
        waits.close("epoch 1 is over")
        assert "epoch 1 is over" in (await expect_unknown(start(waits, make_record()))).message
        committed = make_record(2)
        committed.committed = True
        await waits.wait(committed)

    run(check)
