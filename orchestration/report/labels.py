"""Names of cells, as short as tells those of one run apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from orchestration.report.numbers import count

if TYPE_CHECKING:
    from collections.abc import Sequence


class Cell(Protocol):
    """What identifies a cell within a run."""

    @property
    def scenario(self) -> str:
        """The workload."""
        ...

    @property
    def ack(self) -> str:
        """What an acknowledgment meant."""
        ...

    @property
    def rate(self) -> float | None:
        """Requests/s of an open loop."""
        ...

    @property
    def users(self) -> int | None:
        """Clients of a closed loop."""
        ...

    @property
    def k(self) -> int:
        """The write quorum."""
        ...


def labels(cells: Sequence[Cell]) -> list[str]:
    """Return "k=3" for each cell, or "k=3, fsync" where they differ in more than k."""
    parts = [
        [f"k={cell.k}" for cell in cells],
        [cell.scenario for cell in cells],
        [cell.ack for cell in cells],
        ["" if cell.rate is None else f"{cell.rate:,g}/s" for cell in cells],
        ["" if cell.users is None else count(cell.users, "client") for cell in cells],
    ]
    telling = [texts for index, texts in enumerate(parts) if not index or len(set(texts)) > 1]
    return [", ".join(filter(None, texts)) for texts in zip(*telling, strict=True)]
