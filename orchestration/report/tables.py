"""The table of a report, cell by cell as text: the same for the console, HTML and Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestration.report.labels import labels
from orchestration.report.numbers import ABSENT, decimals_for, fixed, with_interval
from orchestration.report.sentence import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestration.report.summary import Block, Cell

RESPONSE = ("mean", "p50", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, its texts from the first row to the last, how it lines up.

    Attributes:
        rank: Columns of a higher rank go first where a terminal is too narrow for all.
        plain: True if it says nothing that the caption does not say, such as no errors.
    """

    heading: str
    texts: list[str]
    is_number: bool = True
    rank: int = 0
    plain: bool = False


def columns(cells: Sequence[Cell], *, intervals: Sequence[str] = RESPONSE) -> list[Column]:
    """Return the columns of the main table; latencies are response times in ms.

    Args:
        cells: One row each.
        intervals: The statistics that show their ±.
    """
    return [
        *_telling("ack", [cell.ack for cell in cells]),
        *_telling("offered/s", [f"{cell.rate or 0:,g}" for cell in cells]),
        Column("k", [str(cell.k) for cell in cells]),
        # Beside k, where no width hides it: it says whether the row may be relied on.
        Column(
            "stamp",
            [cell.stamp for cell in cells],
            is_number=False,
            plain=all(cell.stamp == "ok" for cell in cells),
        ),
        *(_response(cells, name, interval=name in intervals) for name in RESPONSE),
        *_uncorrected(cells),
        Column("theory", _block(cells, lambda cell: cell.theory_ms), rank=1),
        Column("residual", _residuals(cells), rank=1),
        Column("rate/s", [fixed(cell.achieved_rate, 1) for cell in cells], rank=2),
        Column("samples", [f"{cell.writes:,}" for cell in cells], rank=3),
        Column(
            "parity",
            [cell.parity for cell in cells],
            is_number=False,
            plain=all(cell.parity == "match" for cell in cells),
        ),
        Column(
            "errors",
            [errors(cell) for cell in cells],
            is_number=False,
            rank=4,
            plain=not any(cell.errors or cell.dropped for cell in cells),
        ),
    ]


def _telling(heading: str, texts: list[str]) -> list[Column]:
    """Return the column of a setting, if the cells differ in it."""
    return [Column(heading, texts, is_number=heading != "ack")] if len(set(texts)) > 1 else []


def errors(cell: Cell) -> str:
    """Return "5 dropped, 2 outcome_unknown", or 0."""
    dropped = {"dropped": cell.dropped} if cell.dropped else {}
    return counted(cell.errors | dropped)


def counted(errors: Mapping[str, int]) -> str:
    """Return "5 dropped, 2 outcome_unknown", or 0."""
    return ", ".join(f"{number:,} {code}" for code, number in sorted(errors.items())) or "0"


def _response(cells: Sequence[Cell], name: str, *, interval: bool) -> Column:
    found = [cell.response_ms.estimate(name) for cell in cells]
    decimals = decimals_for(cell.response_ms.mean for cell in cells)
    texts = [
        with_interval(each, decimals) if interval else fixed(each.value if each else None, decimals)
        for each in found
    ]
    return Column(name, texts, rank=0 if name in {"mean", "p50", "p99"} else 1)


def _block(cells: Sequence[Cell], block: Callable[[Cell], Block]) -> list[str]:
    values = [block(cell).mean for cell in cells]
    return [fixed(value, decimals_for(values)) for value in values]


def _uncorrected(cells: Sequence[Cell]) -> list[Column]:
    """Return its column; none for runs of a version that did not take it."""
    values = [cell.uncorrected_ms.p99 for cell in cells]
    texts = [fixed(value, decimals_for(values)) for value in values]
    return [Column("p99 uncorrected", texts, rank=4)] if any(values) else []


def _residuals(cells: Sequence[Cell]) -> list[str]:
    values = [cell.residual_ms.mean for cell in cells]
    decimals = max(1, decimals_for(values) - 1)
    return [fixed(value, decimals, sign=True) for value in values]


def caption(cells: Sequence[Cell], shown: Sequence[Column]) -> str:
    """Return what the table with these columns means, and what its constant ones would say."""
    operations = " and ".join(dict.fromkeys(OPERATIONS[cell.operation].many for cell in cells))
    what = f"Response time of {operations} in ms, from the intended start: means over trials"
    has_intervals = any("±" in text for column in shown for text in column.texts)
    parts = [f"{what}, ± half the 95% interval." if has_intervals else f"{what}."]
    if any(" to " in text for column in shown for text in column.texts if column.is_number):
        parts.append("In brackets: an interval that would reach below 0.")
    if any(column.heading == "theory" for column in shown):
        parts.append("Theory: the mean that link delays alone would give; residual: mean - theory.")
    if any(column.heading == "p99 uncorrected" for column in shown):
        parts.append("Uncorrected: what clients who wait for their answers would have seen.")
    if all(cell.stamp == "ok" for cell in cells):
        parts.append("All cells ok.")
    if all(cell.parity == "match" for cell in cells):
        parts.append("All replicas matched after every trial.")
    if not any(cell.errors or cell.dropped for cell in cells):
        parts.append("No errors.")
    if any(not cell.is_quotable for cell in cells):
        parts.append(f"{ABSENT}: not to be quoted.")
    return " ".join(parts)


def notes(cells: Sequence[Cell]) -> list[str]:
    """Return the cells' notes, each once with the k that it is about: "k=1, 2: no p99, …"."""
    lines: dict[str, list[str]] = {}
    for label, cell in zip(labels(cells), cells, strict=True):
        for note in cell.notes:
            lines.setdefault(note, []).append(label)
    if all(label.startswith("k=") and "," not in label for label in labels(cells)):
        lines = {
            note: [f"k={', '.join(label.removeprefix('k=') for label in named)}"]
            for note, named in lines.items()
        }
    return [f"{'; '.join(named)}: {note}" for note, named in lines.items()]
