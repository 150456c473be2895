"""Schedules: the planned rate, reproducible by seed, and shared without loss or doubling."""

from __future__ import annotations

import heapq
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.load.plan import NS_PER_S, LoadPlan, Share
from orchestration.load.schedule import arrival_offsets_ns

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
