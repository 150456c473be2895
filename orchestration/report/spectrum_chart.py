"""The percentile spectrum: the whole distribution of the response time, a curve per k."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from orchestration.analysis import histograms
from orchestration.analysis.theory import QuorumWait, why_no_theory
from orchestration.report import conditions, drawing
from orchestration.report.numbers import ms
from orchestration.report.records import WRITE
from orchestration.report.sentence import headline_cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hdrh.histogram import HdrHistogram
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestration.report.records import Run, TrialRow
    from orchestration.report.summary import Cell, Summary

# A percentile far out is drawn only while so many samples lie beyond it: p99.9 takes 10,000.
SAMPLES_BEYOND = 10
THEORY_POINTS = 200
TICK_PERCENTS = (0, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 99.999)


def response_histogram(rows: Sequence[TrialRow], k: int) -> HdrHistogram:
    """Return the merged response times of all writes of this k, in ns."""
    texts = [
        row.operations[WRITE].histograms["response"]
        for row in rows
        if row.k == k and WRITE in row.operations
    ]
    return histograms.merge(histograms.decode(text) for text in texts)


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
        axes = figure.add_axes((0.1, 0.235, 0.795, 0.605))
        curves = [(cell, *_curve(response_histogram(run.rows, cell.k))) for cell in cells]
        _draw_curves(axes, [curve for curve in curves if len(curve[1])], run.rows)
    return figure


def _subtitle(cells: Sequence[Cell]) -> str:
    what = "Response time that so many percent of writes did not exceed, all trials together."
    has_theory = any(cell.k and cell.theory_ms.mean is not None for cell in cells)
    return f"{what} Dashed: theory." if has_theory else what


def _title(summary: Summary) -> str:
    cell = headline_cell(summary.cells, summary.followers)
    if cell is None or cell.response_ms.p50 is None or cell.response_ms.p95 is None:
        return "How response times spread"
    half, most = ms(cell.response_ms.p50), ms(cell.response_ms.p95)
    return f"k={cell.k} answers half of all writes within {half}, 95% within {most}"


def _curve(histogram: HdrHistogram) -> tuple[np.ndarray, np.ndarray]:
    """Return (share of writes at or below, latency in ms), as far as the samples carry."""
    lowest, width, counts = histograms.filled_buckets(histogram)
    below = np.cumsum(counts)
    total = below[-1] if len(below) else 0
    kept = below <= total - SAMPLES_BEYOND
    latency_ms = (lowest + width - 1) / histograms.NS_PER_MS
    return below[kept] / max(total, 1), latency_ms[kept]


def _draw_curves(
    axes: Axes, curves: Sequence[tuple[Cell, np.ndarray, np.ndarray]], rows: Sequence[TrialRow]
) -> None:
    axes.set_ylabel("response time, ms")
    axes.set_xlabel("percentile of writes")
    if not curves:
        axes.set_axis_off()
        axes.text(
            0.5,
            0.5,
            f"No curve: it takes more than {SAMPLES_BEYOND} acknowledged writes per k.",
            transform=axes.transAxes,
            ha="center",
            color=drawing.GREY,
        )
        return
    furthest = max(share[-1] for _, share, _ in curves)
    axes.set_xlim(1, 1 / (1 - furthest))
    axes.set_ylim(0, 1.05 * max(latency[-1] for _, _, latency in curves))
    _set_percent_axis(axes, furthest)
    ends = []
    for cell, share, latency in curves:
        colour = _colour(cell.k, rows[0].followers)
        axes.plot(1 / (1 - share), latency, lw=2.2, color=colour)
        _draw_theory(axes, cell, rows, share[-1], colour)
        ends.append((1 / (1 - share[-1]), latency[-1], f"k={cell.k}", colour))
    drawing.label_line_ends(axes, ends, size=12 if len(ends) <= drawing.MANY_KS else 9)


def _colour(k: int, followers: int) -> str:
    """Return a k's own colour, of viridis without its pale end: ordered for any colour vision."""
    return to_hex(mpl.colormaps["viridis"](0.78 * (1 - k / max(1, followers))))


def _draw_theory(
    axes: Axes, cell: Cell, rows: Sequence[TrialRow], furthest: float, colour: str
) -> None:
    row = next(row for row in rows if row.k == cell.k)
    if row.k == 0 or row.delay_ms is None or why_no_theory(row.delay_model, row.delay_ms):
        return
    wait = QuorumWait(row.followers, row.k, *row.delay_ms)
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
