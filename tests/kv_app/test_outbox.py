"""What waits on one link: batches within their limits, and each entry when it is due."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app import outbox as outbox_module
from kv_app.bounds import MAX_BATCH_ENTRIES
from kv_app.delays import DelayKind, DelayModel
from kv_app.log import LogRecord
from kv_app.messages import Entries, Entry, Operation
from kv_app.outbox import MAX_BATCH_BYTES, Outbox, encode_batches
from tests.kv_app.fakes import Clock, encode, run, until

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR_MS = 3_600_000.0
UNDELAYED = DelayModel()


def make_record(
    seq: int, value: str = "", delays: DelayModel = UNDELAYED, appended_ns: int = 0
) -> LogRecord:
    """Returns a record as the leader makes it."""
    entry = Entry(1, seq, int(Operation.PUT), "k", value, None)
    return LogRecord(entry, encode(entry), appended_ns, delays, 1, 1)


def decoded(frame: bytes) -> Entries:
    """Returns a batch as a follower reads it."""
    return msgspec.msgpack.decode(frame, type=Entries)


class Sink:
    """Where an outbox sends to, and the outbox: a follower that may read too slowly."""

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns, stable_seq: int = 0) -> None:
        self.is_congested = False
        self.frames: list[Entries] = []
        self.sent_ns: dict[int, int] = {}
        self.now_ns = now_ns
        self.outbox = Outbox(
            "f1", self._send, lambda: self.is_congested, lambda: stable_seq, now_ns
        )

    def _send(self, frame: bytes) -> None:
        self.frames.append(decoded(frame))
        for entry in self.frames[-1].entries:
            self.sent_ns[entry.seq] = self.now_ns()

    @property
    def seqs(self) -> list[int]:
        """Positions in the order in which they were sent."""
        return [entry.seq for frame in self.frames for entry in frame.entries]

    def push(self, *records: LogRecord) -> None:
        """Adds records and sends what is due."""
        for record in records:
            self.outbox.push(record)
        self.outbox.send_due()


# --- batches ----------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(min_value=0, max_value=60), max_size=40),
    max_entries=st.integers(min_value=1, max_value=6),
    max_bytes=st.integers(min_value=1, max_value=150),
)
def test_batches_hold_all_records_in_order_within_their_limits(
    sizes: list[int], max_entries: int, max_bytes: int
) -> None:
    """A batch is over its size only for a single larger entry, and none could join its follower."""
    records = [make_record(seq, "x" * size) for seq, size in enumerate(sizes, start=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox_module, "MAX_BATCH_ENTRIES", max_entries)
        patch.setattr(outbox_module, "MAX_BATCH_BYTES", max_bytes)
        batches = [decoded(frame) for frame in encode_batches(records, 7)]
    assert [entry for batch in batches for entry in batch.entries] == [r.entry for r in records]
    assert all(batch.stable_seq == 7 for batch in batches)
    lengths = [[len(encode(entry)) for entry in batch.entries] for batch in batches]
    for batch in lengths:
        assert 1 <= len(batch) <= max_entries
        assert sum(batch) <= max_bytes or len(batch) == 1
    for batch, following in pairwise(lengths):
        assert len(batch) == max_entries or sum(batch) + following[0] > max_bytes


def test_batch_limits_leave_room_for_the_largest_frame() -> None:
    """Real limits hold for real numbers: many small entries are cut by number."""
    frames = encode_batches((make_record(seq) for seq in range(1, MAX_BATCH_ENTRIES + 2)), 0)
    assert [len(decoded(frame).entries) for frame in frames] == [MAX_BATCH_ENTRIES, 1]
    large = encode_batches([make_record(1, "x" * MAX_BATCH_BYTES), make_record(2)], 0)
    assert len(large) == 2


# --- sending at once --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waits", "is_congested", "sent"), [(False, False, 1), (True, False, 0), (False, True, 0)]
)
def test_frames_are_sent_at_once_only_if_nothing_waits_before_them(
    sent: int, *, waits: bool, is_congested: bool
) -> None:
    """A batch without delays never overtakes what waits, and never fills a full buffer."""

    async def check() -> None:
        sink = Sink()
        if waits:
            late = DelayModel(HOUR_MS, HOUR_MS)
            sink.push(make_record(1, delays=late, appended_ns=time.monotonic_ns()))
        sink.is_congested = is_congested
        assert sink.outbox.send_at_once(encode_batches([make_record(2)], 0)) is (sent == 1)
        assert len(sink.frames) == sent
        sink.outbox.close()

    run(check)


def test_entries_without_a_delay_leave_at_once_with_what_is_stable() -> None:
    """They are due at their append; the batch tells how far all is committed."""

    async def check() -> None:
        sink = Sink(stable_seq=3)
        sink.push(*(make_record(seq) for seq in (4, 5)))
        assert [(len(frame.entries), frame.stable_seq) for frame in sink.frames] == [(2, 3)]
        assert (len(sink.outbox), sink.outbox.size_bytes) == (0, 0)
        sink.outbox.close()

    run(check)


def test_congested_follower_is_sent_nothing_until_it_reads_again() -> None:
    """What waits is kept and counted in bytes, and leaves in order once there is room."""

    async def check() -> None:
        sink = Sink()
        sink.is_congested = True
        records = [make_record(seq, "x" * seq) for seq in (1, 2, 3)]
        sink.push(*records)
        assert sink.frames == []
        assert len(sink.outbox) == 3
        assert sink.outbox.size_bytes == sum(len(record.encoded) for record in records)
        sink.is_congested = False
        sink.outbox.send_due()
        assert sink.seqs == [1, 2, 3]
        assert sink.outbox.size_bytes == 0
        sink.outbox.close()

    run(check)


# --- delays -----------------------------------------------------------------------------------


class HastyTimer:
    """A timer that always fires too early, as an event loop's may by a millisecond."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[], None]) -> None:
        self._loop = loop
        self._on_due = on_due
        self._handle: asyncio.Handle | None = None

    def arm(self, due_ns: int) -> None:
        """Fires in the loop's next turn."""
        del due_ns
        self.close()
        self._handle = self._loop.call_soon(self._on_due)

    def close(self) -> None:
        """Ends the timer."""
        if self._handle is not None:
            self._handle.cancel()


@pytest.mark.parametrize("timer", ["own", "hasty"])
@pytest.mark.parametrize("kind", list(DelayKind))
def test_entries_with_delays_are_sent_when_due_and_never_before(
    kind: DelayKind, timer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each entry waits its own delay, drawn for its follower; a fifo link keeps the order too."""
    if timer == "hasty":
        monkeypatch.setattr(outbox_module, "make_timer", HastyTimer)

    async def check() -> None:
        sink = Sink()
        model = DelayModel(1.0, 20.0, seed=5, kind=kind)
        due_ns = {}
        for seq in range(1, 31):
            record = make_record(seq, delays=model, appended_ns=time.monotonic_ns())
            due_ns[seq] = record.appended_ns + model.draw_ns("f1", 1, seq)
            sink.push(record)
        undelayed = DelayModel(kind=kind)
        sink.push(make_record(31, delays=undelayed, appended_ns=time.monotonic_ns()))
        await until(lambda: len(sink.seqs) == 31)
        assert all(sink.sent_ns[seq] >= due for seq, due in due_ns.items())
        if kind is DelayKind.FIFO:
            assert sink.seqs == list(range(1, 32))
        else:
            assert sorted(sink.seqs) == list(range(1, 32))
        sink.outbox.close()

    run(check)


def test_entry_that_is_due_sooner_does_not_wait_for_those_before_it() -> None:
    """The one timer of a link is set for whatever is due next, also if that comes last."""

    async def check() -> None:
        sink = Sink()
        now_ns = time.monotonic_ns()
        sink.push(make_record(1, delays=DelayModel(HOUR_MS, HOUR_MS), appended_ns=now_ns))
        sink.push(make_record(2, delays=DelayModel(1.0, 1.0), appended_ns=now_ns))
        await until(lambda: sink.seqs == [2])
        assert len(sink.outbox) == 1
        sink.outbox.close()

    run(check)


def test_entry_whose_time_is_past_leaves_at_once() -> None:
    """Its delay is counted from its append, not from when it is pushed again."""

    async def check() -> None:
        clock = Clock()
        sink = Sink(clock)
        record = make_record(1, delays=DelayModel(50.0, 50.0), appended_ns=clock())
        clock.advance(ms=50)
        sink.push(record)
        assert sink.seqs == [1]
        sink.outbox.close()

    run(check)


def test_outbox_that_is_closed_forgets_what_waits_and_sends_no_more() -> None:
    """A channel leaves nothing to the next one, and its timer ends with it."""

    async def check() -> None:
        clock = Clock()
        sink = Sink(clock)
        sink.push(make_record(1, delays=DelayModel(1.0, 1.0), appended_ns=clock()))
        sink.outbox.close()
        clock.advance(ms=10)
        await asyncio.sleep(0.005)
        assert sink.frames == []
        assert (len(sink.outbox), sink.outbox.size_bytes) == (0, 0)

    run(check)


def test_many_entries_due_at_once_leave_in_batches() -> None:
    """What became due while the follower did not read is sent within the limits of a batch."""

    async def check() -> None:
        sink = Sink()
        sink.is_congested = True
        sink.push(*(make_record(seq) for seq in range(1, MAX_BATCH_ENTRIES + 11)))
        sink.is_congested = False
        sink.outbox.send_due()
        assert [len(frame.entries) for frame in sink.frames] == [MAX_BATCH_ENTRIES, 10]
        sink.outbox.close()

    run(check)
