"""What a node knows of itself, and keeps on its disk if it has one. No logic."""

from typing import Final

import msgspec

from kv_app.messages import Role

# Version of the database's layout.
FORMAT: Final = 1

Position = tuple[int, int]
NOWHERE: Final[Position] = (0, 0)


class Member(msgspec.Struct, frozen=True):
    """A node of the cluster; the leader is one too."""

    node_id: str
    url: str


class Config(msgspec.Struct, frozen=True):
    """Who belongs to the cluster, and how many must acknowledge.

    Attributes:
        members: All nodes; n is one less.
        write_quorum: k.
        floor: f: no acknowledged write is on fewer followers.
    """

    members: tuple[Member, ...]
    write_quorum: int
    floor: int


class BaseRecord(msgspec.Struct, frozen=True):
    """The base that a node holds: what an epoch began with.

    Attributes:
        epoch: The epoch.
        leader_id: Who leads it.
        config: The configuration with which it began, if the node was told.
        position: The last position of earlier epochs that belongs to it.
    """

    epoch: int
    leader_id: str
    config: Config | None = None
    position: Position = NOWHERE


class Promise(msgspec.Struct, frozen=True):
    """A node takes nothing of epochs below this one.

    Attributes:
        epoch: The epoch.
        leader_id: Who wants to lead it.
        attempt: Tells two attempts of the same node apart.
    """

    epoch: int
    leader_id: str
    attempt: str = ""


class Meta(msgspec.Struct, frozen=True):
    """What a node knows of itself.

    Attributes:
        node_id: Its name.
        role: What it is.
        incarnation: New whenever it starts without its data.
        cluster_id: Whose entries it holds; empty before it followed or led anyone.
        promise: The newest epoch that it heard of and agreed to.
        base: What it holds of it; None makes it a learner.
        folded: Everything at or below is in the versions, and the log begins above.
        stable: Everything at or below was committed when this was written.
        format: Version of the database's layout.
    """

    node_id: str
    role: Role
    incarnation: str
    cluster_id: str = ""
    promise: Promise | None = None
    base: BaseRecord | None = None
    folded: Position = NOWHERE
    stable: Position = NOWHERE
    format: int = FORMAT
