"""Resident memory of nodes over time, and how fast it grows."""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tests.campaigns.nodes import Node

MIB = 1 << 20


class Sample(NamedTuple):
    """Resident memory of one node at one time; ``at_s`` is on the monotonic clock."""

    at_s: float
    bytes: int


class MemorySampler:
    """Samples nodes in a thread of its own for as long as the block lasts.

    A node that does not run is left out until it does.

    Args:
        nodes: Whom to sample.
        interval_s: Pause between two samples.
    """

    def __init__(self, nodes: Sequence[Node], interval_s: float) -> None:
        self.samples: dict[str, list[Sample]] = {node.name: [] for node in nodes}
        self._nodes = nodes
        self._interval_s = interval_s
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Takes the first samples and goes on by itself."""
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        self._thread.join()

    def since(self, node: Node, start_s: float) -> list[Sample]:
        """Returns a node's samples from a time on."""
        return [sample for sample in self.samples[node.name] if sample.at_s >= start_s]

    def peak_bytes(self, node: Node, start_s: float) -> int:
        """Returns the most that a node had since a time."""
        return max(sample.bytes for sample in self.since(node, start_s))

    def _watch(self) -> None:
        while not self._left.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        for node in self._nodes:
            try:
                sample = Sample(time.monotonic(), node.process.memory_info().rss)
            except (RuntimeError, psutil.NoSuchProcess):
                continue
            self.samples[node.name].append(sample)


def peaks(samples: Sequence[Sample], window_s: float) -> list[Sample]:
    """Returns the highest sample of each window: what is given back and taken again is no growth.

    A last window that is not full is left out.
    """
    start_s, end_s = samples[0].at_s, samples[-1].at_s
    windows: dict[int, Sample] = {}
    for sample in samples:
        number = int((sample.at_s - start_s) / window_s)
        if start_s + (number + 1) * window_s <= end_s:
            windows[number] = max(windows.get(number, sample), sample, key=lambda one: one.bytes)
    return list(windows.values())


def growth_mib_per_min(samples: Sequence[Sample]) -> float:
    """Returns the slope of the least-squares line through samples (at least two)."""
    line = statistics.linear_regression(
        [sample.at_s for sample in samples], [sample.bytes for sample in samples]
    )
    return line.slope * 60 / MIB
