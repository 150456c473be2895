"""Schemas of the replication channel and of the HTTP API. No logic.

The channel speaks MessagePack arrays, tagged by their first element; field order is the wire
format. A change of it raises ``PROTOCOL_VERSION``. The HTTP API's models serve its OpenAPI
document; the hot path encodes the same shapes with msgspec.
"""

from enum import IntEnum, StrEnum
from typing import Annotated, ClassVar, Literal, NewType

import msgspec
from pydantic import BaseModel, ConfigDict, Field

Seq = NewType("Seq", int)
Epoch = NewType("Epoch", int)
NodeId = NewType("NodeId", str)

PROTOCOL_VERSION = 2
# The highest epoch and seq: what fits into the disk's positions with room to spare. A leader never
# comes so far.
MAX_SEQ = 1 << 62
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


class Role(StrEnum):
    """What a node is in its cluster."""

    LEADER = "leader"
    FOLLOWER = "follower"


class Operation(IntEnum):
    """What a log entry does. The numbers are the wire format."""

    NOOP = 0
    PUT = 1
    DELETE = 2
    CONFIG = 3
    BATCH = 4


class Change(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a batch does to one key: a value puts it, None deletes it."""

    key: str
    value: str | None


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One operation at one position ``(epoch, seq)``; a batch is one operation.

    On the wire and on disk alike.

    Attributes:
        epoch: Leader generation, from 1.
        seq: Place in the log, from 1, without gaps on the leader.
        operation: An ``Operation``.
        key: Never empty for a put or a delete, else empty.
        value: Of a put the value, of a config record its text as JSON, else None.
        idempotency_key: The client's, kept so that it survives a change of leader.
        changes: Of a batch what it does, each key once; else empty.
    """

    epoch: int
    seq: int
    operation: int
    key: str
    value: str | None
    idempotency_key: str | None
    changes: tuple[Change, ...] = ()


class Version(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a replica holds of a key: its newest value, or None for a deletion."""

    value: str | None
    epoch: int
    seq: int


class SeqRange(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All positions from ``first`` to ``last``, both included."""

    first: int
    last: int


# --- leader to follower ----------------------------------------------------------------------


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Opens a channel: who leads, and what. Nothing may be sent before its answer."""

    protocol: int
    cluster_id: str
    epoch: int
    leader_id: str
    leader_url: str
    last_seq: int


class Entries(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """Some log entries, in the order in which their delays ended.

    Attributes:
        entries: At least one.
        stable_seq: Everything at or below is committed.
    """

    entries: list[Entry]
    stable_seq: int


class RawEntries(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """``Entries`` as the leader sends it: each entry was encoded once, for all its links."""

    entries: list[msgspec.Raw]
    stable_seq: int


class Heartbeat(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """Shows that the leader lives, and how far it is; answered by an empty ``Ack``."""

    last_seq: int
    stable_seq: int


class SnapshotBegin(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """A snapshot of the leader's committed state follows; one that was under way is given up.

    Attributes:
        stable_seq: The snapshot holds all that is at or below; single versions may be newer.
    """

    stable_seq: int


class SnapshotChunk(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """Some keys of one bucket with their newest versions; the buckets come in ascending order.

    Attributes:
        bucket: Number of the bucket of all these keys.
        ends_bucket: True in a bucket's last chunk.
        versions: ``dict[str, Version]``: at least those at or below the snapshot's position, but
            deletions may be left out.
        digest: BLAKE2b (16 bytes) over the digest before it and these fields, so that a chunk that
            is damaged, missing or out of order is found before anything of it is taken.
    """

    bucket: int
    ends_bucket: bool
    versions: msgspec.Raw
    digest: bytes


class RememberedWrite(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What outlives a write's entry: its idempotency key, what it did, and where."""

    idempotency_key: str
    fingerprint: bytes
    epoch: int
    seq: int


class SnapshotKeys(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """Some of the writes whose idempotency keys are remembered, oldest first."""

    writes: list[RememberedWrite]


class SnapshotEnd(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """The follower now holds all that is at or below the snapshot's position.

    Attributes:
        digest: That of the last chunk.
    """

    digest: bytes


class Base(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """Makes a learner that has caught up a voter.

    Attributes:
        epoch: The epoch whose base it holds from now on.
        incarnation: The follower's, from its welcome; another one ignores this.
    """

    epoch: int
    incarnation: str


LeaderMessage = (
    Hello | Entries | Heartbeat | SnapshotBegin | SnapshotChunk | SnapshotKeys | SnapshotEnd | Base
)

# --- follower to leader ----------------------------------------------------------------------


class Welcome(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Answers a ``Hello``: who the follower is and what it holds.

    Attributes:
        node_id: The follower's name; acknowledgments count once per name.
        start_id: New at every start of the process.
        cluster_id: The cluster whose entries it holds; empty if it holds none.
        epoch: Epoch of its newest entry, 0 if it holds none.
        contiguous: Highest seq below which it has no hole.
        above: What it holds above ``contiguous``, ascending.
        incarnation: New whenever it starts without its data.
        base_epoch: Epoch of its base; 0 makes it a learner.
        is_durable: Whether what it acknowledges is on its disk.
    """

    node_id: str
    start_id: str
    cluster_id: str
    epoch: int
    contiguous: int
    above: list[SeqRange]
    incarnation: str
    base_epoch: int
    is_durable: bool


class Ack(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """The follower holds these entries. Empty, it answers a heartbeat."""

    ranges: list[SeqRange]


class CaughtUp(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A snapshot is in place: the follower holds everything up to ``contiguous``.

    As durably as an ``Ack`` says.
    """

    contiguous: int


class Refusal(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """The follower will not follow this leader, and why; it closes the channel after it."""

    reason: str


class BaseHeld(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """The follower holds the base of an epoch, and is a voter of it."""

    epoch: int


FollowerMessage = Welcome | Ack | CaughtUp | Refusal | BaseHeld

# --- bodies of the hot path ------------------------------------------------------------------


class PutBody(msgspec.Struct):
    """Body of ``PUT /kv/{key}``."""

    value: str


class BatchPut(
    msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, tag_field="op", tag="put"
):
    """An operation of a batch: a put."""

    key: str
    value: str


class BatchDelete(
    msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, tag_field="op", tag="delete"
):
    """An operation of a batch: a delete, which has no value."""

    key: str
    value: ClassVar[None] = None


BatchOperation = BatchPut | BatchDelete


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /kv``."""

    operations: list[BatchOperation]


class WriteBody(msgspec.Struct, gc=False):
    """Answer to a committed write."""

    key: str
    value: str | None
    epoch: int
    seq: int
    follower_acks: int
    quorum_met: bool = True


class BatchResults(msgspec.Struct):
    """Answer to a committed batch: a result per operation, in their order."""

    results: list[WriteBody]


class ReadBody(msgspec.Struct, gc=False):
    """Answer to ``GET /kv/{key}``."""

    key: str
    value: str
    epoch: int
    seq: int


# --- models of the OpenAPI document ----------------------------------------------------------


class ErrorDetail(BaseModel):
    """What went wrong; further members depend on the code."""

    code: str = Field(description="Stable name of the error.")
    message: str = Field(description="One sentence: what happened, and what to do.")
    definite: bool = Field(description="True: it did not happen and never will.")
    reason: str | None = Field(None, description="Finer cause of not_attempted and not_ready.")
    limit: str | None = Field(None, description="The setting that was exceeded.")
    leader_url: str | None = Field(None, description="Where the leader is, if known.")
    epoch: int | None = Field(None, description="Position of the entry, if there is one.")
    seq: int | None = Field(None, description="Position of the entry, if there is one.")
    contiguous: int | None = Field(None, description="What this replica holds, on a read.")
    follower_acks: int | None = Field(None, description="Acknowledgments so far, on a write.")
    required: int | None = Field(None, description="The write quorum it needed, on a write.")


class ErrorBody(BaseModel):
    """The one shape of every error."""

    error: ErrorDetail


class PutRequest(BaseModel):
    """Body of a put."""

    value: str = Field(description="Any text up to MAX_VALUE_BYTES of UTF-8, also empty.")


class WriteAnswer(BaseModel):
    """A committed write."""

    key: str
    value: str | None = Field(description="The value put; null after a delete.")
    epoch: int
    seq: int
    follower_acks: int = Field(description="Followers that had acknowledged at the answer.")
    quorum_met: bool = True


class PutOperation(BaseModel):
    """A put in a batch."""

    model_config = ConfigDict(extra="forbid")

    op: Literal["put"]
    key: str = Field(min_length=1)
    value: str


class DeleteOperation(BaseModel):
    """A delete in a batch."""

    model_config = ConfigDict(extra="forbid")

    op: Literal["delete"]
    key: str = Field(min_length=1)


class BatchRequest(BaseModel):
    """Body of a batch."""

    model_config = ConfigDict(extra="forbid")

    operations: list[Annotated[PutOperation | DeleteOperation, Field(discriminator="op")]] = Field(
        min_length=1,
        description="At most MAX_BATCH_OPERATIONS. The later operation on a key wins.",
    )


class BatchAnswer(BaseModel):
    """A committed batch."""

    results: list[WriteAnswer] = Field(description="One per operation, in their order.")


class ReadAnswer(BaseModel):
    """A value and its version."""

    key: str
    value: str
    epoch: int
    seq: int


class HealthAnswer(BaseModel):
    """The node runs."""

    status: str = "ok"
    role: Role
    node_id: str
    epoch: int
    start_id: str = Field(description="New at every start of the process.")
    durable: bool = Field(description="Whether it acknowledges from its disk (DATA_DIR is set).")


class ReadyAnswer(BaseModel):
    """The node can do its role's work."""

    status: str = "ready"
    role: Role


class QuorumRequest(BaseModel, strict=True):
    """A new write quorum."""

    write_quorum: int = Field(description="From 0 to the number of followers.")


class QuorumAnswer(BaseModel):
    """The write quorum in force."""

    write_quorum: int
    followers: int = Field(description="n, the highest possible quorum.")


class DelaysRequest(BaseModel, strict=True):
    """A new range of link delays, in milliseconds."""

    min_delay_ms: float = Field(ge=0)
    max_delay_ms: float = Field(ge=0)


class DelaysAnswer(BaseModel):
    """The link delays in force."""

    min_delay_ms: float
    max_delay_ms: float
    delay_model: str


class LinkStatus(BaseModel):
    """One follower as the leader sees it."""

    node_id: str | None = Field(description="Null until the follower has answered once.")
    epoch: int
    contiguous: int
    max_seq: int
    holes: int
    connected: bool
    learner: bool
    durable: bool | None = Field(
        description="Whether it acknowledges from its disk; null at first."
    )
    detail: str = Field(description="Why it does not count, if it does not.")


class LinkState(StrEnum):
    """Whether the leader keeps the link to a follower up, or down on purpose."""

    UP = "up"
    DOWN = "down"


class LinkRequest(BaseModel):
    """What a link is to be."""

    state: LinkState


class LinksAnswer(BaseModel):
    """Positions of all replicas, without their data."""

    epoch: int
    last_seq: int = Field(description="The newest entry of the leader's log.")
    stable_seq: int = Field(description="Everything at or below is committed.")
    links: dict[str, LinkStatus]


class ReplicaStatusAnswer(BaseModel):
    """The data and the position of every replica."""

    epoch: int
    last_seq: int
    stable_seq: int
    leader: dict[str, str]
    followers: dict[str, dict[str, object]] = Field(
        description='Per URL {key: value}, or {"error": {…}} for one that does not answer.'
    )
    positions: dict[str, LinkStatus]


class DigestAnswer(BaseModel):
    """What one replica holds at one moment, to be compared with another's, without the values."""

    node_id: str
    role: Role
    epoch: int
    contiguous: int = Field(description="It holds all up to here; a leader counts what it shows.")
    max_seq: int = Field(description="The newest entry that it holds.")
    keys: int = Field(description="Keys with a value.")
    buckets: list[str] = Field(
        description="Per bucket of keys 16 hexadecimal digits over its keys, values and versions."
    )
    versions: dict[str, tuple[int, int]] | None = Field(
        None, description="Of one bucket, if it was asked for: {key: [epoch, seq]}."
    )
