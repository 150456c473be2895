"""The chart of a comparison: each figure's change with its interval, over its noise floor."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter

from orchestration.analysis.comparison import floor_ends
from orchestration.report import conditions, drawing
from orchestration.report.comparison_words import BETTER, WORSE, figure_name, percent, title
from orchestration.report.drawing import BLUE, GREY, INK, PALE, VERMILLION
from orchestration.report.labels import labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestration.report.comparison import CellComparison, Comparison, FigureChange
    from orchestration.report.records import Run

# From so many cells on, there is no room for numbers beside the points.
MANY_CELLS = 12
# An axis reaches this much beyond the farthest estimate or floor, unless that is so many times the
# typical one: what lies past the axis is an arrow at its end.
AXIS_REACH = 1.9
OUTLIER_RATIO = 5.0
# Where the two ticks beside zero may be, as shares of the reach.
FARTHEST_TICK = 0.75


def draw(comparison: Comparison, new: Run) -> Figure:
    """Return the chart, a panel for each figure and a row for each cell.

    Args:
        comparison: What was found.
        new: The run NEW, for its conditions.
    """
    with drawing.style():
        figure = drawing.new_figure()
        drawing.set_heading(
            figure,
            title(comparison.cells),
            "Change from BASE to NEW in %, bars: 95% over trials, hollow: unclear. "
            "Grey: the noise floor.",
            _footnote(comparison, new),
        )
        if not comparison.cells:
            figure.text(0.5, 0.5, "No cell in common.", ha="center", color=GREY)
            return figure
        names = list(comparison.cells[0].figures)
        cell_labels = labels(comparison.cells)
        left = 0.035 + 0.0105 * max(map(len, cell_labels))
        grid = figure.add_gridspec(
            1, len(names), left=left, right=0.98, top=0.8, bottom=0.22, wspace=0.12
        )
        for column, name in enumerate(names):
            axes = figure.add_subplot(grid[column])
            _draw_panel(axes, comparison.cells, name)
            axes.set_yticks(range(len(cell_labels)), cell_labels if column == 0 else [])
            axes.tick_params(axis="y", length=0, pad=9)
    return figure


def _footnote(comparison: Comparison, new: Run) -> str:
    lines = [f"BASE: {comparison.base}. NEW: {comparison.new}.", conditions.footnote(new)]
    if comparison.differences:
        lines.insert(1, f"The runs differ in {'; '.join(comparison.differences)}.")
    return "\n".join(lines)


def _draw_panel(axes: Axes, cells: Sequence[CellComparison], name: str) -> None:
    figures = [cell.figures[name] for cell in cells]
    axes.set_title(figure_name(name), size=13, color=INK)
    axes.set_ylim(len(cells) - 0.4, -0.6)
    axes.set_xlim(*_reach(figures))
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=GREY, lw=0.8)
    axes.set_xticks(_ticks(axes.get_xlim()[1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+,g}" if value else "0"))
    for row, figure in enumerate(figures):
        if figure.change_percent is None or figure.floor_percent is None:
            _mark_unknown(axes, row, size=11 if len(cells) <= MANY_CELLS else 8)
            continue
        _draw_change(axes, row, figure)
        if len(cells) <= MANY_CELLS:
            _label(axes, row, figure)


def _reach(figures: Sequence[FigureChange]) -> tuple[float, float]:
    """Return the limits of the axis: alike on both sides, so that worse is as wide as better."""
    sizes = [
        max(abs(figure.change_percent[1]), figure.floor_percent)
        for figure in figures
        if figure.change_percent is not None and figure.floor_percent is not None
    ]
    typical = statistics.median(sizes) if sizes else 1.0
    reach = AXIS_REACH * min(max(sizes, default=typical), OUTLIER_RATIO * typical)
    return -reach, reach


def _ticks(reach: float) -> list[float]:
    """Return zero and the roundest number that is well within reach, either way."""
    farthest = FARTHEST_TICK * reach
    scale = 10 ** math.floor(math.log10(farthest))
    tick = next(step * scale for step in (5, 2, 1) if step * scale <= farthest)
    return [-tick, 0, tick]


def _mark_unknown(axes: Axes, row: int, *, size: float) -> None:
    axes.text(
        0,
        row,
        "unknown",
        ha="center",
        va="center",
        size=size,
        color=GREY,
        style="italic",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def _draw_change(axes: Axes, row: int, figure: FigureChange) -> None:
    low, estimate, high = figure.change_percent or (0.0, 0.0, 0.0)
    floor = figure.floor_percent or 0.0
    axes.fill_between(floor_ends(floor), row - 0.36, row + 0.36, color=PALE, lw=0)
    colour = _colour(figure)
    left, right = axes.get_xlim()
    bar = [min(max(end, left), right) for end in (low, high)]
    axes.plot(bar, [row, row], color=colour, lw=2, solid_capstyle="butt")
    for limit, marker, is_past in ((left, "<", low < left), (right, ">", high > right)):
        if is_past:
            axes.plot([limit], [row], marker, ms=6, color=colour, clip_on=False)
    if left <= estimate <= right:
        inside = "white" if figure.verdict == "unclear" else colour
        axes.plot([estimate], [row], "o", ms=6, color=colour, mfc=inside)


def _label(axes: Axes, row: int, figure: FigureChange) -> None:
    estimate = (figure.change_percent or (0.0, 0.0, 0.0))[1]
    left, right = axes.get_xlim()
    axes.annotate(
        percent(estimate),
        (min(max(estimate, 0.85 * left), 0.85 * right), row),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        size=9,
        color=_colour(figure),
        weight="bold" if figure.verdict in WORSE + BETTER else "normal",
    )


def _colour(figure: FigureChange) -> str:
    if figure.verdict in WORSE:
        return VERMILLION
    return BLUE if figure.verdict in BETTER else GREY
