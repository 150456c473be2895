"""A replica's whole state as a stream of messages: how a leader sends it, how a follower takes it.

The state is sent bucket by bucket while writes go on: a chunk holds the versions of its own moment,
and the log's entries above the snapshot's position follow on the same channel, so that the versions
decide. Neither side holds more than a bucket beside its state.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from kv_app.errors import ProtocolViolationError
from kv_app.messages import (
    MAX_SEQ,
    UNREADABLE,
    RememberedWrite,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotKeys,
    Version,
)
from kv_app.state import BUCKETS, State

KEYS_PER_CHUNK: Final = 512
CHARS_PER_CHUNK: Final = 1 << 18
WRITES_PER_MESSAGE: Final = 1000
DIGEST_BYTES: Final = 16

_encode = msgspec.msgpack.Encoder().encode
_decode_versions = msgspec.msgpack.Decoder(dict[str, Version]).decode


async def send_snapshot(
    send: Callable[[bytes], None],
    give_way: Callable[[], Awaitable[None]],
    state: State,
    remembered: Sequence[RememberedWrite],
    stable_seq: int,
) -> None:
    """Sends all settled versions, and the idempotency keys at or below a position.

    Args:
        send: Sends one message.
        give_way: Lets others go first, and waits while the follower does not read.
        state: May change meanwhile.
        remembered: The idempotency keys, oldest first.
        stable_seq: The position: the state holds all that is at or below.
    """
    for number, frame in enumerate(snapshot_frames(state, remembered, stable_seq)):
        send(frame)
        if number:  # the first one only says that others follow
            await give_way()


def snapshot_frames(
    state: State, remembered: Sequence[RememberedWrite], stable_seq: int
) -> Iterator[bytes]:
    """Yields the messages of a snapshot; the state may change between two of them."""
    yield _encode(SnapshotBegin(stable_seq))
    digest = b""
    for bucket, versions, ends_bucket in state.settled_chunks(KEYS_PER_CHUNK, CHARS_PER_CHUNK):
        raw = _encode(versions)
        digest = _chain(digest, bucket, raw, ends_bucket=ends_bucket)
        yield _encode(SnapshotChunk(bucket, ends_bucket, msgspec.Raw(raw), digest))
    for first in range(0, len(remembered), WRITES_PER_MESSAGE):
        yield _encode(SnapshotKeys(list(remembered[first : first + WRITES_PER_MESSAGE])))
    yield _encode(SnapshotEnd(digest))


class SnapshotReader:
    """Checks the chunks of one snapshot as they come in.

    Attributes:
        stable_seq: The snapshot's position.
    """

    def __init__(self, stable_seq: int) -> None:
        """Begins to read.

        Raises:
            ProtocolViolationError: The position is none.
        """
        if not 0 <= stable_seq <= MAX_SEQ:
            raise ProtocolViolationError(f"a snapshot of position {stable_seq}")
        self.stable_seq = stable_seq
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
        if digest != chunk.digest or chunk.bucket != self._bucket:
            raise ProtocolViolationError(
                f"a snapshot's chunk of bucket {chunk.bucket} is damaged or not the next one"
            )
        try:
            versions = _decode_versions(raw)
        except UNREADABLE as error:
            raise ProtocolViolationError(f"a snapshot that cannot be read: {error}") from error
        self._digest = digest
        self._present.update(versions)
        return versions

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
            if not (1 <= write.epoch <= MAX_SEQ and 1 <= write.seq <= self.stable_seq):
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


def _chain(before: bytes, bucket: int, raw: bytes, *, ends_bucket: bool) -> bytes:
    digest = blake2b(before, digest_size=DIGEST_BYTES)
    digest.update(b"%d:%d:" % (bucket, ends_bucket))
    digest.update(raw)
    return digest.digest()
