"""What waits on one link for its delay to be over, and leaves in batches."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from kv_app.bounds import MAX_BATCH_ENTRIES
from kv_app.delays import DelayKind, LinkSchedule
from kv_app.log import LogRecord
from kv_app.messages import RawEntries
from kv_app.timer import Timer, make_timer

MAX_BATCH_BYTES: Final = 1 << 20

_encode = msgspec.msgpack.Encoder().encode


class Outbox:
    """The entries of one open channel, each sent when it is due, with one timer for all.

    Attributes:
        size_bytes: Of what waits, as it will be sent.
    """

    def __init__(
        self,
        node_id: str,
        send: Callable[[bytes], None],
        is_congested: Callable[[], bool],
        stable_seq: Callable[[], int],
        now_ns: Callable[[], int],
    ) -> None:
        """Makes an empty one.

        Args:
            node_id: The follower's, which its delays are drawn by.
            send: Sends one message.
            is_congested: Whether the follower reads too slowly to be sent more.
            stable_seq: Everything at or below is committed.
            now_ns: The clock of ``LogRecord.appended_ns``.
        """
        self.size_bytes = 0
        self._node_id = node_id
        self._send = send
        self._is_congested = is_congested
        self._stable_seq = stable_seq
        self._now_ns = now_ns
        self._schedule: LinkSchedule[LogRecord] = LinkSchedule()
        self._timer: Timer = make_timer(asyncio.get_running_loop(), self._on_timer)
        self._armed_for_ns: int | None = None

    def __len__(self) -> int:
        return len(self._schedule)

    def send_at_once(self, frames: Sequence[bytes]) -> bool:
        """Sends batches of entries without a delay; returns False if something waits before them.

        Args:
            frames: From ``encode_batches``.
        """
        if self._schedule or self._is_congested():
            return False
        for frame in frames:
            self._send(frame)
        return True

    def push(self, record: LogRecord) -> None:
        """Adds an entry; ``send_due`` sends it when its time has come."""
        delays, entry = record.delays, record.entry
        due_ns = record.appended_ns
        if not delays.is_zero:
            due_ns += delays.draw_ns(self._node_id, entry.epoch, entry.seq)
        self.size_bytes += len(record.encoded)
        self._schedule.push(record, due_ns, after_all_before=delays.kind is DelayKind.FIFO)

    def send_due(self) -> None:
        """Sends all that is due and sets the timer for the rest.

        A timer may fire early (uvloop's own by more than a millisecond): the clock decides.
        """
        while not self._is_congested():  # else called again when the follower reads
            due = self._schedule.pop_due(self._now_ns(), MAX_BATCH_ENTRIES)
            if not due:
                self._arm()
                return
            for record in due:
                self.size_bytes -= len(record.encoded)
            for frame in encode_batches(due, self._stable_seq()):
                self._send(frame)

    def clear(self) -> None:
        """Forgets what waits."""
        self._schedule.clear()
        self.size_bytes = 0

    def close(self) -> None:
        """Forgets what waits, and the timer."""
        self.clear()
        self._timer.close()

    def _arm(self) -> None:
        """Sets the timer for what is due next, unless it is set for an earlier time already."""
        due_ns = self._schedule.next_due_ns()
        if due_ns is not None and (self._armed_for_ns is None or due_ns < self._armed_for_ns):
            self._armed_for_ns = due_ns
            self._timer.arm(due_ns)

    def _on_timer(self) -> None:
        self._armed_for_ns = None
        self.send_due()


def encode_batches(records: Iterable[LogRecord], stable_seq: int) -> list[bytes]:
    """Returns the channel's messages for some records, each within the limits of a batch."""
    frames: list[bytes] = []
    batch: list[msgspec.Raw] = []
    batch_bytes = 0
    for record in records:
        size = len(record.encoded)
        if batch and (batch_bytes + size > MAX_BATCH_BYTES or len(batch) == MAX_BATCH_ENTRIES):
            frames.append(_encode(RawEntries(batch, stable_seq)))
            batch, batch_bytes = [], 0
        batch.append(msgspec.Raw(record.encoded))
        batch_bytes += size
    if batch:
        frames.append(_encode(RawEntries(batch, stable_seq)))
    return frames
