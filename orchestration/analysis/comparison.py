"""How much a figure changed between two runs, and whether that may be called a change.

Trials of two runs are not paired, so the interval is a two-sample one: Welch's (Biometrika 34,
1947), which lets the runs differ in spread, with Satterthwaite's degrees of freedom. It is taken on
the logarithms of the per-trial values. A change in percent is a ratio, logarithms make it a
difference; and they take away most of the skew of percentiles, which costs Student's t coverage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from orchestration.analysis.stats import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

Outcome = Literal["higher", "lower", "no change", "unclear"]

TRIALS_NEEDED = 2
# Two trials a run can leave an interval of any width: past a factor of 1,000 nothing is known.
MAX_LOG_RATIO = math.log(1_000.0)


@dataclass(frozen=True, slots=True)
class Change:
    """The change from BASE to NEW in percent of BASE: its estimate, and where it lies with 95%.

    The estimate is the ratio of geometric means over trials.
    """

    low: float
    estimate: float
    high: float


def change(base: Sequence[float], new: Sequence[float]) -> Change:
    """Return the change of a figure between two runs.

    Args:
        base: One value a trial, at least `TRIALS_NEEDED`, all finite and above zero.
        new: The same of the other run.

    Raises:
        ValueError: There are too few values, or one is not finite or not above zero.
    """
    old_logs, new_logs = logarithms(base), logarithms(new)
    if min(old_logs.size, new_logs.size) < TRIALS_NEEDED:
        raise ValueError(
            f"an interval needs {TRIALS_NEEDED} trials of each run, "
            f"not {old_logs.size} and {new_logs.size}"
        )
    ratio = float(new_logs.mean() - old_logs.mean())
    half = _welch_half_width(old_logs, new_logs)
    return Change(*(_percent(ratio + part) for part in (-half, 0.0, half)))


def judge(found: Change, floor_percent: float) -> Outcome:
    """Return what a change amounts to beside the noise floor, in percent of BASE, above zero.

    ``higher`` or ``lower``: the whole interval lies beyond the floor on one side. ``no change``:
    the interval lies within the floor, or it holds 0 and rules out a change of twice the floor.
    ``unclear``: none of these; more trials would tell. All on the scale of logarithms, so that BASE
    and NEW in each other's place give the mirrored outcome.
    """
    lowest, highest = floor_ends(floor_percent)
    if found.low > highest:
        return "higher"
    if found.high < lowest:
        return "lower"
    if _lies_within(found, floor_percent):
        return "no change"
    has_no_change = found.low <= 0 <= found.high
    twice_percent = _percent(2 * math.log1p(floor_percent / 100))
    return "no change" if has_no_change and _lies_within(found, twice_percent) else "unclear"


def floor_ends(floor_percent: float) -> tuple[float, float]:
    """Return the changes in percent between which a noise floor lies: a ratio down, the same up.

    A floor of 25% is from -20% to +25%: what rose by a quarter is back once it falls by a fifth.
    """
    return -100 * floor_percent / (100 + floor_percent), floor_percent


def logarithms(per_trial: Sequence[float]) -> np.ndarray:
    """Return the natural logarithms.

    Raises:
        ValueError: A value is not finite or not above zero.
    """
    values = np.asarray(per_trial, dtype=float)
    if not np.isfinite(values).all() or (values <= 0).any():
        raise ValueError(f"a ratio needs finite values above zero: {list(per_trial)}")
    logs: np.ndarray = np.log(values)
    return logs


def _lies_within(found: Change, floor_percent: float) -> bool:
    lowest, highest = floor_ends(floor_percent)
    return lowest <= found.low and found.high <= highest


def _welch_half_width(old: np.ndarray, new: np.ndarray) -> float:
    from scipy.special import stdtrit  # noqa: PLC0415 -- 0.4 s that only analysis should pay

    errors = [float(logs.var(ddof=1)) / logs.size for logs in (old, new)]
    total = sum(errors)
    if total == 0:
        return 0.0
    # Shares, not squares: those of tiny variances would vanish.
    shares = [error / total for error in errors]
    freedom = 1 / sum(s * s / (logs.size - 1) for s, logs in zip(shares, (old, new), strict=True))
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(total)


def _percent(log_ratio: float) -> float:
    return 100 * math.expm1(max(-MAX_LOG_RATIO, min(log_ratio, MAX_LOG_RATIO)))
