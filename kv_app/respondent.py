"""What a node answers another one that wants to lead: where it stands, what it holds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

from kv_app.bounds import MAX_SEQ
from kv_app.failover.calls import (
    Answer,
    Check,
    Denied,
    Fetch,
    Fetched,
    FetchWhole,
    Held,
    Probe,
    Probed,
    Question,
    Recall,
    Seal,
    Sealed,
)
from kv_app.failover.promises import allows
from kv_app.leader import Leader
from kv_app.log import memory_of
from kv_app.peer_checks import check_ranges
from kv_app.replica import Replica
from kv_app.snapshot import snapshot_frames

if TYPE_CHECKING:
    from kv_app.messages import Entry

FETCH_BYTES: Final = 4 << 20


class RespondentOwner(Protocol):
    """The node that is asked, as its respondent sees it."""

    replica: Replica
    leader: Leader | None

    @property
    def leader_url(self) -> str | None:
        """Where the leader is, as far as it knows."""

    def position(self) -> tuple[int, int, int]:
        """Returns the epoch, the contiguous position and the highest one of what it holds."""

    def give_way(self, promised: int, cluster_id: str) -> None:
        """Leads no more, and takes nothing of the epochs before a newer one of a cluster."""

    def lead_again(self, urls: tuple[str, ...]) -> None:
        """Begins to lead again, unless it has a role or another node leads it."""


class Respondent:
    """Answers for one node; what it asks of itself, too, when it wants to lead."""

    def __init__(self, node: RespondentOwner) -> None:
        self._node = node

    @property
    def replica(self) -> Replica:
        """What the node holds."""
        return self._node.replica

    async def answer(self, question: Question) -> Answer:
        """Answers a question."""
        match question:
            case Probe():
                return self.probed()
            case Seal():
                return await self.seal(question)
            case Check():
                return self._denial(question) or Held()
            case Fetch():
                return self._denial(question) or self._fetched(question)
            case Recall():
                self._recalled(question)
                return self.probed()

    def probed(self) -> Probed:
        """Returns where the node stands."""
        replica, leader = self.replica, self._node.leader
        config, (config_epoch, config_seq) = replica.config()
        _, contiguous, max_seq = self._node.position()
        held = replica.held
        return Probed(
            replica.settings.node_id,
            replica.meta.cluster_id,
            replica.promised,
            replica.meta.base,
            config,
            config_epoch,
            config_seq,
            contiguous,
            max_seq,
            0 if leader is not None else held.holes,
            leader is not None and leader.is_open,
            self._node.leader_url,
            replica.meta.incarnation,
        )

    async def seal(self, seal: Seal) -> Sealed | Denied:
        """Promises, if the node may, and says what it holds; all of it is durable then."""
        replica = self.replica
        meta = replica.meta
        is_member = meta.cluster_id == seal.cluster_id
        if not is_member and not (replica.is_empty and meta.base is None):
            return Denied("it holds the data of another cluster", promised=0)
        promise = meta.promise if is_member else None
        if not seal.promise.epoch or not allows(promise, seal.promise):
            return Denied(f"it is in epoch {replica.promised}", replica.promised)
        if promise != seal.promise:
            # From here on nothing of older epochs is taken, though the answer is still to come.
            self._node.give_way(seal.promise.epoch, seal.cluster_id)
            replica.join(seal.cluster_id, seal.promise)
        if replica.commits is not None:
            await replica.commits.flush()
        if replica.meta.promise != seal.promise:
            return Denied(f"it is in epoch {replica.promised}", replica.promised)
        config, (config_epoch, config_seq) = replica.config()
        return Sealed(
            replica.settings.node_id,
            replica.meta.incarnation,
            replica.meta.base,
            config,
            config_epoch,
            config_seq,
            replica.settled_seq,
            replica.log.start,
            replica.held.contiguous,
            replica.held.ranges_above(),
        )

    def whole(self, question: FetchWhole) -> Iterator[bytes]:
        """Yields the messages of a snapshot of all that is settled; ends early if it is denied."""
        replica = self.replica
        if self._denial(question) is not None:
            return
        position = replica.settled_seq
        remembered = replica.idempotency.remembered(position)
        for frame in snapshot_frames(replica.state, remembered, position):
            if self._denial(question) is not None:
                return
            yield frame

    def _recalled(self, recall: Recall) -> None:
        replica = self.replica
        is_meant = recall.leader_id == replica.settings.node_id
        has_nothing = replica.is_empty and replica.meta.base is None
        if is_meant and has_nothing and replica.meta.cluster_id in {"", recall.cluster_id}:
            self._node.lead_again(recall.urls)

    def _denial(self, question: Check | Fetch | FetchWhole) -> Denied | None:
        meta = self.replica.meta
        if meta.incarnation != question.incarnation:
            return Denied("it has lost its data since", self.replica.promised)
        if meta.promise != question.promise:
            return Denied(f"it is in epoch {self.replica.promised}", self.replica.promised)
        return None

    def _fetched(self, question: Fetch) -> Fetched:
        check_ranges(question.ranges, above=0, upto=MAX_SEQ)
        entries: list[Entry] = []
        size = 0
        for span in question.ranges:
            for seq in range(span.first, span.last + 1):
                entry = self.replica.log.get(seq)
                if entry is None or size > FETCH_BYTES:
                    return Fetched(entries)
                entries.append(entry)
                size += memory_of(entry)
        return Fetched(entries)
