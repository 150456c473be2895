"""What a saturation run found, in sentences and clauses built from what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.report.numbers import ABSENT, count, decimals_for, fixed, ms
from orchestration.report.sentence import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.report.saturation_summary import Point, Result
    from orchestration.report.saturation_trace import Trace
    from orchestration.thresholds import Threshold

MARKS = {"at-least": "≥ ", "at-most": "≤ "}
SHARES = {"exact": "", "at-least": "at least ", "at-most": "at most "}


def whose(workload: str, operation: str) -> str:
    """Return whose response times are bounded where a workload has others: " of writes"."""
    if workload in {"", "writes"}:
        return ""
    return f" of {OPERATIONS[operation].many.removeprefix('acknowledged ')}"


def objective_of(objective: str, quantity: str, of: str) -> str:
    """Return the objective with what it is `of`: "p99 of writes < 50ms"."""
    return objective.replace(quantity, f"{quantity}{of}", 1)


def headline(results: Sequence[Result], *, followers: int, objective: str, noun: str) -> str:
    """Return one sentence: what the majority's k sustains, beside the smallest one.

    Args:
        results: of every k, ascending.
        followers: n.
        objective: such as "p99 < 50ms", or "p99 of writes < 50ms".
        noun: what is sustained: writes, or requests.
    """
    known = [result for result in results if result.found != "unknown"]
    if not known:
        return f"Nothing is known about the rates that meet {objective}."
    majority = [result for result in known if result.k == (followers + 1) // 2]
    result = majority[0] if majority else known[-1]
    if result.found == "none":
        return f"k={result.k} does not meet {objective} even at {rate(result.next_rate)} {noun}/s."
    least, why = "", ""
    if result.found == "at-least":
        least = "at least "
        why = "the load generator could offer no more" if result.next_rate else "no more was tried"
    meeting = f"with {objective}" if " of " in objective else f"at {objective}"
    what = f"k={result.k} sustains {least}{rate(result.rate)} {noun}/s {meeting}"
    if result.share is not None:
        what += f", {SHARES[result.share_is or 'exact']}{result.share:.2f} of k={results[0].k}"
    return f"{what}; {why}." if why else f"{what}."


def rate(value: float | None) -> str:
    """Return a rate to three digits at least: 28.7, 838 or 1,838."""
    return ABSENT if value is None else fixed(value, decimals_for([value]))


def sustained(result: Result) -> str:
    """Return what a k sustains in a word: 1,838, ≥ 1,838, none, or a dash."""
    if result.found in {"none", "unknown"}:
        return "none" if result.found == "none" else ABSENT
    return f"{MARKS.get(result.found, '')}{rate(result.rate)}"


def share(result: Result) -> str:
    """Return it as a share of the smallest k's: 0.71, ≤ 0.71, or a dash."""
    if result.share is None:
        return ABSENT
    return f"{MARKS.get(result.share_is or '', '')}{result.share:.2f}"


def why_not_met(point: Point, objective: Threshold) -> str:
    """Return why a rate did not meet the objective: "p99 61.2 ms", or the stamp's reason."""
    figure = getattr(point.response_ms, objective.quantity)
    if figure is not None and not objective.is_met_by(figure):
        return f"{objective.quantity} {ms(figure)}"
    if point.answer == "missed" and point.stamp in {"ok", "generator-bound"}:
        # Only the confirming trials missed it, or one was disturbed and hides the figure.
        return "most trials missed it"
    return f"{point.stamp}: {point.reason}"


def why_unknown(found: Trace) -> str:
    """Return why a search has no result, as a clause."""
    if not found.rows:
        return "it was not begun"
    if found.finding.kind == "unfinished":
        return "the search was not finished"
    if found.finding.kind == "unsettled":
        return f"{count(len(found.attempts), 'trial')} contradicted each other"
    answered = zip(found.rows, found.attempts, strict=False)
    spoilt = [row for row, attempt in answered if attempt.answer != "met"]
    return next((row.reason for row in reversed(spoilt) if row.reason), "trials had too few writes")


def missing(status: str, results: Sequence[Result], *, lost_line: bool) -> str | None:
    """Return what a run lacks, as a sentence; None if it is whole."""
    if status == "complete" and not lost_line:
        return None
    behind = ", ".join(f"k={result.k}" for result in results if result.found == "unknown")
    trials = sum(result.trials for result in results)
    parts = [f"The run is {status}: {count(trials, 'trial')} are here"]
    if behind:
        parts.append(f"without a result for {behind}")
    if lost_line:
        parts.append("and a last line that was cut off is left out")
    return ", ".join(parts) + "."
