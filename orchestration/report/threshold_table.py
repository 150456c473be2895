"""The table of a run's thresholds: the same texts for the console, HTML and Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.analysis.stats import Estimate
from orchestration.report.labels import labels
from orchestration.report.numbers import decimals_for, with_interval
from orchestration.report.tables import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.thresholds import Check, Outcome, Unit

MOST_DECIMALS = 3


def columns(outcomes: Sequence[Outcome]) -> list[Column]:
    """Return the columns: the threshold, its status, and what was measured."""
    return [
        Column("threshold", [outcome.text for outcome in outcomes], is_number=False),
        Column("status", [outcome.status for outcome in outcomes], is_number=False),
        Column("measured", [finding(outcome) for outcome in outcomes], is_number=False),
    ]


def finding(outcome: Outcome) -> str:
    """Return what decided: each cell that breaches or is unknown, or else the closest one."""
    named = list(zip(labels(outcome.checks), outcome.checks, strict=True))
    if outcome.status == "passed":
        name, check = min(named, key=lambda one: abs((one[1].measured or 0.0) - outcome.limit))
        rest = f", the closest of {len(named)} cells" if len(named) > 1 else ""
        return f"{_figure(check, outcome)} at {name}{rest}"
    breached = [f"{_figure(c, outcome)} at {name}" for name, c in named if c.status == "breached"]
    unknown = [f"{name} {_short(c.reason)}" for name, c in named if c.status == "unknown"]
    return "; ".join(filter(None, [*breached, *unknown, outcome.reason]))


def details(outcome: Outcome) -> str:
    """Return a line for each cell that the threshold is for, with all that is known."""
    lines = [
        f"{name}: {check.status}, "
        f"{check.reason if check.status == 'unknown' else _figure(check, outcome)}"
        for name, check in zip(labels(outcome.checks), outcome.checks, strict=True)
    ]
    return "\n".join([*lines, *filter(None, [outcome.reason])])


def _short(reason: str) -> str:
    """Return the stamp or the figure of a reason: the notes beside the table have the rest."""
    return reason.partition(":")[0]


def _figure(check: Check, outcome: Outcome) -> str:
    """Return "45.2 ±1.3 ms", and whether the limit lies within that interval."""
    found = Estimate(check.measured or 0.0, check.ci95)
    text = with_interval(found, _decimals(found.value, outcome.limit)) + _unit(outcome.unit)
    is_close = check.ci95 is not None and check.ci95[0] <= outcome.limit <= check.ci95[1]
    return f"{text} (the limit is within the interval)" if is_close else text


def _decimals(figure: float, limit: float) -> int:
    """Return how many decimals show on which side of the limit the figure lies."""
    for decimals in range(decimals_for([figure]), MOST_DECIMALS):
        shown = round(figure, decimals)
        if (shown > limit, shown < limit) == (figure > limit, figure < limit):
            return decimals
    return MOST_DECIMALS


def _unit(unit: Unit) -> str:
    return f" {unit}" if unit == "ms" else unit
