"""Thresholds in a report: the same finding in every output."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from orchestration.report import markdown, result, threshold_table
from orchestration.report.console import print_report
from orchestration.report.labels import labels
from orchestration.report.summary import Summary, summarise
from orchestration.report.write import write_report
from orchestration.thresholds import Check, Outcome, result_of
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestration.report.records import Run

TEXTS = [
    "p99 < 1s",
    "mean < 40ms at k=1,3",
    "p50 < 80ms at k=4-5",
    "errors < 1%",
    "p99 < 9ms at k=6",
]


def rows() -> list[dict[str, Any]]:
    """Trials of k from 0 to 5; at 5 the generator was late."""
    late = {"stamp": "generator-bound", "reason": "requests left late"}
    return [row | (late if row["k"] == 5 else {}) for row in simulated.sweep(writes=200)]


def scenario(*texts: str) -> dict[str, Any]:
    """The manifest's scenario with these thresholds."""
    return {"name": "writes", "quorums": [0, 1, 2, 3, 4, 5], "thresholds": list(texts)}


def check(measured: float | None = 45.2, **changes: Any) -> Check:
    """A check of k=3 that passed."""
    cell = {"scenario": "writes", "ack": "memory", "rate": 100.0, "users": None, "k": 3}
    return Check(**cell | {"status": "passed", "measured": measured} | changes)  # type: ignore[arg-type] # of many types


def outcome(*checks: Check, status: str = "passed", limit: float = 50.0, **changes: Any) -> Outcome:
    """What a run says to p99 < 50 ms."""
    values = {"text": "p99 < 50ms", "unit": "ms", "reason": "", "checks": list(checks)}
    return Outcome(**values | {"status": status, "limit": limit} | changes)  # type: ignore[arg-type] # of many types


@pytest.fixture
def summary(make_run: Callable[..., Run]) -> Summary:
    """The summary of a run with one threshold of each kind."""
    return summarise(make_run(rows(), scenario=scenario(*TEXTS)))


def test_cells_are_named_by_what_tells_them_apart() -> None:
    """K alone where that is enough; rates, clients and workloads where they differ."""
    same = [check(k=0), check(k=3)]
    assert labels(same) == ["k=0", "k=3"]
    assert labels([*same, check(rate=1500.0)]) == ["k=0, 100/s", "k=3, 100/s", "k=3, 1,500/s"]
    closed = check(rate=None, users=1, scenario="mixed")
    assert labels([check(), closed]) == ["k=3, writes, 100/s", "k=3, mixed, 1 client"]
    assert labels([check(), check(ack="fsync")]) == ["k=3, memory", "k=3, fsync"]
    assert labels([]) == []


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (outcome(check()), "45.2 ms at k=3"),
        (outcome(check(ci95=(44.0, 46.4))), "45.2 ±1.2 ms at k=3"),
        (outcome(check(9.0), check(40.0, k=5)), "40.0 ms at k=5, the closest of 2 cells"),
        (outcome(check(99.8), unit="/s", limit=95.0), "99.8/s at k=3"),
        (outcome(check(0.0), unit="%", limit=1.0), "0.0% at k=3"),
        (
            outcome(check(9.0, k=0), check(61.0, status="breached"), status="breached"),
            "61.0 ms at k=3",
        ),
        (
            outcome(check(None, status="unknown", reason="saturated: 9 dropped"), status="unknown"),
            "k=3 saturated",
        ),
        (
            outcome(status="unknown", reason="no cell was measured"),
            "no cell was measured",
        ),
    ],
)
def test_finding_tells_what_decided(found: Outcome, text: str) -> None:
    """The closest cell of those that pass, or all that do not."""
    assert threshold_table.finding(found) == text


@pytest.mark.parametrize(
    ("measured", "limit", "text"),
    [
        (100.2, 100.0, "100.2 ms"),
        (100.6, 100.0, "101 ms"),
        (49.96, 50.0, "49.96 ms"),
        (50.0, 50.0, "50.0 ms"),
        (49.99999, 50.0, "50.000 ms"),
        (0.00001, 0.0, "0.000 ms"),
    ],
)
def test_figure_beside_its_limit_shows_on_which_side_it_lies(
    measured: float, limit: float, text: str
) -> None:
    """Rounding does not contradict the status, down to a microsecond."""
    assert threshold_table.finding(outcome(check(measured), limit=limit)) == f"{text} at k=3"


def test_limit_within_the_interval_is_told() -> None:
    """The estimate decides, and the reader learns that it was close."""
    found = threshold_table.finding(outcome(check(48.0, ci95=(45.0, 51.0))))
    assert found == "48.0 ±3.0 ms (the limit is within the interval) at k=3"


def test_result_counts_the_worst_first(summary: Summary) -> None:
    """Failed as soon as one is breached; and nothing for a run without thresholds."""
    assert [each.status for each in summary.thresholds] == [
        "unknown",
        "breached",
        "unknown",
        "unknown",
        "unknown",
    ]
    told = result.result_line(summary.thresholds)
    assert (summary.result, told) == ("failed", "FAILED, 1 threshold breached, 4 unknown")
    assert (result_of([]), result.result_line([])) == (None, "")
    passed = [outcome for outcome in summary.thresholds if outcome.status == "passed"]
    unknown = [outcome for outcome in summary.thresholds if outcome.status == "unknown"][:1]
    assert result.result_line([*passed, *unknown]) == "unknown, 1 threshold unknown"


@pytest.mark.parametrize("width", [30, 60, 100])
def test_console_shows_thresholds_at_any_width(summary: Summary, width: int) -> None:
    """Long findings are folded, never cut."""
    console = Console(file=io.StringIO(), width=width)
    print_report(console, summary)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    words = re.sub(r"\s", "", text)
    assert "Result:FAILED,1thresholdbreached,4unknown" in words
    assert "Measurement:valid" in words
    assert words.count("generator-bound") >= 3


def test_markdown_tells_result_and_measurement_before_all_else(tmp_path: Path) -> None:
    """Who reads the first lines of a CI page knows whether all is well."""
    run_dir = simulated.write_run(tmp_path, rows(), scenario=scenario(*TEXTS))
    write_report(run_dir)
    for name in ("report.md", "summary.md"):
        _, second, table, *rest = (run_dir / name).read_text(encoding="utf-8").split("\n\n")
        assert second.startswith(
            "Result: **FAILED, 1 threshold breached, 4 unknown**. Measurement: **valid**."
        )
        assert "| mean &lt; 40ms at k=1,3 | breached | " in table
        assert not any("breached" in part for part in rest)


def test_markdown_without_charts_refers_to_no_file(tmp_path: Path) -> None:
    """What is appended to a job's summary has no broken picture, and all else of the report."""
    run_dir = simulated.write_run(tmp_path, rows())
    write_report(run_dir)
    whole, alone = ((run_dir / name).read_text() for name in ("report.md", "summary.md"))
    assert "![" in whole
    assert "](" not in alone
    assert alone == re.sub(r"!\[.*?\]\(.*?\)\n\n", "", whole)


def test_markdown_without_thresholds_says_nothing_of_them(make_run: Callable[..., Run]) -> None:
    """No empty table."""
    run = make_run(rows())
    assert "hreshold" not in markdown.render(run, summarise(run), [])


def test_page_shows_thresholds_with_their_status(tmp_path: Path) -> None:
    """Each row has its text, escaped, and a class that colours it."""
    run_dir = simulated.write_run(tmp_path, rows(), scenario=scenario(*TEXTS))
    write_report(run_dir)
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert re.search(r'<td>mean &lt; 40ms at k=1,3</td>\s*<td class="breached">breached</td>', page)
    assert page.count('<td class="unknown">unknown</td>') == 4


def test_page_without_thresholds_has_no_such_table(tmp_path: Path) -> None:
    """Nor its heading."""
    write_report(simulated.write_run(tmp_path, rows()))
    assert '<table class="thresholds">' not in (tmp_path / "report.html").read_text()
