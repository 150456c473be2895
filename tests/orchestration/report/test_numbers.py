"""Numbers are readable and never lie about their size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.analysis.stats import Estimate
from orchestration.report.numbers import count, decimals_for, fixed, ms, with_interval


@given(st.floats(1e-3, 1e6))
def test_ms_keeps_the_value_to_half_a_percent(value: float) -> None:
    """Three digits from 0.1 ms on; below, microseconds."""
    shown = float(ms(value).removesuffix(" ms").replace(",", ""))
    assert shown == pytest.approx(value, rel=0.006, abs=0.0006)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5829, "0.583 ms"), (5.012, "5.01 ms"), (50.26, "50.3 ms"), (5012.3, "5,012 ms")],
)
def test_ms_shows_the_digits_that_carry_meaning(value: float, text: str) -> None:
    """Small values show decimals, large ones separate thousands."""
    assert ms(value) == text


def test_sign_is_shown_but_never_on_zero() -> None:
    """+1.5 and -1.5 have a sign, what rounds to zero has none."""
    assert [fixed(v, 1, sign=True) for v in (1.5, -1.5, -0.01, 0.01)] == [
        "+1.5",
        "-1.5",
        "0.0",
        "0.0",
    ]


def test_absent_values_are_a_dash() -> None:
    """None is never shown as a number."""
    assert fixed(None, 1) == with_interval(None, 1) == "\N{EN DASH}"
    assert decimals_for([None]) == decimals_for([0.0]) == 1


def test_interval_shows_half_its_width() -> None:
    """The ± is half the interval, absent for one trial; one that is cut at 0 is told as it is."""
    assert with_interval(Estimate(50.0, (48.0, 52.0)), 1) == "50.0 ±2.0"
    assert with_interval(Estimate(50.0, None), 1) == "50.0"
    assert with_interval(Estimate(23.7, (0.0, 59.8)), 1) == "23.7 (0.0 to 59.8)"  # cut at nothing
    assert with_interval(Estimate(23.7, (0.0, 47.4)), 1) == "23.7 ±23.7"
    assert (count(1, "trial"), count(2, "trial")) == ("1 trial", "2 trials")
