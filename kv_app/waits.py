"""Who waits for which entry to commit, and until when."""

import asyncio
from collections import deque
from collections.abc import Callable

from kv_app.errors import OutcomeUnknownError, StoreError
from kv_app.log import LogRecord
from kv_app.messages import Operation


class Waits:
    """The requests that wait for their quorum, retries beside their first.

    All wait equally long, so the oldest is always the first whose time is over.
    """

    def __init__(self, timeout_s: float, limit: int, now_ns: Callable[[], int]) -> None:
        """Makes an empty set.

        Args:
            timeout_s: How long a request waits.
            limit: How many may wait.
            now_ns: A monotonic clock.
        """
        self._loop = asyncio.get_running_loop()
        self._timeout_ns = int(timeout_s * 1e9)
        self._limit = limit
        self._now_ns = now_ns
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._deadlines: deque[tuple[int, LogRecord, asyncio.Future[None]]] = deque()
        self._waiting = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._over = ""  # why there is nothing to wait for any more

    def __len__(self) -> int:
        return self._waiting

    async def wait(self, record: LogRecord) -> None:
        """Waits until a record is committed.

        Raises:
            OutcomeUnknownError: Its quorum did not answer within ``REQUEST_TIMEOUT``, or all waits
                were ended.
        """
        if record.committed:
            return
        if self._over:
            raise unknown(record, self._over)
        if self._waiting >= self._limit:
            raise unknown(record, "too many requests wait already")
        if len(self._deadlines) >= 2 * self._limit:  # most of them are over, behind one that is not
            self._deadlines = deque(wait for wait in self._deadlines if not wait[2].done())
        while self._deadlines and self._deadlines[0][2].done():
            self._deadlines.popleft()
        future = self._loop.create_future()
        self._waiters.setdefault(record.entry.seq, []).append(future)
        deadline_ns = self._now_ns() + self._timeout_ns
        self._deadlines.append((deadline_ns, record, future))
        if self._expiry is None:
            self._expire_at(deadline_ns)
        self._waiting += 1
        try:
            await future
        except asyncio.CancelledError:
            self._forget(record.entry.seq, future)
            raise
        finally:
            self._waiting -= 1

    def resolve(self, seq: int) -> None:
        """Answers all that wait for a position, which is committed."""
        for future in self._waiters.pop(seq, ()):
            if not future.done():
                future.set_result(None)

    def end(self, why: str = "the leader stopped") -> None:
        """Answers all that wait: their outcome is unknown."""
        for _, record, future in self._deadlines:
            if not future.done():
                future.set_exception(unknown(record, why))

    def close(self, why: str = "the leader stopped") -> None:
        """Ends the timer, and all waits, also those that are still to come."""
        self._over = why
        if self._expiry is not None:
            self._expiry.cancel()
        self.end(why)

    def _expire_at(self, deadline_ns: int) -> None:
        wait_s = max(0.001, (deadline_ns - self._now_ns()) / 1e9)
        self._expiry = self._loop.call_later(wait_s, self._expire)

    def _expire(self) -> None:
        """Answers the writes whose time is over."""
        self._expiry = None
        now_ns = self._now_ns()
        while self._deadlines:
            deadline_ns, record, future = self._deadlines[0]
            if not future.done():
                if deadline_ns > now_ns:
                    self._expire_at(deadline_ns)
                    return
                future.set_exception(unknown(record, "its quorum did not answer in time"))
                self._forget(record.entry.seq, future)
            self._deadlines.popleft()

    def _forget(self, seq: int, future: asyncio.Future[None]) -> None:
        waiting = self._waiters.get(seq, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._waiters.pop(seq, None)


def unknown(record: LogRecord, why: str) -> StoreError:
    """Returns the error of what is in the log but not known to be committed."""
    what, advice = "write", "ask again with the same Idempotency-Key, or read the key"
    if record.entry.operation == Operation.CONFIG:
        what, advice = "change", "look at /admin/quorum, and bring followers back"
    return OutcomeUnknownError(
        f"The {what} is in the log but {why}: it may commit later; {advice}.",
        epoch=record.entry.epoch,
        seq=record.entry.seq,
        follower_acks=record.ack_count,
        required=record.begun_with,
    )
