"""The reads that wait until a replica can show a position: that of a write, or a newer one."""

import asyncio
from collections.abc import Callable, Iterable

from kv_app.errors import TooManyInFlightError
from kv_app.messages import Entry


class PositionWaits:
    """Who waits for what, and until when; woken by what arrives.

    A read is answered once the replica holds its position, or a version of its key at or above it:
    links are not FIFO, so either may come first. Hence each wait is found by its seq and its key.

    Attributes:
        waiting: How many reads wait now.
    """

    def __init__(
        self, has_reached: Callable[[str, int, int], bool], timeout_s: float, limit: int
    ) -> None:
        """Makes an empty set.

        Args:
            has_reached: Whether the replica can show, of a key, the position ``(epoch, seq)``.
            timeout_s: How long a read waits.
            limit: How many may wait: ``MAX_IN_FLIGHT``.
        """
        self.waiting = 0
        self._has_reached = has_reached
        self._timeout_s = timeout_s
        self._limit = limit
        self._waits: dict[int | str, set[_Wait]] = {}

    async def wait(self, key: str, epoch: int, seq: int) -> bool:
        """Waits until a read of a key can show a position; returns False if it did not in time.

        Raises:
            TooManyInFlightError: Too many reads wait already.
        """
        if self._has_reached(key, epoch, seq):
            return True
        if self.waiting >= self._limit:
            raise TooManyInFlightError(
                f"Reads that wait for a position: {self.waiting} of {self._limit} already; try "
                "again later or raise MAX_IN_FLIGHT.",
                limit="MAX_IN_FLIGHT",
            )
        wait = _Wait(key, epoch, seq)
        self._add(wait)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await wait.answer
        except TimeoutError:
            return False
        finally:
            self._remove(wait)

    def arrived(self, entry: Entry) -> None:
        """Wakes those whom an entry lets go on."""
        self.check((entry.seq, entry.key, *(change.key for change in entry.changes)))

    def check(self, places: Iterable[int | str]) -> None:
        """Wakes those who wait at a seq or for a key, where they may go on."""
        for place in places:
            for wait in self._waits.get(place, ()):
                if self._has_reached(wait.key, wait.epoch, wait.seq):
                    wait.resolve(reached=True)

    def check_all(self) -> None:
        """Wakes all who may go on: much has come at once."""
        self.check(tuple(self._waits))

    def end(self) -> None:
        """Answers all: the node stops."""
        for waits in self._waits.values():
            for wait in waits:
                wait.resolve(reached=False)

    def _add(self, wait: "_Wait") -> None:
        self.waiting += 1
        for place in (wait.seq, wait.key):
            self._waits.setdefault(place, set()).add(wait)

    def _remove(self, wait: "_Wait") -> None:
        self.waiting -= 1
        for place in (wait.seq, wait.key):
            waits = self._waits[place]
            waits.remove(wait)
            if not waits:
                del self._waits[place]


class _Wait:
    """One read that waits."""

    __slots__ = ("answer", "epoch", "key", "seq")

    def __init__(self, key: str, epoch: int, seq: int) -> None:
        self.key = key
        self.epoch = epoch
        self.seq = seq
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def resolve(self, *, reached: bool) -> None:
        if not self.answer.done():
            self.answer.set_result(reached)
