"""What a node keeps on its disk: one RocksDB database in ``DATA_DIR/store``.

It holds the log's entries that are not folded yet, the versions of all keys at or below the fold,
the idempotency keys that outlive their entries, and one record about the node itself. An append is
one write to RocksDB's own log, whose records have checksums; a sync makes all that was written
before it durable. Folding moves entries into the versions, so that the disk does not grow with the
number of writes. ``docs/durability.md`` describes the format.
"""

import contextlib
import re
import secrets
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBRecoveryMode,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from kv_app import wal
from kv_app.errors import StorageError
from kv_app.folders import make_private_folder, sync_folder
from kv_app.log import fingerprint_of
from kv_app.messages import Entry, Operation, RememberedWrite, Version
from kv_app.meta import FORMAT, Meta, Position, Role

FOLDER: Final = "store"
MIB: Final = 1 << 20
WRITE_BUFFER_BYTES: Final = 16 * MIB
MAX_WAL_BYTES: Final = 64 * MIB
BLOCK_CACHE_BYTES: Final = 8 * MIB
MAX_OPEN_FILES: Final = 256
BACKGROUND_JOBS: Final = 2
KEPT_ENGINE_LOGS: Final = 2
# The engine's list of its files is begun anew past this size; it is checked at every start.
MAX_MANIFEST_BYTES: Final = MIB
# A fold costs some writes of its own, so it moves at least so many operations.
MIN_FOLD: Final = 64
# It holds up all requests, so after so many operations it ends with the entry that it is at.
MAX_FOLD: Final = 512

# What the engine makes in a folder of its own.
_ENGINE_FILE: Final = re.compile(
    r"CURRENT|IDENTITY|LOCK|LOG(\.old\.[0-9]+)?|(MANIFEST|OPTIONS)-[0-9]+(\.dbtmp)?"
    r"|[0-9]+\.(log|sst|dbtmp)|rocksdict-config\.json"
)
_META: Final = b"M"
_LOG: Final = b"L"
# Of two generations each: a base that comes whole is written beside what there is.
_REMEMBERED: Final = (b"R", b"S")
_VERSION: Final = (b"V", b"W")
_SEQ: Final = struct.Struct(">cQ")
_POSITION: Final = struct.Struct(">cQQ")

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_version = msgspec.msgpack.Decoder(Version).decode
_decode_remembered = msgspec.msgpack.Decoder(RememberedWrite).decode


_decode_meta = msgspec.msgpack.Decoder(Meta).decode


class Storage:
    """A node's database. All calls are made in one thread, but for ``sync``.

    Attributes:
        meta: What was written of the node last.
        notice: What was found and repaired when it was opened; empty if nothing was.

    Every method raises ``StorageError`` if the disk fails; the node must end then, since what the
    disk holds is not known any more.
    """

    def __init__(self, database: Rdict, meta: Meta, notice: str = "") -> None:
        self.meta = meta
        self.notice = notice
        self._database = database
        self._unsynced = WriteOptions()
        self._is_installing = False

    # --- reading, at the start ----------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Yields the log's entries above the fold, ascending by position."""
        with _failing("read"):
            for _, value in self._scan(_after(self.meta.folded[1]), _next(_LOG)):
                yield _decode_entry(value)

    def versions(self) -> Iterator[tuple[str, Version]]:
        """Yields every key that has a value at the fold, with its version."""
        with _failing("read"):
            prefix = _VERSION[self.meta.generation]
            for key, value in self._scan(prefix, _next(prefix)):
                yield key[1:].decode(), _decode_version(value)

    def remembered(self) -> Iterator[RememberedWrite]:
        """Yields the writes whose idempotency keys outlived their entries, oldest first."""
        with _failing("read"):
            prefix = _REMEMBERED[self.meta.generation]
            for _, value in self._scan(prefix, _next(prefix)):
                yield _decode_remembered(value)

    def _scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        iterator = self._database.iter()
        iterator.seek(first)
        while iterator.valid() and iterator.key() < end:
            yield iterator.key(), iterator.value()
            iterator.next()
        iterator.status()  # an iterator also ends where a block is damaged

    # --- writing ------------------------------------------------------------------------------

    def append(self, entries: Iterable[tuple[int, int, bytes]]) -> None:
        """Writes entries, as (epoch, seq, encoded); durable after the next ``sync``."""
        batch = WriteBatch(raw_mode=True)
        for _, seq, encoded in entries:
            batch.put(_SEQ.pack(_LOG, seq), encoded)
        self._write(batch)

    def sync(self) -> None:
        """Makes durable all that was written before. Lets other threads run meanwhile."""
        with _failing("sync"):
            self._database.flush_wal(sync=True)

    def save(self, meta: Meta) -> None:
        """Replaces what is known of the node, durably."""
        batch = WriteBatch(raw_mode=True)
        self._put_meta(batch, meta)
        self._write(batch)
        self.sync()

    def fold(self, upto: Position, stable: Position, entries: int) -> Position:
        """Moves the oldest entries into the versions; durable after the next ``sync``.

        Not while a snapshot comes in, whose versions are newer, and which makes them needless.

        Args:
            upto: Entries above stay. Everything at or below must be committed; what was not
                appended yet, and all behind it, stays too.
            stable: Everything at or below is committed.
            entries: Moves so many, more if they are small, or fewer if they are many.

        Returns:
            The fold's new position: that of the last entry that was moved.
        """
        if self._is_installing:
            return self.meta.folded
        batch = WriteBatch(raw_mode=True)
        with _failing("read"):
            reached = self._fold_into(batch, upto, entries)
        if reached[1] > self.meta.folded[1]:
            batch.delete_range(_after(self.meta.folded[1]), _after(reached[1]))
            self._put_meta(batch, msgspec.structs.replace(self.meta, folded=reached, stable=stable))
            self._write(batch)
        return reached

    def _fold_into(self, batch: WriteBatch, upto: Position, entries: int) -> Position:
        """Adds to a batch what the oldest entries leave behind; returns the fold's new position."""
        reached, operations = self.meta.folded, 0
        oldest = self._scan(_after(reached[1]), _after(upto[1]))
        for moved, (_, value) in enumerate(oldest, 1):
            entry = _decode_entry(value)
            if entry.seq != reached[1] + 1:
                break
            _fold_entry(batch, entry, self.meta.generation)
            reached = (entry.epoch, entry.seq)
            operations += max(1, len(entry.changes))
            if (moved >= entries and operations >= MIN_FOLD) or operations >= MAX_FOLD:
                break
        return reached

    def install(self, versions: Iterable[tuple[str, Version]], dropped: Iterable[str]) -> None:
        """Takes a part of a snapshot: versions of some keys, and keys that it does not have.

        ``finish_snapshot`` ends it; one that never ends is replaced by the next.
        """
        self._is_installing = True
        batch = WriteBatch(raw_mode=True)
        for key, version in versions:
            _put_version(batch, key, version, self.meta.generation)
        for key in dropped:
            batch.delete(_VERSION[self.meta.generation] + key.encode())
        self._write(batch)

    def remember(self, writes: Sequence[RememberedWrite]) -> None:
        """Takes the idempotency keys of a snapshot."""
        self._put_remembered(writes, self.meta.generation)

    def _put_remembered(self, writes: Sequence[RememberedWrite], generation: int) -> None:
        batch = WriteBatch(raw_mode=True)
        for write in writes:
            key = _POSITION.pack(_REMEMBERED[generation], write.epoch, write.seq)
            batch.put(key, _encode(write))
        self._write(batch)

    def finish_snapshot(self, position: Position) -> None:
        """Lets the log begin above a snapshot; durable after the next ``sync``."""
        self._is_installing = False
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(_after(self.meta.folded[1]), _after(position[1]))
        self._put_meta(batch, msgspec.structs.replace(self.meta, folded=position, stable=position))
        self._write(batch)

    def forget_remembered(self, below: Position) -> None:
        """Drops the idempotency keys of entries below a position."""
        prefix = _REMEMBERED[self.meta.generation]
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(prefix, _POSITION.pack(prefix, *below))
        self._write(batch)

    # --- a base that replaces what there is -----------------------------------------------------

    def stage_begin(self) -> None:
        """Forgets what was written beside, and lets it begin anew."""
        other = 1 - self.meta.generation
        batch = WriteBatch(raw_mode=True)
        for prefix in (_VERSION[other], _REMEMBERED[other]):
            batch.delete_range(prefix, _next(prefix))
        self._write(batch)

    def stage(self, versions: Iterable[tuple[str, Version]]) -> None:
        """Writes versions of a snapshot beside what there is."""
        batch = WriteBatch(raw_mode=True)
        for key, version in versions:
            _put_version(batch, key, version, 1 - self.meta.generation)
        self._write(batch)

    def stage_remembered(self, writes: Sequence[RememberedWrite]) -> None:
        """Writes idempotency keys of a snapshot beside what there is."""
        self._put_remembered(writes, 1 - self.meta.generation)

    def switch(
        self, meta: Meta, above: int, entries: Iterable[tuple[int, int, bytes]], *, is_whole: bool
    ) -> None:
        """Puts a base in the place of what there is, durably and in one step.

        Args:
            meta: What is known of the node from then on, but for the generation.
            above: The log's entries above are replaced.
            entries: By these, as (epoch, seq, encoded).
            is_whole: True if the versions and idempotency keys are those that were staged.
        """
        self._is_installing = False
        old = self.meta.generation
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(_after(above), _next(_LOG))
        for _, seq, encoded in entries:
            batch.put(_SEQ.pack(_LOG, seq), encoded)
        self._put_meta(
            batch, msgspec.structs.replace(meta, generation=1 - old if is_whole else old)
        )
        self._write(batch)
        self.sync()
        if is_whole:
            self.stage_begin()

    def close(self) -> None:
        """Ends the use of the database; what was not synced is written first."""
        with _failing("close"):
            self._database.flush_wal(sync=True)
            self._database.close()

    def _put_meta(self, batch: WriteBatch, meta: Meta) -> None:
        self.meta = meta
        batch.put(_META, _encode(meta))

    def _write(self, batch: WriteBatch) -> None:
        with _failing("write"):
            self._database.write(batch, self._unsynced)


def _fold_entry(batch: WriteBatch, entry: Entry, generation: int) -> None:
    """Adds to a batch what an entry leaves behind."""
    match entry.operation:
        case Operation.PUT | Operation.DELETE | Operation.CONFIG:
            version = Version(entry.value, entry.epoch, entry.seq)
            _put_version(batch, entry.key, version, generation)
        case Operation.BATCH:
            for change in entry.changes:
                version = Version(change.value, entry.epoch, entry.seq)
                _put_version(batch, change.key, version, generation)
    if entry.idempotency_key is not None:
        write = RememberedWrite(
            entry.idempotency_key,
            fingerprint_of(entry.operation, entry.key, entry.value, entry.changes),
            entry.epoch,
            entry.seq,
        )
        prefix = _REMEMBERED[generation]
        batch.put(_POSITION.pack(prefix, entry.epoch, entry.seq), _encode(write))


def _put_version(batch: WriteBatch, key: str, version: Version, generation: int) -> None:
    prefix = _VERSION[generation]
    if version.value is None:
        batch.delete(prefix + key.encode())
    else:
        batch.put(prefix + key.encode(), _encode(version))


def _after(seq: int) -> bytes:
    """Returns the key of the first entry that may come after a seq."""
    return _SEQ.pack(_LOG, seq + 1)


def _next(prefix: bytes) -> bytes:
    return bytes([prefix[0] + 1])


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    """Turns the engine's exceptions, and records that cannot be read, into ours."""
    try:
        yield
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(f"a record cannot be read: {error}") from error
    except StorageError:
        raise
    except Exception as error:  # the engine raises plain Exception
        if _is_damage(error):
            raise _damaged(_line(error)) from error
        raise StorageError(f"the disk failed to {what}: {_line(error)}") from error


def _is_damage(error: Exception) -> bool:
    return "Corruption" in str(error)


def _line(error: Exception) -> str:
    """Returns the engine's message, which may have several lines, as one."""
    return " ".join(str(error).split())


def _damaged(what: str) -> StorageError:
    return StorageError(
        f"the data on disk is damaged ({what}); bring back the files of DATA_DIR, or move them "
        "away: a follower then gets its data from the leader"
    )


# --- opening -----------------------------------------------------------------------------------


def open_storage(data_dir: Path, node_id: str, role: Role) -> Storage:
    """Opens a node's database, or makes it.

    Args:
        data_dir: Made if it is missing.
        node_id: The node's name; the database of another node is refused.
        role: What a new node is; one that was there before keeps its role.

    Raises:
        StorageError: It is used by another process, damaged, of another format, or another node's;
            the message says which, and what to do.
    """
    folder = data_dir / FOLDER
    try:
        if not folder.exists():
            _create(data_dir, Meta(node_id, role, incarnation=secrets.token_hex(8)))
        storage = _open(folder)
    except OSError as error:
        raise StorageError(f"DATA_DIR={data_dir} cannot be used: {error}.") from error
    if storage.meta.node_id != node_id:
        owner = storage.meta.node_id
        storage.close()
        raise StorageError(
            f"DATA_DIR={data_dir} holds the data of node {owner!r}; start it with NODE_ID={owner}, "
            "or choose another DATA_DIR."
        )
    return storage


def _create(data_dir: Path, meta: Meta) -> None:
    """Makes a database beside its place and moves it there: a half-made one is never opened."""
    make_private_folder(data_dir)
    unfinished = data_dir / f"{FOLDER}.new"
    _remove_unfinished(unfinished)
    make_private_folder(unfinished)
    with _failing("write"):
        database = Rdict(str(unfinished), _options(DBRecoveryMode.absolute_consistency(), new=True))
    storage = Storage(database, meta)
    storage.save(meta)
    storage.close()
    unfinished.rename(data_dir / FOLDER)
    sync_folder(data_dir)


def _remove_unfinished(folder: Path) -> None:
    """Removes what a node that was killed has left, and nothing that somebody else has put there.

    Raises:
        StorageError: Not all in the folder is the engine's.
    """
    if not folder.exists():
        return
    if not all(_ENGINE_FILE.fullmatch(path.name) for path in folder.iterdir()):
        raise StorageError(
            f"{folder} is in the way, and not all that is in it was made by a node; move it, or "
            "choose another DATA_DIR. Nothing was changed."
        )
    shutil.rmtree(folder, ignore_errors=True)


def _open(folder: Path) -> Storage:
    """Opens an existing database; an unfinished end of its log is cut, damage is refused."""
    database, notice = _open_database(folder)
    try:
        with _failing("read"):
            record = database.get(_META)
            meta = _decode_meta(record) if record is not None else None
    except StorageError:
        database.close()
        raise
    if meta is None or meta.format != FORMAT:
        found = "no record of a node" if meta is None else f"format {meta.format}"
        database.close()
        raise StorageError(
            f"{folder} has {found}, this version reads format {FORMAT}; use the version that wrote "
            "it, or start without it."
        )
    return Storage(database, meta, notice)


def _open_database(folder: Path) -> tuple[Rdict, str]:
    """Opens the engine's files; returns what was repaired, too."""
    # The engine would rotate and remove logs in it all the same.
    if wal.manifest_of(folder) is None:
        raise StorageError(
            f"{folder} cannot be opened, for its CURRENT names no list of files: no node has made "
            "it, or it is damaged; bring back its files, or choose another DATA_DIR. Nothing was "
            "changed."
        )
    if (damage := wal.find_damage(folder)) is not None:
        raise _damaged(damage)
    try:
        return _open_strictly(folder), ""
    except Exception as error:  # noqa: BLE001  the engine raises plain Exception
        torn = _torn_end(folder, error)
    torn.cut()
    with _failing("recover"):
        database = _open_strictly(folder)
    return database, f"{torn.path}: cut off {torn.size_bytes} bytes of a write that never finished"


def _torn_end(folder: Path, error: Exception) -> wal.TornEnd:
    """Returns the unfinished last write for which the engine did not open.

    Raises:
        StorageError: It is something else.
    """
    if "LOCK:" in str(error):  # the file's name stands before what failed
        raise StorageError(
            f"{folder} is used by another process; end it, or choose another DATA_DIR."
        ) from error
    if not _is_damage(error):
        raise StorageError(
            f"{folder} cannot be opened ({_line(error)}); see to the disk, or choose another "
            "DATA_DIR. Nothing was changed."
        ) from error
    torn = wal.find_torn_end(folder)
    if torn is None:
        raise _damaged(_line(error)) from error
    return torn


def _open_strictly(folder: Path) -> Rdict:
    return Rdict(str(folder), _options(DBRecoveryMode.absolute_consistency()))


def _options(recovery: DBRecoveryMode, *, new: bool = False) -> Options:
    """How the engine is set: small buffers, since reads are answered from memory."""
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    options = Options(raw_mode=True)
    options.create_if_missing(new)
    options.set_wal_recovery_mode(recovery)
    options.set_block_based_table_factory(tables)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_total_wal_size(MAX_WAL_BYTES)
    options.set_max_open_files(MAX_OPEN_FILES)
    options.set_max_background_jobs(BACKGROUND_JOBS)
    options.set_keep_log_file_num(KEPT_ENGINE_LOGS)
    options.set_max_manifest_file_size(MAX_MANIFEST_BYTES)
    options.set_max_log_file_size(MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options
