"""A leader: takes writes, replicates them over its links, answers when their quorum is met."""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from kv_app.channel import Link, LinkConfig, encode_batches
from kv_app.delays import DelayModel
from kv_app.errors import (
    ChannelError,
    IdempotencyConflictError,
    MalformedError,
    NotAttemptedError,
    OutcomeUnknownError,
    StoreError,
    TooManyInFlightError,
)
from kv_app.formation import Decision, Standing, decide
from kv_app.log import IdempotencyIndex, Log, LogRecord, fingerprint_of
from kv_app.messages import Entry, LinkStatus, Operation, SeqRange, Welcome
from kv_app.quorum import QuorumTracker
from kv_app.settings import Settings
from kv_app.state import State

logger = logging.getLogger("kv_app.leader")

FIRST_EPOCH = 1
# Retries of a write wait beside it; this bounds all that wait, in multiples of MAX_IN_FLIGHT.
MAX_WAITERS_PER_WRITE = 4

_encode_entry = msgspec.msgpack.Encoder().encode


class Leader:
    """The leader of one epoch, which it began itself.

    Attributes:
        epoch: The epoch that it leads.
        log: Its newest entries.
        state: Committed versions only: a value is shown once its quorum has it.
        links: One per follower, in the order of ``FOLLOWER_URLS``.
        delays: Link delays of the entries that are appended now.
    """

    def __init__(self, settings: Settings, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.epoch = FIRST_EPOCH
        self.now_ns = now_ns
        self.log = Log(settings.log_entries)
        self.state = State()
        self.delays = DelayModel(
            settings.min_delay_ms, settings.max_delay_ms, settings.delay_seed, settings.delay_kind
        )
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._quorum = QuorumTracker(self.log, settings.write_quorum, self._on_commit)
        self._idempotency = IdempotencyIndex(settings.idempotency_keys)
        self._timeout_ns = int(settings.request_timeout_s * 1e9)
        self._outbox: list[LogRecord] = []
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._deadlines: deque[tuple[int, LogRecord, asyncio.Future[None]]] = deque()
        self._waiting = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.links = self._make_links()
        self._decision = Decision(Standing.FORMING, "no follower was heard yet")
        self._decide()

    def _make_links(self) -> list[Link]:
        settings = self._settings
        config = LinkConfig(
            leader_id=settings.node_id,
            leader_url=settings.advertise_url,
            cluster_id=secrets.token_hex(8),
            epoch=self.epoch,
            token=settings.cluster_token,
            heartbeat_timeout_s=settings.heartbeat_timeout_s,
            reconnect_max_s=settings.reconnect_max_s,
        )
        self._cluster_id = config.cluster_id
        return [Link(i, url, config, self) for i, url in enumerate(settings.follower_urls)]

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts to connect to all followers."""
        if self._quorum.write_quorum > len(self.links):
            logger.warning(
                "WRITE_QUORUM=%d exceeds the %d followers: writes will be refused",
                self._quorum.write_quorum,
                len(self.links),
            )
        self._tasks = [asyncio.create_task(link.run()) for link in self.links]

    def drain(self) -> None:
        """Refuses new writes from now on; those that wait go on."""
        self._decision = Decision(Standing.DRAINING, "the node is stopping")

    async def stop(self) -> None:
        """Ends all links. Writes that still wait get an unknown outcome."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._expiry is not None:
            self._expiry.cancel()
        self.end_waits()

    def end_waits(self) -> None:
        """Answers the writes that still wait: their outcome is unknown, for the node stops."""
        for _, record, future in self._deadlines:
            if not future.done():
                future.set_exception(self._unknown(record, "the leader stopped"))

    # --- writes -------------------------------------------------------------------------------

    def append(
        self, operation: Operation, key: str, value: str | None, idempotency_key: str | None
    ) -> LogRecord:
        """Takes a write into the log and sends it on its way.

        Args:
            operation: Put or delete.
            key: Not empty, within its limit.
            value: None for a delete.
            idempotency_key: The client's, if it gave one. A write with a key that is remembered is
                not appended again: the record of the first one is returned.

        Raises:
            StoreError: A definite failure; nothing was appended.
        """
        if idempotency_key is not None:
            first = self._find_retried(operation, key, value, idempotency_key)
            if first is not None:
                return first
        self._check_may_write()
        seq = self.log.last_seq + 1
        entry = Entry(self.epoch, seq, int(operation), key, value, idempotency_key)
        record = LogRecord(
            entry, _encode_entry(entry), self.now_ns(), self.delays, self._quorum.write_quorum
        )
        self.log.append(record)
        if idempotency_key is not None:
            self._idempotency.remember(idempotency_key, entry)
        self._quorum.begin(record)
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(record)
        return record

    async def wait_committed(self, record: LogRecord) -> None:
        """Waits until a record is committed.

        Raises:
            OutcomeUnknownError: Its quorum did not answer within ``REQUEST_TIMEOUT``.
        """
        if record.committed:
            return
        limit = MAX_WAITERS_PER_WRITE * self._settings.max_in_flight
        if self._waiting >= limit:
            raise self._unknown(record, "too many requests wait already")
        if len(self._deadlines) >= 2 * limit:  # most of them are over, behind one that is not
            self._deadlines = deque(wait for wait in self._deadlines if not wait[2].done())
        while self._deadlines and self._deadlines[0][2].done():
            self._deadlines.popleft()
        future = self._loop.create_future()
        self._waiters.setdefault(record.entry.seq, []).append(future)
        deadline_ns = self.now_ns() + self._timeout_ns
        self._deadlines.append((deadline_ns, record, future))
        if self._expiry is None:
            self._expire_at(deadline_ns)
        self._waiting += 1
        try:
            await future
        finally:
            self._waiting -= 1

    def _find_retried(
        self, operation: Operation, key: str, value: str | None, idempotency_key: str
    ) -> LogRecord | None:
        found = self._idempotency.find(idempotency_key)
        if found is None:
            return None
        if found.fingerprint != fingerprint_of(operation, key, value):
            raise IdempotencyConflictError(
                "This Idempotency-Key was used for another operation, key or value; use a new one.",
                epoch=found.epoch,
                seq=found.seq,
            )
        record = self.log.get(found.seq)
        if record is not None:
            return record
        # The log drops only what is committed, so the first write did commit.
        entry = Entry(found.epoch, found.seq, int(operation), key, value, idempotency_key)
        record = LogRecord(entry, b"", 0, self.delays, 0)
        record.committed = True
        record.ack_count = found.acks
        return record

    def _check_may_write(self) -> None:
        if self._decision.standing is not Standing.OPEN:
            raise NotAttemptedError(
                f"The write was not tried: {self._decision.reason}.",
                reason=str(self._decision.standing),
            )
        k = self._quorum.write_quorum
        counting = sum(link.counts for link in self.links) if k else 0
        if counting < k:
            raise NotAttemptedError(
                f"The write was not tried: it needs {k} followers and {counting} of "
                f"{len(self.links)} count now; bring followers back or lower the write quorum.",
                reason=str(Standing.TOO_FEW_FOLLOWERS),
            )
        if self._quorum.uncommitted >= self._settings.max_in_flight:
            raise TooManyInFlightError(
                f"Writes that wait for their quorum: {self._quorum.uncommitted} of "
                f"{self._settings.max_in_flight} already; try again later or raise MAX_IN_FLIGHT.",
                limit="MAX_IN_FLIGHT",
            )
        if not self.log.has_room(self._quorum.stable_seq):
            raise TooManyInFlightError(
                "The log is full of entries behind one that is not committed yet; try again later "
                "or raise LOG_ENTRIES.",
                limit="LOG_ENTRIES",
            )

    def _flush(self) -> None:
        """Hands all that was appended since the last turn of the loop to the links, as batches."""
        records, self._outbox = self._outbox, []
        # The delays may have changed since: what counts are those that the records were given.
        is_undelayed = all(record.delays.is_zero for record in records)
        frames = encode_batches(records) if is_undelayed else []
        for link in self.links:
            link.offer(records, frames)

    def _on_commit(self, record: LogRecord) -> None:
        entry = record.entry
        self.state.apply(entry)
        if entry.idempotency_key is not None:
            self._idempotency.committed(entry.idempotency_key, record.ack_count)
        for future in self._waiters.pop(entry.seq, ()):
            if not future.done():
                future.set_result(None)

    def _expire_at(self, deadline_ns: int) -> None:
        wait_s = max(0.001, (deadline_ns - self.now_ns()) / 1e9)
        self._expiry = self._loop.call_later(wait_s, self._expire)

    def _expire(self) -> None:
        """Answers the writes whose time is over. All wait equally long, so the oldest is first."""
        self._expiry = None
        now_ns = self.now_ns()
        while self._deadlines:
            deadline_ns, record, future = self._deadlines[0]
            if not future.done():
                if deadline_ns > now_ns:
                    self._expire_at(deadline_ns)
                    return
                future.set_exception(self._unknown(record, "its quorum did not answer in time"))
                self._forget_waiter(record.entry.seq, future)
            self._deadlines.popleft()

    def _forget_waiter(self, seq: int, future: asyncio.Future[None]) -> None:
        self._waiters[seq].remove(future)
        if not self._waiters[seq]:
            del self._waiters[seq]

    def _unknown(self, record: LogRecord, why: str) -> StoreError:
        return OutcomeUnknownError(
            f"The write is in the log but {why}: it may commit later; "
            "ask again with the same Idempotency-Key, or read the key.",
            epoch=record.entry.epoch,
            seq=record.entry.seq,
            follower_acks=record.ack_count,
            required=record.begun_with,
        )

    # --- what the links report ----------------------------------------------------------------

    @property
    def stable_seq(self) -> int:
        """Every entry at or below is committed."""
        return self._quorum.stable_seq

    def on_welcome(self, link: Link, welcome: Welcome) -> None:
        """Decides whether a follower may follow.

        Raises:
            ChannelError: It may not, and why.
        """
        for other in self.links:
            if other is not link and other.is_welcome and other.node_id == welcome.node_id:
                raise ChannelError(f"NODE_ID {welcome.node_id!r} is also that of {other.url}")
        self._forget(welcome.node_id)
        holds_any = bool(welcome.cluster_id or welcome.contiguous or welcome.above)
        link.has_data = holds_any and welcome.cluster_id != self._cluster_id
        self._decide()
        if link.has_data:
            raise ChannelError("it holds the entries of an earlier leader, and is left as it is")

    def _forget(self, node_id: str) -> None:
        """Takes back what a node acknowledged before its welcome, which says what it holds now.

        It may have lost it in a restart, or have acknowledged it on the link of another URL.
        """
        for link in self.links:
            if link.node_id == node_id:
                self._quorum.forget(link.index)

    def on_acknowledged(self, link: Link, ranges: Sequence[SeqRange]) -> None:
        """Counts what a follower acknowledged."""
        self._quorum.acknowledge(link.index, ranges)

    def _decide(self) -> None:
        """Opens the cluster when its followers allow it; once open it stays so."""
        if self._decision.standing not in {Standing.FORMING, Standing.RECOVERING}:
            return
        reports = {link.url: link.has_data for link in self.links}
        before, self._decision = self._decision, decide(reports, self._quorum.write_quorum)
        if self._decision == before:
            return
        if self._decision.standing is Standing.RECOVERING:
            logger.error("writes are refused: %s", self._decision.reason)
        elif self._decision.standing is Standing.OPEN:
            logger.info("open for writes with k=%d", self._quorum.write_quorum)

    # --- control ------------------------------------------------------------------------------

    @property
    def write_quorum(self) -> int:
        """The k of the writes that begin now."""
        return self._quorum.write_quorum

    def set_delays(self, min_ms: float, max_ms: float) -> None:
        """Changes the range of the link delays, in ms, of all entries from now on."""
        self.delays = replace(self.delays, min_ms=min_ms, max_ms=max_ms)

    def set_write_quorum(self, write_quorum: int) -> None:
        """Changes k at once.

        Raises:
            MalformedError: It is not from 0 to the number of followers.
        """
        if not 0 <= write_quorum <= len(self.links):
            raise MalformedError(
                f"write_quorum={write_quorum} must be from 0 to {len(self.links)}, "
                "the number of followers."
            )
        self._quorum.set_write_quorum(write_quorum)
        self._decide()

    def readiness(self) -> Decision:
        """Returns ``OPEN`` if a write would be tried now, else why not."""
        if self._decision.standing is not Standing.OPEN:
            return self._decision
        counting = sum(link.counts for link in self.links)
        if counting < self._quorum.write_quorum:
            return Decision(
                Standing.TOO_FEW_FOLLOWERS,
                f"{counting} of {len(self.links)} followers count, k is {self.write_quorum}",
            )
        return self._decision

    def link_statuses(self) -> dict[str, LinkStatus]:
        """Returns, per URL, how far each follower is."""
        return {
            link.url: LinkStatus(
                node_id=link.node_id,
                epoch=self.epoch if link.held.max_seq else 0,
                contiguous=link.held.contiguous,
                max_seq=link.held.max_seq,
                holes=link.held.holes,
                connected=link.is_connected,
                learner=link.is_learner,
                detail=link.detail,
            )
            for link in self.links
        }
