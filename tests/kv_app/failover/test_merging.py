"""What a new epoch begins with, and who has it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv_app.failover.calls import Sealed
from kv_app.failover.merging import MergePlan, plan, positions_of
from kv_app.log import HeldPositions, to_ranges
from kv_app.messages import SeqRange

LAST = 12


def source(held: set[int], settled: int = 0, start: int = 0) -> Sealed:
    """A sealed node that holds some positions, and what is settled on it."""
    positions = HeldPositions(settled)
    for seq in sorted(held):
        positions.add(seq)
    above = positions.ranges_above()
    return Sealed("n", "life", None, None, 0, 0, settled, start, positions.contiguous, above)


def held_of(seqs: set[int]) -> HeldPositions:
    """Held positions."""
    held = HeldPositions()
    for seq in sorted(seqs):
        held.add(seq)
    return held


def seqs_of(found: MergePlan) -> set[int]:
    """All that is fetched."""
    return {
        seq
        for ranges in found.fetches.values()
        for span in ranges
        for seq in range(span.first, span.last + 1)
    }


def test_who_holds_all_fetches_nothing() -> None:
    """The usual case: the most advanced follower is promoted."""
    found = plan({"a": source({1, 2, 3}), "b": source({1, 2})}, held_of({1, 2, 3}))
    assert found == MergePlan(position=3, stable=0)


def test_holes_are_filled_from_whoever_has_them_and_else_with_no_ops() -> None:
    """No single node need have all."""
    sources = {"a": source({1, 2, 5}), "b": source({1, 3, 5})}
    found = plan(sources, held_of({1, 2, 5}))
    assert (found.position, found.noops) == (5, (SeqRange(4, 4),))
    assert seqs_of(found) == {3}


def test_entries_that_the_logs_have_between_them_are_not_fetched_as_a_whole() -> None:
    """Above holes too, of others and of the promoter's own: there may be little to fetch."""
    sources = {"a": source({1, 2, 4}), "b": source({5, 6}, settled=4, start=4)}
    found = plan(sources, held_of({1, 3}))
    assert (found.whole_from, found.noops) == (None, ())
    assert seqs_of(found) == {2, 4, 5, 6}


def test_a_long_history_is_not_listed_position_by_position() -> None:
    """Of what all have dropped, a list would freeze the node and take its memory."""
    long_ago, now = 1 << 50, (1 << 50) + 100
    ahead = source({now + 2}, settled=now, start=long_ago)
    for behind in ({}, {"b": source({1, 2})}):
        found = plan({"a": ahead, **behind}, held_of({1}))
        assert (found.whole_from, found.whole_upto, found.holes) == ("a", now, 1)
        assert seqs_of(found) == {now + 2}


def test_what_nobody_has_an_entry_of_any_more_comes_as_a_whole() -> None:
    """It is settled, and in the versions of who dropped it."""
    sources = {"a": source({9}, settled=8, start=6), "b": source({1, 2})}
    found = plan(sources, held_of({1, 2}))
    assert (found.whole_from, found.whole_upto) == ("a", 8)
    assert seqs_of(found) == {9}
    assert found.noops == ()


nodes = st.builds(
    lambda settled, more, drop: source(
        {seq for seq in more if seq > settled}, settled, min(settled, drop)
    ),
    st.integers(0, LAST),
    st.sets(st.integers(1, LAST)),
    st.integers(0, LAST),
)


@given(st.lists(nodes, min_size=1, max_size=5), st.integers(0, 5))
def test_merged_log_is_the_union_without_a_hole(some: list[Sealed], own: int) -> None:
    """Against the obvious model; what is fetched, somebody has as an entry."""
    sources = {str(number): one for number, one in enumerate(some)}
    unions = {seq for one in some for seq in range(1, LAST + 1) if positions_of(one).holds(seq)}
    promoter = some[own % len(some)]
    held = positions_of(promoter)
    found = plan(sources, held)
    assert found.position == max(unions, default=0)
    assert found.stable == max(one.settled for one in some)
    wanted = set(range(1, found.position + 1))
    if found.whole_from is not None:
        assert found.whole_upto == max(one.settled for one in some)
        wanted = {seq for seq in wanted if seq > found.whole_upto}
    has = {seq for seq in wanted if held.holds(seq)}
    noops = {seq for span in found.noops for seq in range(span.first, span.last + 1)}
    assert len(noops) == found.holes
    assert has | seqs_of(found) | noops == wanted
    assert not seqs_of(found) & noops
    assert not unions & noops
    for url, ranges in found.fetches.items():
        assert ranges == to_ranges(
            [seq for span in ranges for seq in range(span.first, span.last + 1)]
        )
        for span in ranges:
            for seq in range(span.first, span.last + 1):
                assert positions_of(sources[url]).holds(seq)
                assert seq > sources[url].start
