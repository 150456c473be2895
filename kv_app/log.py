"""The leader's log, what a replica holds of it, and the memory of idempotency keys. Pure."""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import chain

import msgspec

from kv_app.delays import DelayModel
from kv_app.messages import Change, Entry, Operation, RememberedWrite, SeqRange

# What an entry takes in memory beside its texts, and a record beside its entry: both measured, with
# their places in the log.
ENTRY_BYTES = 250
RECORD_BYTES = 180
# Of each character of a text that is not all ASCII: CPython keeps most as two bytes, and the UTF-8
# of what was once encoded beside them.
WIDE_BYTES = 3


class LogRecord(msgspec.Struct, gc=False, eq=False):
    """An entry in the leader's log, and how far it has come.

    Nothing that it refers to refers back to it, so that the garbage collector may leave it out: it
    would hold up all requests for a tenth of a second each time that it goes through a full log.

    Attributes:
        entry: The entry.
        encoded: The entry as the channel sends it; encoded once for all links.
        appended_ns: When it was appended, on the leader's monotonic clock; of a base, when this
            leader took it over.
        delays: The link delays in force at that time.
        begun_with: The write quorum in force at that time.
        required: Acknowledgments it needs; a lowering of the quorum lowers it.
        acked_by: A bit for each follower whose acknowledgment was counted.
        ack_count: Distinct followers that have acknowledged it and count.
        committed: True once ``ack_count`` has reached ``required``; never false again.
    """

    entry: Entry
    encoded: bytes
    appended_ns: int
    delays: DelayModel
    begun_with: int
    required: int
    acked_by: int = 0
    ack_count: int = 0
    committed: bool = False


class Log:
    """The newest entries of one epoch: at most ``capacity`` of them, and ``max_bytes``.

    Invariant: it holds every position from ``first_seq`` to ``last_seq``, and nothing else; they
    take about ``size_bytes`` of memory.
    """

    def __init__(self, capacity: int, max_bytes: int, last_seq: int = 0) -> None:
        """Makes an empty log whose next entry comes after ``last_seq``."""
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.first_seq = last_seq + 1
        self.last_seq = last_seq
        self.size_bytes = 0
        self._records: dict[int, LogRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[LogRecord]:
        """Yields all records, ascending."""
        return iter(self._records.values())

    def append(self, record: LogRecord) -> None:
        """Adds the record of the next position.

        Raises:
            ValueError: The record's seq is not the one after the last.
        """
        if record.entry.seq != self.last_seq + 1:
            raise ValueError(f"seq {record.entry.seq} does not follow {self.last_seq}")
        self.last_seq = record.entry.seq
        self.size_bytes += memory_of_record(record)
        self._records[self.last_seq] = record

    def has_room(self, stable_seq: int) -> bool:
        """Tells if one more entry fits once everything up to ``stable_seq`` may be dropped."""
        has_space = len(self._records) < self.capacity and self.size_bytes < self.max_bytes
        return has_space or self.first_seq <= stable_seq

    @property
    def limit(self) -> str:
        """The name of the setting that keeps the log from reaching back further."""
        is_by_count = len(self._records) / self.capacity >= self.size_bytes / self.max_bytes
        return "LOG_ENTRIES" if is_by_count else "LOG_BYTES"

    def trim(self, stable_seq: int) -> None:
        """Drops the oldest entries over a limit, but none above ``stable_seq``."""
        while self.first_seq <= stable_seq and (
            len(self._records) > self.capacity or self.size_bytes > self.max_bytes
        ):
            self.size_bytes -= memory_of_record(self._records.pop(self.first_seq))
            self.first_seq += 1

    def get(self, seq: int) -> LogRecord | None:
        """Returns the record at a position, or None if the log does not hold it any more."""
        return self._records.get(seq)

    def between(self, first: int, last: int) -> list[LogRecord]:
        """Returns those from ``first`` to ``last``, ascending; the log has to hold them all."""
        return [self._records[seq] for seq in range(first, last + 1)]


class EntryLog:
    """The newest entries that a replica holds; some positions may be missing.

    Attributes:
        start: What is at or below is in the versions only.
        size_bytes: About as much memory as the entries take.
    """

    def __init__(self, capacity: int, max_bytes: int) -> None:
        self.start = 0
        self.size_bytes = 0
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def extend(self, entries: Iterable[Entry]) -> None:
        """Adds entries that are not there yet, in any order."""
        held, size_bytes = self._entries, 0
        for entry in entries:
            held[entry.seq] = entry
            size_bytes += memory_of(entry)
        self.size_bytes += size_bytes

    def get(self, seq: int) -> Entry | None:
        """Returns the entry at a position, if it is there."""
        return self._entries.get(seq)

    def between(self, first: int, last: int) -> list[Entry]:
        """Returns those from ``first`` to ``last`` that are there, ascending."""
        if last - first >= len(self._entries):  # a snapshot takes it over millions at once
            return [one for one in self.above(first - 1) if one.seq <= last]
        get = self._entries.get
        return [entry for seq in range(first, last + 1) if (entry := get(seq)) is not None]

    def above(self, seq: int) -> list[Entry]:
        """Returns all entries above a position, ascending."""
        return [self._entries[one] for one in sorted(self._entries) if one > seq]

    def drop_above(self, seq: int) -> None:
        """Drops all entries above a position."""
        for one in [one for one in self._entries if one > seq]:
            self._drop(one)

    def trim(self, settled_seq: int) -> None:
        """Drops the oldest entries over a limit, but none above ``settled_seq``."""
        entries, size_bytes = self._entries, self.size_bytes
        while self.start < settled_seq and (
            len(entries) > self._capacity or size_bytes > self._max_bytes
        ):
            self.start += 1
            entry = entries.pop(self.start, None)
            if entry is not None:
                size_bytes -= memory_of(entry)
        self.size_bytes = size_bytes

    def clear(self) -> None:
        """Drops all entries: another log has them."""
        self._entries.clear()
        self.size_bytes = 0

    def skip_to(self, seq: int) -> None:
        """Drops all up to a position, which a snapshot covers."""
        for one in [one for one in self._entries if one <= seq]:
            self._drop(one)
        self.start = max(self.start, seq)

    def _drop(self, seq: int) -> None:
        self.size_bytes -= memory_of(self._entries.pop(seq))


def memory_of(entry: Entry) -> int:
    """Returns about how many bytes an entry takes in memory."""
    size = ENTRY_BYTES + _memory_of_text(entry.key)
    if entry.value is not None:
        size += _memory_of_text(entry.value)
    if entry.idempotency_key is not None:
        size += ENTRY_BYTES // 4 + _memory_of_text(entry.idempotency_key)
    for change in entry.changes:
        size += ENTRY_BYTES + _memory_of_text(change.key) + _memory_of_text(change.value or "")
    return size


def memory_of_record(record: LogRecord) -> int:
    """Returns about how many bytes a record takes in memory."""
    return RECORD_BYTES + len(record.encoded) + memory_of(record.entry)


def _memory_of_text(text: str) -> int:
    return len(text) if text.isascii() else WIDE_BYTES * len(text)


class HeldPositions:
    """Which positions of one epoch a replica holds.

    Links are not FIFO, so one number does not tell it. What is above a hole is kept as ranges: its
    memory grows with the holes, not with the positions.

    Attributes:
        contiguous: Highest seq below which nothing is missing; 0 if the first is.
        max_seq: Highest seq that is held; 0 if none is.

    Invariant: the ranges above ascend, and between two of them, and between ``contiguous`` and the
    first, at least one position is missing.
    """

    def __init__(self, contiguous: int = 0) -> None:
        self.contiguous = contiguous
        self.max_seq = contiguous
        # The first and the last position of each range above.
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HeldPositions):
            return NotImplemented
        return (self.contiguous, self._firsts, self._lasts) == (
            other.contiguous,
            other._firsts,
            other._lasts,
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def holes(self) -> int:
        """How many positions below ``max_seq`` are missing."""
        held_above = sum(self._lasts) - sum(self._firsts) + len(self._firsts)
        return self.max_seq - self.contiguous - held_above

    def holds(self, seq: int) -> bool:
        """Tells if a position is held."""
        if seq <= self.contiguous or not self._firsts:
            return seq <= self.contiguous
        index = bisect_right(self._firsts, seq)
        return index > 0 and seq <= self._lasts[index - 1]

    def add(self, seq: int) -> bool:
        """Adds a position; returns False if it was held already."""
        if seq == self.contiguous + 1:
            self.contiguous = seq
            if self._firsts:
                self._absorb()
        elif self.holds(seq):
            return False
        else:
            self._insert(seq, seq)
        if seq > self.max_seq:  # noqa: PLR1730  max() costs as much as all of the above
            self.max_seq = seq
        return True

    def add_range(self, first: int, last: int) -> None:
        """Adds all positions from ``first`` to ``last``, both included."""
        if first <= self.contiguous + 1:
            self.advance(last)
        else:
            self._insert(first, last)
            self.max_seq = max(self.max_seq, last)

    def advance(self, contiguous: int) -> None:
        """Adds everything up to a position, as a snapshot does."""
        if contiguous <= self.contiguous:
            return
        self.contiguous = contiguous
        self.max_seq = max(self.max_seq, contiguous)
        if self._firsts:
            self._absorb()

    def ranges_above(self) -> list[SeqRange]:
        """Returns what is held above ``contiguous``, as ascending ranges."""
        return [SeqRange(*ends) for ends in zip(self._firsts, self._lasts, strict=True)]

    def _insert(self, first: int, last: int) -> None:
        """Adds a range above a hole; it becomes one with those that it meets."""
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        self._firsts[low:high], self._lasts[low:high] = [first], [last]

    def _absorb(self) -> None:
        """Moves ``contiguous`` over the ranges that it has reached."""
        reached = bisect_right(self._firsts, self.contiguous + 1)
        if reached:
            self.contiguous = max(self.contiguous, self._lasts[reached - 1])
            del self._firsts[:reached], self._lasts[:reached]


def to_ranges(seqs: Iterable[int]) -> list[SeqRange]:
    """Returns ranges that hold the same numbers; runs of ascending neighbours become one."""
    ranges: list[SeqRange] = []
    first = last = None
    for seq in seqs:
        if last is not None and first is not None:
            if seq == last + 1:
                last = seq
                continue
            ranges.append(SeqRange(first, last))
        first = last = seq
    if first is not None and last is not None:
        ranges.append(SeqRange(first, last))
    return ranges


class IdempotentWrite:
    """What is remembered of a write with an idempotency key.

    Attributes:
        fingerprint: Tells its operation, key and value from others.
        epoch: Epoch of its entry.
        seq: Seq of its entry.
        acks: Acknowledgments that it had when it committed, 0 before.
    """

    __slots__ = ("acks", "epoch", "fingerprint", "seq")

    def __init__(self, fingerprint: bytes, epoch: int, seq: int) -> None:
        self.fingerprint = fingerprint
        self.epoch = epoch
        self.seq = seq
        self.acks = 0


class IdempotencyIndex:
    """The idempotency keys of the highest positions, so many of them, each with its write.

    Keys are forgotten by count, that of the lowest position first, never by a clock; in which order
    they came does not matter. Of a key that was used again, after it was forgotten, the newer write
    counts.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # Ascending by position, as nearly all come. Not a dict: dropping a plain dict's oldest key
        # again and again scans all dropped ones.
        self._writes: OrderedDict[str, IdempotentWrite] = OrderedDict()
        self._highest_seq = 0
        # Those that came after one of a higher position, and a heap of where they are; some of what
        # is on the heap may be forgotten already.
        self._late: dict[str, IdempotentWrite] = {}
        self._late_order: list[tuple[int, str]] = []

    def find(self, idempotency_key: str) -> IdempotentWrite | None:
        """Returns the write with this key, if it is remembered."""
        write = self._writes.get(idempotency_key)
        if write is None and self._late:
            return self._late.get(idempotency_key)
        return write

    def __len__(self) -> int:
        return len(self._writes) + len(self._late)

    def remember(self, entry: Entry) -> None:
        """Keeps an entry's key, if it has one, while it is among the last ``capacity`` ones."""
        if entry.idempotency_key is not None:
            fingerprint = fingerprint_of(entry.operation, entry.key, entry.value, entry.changes)
            write = IdempotentWrite(fingerprint, entry.epoch, entry.seq)
            self._keep(entry.idempotency_key, write)

    def restore(self, write: RememberedWrite) -> None:
        """Keeps a key whose entry is gone."""
        kept = IdempotentWrite(write.fingerprint, write.epoch, write.seq)
        self._keep(write.idempotency_key, kept)

    def forget(self, entry: Entry) -> None:
        """Forgets the key of an entry that is dropped."""
        key = entry.idempotency_key or ""
        write = self.find(key)
        if write is not None and (write.epoch, write.seq) == (entry.epoch, entry.seq):
            self._remove(key)

    def remembered(self, upto: int, since: int = 0) -> Iterator[RememberedWrite]:
        """Yields what is remembered now of the entries from above one seq up to another.

        Oldest first, and one by one: of as many as there may be it would take too long at once.
        """
        writes = list(self._writes.items())
        if self._late:
            writes = sorted(chain(writes, self._late.items()), key=lambda one: one[1].seq)
        return (
            RememberedWrite(key, write.fingerprint, write.epoch, write.seq)
            for key, write in writes
            if since < write.seq <= upto
        )

    @property
    def is_full(self) -> bool:
        """True if each further key makes the oldest one forgotten."""
        return len(self) >= self._capacity

    def oldest(self) -> tuple[int, int]:
        """Returns the position of the oldest write; (0, 0) if there is none."""
        key = self._oldest_key()
        write = self.find(key) if key is not None else None
        return (write.epoch, write.seq) if write is not None else (0, 0)

    def _keep(self, idempotency_key: str, write: IdempotentWrite) -> None:
        if self._capacity == 0:
            return
        before = self.find(idempotency_key)
        if before is not None:
            if write.seq <= before.seq:
                return
            self._remove(idempotency_key)
        if write.seq > self._highest_seq:
            self._highest_seq = write.seq
            self._writes[idempotency_key] = write
        else:
            self._late[idempotency_key] = write
            heappush(self._late_order, (write.seq, idempotency_key))
        if len(self) > self._capacity and (oldest := self._oldest_key()) is not None:
            self._remove(oldest)

    def _oldest_key(self) -> str | None:
        """Returns the key of the lowest position, if there is any."""
        first = next(iter(self._writes), None)
        order = self._late_order
        while order:
            seq, key = order[0]
            late = self._late.get(key)
            if late is not None and late.seq == seq:
                return key if first is None or seq < self._writes[first].seq else first
            heappop(order)  # forgotten since, or used again
        return first

    def _remove(self, idempotency_key: str) -> None:
        if self._writes.pop(idempotency_key, None) is None:
            del self._late[idempotency_key]

    def committed(self, idempotency_key: str, acks: int) -> None:
        """Notes how many followers had acknowledged a write when it committed."""
        write = self.find(idempotency_key)
        if write is not None:
            write.acks = acks


def fingerprint_of(
    operation: int, key: str, value: str | None, changes: Sequence[Change] = ()
) -> bytes:
    """Returns 16 bytes that tell two operations apart, so that values need not be kept."""
    digest = blake2b(f"{Operation(operation)}:{len(key)}:{key}:".encode(), digest_size=16)
    digest.update(b"-" if value is None else b"+" + value.encode())
    for change in changes:
        digest.update(fingerprint_of(Operation.PUT, change.key, change.value))
    return digest.digest()
