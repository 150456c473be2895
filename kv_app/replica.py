"""What a node holds, whatever its role: its log, the versions, its promise and its base."""

import contextlib
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Final

import msgspec

from kv_app.errors import StorageError
from kv_app.group_commit import GroupCommit
from kv_app.log import EntryLog, HeldPositions
from kv_app.messages import Entry, Operation, RememberedWrite, Version
from kv_app.meta import NOWHERE, BaseRecord, Config, Meta, Position, Promise
from kv_app.quarantine import quarantine
from kv_app.recovery import recover
from kv_app.settings import Settings
from kv_app.staged import Staged
from kv_app.state import CONFIG_KEY
from kv_app.storage import Storage

logger = logging.getLogger("kv_app.replica")

_encode: Final = msgspec.msgpack.Encoder().encode
_encode_config: Final = msgspec.json.Encoder().encode
_decode_config: Final = msgspec.json.Decoder(Config).decode


class Replica:
    """What a node holds.

    Attributes:
        settings: What the node was told.
        meta: What it knows of itself; on its disk too, if it has one.
        state: The versions of all keys: of a leader those that are committed, of a follower all
            that it has applied.
        idempotency: The idempotency keys of all that.
        held: Which positions of the log it holds; not kept up while it leads.
        log: The entries themselves, but for old ones that are settled; not kept up while it leads.
        stable_seq: Everything at or below is committed, as the leader last said.
        settled_seq: Everything at or below is held and committed: the same in all later epochs.
        commits: The way of entries to the disk, if there is one.
    """

    def __init__(
        self,
        settings: Settings,
        meta: Meta,
        storage: Storage | None = None,
        on_failure: Callable[[StorageError], None] | None = None,
        executor: Executor | None = None,
    ) -> None:
        """Makes a replica of what the disk holds.

        Args:
            settings: What the node was told.
            meta: Of a node without a disk.
            storage: The node's database; without one all is in memory only.
            on_failure: Called when the disk fails, and must end the process.
            executor: Where large commits are synced; a thread of its own if not given.

        Raises:
            StorageError: The disk failed, or is damaged.
        """
        self.settings = settings
        self.meta = storage.meta if storage is not None else meta
        self.storage = storage
        self._on_failure = on_failure or _raise
        self.commits = None
        self._take_over(storage)
        if storage is not None:
            self.commits = GroupCommit(storage, self.idempotency, self._on_failure, executor)

    def _take_over(self, storage: Storage | None) -> None:
        settings = self.settings
        log = EntryLog(settings.log_entries, settings.log_bytes)
        found = recover(storage, settings.idempotency_keys, log)
        self.state, self.held = found.state, found.held
        self.idempotency, self.log = found.idempotency, found.log
        self.stable_seq, self.settled_seq = 0, self.log.start
        if storage is not None:
            self.note_stable(storage.meta.stable[1])

    # --- who it is, and where it stands ---------------------------------------------------------

    @property
    def promised(self) -> int:
        """The newest epoch that it promised itself to; 0 before the first."""
        return self.meta.promise.epoch if self.meta.promise is not None else 0

    @property
    def base_epoch(self) -> int:
        """The epoch whose base it holds; 0 makes it a learner."""
        return self.meta.base.epoch if self.meta.base is not None else 0

    @property
    def is_empty(self) -> bool:
        """True if it holds no entry, and no part of a snapshot either."""
        return self.held.max_seq == 0 and len(self.state) == 0

    def config(self) -> tuple[Config | None, Position]:
        """Returns the newest configuration that it holds, committed or not, and of which position.

        That of its base has no position of its own.
        """
        version = self.state.read(CONFIG_KEY)
        base = self.meta.base
        if version is not None and version.value is not None and version.epoch >= self.base_epoch:
            return _decode_config(version.value), (version.epoch, version.seq)
        return (base.config if base is not None else None), NOWHERE

    def save(self, **changes: Any) -> None:
        """Changes what it knows of itself, durably."""
        self.meta = msgspec.structs.replace(self.meta, **changes)
        if self.storage is not None:
            # The storage moves the fold on by itself.
            kept = self.storage.meta
            with self._ending():
                self.storage.save(
                    msgspec.structs.replace(
                        self.meta,
                        folded=kept.folded,
                        stable=kept.stable,
                        generation=kept.generation,
                    )
                )

    def join(self, cluster_id: str, promise: Promise, **changes: Any) -> None:
        """Promises something in a cluster, durably, along with other changes.

        If it was in another one, where it holds nothing, it begins another life: what it promised
        there is forgotten, and it may be a founder there.
        """
        if self.meta.cluster_id not in {"", cluster_id}:
            changes.setdefault("incarnation", secrets.token_hex(8))
        if self.is_empty:
            self.stable_seq = 0  # another log begins
        self.save(cluster_id=cluster_id, promise=promise, **changes)

    def leave(self) -> None:
        """Belongs to no cluster any more, durably; what it promised is forgotten with that life."""
        if self.meta.cluster_id:
            self.save(cluster_id="", promise=None, incarnation=secrets.token_hex(8))

    def fail(self, error: StorageError) -> None:
        """Ends the process."""
        self._on_failure(error)

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Ends the process if the disk fails: what it holds is not known any more."""
        try:
            yield
        except StorageError as error:
            self._on_failure(error)
            raise

    # --- taking entries -------------------------------------------------------------------------

    def take(self, entries: Iterable[Entry]) -> list[Entry]:
        """Applies entries of the log that it has the base of; returns the new ones."""
        add, apply, remember = self.held.add, self.state.apply_unsettled, self.idempotency.remember
        taken = [entry for entry in entries if add(entry.seq)]
        self.log.extend(taken)
        for entry in taken:
            apply(entry)
            if entry.idempotency_key is not None:
                remember(entry)
        return taken

    def make_durable(self, entries: Sequence[Entry], done: Callable[[], None]) -> bool:
        """Writes entries that were taken; returns True if there is no disk to wait for.

        Args:
            entries: New ones.
            done: Called when they, and all before them, are durable, if it returned False.
        """
        if self.commits is None:
            return True
        self.commits.add([(one.epoch, one.seq, _encode(one)) for one in entries], done)
        return False

    def note_stable(self, stable_seq: int) -> None:
        """Notes what is committed; below it, old entries and deletions need not be known apart."""
        self.stable_seq = max(self.stable_seq, stable_seq)
        settled = min(self.stable_seq, self.held.contiguous)
        if settled <= self.settled_seq:
            return
        if self.state.has_unsettled:
            self.state.settle(self.log.between(self.settled_seq + 1, settled))
        self.settled_seq = settled
        self.log.trim(settled)
        forgotten = settled - self.settings.log_entries
        if self.commits is not None:
            self.commits.fold_to = (self.promised, settled)
        if self.storage is not None:
            # Until a deletion is folded the disk still has what it deletes.
            forgotten = min(forgotten, self.storage.meta.folded[1])
        self.state.forget_deletions(forgotten)

    # --- a snapshot of the epoch that it has the base of, or of a learner's ----------------------

    def install(self, versions: dict[str, Version]) -> None:
        """Takes a part of a snapshot.

        The disk takes also what the state has already, from entries that the snapshot replaces.
        """
        for key, version in versions.items():
            self.state.install_settled(key, version)
        if self.storage is not None:
            self.storage.install(versions.items(), ())

    def drop_missing(self, bucket: int, present: set[str], position: int) -> None:
        """Removes from a bucket what a snapshot no longer has."""
        dropped = self.state.drop_missing(bucket, present, position)
        if self.storage is not None and dropped:
            self.storage.install((), dropped)

    def restore(self, writes: list[RememberedWrite]) -> None:
        """Takes idempotency keys of a snapshot."""
        for write in writes:
            self.idempotency.restore(write)
        if self.storage is not None:
            self.storage.remember(writes)

    def finish_snapshot(self, position: int) -> None:
        """Holds all that a snapshot covers; durable after the next sync."""
        if self.storage is not None and self.storage.meta.folded[1] < position:
            self.storage.finish_snapshot((self.promised, position))
        self.held.advance(position)
        self.note_stable(position)
        self.log.skip_to(position)

    # --- entering an epoch ----------------------------------------------------------------------

    def forget_all(self) -> None:
        """Drops what a learner holds, durably: it is another epoch's, and counted nowhere."""
        self._take_over(None)
        if self.commits is not None and self.storage is not None:
            self.commits.drop(self.idempotency)
            self.storage.stage_begin()
            self.storage.switch(
                msgspec.structs.replace(self.meta, folded=(0, 0), stable=(0, 0)),
                0,
                (),
                is_whole=True,
            )
            self.meta = self.storage.meta

    def stage(self, keep: int) -> Staged:
        """Begins to take what replaces all above a position, beside what there is."""
        return Staged(keep, self.settings.idempotency_keys, self.storage)

    def switch(
        self,
        staged: Staged,
        record: BaseRecord,
        promise: Promise,
        stable_seq: int,
        *,
        cluster_id: str | None = None,
    ) -> None:
        """Makes the log exactly what was staged, durably and in one step; drops the rest.

        What is dropped goes to a quarantine first.

        Args:
            staged: Holds all of the base.
            record: The base.
            promise: That of the epoch.
            stable_seq: Everything at or below is committed.
            cluster_id: Whose it is, if the node did not know.
        """
        if cluster_id is not None:
            self.meta = msgspec.structs.replace(self.meta, cluster_id=cluster_id)
        if staged.whole is None and staged.keep < self.settled_seq:
            # An epoch began by force: what is settled here need not be in it.
            staged.begin_snapshot()
        dropped = self._dropped(staged, record)
        if dropped:
            with self._ending():
                quarantine(self.settings.data_dir, self.meta.node_id, record.epoch, dropped)
        entries = sorted(staged.entries.values(), key=lambda entry: entry.seq)
        with self._ending():
            self._switch_disk(staged, record, promise, entries)
        if staged.whole is None:
            self.state.revert()
            for entry in dropped:
                self.idempotency.forget(entry)
            self.log.drop_above(staged.keep)
            self.held = HeldPositions(staged.keep)
        else:
            self.state, self.idempotency = staged.whole.state, staged.whole.idempotency
            self.log = EntryLog(self.settings.log_entries, self.settings.log_bytes)
            self.log.start = staged.whole.position
            self.held = HeldPositions(staged.whole.position)
        self.settled_seq = self.held.contiguous
        self.stable_seq = max(stable_seq, self.settled_seq)
        self.take(entries)
        self.note_stable(stable_seq)

    def _dropped(self, staged: Staged, record: BaseRecord) -> list[Entry]:
        """Returns what this replica holds, and will not after a switch; ascending.

        That is of what is not settled, and of all if an epoch has begun by force since: then also
        old versions of which the log has no entry any more, each as one.
        """
        is_forced = self.base_epoch < record.forced
        older: list[Entry] = []
        if is_forced:
            for key, version in self.state.older(self.log.start):
                operation = Operation.DELETE if version.value is None else Operation.PUT
                older.append(Entry(version.epoch, version.seq, operation, key, version.value, None))
        older.sort(key=lambda entry: entry.seq)
        held = self.log.above(0 if is_forced else self.settled_seq)
        return [entry for entry in (*older, *held) if not staged.shows(entry, record)]

    def _switch_disk(
        self, staged: Staged, record: BaseRecord, promise: Promise, entries: Sequence[Entry]
    ) -> None:
        meta = msgspec.structs.replace(self.meta, base=record, promise=promise)
        storage, commits = self.storage, self.commits
        if storage is None or commits is None:
            self.meta = meta
            return
        kept = storage.meta
        folded, above = kept.folded, staged.keep
        stable = (kept.stable[0], min(kept.stable[1], staged.keep))
        if staged.whole is not None:
            above = 0
            folded = stable = (record.epoch, staged.whole.position)
        # What the old epoch's channels still had on its way to the disk must not come after this.
        commits.drop(staged.whole.idempotency if staged.whole is not None else None)
        storage.switch(
            msgspec.structs.replace(meta, folded=folded, stable=stable),
            above,
            [(entry.epoch, entry.seq, _encode(entry)) for entry in entries],
            is_whole=staged.whole is not None,
        )
        self.meta = storage.meta


def config_value(config: Config) -> str:
    """Returns a configuration as the value of its record in the log."""
    return _encode_config(config).decode()


def _raise(error: StorageError) -> None:
    raise error
