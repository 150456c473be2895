"""A comparison in words: verdicts, percentages, and the sentence that it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from orchestration.report.labels import labels
from orchestration.report.numbers import count, fixed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.report.comparison import CellComparison, FigureChange

RATE = "achieved_rate"
Verdict = Literal["slower", "faster", "higher", "lower", "no change", "unclear", "unknown"]
WORSE: tuple[Verdict, ...] = ("slower", "lower")
BETTER: tuple[Verdict, ...] = ("faster", "higher")
# Percentages from here on need no decimals.
LARGE_PERCENT = 100.0


def percent(value: float, *, sign: bool = True) -> str:
    """Return "+9.1%", or "+120%"."""
    decimals = 1 if round(abs(value), 1) < LARGE_PERCENT else 0
    return f"{fixed(value, decimals, sign=sign)}%"


def figure_name(name: str) -> str:
    """Return a figure's name for a table or an axis."""
    return "rate" if name == RATE else name


def headline(cells: Sequence[CellComparison]) -> str:
    """Return the sentence that a comparison means."""
    return "{}, {}.".format(*_finding(cells))


def title(cells: Sequence[CellComparison]) -> str:
    """Return the clause of that sentence that stands by itself, for a chart."""
    return _finding(cells)[0]


def _finding(cells: Sequence[CellComparison]) -> tuple[str, str]:
    """Return what was found, and of how much."""
    figures = [figure for cell in cells for figure in cell.figures.values()]
    judged = count(sum(figure.verdict != "unknown" for figure in figures), "figure")
    if not cells:
        return "BASE and NEW have no cell in common", "so nothing was compared"
    if all(figure.verdict == "unknown" for figure in figures):
        return "No figure of NEW can be held against BASE", "so nothing is known of a change"
    worse, better = (_number(figures, verdicts) for verdicts in (WORSE, BETTER))
    if worse:
        also = f"; {better} changed for the better" if better else ""
        found = count(worse, "change")
        rest = f"the largest of {found} for the worse in {judged}{also}"
        return _largest(cells, WORSE), rest
    if better:
        found = count(better, "change")
        rest = f"the largest of {found} for the better in {judged}"
        return _largest(cells, BETTER), rest
    unclear = _number(figures, ("unclear",))
    if unclear:
        rest = f"in {judged}; {unclear} unclear, for want of trials"
        return "Nothing is known to have changed", rest
    return "Nothing changed by more than the noise", f"in {judged}"


def _largest(cells: Sequence[CellComparison], verdicts: Sequence[Verdict]) -> str:
    """Return the clause of the largest change with one of these verdicts; latencies first."""
    found = [
        (name != RATE, abs(figure.change_percent[1]), name, label, figure.change_percent)
        for cell, label in zip(cells, labels(cells), strict=True)
        for name, figure in cell.figures.items()
        if figure.verdict in verdicts and figure.change_percent is not None
    ]
    is_latency, size, name, label, (low, _, high) = max(found)
    span = " to ".join(percent(end, sign=False) for end in sorted((abs(low), abs(high))))
    words = ("slower", "less") if verdicts is WORSE else ("faster", "more")
    finding = f"is {words[0]}: {name} at" if is_latency else f"gets {words[1]} done: its rate at"
    return f"NEW {finding} {label} by {percent(size, sign=False)} ({span})"


def _number(figures: Sequence[FigureChange], verdicts: Sequence[Verdict]) -> int:
    return sum(figure.verdict in verdicts for figure in figures)
