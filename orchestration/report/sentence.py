"""The sentence that a sweep means, built from what was measured and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.report.numbers import count, ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.report.summary import Cell

HEADLINE_STATISTICS = ("p50", "mean")


def headline(cells: Sequence[Cell], *, followers: int, ack: str) -> str:
    """Return one sentence: what the chosen k costs over the smallest one, and what it buys."""
    cell = headline_cell(cells, followers)
    if cell is None:
        return _nothing(cells)
    return f"{_cost(cell)}, and {_gain(cell.k, ack)}."


def headline_cell(cells: Sequence[Cell], followers: int) -> Cell | None:
    """Return the cell that a sentence is about; None if none may be quoted.

    It is k = ceil(n/2), with which a write is on a majority of the n + 1 nodes, if that was
    measured, else the largest k that was.
    """
    quotable = [cell for cell in cells if cell.is_quotable]
    majority = [cell for cell in quotable if cell.k == (followers + 1) // 2]
    return majority[0] if majority else max(quotable, key=lambda cell: cell.k, default=None)


def _cost(cell: Cell) -> str:
    difference = cell.difference_ms
    name = next((s for s in HEADLINE_STATISTICS if getattr(cell.response_ms, s) is not None), "p50")
    found = difference.estimate(name) if difference else None
    where = "at p50" if name == "p50" else "on average"
    if difference is None or found is None:
        return f"k={cell.k} answers in {ms(getattr(cell.response_ms, name))} {where}"
    over = f"{where} over k={difference.against}"
    if found.interval is None:
        return f"k={cell.k} costs {ms(found.value, sign=True)} {over} (one trial, no interval)"
    low, high = found.interval
    if low <= 0 <= high:
        return (
            f"k={cell.k} shows no measurable cost {over} "
            f"({ms(low, sign=True)} to {ms(high, sign=True)} with 95%)"
        )
    return f"k={cell.k} costs {ms(found.value, sign=True)} {over}"


def _gain(k: int, ack: str) -> str:
    if k == 0:
        return "a write may be lost with the leader"
    lost = "the leader" if k == 1 else f"the leader and {count(k - 1, 'follower')}"
    if ack == "memory":
        return f"a write survives the loss of {lost} while the others' memory lasts"
    return f"a write survives the loss of {lost}"


def _nothing(cells: Sequence[Cell]) -> str:
    if not cells:
        return "No trial was finished, so nothing is known about the cost of a quorum."
    stamps = ", ".join(f"k={cell.k} {_state(cell)}" for cell in cells)
    return f"No cell can be quoted, so nothing is known about the cost of a quorum ({stamps})."


def _state(cell: Cell) -> str:
    return cell.stamp if cell.stamp != "ok" else "without an acknowledged write"
