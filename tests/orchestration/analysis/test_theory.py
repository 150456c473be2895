"""The model of the wait for a quorum, against sorted random numbers and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from orchestration.analysis.theory import QuorumWait


@st.composite
def waits(draw: st.DrawFn, smallest_k: int = 0) -> QuorumWait:
    """Draw a model with up to 20 followers and delays up to 6 s."""
    n = draw(st.integers(max(smallest_k, 0), 20))
    k = draw(st.integers(smallest_k, n))
    a = draw(st.floats(0, 1000))
    return QuorumWait(n, k, a, a + draw(st.floats(0, 5000)))


def binomial_tail(n: int, k: int, fraction: float) -> float:
    """Return the probability that at least k of n have come, by summing the binomial."""
    return math.fsum(
        math.comb(n, j) * fraction**j * (1 - fraction) ** (n - j) for j in range(k, n + 1)
    )


@pytest.mark.parametrize("k", range(6))
def test_quorum_wait_equals_sorted_random_delays(k: int) -> None:
    """Mean, deviation and percentiles are those of the k-th smallest of five drawn delays."""
    wait = QuorumWait(5, k, 20.0, 120.0)
    drawn = np.sort(np.random.default_rng(7).uniform(20, 120, (200_000, 5)), axis=1)
    kth = drawn[:, k - 1] if k else np.zeros(len(drawn))
    assert wait.mean_ms == pytest.approx(kth.mean(), abs=0.25)
    assert wait.deviation_ms == pytest.approx(kth.std(), abs=0.25)
    for percent in (1, 50, 95, 99):
        assert wait.percentile_ms(percent) == pytest.approx(np.percentile(kth, percent), abs=0.6)


@given(waits(smallest_k=1), st.floats(0.1, 99.9))
def test_percentile_inverts_the_binomial_sum(wait: QuorumWait, percent: float) -> None:
    """By the p-th percentile, k of n delays are over with probability p."""
    span = wait.max_delay_ms - wait.min_delay_ms
    if span < 1:
        return
    fraction = (wait.percentile_ms(percent) - wait.min_delay_ms) / span
    reached = binomial_tail(wait.followers, wait.write_quorum, fraction)
    assert reached == pytest.approx(percent / 100, abs=1e-6)


@given(waits(smallest_k=1))
def test_mean_is_the_area_over_the_distribution(wait: QuorumWait) -> None:
    """The mean equals the integral of 1 - F, without the Beta distribution."""
    area, _ = quad(lambda u: 1 - binomial_tail(wait.followers, wait.write_quorum, u), 0, 1)
    span = wait.max_delay_ms - wait.min_delay_ms
    assert wait.mean_ms == pytest.approx(wait.min_delay_ms + span * area, rel=1e-6, abs=1e-9)


@given(waits())
def test_figures_stay_inside_the_delay_range_and_in_order(wait: QuorumWait) -> None:
    """No percentile leaves [a, b] or overtakes a higher one; without k all are zero."""
    figures = [*wait.percentiles_ms([0, 50, 95, 99, 100]), wait.max_ms]
    assert figures == sorted(figures)
    if wait.write_quorum == 0:
        assert set(figures) == {0.0}
        assert wait.mean_ms == wait.deviation_ms == 0
    else:
        slack = 1e-9 * (1 + wait.max_delay_ms)
        assert wait.min_delay_ms - slack <= figures[0]
        assert figures[-1] <= wait.max_delay_ms + slack
        assert wait.max_ms == pytest.approx(wait.max_delay_ms)


@given(waits(), st.integers(1, 10**6))
def test_mean_error_shrinks_with_the_root_of_writes(wait: QuorumWait, writes: int) -> None:
    """Four times the writes halve the sampling error of the mean."""
    one, four = wait.mean_error_ms(writes), wait.mean_error_ms(4 * writes)
    assert four == pytest.approx(one / 2)


def test_equal_delays_leave_nothing_to_chance() -> None:
    """With a = b every figure is that delay, and the error is zero."""
    wait = QuorumWait(5, 2, 30.0, 30.0)
    assert {wait.mean_ms, wait.max_ms, *wait.percentiles_ms([1, 50, 99])} == {30.0}
    assert wait.mean_error_ms(10) == 0


@pytest.mark.parametrize(
    ("n", "k", "a", "b"), [(5, 6, 0, 1), (5, -1, 0, 1), (5, 1, 2, 1), (5, 1, -1, 1)]
)
def test_impossible_quorum_wait_is_refused(n: int, k: int, a: float, b: float) -> None:
    """A k outside 0..n or a reversed range raises, and names the values."""
    with pytest.raises(ValueError, match=r"k=|delay range"):
        QuorumWait(n, k, a, b)
