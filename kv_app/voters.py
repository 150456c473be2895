"""The followers of a leader: who may follow, who becomes a voter, who confirms that it leads."""

from collections.abc import Sequence
from typing import Protocol

from kv_app.channel import Link
from kv_app.confirmations import Confirmations
from kv_app.errors import ChannelError, NotConfirmedError
from kv_app.failover.electors import confirmations_of, has_majority
from kv_app.failover.sufficiency import is_founder
from kv_app.formation import Decision, Standing
from kv_app.messages import Welcome
from kv_app.meta import BaseRecord
from kv_app.quorum import QuorumTracker
from kv_app.quorum_changes import QuorumChanges
from kv_app.replica import Replica


class VotersOwner(Protocol):
    """The leader, as its voters see it."""

    @property
    def base(self) -> BaseRecord | None:
        """What its epoch began with; None before the cluster is formed."""

    @property
    def decision(self) -> Decision:
        """Whether it takes writes, or else why not."""

    @property
    def is_open(self) -> bool:
        """True once its epoch takes writes."""

    @property
    def links(self) -> Sequence[Link]:
        """One per follower."""

    def try_form(self) -> None:
        """Forms a cluster if its followers allow it."""


class Voters:
    """Which followers of one leader are let in, and what they vouch for."""

    def __init__(
        self,
        replica: Replica,
        tracker: QuorumTracker,
        changes: QuorumChanges,
        owner: VotersOwner,
        *,
        own_url: str,
        is_blank: bool,
        needed: Sequence[str] | None,
    ) -> None:
        """Knows of no voter but the leader.

        Args:
            replica: What the leader's node holds.
            tracker: What counts their acknowledgments.
            changes: The write quorum, whose floor says how many have to confirm.
            owner: The leader; its links may still have to be made.
            own_url: The leader's, among the members.
            is_blank: True if the leader does not count for opening.
            needed: The URLs of those that have to hold the base before it opens; a majority of the
                electors if not given.
        """
        self._replica = replica
        self._tracker = tracker
        self._changes = changes
        self._owner = owner
        self._own_url = own_url
        self._urls = set() if is_blank else {own_url}
        self._needed = frozenset(needed) if needed is not None else None
        self._confirmations = Confirmations(self._ask_all, replica.settings.max_in_flight)
        # Which rounds of questions the learners that are connected have to wait for.
        self._admissions: dict[int, int] = {}

    # --- opening ------------------------------------------------------------------------------

    def add(self, link: Link) -> None:
        """Notes that a follower holds the base."""
        self._urls.add(link.url)

    def may_open(self, base: BaseRecord) -> bool:
        """Tells if enough nodes hold a base: those that were named, or else a majority."""
        if self._needed is not None:
            return self._needed <= self._urls | {self._own_url}
        return has_majority(base.config.members, self._urls)

    # --- what the links report ----------------------------------------------------------------

    def on_welcome(self, link: Link, welcome: Welcome) -> None:
        """Decides whether a follower may follow.

        Raises:
            ChannelError: It may not, and why.
        """
        for other in self._owner.links:
            if other is not link and other.is_welcome and other.node_id == welcome.node_id:
                raise ChannelError(
                    f"NODE_ID {welcome.node_id!r} is also that of {other.url}; give each node its "
                    "own"
                )
        if welcome.node_id == self._replica.settings.node_id:
            raise ChannelError(
                f"NODE_ID {welcome.node_id!r} is also that of its leader; give each node its own"
            )
        self._forget(welcome.node_id)
        cluster_id = self._replica.meta.cluster_id
        holds_any = bool(welcome.cluster_id or welcome.contiguous or welcome.above)
        link.has_data = holds_any and welcome.cluster_id != cluster_id
        self._owner.try_form()
        if link.has_data:
            raise ChannelError("it holds the entries of an earlier leader, and is left as it is")

    def _forget(self, node_id: str) -> None:
        """Takes back what a node acknowledged before its welcome, which says what it holds now.

        It may have lost it in a restart, or have acknowledged it on the link of another URL.
        """
        for link in self._owner.links:
            if link.node_id == node_id:
                self._tracker.forget(link.index)
                self._confirmations.forget(link.index)

    def on_connected(self, link: Link) -> None:
        """Asks whether this node still leads, before a learner may be let in.

        Also when another one connects for which a learner may have to wait.
        """
        owner = self._owner
        is_forming = owner.base is not None and owner.decision.standing is Standing.FORMING
        may_ask = owner.is_open or is_forming
        if may_ask and any(one.is_learner for one in owner.links):
            number = self._confirmations.begin()
            if link.is_learner and not link.is_older_voter:
                self._admissions[link.index] = number

    def may_admit(self, link: Link) -> bool:
        """Tells if a learner that has caught up may be given the base: it is to count from then on.

        Nobody may have begun a newer epoch since it connected: it might have promised itself to
        that, and have forgotten it with its data. A founder has forgotten nothing. Before the first
        epoch opens all others have to be heard, for there are no voters yet.
        """
        owner = self._owner
        if owner.base is not None and is_founder(owner.base, link.url, link.incarnation):
            return True
        number = self._admissions.get(link.index)
        if number is None:
            return False
        followers, confirmations = len(owner.links), self._confirmations
        if confirmations.all(number) == followers:
            return True
        needed = confirmations_of(self._changes.now.floor, followers)
        return owner.is_open and confirmations.voters(number) >= needed

    def on_confirmed(self, link: Link, number: int) -> None:
        """Counts a follower's word that this node still leads."""
        self._confirmations.note(link.index, number, is_voter=not link.is_learner)
        for other in self._owner.links:
            if other.is_learner:
                other.teach()

    # --- confirming the leader ----------------------------------------------------------------

    async def confirm(self) -> None:
        """Waits until it is sure that no newer epoch had begun when this was called.

        Raises:
            NotConfirmedError: Too few followers confirmed it in time, or none can: f is 0.
            TooManyInFlightError: Too many reads wait for that already.
        """
        owner = self._owner
        followers, floor = len(owner.links), self._changes.now.floor
        if not owner.is_open:
            raise NotConfirmedError(f"This node cannot tell if it leads: {owner.decision.reason}.")
        if floor == 0 < followers:
            raise NotConfirmedError(
                "With a write quorum of 0 no follower has to know of a write, and so none can "
                "confirm the leader; raise it, or read without consistency=linearizable."
            )
        needed = confirmations_of(floor, followers)
        request_timeout_s = self._replica.settings.request_timeout_s
        if not await self._confirmations.wait(needed, request_timeout_s):
            raise NotConfirmedError(
                f"{needed} followers have to confirm that this node leads, and did not in time; "
                "bring followers back, or ask who leads."
            )

    def _ask_all(self, number: int) -> None:
        for link in self._owner.links:
            link.ask(number)

    def end(self) -> None:
        """Ends all that wait for a confirmation: this node leads no more."""
        self._confirmations.end()
