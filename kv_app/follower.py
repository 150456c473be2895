"""A follower: takes entries from its leader's channel, applies and acknowledges them."""

import secrets
from collections.abc import Callable

import msgspec
from starlette.types import Receive, Send

from kv_app.errors import ChannelError, ProtocolViolationError, StorageError
from kv_app.formation import Decision, Standing
from kv_app.group_commit import GroupCommit
from kv_app.messages import (
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    MAX_SEQ,
    PROTOCOL_VERSION,
    Base,
    Entry,
    Hello,
    Operation,
    RememberedWrite,
    Version,
    Welcome,
)
from kv_app.meta import BaseRecord, Promise
from kv_app.metrics import SIZE_BOUNDS, Histogram
from kv_app.position_waits import PositionWaits
from kv_app.recovery import recover
from kv_app.session import Session
from kv_app.settings import Settings
from kv_app.storage import Storage

_encode = msgspec.msgpack.Encoder().encode
# What waits for a slow disk; past it the follower does not read until a sync has ended.
MAX_UNSYNCED_BYTES = 8 << 20
_OPERATIONS = frozenset(int(operation) for operation in Operation)


class Follower:
    """A replica that follows one leader at a time.

    Attributes:
        state: Everything that it has applied, committed or not.
        held: Which positions it holds.
        idempotency: The idempotency keys of all that.
        cluster_id: The cluster whose entries it holds; empty before it followed anyone.
        epoch: The epoch that it follows; 0 before the first.
        base_epoch: The epoch whose base it holds; 0 makes it a learner.
        stable_seq: Everything at or below is committed, as the leader last said.
        leader_url: Where the leader said that clients reach it.
        reads: The reads that wait for a position.
        batch_entries: How many entries came in one message.
    """

    def __init__(
        self,
        settings: Settings,
        storage: Storage | None = None,
        *,
        on_failure: Callable[[StorageError], None] | None = None,
    ) -> None:
        """Makes a follower of what its disk holds.

        Args:
            settings: What the node was told.
            storage: The node's database; without one all is in memory only.
            on_failure: Called when the disk fails, and must end the process.

        Raises:
            StorageError: The disk failed, or is damaged.
        """
        recovered = recover(storage, settings.idempotency_keys)
        self.state, self.held = recovered.state, recovered.held
        self.idempotency = recovered.idempotency
        self.cluster_id, self.epoch, self.base_epoch, self.stable_seq = "", 0, 0, 0
        self.leader_url: str | None = None
        self._incarnation = secrets.token_hex(8)
        self.reads = PositionWaits(
            self._has_reached, settings.request_timeout_s, settings.max_in_flight
        )
        self.batch_entries = Histogram(SIZE_BOUNDS)
        self._settings = settings
        self._storage = storage
        self._commits: GroupCommit | None = None
        self._session: Session | None = None
        self._caught_up_at = 0
        if storage is not None:
            self._commits = GroupCommit(storage, self.idempotency, on_failure or _raise)
            self._remember(storage)

    def _remember(self, storage: Storage) -> None:
        """Takes over what the disk says of this node."""
        meta = storage.meta
        self.cluster_id, self._incarnation = meta.cluster_id, meta.incarnation
        self.epoch = meta.promise.epoch if meta.promise is not None else 0
        self.base_epoch = meta.base.epoch if meta.base is not None else 0
        self.stable_seq = meta.stable[1]

    @property
    def commits(self) -> GroupCommit | None:
        """The way of entries to the disk, if there is one."""
        return self._commits

    @property
    def is_empty(self) -> bool:
        """True if it holds no entry, and no part of a snapshot either."""
        return self.held.max_seq == 0 and len(self.state) == 0

    async def serve(self, receive: Receive, send: Send) -> None:
        """Serves one replication channel (an accepted ASGI WebSocket) until it ends."""
        session = Session(self, receive, send, self._settings.heartbeat_timeout_s)
        try:
            await session.run()
        except OSError:
            pass  # the leader has ended the channel
        except ProtocolViolationError as error:
            await session.close(CLOSE_PROTOCOL, str(error))
        except ChannelError as error:
            await session.close(CLOSE_REFUSED, str(error))
        finally:
            if self._session is session:
                self._session = None

    async def stop(self) -> None:
        """Makes durable what was taken last."""
        if self._commits is not None:
            await self._commits.close()

    # --- following ----------------------------------------------------------------------------

    def follow(self, session: Session, hello: Hello) -> Welcome:
        """Decides whether to follow a leader, and returns what it is to know.

        Raises:
            ChannelError: This replica will not follow it, and why.
        """
        if hello.protocol != PROTOCOL_VERSION:
            raise ChannelError(
                f"this node speaks version {PROTOCOL_VERSION} of the protocol, not {hello.protocol}"
            )
        if not 1 <= hello.epoch <= MAX_SEQ:
            raise ChannelError(f"epoch {hello.epoch} is none; the first is 1")
        is_same = hello.cluster_id == self.cluster_id
        if not is_same and self._session is not None:
            raise ChannelError(f"this node follows {self.leader_url}")
        if is_same and hello.epoch < self.epoch:
            raise ChannelError(f"epoch {hello.epoch} is over, this node is in {self.epoch}")
        if is_same or self.is_empty:
            if self._session is not None:
                self._session.replace()
            self._session = session
            self._adopt(hello)
        return self._welcome()

    def _adopt(self, hello: Hello) -> None:
        """Follows a leader from now on; the promise is durable before the answer."""
        if (hello.cluster_id, hello.epoch) != (self.cluster_id, self.epoch):
            if hello.cluster_id != self.cluster_id:
                self.base_epoch = 0
            self.cluster_id, self.epoch = hello.cluster_id, hello.epoch
            self._save(promise=Promise(hello.epoch, hello.leader_id))
        self.leader_url = hello.leader_url
        self._caught_up_at = hello.last_seq

    def _save(self, *, promise: Promise | None = None, base: BaseRecord | None = None) -> None:
        storage = self._storage
        if storage is None:
            return
        kept = storage.meta.base if self.base_epoch else None
        storage.save(
            msgspec.structs.replace(
                storage.meta,
                cluster_id=self.cluster_id,
                promise=promise or storage.meta.promise,
                base=base or kept,
            )
        )

    def _welcome(self) -> Welcome:
        return Welcome(
            node_id=self._settings.node_id,
            start_id=self._settings.start_id,
            cluster_id="" if self.is_empty else self.cluster_id,
            epoch=0 if self.is_empty else self.epoch,
            contiguous=self.held.contiguous,
            above=self.held.ranges_above(),
            incarnation=self._incarnation,
            base_epoch=self.base_epoch,
            is_durable=self._storage is not None,
        )

    def hold_base(self, base: Base) -> bool:
        """Becomes a voter, durably; returns False if that was meant for an earlier life of it.

        Raises:
            ProtocolViolationError: It is the base of another epoch.
        """
        if base.epoch != self.epoch:
            raise ProtocolViolationError(f"a base of epoch {base.epoch} in epoch {self.epoch}")
        if base.incarnation != self._incarnation:
            return False
        if self.base_epoch != base.epoch:
            self.base_epoch = base.epoch
            self._save(base=BaseRecord(base.epoch, leader_id=""))
            self.reads.check_all()
        return True

    def is_followed(self, session: Session) -> bool:
        """Tells if a channel is the one whose entries this replica takes."""
        return self._session is session

    # --- taking -------------------------------------------------------------------------------

    def take(self, entries: list[Entry], stable_seq: int, done: Callable[[], None]) -> bool:
        """Applies entries; they may be acknowledged at once if it returns True.

        Args:
            entries: Of this epoch, in any order, again or not.
            stable_seq: Everything at or below is committed.
            done: Called when they are durable, if it returned False.

        Raises:
            ProtocolViolationError: An entry is not one of this epoch; none of them is applied.
        """
        for entry in entries:
            if (
                entry.epoch != self.epoch
                or not 1 <= entry.seq <= MAX_SEQ
                or entry.operation not in _OPERATIONS
            ):
                raise ProtocolViolationError(
                    f"an entry of epoch {entry.epoch}, seq {entry.seq}, operation "
                    f"{entry.operation} cannot be taken in epoch {self.epoch}"
                )
        self.batch_entries.observe(len(entries))
        taken = [entry for entry in entries if self.held.add(entry.seq)]
        for entry in taken:
            self.state.apply(entry)
            self.idempotency.remember(entry)
            if self.reads.waiting:
                self.reads.arrived(entry)
        self.note_stable(stable_seq)
        if self._commits is None:
            return True
        self._commits.add([(one.epoch, one.seq, _encode(one)) for one in taken], done)
        return False

    @property
    def is_behind(self) -> bool:
        """True while so much waits for the disk that no more should be taken."""
        return self._commits is not None and self._commits.unsynced_bytes > MAX_UNSYNCED_BYTES

    def note_stable(self, stable_seq: int) -> None:
        """Notes what is committed; below it, old entries and deletions need not be known apart."""
        self.stable_seq = max(self.stable_seq, stable_seq)
        whole = min(self.stable_seq, self.held.contiguous)
        forgotten = whole - self._settings.log_entries
        if self._commits is not None:
            self._commits.fold_to = (self.epoch, whole)
            # Until a deletion is folded the disk still has what it deletes.
            forgotten = min(forgotten, self._commits.storage.meta.folded[1])
        self.state.forget_deletions(self.epoch, forgotten)

    def install(self, versions: dict[str, Version]) -> None:
        """Takes a part of a snapshot.

        The disk takes also what the state has already, from entries that the snapshot replaces.
        """
        for key, version in versions.items():
            self.state.install(key, version)
        if self.reads.waiting:
            self.reads.check(versions)
        if self._storage is not None:
            self._storage.install(versions.items(), ())

    def drop_missing(self, bucket: int, present: set[str], stable_seq: int) -> None:
        """Removes from a bucket what a snapshot no longer has."""
        dropped = self.state.drop_missing(bucket, present, self.epoch, stable_seq)
        if self._storage is not None and dropped:
            self._storage.install((), dropped)

    def restore(self, writes: list[RememberedWrite]) -> None:
        """Takes idempotency keys of a snapshot."""
        for write in writes:
            self.idempotency.restore(write)
        if self._storage is not None:
            self._storage.remember(writes)

    def finish_snapshot(self, stable_seq: int, done: Callable[[], None]) -> bool:
        """Holds all that a snapshot covers; returns and calls ``done`` as ``take`` does."""
        self.held.advance(stable_seq)
        self.reads.check_all()
        if self._storage is not None and self._storage.meta.folded < (self.epoch, stable_seq):
            self._storage.finish_snapshot((self.epoch, stable_seq))
        self.note_stable(stable_seq)
        if self._commits is None:
            return True
        self._commits.add((), done)
        return False

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
        if self.held.contiguous < self._caught_up_at:
            return Decision(
                Standing.CATCHING_UP,
                f"it holds everything up to {self.held.contiguous} of {self._caught_up_at}",
            )
        return Decision(Standing.OPEN)


def _raise(error: StorageError) -> None:
    raise error
