"""A leader: takes writes, replicates them over its links, answers when their quorum is met."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from kv_app.bodies import LinkStatus
from kv_app.channel import Link, LinkConfig
from kv_app.delays import DelayModel
from kv_app.errors import (
    ChannelError,
    IdempotencyConflictError,
    MalformedError,
    NotAttemptedError,
    StorageError,
    TooManyInFlightError,
)
from kv_app.formation import Decision, Standing, decide
from kv_app.group_commit import GroupCommit
from kv_app.log import Log, LogRecord, fingerprint_of
from kv_app.messages import Change, Entry, Operation, SeqRange, Welcome
from kv_app.meta import BaseRecord, Config, Member, Promise
from kv_app.metrics import SIZE_BOUNDS, TIME_BOUNDS_NS, Histogram
from kv_app.outbox import encode_batches
from kv_app.position_waits import PositionWaits
from kv_app.quorum import QuorumTracker
from kv_app.recovery import recover
from kv_app.settings import Settings
from kv_app.storage import Storage
from kv_app.waits import Waits, unknown

logger = logging.getLogger("kv_app.leader")

FIRST_EPOCH = 1
# Retries of a write wait beside it; this bounds all that wait, in multiples of MAX_IN_FLIGHT.
MAX_WAITERS_PER_WRITE = 4

# A leader alone folds its log in steps of so many entries when it starts.
FOLD_ENTRIES = 256

_encode_entry = msgspec.msgpack.Encoder().encode


class Leader:
    """The leader of one epoch, which it began itself, or one that waits for a new epoch.

    Attributes:
        epoch: The epoch that it leads; of a leader that recovers, the last one that it led.
        log: Its newest entries.
        state: Committed versions only: a value is shown once its quorum has it. A leader that
            recovers shows all that is on its disk.
        idempotency: The idempotency keys of all that.
        links: One per follower, in the order of ``FOLLOWER_URLS``.
        delays: Link delays of the entries that are appended now.
        reads: The reads that wait for a position.
        quorum_wait_ns: How long entries took from their append to their commit.
        batch_entries: How many entries were appended in one turn of the loop.
    """

    def __init__(
        self,
        settings: Settings,
        storage: Storage | None = None,
        *,
        on_failure: Callable[[StorageError], None] | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Makes a leader of what its disk holds; ``start`` lets it connect.

        Args:
            settings: What the node was told.
            storage: The node's database; without one all is in memory only.
            on_failure: Called when the disk fails, and must end the process.
            now_ns: A monotonic clock.

        Raises:
            StorageError: The disk failed, is damaged, or belongs to a cluster of another form.
        """
        self.now_ns = now_ns
        self.delays = DelayModel(
            settings.min_delay_ms, settings.max_delay_ms, settings.delay_seed, settings.delay_kind
        )
        self._settings = settings
        self._storage = storage
        self._loop = asyncio.get_running_loop()
        recovered = recover(storage, settings.idempotency_keys)
        self.state, self.idempotency = recovered.state, recovered.idempotency
        self.log = Log(settings.log_entries, settings.log_bytes, recovered.held.max_seq)
        self._quorum = QuorumTracker(self.log, settings.write_quorum, self._on_commit)
        self._waits = Waits(
            settings.request_timeout_s, MAX_WAITERS_PER_WRITE * settings.max_in_flight, now_ns
        )
        self.reads = PositionWaits(
            self._has_reached, settings.request_timeout_s, settings.max_in_flight
        )
        self.quorum_wait_ns = Histogram(TIME_BOUNDS_NS)
        self.batch_entries = Histogram(SIZE_BOUNDS)
        self._commits = None
        if storage is not None:
            self._commits = GroupCommit(storage, self.idempotency, on_failure or _raise)
        self._outbox: list[LogRecord] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._decision = Decision(Standing.FORMING, "no follower was heard yet")
        self._is_open = self._is_restarted = False
        self.epoch, follower_urls = self._begin()
        self.links = self._make_links(follower_urls)
        self._decide()

    def _begin(self) -> tuple[int, tuple[str, ...]]:
        """Decides which epoch this leader has, from its disk; returns that and its followers."""
        urls = self._settings.follower_urls
        if self._storage is None:
            self._cluster_id = secrets.token_hex(8)
            return FIRST_EPOCH, urls
        meta = self._storage.meta
        self._cluster_id = meta.cluster_id or secrets.token_hex(8)
        if not meta.cluster_id:
            self._storage.save(msgspec.structs.replace(meta, cluster_id=self._cluster_id))
        if meta.base is None:
            return FIRST_EPOCH, urls
        recorded = _followers_of(meta.base)
        if not recorded and not urls:
            self._lead_alone(meta.base.epoch + 1)
            return meta.base.epoch + 1, ()
        if set(recorded) != set(urls):
            raise StorageError(
                f"this leader's cluster was made with the followers {', '.join(recorded) or 'none'}"
                ", which is fixed; start it with the same FOLLOWER_URLS, or another DATA_DIR"
            )
        self._is_restarted = True
        self._decision = Decision(
            Standing.RECOVERING,
            "this leader was restarted, and may not go on in the epoch that it led; it serves "
            "reads of all that it acknowledged",
        )
        logger.error("writes are refused: %s", self._decision.reason)
        return meta.base.epoch, urls

    def _lead_alone(self, epoch: int) -> None:
        """Begins a new epoch: nobody else can hold anything, so that all entries are committed."""
        storage = self._storage
        if storage is None:
            return
        position = (epoch - 1, self.log.last_seq)
        folded = storage.meta.folded
        while (reached := storage.fold(position, position, FOLD_ENTRIES)) > folded:
            folded = reached
        self._save_base(epoch, position)

    def _save_base(self, epoch: int, position: tuple[int, int] = (0, 0)) -> None:
        """Makes an epoch durable before its first entry."""
        if self._storage is None:
            return
        settings = self._settings
        members = [Member(settings.node_id, settings.advertise_url)]
        members += [Member("", url) for url in settings.follower_urls]
        k = settings.write_quorum
        base = BaseRecord(epoch, settings.node_id, Config(tuple(members), k, k), position)
        meta = msgspec.structs.replace(
            self._storage.meta, promise=Promise(epoch, settings.node_id), base=base
        )
        self._storage.save(meta)

    def _make_links(self, urls: Sequence[str]) -> list[Link]:
        settings = self._settings
        config = LinkConfig(
            leader_id=settings.node_id,
            leader_url=settings.advertise_url,
            cluster_id=self._cluster_id,
            epoch=self.epoch,
            token=settings.cluster_token,
            heartbeat_timeout_s=settings.heartbeat_timeout_s,
            reconnect_max_s=settings.reconnect_max_s,
        )
        return [Link(i, url, config, self) for i, url in enumerate(urls)]

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts to connect to all followers."""
        if self._quorum.write_quorum > len(self.links):
            logger.warning(
                "WRITE_QUORUM=%d exceeds the %d followers: writes will be refused",
                self._quorum.write_quorum,
                len(self.links),
            )
        if self._is_restarted:
            return
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
        if self._commits is not None:
            await self._commits.close()
        self._waits.close()

    def end_waits(self) -> None:
        """Answers the writes that still wait: their outcome is unknown, for the node stops."""
        self._waits.end()

    # --- writes -------------------------------------------------------------------------------

    def append(
        self,
        operation: Operation,
        key: str,
        value: str | None,
        idempotency_key: str | None,
        changes: tuple[Change, ...] = (),
    ) -> LogRecord:
        """Takes a write into the log and sends it on its way.

        Args:
            operation: Put, delete or batch.
            key: Within its limit; empty for a batch.
            value: Of a put.
            idempotency_key: The client's, if it gave one. A write with a key that is remembered is
                not appended again: the record of the first one is returned.
            changes: Of a batch, each key once.

        Raises:
            StoreError: A definite failure, nothing was appended; or, of a leader that recovers, the
                unknown outcome of the first write with this idempotency key.
        """
        if idempotency_key is not None:
            first = self._find_retried(operation, key, value, idempotency_key, changes)
            if first is not None:
                return first
        self._check_may_write()
        seq = self.log.last_seq + 1
        entry = Entry(self.epoch, seq, int(operation), key, value, idempotency_key, changes)
        k = self._quorum.write_quorum
        record = LogRecord(entry, _encode_entry(entry), self.now_ns(), self.delays, k, k)
        self.log.append(record)
        if idempotency_key is not None:
            self.idempotency.remember(entry)
        self._quorum.begin(record, is_durable=self._commits is None)
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(record)
        return record

    async def wait_committed(self, record: LogRecord) -> None:
        """Waits until a record is committed.

        Raises:
            OutcomeUnknownError: Its quorum did not answer within ``REQUEST_TIMEOUT``.
        """
        await self._waits.wait(record)

    def _find_retried(
        self,
        operation: Operation,
        key: str,
        value: str | None,
        idempotency_key: str,
        changes: tuple[Change, ...],
    ) -> LogRecord | None:
        found = self.idempotency.find(idempotency_key)
        if found is None:
            return None
        if found.fingerprint != fingerprint_of(operation, key, value, changes):
            raise IdempotencyConflictError(
                "This Idempotency-Key was used for another operation, key or value; use a new one.",
                epoch=found.epoch,
                seq=found.seq,
            )
        record = self.log.get(found.seq)
        if record is not None:
            return record
        entry = Entry(found.epoch, found.seq, int(operation), key, value, idempotency_key, changes)
        k = self._quorum.write_quorum
        record = LogRecord(entry, b"", 0, self.delays, k, k)
        if self._is_restarted:
            raise unknown(record, "this leader was restarted and cannot tell if it is committed")
        # The log drops only what is committed, so the first write did commit.
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
        """Hands all that was appended since the last turn of the loop to the links, as batches.

        The disk comes after the links, so that the followers' syncs run beside the leader's own.
        """
        records, self._outbox = self._outbox, []
        self.batch_entries.observe(len(records))
        # The delays may have changed since: what counts are those that the records were given.
        is_undelayed = all(record.delays.is_zero for record in records)
        frames = encode_batches(records, self.stable_seq) if is_undelayed else []
        for link in self.links:
            link.offer(records, frames)
        # What the log has dropped can never come again: its deletions need not be known.
        # Until they are folded, though, the disk still has what they delete.
        forgotten = self.log.first_seq - 1
        if self._commits is not None:
            self._make_durable(self._commits, records)
            forgotten = min(forgotten, self._commits.storage.meta.folded[1])
        self.state.forget_deletions(self.epoch, forgotten)

    def _make_durable(self, commits: GroupCommit, records: list[LogRecord]) -> None:
        last_seq = records[-1].entry.seq
        commits.fold_to = (self.epoch, self.stable_seq)
        entries = [(record.entry.epoch, record.entry.seq, record.encoded) for record in records]
        commits.add(entries, lambda: self._quorum.advance_durable(last_seq))
        commits.commit()

    def _on_commit(self, record: LogRecord) -> None:
        entry = record.entry
        self.state.apply(entry)
        if entry.idempotency_key is not None:
            self.idempotency.committed(entry.idempotency_key, record.ack_count)
        self._waits.resolve(entry.seq)
        self.quorum_wait_ns.observe(self.now_ns() - record.appended_ns)
        if self.reads.waiting:
            self.reads.arrived(entry)

    def _has_reached(self, key: str, epoch: int, seq: int) -> bool:
        """Tells if a read of a key can show what was committed at a position, or something newer.

        All that was committed in earlier epochs is what this one began with.
        """
        version = self.state.read(key)
        if version is not None and (version.epoch, version.seq) >= (epoch, seq):
            return True
        if epoch != self.epoch:
            return epoch < self.epoch
        record = self.log.get(seq)
        return seq <= self.stable_seq or (record is not None and record.committed)

    # --- what the links report ----------------------------------------------------------------

    @property
    def commits(self) -> GroupCommit | None:
        """The way of entries to the disk, if there is one."""
        return self._commits

    @property
    def uncommitted(self) -> int:
        """How many entries are not committed yet."""
        return self._quorum.uncommitted

    @property
    def waiting_writes(self) -> int:
        """How many requests wait for a quorum."""
        return len(self._waits)

    @property
    def stable_seq(self) -> int:
        """Every entry at or below is committed."""
        return self._quorum.stable_seq

    @property
    def is_open(self) -> bool:
        """True once the cluster takes writes, also while it drains."""
        return self._is_open

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
        if self._is_open or self._is_restarted or self._decision.standing is Standing.DRAINING:
            return
        reports = {link.url: link.has_data for link in self.links}
        before, self._decision = self._decision, decide(reports, self._quorum.write_quorum)
        if self._decision == before:
            return
        if self._decision.standing is Standing.RECOVERING:
            logger.error("writes are refused: %s", self._decision.reason)
        elif self._decision.standing is Standing.OPEN:
            self._open()

    def _open(self) -> None:
        """Begins to take writes; the epoch is durable first."""
        if self._storage is not None and self._storage.meta.base is None:
            self._save_base(self.epoch)
        self._is_open = True
        logger.info("open for writes with k=%d in epoch %d", self.write_quorum, self.epoch)
        for link in self.links:
            link.teach()

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

    def set_link(self, node_id: str, *, is_up: bool) -> None:
        """Cuts the link to a follower, or mends it: fault injection.

        Raises:
            MalformedError: No follower with this name was heard.
        """
        for link in self.links:
            if link.node_id == node_id:
                if is_up:
                    link.mend()
                else:
                    link.cut()
                return
        known = ", ".join(link.node_id for link in self.links if link.node_id) or "none"
        raise MalformedError(f"No follower {node_id!r} was heard; these were: {known}.")

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
                durable=link.is_durable,
                detail=link.detail,
            )
            for link in self.links
        }


def _followers_of(base: BaseRecord) -> tuple[str, ...]:
    """The followers' URLs with which an epoch began."""
    members = base.config.members if base.config is not None else ()
    return tuple(member.url for member in members if member.node_id != base.leader_id)


def _raise(error: StorageError) -> None:
    raise error
