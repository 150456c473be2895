"""``report.md``: the facts of a run in a page of Markdown, for an issue or a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.report import conditions, tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.report.records import Run
    from orchestration.report.summary import Summary


def render(run: Run, summary: Summary, charts: Sequence[str]) -> str:
    """Return the text.

    Args:
        run: What was read.
        summary: What was found.
        charts: Names of the charts beside the file, without their ending.
    """
    parts = [f"# {summary.sentence}", f"Run `{summary.run}`, verdict **{summary.verdict}**."]
    if summary.missing:
        parts.append(summary.missing)
    parts += [f"![{name.replace('_', ' ')}]({name}.png)" for name in charts]
    if summary.cells:
        columns = tables.columns(summary.cells)
        parts += [_table(columns), tables.caption(summary.cells, columns)]
        parts += [f"- {_escaped(line)}" for line in tables.notes(summary.cells)]
    parts.append("\n".join(f"> {line}  " for line in conditions.footnote(run).splitlines()))
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[tables.Column]) -> str:
    rows = [
        [column.heading for column in columns],
        ["--:" if column.is_number else ":--" for column in columns],
        *zip(*(map(_escaped, column.texts) for column in columns), strict=True),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
