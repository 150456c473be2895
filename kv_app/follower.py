"""A follower: takes entries from its leader's channel, applies and acknowledges them."""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import Receive, Send

from kv_app.bounds import MAX_SEQ
from kv_app.errors import ChannelError, ProtocolViolationError, StorageError, SupersededError
from kv_app.failover.promises import allows
from kv_app.formation import Decision, Standing
from kv_app.group_commit import GroupCommit
from kv_app.log import HeldPositions, IdempotencyIndex
from kv_app.messages import (
    PROTOCOL_VERSION,
    Base,
    Entry,
    Hello,
    RememberedWrite,
    Version,
    Welcome,
)
from kv_app.meta import Promise
from kv_app.metrics import SIZE_BOUNDS, Histogram
from kv_app.peer_checks import check_base, is_sound
from kv_app.position_waits import PositionWaits
from kv_app.replica import Replica
from kv_app.session import Session
from kv_app.state import State

if TYPE_CHECKING:
    from kv_app.staged import Staged

# What waits for a slow disk; past it the follower does not read until a sync has ended.
MAX_UNSYNCED_BYTES = 8 << 20


class Follower:
    """A replica that follows one leader at a time, or waits for one.

    Attributes:
        replica: What it holds.
        leader_url: Where the leader said that clients reach it.
        reads: The reads that wait for a position.
        batch_entries: How many entries came in one message.
    """

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.leader_url: str | None = None
        settings = replica.settings
        self.reads = PositionWaits(
            self._has_reached, settings.request_timeout_s, settings.max_in_flight
        )
        self.batch_entries = Histogram(SIZE_BOUNDS)
        self._settings = settings
        self._session: Session | None = None
        # The leader of a cluster that is still to be made: nothing is promised to it.
        self._visitor: Hello | None = None
        # The incarnation that this node will have in that cluster.
        self._life_there = ""
        self._staged: Staged | None = None
        self._staged_stable = 0
        self._caught_up_at = 0

    @property
    def state(self) -> State:
        """Everything that it has applied, committed or not."""
        return self.replica.state

    @property
    def held(self) -> HeldPositions:
        """Which positions it holds."""
        return self.replica.held

    @property
    def idempotency(self) -> IdempotencyIndex:
        """The idempotency keys of all that."""
        return self.replica.idempotency

    @property
    def epoch(self) -> int:
        """The epoch that it follows, or has promised itself to; 0 before the first."""
        return self.replica.promised

    @property
    def base_epoch(self) -> int:
        """The epoch whose base it holds; 0 makes it a learner."""
        return self.replica.base_epoch

    @property
    def stable_seq(self) -> int:
        """Everything at or below is committed, as the leader last said."""
        return self.replica.stable_seq

    @property
    def commits(self) -> GroupCommit | None:
        """The way of entries to the disk, if there is one."""
        return self.replica.commits

    @property
    def is_empty(self) -> bool:
        """True if it holds nothing of any cluster."""
        return self.replica.is_empty and self.replica.meta.base is None

    @property
    def is_led(self) -> bool:
        """True while a leader has a channel to it."""
        return self._session is not None

    async def serve(self, receive: Receive, send: Send) -> None:
        """Serves one replication channel (an accepted ASGI WebSocket) until it ends."""
        silence_s = self._settings.heartbeat_timeout_s
        await Session(lambda _: self, receive, send, silence_s).serve()

    async def stop(self) -> None:
        """Makes durable what was taken last."""
        if self.commits is not None:
            await self.commits.close()

    def leave(self, session: Session) -> None:
        """A session has ended."""
        if self._session is session:
            self._session = self._visitor = None

    def release(self, promised: int, cluster_id: str) -> None:
        """Ends the channel of its leader: another epoch was promised in a cluster."""
        if self._session is not None:
            self._session.supersede(promised, cluster_id)
            self._session = None
        self._staged = self._visitor = None

    # --- following ----------------------------------------------------------------------------

    def follow(self, session: Session, hello: Hello) -> None:
        """Decides whether to follow a leader.

        Of one whose cluster is still to be made nothing is kept: it may be gone before that, and
        another one come.

        Raises:
            ChannelError: This replica will not follow it, and why.
        """
        check_hello(hello)
        meta = self.replica.meta
        is_member = hello.cluster_id == meta.cluster_id
        is_back = self._visitor is not None and hello.cluster_id == self._visitor.cluster_id
        is_guest = self._visitor is not None and hello.is_formed
        if self._session is not None and not (is_member or is_back or is_guest):
            raise SupersededError(
                f"this node follows {self.leader_url}", self.epoch, meta.cluster_id
            )
        wanted = promise_of(hello)
        if is_member and not allows(meta.promise, wanted):
            raise superseded(hello, self.epoch)
        if not (is_member or self.is_empty):
            raise SupersededError(
                "this node holds the entries of another cluster, and keeps them",
                self.epoch,
                meta.cluster_id,
            )
        if self._session is not None:
            self._session.replace()
        self._session = session
        self._visitor = None
        if hello.is_formed:
            self._adopt(hello, wanted)
        else:
            self._visitor = hello
            # What it has promised to the cluster that it was in is not to be forgotten yet.
            self._life_there = secrets.token_hex(8) if meta.cluster_id else meta.incarnation
        self.leader_url = hello.leader_url
        self._caught_up_at = hello.last_seq

    def _adopt(self, hello: Hello, wanted: Promise, **changes: str) -> None:
        """Follows a leader from now on; the promise is durable before the answer."""
        self._staged = None
        meta = self.replica.meta
        learned = hello.epoch if self.is_empty else meta.learned
        before = (meta.cluster_id, meta.promise, meta.learned)
        if before != (hello.cluster_id, wanted, learned):
            self.replica.join(hello.cluster_id, wanted, learned=learned, **changes)

    async def flush(self) -> None:
        """Makes durable all that was taken so far."""
        if self.commits is not None:
            await self.commits.flush()

    def fail(self, error: StorageError) -> None:
        """Ends the process: what the disk holds is not known any more."""
        self.replica.fail(error)

    def welcome(self) -> Welcome:
        """Returns what a leader is to know of it; all of that is durable after ``flush``."""
        replica = self.replica
        return Welcome(
            node_id=self._settings.node_id,
            start_id=self._settings.start_id,
            cluster_id="" if self.is_empty else replica.meta.cluster_id,
            epoch=0 if replica.is_empty else self.base_epoch or replica.meta.learned,
            contiguous=self.held.contiguous,
            above=self.held.ranges_above(),
            incarnation=self._life_there if self._visitor else replica.meta.incarnation,
            base_epoch=self.base_epoch,
            is_durable=replica.storage is not None,
            settled=replica.settled_seq,
        )

    def replace(self, keep: int) -> None:
        """Begins to take what replaces all above a position; a voter keeps what it has meanwhile.

        Raises:
            ProtocolViolationError: It does not know the same up to there in every epoch.
        """
        if self.base_epoch == self.epoch:
            raise ProtocolViolationError(f"epoch {self.epoch} replaced by itself")
        if not 0 <= keep <= self.replica.settled_seq:
            raise ProtocolViolationError(
                f"all above {keep} to be replaced, of {self.replica.settled_seq} that are settled"
            )
        self._staged_stable = 0
        if self.base_epoch:
            self._staged = self.replica.stage(keep)
        else:
            self.replica.forget_all()
            self.replica.save(learned=self.epoch)

    def hold_base(self, base: Base) -> bool:
        """Becomes a voter, durably; returns False if that was meant for an earlier life of it.

        Raises:
            ProtocolViolationError: It is the base of another epoch, or not all of it has come.
            ChannelError: It has begun another life since it was heard.
        """
        if self._visitor is not None:
            self._join(self._visitor, base)
        record, replica, promise = base.record, self.replica, self.replica.meta.promise
        if record.epoch != self.epoch or promise is None:
            raise ProtocolViolationError(f"a base of epoch {record.epoch} in epoch {self.epoch}")
        check_base(record)
        if base.incarnation != replica.meta.incarnation:
            return False
        if self.base_epoch == record.epoch:
            return True
        held = self._staged.held if self._staged is not None else self.held
        if held.contiguous < record.position:
            raise ProtocolViolationError(
                f"a base up to {record.position} of which {held.contiguous} have come"
            )
        if self._staged is not None:
            staged, self._staged = self._staged, None
            replica.switch(staged, record, promise, self._staged_stable)
        elif self.base_epoch:
            raise ProtocolViolationError("a base for a voter of an older one, without its entries")
        else:
            replica.save(base=record)
        self.reads.check_all()
        return True

    def _join(self, visitor: Hello, base: Base) -> None:
        """Belongs from now on to the cluster that its visitor has made of it."""
        if base.incarnation != self._life_there or not self.is_empty:
            raise ChannelError("this node is not what it was when the cluster was made")
        self._visitor = None
        self._adopt(visitor, promise_of(visitor), incarnation=self._life_there)

    def is_followed(self, session: Session) -> bool:
        """Tells if a channel is the one whose entries this replica takes."""
        return self._session is session

    # --- taking -------------------------------------------------------------------------------

    def take(self, entries: list[Entry], stable_seq: int, done: Callable[[], None]) -> bool:
        """Applies entries; they may be acknowledged at once if it returns True.

        What comes to replace older contents is acknowledged as well, but counts only once the base
        is held.

        Args:
            entries: Of this epoch or of its base, in any order, again or not.
            stable_seq: Everything at or below is committed.
            done: Called when they are durable, if it returned False.

        Raises:
            ProtocolViolationError: An entry cannot be of this epoch's log; none of them is applied.
        """
        self._check(entries)
        self.batch_entries.observe(len(entries))
        if self._staged is not None:
            self._staged.take(entries)
            self.note_stable(stable_seq)
            return True
        replica = self.replica
        taken = replica.take(entries)
        if self.reads.waiting:
            for entry in taken:
                self.reads.arrived(entry)
        replica.note_stable(stable_seq)
        return replica.make_durable(taken, done)

    def _check(self, entries: list[Entry]) -> None:
        epoch, base = self.epoch, self.replica.meta.base
        # Of what it does not hold the base of, it does not know where the base ends.
        position = base.position if base is not None and base.epoch == epoch else MAX_SEQ
        for entry in entries:
            is_of_epoch = entry.epoch == epoch or (
                1 <= entry.epoch < epoch and entry.seq <= position
            )
            if not is_of_epoch or not is_sound(entry):
                raise ProtocolViolationError(
                    f"an entry of epoch {entry.epoch}, seq {entry.seq}, operation "
                    f"{entry.operation} cannot be taken in epoch {epoch}"
                )

    @property
    def is_behind(self) -> bool:
        """True while so much waits for the disk that no more should be taken."""
        commits = self.commits
        return commits is not None and commits.unsynced_bytes > MAX_UNSYNCED_BYTES

    def note_stable(self, stable_seq: int) -> None:
        """Notes what is committed; there is nothing in a cluster that is still to be made."""
        if self._visitor is not None:
            return
        if self._staged is not None:
            self._staged_stable = max(self._staged_stable, stable_seq)
        else:
            self.replica.note_stable(stable_seq)

    def begin_snapshot(self) -> None:
        """A snapshot follows.

        Raises:
            ProtocolViolationError: The cluster was still to be made when its leader said hello.
        """
        if self._visitor is not None:
            raise ProtocolViolationError("a snapshot before the base of the first epoch")
        if self._staged is not None:
            self._staged.begin_snapshot()

    def install(self, versions: dict[str, Version]) -> None:
        """Takes a part of a snapshot."""
        if self._staged is not None:
            self._staged.install(versions)
            return
        self.replica.install(versions)
        if self.reads.waiting:
            self.reads.check(versions)

    def drop_missing(self, bucket: int, present: set[str], stable_seq: int) -> None:
        """Removes from a bucket what a snapshot no longer has."""
        if self._staged is None:
            self.replica.drop_missing(bucket, present, stable_seq)

    def restore(self, writes: list[RememberedWrite]) -> None:
        """Takes idempotency keys of a snapshot."""
        (self._staged or self.replica).restore(writes)

    def finish_snapshot(self, stable_seq: int, done: Callable[[], None]) -> bool:
        """Holds all that a snapshot covers; returns and calls ``done`` as ``take`` does."""
        if self._staged is not None:
            self._staged.finish_snapshot(stable_seq)
            self.note_stable(stable_seq)
            return True
        self.replica.finish_snapshot(stable_seq)
        self.reads.check_all()
        return self.replica.make_durable((), done)

    def _has_reached(self, key: str, epoch: int, seq: int) -> bool:
        """Tells if a read of a key can show what was committed at a position, or something newer.

        A base holds all that was committed in earlier epochs. Without the base of an epoch, what is
        held at a position may be another epoch's.
        """
        version = self.state.read(key)
        if version is not None and (version.epoch, version.seq) >= (epoch, seq):
            return True
        return self.base_epoch > epoch or (self.base_epoch == epoch and self.held.holds(seq))

    def readiness(self) -> Decision:
        """Returns ``OPEN`` if it follows a leader and holds all that there was when it began to."""
        if self._session is None:
            return Decision(Standing.NO_LEADER, "no leader has a channel to this node")
        if self._staged is not None or self.held.contiguous < self._caught_up_at:
            return Decision(
                Standing.CATCHING_UP,
                f"it holds everything up to {self.held.contiguous} of {self._caught_up_at}",
            )
        return Decision(Standing.OPEN)


def check_hello(hello: Hello) -> None:
    """Checks what a leader says of itself.

    Raises:
        ChannelError: It speaks another version of the protocol, or leads an epoch that is none.
    """
    if hello.protocol != PROTOCOL_VERSION:
        raise ChannelError(
            f"this node speaks version {PROTOCOL_VERSION} of the protocol, not {hello.protocol}"
        )
    if hello.epoch < 1:
        raise ChannelError(f"epoch {hello.epoch} is none; the first is 1")


def promise_of(hello: Hello) -> Promise:
    """Returns what a leader wants a node to promise."""
    return Promise(hello.epoch, hello.leader_id, hello.attempt)


def superseded(hello: Hello, promised: int) -> SupersededError:
    """Returns the error of a leader of this cluster whose epoch is over, or another's."""
    if promised == hello.epoch:
        why = f"epoch {hello.epoch} is another attempt's"
    else:
        why = f"epoch {hello.epoch} is over, this node is in {promised}"
    return SupersededError(why, promised, hello.cluster_id)
