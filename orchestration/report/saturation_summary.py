"""What a saturation run found, and ``saturation.json``, schema version 1.

For each k the search is followed again through the trials in ``cells.jsonl``, so that a report
needs nothing but the run's files. ``results`` has one entry a k, in ascending order. Its ``found``
is ``sustained``: ``rate`` is the highest rate that met the objective, and at ``next_rate`` the
store did not; ``at-least``: it met the objective at ``rate``, and not the store but the load
generator, or the range of rates, ended the climb; ``none``: not even the lowest rate met it; or
``unknown``, for the ``reason``. A figure in ms is the median over trials of each trial's figure, as
most trials decide the search too, and at a confirmed rate over the confirming ones; one that may
not be quoted is null.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Literal

import msgspec

from orchestration import saturation
from orchestration.analysis.histograms import FIGURES
from orchestration.report import saturation_words as words
from orchestration.report.records import WRITE, Figures
from orchestration.report.saturation_trace import Trace, counted, trace
from orchestration.report.summary import Cell, Verdict, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestration.goal import Goal
    from orchestration.report.records import Run, TrialRow

SCHEMA = 1
Found = Literal["sustained", "at-least", "none", "unknown"]
Bound = Literal["exact", "at-least", "at-most"]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One rate that was tried at one k, and what its trials measured.

    Attributes:
        rate: offered requests/s.
        answer: met, missed, generator-bound or void, once enough trials say so; else null.
    """

    rate: float
    achieved_rate: float | None
    answer: str | None
    trials: int
    stamp: str
    reason: str
    errors: dict[str, int]
    response_ms: Figures


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one k sustains; see the module's head.

    Attributes:
        rate: offered requests/s; null if no rate is known to meet the objective.
        point: what was measured at that rate.
        share: of what the smallest k sustains; null where either is unknown.
        share_is: at-least or at-most, where one of the two rates is only a lower bound.
        next_rate: the lowest rate that did not meet the objective; null without one.
        next_because: why not, a clause; empty without one.
        confirmed: confirming trials at `rate` that met the objective, of how many.
        reason: why the result is unknown, a clause; empty if it is known.
    """

    k: int
    found: Found
    rate: float | None
    point: Point | None
    share: float | None
    share_is: Bound | None
    next_rate: float | None
    next_because: str
    confirmed: tuple[int, int]
    trials: int
    reason: str
    points: list[Point]


class SaturationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a saturation run found; written as ``saturation.json``."""

    schema: int = SCHEMA
    run: str
    engine: str
    followers: int
    seed: int | None
    ack: str
    workload: str
    operation: str
    verdict: Verdict
    status: str
    objective: str
    quantity: str
    limit_ms: float
    precision: float
    trials_done: int
    missing: str | None
    sentence: str
    results: list[Result]


def summarise_saturation(run: Run, goal: Goal) -> SaturationSummary:
    """Return the summary of a run, complete or not."""
    manifest = run.manifest
    cells = summarise(counted(run, goal)).cells
    traces = [trace(k, run.rows, goal) for k in sorted(goal.quorums)]
    results = _with_shares([_result(found, cells, goal) for found in traces])
    workload = str(manifest.scenario.get("workload", ""))
    operation = run.rows[0].operation if run.rows else WRITE
    of = words.whose(workload, operation)
    return SaturationSummary(
        run=manifest.run,
        engine=manifest.engine,
        followers=manifest.followers,
        seed=manifest.seed,
        ack=manifest.ack,
        workload=workload,
        operation=operation,
        verdict=_verdict(run.rows, results),
        status=manifest.status,
        objective=goal.objective,
        quantity=goal.threshold.quantity,
        limit_ms=goal.threshold.limit,
        precision=goal.search.precision,
        trials_done=len(run.rows),
        missing=words.missing(manifest.status, results, lost_line=run.lost_line),
        sentence=words.headline(
            results,
            followers=manifest.followers,
            objective=words.objective_of(goal.objective, goal.threshold.quantity, of),
            noun="writes" if workload == "writes" else "requests",
        ),
        results=results,
    )


def to_json(summary: SaturationSummary) -> bytes:
    """Return the text of ``saturation.json``."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"


def _result(found: Trace, cells: Sequence[Cell], goal: Goal) -> Result:
    finding, points = found.finding, _points(found, cells, goal)
    above = None if finding.above is None else points[finding.above]
    here = None if finding.rung is None else points[finding.rung]
    return Result(
        k=found.k,
        found=finding.kind if found.is_known else "unknown",  # type: ignore[arg-type] # the others
        rate=here.rate if here else None,
        point=here,
        share=None,
        share_is=None,
        next_rate=above.rate if above else None,
        next_because=words.why_not_met(above, goal.threshold) if above else "",
        confirmed=finding.votes,
        trials=len(found.rows),
        reason="" if found.is_known else words.why_unknown(found),
        points=sorted(points.values(), key=lambda point: point.rate),
    )


def _points(found: Trace, cells: Sequence[Cell], goal: Goal) -> Mapping[int, Point]:
    """Return what the trials of one k measured at each rung that they tried."""
    answers = saturation.answers_of(goal.search, found.attempts)
    by_rate = {cell.rate: cell for cell in cells if cell.k == found.k}
    return {
        rung: _point(by_rate[goal.search.rate_per_s(rung)], found.counted, answer)
        for rung, answer in answers.items()
    }


def _point(cell: Cell, rows: Sequence[TrialRow], answer: str | None) -> Point:
    trials = [row.response_ms for row in rows if cell.has(row)]
    medians = {
        name: median(getattr(figures, name) for figures in trials)
        for name in FIGURES
        if getattr(cell.response_ms, name) is not None
    }
    return Point(
        rate=cell.rate or 0.0,
        achieved_rate=cell.achieved_rate,
        answer=answer,
        trials=cell.trials,
        stamp=cell.stamp,
        reason=cell.reason,
        errors=cell.errors,
        response_ms=Figures(**medians),
    )


def _with_shares(results: Sequence[Result]) -> list[Result]:
    """Return the results with what each sustains as a share of the smallest k."""
    base, *others = results
    return [base, *(_with_share(result, base) for result in others)]


def _with_share(result: Result, base: Result) -> Result:
    kinds = result.found, base.found
    bounds: dict[tuple[Found, Found], Bound] = {
        ("sustained", "sustained"): "exact",
        ("at-least", "sustained"): "at-least",
        ("sustained", "at-least"): "at-most",
    }
    if kinds not in bounds or not result.rate or not base.rate:
        return result
    share = result.rate / base.rate
    return msgspec.structs.replace(result, share=share, share_is=bounds[kinds])


def _verdict(rows: Sequence[TrialRow], results: Sequence[Result]) -> Verdict:
    if any(row.parity.status == "mismatch" for row in rows):
        return "violated"
    return "valid" if any(result.found != "unknown" for result in results) else "unknown"
