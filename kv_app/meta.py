"""What a node knows of itself and of its cluster, and keeps on its disk if it has one. No logic."""

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from kv_app.bounds import MAX_FOLLOWERS, Label, Name, Quorum, Seq, Url

# Version of the database's layout.
FORMAT: Final = 2

Position = tuple[int, int]
NOWHERE: Final[Position] = (0, 0)


class Role(StrEnum):
    """What a node is in its cluster."""

    LEADER = "leader"
    FOLLOWER = "follower"


class Member(msgspec.Struct, frozen=True):
    """A node of the cluster; the leader is one too.

    Attributes:
        node_id: Its name; empty while it was not heard yet.
        url: Where the others reach it. Members are told apart by it.
    """

    node_id: Label
    url: Url


class Config(msgspec.Struct, frozen=True):
    """Who belongs to the cluster, and how many must acknowledge.

    Attributes:
        members: All nodes, fixed when the cluster is made; the first one led it first. n is one
            less.
        write_quorum: k.
        floor: f: no acknowledged write is on fewer followers.
        wanted: The k that was asked for; a promotion may have had to begin with a lower one.
    """

    members: Annotated[tuple[Member, ...], msgspec.Meta(max_length=MAX_FOLLOWERS + 1)]
    write_quorum: Quorum
    floor: Quorum
    wanted: Quorum


class BaseRecord(msgspec.Struct, frozen=True):
    """What an epoch began with.

    Attributes:
        epoch: The epoch.
        leader_id: Who leads it.
        leader_incarnation: That node's, when it began to.
        config: The configuration with which it began.
        position: The last seq of earlier epochs: the base is all up to there.
        forced: The newest epoch, up to this one, that began by force: what was committed before may
            be missing in it. 0 if there is none.
        founders: The incarnations, by URL, of the followers that were empty when the cluster was
            made. One that is still in that life has forgotten no promise.
    """

    epoch: Seq
    leader_id: Name
    leader_incarnation: Label
    config: Config
    position: Seq = 0
    forced: Seq = 0
    founders: Annotated[dict[Url, Label], msgspec.Meta(max_length=MAX_FOLLOWERS)] = {}


class Promise(msgspec.Struct, frozen=True):
    """A node takes nothing of epochs below this one, nor of another attempt at this one.

    Attributes:
        epoch: The epoch.
        leader_id: Who wants to lead it, or does.
        attempt: Tells two attempts apart, those of the same node too.
    """

    epoch: Seq
    leader_id: Label
    attempt: Label = ""


class Meta(msgspec.Struct, frozen=True):
    """What a node knows of itself.

    Attributes:
        node_id: Its name.
        role: What it was told to be when it was new.
        incarnation: New whenever it starts without its data.
        cluster_id: Whose entries it holds; empty before it followed or led anyone.
        promise: The newest epoch that it heard of and agreed to.
        base: What its log began with; None makes it a learner.
        learned: Of a learner: the epoch of whose log its entries are.
        folded: Everything at or below is in the versions, and the log begins above.
        stable: Everything at or below was committed when this was written.
        generation: Which of two sets of versions on the disk is in use: a base that comes whole is
            written beside the old one.
        format: Version of the database's layout.
    """

    node_id: str
    role: Role
    incarnation: str
    cluster_id: str = ""
    promise: Promise | None = None
    base: BaseRecord | None = None
    learned: int = 0
    folded: Position = NOWHERE
    stable: Position = NOWHERE
    generation: int = 0
    format: int = FORMAT
