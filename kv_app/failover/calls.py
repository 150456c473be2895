"""What nodes ask each other to find a new leader, outside of the replication channel. No logic."""

from typing import Annotated

import msgspec

from kv_app.bounds import MAX_FOLLOWERS, Label, Name, Seq, Url
from kv_app.messages import Entry, SeqRange
from kv_app.meta import BaseRecord, Config, Promise

# --- questions ---------------------------------------------------------------------------------


class Probe(msgspec.Struct, frozen=True, tag=True):
    """Asks a node where it stands. Changes nothing."""


class Seal(msgspec.Struct, frozen=True, tag=True):
    """Asks a node to take nothing of older epochs any more, and to say what it holds.

    Attributes:
        cluster_id: Of whom.
        promise: What it is to promise.
    """

    cluster_id: Label
    promise: Promise


class Check(msgspec.Struct, frozen=True, tag=True):
    """Asks a node whether its promise still holds: it may have lost it with its data.

    Attributes:
        promise: What it has promised.
        incarnation: That which it had then.
    """

    promise: Promise
    incarnation: Label


class Fetch(msgspec.Struct, frozen=True, tag=True):
    """Asks a node for entries of its log. It must have promised.

    Attributes:
        promise: What it has promised.
        incarnation: That which it had then.
        ranges: Which entries; it has all of them.
    """

    promise: Promise
    incarnation: Label
    ranges: list[SeqRange]


class Recall(msgspec.Struct, frozen=True, tag=True):
    """Tells a node that it led a cluster, which it does not know if it has lost everything.

    The answer is that to a ``Probe``.

    Attributes:
        cluster_id: Which one.
        leader_id: The name of the node that is meant; others do nothing.
        urls: All members.
    """

    cluster_id: Label
    leader_id: Label
    urls: Annotated[tuple[Url, ...], msgspec.Meta(max_length=MAX_FOLLOWERS + 1)]


class FetchWhole(msgspec.Struct, frozen=True, tag=True):
    """Asks a node for all that is settled: the versions and the idempotency keys.

    Attributes:
        promise: What it has promised.
        incarnation: That which it had then.
    """

    promise: Promise
    incarnation: Label


Question = Probe | Seal | Check | Fetch | Recall

# --- answers -----------------------------------------------------------------------------------


class Probed(msgspec.Struct, frozen=True, tag=True):
    """Where a node stands.

    Attributes:
        node_id: Its name.
        cluster_id: Whose entries it holds; empty if it is new.
        promised: The newest epoch that it has promised itself to.
        base: What its log began with; None makes it a learner.
        config: The newest configuration that it holds, committed or not.
        config_epoch: With ``config_seq`` the position of its record; (0, 0) if it is the base's.
        config_seq: See ``config_epoch``.
        contiguous: Highest seq below which it has no hole.
        max_seq: Highest seq that it holds.
        holes: How many below that are missing.
        is_leading: True if it takes writes as the leader of its epoch.
        leader_url: Where the leader is that it last heard of.
        incarnation: New whenever it starts without its data.
    """

    node_id: Name
    cluster_id: Label
    promised: Seq
    base: BaseRecord | None
    config: Config | None
    config_epoch: Seq
    config_seq: Seq
    contiguous: Seq
    max_seq: Seq
    holes: Seq
    is_leading: bool
    leader_url: Url | None
    incarnation: Label


class Sealed(msgspec.Struct, frozen=True, tag=True):
    """A node has promised, durably, and holds this.

    All that it has acknowledged or may still acknowledge is in it, and all of it is as durable as
    an acknowledgment says.

    Attributes:
        node_id: Its name.
        incarnation: New whenever it starts without its data.
        base: What its log began with; None makes it a learner.
        config: The newest configuration that it holds, committed or not.
        config_epoch: With ``config_seq`` the position of its record; (0, 0) if it is the base's.
        config_seq: See ``config_epoch``.
        settled: All up to there it holds and knows to be committed.
        start: Of what is at or below it has the versions only, not the entries.
        contiguous: Highest seq below which it has no hole.
        above: What it holds above ``contiguous``, ascending.
    """

    node_id: Name
    incarnation: Label
    base: BaseRecord | None
    config: Config | None
    config_epoch: Seq
    config_seq: Seq
    settled: Seq
    start: Seq
    contiguous: Seq
    above: list[SeqRange]


class Denied(msgspec.Struct, frozen=True, tag=True):
    """A node does not agree.

    Attributes:
        reason: One sentence.
        promised: The newest epoch that it has promised itself to.
    """

    reason: str
    promised: Seq


class Held(msgspec.Struct, frozen=True, tag=True):
    """A node's promise still holds."""


class Fetched(msgspec.Struct, frozen=True, tag=True):
    """The first of the entries that were asked for, at least one; the rest has to be asked again.

    Attributes:
        entries: Ascending.
    """

    entries: list[Entry]


Answer = Probed | Sealed | Denied | Held | Fetched
