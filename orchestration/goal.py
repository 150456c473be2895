"""What a saturation run looks for, as its manifest holds it; pure."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final

import msgspec

from orchestration import limits
from orchestration.cells import headline_of
from orchestration.errors import UsageError
from orchestration.load.workload import YCSB
from orchestration.report.sentence import OPERATIONS
from orchestration.report.summary import WRITES_NEEDED
from orchestration.saturation import Search
from orchestration.thresholds import Threshold, parse_threshold

if TYPE_CHECKING:
    from orchestration.scenario import Scenario

OBJECTIVE_NAME: Final = "--slo"
# Requests that fail, at most 1 in 100, must not take a trial below what its percentile needs.
WRITES_TO_SPARE: Final = 1.05
# A mix draws its operations: so many standard deviations fewer must still be enough.
SPARE_DEVIATIONS: Final = 3


class Goal(msgspec.Struct, frozen=True):
    """An objective for the response time, and the search for the highest rate that meets it.

    Attributes:
        objective: such as "p99 < 50ms".
        search: the rates that may be tried, and how.
        quorums: every k, in the order in which they are measured.
    """

    objective: str
    search: Search
    quorums: tuple[int, ...]

    @property
    def threshold(self) -> Threshold:
        """The objective, read."""
        return parse_threshold(self.objective, "The run's objective")


def make_goal(scenario: Scenario, objective: str, *, precision: float, confirm: int) -> Goal:
    """The goal of a run.

    Args:
        scenario: its rate is where the climb begins, its seed decides the order of k.
        objective: what the user wrote.
        precision: share by which neighbouring rates differ at most.
        confirm: further trials at the found rate.

    Raises:
        UsageError: the objective is not about response times, or cannot be measured in trials so
            short at the first rate.
    """
    threshold = _check(parse_threshold(objective, OBJECTIVE_NAME), objective)
    first_per_s = scenario.rate_per_s or 0.0
    duration_s = scenario.duration_s or 0.0
    needed = WRITES_NEEDED.get(threshold.quantity, 1)
    operation, share = _headline(scenario)
    lowest_per_s = max(limits.RATE.low, _requests_needed(needed, share) / duration_s)
    if first_per_s < lowest_per_s:
        what = OPERATIONS[operation].many.removeprefix("acknowledged ")
        mixed = "" if share == 1 else f", and {share:.3g} of all requests are {what}"
        enough = math.ceil(round(10 * lowest_per_s, 6)) / 10
        raise UsageError(
            f"--start is {first_per_s:g}/s, but {threshold.quantity} takes {needed} {what} in each "
            f"trial of {duration_s:g} s{mixed}: give at least {enough:.1f}, or a longer --duration."
        )
    order = list(scenario.quorums)
    random.Random(scenario.seed).shuffle(order)  # noqa: S311 - reproducible order, no secret
    search = Search(
        precision=precision,
        confirm=confirm,
        first_rate_per_s=first_per_s,
        lowest_rate_per_s=lowest_per_s,
        highest_rate_per_s=limits.RATE.high,
    )
    return Goal(threshold.text, search, tuple(order))


def _headline(scenario: Scenario) -> tuple[str, float]:
    """The operation that latencies are of, and its share of the requests, above 0."""
    if scenario.workload in YCSB:
        shares = dict(YCSB[scenario.workload].shares)
        shares["write"] = shares.get("write", 0.0) + shares.pop("insert", 0.0)
    elif scenario.workload == "mixed":
        shares = {"write": 1 - scenario.read_share, "read": scenario.read_share}
    else:
        shares = {"write": 1.0}
    operation = headline_of(scenario)
    return operation, shares[operation]


def _requests_needed(needed: int, share: float) -> float:
    """How many requests have so many of an operation, some to spare, but for rare bad luck.

    The x for which x - SPARE_DEVIATIONS * sqrt(x * (1 - share)), of a binomial distribution with
    mean x, is what is needed; over the share.
    """
    luck = SPARE_DEVIATIONS * math.sqrt(1 - share)
    root = (luck + math.sqrt(luck**2 + 4 * WRITES_TO_SPARE * needed)) / 2
    return root**2 / share


def _check(threshold: Threshold, text: str) -> Threshold:
    if not threshold.is_response_time or threshold.comparison not in {"<", "<="}:
        raise UsageError(
            f"{OBJECTIVE_NAME} was given {text!r}, but it must bound a response time from above: "
            "write it like 'p99 < 200ms'."
        )
    if threshold.quorums is not None:
        raise UsageError(
            f"{OBJECTIVE_NAME} was given {text!r}, but it is for every k: leave out 'at', and "
            "choose with --k."
        )
    return threshold
