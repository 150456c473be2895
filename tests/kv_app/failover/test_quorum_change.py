"""The write quorum under change: the floor never promises what does not hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv_app.failover import quorum_change
from kv_app.failover.electors import confirmations_of
from kv_app.failover.quorum_change import Quorums, Record

FOLLOWERS = 5
quorums = st.integers(0, FOLLOWERS)


def test_raise_is_in_force_at_once_and_the_floor_waits() -> None:
    """What was written before is on fewer followers still."""
    now, record = quorum_change.ask(Quorums(1, 1, 1), 3, seq=7)
    assert (now.write_quorum, now.floor, record) == (3, 1, Record(3, 1, 3))
    assert not quorum_change.is_raised(now, holders=2)
    assert quorum_change.is_raised(now, holders=3)
    now, record = quorum_change.raise_floor(now)
    assert (now.write_quorum, now.floor, now.is_changing) == (3, 3, False)
    assert record == Record(3, 3, 3)


def test_lowering_below_the_floor_waits_and_says_it_first() -> None:
    """A promotion that relies on the old floor must not be possible any more."""
    now, record = quorum_change.ask(Quorums(4, 4, 4), 1, seq=7)
    assert (now.write_quorum, now.floor, record) == (4, 4, Record(1, 1, 1))
    needed = confirmations_of(4, FOLLOWERS)
    assert not quorum_change.is_lowered(now, needed - 1, FOLLOWERS)
    assert quorum_change.is_lowered(now, needed, FOLLOWERS)
    now, record = quorum_change.lower(now)
    assert (now.write_quorum, now.floor, now.is_changing) == (1, 1, False)
    assert record == Record(1, 1, 1)


def test_lowering_to_the_floor_or_above_is_in_force_at_once() -> None:
    """A raise whose floor had not followed yet is taken back."""
    raised, _ = quorum_change.ask(Quorums(1, 1, 1), 5, seq=7)
    now, record = quorum_change.ask(raised, 3, seq=8)
    assert (now.write_quorum, now.floor, record) == (3, 1, Record(3, 1, 3))
    assert now.raising is not None
    assert now.raising.write_quorum == 3
    back, _ = quorum_change.ask(now, 1, seq=9)
    assert (back.write_quorum, back.floor, back.is_changing) == (1, 1, False)


def test_raise_towards_what_was_wanted_keeps_that() -> None:
    """After a promotion k rises with the nodes that come back."""
    now, record = quorum_change.resume(Quorums(1, 1, 4), 2, seq=7)
    assert (now.write_quorum, now.wanted, record) == (2, 4, Record(2, 1, 4))


def test_floor_does_not_rise_while_a_lowering_waits() -> None:
    """The record of the lowering may be found alone."""
    now, _ = quorum_change.ask(Quorums(4, 4, 4), 2, seq=7)
    assert not quorum_change.is_raised(now, holders=FOLLOWERS)


@given(st.lists(st.tuples(quorums, st.integers(0, FOLLOWERS), st.booleans()), max_size=30))
def test_floor_is_never_above_what_every_acknowledged_write_is_on(
    changes: list[tuple[int, int, bool]],
) -> None:
    """Against the obvious model: the least k that was in force, until all is on more followers.

    Each step asks for a k, or lets time pass until so many followers hold everything.
    """
    now = Quorums(2, 2, 2)
    seq, least = 1, 2
    for wanted, holders, does_ask in changes:
        seq += 1
        if does_ask and now.lowering is None:
            now, record = quorum_change.ask(now, wanted, seq)
            assert record.wanted == wanted
        elif quorum_change.is_lowered(now, holders, FOLLOWERS):
            now, _ = quorum_change.lower(now)
        elif quorum_change.is_raised(now, holders):
            now, _ = quorum_change.raise_floor(now)
            least = max(least, min(holders, now.floor))
        # Something is written now, with the k in force.
        least = min(least, now.write_quorum)
        assert now.floor <= least
        assert now.floor <= now.write_quorum
