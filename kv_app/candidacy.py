"""How a node comes to lead: one attempt at a time, until its epoch is open or over."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from kv_app.errors import NotAttemptedError, OutbidError, StorageError
from kv_app.leader import Leader
from kv_app.peers import Peers
from kv_app.promoter import LedElsewhereError, Promotion, Wish, promote
from kv_app.respondent import Respondent

# How long a new epoch may wait for a majority of the nodes while nothing of its base comes to any.
OPEN_TIMEOUT_S: Final = 30.0
# And how long at all, for a follower may fail again and again in the middle of it.
OPEN_LIMIT_S: Final = 600.0
# And how long a promotion waits until enough followers count for a write.
COUNT_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Promoted:
    """What a promotion has done.

    Attributes:
        epoch: The epoch that this node leads now.
        sealed: The URLs of the voters that were sealed; none if it led already.
        write_quorum: k in force.
        required: How many followers had to be sealed without the old leader.
        holes_filled: How many positions nobody held.
        entries: The last position of the merged log.
        may_have_lost: What may be missing, one sentence; empty if nothing is.
    """

    epoch: int
    sealed: tuple[str, ...]
    write_quorum: int
    required: int
    holes_filled: int
    entries: int
    may_have_lost: str


class CandidacyOwner(Protocol):
    """The node that is to lead, as its candidacy sees it."""

    leader: Leader | None
    candidate: Leader | None
    is_draining: bool
    respondent: Respondent

    def stand(self, promotion: Promotion) -> Leader:
        """Begins to lead an epoch whose base it holds, as its candidate."""


class Candidacy:
    """The attempt of one node to lead, if one is under way."""

    def __init__(
        self, node: CandidacyOwner, peers: Peers, on_failure: Callable[[StorageError], None]
    ) -> None:
        """Makes one without an attempt.

        Args:
            node: Who is to lead.
            peers: How it reaches other nodes.
            on_failure: Called when the disk fails.
        """
        self._node = node
        self._peers = peers
        self._on_failure = on_failure
        self._attempt: asyncio.Task[Promoted] | None = None
        self._wish = Wish()

    @property
    def is_under_way(self) -> bool:
        """True while an attempt is made."""
        return self._attempt is not None and not self._attempt.done()

    async def stop(self) -> None:
        """Ends the attempt."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.gather(self._attempt, return_exceptions=True)

    async def promote(self, wish: Wish) -> Promoted:
        """Makes the node the leader of a new epoch.

        Joins an attempt that is under way, if that is what is wished, and else waits for its end.

        Raises:
            NotEnoughSurvivorsError: Who answers need not hold all that was acknowledged.
            OutbidError: Another node has promised a newer epoch, or the base came to too few nodes.
            LedElsewhereError: Another node leads, and this one wants to lead by itself.
            NotAttemptedError: It forms a cluster, or stops.
        """
        has_waited = False
        while True:
            self._check_not_draining()
            leader = self._node.leader
            is_anew = (
                wish.force and not has_waited and leader is not None and leader.base is not None
            )
            if leader is not None and not is_anew:
                return _leads_already(leader)
            if self._attempt is None or self._attempt.done():
                self._wish = wish
                self._attempt = asyncio.create_task(self._promote(wish))
            elif not _serves(self._wish, wish):
                await asyncio.gather(asyncio.shield(self._attempt), return_exceptions=True)
                has_waited = True
                continue
            try:
                return await asyncio.shield(self._attempt)
            except LedElsewhereError:
                if wish.is_own:
                    raise
                # It had joined an attempt of this node's own, which yields where another one leads.

    def _check_not_draining(self) -> None:
        if self._node.is_draining:
            raise NotAttemptedError("The node is stopping; promote another one.", reason="draining")

    async def _promote(self, wish: Wish) -> Promoted:
        try:
            promotion = await promote(self._node.respondent, self._peers, wish)
        except StorageError as error:
            self._on_failure(error)
            raise
        self._check_not_draining()  # what it holds by now, it leads with when it is back
        candidate = self._node.stand(promotion)
        await self._wait_open(candidate)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                await candidate.counted.wait()
        if self._node.leader is not candidate:
            raise OutbidError(f"Epoch {candidate.epoch} was over before it began; try again.")
        return Promoted(
            candidate.epoch,
            promotion.sealed,
            candidate.write_quorum,
            promotion.required,
            promotion.noops,
            promotion.base.position,
            promotion.may_have_lost,
        )

    async def _wait_open(self, candidate: Leader) -> None:
        loop = asyncio.get_running_loop()
        taught, ends_s = -1, loop.time() + OPEN_LIMIT_S
        # It falls where a follower begins anew: that is a change, too, and the limit bounds them.
        while (now := candidate.taught) != taught and loop.time() < ends_s:
            taught = now
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    await candidate.opened.wait()
                return
        if self._node.candidate is candidate:
            self._node.candidate = None
            await asyncio.gather(*candidate.abdicate(0), return_exceptions=True)
        raise OutbidError(
            f"The base of epoch {candidate.epoch} did not come to a majority of the nodes in time; "
            "try again."
        )


def _serves(made: Wish, wish: Wish) -> bool:
    """Tells if an attempt that was made for one wish does for another one what it asks."""
    if wish.is_own:
        return True
    is_forced = made.force or not wish.force
    return (
        is_forced
        and wish.urls in {(), made.urls}
        and wish.write_quorum in {None, made.write_quorum}
    )


def _leads_already(leader: Leader) -> Promoted:
    if not leader.is_open or leader.base is None:
        raise NotAttemptedError(
            "This node forms a new cluster and holds nothing yet; promote a node with data.",
            reason="forming",
        )
    return Promoted(leader.epoch, (), leader.write_quorum, 0, 0, leader.log.last_seq, "")
