"""A leader: takes writes, replicates them over its links, answers when their quorum is met."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from kv_app.bodies import LinkStatus
from kv_app.channel import Link, LinkConfig
from kv_app.confirmations import Confirmations
from kv_app.delays import DelayModel
from kv_app.errors import (
    ChangeUnderWayError,
    ChannelError,
    IdempotencyConflictError,
    MalformedError,
    NotAttemptedError,
    NotConfirmedError,
    TooManyInFlightError,
)
from kv_app.failover import quorum_change
from kv_app.failover.electors import confirmations_of, has_majority, own_url
from kv_app.failover.quorum_change import Quorums, Record
from kv_app.formation import Decision, Standing, decide
from kv_app.group_commit import GroupCommit
from kv_app.log import IdempotencyIndex, Log, LogRecord, fingerprint_of
from kv_app.messages import Change, Entry, Operation, SeqRange, Welcome
from kv_app.meta import BaseRecord, Config, Member, Promise
from kv_app.metrics import SIZE_BOUNDS, TIME_BOUNDS_NS, Histogram
from kv_app.outbox import encode_batches
from kv_app.position_waits import PositionWaits
from kv_app.quorum import QuorumTracker
from kv_app.replica import Replica, config_value
from kv_app.state import CONFIG_KEY, State
from kv_app.waits import Waits, unknown

logger = logging.getLogger("kv_app.leader")

FIRST_EPOCH = 1
# Retries of a write wait beside it; this bounds all that wait, in multiples of MAX_IN_FLIGHT.
MAX_WAITERS_PER_WRITE = 4

_encode_entry = msgspec.msgpack.Encoder().encode
_NO_DELAYS = DelayModel()


class Leader:
    """The leader of one epoch, which it began itself, or that of a cluster which is not formed yet.

    Attributes:
        epoch: The epoch that it leads.
        base: What the epoch began with; None before the cluster is formed.
        log: Its newest entries.
        state: Committed versions only: a value is shown once its quorum has it.
        idempotency: The idempotency keys of its log, and of what is older.
        links: One per follower, in the order in which the cluster was made.
        delays: Link delays of the entries that are appended now.
        reads: The reads that wait for a position.
        quorums: k, f, and what becomes of them.
        opened: Set once its epoch has begun, or never will.
        counted: Set once enough followers have counted for a write, or it leads no more.
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
        self._is_open = False
        self._decision = Decision(Standing.FORMING, "no follower was heard yet")
        k = settings.write_quorum
        self.quorums = Quorums(k, k, k)
        urls = settings.follower_urls
        self._self_url = settings.advertise_url
        if base is not None:
            self._decision = Decision(
                Standing.RECOVERING, f"epoch {self.epoch} is not on a majority of the nodes yet"
            )
            config = base.config
            self.quorums = Quorums(config.write_quorum, config.floor, config.wanted)
            self._self_url = own_url(config.members, settings.node_id, self._self_url)
            urls = tuple(one.url for one in config.members if one.url != self._self_url)
        self._needed = frozenset(needed) if needed is not None else None
        self.opened, self.counted = asyncio.Event(), asyncio.Event()
        self._voter_urls = set() if is_blank else {self._self_url}
        self.log = Log(settings.log_entries, settings.log_bytes, replica.log.start)
        self._fill_log()
        self._quorum = QuorumTracker(
            self.log, self.quorums.write_quorum, self._on_commit, self._on_stable
        )
        if base is None:
            self._quorum.commit_base()
        else:
            self._quorum.stable_seq = max(self._quorum.stable_seq, replica.settled_seq)
        self._waits = Waits(
            settings.request_timeout_s, MAX_WAITERS_PER_WRITE * settings.max_in_flight, now_ns
        )
        self.reads = PositionWaits(
            self._has_reached, settings.request_timeout_s, settings.max_in_flight
        )
        self._confirmations = Confirmations(self._ask_all)
        self.quorum_wait_ns = Histogram(TIME_BOUNDS_NS)
        self.batch_entries = Histogram(SIZE_BOUNDS)
        self._commits = replica.commits
        self._outbox: list[LogRecord] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._lowered: asyncio.Future[None] | None = None
        # Which rounds of questions the learners that are connected have to wait for.
        self._admissions: dict[int, int] = {}
        self._founders: set[int] = set()
        self.links = self._make_links(urls)
        self._decide()

    def _fill_log(self) -> None:
        """Takes over the entries of the base; they have no delays any more."""
        replica = self._replica
        for entry in replica.log.above(self.log.last_seq):
            record = LogRecord(entry, _encode_entry(entry), 0, _NO_DELAYS, 0, 0)
            record.committed = entry.seq <= replica.settled_seq
            self.log.append(record)
        replica.log.clear()

    def _make_links(self, urls: Sequence[str]) -> list[Link]:
        settings = self._settings
        config = LinkConfig(
            leader_id=settings.node_id,
            leader_url=settings.advertise_url,
            cluster_id=self._replica.meta.cluster_id,
            epoch=self.epoch,
            attempt=self._promise.attempt,
            token=settings.cluster_token,
            heartbeat_timeout_s=settings.heartbeat_timeout_s,
            reconnect_max_s=settings.reconnect_max_s,
        )
        return [Link(i, url, config, self) for i, url in enumerate(urls)]

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

    def abdicate(self, promised: int) -> list[asyncio.Task[None]]:
        """Leads no more, at once: nothing is committed, shown or sent from now on.

        Gives the log back to the replica. Writes that wait get an unknown outcome.

        Args:
            promised: The epoch for which it ends; 0 if only a base was not installed in time.

        Returns:
            The tasks of its links, which end.
        """
        self._decision = Decision(
            Standing.SUPERSEDED, f"this node led epoch {self.epoch}, and {promised} has begun"
        )
        self._is_open = False
        self.opened.set()
        self.counted.set()
        self._quorum.close()
        self._give_back()
        for task in self._tasks:
            task.cancel()
        self._waits.close(f"epoch {self.epoch} is over")
        self.reads.end()
        self._confirmations.end()
        if self._lowered is not None and not self._lowered.done():
            self._lowered.set_result(None)
        return self._tasks

    def _give_back(self) -> None:
        """Hands what it appended to the replica: all of it, committed or not."""
        replica, log = self._replica, self.log
        if self._outbox and self._commits is not None:
            # Not written yet: its flush is still to come, and would be one of another role.
            entries = [(one.entry.epoch, one.entry.seq, one.encoded) for one in self._outbox]
            self._commits.add(entries, lambda: None)
        self._outbox = []
        settled = self._quorum.stable_seq
        replica.held.advance(log.last_seq)
        replica.stable_seq = max(replica.stable_seq, settled)
        replica.settled_seq = max(replica.settled_seq, settled)
        replica.log.skip_to(log.first_seq - 1)
        for seq in range(log.first_seq, log.last_seq + 1):
            record = log.get(seq)
            if record is None:
                continue
            replica.log.extend((record.entry,))
            if not record.committed:
                replica.state.apply_unsettled(record.entry)

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
        if idempotency_key is not None and self._is_open:
            first = self._find_retried(operation, key, value, idempotency_key, changes)
            if first is not None:
                return first
        self._check_may_write()
        seq = self.log.last_seq + 1
        entry = Entry(self.epoch, seq, int(operation), key, value, idempotency_key, changes)
        if idempotency_key is not None:
            self.idempotency.remember(entry)
        return self._append(entry)

    def _append(self, entry: Entry) -> LogRecord:
        k = self._quorum.write_quorum
        record = LogRecord(entry, _encode_entry(entry), self.now_ns(), self.delays, k, k)
        self.log.append(record)
        self._quorum.begin(record, is_durable=self._commits is None)
        if not self._outbox:
            self._loop.call_soon(self._flush_soon)
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
        # What the log has dropped can never come again: its deletions need not be known.
        # Until they are folded, though, the disk still has what they delete.
        forgotten = self.log.first_seq - 1
        if self._commits is not None:
            self._make_durable(self._commits, records)
            forgotten = min(forgotten, self._commits.storage.meta.folded[1])
        self.state.forget_deletions(forgotten)

    def _make_durable(self, commits: GroupCommit, records: list[LogRecord]) -> None:
        last_seq = records[-1].entry.seq
        commits.fold_to = (self.epoch, self.stable_seq)
        entries = [(record.entry.epoch, record.entry.seq, record.encoded) for record in records]
        commits.add(entries, lambda: self._on_durable(last_seq))
        commits.commit()

    def _on_durable(self, seq: int) -> None:
        self._quorum.advance_durable(seq)
        if self.quorums.is_changing:
            self._go_on_changing()

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
        if welcome.node_id == self._settings.node_id:
            raise ChannelError(
                f"NODE_ID {welcome.node_id!r} is also that of its leader; give each node its own"
            )
        if link.incarnation not in {"", welcome.incarnation}:
            self._founders.discard(link.index)  # it has lost its data since
        self._forget(welcome.node_id)
        cluster_id = self._replica.meta.cluster_id
        holds_any = bool(welcome.cluster_id or welcome.contiguous or welcome.above)
        link.has_data = holds_any and welcome.cluster_id != cluster_id
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
                self._confirmations.forget(link.index)

    def on_connected(self, link: Link) -> None:
        """Asks whether this node still leads, before a learner may be let in.

        Also when another one connects for which a learner may have to wait.
        """
        if self._is_open and any(one.is_learner for one in self.links):
            number = self._confirmations.begin()
            if link.is_learner and not link.is_older_voter:
                self._admissions[link.index] = number

    def may_admit(self, link: Link) -> bool:
        """Tells if a learner that has caught up may be given the base: it is to count from then on.

        Nobody may have begun a newer epoch since it connected: it might have promised itself to
        that, and have forgotten it with its data. Those that were empty when the cluster was formed
        hold the base by that.
        """
        if not self._is_open:
            return False
        if link.index in self._founders:
            return True
        number = self._admissions.get(link.index)
        if number is None:
            return False
        followers = len(self.links)
        needed = confirmations_of(self.quorums.floor, followers)
        confirmations = self._confirmations
        return confirmations.voters(number) >= needed or confirmations.all(number) == followers

    def on_confirmed(self, link: Link, number: int) -> None:
        """Counts a follower's word that this node still leads."""
        self._confirmations.note(link.index, number, is_voter=not link.is_learner)
        for other in self.links:
            if other.is_learner:
                other.teach()

    def on_base_held(self, link: Link) -> None:
        """Counts a voter, a further one or again: the epoch may open, or k rise to the wanted."""
        self._founders.discard(link.index)
        self._voter_urls.add(link.url)
        self._try_open()
        if self._is_open:
            self._raise_again()
            if self.readiness().standing is Standing.OPEN:
                self.counted.set()

    def on_superseded(self, link: Link, promised: int) -> None:
        """Leads no more: a follower has promised itself to a newer epoch, or another attempt."""
        if self.base is None:  # there is a cluster already
            link.has_data = True
            self._decide()
        else:
            self._on_superseded(promised)

    def on_tried(self) -> None:
        """A follower was tried for the first time, in vain or not."""
        self._decide()

    def on_acknowledged(self, link: Link, ranges: Sequence[SeqRange]) -> None:
        """Counts what a follower acknowledged."""
        self._quorum.acknowledge(link.index, ranges)
        if self.quorums.is_changing:
            self._go_on_changing()

    def _ask_all(self, number: int) -> None:
        for link in self.links:
            link.ask(number)

    # --- opening ------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Forms a cluster when its followers allow it; once open it stays so."""
        is_over = self._decision.standing in {Standing.DRAINING, Standing.SUPERSEDED}
        if self._is_open or self.base is not None or is_over:
            return
        reports = {link.url: link.has_data for link in self.links}
        untried = sum(not link.is_tried for link in self.links)
        before = self._decision
        self._decision = decide(reports, self.write_quorum, untried=untried)
        if self._decision == before:
            return
        if self._decision.standing is Standing.RECOVERING:
            logger.error("writes are refused: %s", self._decision.reason)
            self._on_recovering()
        elif self._decision.standing is Standing.OPEN:
            self._form()

    def _form(self) -> None:
        """Makes the base of the first epoch; it is durable before it is told."""
        settings, k = self._settings, self.write_quorum
        names = {link.url: link.node_id or "" for link in self.links}
        members = [Member(settings.node_id, settings.advertise_url)]
        members += [Member(names[link.url], link.url) for link in self.links]
        config = Config(tuple(members), k, k, k)
        replica = self._replica
        self.quorums = Quorums(k, k, k)
        self.base = BaseRecord(
            self.epoch, settings.node_id, replica.meta.incarnation, config, self.log.last_seq
        )
        replica.save(promise=self._promise, base=self.base)
        self._founders = {link.index for link in self.links if link.has_data is False}
        self._open()

    def _try_open(self) -> None:
        """Begins to take writes once the base is on a majority of the electors."""
        base = self.base
        if base is None or self._is_open or self._decision.standing is not Standing.RECOVERING:
            return
        if self._needed is not None:
            is_enough = self._needed <= self._voter_urls | {self._self_url}
        else:
            is_enough = has_majority(base.config.members, self._voter_urls)
        if is_enough:
            self._open()

    def _open(self) -> None:
        """Begins to take writes, and to be read from: all of the base is committed."""
        self._is_open = True
        self._decision = Decision(Standing.OPEN)
        self._quorum.commit_base()
        logger.info("open for writes with k=%d in epoch %d", self.write_quorum, self.epoch)
        if self.epoch > FIRST_EPOCH:
            quorums = self.quorums
            self._record(Record(quorums.write_quorum, quorums.floor, quorums.wanted))
        self._on_open()
        self.opened.set()
        for link in self.links:
            if link.is_learner and link.is_connected:
                self.on_connected(link)
                link.teach()
        self._raise_again()
        if self.readiness().standing is Standing.OPEN:
            self.counted.set()

    # --- the write quorum ---------------------------------------------------------------------

    def _record(self, record: Record) -> LogRecord:
        """Appends a configuration: what the log says from here on."""
        members = self.base.config.members if self.base is not None else ()
        config = Config(members, record.write_quorum, record.floor, record.wanted)
        seq = self.log.last_seq + 1
        operation = int(Operation.CONFIG)
        return self._append(
            Entry(self.epoch, seq, operation, CONFIG_KEY, config_value(config), None)
        )

    def _raise_again(self) -> None:
        """Raises k to what was wanted as far as followers count again."""
        quorums = self.quorums
        counting = sum(link.counts for link in self.links)
        k = min(quorums.wanted, counting)
        if k > quorums.write_quorum and quorums.lowering is None:
            self.quorums, record = quorum_change.resume(quorums, k, self.log.last_seq + 1)
            self._quorum.set_write_quorum(k)
            self._record(record)
            logger.info("k=%d again, of %d that were asked for", k, quorums.wanted)

    def _go_on_changing(self) -> None:
        """Lets a change come into force once enough followers hold what it needs."""
        quorums = self.quorums
        if not self._is_open:
            return
        if quorums.lowering is not None:
            record = self.log.get(quorums.lowering.seq)
            acks = record.ack_count if record is not None else 0
            is_durable = self._quorum.durable_seq >= quorums.lowering.seq
            if is_durable and quorum_change.is_lowered(quorums, acks, len(self.links)):
                self.quorums, lowered = quorum_change.lower(quorums)
                self._quorum.set_write_quorum(lowered.write_quorum)
                self._record(lowered)
                if self._lowered is not None and not self._lowered.done():
                    self._lowered.set_result(None)
        elif quorums.raising is not None:
            seq = quorums.raising.seq
            holders = sum(link.counts and link.held.contiguous >= seq for link in self.links)
            if quorum_change.is_raised(quorums, holders):
                self.quorums, raised = quorum_change.raise_floor(quorums)
                self._record(raised)

    # --- control ------------------------------------------------------------------------------

    @property
    def write_quorum(self) -> int:
        """The k of the writes that begin now."""
        return self._quorum.write_quorum

    def set_delays(self, min_ms: float, max_ms: float) -> None:
        """Changes the range of the link delays, in ms, of all entries from now on."""
        self.delays = replace(self.delays, min_ms=min_ms, max_ms=max_ms)

    def set_write_quorum(self, write_quorum: int) -> LogRecord | None:
        """Begins to change k.

        Returns:
            The record of the change. None if there is none: k is that already, or the cluster is
            not formed yet.

        Raises:
            MalformedError: It is not from 0 to the number of followers.
            ChangeUnderWayError: k is being lowered.
        """
        if not 0 <= write_quorum <= len(self.links):
            raise MalformedError(
                f"write_quorum={write_quorum} must be from 0 to {len(self.links)}, "
                "the number of followers."
            )
        if self.base is None:
            self.quorums = Quorums(write_quorum, write_quorum, write_quorum)
            self._quorum.set_write_quorum(write_quorum)
            self._decide()
            return None
        if not self._is_open:
            self._check_may_write()
        if write_quorum == self.quorums.write_quorum == self.quorums.wanted:
            return None
        if self.quorums.lowering is not None:
            raise ChangeUnderWayError(
                f"The write quorum is being lowered to {self.quorums.lowering.write_quorum}, which "
                "more followers have to hear of; try again later."
            )
        self.quorums, record = quorum_change.ask(self.quorums, write_quorum, self.log.last_seq + 1)
        self._quorum.set_write_quorum(self.quorums.write_quorum)
        if self.quorums.lowering is not None:
            self._lowered = self._loop.create_future()
        appended = self._record(record)
        self._go_on_changing()
        return appended

    async def change_write_quorum(self, write_quorum: int) -> None:
        """Changes k, and waits until the change is in force and cannot be lost any more.

        Raises:
            MalformedError: It is not from 0 to the number of followers.
            ChangeUnderWayError: k is being lowered.
            OutcomeUnknownError: Too few followers answered in time: it may come into force later.
        """
        record = self.set_write_quorum(write_quorum)
        if record is None:
            return
        lowered = self._lowered
        if self.quorums.lowering is not None and lowered is not None:
            try:
                async with asyncio.timeout(self._settings.request_timeout_s):
                    await asyncio.shield(lowered)
            except TimeoutError:
                raise unknown(record, "too few followers heard of the change in time") from None
            if self._decision.standing is Standing.SUPERSEDED:
                raise unknown(record, f"epoch {self.epoch} is over")
        await self.wait_committed(record)

    async def confirm(self) -> None:
        """Waits until it is sure that no newer epoch had begun when this was called.

        Raises:
            NotConfirmedError: Too few followers confirmed it in time, or none can: f is 0.
        """
        followers, floor = len(self.links), self.quorums.floor
        if not self._is_open:
            raise NotConfirmedError(f"This node cannot tell if it leads: {self._decision.reason}.")
        if floor == 0 < followers:
            raise NotConfirmedError(
                "With a write quorum of 0 no follower has to know of a write, and so none can "
                "confirm the leader; raise it, or read without consistency=linearizable."
            )
        needed = confirmations_of(floor, followers)
        if not await self._confirmations.wait(needed, self._settings.request_timeout_s):
            raise NotConfirmedError(
                f"{needed} followers have to confirm that this node leads, and did not in time; "
                "bring followers back, or ask who leads."
            )

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
