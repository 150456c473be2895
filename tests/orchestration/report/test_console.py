"""The table on terminals of all widths."""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from orchestration.report.console import fitting_columns, print_report, table
from orchestration.report.summary import summarise
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.report.records import Run


def printed(run: Run, width: int, **options: bool) -> str:
    """Return what a terminal of this width shows."""
    console = Console(file=io.StringIO(), width=width, **options)  # type: ignore[arg-type]
    print_report(console, summarise(run))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_samples_are_those_that_the_latencies_are_taken_from(make_run: Callable[..., Run]) -> None:
    """With 19 reads for each write, the table counts the writes beside the writes' p99."""
    text = printed(make_run(simulated.sweep([0], trials=2, samples=8_000)), 120)
    assert "800" in text.split()
    assert "16,000" not in text


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 160])
def test_table_fits_and_keeps_the_headline(make_run: Callable[..., Run], width: int) -> None:
    """No line is wider than the terminal, and k, mean, p50, p99 stay whole."""
    text = printed(make_run(simulated.sweep()), width)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    heading = next(line for line in lines if "mean" in line)
    assert {"k", "mean", "p50", "p99"} <= set(heading.split())
    assert not any("…" in line for line in lines)
    assert summarise(make_run(simulated.sweep())).sentence in " ".join(text.split())


def test_eighty_columns_show_interval_theory_and_residual(make_run: Callable[..., Run]) -> None:
    """The usual terminal has room for ±, theory, residual, rate and samples."""
    text = printed(make_run(simulated.sweep()), 80)
    heading = next(line for line in text.splitlines() if "mean" in line).split()
    assert heading == ["k", "mean", "p50", "p95", "p99", "theory", "residual", "rate/s", "samples"]
    assert "±" in text
    assert "All cells ok. All replicas matched after every trial. No errors." in " ".join(
        text.split()
    )


@pytest.mark.parametrize("width", [45, 80, 160])
def test_bad_state_is_shown_at_any_width(make_run: Callable[..., Run], width: int) -> None:
    """A stamp that is not ok and its reason never fall victim to a narrow terminal."""
    rows = simulated.sweep([0, 1])
    rows[-1] |= {"stamp": "saturated", "reason": "61 of 100 writes/s"}
    text = " ".join(printed(make_run(rows), width).split())
    assert "stamp" in text
    assert "61 of 100 writes/s" in text
    assert "All cells ok" not in text


def test_no_color_prints_no_escape(make_run: Callable[..., Run]) -> None:
    """Without colour the text is plain, so that it can be piped and compared."""
    assert "\x1b" not in printed(make_run(simulated.sweep()), 80, no_color=True)


def test_markup_in_data_is_printed_as_text(make_run: Callable[..., Run]) -> None:
    """What a reason or an error code contains is shown as it is, not taken for a style."""
    errors = {"[b]bang[/b]": 1}
    rows = simulated.sweep([0], stamp="invalid", reason="[red]boom[/red]", errors=errors)
    text = printed(make_run(rows), 160)
    assert "[red]boom[/red]" in text
    assert "[b]bang[/b]" in text


def test_nothing_measured_is_said_in_a_sentence(make_run: Callable[..., Run]) -> None:
    """Without trials there is no empty table, but what happened."""
    text = " ".join(printed(make_run([], status="interrupted"), 80).split())
    assert "interrupted: 0 of 18 trials" in text
    assert "No trial was finished" in text


@pytest.mark.parametrize("width", [45, 50, 60])
def test_narrow_table_breaks_figures_and_cuts_none(
    make_run: Callable[..., Run], width: int
) -> None:
    """A figure that has lost its last digits without a mark would be read as another one."""
    rows = [
        row | {"ack": ack, "stamp": stamp, "reason": "late"}
        for ack, stamp in (("memory", "generator-bound"), ("fsync", "ok"))
        for row in simulated.sweep([1, 3], trials=2)
    ]
    summary = summarise(make_run(rows))
    console = Console(file=io.StringIO(), width=width)
    columns = fitting_columns(console, summary)
    console.print(table(columns))
    shown: str = console.file.getvalue()  # type: ignore[attr-defined]
    texts = "".join(text for column in columns for text in column.texts)
    assert Counter("".join(texts.split())) <= Counter(shown)
