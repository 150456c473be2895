"""Estimates over trials and their 95% intervals.

An interval is over trials, never over requests: those of one trial are autocorrelated, so that
counting them as independent gives intervals far too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
# A 95% percentile bootstrap of 3 trials covers 75%; Student's t is right for means of few trials,
# and by 20 the bootstrap needs no assumption about their shape.
BOOTSTRAP_FROM_TRIALS = 20
RESAMPLES = 9_999
BOOTSTRAP_SEED = 95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over trials: the mean of the per-trial values, and where it lies with 95%."""

    value: float
    interval: tuple[float, float] | None
    """(low, high); None with a single trial, which says nothing about the next one."""

    @property
    def half_width(self) -> float | None:
        """Half the interval's width, for "±"; None without an interval."""
        return None if self.interval is None else (self.interval[1] - self.interval[0]) / 2

    def not_below(self, least: float) -> Estimate:
        """Return the estimate of a figure that cannot be less than `least`."""
        interval = self.interval and (max(least, self.interval[0]), self.interval[1])
        return Estimate(self.value, interval)

    def shifted(self, by: float) -> Estimate:
        """Return the estimate of (value + by), `by` being exact."""
        interval = self.interval and (self.interval[0] + by, self.interval[1] + by)
        return Estimate(self.value + by, interval)


def estimate(per_trial: Sequence[float]) -> Estimate:
    """Return the mean over trials with its 95% interval.

    Student's t below 20 trials, a bias-corrected bootstrap of the mean from there on, widened as
    few values demand.

    Args:
        per_trial: One value a trial, at least one, all finite.

    Raises:
        ValueError: There is no value, or one is not finite.
    """
    values = np.asarray(per_trial, dtype=float)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"an estimate needs finite values, at least one: {list(per_trial)}")
    mean = float(values.mean())
    if values.size == 1:
        return Estimate(mean, None)
    if np.ptp(values) == 0:
        return Estimate(mean, (mean, mean))
    if values.size < BOOTSTRAP_FROM_TRIALS:
        half = _student_half_width(values)
        return Estimate(mean, (mean - half, mean + half))
    return Estimate(mean, _bootstrap_interval(values))


def _student_half_width(values: np.ndarray) -> float:
    from scipy.special import stdtrit  # noqa: PLC0415 -- 0.4 s that only analysis should pay

    quantile = float(stdtrit(values.size - 1, (1 + CONFIDENCE) / 2))
    return quantile * float(values.std(ddof=1)) / math.sqrt(values.size)


def _bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    from scipy.special import ndtr, stdtrit  # noqa: PLC0415 -- 0.4 s that only analysis should pay
    from scipy.stats import bootstrap  # noqa: PLC0415 -- 0.9 s that only analysis should pay

    # A bootstrap of n values is too narrow by √((n-1)/n), and by what the normal's quantile falls
    # short of Student's; at 20 trials it covers 92%. Hesterberg (What Teachers Should Know about
    # the Bootstrap, The American Statistician 69, 2015) has it asked for more confidence: 94%.
    n = values.size
    quantile = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    confidence = 1 - 2 * float(ndtr(-math.sqrt(n / (n - 1)) * quantile))
    # Seeded: the same trials give the same interval each time a report is drawn.
    result = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
