"""Figures of runs that never happened, with the noise that real ones have.

A write waits for the k-th of five uniform link delays, drawn anew, and for a system whose cost per
write is lognormal. That cost drifts from block to block (an autoregressive load on the machine),
and some trials are disturbed: a few of their writes meet a pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLLOWERS = 5
STATISTICS = ("mean", "p50", "p95", "p99")
COST_MS = 0.8
DRIFT_SHARE, DRIFT_MEMORY = 0.05, 0.7
DISTURBED_SHARE, PAUSE_MS = 0.1, (5.0, 30.0)


@dataclass(frozen=True, slots=True)
class Store:
    """What decides a run's figures besides chance.

    Attributes:
        max_delay_ms: Of the link delays; the least is 0.
        writes: In each trial.
        slowness: What every response time is multiplied by.
    """

    max_delay_ms: float = 20.0
    writes: int = 400
    slowness: float = 1.0


def figures_of_run(
    store: Store, k: int, blocks: int, rng: np.random.Generator
) -> Mapping[str, np.ndarray]:
    """Return by statistic one value a block, in ms, in the order of time."""
    load = 0.0
    trials = []
    for _ in range(blocks):
        load = DRIFT_MEMORY * load + rng.normal(0, DRIFT_SHARE)
        trials.append(_figures(_responses_ms(store, k, load, rng)))
    return dict(zip(STATISTICS, np.array(trials).T, strict=True))


def _responses_ms(store: Store, k: int, load: float, rng: np.random.Generator) -> np.ndarray:
    delays_ms = np.sort(rng.uniform(0, store.max_delay_ms, (store.writes, FOLLOWERS)), axis=1)
    waits_ms = delays_ms[:, k - 1] if k else np.zeros(store.writes)
    costs_ms = COST_MS * np.exp(load) * rng.lognormal(0, 0.4, store.writes)
    if rng.random() < DISTURBED_SHARE:
        is_hit = rng.random(store.writes) < rng.uniform(0.01, 0.05)
        costs_ms += is_hit * rng.uniform(*PAUSE_MS)
    responses_ms: np.ndarray = store.slowness * (waits_ms + costs_ms)
    return responses_ms


def _figures(responses_ms: np.ndarray) -> list[float]:
    percentiles = np.percentile(responses_ms, (50, 95, 99), method="inverted_cdf")
    return [float(responses_ms.mean()), *percentiles]
