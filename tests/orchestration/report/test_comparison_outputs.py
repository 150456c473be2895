"""A comparison as people meet it: on terminals, as Markdown, and as a chart."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from orchestration.report import comparison_chart, drawing
from orchestration.report.comparison import Comparison, compare
from orchestration.report.comparison_console import print_comparison
from orchestration.report.comparison_files import write_comparison
from orchestration.report.records import Run, read_run
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Rows = list[dict[str, Any]]


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., tuple[Comparison, Run]]:
    """Return a function that compares rows, and gives NEW too."""

    def make(base: Rows, new: Rows, **manifest: Any) -> tuple[Comparison, Run]:
        runs = [
            read_run(simulated.write_run(tmp_path / name, rows, run=f"writes/{name}", **changes))
            for name, rows, changes in (("base", base, {}), ("new", new, manifest))
        ]
        return compare(runs[0], runs[1]), runs[1]

    return make


def mixed() -> tuple[Rows, Rows]:
    """Return runs with a slower k, one that is saturated and one that is missing."""
    base = simulated.sweep([0, 1, 3, 5], trials=5)
    new = simulated.sweep([0, 1, 3], trials=5, delay_ms=(0.0, 130.0), seed=2)
    return base, [
        row | ({"stamp": "saturated", "reason": "[b]9[/b] | dropped"} if row["k"] == 0 else {})
        for row in new
    ]


def printed(comparison: Comparison, width: int) -> str:
    """Return what a terminal of this width shows."""
    console = Console(file=io.StringIO(), width=width)
    print_comparison(console, comparison)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (55, "cell figure change 95% interval verdict"),
        (70, "cell figure change 95% interval floor verdict"),
        (80, "cell figure BASE NEW change 95% interval floor verdict"),
        (160, "cell figure BASE NEW change 95% interval floor verdict"),
    ],
)
def test_table_fits_and_keeps_change_interval_and_verdict(
    found: Callable[..., tuple[Comparison, Run]], width: int, headings: str
) -> None:
    """No line is wider than the terminal; the values go first, then the floor."""
    comparison, _ = found(*mixed())
    text = printed(comparison, width)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    assert next(line for line in lines if "figure" in line).split() == headings.split()
    assert "…" not in text
    assert " ".join(text.split()).endswith(comparison.sentence)


def test_terminal_tells_all_that_limits_the_comparison(
    found: Callable[..., tuple[Comparison, Run]],
) -> None:
    """That the runs are not alike, what is unknown and why, and what only one of them has."""
    comparison, _ = found(*mixed())
    text = " ".join(printed(comparison, 80).split())
    assert text.startswith("The runs differ in delay (ms): 0:100 in BASE, 0:130 in NEW.")
    assert "k=0: NEW is saturated ([b]9[/b] | dropped)." in text
    assert "Only in BASE: writes, memory, 100/s, k=5." in text
    assert "slower" in text


def test_reason_of_some_figures_names_them(found: Callable[..., tuple[Comparison, Run]]) -> None:
    """Where only p99 lacks samples, the others are judged and the note is about p99 alone."""
    rows = simulated.sweep([1], trials=5, writes=50)
    text = " ".join(printed(found(rows, rows)[0], 120).split())
    assert "k=1 p99: BASE had 50 acknowledged writes in a trial, p99 takes 100; NEW had" in text


def test_floor_is_shown_downwards_and_upwards(
    found: Callable[..., tuple[Comparison, Run]],
) -> None:
    """The assumed 10% up is 9.1% down, in the table and as the grey of the chart."""
    comparison, new = found(simulated.sweep([1]), simulated.sweep([1], seed=2))
    assert printed(comparison, 80).count(" -9.1/+10.0% ") == 5
    for panel in comparison_chart.draw(comparison, new).axes:
        grey = panel.collections[0].get_datalim(panel.transData)
        assert (grey.x0, grey.x1) == (pytest.approx(-100 / 11), pytest.approx(10))


def test_nothing_in_common_is_said_without_a_table(
    found: Callable[..., tuple[Comparison, Run]],
) -> None:
    """Two runs of different rates have no cell to pair."""
    text = printed(found(simulated.sweep([1]), simulated.sweep([1], rate=200.0))[0], 80)
    assert "verdict" not in text
    assert "Only in NEW: writes, memory, 200/s, k=1." in text
    assert "nothing was compared" in text


def test_closed_loops_are_told_by_their_clients(
    found: Callable[..., tuple[Comparison, Run]],
) -> None:
    """A cell without a rate has clients."""
    base = simulated.sweep([1], rate=None, users=8)
    text = printed(found(base, simulated.sweep([1], rate=None, users=1))[0], 80)
    assert "Only in BASE: writes, memory, 8 clients, k=1." in text
    assert "Only in NEW: writes, memory, 1 client, k=1." in text


def test_title_of_the_chart_is_the_whole_finding(
    found: Callable[..., tuple[Comparison, Run]],
) -> None:
    """A cell's name may hold a comma, as "k=3, fsync" does: the title is not cut there."""
    base = simulated.sweep([3], trials=5, ack="memory") + simulated.sweep([3], 5, ack="fsync")
    new = [
        row
        | (
            {"response_ms": {name: 2 * ms for name, ms in row["response_ms"].items()}}
            if row["ack"] == "fsync"
            else {}
        )
        for row in base
    ]
    comparison, run = found(base, new)
    title = comparison_chart.draw(comparison, run).texts[0].get_text()
    assert re.fullmatch(r"NEW is slower: (p\d+|mean) at k=3, fsync by .*%\)", title), title
    assert comparison.sentence.startswith(f"{title}, the largest of")


def test_files_are_the_page_the_chart_and_the_numbers(
    found: Callable[..., tuple[Comparison, Run]], tmp_path: Path
) -> None:
    """The page has the sentence, the warning, the chart beside it, and the table."""
    comparison, new = found(*mixed())
    write_comparison(comparison, new, tmp_path / "out")
    page = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {comparison.sentence}\n")
    assert "**The runs differ in delay (ms): 0:100 in BASE, 0:130 in NEW.**" in page
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", page)
    assert (tmp_path / "out" / picture).read_bytes()[:4] == b"\x89PNG"
    rows = [line for line in page.splitlines() if line.startswith("| k=")]
    assert len(rows) == 15
    assert all(row.replace("\\|", "").count("|") == 9 for row in rows)
    assert "[b]9[/b] \\| dropped" in page
    assert b"<svg" in (tmp_path / "out" / "comparison.svg").read_bytes()[:500]
    assert (tmp_path / "out" / "comparison.json").read_bytes().startswith(b'{\n  "schema": 1')


def texts(comparison: Comparison, new: Run) -> list[str]:
    """Return all texts of the chart in the order of drawing."""
    svg = drawing.to_svg(comparison_chart.draw(comparison, new)).decode()
    return [re.sub("<.*?>", "", t).strip() for t in re.findall(r"<text.*?</text>", svg, re.DOTALL)]


def test_chart_shows_every_change_and_what_is_unknown(
    found: Callable[..., tuple[Comparison, Run]],
) -> None:
    """A panel for each figure, a row for each cell, the finding above, the runs below."""
    comparison, new = found(*mixed())
    shown = texts(comparison, new)
    assert {"mean", "p50", "p95", "p99", "rate", "k=0", "k=1", "k=3"} <= set(shown)
    assert shown.count("unknown") == 5
    assert any(text.startswith("NEW is slower: ") for text in shown)
    everything = " ".join(shown)
    assert "BASE: writes/base. NEW: writes/new." in everything
    assert "The runs differ in delay (ms): 0:100 in BASE, 0:130 in NEW." in everything
    change = comparison.cells[1].figures["p95"].change_percent
    assert change is not None
    assert f"{change[1]:+.1f}%" in shown


@pytest.mark.parametrize(
    ("base", "new"),
    [
        ([], []),
        (simulated.sweep(trials=1, writes=50), simulated.sweep(trials=1, writes=50)),
        (
            simulated.sweep(range(21), n=20, trials=2, writes=50),
            simulated.sweep(range(21), n=20, trials=2, writes=50, cost_ms=60.0),
        ),
        (
            simulated.sweep([1], trials=2, writes=50),
            simulated.sweep([1], trials=2, writes=50, response_ms={"mean": 1e-6, "p50": 1e6}),
        ),
    ],
    ids=["nothing", "one trial", "twenty", "enormous"],
)
def test_chart_and_table_are_made_of_hostile_data(
    found: Callable[..., tuple[Comparison, Run]], base: Rows, new: Rows
) -> None:
    """Nothing, nothing judged, a crowd and changes past all measure raise no error or warning."""
    comparison, run = found(base, new)
    figure = comparison_chart.draw(comparison, run)
    assert drawing.to_png(figure)[:4] == b"\x89PNG"
    assert drawing.to_svg(figure) == drawing.to_svg(comparison_chart.draw(comparison, run))
    assert max(len(line) for line in printed(comparison, 80).splitlines()) <= 80


def test_axis_reaches_the_typical_change_and_ends_before_an_outlier(
    found: Callable[..., tuple[Comparison, Run]],
) -> None:
    """One cell that is twenty times slower does not make all others a line; it is an arrow."""
    base = simulated.sweep(trials=3)
    new = [row | ({"achieved_rate": 2_000.0} if row["k"] == 2 else {}) for row in base]
    comparison, run = found(base, new)
    rate_panel = comparison_chart.draw(comparison, run).axes[-1]
    assert rate_panel.get_xlim()[1] == pytest.approx(1.9 * 5 * 10)
    assert [line.get_marker() for line in rate_panel.lines].count(">") == 1
    assert list(rate_panel.get_xticks()) == [-50, 0, 50]
