"""Where measured figures fall by chance alone, if the model of the wait for a quorum is right.

Bands are simultaneous: with the given confidence *all* figures of all cells lie within theirs, by
Bonferroni's inequality. Of N independent waits with distribution F,

- the r-th smallest, X, has F(X) ~ Beta(r, N - r + 1), which is exact for any F (David and Nagaraja,
  Order Statistics, 2003, section 2.3); a percentile is such a rank;
- the mean is normal with the model's variance over N, N being in the hundreds at least;
- the share of waits at or below any value strays from F by at most √(ln(2/p)/2N) with probability
  1 - p, all along the curve (Dvoretzky, Kiefer and Wolfowitz 1956, with Massart's constant, 1990).

Waits on FIFO links are not independent; there N is the number of independent ones that tell no
more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestration.analysis.histograms import PERCENTILES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestration.analysis.theory import QuorumWait

CONFIDENCE = 0.99
STATISTICS = ("mean", *(f"p{level:.0f}" for level in PERCENTILES))


@dataclass(frozen=True, slots=True)
class Cell:
    """What was measured at one k: the model of its waits, and figures in ms over so many writes.

    Attributes:
        wait: The model.
        writes: Over which the figures were taken together, not trial by trial; at least 1.
        measured_ms: Each of `STATISTICS`.
    """

    wait: QuorumWait
    writes: int
    measured_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure beside its band, all in ms.

    Attributes:
        write_quorum: k.
        statistic: mean, p50, p95 or p99.
        measured_ms: What was measured.
        theory_ms: What the model says.
        low_ms: The lower end of the band.
        high_ms: Its upper end.
    """

    write_quorum: int
    statistic: str
    measured_ms: float
    theory_ms: float
    low_ms: float
    high_ms: float

    @property
    def residual_ms(self) -> float:
        """What the model leaves unexplained: measured minus theory."""
        return self.measured_ms - self.theory_ms

    @property
    def excess_ms(self) -> float:
        """What chance leaves unexplained: how far beyond the band; negative below it, else 0."""
        return self.measured_ms - min(max(self.measured_ms, self.low_ms), self.high_ms)

    def is_explained(self, cost_ms: float) -> bool:
        """Whether chance and a cost of the system of at most so much explain what was measured.

        The system only adds to a wait: a figure below the band is never explained.
        """
        return 0.0 <= self.excess_ms <= cost_ms


def hold_against(cells: Sequence[Cell], confidence: float = CONFIDENCE) -> list[Finding]:
    """Return each figure of each cell beside its band.

    Args:
        cells: All that is looked at together.
        confidence: That chance alone takes none of the figures out of its band.
    """
    # Two ends of each band.
    tail = (1.0 - confidence) / (len(cells) * len(STATISTICS) * 2)
    return [finding for cell in cells for finding in _findings(cell, tail)]


def curve_band(
    wait: QuorumWait, writes: int, levels: Sequence[float], confidence: float = CONFIDENCE
) -> list[tuple[float, float]]:
    """Return in ms between which ends each percentile lies, all of them at once.

    Args:
        wait: The model.
        writes: Over which the curve was taken.
        levels: The percentiles, 0 to 100.
        confidence: That chance alone takes no point of the curve out of its band.
    """
    count = wait.independent_writes(writes)
    stray = 100 * math.sqrt(math.log(2.0 / (1.0 - confidence)) / (2.0 * count))
    lows = wait.percentiles_ms([max(0.0, level - stray) for level in levels])
    highs = wait.percentiles_ms([min(100.0, level + stray) for level in levels])
    return list(zip(lows, highs, strict=True))


def _findings(cell: Cell, tail: float) -> list[Finding]:
    wait, measured = cell.wait, cell.measured_ms
    percentiles = wait.percentiles_ms(PERCENTILES)
    theory = dict(zip(STATISTICS, (wait.mean_ms, *percentiles), strict=True))
    bands = dict(zip(STATISTICS, (_mean_band(cell, tail), *_rank_bands(cell, tail)), strict=True))
    return [
        Finding(wait.write_quorum, name, measured[name], theory[name], *bands[name])
        for name in STATISTICS
    ]


def _mean_band(cell: Cell, tail: float) -> tuple[float, float]:
    from scipy.special import ndtri  # noqa: PLC0415 -- 0.4 s that only analysis should pay

    half = -float(ndtri(tail)) * cell.wait.mean_error_ms(cell.writes)
    return cell.wait.mean_ms - half, cell.wait.mean_ms + half


def _rank_bands(cell: Cell, tail: float) -> list[tuple[float, float]]:
    """Return the band of each of `PERCENTILES`, the value at the nearest rank."""
    from scipy.special import betaincinv  # noqa: PLC0415 -- 0.4 s that only analysis should pay

    writes = cell.wait.independent_writes(cell.writes)
    bands = []
    for level in PERCENTILES:
        rank = max(1, int(level / 100 * writes + 0.5))
        shares = [float(betaincinv(rank, writes - rank + 1, p)) for p in (tail, 1.0 - tail)]
        low_ms, high_ms = cell.wait.percentiles_ms([100 * share for share in shares])
        bands.append((low_ms, high_ms))
    return bands
