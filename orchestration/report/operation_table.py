"""The table of the operations beside the headline: the same for the console, HTML and Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.report.labels import labels
from orchestration.report.numbers import decimals_for, with_interval
from orchestration.report.tables import Column, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.report.summary import Cell, Operation

SHOWN = ("mean", "p50", "p99")


def columns(cells: Sequence[Cell]) -> list[Column]:
    """Return the columns, a row for each operation of each cell; none if writes are all there is.

    Args:
        cells: All cells of a run.
    """
    named = zip(labels(cells), cells, strict=True)
    rows = [
        (label, name, operation)
        for label, cell in named
        for name, operation in cell.operations.items()
    ]
    if not rows:
        return []
    decimals = decimals_for(operation.response_ms.mean for _, _, operation in rows)
    return [
        Column("cell", [label for label, _, _ in rows], is_number=False),
        Column("operation", [name.replace("_", "-") for _, name, _ in rows], is_number=False),
        *(_figures(rows, figure, decimals) for figure in SHOWN),
        Column("ok", [f"{operation.ok:,}" for _, _, operation in rows]),
        Column("errors", [counted(operation.errors) for _, _, operation in rows], is_number=False),
    ]


def _figures(rows: Sequence[tuple[str, str, Operation]], figure: str, decimals: int) -> Column:
    found = [operation.response_ms.estimate(figure) for _, _, operation in rows]
    return Column(figure, [with_interval(each, decimals) for each in found])
