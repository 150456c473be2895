"""The table of a comparison, its caption and its notes: the same for the console and Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.analysis.comparison import floor_ends
from orchestration.report.comparison_words import RATE, figure_name, percent
from orchestration.report.labels import labels
from orchestration.report.numbers import ABSENT, count, decimals_for, fixed
from orchestration.report.tables import Column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestration.report.comparison import CellComparison, CellName, Comparison, FigureChange

VERDICT = "verdict"
WIDE_PERCENT = 999.0


def columns(comparison: Comparison) -> list[Column]:
    """Return the columns: a row for each figure of each cell."""
    rows = list(_rows(comparison))
    headings = ("cell", "figure", "BASE", "NEW", "change", "95% interval", "floor", VERDICT)
    words = {"cell", "figure", VERDICT}
    # Where a terminal is narrow: first the values go, then the floor.
    ranks = {"BASE": 2, "NEW": 2, "floor": 1}
    return [
        Column(heading, list(texts), is_number=heading not in words, rank=ranks.get(heading, 0))
        for heading, texts in zip(headings, zip(*rows, strict=True), strict=True)
    ]


def caption(comparison: Comparison) -> str:
    """Return what the table means."""
    return (
        f"BASE is {comparison.base}, NEW is {comparison.new}. Response times in ms, rates in "
        "operations/s, means over trials; change in % of BASE, with its 95% interval over trials. "
        "Floor: what A/A comparisons differ by, down and up. A change counts only if its "
        "whole interval lies beyond the floor."
    )


def warnings(comparison: Comparison) -> list[str]:
    """Return what stands above the table: that the runs are not alike."""
    return [f"The runs differ in {difference}." for difference in comparison.differences]


def notes(comparison: Comparison) -> list[str]:
    """Return why verdicts are unknown, which cells only one run has, and what else to know."""
    lines = [
        line
        for cell, label in zip(comparison.cells, labels(comparison.cells), strict=True)
        for line in _unknown(cell, label)
    ]
    for name, alone in (("BASE", comparison.only_in_base), ("NEW", comparison.only_in_new)):
        if alone:
            cells = "; ".join(_describe(cell) for cell in alone)
            lines.append(f"Only in {name}: {cells}.")
    return lines + comparison.notes


def _rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    for cell, label in zip(comparison.cells, labels(comparison.cells), strict=True):
        for name, figure in cell.figures.items():
            places = 1 if name == RATE else decimals_for([figure.base, figure.new])
            yield (
                label,
                figure_name(name),
                fixed(figure.base, places),
                fixed(figure.new, places),
                *_change(figure),
                figure.verdict,
            )


def _change(figure: FigureChange) -> tuple[str, str, str]:
    if figure.change_percent is None or figure.floor_percent is None:
        return ABSENT, ABSENT, ABSENT
    low, estimate, high = figure.change_percent
    lowest, highest = (_end(end) for end in floor_ends(figure.floor_percent))
    floor = f"{lowest.rstrip('%')}/{highest}"
    return percent(estimate), f"{_end(low)} to {_end(high)}", floor


def _end(value: float) -> str:
    return percent(value) if value <= WIDE_PERCENT else f">{percent(WIDE_PERCENT)}"


def _unknown(cell: CellComparison, label: str) -> list[str]:
    """Return a line for each reason why figures of the cell could not be judged."""
    names: dict[str, list[str]] = {}
    for name, figure in cell.figures.items():
        if figure.reason:
            names.setdefault(figure.reason, []).append(figure_name(name))
    return [
        f"{label}{'' if len(of) == len(cell.figures) else ' ' + ', '.join(of)}: {reason}."
        for reason, of in names.items()
    ]


def _describe(cell: CellName) -> str:
    load = f"{cell.rate:g}/s" if cell.rate is not None else count(cell.users or 0, "client")
    return f"{cell.scenario}, {cell.ack}, {load}, k={cell.k}"
