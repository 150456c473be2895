"""Counts acknowledgments and decides what is committed. Pure.

An entry is committed when enough followers have acknowledged it *and* it is durable on the leader.

A follower is a small number here, its bit in a record's mask: an acknowledgment counts once per
follower however often it comes.
"""

from collections.abc import Callable, Iterable

from kv_app.log import Log, LogRecord
from kv_app.messages import SeqRange


class QuorumTracker:
    """Tells which entries of a log are committed.

    Attributes:
        write_quorum: k for the writes that begin now.
        stable_seq: Every entry at or below is committed.
        durable_seq: Every entry at or below is as durable on the leader as it is meant to be.

    Invariant: ``uncommitted`` is the number of entries in the log that are not committed, and each
    of them is above ``durable_seq`` or has fewer than ``required`` acknowledgments.
    """

    def __init__(
        self,
        log: Log,
        write_quorum: int,
        on_commit: Callable[[LogRecord], None],
        on_stable: Callable[[int, int], None] = lambda _first, _last: None,
    ) -> None:
        """Begins to count.

        Args:
            log: What it holds already, a base, is committed by ``commit_base``.
            write_quorum: k.
            on_commit: Called with each record that is committed; if it is the one after
                ``stable_seq``, it is stable as well.
            on_stable: Called with the first and the last seq of what else has become stable, before
                the log may drop it.
        """
        self.write_quorum = write_quorum
        self.stable_seq = log.first_seq - 1
        self.durable_seq = log.last_seq
        self.uncommitted = 0
        self._log = log
        self._on_commit = on_commit
        self._on_stable = on_stable

    def commit_base(self) -> None:
        """Commits all that the log holds: the epoch opens."""
        for record in self._log:
            record.committed = True
        self._advance()

    def close(self) -> None:
        """Commits nothing any more: the epoch is over."""
        self._log = Log(0, 0, self._log.last_seq)

    def begin(self, record: LogRecord, *, is_durable: bool) -> None:
        """Starts to count for a record that was just appended.

        Args:
            record: The newest of the log.
            is_durable: True if it need not become durable first: all is in memory only.
        """
        self.uncommitted += 1
        if is_durable:
            self.durable_seq = record.entry.seq
            if record.required == 0:
                self._commit_if_met(record)
                self._advance()
        self._log.trim(self.stable_seq)

    def advance_durable(self, seq: int) -> None:
        """Notes that the leader's own entries up to ``seq`` are durable; commits what waited."""
        first, self.durable_seq = self.durable_seq + 1, seq
        get = self._log.get
        for position in range(first, seq + 1):
            record = get(position)
            if record is not None:
                self._commit_if_met(record)
        self._advance()

    def acknowledge(self, follower: int, ranges: Iterable[SeqRange]) -> None:
        """Counts one follower's acknowledgments, and commits what has enough of them."""
        bit = 1 << follower
        log, get = self._log, self._log.get
        for span in ranges:
            first, last = max(span.first, log.first_seq), min(span.last, log.last_seq)
            for seq in range(first, last + 1):
                record = get(seq)
                if record is None or record.acked_by & bit:
                    continue
                record.acked_by |= bit
                record.ack_count += 1
                if record.ack_count >= record.required:
                    self._commit_if_met(record)
        self._advance()

    def forget(self, follower: int) -> None:
        """Takes back one follower's acknowledgments of all that is not committed yet."""
        bit = 1 << follower
        for seq in range(self.stable_seq + 1, self._log.last_seq + 1):
            record = self._log.get(seq)
            if record is not None and not record.committed and record.acked_by & bit:
                record.acked_by ^= bit
                record.ack_count -= 1

    def set_write_quorum(self, write_quorum: int) -> None:
        """Changes k for new writes; a lowering also helps the entries that are not committed."""
        self.write_quorum = write_quorum
        for seq in range(self.stable_seq + 1, self._log.last_seq + 1):
            record = self._log.get(seq)
            if record is None or record.committed:
                continue
            record.required = min(record.required, write_quorum)
            self._commit_if_met(record)
        self._advance()

    def _commit_if_met(self, record: LogRecord) -> None:
        if (
            record.committed
            or record.ack_count < record.required
            or record.entry.seq > self.durable_seq
        ):
            return
        record.committed = True
        self.uncommitted -= 1
        self._on_commit(record)
        if record.entry.seq == self.stable_seq + 1:
            self.stable_seq += 1

    def _advance(self) -> None:
        """Moves ``stable_seq`` over all that is committed, and lets the log drop its oldest."""
        get, seq = self._log.get, self.stable_seq
        while (record := get(seq + 1)) is not None and record.committed:
            seq += 1
        if seq > self.stable_seq:
            self._on_stable(self.stable_seq + 1, seq)
            self.stable_seq = seq
        self._log.trim(seq)
