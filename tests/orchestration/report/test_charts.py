"""The charts, as text of their SVG: what they say, not where each pixel lies."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.report import drawing, quorum_chart, spectrum_chart
from orchestration.report.summary import summarise
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.report.records import Run


def texts(run: Run, module: Any) -> list[str]:
    """Return all texts of a chart in the order of drawing."""
    svg = drawing.to_svg(module.draw(run, summarise(run))).decode()
    return [re.sub("<.*?>", "", t).strip() for t in re.findall(r"<text.*?</text>", svg, re.DOTALL)]


def test_quorum_chart_shows_each_k_its_values_and_the_conditions(
    make_run: Callable[..., Run],
) -> None:
    """The ks, the means, the labels of both series, the machine and the ack are all text."""
    run = make_run(simulated.sweep(), ack="memory")
    shown = texts(run, quorum_chart)
    assert {"0", "1", "2", "3", "4", "5", "mean", "p99", "majority"} <= set(shown)
    for cell in summarise(run).cells[1:]:
        assert f"{cell.response_ms.mean:.1f}" in shown
    everything = " ".join(shown)
    for fact in ("Simulated CPU", "5 followers", "3 trials of 4 s", "in memory", "0 to 100 ms"):
        assert fact in everything
    assert any(text.startswith("k=3 costs +") for text in shown)


def test_chart_never_shows_a_cell_that_is_not_ok(make_run: Callable[..., Run]) -> None:
    """Its mean and p99 are absent, its state stands in their place, in both charts."""
    rows = simulated.sweep()
    worst = [r | ({"stamp": "saturated", "reason": "x"} if r["k"] == 4 else {}) for r in rows]
    hidden = summarise(make_run(rows)).cells[4].response_ms
    run = make_run(worst)
    shown = texts(run, quorum_chart)
    assert "saturated: not quoted" in shown
    assert f"{hidden.mean:.1f}" not in shown
    assert f"{hidden.p99:.1f}" not in shown
    assert "k=4" not in texts(run, spectrum_chart)


def test_spectrum_labels_each_k_and_ends_where_samples_do(make_run: Callable[..., Run]) -> None:
    """1,200 writes carry 99%, not 99.9%: the axis ends there."""
    shown = texts(make_run(simulated.sweep()), spectrum_chart)
    assert {f"k={k}" for k in range(6)} <= set(shown)
    assert "99" in shown
    assert "99.9" not in shown


def test_spectrum_curve_is_the_share_of_values_at_or_below() -> None:
    """Each point of the curve agrees with counting the recorded values, to three digits."""
    values = np.random.default_rng(5).exponential(20, 500)
    share, latency = spectrum_chart._curve(simulated.histogram_of(values))
    for point, value in zip(share, latency, strict=True):
        assert point == pytest.approx(np.mean(values <= value), abs=1e-9)
    assert share[-1] <= 1 - spectrum_chart.SAMPLES_BEYOND / 500


@pytest.mark.parametrize("module", [quorum_chart, spectrum_chart])
def test_chart_is_the_same_each_time(make_run: Callable[..., Run], module: Any) -> None:
    """Drawing a run again gives the same bytes, without a date."""
    run = make_run(simulated.sweep(trials=1))
    summary = summarise(run)
    first, second = (drawing.to_svg(module.draw(run, summary)) for _ in range(2))
    assert first == second
    assert b"dc:date" not in first


@pytest.mark.parametrize("module", [quorum_chart, spectrum_chart])
@pytest.mark.parametrize(
    "rows",
    [
        [],
        simulated.sweep([2], trials=1, writes=3),
        simulated.sweep(range(21), n=20, trials=1, writes=50),
        simulated.sweep(delay_ms=(0.0, 0.0), cost_ms=0.05, trials=2, writes=50),
        simulated.sweep(delay_ms=None, trials=2, writes=50),
        simulated.sweep(stamp="invalid", reason="x", trials=1, writes=50),
        simulated.sweep(trials=1, writes=50, operations={}),
    ],
    ids=["nothing", "three writes", "twenty", "tiny", "no theory", "invalid", "no histograms"],
)
def test_chart_is_drawn_from_hostile_data(
    make_run: Callable[..., Run], module: Any, rows: list[dict[str, Any]]
) -> None:
    """Nothing, little, much, and broken data give a picture with a title and no warning."""
    run = make_run(rows)
    assert drawing.to_png(module.draw(run, summarise(run))).startswith(b"\x89PNG")


def test_text_of_users_is_no_formula(make_run: Callable[..., Run]) -> None:
    """A machine's or a run's name with dollars is drawn as it is, and is no error of a parser."""
    run = make_run(simulated.sweep([1], trials=1), machine={"cpu": "A$B_{x$ CPU \\frac"})
    assert any("A$B_{x$ CPU \\frac" in text for text in texts(run, quorum_chart))


def test_long_title_is_shrunk_into_the_figure(make_run: Callable[..., Run]) -> None:
    """The longest finding still ends before the right edge."""
    run = make_run(simulated.sweep(delay_ms=(0.0, 0.0)))
    figure = quorum_chart.draw(run, summarise(run))
    title = figure.texts[0].get_window_extent()
    assert title.x1 <= figure.bbox.width


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.001, 0.2))
def test_spread_labels_keep_apart_in_order(positions: list[float], gap: float) -> None:
    """Labels stay in range and order, and apart by the gap or by all the room there is."""
    placed = drawing.spread(positions, gap, 0.0, 1.0)
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    in_order = [placed[i] for i in order]
    wanted = min(gap, 1 / max(1, len(positions) - 1))
    assert all(b - a >= wanted - 1e-9 for a, b in pairwise(in_order))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in placed)


def test_theory_is_drawn_through_every_k(make_run: Callable[..., Run]) -> None:
    """The dashed lines hold the model's mean and p99, also at a k that may not be quoted."""
    rows = simulated.sweep(trials=1)
    rows[4] |= {"stamp": "saturated", "reason": "x"}
    run = make_run(rows)
    summary = summarise(run)
    figure = quorum_chart.draw(run, summary)
    lines = [
        list(line.get_ydata()) for line in figure.axes[0].lines if line.get_linestyle() == "--"
    ]
    assert lines == [
        [getattr(c.theory_ms, name) for c in summary.cells] for name in ("mean", "p99")
    ]


def test_each_trial_is_a_dot_at_its_k(make_run: Callable[..., Run]) -> None:
    """Whoever doubts an interval sees what it was made of."""
    rows = simulated.sweep([0, 1, 3], trials=4)
    run = make_run(rows)
    figure = quorum_chart.draw(run, summarise(run))
    dots: dict[int, list[float]] = {}
    for line in figure.axes[0].lines:
        if line.get_marker() == ".":
            xs, ys = line.get_xdata(), line.get_ydata()
            for x, y in zip(xs, ys, strict=True):  # type: ignore[arg-type]
                dots.setdefault(int(x), []).append(y)
    assert {k: len(values) for k, values in dots.items()} == {0: 8, 1: 8, 3: 8}
    for row in run.rows:
        assert {row.response_ms.mean, row.response_ms.p99} <= set(dots[row.k])
