"""How a run came out, in the same words for the console, HTML, Markdown and stderr.

What its objectives came to is one thing, how far the measurement can be relied on another.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from orchestration.report.labels import labels
from orchestration.report.numbers import count
from orchestration.report.threshold_table import finding
from orchestration.thresholds import result_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.report.summary import Cell, Summary
    from orchestration.thresholds import Outcome, Status

_WORST_FIRST: Final[tuple[Status, ...]] = ("breached", "unknown", "passed")


class Measured(Protocol):
    """What there is to say about any run's measurement."""

    @property
    def verdict(self) -> str:
        """Valid, violated or unknown."""
        ...

    @property
    def status(self) -> str:
        """Complete, interrupted or failed."""
        ...


def result_line(outcomes: Sequence[Outcome]) -> str:
    """Return "FAILED, 1 threshold breached, 2 passed"; empty without thresholds."""
    result = result_of(outcomes)
    if result is None:
        return ""
    found = Counter(outcome.status for outcome in outcomes)
    first, *others = [(found[status], status) for status in _WORST_FIRST if found[status]]
    rest = "".join(f", {number} {status}" for number, status in others)
    word = result.upper() if result == "failed" else result
    return f"{word}, {count(first[0], 'threshold')} {first[1]}{rest}"


def measurement(run: Measured) -> str:
    """Return "valid", or that with what it is not: "valid, but incomplete (interrupted)"."""
    words = {"violated": "violated, replicas differ", "unknown": "unknown, nothing may be quoted"}
    said = words.get(run.verdict, run.verdict)
    if run.status == "complete":
        return said
    return f"{said}{', but' if run.verdict == 'valid' else ','} incomplete ({run.status})"


def why_not_good(summary: Summary) -> str:
    """Return what keeps a run from ending with 0, the worst first, in one sentence.

    Replicas that differ, then thresholds that are breached, then what is not known; a cell that is
    not ok is named where nothing else is to be said.
    """
    named = list(zip(labels(summary.cells), summary.cells, strict=True))
    if differing := [name for name, cell in named if cell.parity == "mismatch"]:
        return f"Replicas differ from the leader at {_listed(differing)}."
    for status in ("breached", "unknown"):
        if found := [outcome for outcome in summary.thresholds if outcome.status == status]:
            told = "; ".join(f"{outcome.text}, measured {finding(outcome)}" for outcome in found)
            if status == "unknown":
                told = "; ".join(f"{outcome.text}: {finding(outcome)}" for outcome in found)
            return f"{count(len(found), 'threshold')} {status}: {told}."
    return _not_ok(named) if named else summary.sentence


def _not_ok(named: Sequence[tuple[str, Cell]]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, cell in named:
        if cell.stamp != "ok":
            by_reason.setdefault(f"{cell.stamp}, {cell.reason}", []).append(name)
        elif not cell.is_quotable:
            by_reason.setdefault(" ".join(cell.notes).removesuffix("."), []).append(name)
    told = "; ".join(f"{_listed(names)} ({reason})" for reason, names in by_reason.items())
    return f"Not all that was measured may be quoted: {told}."


def _listed(names: Sequence[str]) -> str:
    if all(name.startswith("k=") and "," not in name for name in names):
        return f"k={', '.join(name.removeprefix('k=') for name in names)}"
    return "; ".join(names)
