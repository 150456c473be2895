"""What a node counts of itself, so cheaply that nothing waits for it."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

NS_PER_MS: Final = 1_000_000
# 1, 2, 5 a decade, from a fast sync to twice the usual REQUEST_TIMEOUT.
TIME_BOUNDS_NS: Final = tuple(
    factor * 10**exponent for exponent in range(4, 11) for factor in (1, 2, 5)
)[2:-2]
SIZE_BOUNDS: Final = tuple(2**exponent for exponent in range(13))


class Histogram:
    """How often something was how large, in whole numbers.

    Attributes:
        bounds: Ascending; a value belongs to the first bound that is not below it.
        counts: Values per bound, and at the end those above all bounds.
        total: Sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
