"""A comparison on a terminal: what to beware of, the table, and the sentence that it means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from orchestration.report import comparison_table
from orchestration.report.comparison_words import BETTER, WORSE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from orchestration.report.comparison import Comparison
    from orchestration.report.tables import Column

STYLES = {
    **dict.fromkeys(WORSE, "bold red"),
    **dict.fromkeys(BETTER, "green"),
    "unclear": "yellow",
    "unknown": "dim",
}


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print all that a person has to know, as wide as the console allows, the sentence last."""
    for line in comparison_table.warnings(comparison):
        console.print(Text(line, style="bold yellow"))
    if comparison.cells:
        console.print(_fitting_table(console, comparison_table.columns(comparison)))
        console.print(Text(comparison_table.caption(comparison), style="dim"))
    for line in comparison_table.notes(comparison):
        console.print(Text(line, style="yellow"))
    console.print()
    console.print(Text(comparison.sentence, style="bold"))


def _fitting_table(console: Console, columns: Sequence[Column]) -> Table:
    """Return the fullest table that fits; the change, its interval and the verdict stay."""
    unbounded = console.options.update(width=1000)
    tables = [_table([c for c in columns if c.rank <= rank]) for rank in (2, 1, 0)]
    fitting = (
        table
        for table in tables
        if Measurement.get(console, unbounded, table).maximum <= console.width
    )
    return next(fitting, tables[-1])


def _table(columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            overflow="fold",
        )
    rows = list(zip(*(column.texts for column in columns), strict=True))
    for index, texts in enumerate(rows):
        is_first = index == 0 or rows[index - 1][0] != texts[0]
        is_last = index + 1 < len(rows) and rows[index + 1][0] != texts[0]
        cells = [Text(texts[0] if is_first else "", style="bold"), *map(Text, texts[1:-1])]
        table.add_row(*cells, Text(texts[-1], style=STYLES.get(texts[-1], "")), end_section=is_last)
    return table
