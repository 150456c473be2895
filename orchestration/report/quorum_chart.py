"""The main chart: response time against the write quorum, with theory and residual."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from orchestration.report import conditions, drawing
from orchestration.report.drawing import BLUE, GREY, MANY_KS, PALE, VERMILLION
from orchestration.report.model import model_of
from orchestration.report.numbers import decimals_for, fixed
from orchestration.report.sentence import OPERATIONS, cost, headline_cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestration.report.records import Run, TrialRow
    from orchestration.report.summary import Cell, Summary

SERIES = (("mean", BLUE, "o"), ("p99", VERMILLION, "s"))
# Sampling noise of a mean lies within so many standard errors in 95% of sweeps.
NORMAL_95 = 1.96
# Past this ratio of the largest to the smallest typical value a linear axis hides the small ones.
LOG_RATIO = 20.0


def draw(run: Run, summary: Summary) -> Figure:
    """Return the chart; where nothing may be quoted it says so instead of curves."""
    with drawing.style():
        figure = drawing.new_figure()
        drawing.set_heading(
            figure,
            _title(summary),
            _subtitle(summary.cells),
            conditions.footnote(run),
        )
        if not summary.cells:
            figure.text(0.5, 0.5, summary.missing or "No trials.", ha="center", color=GREY)
            return figure
        panels = drawing.panels(summary.cells)
        grid = figure.add_gridspec(
            2,
            len(panels),
            height_ratios=(3.2, 1),
            left=0.1,
            right=0.86,
            top=0.83 if len(panels) == 1 else 0.8,
            bottom=0.27,
            hspace=0.2,
            wspace=0.12,
        )
        columns: list[tuple[Axes, Axes]] = []
        for index, (title, cells) in enumerate(panels):
            first = columns[0] if columns else (None, None)
            main = figure.add_subplot(grid[0, index], sharey=first[0])
            below = figure.add_subplot(grid[1, index], sharex=main, sharey=first[1])
            columns.append((main, below))
            main.set_title(title, size=12, loc="left", pad=14)
            _set_ks(below, summary, is_narrow=len(panels) > 1)
            _draw_column(main, below, cells, run.rows, scale=summary.cells, panels=len(panels))
            if index:
                _hide_heights(main, below)
            if index == len(panels) - 1:
                _label_column(main, below, cells)
    return figure


def _draw_column(
    main: Axes,
    below: Axes,
    cells: Sequence[Cell],
    rows: Sequence[TrialRow],
    *,
    scale: Sequence[Cell],
    panels: int,
) -> None:
    """Draw the cells of one ack; `scale` are those that the axes have to hold."""
    _set_scale(main, [cell for cell in scale if cell.is_quotable])
    _draw_response(main, cells, rows)
    _draw_residual(below, cells, rows)
    main.set_ylabel("response time, ms")
    below.set_ylabel("residual, ms")
    for axes in (main, below):
        # In widths of a panel, of which there may be two.
        axes.yaxis.set_label_coords(-0.085 * panels, 0.5)
    main.tick_params(bottom=False, labelbottom=False)
    main.spines["bottom"].set_visible(False)


def _hide_heights(*columns: Axes) -> None:
    for axes in columns:
        axes.set_ylabel("")
        axes.tick_params(left=False, labelleft=False)
        axes.spines["left"].set_visible(False)


def _label_column(main: Axes, below: Axes, cells: Sequence[Cell]) -> None:
    """Write what the lines are, right of the last column."""
    ends = []
    for name, colour, _ in SERIES:
        shown = [value for cell in cells if (value := getattr(cell.response_ms, name)) is not None]
        if shown:
            ends.append((main.get_xlim()[1], shown[-1], name, colour))
    drawing.label_line_ends(main, ends, size=13)
    if any(cell.residual_ms.mean is not None for cell in cells):
        below.text(
            1.03,
            0.5,
            "mean minus\ntheory: the\nsystem's cost.\nGrey: chance",
            transform=below.transAxes,
            size=10,
            color=GREY,
            va="center",
        )


def _subtitle(cells: Sequence[Cell]) -> str:
    what = OPERATIONS[cells[0].operation].many if cells else "writes"
    parts = [f"Response time of {what} against k. Dots: trials."]
    if any(cell.response_ms.ci95.get("mean") for cell in cells):
        parts.append("Bars: 95% over trials.")
    if any(cell.theory_ms.max for cell in cells):
        parts.append("Dashed: theory.")
    return " ".join(parts)


def _title(summary: Summary) -> str:
    cell = headline_cell(summary.cells, summary.followers)
    return cost(cell, "mean") if cell else "Nothing that may be quoted was measured"


def _draw_response(axes: Axes, cells: Sequence[Cell], rows: Sequence[TrialRow]) -> None:
    quotable = [cell for cell in cells if cell.is_quotable]
    for name, colour, marker in SERIES:
        shown = [cell for cell in quotable if getattr(cell.response_ms, name) is not None]
        if not shown:
            continue
        _draw_theory(axes, cells, name, colour)
        _draw_measured(axes, shown, name, colour, marker)
        _draw_trials(axes, shown, rows, name, colour)
    for cell in cells:
        if not cell.is_quotable:
            _mark_unquoted(axes, cell)


def _set_scale(axes: Axes, quotable: Sequence[Cell]) -> None:
    """Choose limits that leave room for labels, and a log axis where p99 dwarfs every mean."""
    means = [cell.response_ms.mean for cell in quotable if cell.response_ms.mean]
    tops = [
        high
        for cell in quotable
        for name, _, _ in SERIES
        for high in (getattr(cell.response_ms, name), _high(cell, name))
        if high
    ]
    top = max(tops, default=1.0)
    if means and top > LOG_RATIO * max(means):
        axes.set_yscale("log")
        axes.set_ylim(min(means) / 3, top * 2)
    else:
        # The strip below zero is for labels of values near zero.
        axes.set_ylim(-0.1 * top, 1.12 * top)
        axes.axhline(0, color=GREY, lw=0.8)
        axes.yaxis.set_major_locator(_from_zero(top))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _from_zero(top: float) -> FixedLocator:
    ticks = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(0, top)
    return FixedLocator([tick for tick in ticks if 0 <= tick <= 1.1 * top])


def _high(cell: Cell, name: str) -> float | None:
    interval = cell.response_ms.ci95.get(name)
    return interval[1] if interval else None


def _draw_theory(axes: Axes, cells: Sequence[Cell], name: str, colour: str) -> None:
    points = [(cell.k, getattr(cell.theory_ms, name)) for cell in cells]
    known = [(k, value) for k, value in points if value is not None]
    if any(value for _, value in known):
        # A line through one point would not show.
        marker = "_" if len(known) == 1 else ""
        ks, values = zip(*known, strict=True)
        style = (0, (4, 3))
        axes.plot(ks, values, marker=marker, ls=style, lw=1.6, ms=24, color=colour, alpha=0.65)


def _draw_measured(axes: Axes, cells: Sequence[Cell], name: str, colour: str, marker: str) -> None:
    values = [getattr(cell.response_ms, name) for cell in cells]
    decimals = [decimals_for([value]) for value in values]
    for cell, value, digits in zip(cells, values, decimals, strict=True):
        interval = cell.response_ms.ci95.get(name)
        if interval:
            axes.plot([cell.k] * 2, interval, color=colour, lw=2, solid_capstyle="butt")
        axes.annotate(
            fixed(value, digits),
            (cell.k, _label_height(axes, value, interval, above=name == "p99")),
            xytext=(0, 8 if name == "p99" else -8),
            textcoords="offset points",
            ha="center",
            va="bottom" if name == "p99" else "top",
            color=colour,
            size=11 if len(cells) <= MANY_KS else 8,
            weight="bold" if name == "mean" else "normal",
            # No line strikes a number through.
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
            zorder=3.5,
        )
    ks = [cell.k for cell in cells]
    axes.plot(ks, values, marker, ms=7, color=colour, mec="white", mew=1, zorder=4)


def _label_height(
    axes: Axes, value: float, interval: tuple[float, float] | None, *, above: bool
) -> float:
    """Return the end of the interval's bar, or the value where that end is off the axes."""
    low, high = interval or (value, value)
    if above:
        return high
    return low if low > axes.get_ylim()[0] else value


def _draw_trials(
    axes: Axes, cells: Sequence[Cell], rows: Sequence[TrialRow], name: str, colour: str
) -> None:
    """Draw each trial's value as a small dot right of its k, in the order of the blocks."""
    for cell in cells:
        values = [getattr(row.response_ms, name) for row in rows if cell.has(row)]
        offset = [0.1 + 0.16 * index / max(1, len(values) - 1) for index in range(len(values))]
        axes.plot(
            [cell.k + shift for shift in offset], values, ".", ms=5, color=colour, alpha=0.55, mew=0
        )


def _mark_unquoted(axes: Axes, cell: Cell) -> None:
    axes.annotate(
        f"{cell.stamp if cell.stamp != 'ok' else 'no acknowledged write'}: not quoted",
        (cell.k, 0.08),
        xycoords=("data", "axes fraction"),
        rotation=90,
        ha="center",
        va="bottom",
        size=11,
        color=GREY,
        style="italic",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def _draw_residual(axes: Axes, cells: Sequence[Cell], rows: Sequence[TrialRow]) -> None:
    """Draw measured minus theory of the mean, over the band that chance alone would fill."""
    shown = [(cell, mean) for cell in cells if (mean := cell.residual_ms.mean) is not None]
    digits = max(1, decimals_for(mean for _, mean in shown) - 1)
    for cell, mean in shown:
        half = NORMAL_95 * (cell.theory_mean_error_ms or 0.0)
        axes.fill_between([cell.k - 0.3, cell.k + 0.3], -half, half, color=PALE, lw=0)
        axes.plot([cell.k], [mean], "o", ms=6, color=BLUE, zorder=4)
        interval = cell.residual_ms.ci95.get("mean")
        if interval:
            axes.plot([cell.k] * 2, interval, color=BLUE, lw=2, solid_capstyle="butt")
        axes.annotate(
            fixed(mean, digits, sign=True),
            (cell.k, 1.0),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="center",
            size=11 if len(cells) <= MANY_KS else 7,
            color=BLUE,
        )
    axes.margins(y=0.25)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    _explain_residual(axes, rows, shown=bool(shown))


def _explain_residual(axes: Axes, rows: Sequence[TrialRow], *, shown: bool) -> None:
    if shown:
        axes.axhline(0, color=GREY, lw=0.8)
        return
    axes.set_yticks([])
    why = [wait for row in rows if isinstance(wait := model_of(row), str)]
    axes.text(
        0.5,
        0.5,
        textwrap.fill(why[0] if why else "No residual: nothing may be quoted.", 70),
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=GREY,
        size=11,
    )


def _set_ks(axes: Axes, summary: Summary, *, is_narrow: bool) -> None:
    ks = sorted({cell.k for cell in summary.cells})
    names = {(summary.followers + 1) // 2: "majority", summary.followers: "all", 0: "asynchronous"}
    axes.set_xticks(ks, [f"{k}\n{names.get(k, '')}" if len(ks) <= MANY_KS else f"{k}" for k in ks])
    waited = "" if is_narrow else ": acknowledgments waited for"
    axes.set_xlabel(f"write quorum k{waited}, of {summary.followers} followers")
    room = max(0.0, (3 - len(ks)) / 2)
    axes.set_xlim(ks[0] - 0.5 - room, ks[-1] + 0.4 + room)
