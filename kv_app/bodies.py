"""Bodies of the HTTP API: what requests and answers hold. No logic.

The pydantic models serve the OpenAPI document; the hot path decodes and encodes the same shapes
with msgspec.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from kv_app.bounds import MAX_FOLLOWERS
from kv_app.meta import Role

# --- bodies of the hot path ------------------------------------------------------------------


class PutBody(msgspec.Struct, forbid_unknown_fields=True):
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

    model_config = ConfigDict(extra="forbid")

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

    model_config = ConfigDict(extra="forbid")

    write_quorum: int = Field(description="From 0 to the number of followers.")


class QuorumAnswer(BaseModel):
    """The write quorum in force."""

    write_quorum: int
    followers: int = Field(description="n, the highest possible quorum.")


class PromoteRequest(BaseModel, strict=True):
    """What is asked of a promotion."""

    model_config = ConfigDict(extra="forbid")

    members: list[str] = Field(
        default=[],
        max_length=MAX_FOLLOWERS + 1,
        description="URLs of the members to ask; all of the cluster if empty.",
    )
    write_quorum: int | None = Field(
        None,
        ge=0,
        le=MAX_FOLLOWERS,
        description="The k that is wanted; what was wanted last if it is left out.",
    )
    force: bool = Field(
        default=False, description="Go on with whoever answers: what they lack is lost."
    )


class PromoteAnswer(BaseModel):
    """The node leads a new epoch, and takes writes."""

    epoch: int
    leader: str = Field(description="Its `NODE_ID`.")
    sealed: list[str] = Field(description="URLs of the voters that were sealed.")
    required: int = Field(description="Followers that had to be, without the old leader.")
    entries: int = Field(description="The last position of the merged log.")
    holes_filled: int = Field(description="Positions below that nobody held.")
    write_quorum: int = Field(description="k in force; less than wanted if fewer were sealed.")
    may_have_lost: str = Field(description="After a forced promotion: what may be missing.")


class MemberStatus(BaseModel):
    """A node of the cluster, as its configuration names it."""

    node_id: str
    url: str


class StatusAnswer(BaseModel):
    """Where one node stands; any node answers this."""

    node_id: str
    url: str = Field(description="Where the other nodes reach it: its URL among the members.")
    role: Role
    epoch: int = Field(description="The epoch that it leads, or has promised itself to.")
    base_epoch: int = Field(description="The epoch whose base it holds; 0 for a learner.")
    base_leader: str | None = Field(description="Who led that epoch.")
    base_position: int = Field(description="The last position that came from earlier epochs.")
    founders: dict[str, str] = Field(
        description="The incarnations of the followers of which the cluster was made, by URL."
    )
    promise: str | None = Field(description="To whom it has promised that epoch.")
    cluster_id: str
    incarnation: str = Field(description="New whenever it starts without its data.")
    leader_url: str | None
    is_led: bool = Field(description="True while a leader has a channel to it.")
    is_open: bool = Field(description="True if it takes writes.")
    contiguous: int
    max_seq: int
    holes: int
    write_quorum: int | None = Field(description="k, as far as this node knows.")
    floor: int | None = Field(description="f: no acknowledged write is on fewer followers.")
    wanted: int | None = Field(description="The k that was asked for last.")
    config_epoch: int = Field(
        description="With `config_seq` the position of the newest record of these that it holds; "
        "both are 0 if it has those with which its epoch began."
    )
    config_seq: int = Field(description="See `config_epoch`.")
    members: list[MemberStatus]
    durable: bool


class DelaysRequest(BaseModel, strict=True):
    """A new range of link delays, in milliseconds."""

    model_config = ConfigDict(extra="forbid")

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

    model_config = ConfigDict(extra="forbid")

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
