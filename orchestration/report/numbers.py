"""Numbers as people read them: as many digits as carry meaning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestration.analysis.stats import Estimate

ABSENT = "\N{EN DASH}"


def decimals_for(values: Iterable[float | None]) -> int:
    """Return how many decimals show the largest of these values (in ms) to three digits, 0 to 3."""
    known = [abs(value) for value in values if value is not None]
    largest = max(known, default=0.0)
    if largest <= 0:
        return 1
    return min(3, max(0, 2 - math.floor(math.log10(largest))))


def fixed(value: float | None, decimals: int, *, sign: bool = False) -> str:
    """Return the value with so many decimals and thousands separated, a dash for None."""
    if value is None:
        return ABSENT
    # Adding 0.0 turns the -0.0 that rounding leaves into 0.0.
    rounded = round(value, decimals) + 0.0
    return f"{rounded:{'+' if sign and rounded else ''},.{decimals}f}"


def ms(value: float, *, sign: bool = False) -> str:
    """Return a latency with its unit: 0.583 ms, 50.2 ms, 5,012 ms."""
    return f"{fixed(value, decimals_for([value]), sign=sign)} ms"


def with_interval(found: Estimate | None, decimals: int, *, sign: bool = False) -> str:
    """Return "50.2 ±1.3", without the second part for one trial, a dash for None.

    An interval that was cut off, as latencies' are at 0, is no ±: "23.7 (0.0 to 59.8)".
    """
    if found is None:
        return ABSENT
    text = fixed(found.value, decimals, sign=sign)
    half = found.half_width
    if found.interval is None or half is None:
        return text
    low, high = found.interval
    if low == 0.0 and found.value < half:
        return f"{text} ({fixed(low, decimals)} to {fixed(high, decimals)})"
    return f"{text} ±{fixed(half, decimals)}"


def count(number: int, noun: str) -> str:
    """Return "1 trial" or "3 trials"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
