"""Links of both kinds, entry by entry: what the models of a wait are held against."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from orchestration.analysis.fifo import FifoQuorumWait
    from orchestration.analysis.theory import QuorumWait


def sorted_waits_ms(wait: QuorumWait, writes: int, rng: np.random.Generator) -> np.ndarray:
    """Waits for the k-th of n uniform delays, by sorting."""
    delays_ms = rng.uniform(wait.min_delay_ms, wait.max_delay_ms, (writes, wait.followers))
    kth: np.ndarray = np.sort(delays_ms, axis=1)[:, wait.write_quorum - 1]
    return kth


def fifo_waits_ms(wait: FifoQuorumWait, writes: int, rng: np.random.Generator) -> np.ndarray:
    """The waits of so many writes in the steady state, link by link and entry by entry."""
    warmup = math.ceil((wait.max_delay_ms - wait.min_delay_ms) / wait.spacing_ms) + 1
    sent_ms = np.arange(warmup + writes) * wait.spacing_ms
    delays_ms = rng.uniform(wait.min_delay_ms, wait.max_delay_ms, (warmup + writes, wait.followers))
    leaves_ms = np.maximum.accumulate(sent_ms[:, None] + delays_ms, axis=0)
    waits_ms = np.sort(leaves_ms - sent_ms[:, None], axis=1)[warmup:]
    kth: np.ndarray = waits_ms[:, wait.write_quorum - 1]
    return kth
