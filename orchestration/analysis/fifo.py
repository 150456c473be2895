"""How long a write waits for its k-th acknowledgment where no entry overtakes another on its link.

On a FIFO link an entry leaves when its own delay is over and all entries before it have left. With
arrivals a constant spacing s apart and a drawn delay d_i for the i-th entry, entry i leaves after

    D_i = max over j >= 0 of (d_(i-j) - j s),

its own delay or what is left of that of the j-th entry before it, which was sent j s earlier. The d
are independent with distribution F, so in the steady state

    P(D <= d) = product over j >= 0 of F(d + j s).

All entries sent longer ago than the longest delay have left: factors from d + j s >= b on are 1,
and waits of entries so far apart are independent. For F uniform on [a, b], scaled to
x = (d - a)/(b - a) and r = s/(b - a), the product has m = ⌈(1 - x)/r⌉ factors x, x + r, ..., and is

    r^m Γ(x/r + m) / Γ(x/r).

The n links are independent of each other, so that the k-th smallest of their delays has the same
Beta(k, n - k + 1) distribution in terms of that of one link as in `theory`. For s >= b - a nothing
waits for anything before it, and all is as on independent links.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestration.analysis.theory import QuorumWait

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# As 1 + log y <= y, the distribution at x is at most exp(-(1 - x)²/2r): so many roots of r below
# the longest delay it is below 1e-21, and moments need no integration there.
ROOTS_THAT_MATTER = 10.0
GRID_POINTS = 4_097


@dataclass(frozen=True, slots=True)
class FifoQuorumWait(QuorumWait):
    """The wait for k of n acknowledgments over FIFO links, arrivals being evenly spaced.

    It holds for the steady state: from the first write on that was sent the longest delay after the
    first one of all.

    Attributes:
        spacing_ms: s, between two writes; above 0.

    Raises:
        ValueError: A value is outside its range.
    """

    spacing_ms: float

    def __post_init__(self) -> None:
        # super() without arguments does not work in a dataclass with slots before Python 3.14.
        QuorumWait.__post_init__(self)
        if not 0 < self.spacing_ms < math.inf:
            raise ValueError(f"no spacing of arrivals: {self.spacing_ms} ms")

    @property
    def mean_ms(self) -> float:
        """The mean wait."""
        return self._at(self._moments()[0])

    @property
    def deviation_ms(self) -> float:
        """The standard deviation of one wait."""
        if self.write_quorum == 0:
            return 0.0
        mean, of_squares = self._moments()
        return self._range_ms * math.sqrt(max(0.0, of_squares - mean * mean))

    def independent_writes(self, writes: int) -> int:
        """Return how many independent waits tell at least as much as so many writes in a row, less.

        Every L-th write, sent the range of delays apart, waits independently. The writes are L such
        series, and their mean has no larger variance than that of one series.
        """
        apart = max(1, math.ceil(self._range_ms / self.spacing_ms))
        return max(1, writes // apart)

    @property
    def _range_ms(self) -> float:
        return self.max_delay_ms - self.min_delay_ms

    def _moments(self) -> tuple[float, float]:
        """Return the means of the scaled wait and of its square."""
        if self._range_ms == 0:
            return 0.0, 0.0
        ratio = self.spacing_ms / self._range_ms
        return _moments(self.followers, self.write_quorum, ratio)

    def _link_quantile(self, share: float) -> float:
        from scipy.optimize import brentq  # noqa: PLC0415 -- 0.4 s that only analysis should pay

        if self._range_ms == 0 or share in {0.0, 1.0}:
            return share
        ratio = self.spacing_ms / self._range_ms
        found: float = brentq(lambda x: float(link_share(x, ratio)) - share, 0.0, 1.0)
        return found


def link_share(x: ArrayLike, ratio: float) -> NDArray[np.float64]:
    """Return the share of a FIFO link's delays at or below x.

    Args:
        x: Delays, scaled so that the drawn ones are uniform on [0, 1].
        ratio: The spacing of arrivals, scaled alike; above 0.
    """
    from scipy.special import gammaln  # noqa: PLC0415 -- 0.4 s that only analysis should pay

    scaled = np.clip(np.asarray(x, dtype=float), 0.0, 1.0)
    factors = np.ceil((1.0 - scaled) / ratio)
    log_share = factors * math.log(ratio) + gammaln(scaled / ratio + factors)
    share: NDArray[np.float64] = np.exp(log_share - gammaln(scaled / ratio))
    return share


def _moments(n: int, k: int, ratio: float) -> tuple[float, float]:
    """Return the means of the k-th of n scaled delays, and of its square, by integration.

    E[X] is the integral of 1 - F over [0, 1], and E[X²] that of 2x (1 - F).
    """
    from scipy.special import betainc  # noqa: PLC0415 -- 0.4 s that only analysis should pay

    if k == 0:
        return 0.0, 0.0
    start = max(0.0, 1.0 - ROOTS_THAT_MATTER * math.sqrt(ratio))
    x = np.linspace(start, 1.0, GRID_POINTS)
    later = 1.0 - np.asarray(betainc(k, n - k + 1, link_share(x, ratio)), dtype=float)
    mean = start + float(np.trapezoid(later, x))
    of_squares = start * start + float(np.trapezoid(2.0 * x * later, x))
    return mean, of_squares
