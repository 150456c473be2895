"""Injected one-way link delays: models, seeded draws, and the schedule of one link. Pure.

A delay is a pure function of (seed, follower, epoch, seq): whoever knows the seed can compute
every draw again, so a test can hold each answer against its own order statistic.
"""

import heapq
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

MAX_DELAY_LIMIT_MS = 3_600_000.0
NS_PER_MS = 1_000_000

_MASK64 = (1 << 64) - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15

Item = TypeVar("Item")


class DelayKind(StrEnum):
    """Whether an entry may overtake another one on its link."""

    INDEPENDENT = "independent"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class DelayModel:
    """Uniform delays in ``[min_ms, max_ms]``, drawn per follower and entry.

    Attributes:
        min_ms: Shortest delay, at least 0.
        max_ms: Longest delay, at least ``min_ms``.
        seed: Any 64-bit number.
        kind: On a FIFO link an entry also waits for all entries before it.
    """

    min_ms: float = 0.0
    max_ms: float = 0.0
    seed: int = 0
    kind: DelayKind = DelayKind.INDEPENDENT

    @property
    def is_zero(self) -> bool:
        """True if no entry waits at all."""
        return self.max_ms == 0.0

    def draw_ns(self, follower: str, epoch: int, seq: int) -> int:
        """Returns the delay of one entry on the link to one follower, in nanoseconds.

        Args:
            follower: The follower's node id.
            epoch: Epoch of the entry.
            seq: Seq of the entry.
        """
        spread_ms = self.max_ms - self.min_ms
        if spread_ms == 0.0:
            return int(self.min_ms * NS_PER_MS)
        stream = self.seed ^ (zlib.crc32(follower.encode()) << 32) ^ (epoch << 20)
        fraction = _splitmix64(stream + seq * _GOLDEN_GAMMA) / (_MASK64 + 1)
        return int((self.min_ms + fraction * spread_ms) * NS_PER_MS)


def _splitmix64(state: int) -> int:
    """Mixes 64 bits (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).

    Twice, because the streams of two followers differ in few bits of the state.
    """
    for _ in range(2):
        state = (state + _GOLDEN_GAMMA) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state


class LinkSchedule(Generic[Item]):
    """What waits on one link, and when each item is due.

    Invariant: an item is handed out at or after its due time, never before; items with equal due
    times leave in the order in which they came.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Item]] = []
        self._pushed = 0
        self._last_due_ns = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, item: Item, due_ns: int, *, after_all_before: bool = False) -> None:
        """Adds an item.

        Args:
            item: What is to be sent.
            due_ns: When, on the same clock as ``pop_due``.
            after_all_before: Not before any item that was pushed earlier (a FIFO link).
        """
        if after_all_before:
            due_ns = max(due_ns, self._last_due_ns)
        self._last_due_ns = max(due_ns, self._last_due_ns)
        self._pushed += 1
        heapq.heappush(self._heap, (due_ns, self._pushed, item))

    def next_due_ns(self) -> int | None:
        """Returns when the next item is due, or None if nothing waits."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ns: int, limit: int) -> list[Item]:
        """Removes and returns the items that are due by now, earliest first, so many at most."""
        due: list[Item] = []
        while self._heap and self._heap[0][0] <= now_ns and len(due) < limit:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def clear(self) -> None:
        """Forgets everything that waits."""
        self._heap.clear()
        self._last_due_ns = 0
