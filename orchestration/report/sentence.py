"""The sentence that a sweep means, built from what was measured and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orchestration.report.numbers import count, ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestration.analysis.stats import Estimate
    from orchestration.report.summary import Cell


class Nouns(NamedTuple):
    """What one of an operation is called, and many."""

    one: str
    many: str


OPERATIONS: Mapping[str, Nouns] = {
    "write": Nouns("acknowledged write", "acknowledged writes"),
    "read": Nouns("read", "reads"),
    "scan": Nouns("scan", "scans"),
    "read_modify_write": Nouns("read-modify-write", "read-modify-writes"),
    "delete": Nouns("acknowledged delete", "acknowledged deletes"),
}


def headline(cells: Sequence[Cell], *, followers: int) -> str:
    """Return what the chosen k costs over the smallest one, and what it buys.

    Where acknowledgments from memory and from disk were measured, it is about those from disk, and
    a second sentence says what the disk costs.
    """
    cell = headline_cell(cells, followers)
    if cell is None:
        return _nothing(cells)
    first = f"{cost(cell, 'p50')}, and {_gain(cell.k, cell.ack)}."
    disk = cell.over_memory_ms and cell.over_memory_ms.estimate("p50")
    return first if not disk else f"{first} {_disk_cost(disk, cell.k)}"


def _disk_cost(disk: Estimate, k: int) -> str:
    if disk.interval is not None and disk.interval[0] <= 0 <= disk.interval[1]:
        low, high = (ms(end, sign=True) for end in disk.interval)
        return f"At k={k} the disk shows no measurable cost at p50 ({low} to {high})."
    certainty = " (one trial, no interval)" if disk.interval is None else ""
    return f"At k={k} the disk costs {ms(disk.value, sign=True)} at p50 over memory{certainty}."


def headline_cell(cells: Sequence[Cell], followers: int) -> Cell | None:
    """Return the cell that a sentence is about; None if none may be quoted.

    It is k = ceil(n/2), with which a write is on a majority of the n + 1 nodes, if that was
    measured, else the largest k that was.
    """
    quotable = [cell for cell in cells if cell.is_quotable]
    # Cells are sorted, with those from disk last.
    quotable = [cell for cell in quotable if cell.ack == quotable[-1].ack]
    majority = [cell for cell in quotable if cell.k == (followers + 1) // 2]
    return majority[0] if majority else max(quotable, key=lambda cell: cell.k, default=None)


def cost(cell: Cell, statistic: str) -> str:
    """Return the clause of what a quotable cell costs: "k=3 costs +33 ms at p50 over k=0".

    Args:
        cell: With a measured mean response time.
        statistic: mean or p50; the mean stands in for a p50 that may not be quoted.
    """
    name = statistic if getattr(cell.response_ms, statistic) is not None else "mean"
    where = "on average" if name == "mean" else f"at {name}"
    difference = cell.difference_ms
    found = difference.estimate(name) if difference else None
    if difference is None or found is None:
        return f"k={cell.k} answers in {ms(getattr(cell.response_ms, name))} {where}"
    size = ms(abs(found.value), sign=found.value >= 0)
    if found.value < 0:
        clause = f"k={cell.k} is {size} quicker {where} than k={difference.against}"
    else:
        clause = f"k={cell.k} costs {size} {where} over k={difference.against}"
    if found.interval is None:
        return f"{clause} (one trial, no interval)"
    low, high = found.interval
    if low <= 0 <= high:
        span = f"{ms(low, sign=True)} to {ms(high, sign=True)}"
        over = f"{where} over k={difference.against}"
        return f"k={cell.k} shows no measurable cost {over} ({span})"
    return clause


def _gain(k: int, ack: str) -> str:
    if k == 0:
        return "a write may be lost with the leader"
    lost = "the leader" if k == 1 else f"the leader and {count(k - 1, 'follower')}"
    if ack != "fsync":
        return f"a write survives the loss of {lost} while the others' memory lasts"
    return f"a write survives the loss of {lost}"


def _nothing(cells: Sequence[Cell]) -> str:
    if not cells:
        return "No trial was finished, so nothing is known about the cost of a quorum."
    stamps = ", ".join(f"k={cell.k} {_state(cell)}" for cell in cells)
    return f"No cell can be quoted, so nothing is known about the cost of a quorum ({stamps})."


def _state(cell: Cell) -> str:
    return cell.stamp if cell.stamp != "ok" else "without an acknowledged write"
