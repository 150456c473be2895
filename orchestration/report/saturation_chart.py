"""Throughput against latency, all k on one chart: a store sustains what lies left of the bend."""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from orchestration.report import conditions, drawing
from orchestration.report import saturation_words as words
from orchestration.report.drawing import GREY, MANY_KS
from orchestration.report.numbers import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestration.report.drawing import LineEnd
    from orchestration.report.records import Run
    from orchestration.report.saturation_summary import Result, SaturationSummary

# Of the highest rate that met the objective.
MARKERS = {"sustained": "D", "at-least": ">"}
ROOM = 1.35


class Spot(NamedTuple):
    """A rate's place on the chart."""

    achieved_per_s: float
    latency_ms: float
    is_quotable: bool


def draw(run: Run, summary: SaturationSummary) -> Figure:
    """Return the chart; without any trial it says so."""
    with drawing.style():
        figure = drawing.new_figure()
        title = summary.sentence.removesuffix(".").partition(";")[0]
        drawing.set_heading(figure, title, _subtitle(summary), footnote(run, summary))
        tried = [result for result in summary.results if _spots(run, result, summary.quantity)]
        if not tried:
            figure.text(0.5, 0.5, summary.missing or "No trials.", ha="center", color=GREY)
            return figure
        axes = figure.add_axes((0.1, 0.235, 0.725, 0.605))
        ends = [_draw_result(axes, run, summary, result) for result in tried]
        _set_axes(axes)
        _draw_objective(axes, summary)
        if len(ends) <= MANY_KS:
            drawing.label_line_ends(axes, ends, size=12)
        else:
            _list_results(axes, ends)
    return figure


def _subtitle(summary: SaturationSummary) -> str:
    found = {result.found for result in summary.results}
    shown = {
        f"Thick: {summary.quantity}, thin: p50.": summary.quantity != "p50",
        "Diamond: sustained.": "sustained" in found,
        "Triangle: at least.": "at-least" in found,
        "Hollow: not to be quoted.": any(
            point.stamp != "ok" for result in summary.results for point in result.points
        ),
    }
    key = " ".join(text for text, is_shown in shown.items() if is_shown)
    return f"Throughput and latency. {key}"


def footnote(run: Run, summary: SaturationSummary) -> str:
    """Return the lines that belong under the chart: what was done, what an ack is, on what."""
    manifest = run.manifest
    done = [f"{count(summary.followers, 'follower')} ({summary.engine})"]
    if run.rows:
        first = run.rows[0]
        done[0] += f", {conditions.delays(first)}."
        trials = f"{count(summary.trials_done, 'trial')} of {first.duration_s:g} s"
        done.append(f"{trials}, open loop, one k after the other.")
    where = [conditions.machine(manifest), summary.run]
    ack = f"An ack means: {conditions.ack_meaning(summary.ack)}."
    return "\n".join([" ".join(done), ack, " · ".join(filter(None, where))])


def _spots(run: Run, result: Result, name: str) -> list[Spot]:
    """Return the places of a k's rates, by their offered rate; one without figures has none."""
    found = []
    for point in result.points:
        rows = [row for row in run.rows if (row.k, row.rate) == (result.k, point.rate)]
        figures = [getattr(row.response_ms, name) for row in rows]
        known = [figure for figure in figures if figure]
        if known and point.achieved_rate:
            is_quotable = getattr(point.response_ms, name) is not None
            found.append(Spot(point.achieved_rate, median(known), is_quotable))
    return found


def _draw_result(axes: Axes, run: Run, summary: SaturationSummary, result: Result) -> LineEnd:
    """Draw a k's curves and its result; return the end of the main one with its label."""
    colour = drawing.quorum_colour(result.k, summary.followers)
    if summary.quantity != "p50":
        _draw_curve(axes, _spots(run, result, "p50"), colour, is_thin=True)
    spots = _spots(run, result, summary.quantity)
    _draw_curve(axes, spots, colour, is_thin=False)
    if result.found in MARKERS and result.point:
        place = [s for s in spots if s.achieved_per_s == result.point.achieved_rate]
        for spot in place:
            axes.plot(
                *spot[:2],
                MARKERS[result.found],
                ms=12,
                mec=drawing.INK if spot.is_quotable else colour,
                mew=1.4 if spot.is_quotable else 2.0,
                mfc=colour if spot.is_quotable else "white",
                zorder=6,
            )
    label = f"k={result.k}: {words.sustained(result)}"
    return spots[-1].achieved_per_s, spots[-1].latency_ms, label, colour


def _draw_curve(axes: Axes, spots: Sequence[Spot], colour: str, *, is_thin: bool) -> None:
    """Draw a line through what may be quoted; what may not be hangs on it by a dotted one."""
    for one, other in pairwise(spots):
        is_solid = one.is_quotable and other.is_quotable
        axes.plot(
            [one.achieved_per_s, other.achieved_per_s],
            [one.latency_ms, other.latency_ms],
            lw=1.0 if is_thin or not is_solid else 2.2,
            ls="-" if is_solid else ":",
            color=colour,
        )
    for spot in spots:
        axes.plot(
            *spot[:2],
            "o",
            ms=3.5 if is_thin else 6,
            mec=colour,
            mfc=colour if spot.is_quotable else "white",
            zorder=4,
        )


def _set_axes(axes: Axes) -> None:
    axes.set_xlabel("achieved rate, requests per second")
    axes.set_ylabel("response time, ms")
    axes.yaxis.set_label_coords(-0.09, 0.5)
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        set_scale("log")
        axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _list_results(axes: Axes, ends: Sequence[LineEnd]) -> None:
    """Write the labels in a column, in the order of k: so many connectors would be a tangle."""
    for index, (_, _, text, colour) in enumerate(ends):
        height = 1 - index / (len(ends) - 1)
        axes.text(1.03, height, text, transform=axes.transAxes, color=colour, size=9, va="center")


def _draw_objective(axes: Axes, summary: SaturationSummary) -> None:
    """Draw the line that the curves must stay below, and leave room on both sides of all."""
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, summary.limit_ms / ROOM), max(high, summary.limit_ms * ROOM))
    axes.axhline(summary.limit_ms, color=GREY, lw=1.4, ls=(0, (6, 3)), zorder=1)
    axes.annotate(
        summary.objective,
        (0.01, summary.limit_ms),
        xycoords=("axes fraction", "data"),
        xytext=(0, 5),
        textcoords="offset points",
        color=GREY,
        size=12,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
        zorder=5,
    )
