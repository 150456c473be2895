"""What a saturation run looks for: what is understood, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest

from orchestration.errors import UsageError
from orchestration.goal import Goal, make_goal
from orchestration.request import SweepRequest, to_scenario

SCENARIO = to_scenario(SweepRequest(seed=7), followers=5, fresh_seed=1)


def goal(objective: str = "p99<50ms", **changes: object) -> Goal:
    """The goal of the default scenario, or of one that is changed."""
    scenario = replace(SCENARIO, **changes)  # type: ignore[arg-type] # of many types
    return make_goal(scenario, objective, precision=0.05, confirm=3)


def test_goal_of_a_scenario_begins_at_its_rate_and_ends_where_percentiles_do() -> None:
    """A p99 takes 100 writes in each trial of 4 s, and some to spare."""
    found = goal()
    assert found.objective == "p99 < 50ms"
    assert found.threshold.limit == 50.0
    assert found.search.first_rate_per_s == 100.0
    assert found.search.lowest_rate_per_s == pytest.approx(26.25)
    assert (found.search.precision, found.search.confirm) == (0.05, 3)
    assert goal("mean < 50ms").search.lowest_rate_per_s == pytest.approx(0.2625)
    assert goal("max < 1s", duration_s=60.0).search.lowest_rate_per_s == 0.1


def test_every_k_comes_once_in_an_order_of_the_seed() -> None:
    """The same seed gives the same order, another one another."""
    orders = {goal(seed=seed).quorums for seed in range(20)}
    assert all(sorted(order) == [0, 1, 2, 3, 4, 5] for order in orders)
    assert len(orders) > 10
    assert goal(seed=3) == goal(seed=3)


def test_goal_survives_the_manifest() -> None:
    """What is written there is read as the same goal."""
    written = msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(goal())))
    assert msgspec.convert(written, Goal) == goal()


@pytest.mark.parametrize("objective", ["rate > 5/s", "errors < 1%", "p99 > 5ms", "p50 >= 5ms"])
def test_objective_that_bounds_no_response_time_from_above_is_refused(objective: str) -> None:
    """More load makes nothing else worse."""
    with pytest.raises(UsageError, match="must bound a response time from above") as refused:
        goal(objective)
    assert repr(objective) in str(refused.value)


def test_objective_for_some_cells_is_refused() -> None:
    """--k says which ones to measure."""
    with pytest.raises(UsageError, match="for every k: leave out 'at', and choose with --k"):
        goal("p99 < 5ms at k=3")


def test_objective_that_cannot_be_read_is_refused_by_its_option() -> None:
    """As a threshold's is."""
    with pytest.raises(UsageError, match="--slo was given 'p99 < 5'"):
        goal("p99 < 5")


def test_first_rate_that_is_too_low_for_the_percentile_is_refused() -> None:
    """The sentence says what would do."""
    with pytest.raises(
        UsageError, match="p99 takes 100 writes in each trial of 1 s: give at least 105"
    ):
        goal(duration_s=1.0)
    with pytest.raises(UsageError, match=r"give at least 26\.3, or") as refused:
        goal(rate_per_s=26.2)
    assert "of all requests" not in str(refused.value)
    assert goal(rate_per_s=26.3).search.lowest_rate_per_s == pytest.approx(26.25)
    assert goal("p95 < 5ms", duration_s=1.0).search.lowest_rate_per_s == pytest.approx(21.0)


@pytest.mark.parametrize(
    ("changes", "share", "words"),
    [
        ({"workload": "ycsb-a"}, 0.5, "takes 100 writes"),
        ({"workload": "ycsb-b"}, 0.05, "0.05 of all requests are writes"),
        ({"workload": "ycsb-c"}, 1.0, "takes 100 reads"),
        ({"workload": "ycsb-d"}, 0.05, "0.05 of all requests are writes"),
        ({"workload": "ycsb-e"}, 0.05, "0.05 of all requests are writes"),
        ({"workload": "ycsb-f"}, 0.5, "0.5 of all requests are read-modify-writes"),
        ({"workload": "mixed", "read_share": 0.8}, 0.2, "0.2 of all requests are writes"),
        ({"workload": "mixed", "read_share": 1.0}, 1.0, "takes 100 reads"),
    ],
)
def test_lowest_rate_of_a_mix_has_enough_of_the_operation_that_is_bounded(
    changes: dict[str, object], share: float, words: str
) -> None:
    """As many of it as the percentile takes, even where the draw gives few of them."""
    lowest_per_s = goal(rate_per_s=10_000.0, **changes).search.lowest_rate_per_s
    mean = 4 * lowest_per_s * share
    assert mean - 3 * math.sqrt(mean * (1 - share)) == pytest.approx(105)
    with pytest.raises(UsageError, match=words):
        goal(rate_per_s=20.0, **changes)
