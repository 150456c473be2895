"""A leader: takes writes, replicates them over its links, answers when their quorum is met."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from kv_app.channel import Link
from kv_app.delays import DelayModel
from kv_app.errors import (
    NotAttemptedError,
    TooManyInFlightError,
)
from kv_app.failover.electors import confirmations_of, own_url
from kv_app.failover.quorum_change import Quorums, Record
from kv_app.formation import Decision, Standing, decide
from kv_app.group_commit import GroupCommit
from kv_app.handover import give_back, take_over
from kv_app.links import absence_of, make_links
from kv_app.log import IdempotencyIndex, Log, LogRecord
from kv_app.messages import Change, Entry, Operation, SeqRange
from kv_app.meta import BaseRecord, Config, Member, Promise
from kv_app.metrics import SIZE_BOUNDS, TIME_BOUNDS_NS, Histogram
from kv_app.outbox import encode_batches
from kv_app.position_waits import PositionWaits
from kv_app.quorum import QuorumTracker
from kv_app.quorum_changes import QuorumChanges
from kv_app.replica import Replica, config_value
from kv_app.retries import first_record
from kv_app.state import CONFIG_KEY, State
from kv_app.voters import Voters
from kv_app.waits import Waits

logger = logging.getLogger("kv_app.leader")

FIRST_EPOCH = 1
# Retries of a write wait beside it; this bounds all that wait, in multiples of MAX_IN_FLIGHT.
MAX_WAITERS_PER_WRITE = 4

_encode_entry = msgspec.msgpack.Encoder().encode


class Leader:
    """The leader of one epoch, which it began itself, or that of a cluster which is not formed yet.

    Attributes:
        epoch: The epoch that it leads.
        base: What the epoch began with; None before the cluster is formed.
        decision: Whether it takes writes, or else why not.
        is_open: True once the cluster takes writes, also while it drains.
        log: Its newest entries.
        state: Committed versions only: a value is shown once its quorum has it.
        idempotency: The idempotency keys of its log, and of what is older.
        links: One per follower, in the order in which the cluster was made.
        commits: The way of entries to the disk, if there is one.
        delays: Link delays of the entries that are appended now.
        reads: The reads that wait for a position.
        quorum_changes: k, f, and what becomes of them.
        voters: Which followers are let in, and what they vouch for.
        opened: Set once its epoch has begun, or never will.
        counted: Set once enough followers have counted for a write, or nobody is to wait for that
            any more: it leads no more, or stops.
        quorum_wait_ns: How long entries took from their append to their commit.
        batch_entries: How many entries left together.
    """

    def __init__(
        self,
        replica: Replica,
        promise: Promise,
        *,
        base: BaseRecord | None = None,
        is_blank: bool = False,
        needed: Sequence[str] | None = None,
        delays: DelayModel | None = None,
        on_open: Callable[[], None] = lambda: None,
        on_superseded: Callable[[int], None] = lambda _: None,
        on_recovering: Callable[[], None] = lambda: None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Makes a leader of what its replica holds; ``start`` lets it connect.

        Args:
            replica: What the node holds: all of the base.
            promise: The node's, of the epoch that it is to lead.
            base: The base; without one the leader forms a new cluster.
            is_blank: True if the node held no base before: it does not count for opening.
            needed: The URLs of those that have to hold the base before it opens; a majority of the
                electors if not given.
            delays: Those in force; those of the settings if not given.
            on_open: Called once it takes writes.
            on_superseded: Called with the newer epoch that a follower has promised itself to.
            on_recovering: Called if followers hold what this node has lost.
            now_ns: A monotonic clock.
        """
        settings = replica.settings
        self.now_ns = now_ns
        self.delays = delays or DelayModel(
            settings.min_delay_ms, settings.max_delay_ms, settings.delay_seed, settings.delay_kind
        )
        self.epoch, self.base = promise.epoch, base
        self._promise = promise
        self._settings = settings
        self._replica = replica
        self.state: State = replica.state
        self.idempotency: IdempotencyIndex = replica.idempotency
        self._loop = asyncio.get_running_loop()
        self._on_open, self._on_superseded = on_open, on_superseded
        self._on_recovering = on_recovering
        self.is_open = False
        self.decision = Decision(Standing.FORMING, "no follower was heard yet")
        k = settings.write_quorum
        quorums = Quorums(k, k, k)
        urls, self_url = settings.follower_urls, settings.advertise_url
        if base is not None:
            self.decision = Decision(
                Standing.RECOVERING, f"epoch {self.epoch} is not on a majority of the nodes yet"
            )
            config = base.config
            quorums = Quorums(config.write_quorum, config.floor, config.wanted)
            self_url = own_url(config.members, settings.node_id, self_url)
            urls = tuple(one.url for one in config.members if one.url != self_url)
        self.opened, self.counted = asyncio.Event(), asyncio.Event()
        self.log = Log(settings.log_entries, settings.log_bytes, replica.log.start)
        take_over(replica, self.log, now_ns())
        self._quorum = QuorumTracker(
            self.log, quorums.write_quorum, self._on_commit, self._on_stable
        )
        if base is None:
            self._quorum.commit_base()
        else:
            self._quorum.stable_seq = max(self._quorum.stable_seq, replica.settled_seq)
        self.quorum_changes = QuorumChanges(
            quorums, self.log, self._quorum, self, settings.request_timeout_s
        )
        self.voters = Voters(
            replica,
            self._quorum,
            self.quorum_changes,
            self,
            own_url=self_url,
            is_blank=is_blank,
            needed=needed,
        )
        self._waits = Waits(
            settings.request_timeout_s, MAX_WAITERS_PER_WRITE * settings.max_in_flight, now_ns
        )
        self.reads = PositionWaits(
            self._has_reached, settings.request_timeout_s, settings.max_in_flight
        )
        self.quorum_wait_ns = Histogram(TIME_BOUNDS_NS)
        self.batch_entries = Histogram(SIZE_BOUNDS)
        self.commits = replica.commits
        self._outbox: list[LogRecord] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.links = make_links(urls, replica, promise, self, self.voters)
        self.try_form()

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts to connect to all followers."""
        if self.write_quorum > len(self.links):
            logger.warning(
                "WRITE_QUORUM=%d exceeds the %d followers: writes will be refused",
                self.write_quorum,
                len(self.links),
            )
        self._tasks = [asyncio.create_task(link.run()) for link in self.links]
        self._try_open()

    def drain(self) -> None:
        """Refuses new writes from now on; those that wait go on."""
        self.decision = Decision(Standing.DRAINING, "the node is stopping")

    async def stop(self) -> None:
        """Ends all links. Writes that still wait get an unknown outcome."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.commits is not None:
            await self.commits.close()
        self._waits.close()

    def abdicate(self, promised: int) -> list[asyncio.Task[None]]:
        """Leads no more, at once: nothing is committed, shown or sent from now on.

        Gives the log back to the replica. Writes that wait get an unknown outcome.

        Args:
            promised: The epoch for which it ends; 0 if only a base was not installed in time.

        Returns:
            The tasks of its links, which end.
        """
        self.decision = Decision(
            Standing.SUPERSEDED, f"this node led epoch {self.epoch}, and {promised} has begun"
        )
        self.is_open = False
        self.opened.set()
        self.counted.set()
        self._quorum.close()
        give_back(self._replica, self.log, self._outbox, self._quorum.stable_seq)
        self._outbox = []
        for task in self._tasks:
            task.cancel()
        self._waits.close(f"epoch {self.epoch} is over")
        self.reads.end()
        self.voters.end()
        self.quorum_changes.end()
        return self._tasks

    def end_waits(self) -> None:
        """Answers all that waits for followers, now or later: the node stops.

        Of writes and changes of k the outcome is unknown; reads are refused.
        """
        self._waits.close()
        self.voters.end()
        self.quorum_changes.end()
        self.counted.set()

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
        if idempotency_key is not None and self.is_open:
            first = self.idempotency.find(idempotency_key)
            if first is not None:
                retry = Entry(
                    first.epoch, first.seq, int(operation), key, value, idempotency_key, changes
                )
                k = self._quorum.write_quorum
                return self._recount(first_record(first, retry, self.log, self.delays, k))
        self.check_may_write()
        seq = self.log.last_seq + 1
        entry = Entry(self.epoch, seq, int(operation), key, value, idempotency_key, changes)
        if idempotency_key is not None:
            self.idempotency.remember(entry)
        return self._append(entry)

    def _recount(self, record: LogRecord) -> LogRecord:
        """Returns a record that knows of all followers that hold it now.

        Of a base nothing was counted before its epoch opened, and of what left the log nothing
        since it committed.
        """
        if not record.committed:
            return record  # it counts by itself
        seq = record.entry.seq
        holders = sum(link.counts and link.held.holds(seq) for link in self.links)
        if holders <= record.ack_count:
            return record
        return msgspec.structs.replace(record, ack_count=holders)

    def _append(self, entry: Entry) -> LogRecord:
        k = self._quorum.write_quorum
        record = LogRecord(entry, _encode_entry(entry), self.now_ns(), self.delays, k, k)
        self.log.append(record)
        self._quorum.begin(record, is_durable=self.commits is None)
        if not self._outbox:
            self._loop.call_soon(self._flush_soon)
        self._outbox.append(record)
        return record

    def append_config(self, record: Record) -> LogRecord:
        """Appends a configuration: what the log says from here on."""
        members = self.base.config.members if self.base is not None else ()
        config = Config(members, record.write_quorum, record.floor, record.wanted)
        seq = self.log.last_seq + 1
        operation = int(Operation.CONFIG)
        return self._append(
            Entry(self.epoch, seq, operation, CONFIG_KEY, config_value(config), None)
        )

    async def wait_committed(self, record: LogRecord) -> None:
        """Waits until a record is committed.

        Raises:
            OutcomeUnknownError: Its quorum did not answer within ``REQUEST_TIMEOUT``.
        """
        await self._waits.wait(record)

    def check_may_write(self) -> None:
        """Refuses a write that cannot be tried now.

        Raises:
            NotAttemptedError: Too few followers count, or the leader is not open.
            TooManyInFlightError: Too many writes wait already.
        """
        if self.decision.standing is not Standing.OPEN:
            raise NotAttemptedError(
                f"The write was not tried: {self.readiness().reason}.",
                reason=str(self.decision.standing),
            )
        k = self._quorum.write_quorum
        counting = sum(link.counts for link in self.links) if k else 0
        if counting < k:
            raise NotAttemptedError(
                f"The write was not tried: it needs {k} followers and {counting} of "
                f"{len(self.links)} count now; {self._what_helps(counting)}.",
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
                f"or raise {self.log.limit}.",
                limit=self.log.limit,
            )

    def _what_helps(self, counting: int) -> str:
        """A lower write quorum helps only where enough followers can hear of it."""
        enough = confirmations_of(self.quorum_changes.now.floor, len(self.links))
        back = "bring followers back"
        return f"{back} or lower the write quorum" if counting >= enough else back

    def _flush_soon(self) -> None:
        """Lets a lone write go at once, and several wait for those of the next turn of the loop.

        A follower takes a message of two entries about as fast as one of one.
        """
        if len(self._outbox) > 1:
            self._loop.call_soon(self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        """Hands all that was appended since the last time to the links, as batches.

        The disk comes after the links, so that the followers' syncs run beside the leader's own.
        """
        records, self._outbox = self._outbox, []
        if not records:  # it leads no more
            return
        self.batch_entries.observe(len(records))
        # The delays may have changed since: what counts are those that the records were given.
        is_undelayed = all(record.delays.is_zero for record in records)
        frames = encode_batches(records, self.stable_seq) if is_undelayed else []
        for link in self.links:
            link.offer(records, frames)
        if self.commits is not None:
            self._make_durable(self.commits, records)
        if self.state.noted_deletions:
            self.state.forget_deletions(self._forgettable())

    def _forgettable(self) -> int:
        """Returns a position: no deletion at or below has to be known any more.

        What the log has dropped can never come again. Until it is folded, though, the disk still
        has what it deletes; and a follower that catches up may still have to be told of it. Where
        those would be too many, it gets the whole state once more instead.
        """
        forgotten = self.log.first_seq - 1
        if self.commits is not None:
            forgotten = min(forgotten, self.commits.storage.meta.folded[1])
        if self.state.noted_deletions <= self.log.capacity:
            for link in self.links:
                if (needed := link.needs_deletions_above) is not None:
                    forgotten = min(forgotten, needed)
        return forgotten

    def _make_durable(self, commits: GroupCommit, records: list[LogRecord]) -> None:
        last_seq = records[-1].entry.seq
        commits.fold_to = (self.epoch, self.stable_seq)
        entries = [(record.entry.epoch, record.entry.seq, record.encoded) for record in records]
        commits.add(entries, lambda: self._on_durable(last_seq))
        commits.commit()

    def _on_durable(self, seq: int) -> None:
        self._quorum.advance_durable(seq)
        if self.quorum_changes.is_changing:
            self.quorum_changes.go_on()

    def _on_stable(self, first: int, last: int) -> None:
        state = self.state
        if state.has_unsettled:
            records = (self.log.get(seq) for seq in range(first, last + 1))
            state.settle(record.entry for record in records if record is not None)

    def _on_commit(self, record: LogRecord) -> None:
        entry = record.entry
        state = self.state
        if entry.seq != self._quorum.stable_seq + 1:
            state.apply_unsettled(entry)
        elif state.has_unsettled:
            state.apply_unsettled(entry)
            state.settle((entry,))
        else:
            state.apply(entry)
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
    def uncommitted(self) -> int:
        """How many entries are not committed yet."""
        return self._quorum.uncommitted

    @property
    def waiting_writes(self) -> int:
        """How many requests wait for a quorum."""
        return len(self._waits)

    @property
    def taught(self) -> int:
        """How much its followers hold of what they lacked: it changes while they take in a base.

        It rises, and falls where a follower connects anew and says what it holds.
        """
        return sum(link.held.contiguous + link.parts for link in self.links)

    @property
    def stable_seq(self) -> int:
        """Every entry at or below is committed."""
        return self._quorum.stable_seq

    def on_base_held(self, link: Link) -> None:
        """Counts a voter, a further one or again: the epoch may open, or k rise to the wanted."""
        self.voters.add(link)
        self._try_open()
        if self.is_open:
            self.quorum_changes.raise_again()
            if self.readiness().standing is Standing.OPEN:
                self.counted.set()

    def on_superseded(self, link: Link, promised: int) -> None:
        """Leads no more: a follower has promised itself to a newer epoch, or another attempt."""
        if self.base is None:  # there is a cluster already
            link.has_data = True
            self.try_form()
        else:
            self._on_superseded(promised)

    def on_tried(self) -> None:
        """A follower was tried for the first time, in vain or not."""
        self.try_form()

    def on_acknowledged(self, link: Link, ranges: Sequence[SeqRange]) -> None:
        """Counts what a follower acknowledged, of an epoch that has begun.

        Before, that is entries of the base: nobody may take them for committed until it opens.
        """
        if not self.is_open:
            return
        self._quorum.acknowledge(link.index, ranges)
        if self.quorum_changes.is_changing:
            self.quorum_changes.go_on()

    # --- opening ------------------------------------------------------------------------------

    def try_form(self) -> None:
        """Forms a cluster when its followers allow it; once open it stays so."""
        is_over = self.decision.standing in {Standing.DRAINING, Standing.SUPERSEDED}
        if self.is_open or self.base is not None or is_over:
            return
        reports = {link.url: link.has_data for link in self.links}
        untried = sum(not link.is_tried for link in self.links)
        before = self.decision
        self.decision = decide(reports, self.write_quorum, untried=untried)
        if self.decision == before:
            return
        if self.decision.standing is Standing.RECOVERING:
            logger.error("writes are refused: %s", self.decision.reason)
            self._on_recovering()
        elif self.decision.standing is Standing.OPEN:
            self._form()

    def _form(self) -> None:
        """Makes the base of the first epoch; it is durable before it is told."""
        settings, k = self._settings, self.write_quorum
        names = {link.url: link.node_id or "" for link in self.links}
        members = [Member(settings.node_id, settings.advertise_url)]
        members += [Member(names[link.url], link.url) for link in self.links]
        config = Config(tuple(members), k, k, k)
        replica = self._replica
        self.base = BaseRecord(
            self.epoch,
            settings.node_id,
            replica.meta.incarnation,
            config,
            self.log.last_seq,
            founders={one.url: one.incarnation for one in self.links if one.has_data is False},
        )
        replica.save(promise=self._promise, base=self.base)
        self.decision = Decision(
            Standing.FORMING, f"epoch {self.epoch} is not on a majority of the nodes yet"
        )
        for link in self.links:
            link.teach()
        self._try_open()

    def _try_open(self) -> None:
        """Begins to take writes once the base is on a majority of the electors."""
        base = self.base
        is_waiting = self.decision.standing in {Standing.FORMING, Standing.RECOVERING}
        if base is None or self.is_open or not is_waiting:
            return
        if self.voters.may_open(base):
            self._open()

    def _open(self) -> None:
        """Begins to take writes, and to be read from: all of the base is committed."""
        self.is_open = True
        self.decision = Decision(Standing.OPEN)
        self._quorum.commit_base()
        self._tell_open()
        if self.epoch > FIRST_EPOCH:
            self.quorum_changes.restate()
        self._on_open()
        self.opened.set()
        for link in self.links:
            if link.is_learner and link.is_connected:
                self.voters.on_connected(link)
                link.teach()
        self.quorum_changes.raise_again()
        if self.readiness().standing is Standing.OPEN:
            self.counted.set()

    def _tell_open(self) -> None:
        opens = f"open for writes with k={self.write_quorum} in epoch {self.epoch}"
        asked = self._settings.write_quorum
        if self._settings.is_write_quorum_set and asked != self.quorum_changes.now.wanted:
            logger.warning(
                "%s; WRITE_QUORUM=%d is for a new cluster only, change k with POST /admin/quorum",
                opens,
                asked,
            )
        else:
            logger.info("%s", opens)

    # --- control ------------------------------------------------------------------------------

    @property
    def write_quorum(self) -> int:
        """The k of the writes that begin now."""
        return self._quorum.write_quorum

    def set_delays(self, min_ms: float, max_ms: float) -> None:
        """Changes the range of the link delays, in ms, of all entries from now on."""
        self.delays = replace(self.delays, min_ms=min_ms, max_ms=max_ms)

    def readiness(self) -> Decision:
        """Returns ``OPEN`` if a write would be tried now, else why not, and who is away why."""
        decision = self.decision
        if decision.standing is Standing.OPEN:
            counting = sum(link.counts for link in self.links)
            if counting >= self._quorum.write_quorum:
                return decision
            decision = Decision(
                Standing.TOO_FEW_FOLLOWERS,
                f"{counting} of {len(self.links)} followers count, k is {self.write_quorum}",
            )
        elif decision.standing is not Standing.FORMING:
            return decision
        away = absence_of(self.links)
        return replace(decision, reason=f"{decision.reason}; {away}") if away else decision
