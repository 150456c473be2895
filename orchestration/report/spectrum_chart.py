"""The percentile spectrum: the whole distribution of the response time, a curve per k."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from orchestration.analysis import histograms
from orchestration.report import conditions, drawing, records
from orchestration.report.model import model_of
from orchestration.report.numbers import ms
from orchestration.report.sentence import OPERATIONS, headline_cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hdrh.histogram import HdrHistogram
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestration.report.drawing import LineEnd
    from orchestration.report.records import Run, TrialRow
    from orchestration.report.summary import Cell, Summary

# A cell, the shares of its requests, and the latency in ms that each share did not exceed.
Curve: TypeAlias = "tuple[Cell, np.ndarray, np.ndarray]"

# A percentile far out is drawn only while so many samples lie beyond it: p99.9 takes 10,000.
SAMPLES_BEYOND = 10
THEORY_POINTS = 200
TICK_PERCENTS = (0, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 99.999)


def response_histogram(rows: Sequence[TrialRow], cell: Cell) -> HdrHistogram:
    """Return the merged response times of a cell's operation in all its trials, in ns."""
    parts = [
        row.operations[cell.operation]
        for row in rows
        if cell.has(row) and cell.operation in row.operations
    ]
    return histograms.merge(records.response_histogram(part) for part in parts)


def draw(run: Run, summary: Summary) -> Figure:
    """Return the chart of all cells that may be quoted."""
    cells = [cell for cell in summary.cells if cell.is_quotable]
    with drawing.style():
        figure = drawing.new_figure()
        drawing.set_heading(
            figure,
            _title(summary),
            _subtitle(cells),
            conditions.footnote(run),
        )
        groups = drawing.panels(cells) or [("", [])]
        grid = figure.add_gridspec(
            1,
            len(groups),
            left=0.1,
            right=0.895,
            top=0.84 if len(groups) == 1 else 0.81,
            bottom=0.235,
            wspace=0.16,
        )
        first: Axes | None = None
        drawn: list[tuple[Axes, list[LineEnd]]] = []
        for index, (title, group) in enumerate(groups):
            axes = figure.add_subplot(grid[0, index], sharey=first)
            axes.set_title(title, size=12, loc="left")
            drawn.append((axes, _draw_curves(axes, _curves(run.rows, group), run.rows)))
            first = first or axes
            if axes is not first:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
        for axes, ends in drawn:
            if ends:
                axes.set_ylim(0, 1.05 * max(y for _, others in drawn for _, y, _, _ in others))
        for axes, ends in drawn:
            drawing.label_line_ends(axes, ends, size=12 if len(ends) <= drawing.MANY_KS else 9)
    return figure


def _curves(rows: Sequence[TrialRow], cells: Sequence[Cell]) -> list[Curve]:
    curves = [(cell, *_curve(response_histogram(rows, cell))) for cell in cells]
    return [curve for curve in curves if len(curve[1])]


def _subtitle(cells: Sequence[Cell]) -> str:
    many = OPERATIONS[cells[0].operation].many if cells else "writes"
    what = f"Response time that so many percent of {many} did not exceed, all trials together."
    has_theory = any(cell.theory_ms.max for cell in cells)
    return f"{what} Dashed: theory." if has_theory else what


def _title(summary: Summary) -> str:
    cell = headline_cell(summary.cells, summary.followers)
    if cell is None or cell.response_ms.p50 is None or cell.response_ms.p95 is None:
        return "How response times spread"
    half, most = ms(cell.response_ms.p50), ms(cell.response_ms.p95)
    return f"k={cell.k} answers half of all requests within {half}, 95% within {most}"


def _curve(histogram: HdrHistogram) -> tuple[np.ndarray, np.ndarray]:
    """Return (share of writes at or below, latency in ms), as far as the samples carry."""
    lowest, width, counts = histograms.filled_buckets(histogram)
    below = np.cumsum(counts)
    total = below[-1] if len(below) else 0
    kept = below <= total - SAMPLES_BEYOND
    latency_ms = (lowest + width - 1) / histograms.NS_PER_MS
    return below[kept] / max(total, 1), latency_ms[kept]


def _draw_curves(axes: Axes, curves: Sequence[Curve], rows: Sequence[TrialRow]) -> list[LineEnd]:
    """Draw a line for each cell; return where they end."""
    axes.set_ylabel("response time, ms")
    axes.set_xlabel("percentile")
    if not curves:
        axes.set_axis_off()
        axes.text(
            0.5,
            0.5,
            f"No curve: it takes more than {SAMPLES_BEYOND} samples per k.",
            transform=axes.transAxes,
            ha="center",
            color=drawing.GREY,
        )
        return []
    furthest = max(share[-1] for _, share, _ in curves)
    axes.set_xlim(1, 1 / (1 - furthest))
    _set_percent_axis(axes, furthest)
    ends = []
    for cell, share, latency in curves:
        colour = drawing.quorum_colour(cell.k, rows[0].followers)
        axes.plot(1 / (1 - share), latency, lw=2.2, color=colour)
        _draw_theory(axes, cell, rows, share[-1], colour)
        ends.append((1 / (1 - share[-1]), latency[-1], f"k={cell.k}", colour))
    return ends


def _draw_theory(
    axes: Axes, cell: Cell, rows: Sequence[TrialRow], furthest: float, colour: str
) -> None:
    row = next(row for row in rows if cell.has(row))
    wait = model_of(row)
    if isinstance(wait, str) or not wait.max_ms:
        return
    beyond = np.geomspace(1, 1 - furthest, THEORY_POINTS)
    latency = wait.percentiles_ms([100 * (1 - share) for share in beyond])
    axes.plot(1 / beyond, latency, ls=(0, (4, 3)), lw=1.3, color=colour, alpha=0.8)


def _set_percent_axis(axes: Axes, furthest: float) -> None:
    """Space percentiles by the number of nines, as HdrHistogram's plots do."""
    axes.set_xscale("log")
    shown = [percent for percent in TICK_PERCENTS if percent / 100 <= furthest]
    axes.xaxis.set_major_locator(FixedLocator([100 / (100 - percent) for percent in shown]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 - 100 / x:.6g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
