"""What happened in a simulated cluster, and what must never happen."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kv_app.bounds import MAX_SEQ
from kv_app.messages import Entry, Operation
from kv_app.state import CONFIG_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kv_app.leader import Leader
    from kv_app.log import IdempotencyIndex
    from kv_app.messages import Version
    from kv_app.node import Node
    from kv_app.state import State

# Some are written and deleted all the time, the others rarely: their deletions are forgotten.
HOT_KEYS, COLD_KEYS = "abc", "defgh"
KEYS = HOT_KEYS + COLD_KEYS
# So many of the last idempotency keys are looked up at a check, if more are remembered.
CHECKED_KEYS = 30

Position = tuple[int, int]
NOWHERE: Position = (0, 0)
# A node in one of its lives: its name, and its incarnation.
Life = tuple[str, str]


class Violation(AssertionError):  # noqa: N818  it is what is looked for
    """A promise of the store is broken."""


@dataclass
class Opening:
    """An epoch that began.

    Attributes:
        epoch: The epoch.
        start: What is at or below is known by versions only.
        entries: The epoch of the entry at each position above.
        last: The last position of the base.
    """

    epoch: int
    start: int
    entries: dict[int, int]
    last: int

    def has(self, position: Position) -> bool:
        """Tells if an entry of an older epoch is in the base, as far as that can be told."""
        epoch, seq = position
        return seq <= self.start or self.entries.get(seq) == epoch


@dataclass
class Acknowledged:
    """A write that a client was told of.

    Attributes:
        entry: What was written.
        holders: Who held it then.
    """

    entry: Entry
    holders: set[Life]


@dataclass
class History:
    """All entries, acknowledgments and openings of a run.

    Attributes:
        lost_lives: Nodes in lives whose data are gone.
        idempotency_keys: How many idempotency keys each node remembers.
        entries: Every entry that was ever appended, by its position.
        acknowledged: Those whose clients were told "done".
        refused: Values that were definitely refused.
        openings: All epochs that opened.
        joined: The nodes that ever held a base.
        settled: By seq, what some node takes for committed, and who held it when that was seen.
        uses: By idempotency key, where it was appended.
        keyed: All positions with an idempotency key, ascending.
    """

    lost_lives: set[Life]
    idempotency_keys: int
    entries: dict[Position, Entry] = field(default_factory=dict)
    acknowledged: dict[Position, Acknowledged] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    openings: list[Opening] = field(default_factory=list)
    joined: set[str] = field(default_factory=set)
    settled: dict[int, Acknowledged] = field(default_factory=dict)
    seen: dict[str, dict[str, Version]] = field(default_factory=dict)
    settled_to: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    uses: dict[str, list[Position]] = field(default_factory=dict)
    keyed: list[Position] = field(default_factory=list)

    def count(self, what: str) -> None:
        """Counts something, for the summary of a run."""
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- what happens -----------------------------------------------------------------------------

    def appended(self, leader: Leader, entry: Entry) -> None:
        """A leader gave an entry a position: nobody may have used that before (I6).

        Nor may its idempotency key be one that is to be remembered (I5).
        """
        position = (entry.epoch, entry.seq)
        if position in self.entries:
            raise Violation(f"I6: {position} is {self.entries[position]} and {entry}")
        key = entry.idempotency_key
        if key is not None:
            for earlier in self.uses.get(key, ()):
                if self.is_promised(earlier) and self._is_in_log_of(leader, earlier):
                    raise Violation(f"I5: {key} is at {earlier}, and written again at {position}")
            self.uses.setdefault(key, []).append(position)
            insort(self.keyed, position)
        self.entries[position] = entry

    def is_promised(self, position: Position) -> bool:
        """Tells if the idempotency key of a position is among the last that nodes remember.

        All that were ever appended count as newer, also those that an epoch began without: a node
        that held them may have forgotten others for them.
        """
        return self._newer(position) < self.idempotency_keys

    def _newer(self, position: Position) -> int:
        return len(self.keyed) - bisect_right(self.keyed, position)

    def _is_in_log_of(self, leader: Leader, position: Position) -> bool:
        """Tells if a leader's log has, or had before it dropped it, the entry of a position."""
        entry = self.entries[position]
        if (record := leader.log.get(entry.seq)) is not None:
            return record.entry == entry
        settled = self.settled.get(entry.seq)
        known = self.acknowledged.get(position)
        if known is None and settled is not None and settled.entry == entry:
            known = settled
        return known is not None and not known.holders <= self.lost_lives

    def conflicted(self, key: str, position: Position) -> None:
        """A retry was refused: its key means a write of a position (I5).

        Raises:
            Violation: The key means a newer write, which was acknowledged.
        """
        for other in self.uses.get(key, ()):
            known = self.acknowledged.get(other)
            if other > position and known is not None and self.is_promised(other):
                self._excuse(known, f"I5: {key} means {position} again, {other} was acknowledged")

    def acknowledge(
        self,
        leader: Leader,
        entry: Entry,
        required: int,
        nodes: Iterable[Node],
        names: Iterable[str],
    ) -> None:
        """A client is told "done" (I3, I4, I10)."""
        position = (entry.epoch, entry.seq)
        self.count("acknowledged")
        for opening in self.openings:
            if opening.epoch > entry.epoch and not opening.has(position):
                raise Violation(
                    f"I4: {position} acknowledged, and epoch {opening.epoch} began without it"
                )
        if position in self.acknowledged:
            return
        lives = {life_of(node) for node in nodes if holds(node, entry)}
        followers = {life for life in lives if life != leader_life(leader)}
        # Who is down may have acknowledged before; so may who has lost its data since.
        running = {node.settings.node_id for node in nodes}
        gone = {name for name, _ in self.lost_lives} | (set(names) - running)
        gone -= {name for name, _ in lives}
        if entry.epoch == leader.epoch and len(followers) + len(gone) < required:
            raise Violation(
                f"I3: {position} acknowledged with k={required}, held by {sorted(followers)}"
            )
        self.acknowledged[position] = Acknowledged(entry, lives)

    def opened(self, leader: Leader) -> None:
        """An epoch begins (I1, I5, I6)."""
        self.count("openings")
        log = leader.log
        entries = {}
        for seq in range(log.first_seq, log.last_seq + 1):
            record = log.get(seq)
            if record is not None and record.entry.epoch < leader.epoch:
                entries[seq] = record.entry.epoch
                self.check_known(record.entry)
        last = leader.base.position if leader.base is not None else 0
        opening = Opening(leader.epoch, log.first_seq - 1, entries, last)
        if any(other.epoch == leader.epoch for other in self.openings):
            raise Violation(f"epoch {leader.epoch} opened twice")
        for other in self.openings:
            self._check_order(other, opening)
        for position, write in self.acknowledged.items():
            if position[0] < leader.epoch and not opening.has(position):
                self._excuse(write, f"I1: {position} is lost in epoch {leader.epoch}")
        for write in self.settled.values():
            position = (write.entry.epoch, write.entry.seq)
            if position[0] < leader.epoch and not opening.has(position):
                self._excuse(write, f"I11: {position} was settled, and {leader.epoch} lacks it")
        self.openings.append(opening)
        self._check_keys(leader)
        self._check_versions(leader)

    def _check_order(self, other: Opening, opening: Opening) -> None:
        """What one epoch began without never comes back in a later one."""
        older, newer = sorted((other, opening), key=lambda one: one.epoch)
        for seq, epoch in newer.entries.items():
            if epoch < older.epoch and seq > older.start and not older.has((epoch, seq)):
                raise Violation(
                    f"({epoch}, {seq}) came back in epoch {newer.epoch}; {older.epoch} began "
                    "without it"
                )

    def _check_keys(self, leader: Leader) -> None:
        """Each idempotency key is in the log once, unless it was forgotten between (I5)."""
        seen: dict[str, Position] = {}
        for seq in range(leader.log.first_seq, leader.log.last_seq + 1):
            record = leader.log.get(seq)
            key = record.entry.idempotency_key if record is not None else None
            if record is None or key is None:
                continue
            position, before = (record.entry.epoch, seq), seen.get(key)
            if before is not None:
                between = self._newer(before) - self._newer(position) - 1
                if between < self.idempotency_keys:
                    raise Violation(f"I5: {key} is at {before} and at {position}")
            seen[key] = position
        for key, (_, seq) in seen.items():
            found = leader.idempotency.find(key)
            if found is not None and found.seq != seq:
                raise Violation(f"I5: {key} is at {seq} and remembered at {found.seq}")

    def check_remembered(self, node: Node) -> None:
        """A voter remembers the last idempotency keys of what it holds (I5)."""
        index = node.replica.idempotency
        for position in self.keyed[-min(self.idempotency_keys, CHECKED_KEYS) :]:
            known = self.acknowledged.get(position)
            if known is None or not holds(node, known.entry):
                continue
            key = known.entry.idempotency_key or ""
            found = index.find(key)
            if max(self.uses[key]) == position and (
                found is None or (found.epoch, found.seq) != position
            ):
                where = found and (found.epoch, found.seq)
                self._excuse(
                    known,
                    f"I5: {node.settings.node_id} remembers {key} at {where}, it is at {position}",
                )

    def _check_versions(self, leader: Leader) -> None:
        """Every key is at least as new as what was acknowledged of it (I1, behind the log too)."""
        newest: dict[str, Acknowledged] = {}
        for position in sorted(self.acknowledged):
            write = self.acknowledged[position]
            for key in keys_of(write.entry):
                newest[key] = write
        for key, write in newest.items():
            version = leader.state.read(key)
            shown = (version.epoch, version.seq) if version is not None else NOWHERE
            wanted = (write.entry.epoch, write.entry.seq)
            if shown < wanted and not (version is None and self.was_deleted(key, wanted)):
                self._excuse(write, f"I1: {key} is at {shown}, acknowledged at {wanted}")

    def was_deleted(self, key: str, since: Position) -> bool:
        """Tells if a key that is not there may have been deleted: replicas forget deletions."""
        return any(
            position >= since and key in keys_of(entry) and value_of(entry, key) is None
            for position, entry in self.entries.items()
        )

    def _excuse(self, write: Acknowledged, what: str) -> None:
        """Lets a loss pass if all who held the write have lost their data since."""
        if not write.holders <= self.lost_lives:
            raise Violation(what)
        self.count("lost with all that held it")

    def check_known(self, entry: Entry) -> None:
        """An entry is what was appended at its position, everywhere (I6); never a refused one."""
        if entry.operation == Operation.NOOP:
            self.entries.setdefault((entry.epoch, entry.seq), entry)
        known = self.entries.get((entry.epoch, entry.seq))
        if known != entry:
            raise Violation(f"I6: {entry} where {known} was appended")
        if entry.value in self.refused:
            raise Violation(f"I5: {entry} was definitely refused")

    def check_settled(self, node: Node, nodes: Sequence[Node]) -> None:
        """What a node takes for committed is the same on all, and in all later epochs (I11)."""
        leader, replica = node.leader or node.candidate, node.replica
        settled = leader.stable_seq if leader is not None else replica.settled_seq
        place = f"{node.settings.start_id}/{replica.promised}/{replica.base_epoch}"
        first = self.settled_to.get(place, 0) + 1
        self.settled_to[place] = settled
        for seq in range(first, settled + 1):
            record = leader.log.get(seq) if leader is not None else None
            entry = record.entry if record is not None else replica.log.get(seq)
            known = self.settled.get(seq)
            if entry is None or (known is not None and known.entry == entry):
                continue
            if known is not None:
                self._excuse(known, f"I11: {entry} is settled, and so is {known.entry}")
            self.settled[seq] = Acknowledged(
                entry, {life_of(one) for one in nodes if holds(one, entry)}
            )

    def check_dropped(self, entry: Entry) -> None:
        """What is kept aside as lost is not what later epochs have (I1): that would mislead."""
        known = self.settled.get(entry.seq)
        is_settled = known is not None and known.entry == entry
        write = self.acknowledged.get((entry.epoch, entry.seq), known if is_settled else None)
        position = entry.epoch, entry.seq
        is_deleted = any(self.was_deleted(key, position) for key in keys_of(entry))
        if write is not None and not is_deleted:
            self._excuse(write, f"{entry} is kept, and is dropped nevertheless")

    def check_node(self, node: Node) -> None:
        """What a node shows of a key never falls within an epoch (I6)."""
        if node.replica.base_epoch:
            self.joined.add(node.settings.node_id)
        # A learner begins anew with each epoch, so that what it shows may fall.
        base = node.replica.base_epoch or -node.replica.meta.learned
        seen = self.seen.setdefault(f"{node.settings.start_id}/{base}", {})
        for key in KEYS:
            version, before = node.state.read(key), seen.get(key)
            if version is None or version is before:
                continue
            if before is not None and (version.epoch, version.seq) < (before.epoch, before.seq):
                raise Violation(f"I6: {node.settings.node_id} shows {version} of {key} at {before}")
            seen[key] = version

    def floor_of(self, key: str) -> Position:
        """Returns the newest position that was acknowledged of a key, and cannot be excused."""
        return max(
            (
                position
                for position, write in self.acknowledged.items()
                if key in keys_of(write.entry) and not write.holders <= self.lost_lives
            ),
            default=NOWHERE,
        )


def keys_of(entry: Entry) -> tuple[str, ...]:
    """Returns the keys that an entry changes."""
    if entry.operation in {Operation.PUT, Operation.DELETE}:
        return (entry.key,)
    return tuple(change.key for change in entry.changes)


def value_of(entry: Entry, key: str) -> str | None:
    """Returns what an entry makes of a key."""
    if entry.changes:
        return next(change.value for change in entry.changes if change.key == key)
    return entry.value


def settled_of(node: Node) -> dict[str, Version]:
    """Returns what a node knows to be settled of each key."""
    beneath = node.state._beneath
    settled = {}
    for bucket in node.state._buckets:
        for key, newest in bucket.items():
            version = beneath[key][0] if key in beneath else newest
            if version is not None:
                settled[key] = version
    return settled


def check_disk(node: Node) -> None:
    """What a disk shows at its fold is what the node shows (I12): it would come back.

    Raises:
        Violation: They differ.
    """
    storage = node.replica.storage
    if storage is None:
        return
    name, settled = node.settings.node_id, settled_of(node)
    on_disk = dict(storage.versions())
    for key, version in on_disk.items():
        shown = settled.get(key)
        if shown is None or (shown.epoch, shown.seq) < (version.epoch, version.seq):
            raise Violation(f"I12: {name} has {key} at {shown}, its disk at {version}")
    for key, shown in settled.items():
        is_folded = shown.value is not None and shown.seq <= storage.meta.folded[1]
        if is_folded and on_disk.get(key) != shown:
            raise Violation(f"I12: {name} has {key} at {shown}, its disk at {on_disk.get(key)}")


def check_recovered(node: Node, state: State, idempotency: IdempotencyIndex) -> None:
    """What is read from a disk at a start is what the node held before (I12).

    Raises:
        Violation: They differ.
    """
    name = node.settings.node_id
    if state.digests() != node.state.digests():
        raise Violation(
            f"I12: {name} shows {node.state.values()}, after a restart {state.values()}"
        )
    for write in node.replica.idempotency.remembered(MAX_SEQ):
        found = idempotency.find(write.idempotency_key)
        if found is None or (found.epoch, found.seq) != (write.epoch, write.seq):
            raise Violation(f"I12: {name} does not remember {write} after a restart")


def life_of(node: Node) -> Life:
    """Returns a node in its present life."""
    return node.settings.node_id, node.replica.meta.incarnation


def leader_life(leader: Leader) -> Life:
    """Returns the node that leads, in its present life."""
    replica = leader._replica
    return replica.meta.node_id, replica.meta.incarnation


def holds(node: Node, entry: Entry) -> bool:
    """Tells if a node is a voter of an entry's epoch, or of a later one, and holds the entry."""
    replica = node.replica
    if replica.base_epoch < entry.epoch:
        return False
    leader = node.leader or node.candidate
    if leader is not None:
        record = leader.log.get(entry.seq)
        return entry.seq < leader.log.first_seq or (record is not None and record.entry == entry)
    if entry.seq <= replica.log.start:
        return True
    return replica.log.get(entry.seq) == entry


def config_of(node: Node) -> object:
    """Returns what a node holds as its configuration."""
    return node.state.read(CONFIG_KEY)
