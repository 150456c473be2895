"""The plan of a load: checked, and shared among processes without loss."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.load.plan import MIN_IN_FLIGHT_LIMIT, LoadPlan, Share


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=20))
def test_shares_of_a_total_add_up_to_it(total: int, processes: int) -> None:
    """Requests are divided without rest, and evenly to one."""
    parts = [Share(index, processes).of_total(total) for index in range(processes)]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [
        ("rate_per_s", -1, "--rate"),
        ("rate_per_s", float("nan"), "--rate"),
        ("arrivals", "bursty", "--arrivals"),
        ("warmup_s", -0.1, "--warmup"),
        ("duration_s", float("inf"), "--duration"),
        ("keys", 0, "--keys"),
        ("value_bytes", (3, 64), "--value-bytes"),
        ("value_bytes", (64, 63), "--value-bytes"),
        ("key_choice", "best", "--key-choice"),
        ("mix", "ycsb-z", "--mix"),
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
