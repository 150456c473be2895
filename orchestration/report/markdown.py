"""The facts of a run in a page of Markdown: ``report.md`` with charts, ``summary.md`` without.

What is pasted elsewhere, or appended to a job's summary in CI, has no files beside it: a chart
would be a broken picture there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.report import (
    conditions,
    effect_table,
    operation_table,
    result,
    tables,
    threshold_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.report.records import Run
    from orchestration.report.summary import Summary


def render(run: Run, summary: Summary, charts: Sequence[str]) -> str:
    """Return the text.

    Args:
        run: What was read.
        summary: What was found.
        charts: Names of the charts beside the file, without their ending; none for a text that
            stands by itself.
    """
    parts = [f"# {escaped(summary.sentence)}", _outcome(summary)]
    if summary.missing:
        parts.append(summary.missing)
    if summary.thresholds:
        parts.append(table(threshold_table.columns(summary.thresholds)))
    parts += [f"![{name.replace('_', ' ')}]({name}.png)" for name in charts]
    if summary.cells:
        columns = tables.columns(summary.cells)
        parts += [table(columns), tables.caption(summary.cells, columns)]
        if effects := effect_table.columns(summary.cells):
            parts += ["What each k costs:", table(effects), effect_table.CAPTION]
        if others := operation_table.columns(summary.cells):
            parts += ["The other operations, response times in ms:", table(others)]
        parts.append("\n".join(f"- {escaped(line)}" for line in tables.notes(summary.cells)))
    parts.append("\n".join(f"> {line}  " for line in conditions.footnote(run).splitlines()))
    return "\n\n".join(filter(None, parts)) + "\n"


def _outcome(summary: Summary) -> str:
    """Return the line that a reader in a hurry reads."""
    told = result.result_line(summary.thresholds)
    first = f"Result: **{told}**. " if told else ""
    return f"{first}Measurement: **{result.measurement(summary)}**. Run `{summary.run}`."


def table(columns: Sequence[tables.Column]) -> str:
    """Return a table of Markdown."""
    rows = [
        [column.heading for column in columns],
        ["--:" if column.is_number else ":--" for column in columns],
        *zip(*(map(escaped, column.texts) for column in columns), strict=True),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, within a table too."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
