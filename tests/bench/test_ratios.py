"""The ratios of two candidates that took turns."""

from __future__ import annotations

import math
import random

import pytest

from tests.bench.ratios import Ratio, by_figure, paired_ratio, verdict


def test_drift_that_meets_both_of_a_pair_leaves_the_ratio() -> None:
    """A machine that becomes half as fast between rounds changes no ratio."""
    old = [100.0, 50.0, 80.0, 20.0]
    found = paired_ratio(old, [each * 1.1 for each in old])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((1.1, 1.1, 1.1))


def test_intervals_of_a_table_hold_all_at_once() -> None:
    """Of tables of ten figures that have not changed, about 5% show any change, not 40%."""
    rng = random.Random(7)
    wrong = 0
    tables = 400
    for _ in range(tables):
        pairs = [
            [[math.exp(rng.gauss(0, 0.05)) for _ in range(10)] for _ in range(2)] for _ in range(10)
        ]
        found = [paired_ratio(old, new, comparisons=10) for old, new in pairs]
        wrong += any(each is not None and not each.holds_no_change for each in found)
    assert wrong / tables < 0.09


def test_interval_of_one_figure_is_students() -> None:
    """Ratios of 1 and of e, twice each: log mean 0.5, t(0.975, 3) = 3.1824, sd 0.57735."""
    found = paired_ratio([1.0] * 4, [1.0, math.e, 1.0, math.e])
    assert found is not None
    assert math.log(found.value) == pytest.approx(0.5)
    assert math.log(found.high) - 0.5 == pytest.approx(3.182446 * 0.577350 / 2, rel=1e-5)
    assert 0.5 - math.log(found.low) == pytest.approx(3.182446 * 0.577350 / 2, rel=1e-5)


@pytest.mark.parametrize(("old", "new"), [([1.0], [1.0]), ([1.0, 0.0], [1.0, 1.0])])
def test_no_ratio_of_one_round_or_of_zero(old: list[float], new: list[float]) -> None:
    """What cannot be compared is said to be so."""
    assert paired_ratio(old, new) is None
    assert verdict(None, is_more_better=True) == "not comparable"


@pytest.mark.parametrize(
    ("low", "high", "is_more_better", "expected"),
    [
        (0.9, 1.1, True, "within noise"),
        (1.01, 1.1, True, "better"),
        (1.01, 1.1, False, "worse"),
        (0.8, 0.99, True, "worse"),
        (0.8, 0.99, False, "better"),
    ],
)
def test_verdict_is_the_intervals(
    low: float,
    high: float,
    is_more_better: bool,  # noqa: FBT001 -- pytest hands parameters over by name
    expected: str,
) -> None:
    """A change is one if its whole interval is on one side of 1."""
    ratio = Ratio((low + high) / 2, low, high)
    assert verdict(ratio, is_more_better=is_more_better) == expected


def test_figure_that_a_turn_lacks_is_left_out() -> None:
    """An old tree may not tell all that a new one tells."""
    turns = [{"a": 1.0, "b": 2.0}, {"a": 3.0}]
    assert by_figure(turns) == {"a": [1.0, 3.0]}
    assert by_figure([]) == {}
