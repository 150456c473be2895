"""How long a write waits for its k-th acknowledgment if nothing but the link delays took time.

With n independent delays uniform on [a, b], the k-th smallest, scaled to [0, 1], follows
Beta(k, n - k + 1) (David and Nagaraja, Order Statistics, 2003, section 2.3). Hence its mean is
a + (b - a) k / (n + 1), its variance (b - a)^2 k (n + 1 - k) / ((n + 1)^2 (n + 2)), and its
percentiles are those of the Beta distribution. With k = 0 a write waits for nobody.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class QuorumWait:
    """The wait for k of n acknowledgments over independent uniform link delays.

    Attributes:
        followers: n, at least 0.
        write_quorum: k, from 0 to n.
        min_delay_ms: a, at least 0.
        max_delay_ms: b, at least a.

    Raises:
        ValueError: A value is outside its range.
    """

    followers: int
    write_quorum: int
    min_delay_ms: float
    max_delay_ms: float

    def __post_init__(self) -> None:
        if not 0 <= self.write_quorum <= self.followers:
            raise ValueError(f"k={self.write_quorum} is not within 0..{self.followers} followers")
        if not 0 <= self.min_delay_ms <= self.max_delay_ms < math.inf:
            raise ValueError(f"no delay range: {self.min_delay_ms}:{self.max_delay_ms} ms")

    @property
    def mean_ms(self) -> float:
        """The mean wait."""
        return self._at(self.write_quorum / (self.followers + 1))

    @property
    def max_ms(self) -> float:
        """The longest possible wait."""
        return self._at(1.0)

    @property
    def deviation_ms(self) -> float:
        """The standard deviation of one wait."""
        n, k = self.followers, self.write_quorum
        scaled = math.sqrt(k * (n + 1 - k) / ((n + 1) ** 2 * (n + 2)))
        return (self.max_delay_ms - self.min_delay_ms) * scaled

    def independent_writes(self, writes: int) -> int:
        """Return how many independent waits tell as much as those of so many writes in a row."""
        return writes

    def mean_error_ms(self, writes: int) -> float:
        """Return the standard error of the mean over so many writes in a row (at least 1)."""
        return self.deviation_ms / math.sqrt(self.independent_writes(writes))

    def percentile_ms(self, percent: float) -> float:
        """Return the wait that `percent` (0 to 100) of all writes do not exceed."""
        return self.percentiles_ms([percent])[0]

    def percentiles_ms(self, percents: Sequence[float]) -> list[float]:
        """Return `percentile_ms` of each."""
        from scipy.special import betaincinv  # noqa: PLC0415 -- 0.4 s that only analysis should pay

        n, k = self.followers, self.write_quorum
        if k == 0:
            return [0.0] * len(percents)
        shares = (float(betaincinv(k, n - k + 1, p / 100)) for p in percents)
        return [self._at(self._link_quantile(share)) for share in shares]

    def _link_quantile(self, share: float) -> float:
        """Return the delay that this share of one link's does not exceed, scaled to [0, 1]."""
        return share

    def _at(self, fraction: float) -> float:
        if self.write_quorum == 0:
            return 0.0
        return self.min_delay_ms + (self.max_delay_ms - self.min_delay_ms) * fraction
