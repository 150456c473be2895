"""The noise floor: by how much a figure changes when nothing has changed.

A 95% interval is wrong once in twenty times, and a comparison looks at many figures; besides, it
knows only how much trials differ within a run. So a change counts only if it is also larger than
what A/A comparisons show, those in which both sides are the same:

- two halves of one run. Random halves show what chance does; halves of neighbouring blocks also
  show what drift does, since neighbours are alike.
- two runs of the same scenario. They also show what a restart and the time of day do.

Interval and floor together let only a difference of about four standard errors be called a change:
that is what allows for many figures being looked at.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from orchestration.analysis.comparison import logarithms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FloorSource = Literal["least", "halves", "calibrated", "assumed"]

# As in Criterion: what is smaller is noise to whoever reads it, however sure it may be.
LEAST_PERCENT = 1.0
# Where nothing was measured: so much two runs of three trials, a restart between them, may differ.
ASSUMED_PERCENT = 10.0
BLOCKS_NEEDED = 4
RUNS_NEEDED = 2
# Where an A/A change may still lie, in keeping with the intervals; of fewer than twenty it is the
# largest.
QUANTILE = 0.95
HALVINGS = 1_000
HALVING_SEED = 47


@dataclass(frozen=True, slots=True)
class Floor:
    """A noise floor in percent of BASE, and what it was taken from."""

    percent: float
    source: FloorSource


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What two runs of one scenario differ by on a machine.

    Attributes:
        percent: By how much, above or at zero.
        trials: Of each of these runs, at least 1.
    """

    percent: float
    trials: int

    def percent_for(self, compared: tuple[int, int]) -> float:
        """Return the same for two runs of so many trials: more for fewer, which scatter more.

        Not less for more, since what a restart changes does not shrink with the trials after it.
        """
        scale = max(1.0, _deviation(*compared) / _deviation(self.trials, self.trials))
        return _percent(math.log1p(self.percent / 100) * scale)


def noise_floor(
    base: Sequence[float], new: Sequence[float], calibrated: Calibrated | None = None
) -> Floor:
    """Return the noise floor of a comparison: the largest that is known, `LEAST_PERCENT` at least.

    The halves of either run count, since the noise of a difference is that of both its sides.

    Args:
        base: One value a block in the order of time, all finite and above zero.
        new: The same of the other run.
        calibrated: What two runs of one scenario differ by here, if that was measured.

    Raises:
        ValueError: A value is not finite or not above zero.
    """
    known = [Floor(LEAST_PERCENT, "least")]
    compared = (len(base), len(new))
    halves = [floor_of_halves(run, compared=compared) for run in (base, new)]
    known += [Floor(percent, "halves") for percent in halves if percent is not None]
    if calibrated is not None:
        known.append(Floor(calibrated.percent_for(compared), "calibrated"))
    if len(known) == 1:
        return Floor(ASSUMED_PERCENT, "assumed")
    return max(known, key=lambda floor: floor.percent)


def floor_of_halves(per_block: Sequence[float], *, compared: tuple[int, int]) -> float | None:
    """Return by how many percent two halves of a run differ; None with fewer than 4 blocks.

    The 95% quantile over random halves, or the largest over halves of neighbouring blocks (the last
    beside the first) if that is more. Runs are larger than their halves, and the difference of two
    means has a standard deviation that goes with √(1/m + 1/n): the floor is scaled to the sizes of
    what is compared. The same blocks give the same floor each time.

    Args:
        per_block: One value a block in the order of time, all finite and above zero.
        compared: How many trials the two runs have that the floor is for.

    Raises:
        ValueError: A value is not finite or not above zero.
    """
    logs = logarithms(per_block)
    if logs.size < BLOCKS_NEEDED:
        return None
    blocks, half = logs.size, logs.size // 2
    shuffled = np.random.default_rng(HALVING_SEED).random((HALVINGS, blocks)).argsort(axis=1)
    in_a_row = np.add.outer(np.arange(blocks), np.arange(blocks)) % blocks
    chance = _quantile(_differences(logs[shuffled], half))
    gap = max(chance, float(_differences(logs[in_a_row], half).max()))
    return _percent(gap * _deviation(*compared) / _deviation(half, blocks - half))


def floor_of_runs(runs: Iterable[Sequence[float]]) -> float:
    """Return by how many percent two runs of the same scenario differ: 95% of all pairs.

    Args:
        runs: The per-trial values of each run, of at least 2 runs, all finite and above zero.

    Raises:
        ValueError: There are too few runs, or a value is not finite or not above zero.
    """
    means = [float(logarithms(run).mean()) for run in runs]
    if len(means) < RUNS_NEEDED:
        raise ValueError(f"two runs differ, {len(means)} cannot")
    pairs = itertools.combinations(means, 2)
    return _percent(_quantile(np.array([abs(one - other) for one, other in pairs])))


def _differences(orders: np.ndarray, half: int) -> np.ndarray:
    """Return how far the mean of the first `half` columns of each row is from that of the rest."""
    gaps: np.ndarray = np.abs(orders[:, :half].mean(axis=1) - orders[:, half:].mean(axis=1))
    return gaps


def _deviation(m: int, n: int) -> float:
    """Return that of the difference of two means of so many values each, of deviation 1."""
    return math.sqrt(1 / m + 1 / n)


def _quantile(gaps: np.ndarray) -> float:
    return float(np.quantile(gaps, QUANTILE, method="higher"))


def _percent(log_ratio: float) -> float:
    return 100 * math.expm1(log_ratio)
