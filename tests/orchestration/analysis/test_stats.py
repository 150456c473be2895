"""Estimates over trials, against textbook values and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from orchestration.analysis.stats import Estimate, estimate

values = st.floats(-1e6, 1e6)


@given(st.lists(values, min_size=2, max_size=19).filter(lambda v: np.std(v) > 1e-6))
def test_few_trials_have_a_student_interval(per_trial: list[float]) -> None:
    """Below 20 trials the interval is scipy's own Student-t interval of the mean."""
    expected = reference.ttest_1samp(per_trial, 0).confidence_interval(0.95)
    found = estimate(per_trial)
    assert found.value == pytest.approx(np.mean(per_trial), abs=1e-6)
    assert found.interval == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)


def test_one_trial_has_no_interval() -> None:
    """A single trial gives a value and admits that it knows no spread."""
    assert estimate([4.5]) == Estimate(4.5, None)
    assert estimate([4.5]).half_width is None
    assert estimate([4.5]).shifted(-1) == Estimate(3.5, None)


def test_equal_trials_have_an_interval_of_no_width() -> None:
    """Equal values neither divide by zero nor warn, with few trials or many."""
    assert estimate([3.0] * 3) == Estimate(3.0, (3.0, 3.0))
    assert estimate([3.0] * 30) == Estimate(3.0, (3.0, 3.0))


def test_many_trials_have_a_bootstrap_interval_that_repeats() -> None:
    """From 20 trials on a skewed sample gets an asymmetric interval, the same each time."""
    sample = list(np.random.default_rng(3).exponential(10, 20))
    first = estimate(sample)
    assert first == estimate(sample)
    assert first.interval is not None
    low, high = first.interval
    assert low < first.value < high
    assert high - first.value > 1.05 * (first.value - low)


def test_student_interval_of_three_trials_covers_the_truth() -> None:
    """Of 2,000 simulated sweeps of 3 trials, 95% of the intervals hold the true mean."""
    rng = np.random.default_rng(11)
    held = 0
    for trials in rng.normal(50, 4, (2_000, 3)):
        low, high = estimate(list(trials)).interval or (0, 0)
        held += low <= 50 <= high
    assert 0.935 < held / 2_000 < 0.965


@given(st.lists(values, min_size=2, max_size=10), values)
def test_shifted_estimate_equals_estimate_of_shifted_trials(v: list[float], by: float) -> None:
    """Subtracting an exact number moves value and interval alike."""
    moved, again = estimate(v).shifted(by), estimate([x + by for x in v])
    assert moved.value == pytest.approx(again.value, abs=1e-5)
    assert moved.interval == pytest.approx(again.interval, abs=1e-4)


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")]])
def test_estimate_of_nothing_is_refused(bad: list[float]) -> None:
    """No value and values that are not finite raise instead of giving a NaN."""
    with pytest.raises(ValueError, match="finite"):
        estimate(bad)
