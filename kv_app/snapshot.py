"""A replica's whole state as a stream of messages: how a leader sends it, how a follower takes it.

The state is sent bucket by bucket while writes go on: a chunk holds the versions of its own moment,
so that the versions decide. The log's entries above the snapshot's position follow it on the same
channel, or another snapshot with all that is newer than this one. Neither side holds more than the
keys of a bucket beside its state.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Annotated, Final

import msgspec

from kv_app.errors import ProtocolViolationError
from kv_app.messages import (
    UNREADABLE,
    RememberedWrite,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotKeys,
    Version,
)
from kv_app.peer_checks import is_config, is_key
from kv_app.state import BUCKETS, CONFIG_KEY, State, bucket_of

KEYS_PER_CHUNK: Final = 512
CHARS_PER_CHUNK: Final = 1 << 18
WRITES_PER_MESSAGE: Final = 1000
DIGEST_BYTES: Final = 16

_encode = msgspec.msgpack.Encoder().encode
_decode_versions = msgspec.msgpack.Decoder(
    Annotated[dict[str, Version], msgspec.Meta(max_length=KEYS_PER_CHUNK)]
).decode


def snapshot_frames(
    state: State, remembered: Iterable[RememberedWrite], stable_seq: int, since: int = 0
) -> Iterator[bytes]:
    """Yields the messages of a snapshot: settled versions, and idempotency keys.

    Args:
        state: May change between two messages.
        remembered: The idempotency keys, oldest first.
        stable_seq: The snapshot's position: the state holds all that is at or below.
        since: Only versions above are sent; none of their deletions may be forgotten meanwhile.
    """
    yield _encode(SnapshotBegin(stable_seq, since))
    digest = b""
    chunks = state.settled_chunks(KEYS_PER_CHUNK, CHARS_PER_CHUNK, since)
    for bucket, versions, ends_bucket in chunks:
        raw = _encode(versions)
        digest = _chain(digest, bucket, raw, ends_bucket=ends_bucket)
        yield _encode(SnapshotChunk(bucket, ends_bucket, msgspec.Raw(raw), digest))
    writes = iter(remembered)
    while some := list(islice(writes, WRITES_PER_MESSAGE)):
        yield _encode(SnapshotKeys(some))
    yield _encode(SnapshotEnd(digest))


class SnapshotReader:
    """Checks the chunks of one snapshot as they come in.

    Attributes:
        stable_seq: The snapshot's position.
        is_whole: False if it only tells what is newer than the one before.
        has_ended: True once all has come.
    """

    def __init__(self, begin: SnapshotBegin, epoch: int, known_seq: int = 0) -> None:
        """Begins to read.

        Args:
            begin: How it began.
            epoch: That of the log that it stands for: nothing in it is of a later one.
            known_seq: The position of the snapshot that came before; 0 if none did.

        Raises:
            ProtocolViolationError: It builds upon what did not come.
        """
        stable_seq, since = begin.stable_seq, begin.since
        if since and not since == known_seq <= stable_seq:
            raise ProtocolViolationError(
                f"a snapshot of what changed from {since} to {stable_seq}, after one of {known_seq}"
            )
        self.stable_seq = stable_seq
        self.is_whole = not since
        self.has_ended = False
        self._epoch = epoch
        self._digest = b""
        self._bucket = 0
        self._present: set[str] = set()

    def read(self, chunk: SnapshotChunk) -> dict[str, Version]:
        """Returns a chunk's versions.

        Raises:
            ProtocolViolationError: It is damaged, or not the next one.
        """
        raw = bytes(chunk.versions)
        digest = _chain(self._digest, chunk.bucket, raw, ends_bucket=chunk.ends_bucket)
        is_next = chunk.bucket == self._bucket < BUCKETS
        if digest != chunk.digest or not is_next:
            raise ProtocolViolationError(
                f"a snapshot's chunk of bucket {chunk.bucket} is damaged or not the next one"
            )
        try:
            versions: dict[str, Version] = _decode_versions(raw)
        except UNREADABLE as error:
            raise ProtocolViolationError(f"a snapshot that cannot be read: {error}") from error
        if not all(self._is_sound(key, version) for key, version in versions.items()):
            raise ProtocolViolationError(
                f"a snapshot's chunk of bucket {chunk.bucket} with a key or a version that cannot "
                "be there"
            )
        self._digest = digest
        self._present.update(versions)
        return versions

    def _is_sound(self, key: str, version: Version) -> bool:
        """Tells if a version may be in the bucket that is being read, once."""
        return (
            bucket_of(key) == self._bucket
            and 1 <= version.epoch <= self._epoch
            and version.seq > 0
            and key not in self._present
            and (is_key(key) if key != CONFIG_KEY else is_config(version.value))
        )

    def end_bucket(self) -> tuple[int, set[str]]:
        """Returns the bucket that has ended, and all keys that it had."""
        bucket, present = self._bucket, self._present
        self._bucket, self._present = bucket + 1, set()
        return bucket, present

    def check_keys(self, writes: Sequence[RememberedWrite]) -> None:
        """Checks where the writes of some idempotency keys are.

        Raises:
            ProtocolViolationError: One is not within the snapshot; none of them may be taken.
        """
        for write in writes:
            if write.epoch > self._epoch or write.seq > self.stable_seq:
                raise ProtocolViolationError(
                    f"a snapshot up to {self.stable_seq} with a key of {write.epoch}.{write.seq}"
                )

    def check_end(self, end: SnapshotEnd) -> None:
        """Checks that all has come.

        Raises:
            ProtocolViolationError: Something is missing.
        """
        if end.digest != self._digest or self._bucket != BUCKETS:
            raise ProtocolViolationError(f"a snapshot ended after {self._bucket} buckets")
        self.has_ended = True


def _chain(before: bytes, bucket: int, raw: bytes, *, ends_bucket: bool) -> bytes:
    digest = blake2b(before, digest_size=DIGEST_BYTES)
    digest.update(b"%d:%d:" % (bucket, ends_bucket))
    digest.update(raw)
    return digest.digest()
