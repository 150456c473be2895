"""The table of what each k costs, in paired differences: the same for HTML and Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.report.labels import labels
from orchestration.report.numbers import ABSENT, decimals_for, fixed
from orchestration.report.tables import RESPONSE, Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.analysis.stats import Estimate
    from orchestration.report.summary import Cell, Difference

CAPTION = (
    "Response time in ms minus that of the other cell, trial by trial within a block: means over "
    "blocks with their 95% intervals."
)


def columns(cells: Sequence[Cell]) -> list[Column]:
    """Return the columns, a row for each cell that was compared with another; none without any.

    Args:
        cells: All cells of a run.
    """
    named = list(zip(labels(cells), cells, strict=True))
    rows: list[tuple[str, str, Difference]] = []
    for label, cell in named:
        if cell.difference_ms:
            rows.append((label, f"k={cell.difference_ms.against}", cell.difference_ms))
        if cell.over_memory_ms:
            rows.append((label, "memory", cell.over_memory_ms))
    if not rows:
        return []
    decimals = decimals_for(difference.mean for _, _, difference in rows)
    return [
        Column("cell", [label for label, _, _ in rows], is_number=False),
        Column("over", [against for _, against, _ in rows], is_number=False),
        *(
            Column(name, [_told(each.estimate(name), decimals) for _, _, each in rows])
            for name in RESPONSE
        ),
        Column("blocks", [str(difference.blocks) for _, _, difference in rows]),
    ]


def _told(found: Estimate | None, decimals: int) -> str:
    """Return "+4.1 [3.9, 4.4]"; without the interval where there is none."""
    if found is None:
        return ABSENT
    value = fixed(found.value, decimals, sign=True)
    if found.interval is None:
        return value
    low, high = (fixed(end, decimals) for end in found.interval)
    return f"{value} [{low}, {high}]"
