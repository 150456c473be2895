"""Schedules: the planned rate, reproducible by seed, and shared without loss or doubling."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.load.schedule import (
    MIN_IN_FLIGHT_LIMIT,
    MIN_VALUE_BYTES,
    NS_PER_S,
    LoadPlan,
    Share,
    arrival_offsets_ns,
    key_chooser,
    node_chooser,
    read_chooser,
    value_maker,
)

plans = st.builds(
    LoadPlan,
    rate_per_s=st.floats(min_value=0.5, max_value=5_000),
    arrivals=st.sampled_from(("constant", "poisson")),
    warmup_s=st.floats(min_value=0, max_value=0.2),
    duration_s=st.floats(min_value=0.01, max_value=0.5),
    seed=st.integers(min_value=0, max_value=2**63 - 1),
)


@settings(deadline=None)
@given(plans, st.integers(min_value=1, max_value=5))
def test_arrivals_shared_by_processes_are_those_of_one(plan: LoadPlan, processes: int) -> None:
    """However many processes offer a plan, together they offer the same arrivals."""
    alone = list(arrival_offsets_ns(plan, Share()))
    shares = [arrival_offsets_ns(plan, Share(index, processes)) for index in range(processes)]
    assert list(heapq.merge(*shares)) == alone


@settings(deadline=None)
@given(plans)
def test_arrivals_are_ordered_and_end_with_the_plan(plan: LoadPlan) -> None:
    """Arrivals never go back in time and none is due at or after the plan's end."""
    offsets_ns = list(arrival_offsets_ns(plan, Share()))
    assert offsets_ns == sorted(offsets_ns)
    assert plan.end_ns is not None
    assert all(0 <= offset_ns < plan.end_ns for offset_ns in offsets_ns)


@settings(deadline=None)
@given(plans)
def test_arrivals_drawn_twice_are_equal(plan: LoadPlan) -> None:
    """The same plan gives the same schedule."""
    assert list(arrival_offsets_ns(plan, Share())) == list(arrival_offsets_ns(plan, Share()))


@settings(deadline=None)
@given(st.floats(min_value=0.5, max_value=50_000), st.integers(min_value=0, max_value=10_000_000))
def test_constant_arrivals_never_drift(rate_per_s: float, index: int) -> None:
    """The n-th arrival is due n / rate after the start, to a nanosecond, however large n is."""
    plan = LoadPlan(rate_per_s=rate_per_s)
    start = min(index, 2_000)
    offset_ns = next(itertools.islice(arrival_offsets_ns(plan, Share()), start, None))
    assert offset_ns == pytest.approx(start * NS_PER_S / rate_per_s, abs=1)


def test_poisson_gaps_have_the_rate_and_an_exponentials_spread() -> None:
    """Over 40,000 arrivals the gaps' mean and standard deviation are both 1 / rate."""
    plan = LoadPlan(rate_per_s=1000, arrivals="poisson", seed=7)
    offsets_ns = list(itertools.islice(arrival_offsets_ns(plan, Share()), 40_001))
    gaps_s = [(late - early) / NS_PER_S for early, late in itertools.pairwise(offsets_ns)]
    mean_s = sum(gaps_s) / len(gaps_s)
    deviation_s = (sum((gap_s - mean_s) ** 2 for gap_s in gaps_s) / len(gaps_s)) ** 0.5
    # Five standard errors of each.
    assert mean_s == pytest.approx(0.001, rel=5 / 200)
    assert deviation_s == pytest.approx(0.001, rel=5 * 2**0.5 / 200)


def test_arrivals_of_another_seed_differ() -> None:
    """The seed reaches the Poisson schedule."""
    first, second = (
        list(arrival_offsets_ns(LoadPlan(arrivals="poisson", duration_s=1, seed=seed), Share()))
        for seed in (1, 2)
    )
    assert first != second


def test_total_writes_ends_an_open_loop() -> None:
    """No more arrivals than asked for, over all processes."""
    plan = LoadPlan(rate_per_s=1000, duration_s=10, total_writes=7)
    shares = [list(arrival_offsets_ns(plan, Share(index, 2))) for index in range(2)]
    assert [len(share) for share in shares] == [4, 3]


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=20))
def test_shares_of_a_total_add_up_to_it(total: int, processes: int) -> None:
    """Requests are divided without rest, and evenly to one."""
    parts = [Share(index, processes).of_total(total) for index in range(processes)]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


def test_keys_are_uniform_reproducible_and_differ_by_stream() -> None:
    """All keys come up about equally often, the same for the same seed and stream."""
    plan = LoadPlan(keys=10, seed=3)
    drawn = [choose() for choose in [key_chooser(plan, 0)] for _ in range(10_000)]
    again, other = (
        [choose() for _ in range(50)] for choose in (key_chooser(plan, 0), key_chooser(plan, 1))
    )
    assert drawn[:50] == again != other
    counts = Counter(drawn)
    assert len(counts) == 10
    # Five standard deviations of a binomial with p = 0.1.
    assert all(count == pytest.approx(1_000, abs=150) for count in counts.values())


@settings(deadline=None)
@given(st.integers(min_value=MIN_VALUE_BYTES, max_value=300), st.integers(min_value=0))
def test_values_have_their_size_and_never_repeat(value_bytes: int, seed: int) -> None:
    """Every value is unique over streams and seeds, and exactly as long as asked for."""
    plans = [LoadPlan(value_bytes=value_bytes, seed=(seed + step) % 2**63) for step in (0, 1)]
    makers = [value_maker(plan, stream) for plan in plans for stream in range(3)]
    values = [maker() for maker in makers for _ in range(20)]
    assert len(set(values)) == len(values)
    assert {len(value.encode()) for value in values} == {value_bytes}


@pytest.mark.parametrize(("read_share", "reads"), [(0.0, 0), (1.0, 1_000)])
def test_reads_at_the_ends_of_the_range(read_share: float, reads: int) -> None:
    """A share of 0 never reads and a share of 1 always does."""
    is_read = read_chooser(LoadPlan(read_share=read_share), 0)
    assert sum(is_read() for _ in range(1_000)) == reads


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [
        ("rate_per_s", -1, "--rate"),
        ("rate_per_s", float("nan"), "--rate"),
        ("arrivals", "bursty", "--arrivals"),
        ("warmup_s", -0.1, "--warmup"),
        ("duration_s", float("inf"), "--duration"),
        ("keys", 0, "--keys"),
        ("value_bytes", 3, "--value-bytes"),
        ("read_share", 1.5, "--read-share"),
        ("read_from", "anyone", "--read-from"),
        ("max_in_flight", -1, "--max-in-flight"),
        ("seed", -1, "--load-seed"),
        ("total_writes", -1, "--total-writes"),
        ("write_quorum", -1, "--write-quorum"),
    ],
)
def test_a_plan_with_a_bad_value_is_refused_by_the_options_name(
    field: str, value: object, option: str
) -> None:
    """The message names the option as the user typed it."""
    with pytest.raises(ValueError, match=f"^{option} must be"):
        LoadPlan(**{field: value})  # type: ignore[arg-type]


def test_in_flight_limit_holds_six_seconds_of_a_process_share() -> None:
    """A store that answers nothing until the client gives up causes no drops."""
    plan = LoadPlan(rate_per_s=1000)
    assert plan.in_flight_limit(Share()) == 6_000
    assert plan.in_flight_limit(Share(1, 4)) == 1_500
    assert LoadPlan(rate_per_s=1).in_flight_limit(Share()) == MIN_IN_FLIGHT_LIMIT
    assert LoadPlan(rate_per_s=1, max_in_flight=3).in_flight_limit(Share()) == 3


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_share_of_a_process_that_does_not_exist_is_refused(index: int, count: int) -> None:
    """A wrong index would send some arrivals twice and others never."""
    with pytest.raises(ValueError, match="does not exist"):
        Share(index, count)


def test_nodes_to_read_from_are_uniform_and_reproducible() -> None:
    """Every follower is read from about equally often, in an order that the seed decides."""
    plan = LoadPlan(seed=3)
    first, again = node_chooser(plan, 3), node_chooser(plan, 3)
    drawn = [first() for _ in range(3_000)]
    assert drawn == [again() for _ in range(3_000)]
    counts = Counter(drawn)
    assert set(counts) == {0, 1, 2}
    assert all(abs(count - 1_000) < 150 for count in counts.values())  # 5.8 standard deviations
