"""The report on a terminal: a table, its caption, and the sentence that it means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from orchestration.report import operation_table, result, tables, threshold_table

if TYPE_CHECKING:
    from rich.console import Console

    from orchestration.report.summary import Summary
    from orchestration.report.tables import Column

VERDICT_STYLES = {"valid": "green", "violated": "bold red", "unknown": "yellow"}
RESULT_STYLES = {"passed": "green", "failed": "bold red", "unknown": "yellow"}
STATE_STYLES = {"ok": "green", "match": "green", "passed": "green", "unknown": "yellow"}
STATE_HEADINGS = {"parity", "stamp", "status"}
BAD_STYLE = "bold red"
INTERVALS = (tables.RESPONSE, ("mean", "p50"), ("mean",))


def print_report(console: Console, summary: Summary) -> None:
    """Print the tables, what is missing, and last the sentence, as wide as the console allows."""
    if summary.cells:
        columns = fitting_columns(console, summary)
        console.print(table(columns))
        console.print(Text(tables.caption(summary.cells, columns), style="dim"))
        if others := operation_table.columns(summary.cells):
            console.print(table(others))
        for line in tables.notes(summary.cells):
            console.print(Text(line, style="yellow"))
    if summary.missing:
        console.print(Text(summary.missing, style="yellow"))
    if summary.thresholds:
        console.print(table(threshold_table.columns(summary.thresholds)))
    console.print()
    console.print(Text(summary.sentence, style="bold"))
    if summary.result:
        told = result.result_line(summary.thresholds)
        console.print(Text.assemble("Result: ", (told, RESULT_STYLES[summary.result])))
    print_measurement(console, summary)


def print_measurement(console: Console, summary: result.Measured) -> None:
    """Print how far the measurement can be relied on, whatever its objectives came to."""
    style = VERDICT_STYLES[summary.verdict] if summary.status == "complete" else "yellow"
    console.print(Text.assemble("Measurement: ", (result.measurement(summary), style)))


def fitting_columns(console: Console, summary: Summary) -> list[Column]:
    """Return the columns of the fullest table that the console's width holds.

    Intervals but the mean's give way first, then columns that the caption tells in words, then
    the least important ones; k, the mean, p50, p99, and a state that is not good always stay.
    """
    choices = [tables.columns(summary.cells, intervals=names) for names in INTERVALS]
    choices += [_telling(choice) for choice in choices]
    with_mean = choices[-1]
    bare = _telling(tables.columns(summary.cells, intervals=()))
    choices += [[c for c in with_mean if c.rank <= rank] for rank in (3, 2, 1)]
    choices += [[c for c in bare if c.rank <= rank] for rank in (1, 0)]
    fitting = (choice for choice in choices if width_of(console, choice) <= console.width)
    return next(fitting, choices[-1])


def _telling(columns: list[Column]) -> list[Column]:
    return [column for column in columns if not column.plain]


def width_of(console: Console, columns: list[Column]) -> int:
    """Return how many characters a table of these columns takes without folding."""
    unbounded = console.options.update(width=1000)
    return Measurement.get(console, unbounded, table(columns)).maximum


def table(columns: list[Column]) -> Table:
    """Return a table for a terminal, which breaks texts where there is no room."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            overflow="fold",
        )
    for texts in zip(*(column.texts for column in columns), strict=True):
        table.add_row(*(_styled(text, c) for text, c in zip(texts, columns, strict=True)))
    return table


def _styled(text: str, column: Column) -> Text:
    if column.heading in STATE_HEADINGS:
        return Text(text, style=STATE_STYLES.get(text, BAD_STYLE))
    return Text(text, style="bold" if column.heading == "k" else "")
