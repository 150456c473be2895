"""When requests are due: arrival schedules. Pure and seeded.

The same plan yields the same schedule, however many processes share it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from orchestration.load.plan import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestration.load.plan import LoadPlan, Share


def arrival_offsets_ns(plan: LoadPlan, share: Share) -> Iterator[int]:
    """Yields when this process's requests are due, in ns from the start, never decreasing.

    All processes draw the same schedule and each takes every `count`-th arrival, so that
    together they offer exactly what one process would.
    """
    offsets = _poisson_ns(plan) if plan.arrivals == "poisson" else _constant_ns(plan.rate_per_s)
    if plan.total_writes:
        offsets = itertools.islice(offsets, plan.total_writes)
    end_ns = plan.end_ns
    if end_ns is not None:
        offsets = itertools.takewhile(lambda offset_ns: offset_ns < end_ns, offsets)
    return itertools.islice(offsets, share.index, None, share.count)


def _constant_ns(rate_per_s: float) -> Iterator[int]:
    # From the index, not by adding up: rounding never accumulates into drift.
    return (round(index * NS_PER_S / rate_per_s) for index in itertools.count())


def _poisson_ns(plan: LoadPlan) -> Iterator[int]:
    expovariate = plan.random("arrivals", 0).expovariate
    offset_s = 0.0
    while True:
        offset_s += expovariate(plan.rate_per_s)
        yield round(offset_s * NS_PER_S)
