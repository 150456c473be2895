"""What two candidates that took turns differ by: a ratio of each figure, and where it lies."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# All intervals of one table hold at once with this much.
CONFIDENCE = 0.95
LEAST_PAIRS = 2


@dataclass(frozen=True, slots=True)
class Ratio:
    """New divided by old, over pairs of turns.

    Attributes:
        value: the geometric mean of the pairs' ratios.
        low: the lower end of its interval.
        high: the upper end.
    """

    value: float
    low: float
    high: float

    @property
    def holds_no_change(self) -> bool:
        """Whether chance alone explains it: 1 lies in the interval."""
        return self.low <= 1 <= self.high


def paired_ratio(
    old: Sequence[float], new: Sequence[float], *, comparisons: int = 1
) -> Ratio | None:
    """Compares two candidates by the pairs of turns that ran one after the other.

    The interval is Student's, over the logarithms of the pairs' ratios. It is as wide as it has to
    be for all intervals of a table to hold at once (Bonferroni).

    Args:
        old: one figure a round.
        new: the same figure in the same rounds.
        comparisons: how many figures stand in the table.

    Returns:
        None where there is no ratio: a figure is zero, or there are fewer than two rounds.
    """
    pairs = list(zip(old, new, strict=True))
    if len(pairs) < LEAST_PAIRS or any(value <= 0 for pair in pairs for value in pair):
        return None
    from scipy.special import stdtrit  # noqa: PLC0415 -- 0.4 s that only a comparison should pay

    logs = [math.log(after / before) for before, after in pairs]
    mean = statistics.fmean(logs)
    quantile = float(stdtrit(len(logs) - 1, 1 - (1 - CONFIDENCE) / comparisons / 2))
    half = quantile * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def verdict(ratio: Ratio | None, *, is_more_better: bool) -> str:
    """In words: better, worse, or within noise; "not comparable" where there is no ratio."""
    if ratio is None:
        return "not comparable"
    if ratio.holds_no_change:
        return "within noise"
    return "better" if (ratio.value > 1) == is_more_better else "worse"


def by_figure(turns: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """One candidate's turns, turned around: of each figure that all turns have, the values."""
    if not turns:
        return {}
    shared = [name for name in turns[0] if all(name in turn for turn in turns)]
    return {name: [turn[name] for turn in turns] for name in shared}
