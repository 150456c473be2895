"""Log entries, versions, and the messages of the replication channel. No logic.

The channel speaks MessagePack arrays, tagged by their first element; field order is the wire
format. A change of it raises ``PROTOCOL_VERSION``.
"""

from enum import IntEnum
from typing import Annotated

import msgspec

from kv_app.bounds import (
    MAX_BATCH_ENTRIES,
    MAX_BATCH_LIMIT_OPERATIONS,
    MAX_IDEMPOTENCY_KEY_BYTES,
    MAX_KEY_LIMIT_BYTES,
    MAX_VALUE_LIMIT_BYTES,
    Label,
    Name,
    Place,
    Seq,
    Url,
)
from kv_app.meta import BaseRecord

PROTOCOL_VERSION = 4
# What msgspec raises for bytes that are no message: text that is not UTF-8 and nesting without end
# are not among its own errors.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
# Why a channel was closed, as codes of WebSocket close frames: 4000 to 4999 are an application's.
CLOSE_NORMAL = 1000
CLOSE_REFUSED = 4000
CLOSE_PROTOCOL = 4001
CLOSE_REPLACED = 4002
CLOSE_SILENT = 4003
CLOSE_TOO_SLOW = 4004
# A close frame holds 125 bytes, two of them the code.
MAX_CLOSE_REASON_BYTES = 123

Key = Annotated[str, msgspec.Meta(max_length=MAX_KEY_LIMIT_BYTES)]
Value = Annotated[str, msgspec.Meta(max_length=MAX_VALUE_LIMIT_BYTES)]
IdempotencyKey = Annotated[str, msgspec.Meta(max_length=MAX_IDEMPOTENCY_KEY_BYTES)]
Digest = Annotated[bytes, msgspec.Meta(max_length=16)]


def close_reason(text: str) -> str:
    """Returns as much of a text as fits into a close frame."""
    return text.encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")


class Operation(IntEnum):
    """What a log entry does. The numbers are the wire format."""

    NOOP = 0
    PUT = 1
    DELETE = 2
    CONFIG = 3
    BATCH = 4


class Change(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a batch does to one key: a value puts it, None deletes it."""

    key: Key
    value: Value | None


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One operation at one position ``(epoch, seq)``; a batch is one operation.

    On the wire and on disk alike.

    Attributes:
        epoch: Leader generation, from 1.
        seq: Place in the log, from 1, without gaps on the leader.
        operation: An ``Operation``.
        key: Never empty for a put or a delete, else empty. So is that of a config record, which
            makes the configuration the version of a key that no client can have.
        value: Of a put the value, of a config record its text as JSON, else None.
        idempotency_key: The client's, kept so that it survives a change of leader.
        changes: Of a batch what it does, each key once; else empty.
    """

    epoch: Place
    seq: Place
    operation: Annotated[int, msgspec.Meta(ge=0, le=4)]
    key: Key
    value: Value | None
    idempotency_key: IdempotencyKey | None
    changes: Annotated[tuple[Change, ...], msgspec.Meta(max_length=MAX_BATCH_LIMIT_OPERATIONS)] = ()


class Version(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a replica holds of a key: its newest value, or None for a deletion."""

    value: Value | None
    epoch: Seq
    seq: Seq


class SeqRange(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All positions from ``first`` to ``last``, both included."""

    first: Place
    last: Place


# --- leader to follower ----------------------------------------------------------------------


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Opens a channel: who leads, and what. Nothing may be sent before its answer.

    Attributes:
        protocol: ``PROTOCOL_VERSION``.
        cluster_id: The cluster.
        epoch: The epoch that it leads, or will once its base is on enough nodes.
        leader_id: The leader's name.
        leader_url: Where clients reach it.
        last_seq: Of its log.
        attempt: That of its promise.
        is_formed: False while the cluster is still to be made.
    """

    protocol: int
    cluster_id: Name
    epoch: Seq
    leader_id: Name
    leader_url: Url
    last_seq: Seq
    attempt: Label
    is_formed: bool


class Entries(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """Some log entries, in the order in which their delays ended.

    Attributes:
        entries: At least one.
        stable_seq: Everything at or below is committed.
    """

    entries: Annotated[list[Entry], msgspec.Meta(max_length=MAX_BATCH_ENTRIES)]
    stable_seq: Seq


class RawEntries(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """``Entries`` as the leader sends it: each entry was encoded once, for all its links."""

    entries: list[msgspec.Raw]
    stable_seq: int


class Heartbeat(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """Shows that the leader lives, and how far it is; answered by an empty ``Ack``."""

    last_seq: Seq
    stable_seq: Seq


class SnapshotBegin(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """A snapshot of the leader's committed state follows; one that was under way is given up.

    Up to its end no entries are sent, and none that come are taken.

    Attributes:
        stable_seq: The snapshot holds all that is at or below; single versions may be newer.
        since: Only what is newer is in it: the position of the snapshot before, on the same
            channel. 0 if it is whole.
    """

    stable_seq: Seq
    since: Seq


class SnapshotChunk(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """Some keys of one bucket with their newest versions; the buckets come in ascending order.

    Attributes:
        bucket: Number of the bucket of all these keys.
        ends_bucket: True in a bucket's last chunk.
        versions: ``dict[str, Version]``: at least those of which the snapshot is to tell; a whole
            one may leave deletions out.
        digest: BLAKE2b (16 bytes) over the digest before it and these fields, so that a chunk that
            is damaged, missing or out of order is found before anything of it is taken.
    """

    bucket: int
    ends_bucket: bool
    versions: msgspec.Raw
    digest: Digest


class RememberedWrite(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What outlives a write's entry: its idempotency key, what it did, and where."""

    idempotency_key: IdempotencyKey
    fingerprint: Digest
    epoch: Place
    seq: Place


class SnapshotKeys(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """Some of the writes whose idempotency keys are remembered, oldest first."""

    writes: list[RememberedWrite]


class SnapshotEnd(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """The follower now holds all that is at or below the snapshot's position.

    Attributes:
        digest: That of the last chunk.
    """

    digest: Digest


class Base(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """Makes a follower a voter: it holds all that it is to hold of an epoch's base.

    Attributes:
        record: The base.
        incarnation: The follower's, from its welcome; another one ignores this.
    """

    record: BaseRecord
    incarnation: Label


class Replace(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """What the follower holds is another epoch's: all above a position is to be replaced.

    What follows, up to a ``Base``, is what it is replaced by. A voter takes it beside what it
    holds, and keeps that until then.

    Attributes:
        keep: What is at or below belongs to this epoch's base too.
    """

    keep: Seq


class Confirm(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """Asks whether the follower still follows, and has promised nothing newer.

    Attributes:
        round: Counts the leader's questions.
    """

    round: Seq


LeaderMessage = (
    Hello
    | Entries
    | Heartbeat
    | SnapshotBegin
    | SnapshotChunk
    | SnapshotKeys
    | SnapshotEnd
    | Base
    | Replace
    | Confirm
)

# --- follower to leader ----------------------------------------------------------------------


class Welcome(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Answers a ``Hello``: who the follower is and what it holds.

    Attributes:
        node_id: The follower's name; acknowledgments count once per name.
        start_id: New at every start of the process.
        cluster_id: The cluster whose entries it holds; empty if it holds none.
        epoch: The epoch of whose log its positions are: a seq may mean another entry in another
            one's. 0 if it holds none.
        contiguous: Highest seq below which it has no hole.
        above: What it holds above ``contiguous``, ascending.
        incarnation: New whenever it starts without its data.
        base_epoch: Epoch of its base; 0 makes it a learner.
        is_durable: Whether what it acknowledges is on its disk.
        settled: All up to there it holds, and knows to be committed: the same in every epoch.
    """

    node_id: Name
    start_id: Label
    cluster_id: Label
    epoch: Seq
    contiguous: Seq
    above: list[SeqRange]
    incarnation: Label
    base_epoch: Seq
    is_durable: bool
    settled: Seq


class Ack(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """The follower holds these entries. Empty, it answers a heartbeat."""

    ranges: list[SeqRange]


class CaughtUp(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A snapshot is in place: the follower holds everything up to ``contiguous``.

    As durably as an ``Ack`` says.
    """

    contiguous: Seq


class Refusal(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """The follower will not follow this leader, and why; it closes the channel after it.

    Attributes:
        reason: One sentence.
        promised: The epoch that it has promised, if that is why; else 0. Of another cluster's
            epoch only a leader hears whose own cluster is still to be made.
        cluster_id: In which cluster, if that is the leader's own: nobody else is told. Nodes of
            earlier versions of the protocol do not send it.
    """

    reason: str
    promised: Seq
    cluster_id: Label = ""


class BaseHeld(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """The follower holds the base of an epoch, and is a voter of it."""

    epoch: Seq


class Confirmed(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """The follower still follows: it has promised nothing newer.

    Attributes:
        round: That of the question.
    """

    round: Seq


FollowerMessage = Welcome | Ack | CaughtUp | Refusal | BaseHeld | Confirmed
