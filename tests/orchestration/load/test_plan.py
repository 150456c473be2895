"""The plan of a load: checked, and shared among processes without loss."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.load.plan import MIN_IN_FLIGHT_LIMIT, NS_PER_S, LoadPlan, Share


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


@pytest.mark.parametrize(
    ("field", "option", "low", "high", "step"),
    [
        ("rate_per_s", "--rate", 0, 1_000_000, 0.1),
        ("warmup_s", "--warmup", 0, 604_800, 0.1),
        ("duration_s", "--duration", 0, 604_800, 0.1),
        ("keys", "--keys", 1, 1_000_000_000, 1),
        ("read_share", "--read-share", 0, 1, 0.001),
        ("max_in_flight", "--max-in-flight", 0, 1_000_000, 1),
        ("seed", "--load-seed", 0, 2**63 - 1, 1),
        ("total_writes", "--total-writes", 0, 10**12, 1),
        ("write_quorum", "--write-quorum", 0, 1000, 1),
    ],
)
def test_the_limits_of_a_number_are_allowed_and_nothing_beyond(
    field: str, option: str, low: float, high: float, step: float
) -> None:
    """A user who takes the sentence at its word gets a plan."""
    for allowed in (low, high):
        assert getattr(LoadPlan(**{field: allowed}), field) == allowed  # type: ignore[arg-type]
    for beyond in (low - step, high + step):
        with pytest.raises(ValueError, match=f"^{option} must be") as refused:
            LoadPlan(**{field: beyond})  # type: ignore[arg-type]
        assert f"between {low:g} and {high:g}, not" in str(refused.value)


def test_sizes_of_values_have_limits_of_their_own() -> None:
    """From the shortest that never repeats to what the store takes by default."""
    for sizes in ((27, 27), (27, 1_048_576), (1_048_576, 1_048_576)):
        assert LoadPlan(value_bytes=sizes).value_bytes == sizes
    for sizes in ((26, 64), (64, 1_048_577)):
        with pytest.raises(ValueError, match=r"^--value-bytes must be between"):
            LoadPlan(value_bytes=sizes)


def test_a_plan_without_options_is_the_documented_one() -> None:
    """Figures of runs without options are compared over versions."""
    plan = LoadPlan()
    assert (plan.rate_per_s, plan.warmup_s, plan.duration_s) == (100, 1, 0)
    assert (plan.keys, plan.value_bytes, plan.read_share) == (1000, (64, 64), 0.5)
    assert (plan.seed, plan.max_in_flight, plan.total_writes) == (1, 0, 0)
    assert plan.write_quorum is None


@pytest.mark.parametrize(
    ("plan", "is_open_loop", "has_end", "end_ns"),
    [
        (LoadPlan(rate_per_s=0), False, False, None),
        (LoadPlan(rate_per_s=0.5, duration_s=0.5), True, True, 3 * NS_PER_S // 2),
        (LoadPlan(total_writes=1), True, True, None),
    ],
)
def test_a_plan_knows_its_loop_and_its_end(
    plan: LoadPlan,
    is_open_loop: bool,  # noqa: FBT001 -- pytest hands parameters over by name
    has_end: bool,  # noqa: FBT001
    end_ns: int | None,
) -> None:
    """The end is counted from the first arrival, warm-up included."""
    assert (plan.is_open_loop, plan.has_end, plan.end_ns) == (is_open_loop, has_end, end_ns)
    assert plan.warmup_ns == NS_PER_S


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
