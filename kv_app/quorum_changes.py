"""The write quorum of a leader, and how it comes to another one while writes go on.

``failover/quorum_change.py`` decides; here its decisions are recorded and carried out.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from kv_app.channel import Link
from kv_app.errors import ChangeUnderWayError, MalformedError
from kv_app.failover import quorum_change
from kv_app.failover.quorum_change import Quorums, Record
from kv_app.formation import Decision, Standing
from kv_app.log import Log, LogRecord
from kv_app.meta import BaseRecord
from kv_app.quorum import QuorumTracker
from kv_app.waits import unknown

logger = logging.getLogger("kv_app.quorum_changes")


class QuorumOwner(Protocol):
    """The leader, as the changes of its write quorum see it."""

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

    def append_config(self, record: Record) -> LogRecord:
        """Appends what the log says from here on."""

    def check_may_write(self) -> None:
        """Refuses a write that cannot be tried now.

        Raises:
            StoreError: A definite failure.
        """

    def try_form(self) -> None:
        """Forms a cluster if its followers allow it with this write quorum."""

    async def wait_committed(self, record: LogRecord) -> None:
        """Waits until a record is committed.

        Raises:
            OutcomeUnknownError: Its quorum did not answer in time.
        """


class QuorumChanges:
    """Changes the write quorum of one leader.

    Attributes:
        now: k, f, and what becomes of them. The tracker counts with the same k.
        is_changing: That of ``now``, kept since every acknowledgment asks for it.
    """

    def __init__(
        self,
        now: Quorums,
        log: Log,
        tracker: QuorumTracker,
        owner: QuorumOwner,
        request_timeout_s: float,
    ) -> None:
        """Changes nothing yet.

        Args:
            now: What is in force; nothing waits.
            log: The leader's.
            tracker: What counts for k.
            owner: The leader; its links may still have to be made.
            request_timeout_s: How long a request waits until a lowering comes into force.
        """
        self.now = now
        self.is_changing = now.is_changing
        self._log = log
        self._tracker = tracker
        self._owner = owner
        self._request_timeout_s = request_timeout_s
        self._loop = asyncio.get_running_loop()
        self._lowered: asyncio.Future[None] | None = None
        # What made k what it is; None if the base did, which is committed.
        self._newest: LogRecord | None = None

    def _become(self, now: Quorums) -> None:
        self.now = now
        self.is_changing = now.is_changing

    def begin(self, write_quorum: int) -> LogRecord | None:
        """Begins to change k.

        Returns:
            The record of the change; if k is that already, the one that made it so. None if there
            is none: the epoch began with it, or the cluster is not formed yet.

        Raises:
            MalformedError: It is not from 0 to the number of followers.
            NotAttemptedError: The epoch has not begun, or the node stops.
            ChangeUnderWayError: k is being lowered.
        """
        owner = self._owner
        if not 0 <= write_quorum <= len(owner.links):
            raise MalformedError(
                f"write_quorum={write_quorum} must be from 0 to {len(owner.links)}, "
                "the number of followers."
            )
        if owner.base is None:
            self._become(Quorums(write_quorum, write_quorum, write_quorum))
            self._tracker.set_write_quorum(write_quorum)
            owner.try_form()
            return None
        if owner.decision.standing is not Standing.OPEN:
            owner.check_may_write()
        if write_quorum == self.now.write_quorum == self.now.wanted:
            return self._newest
        if self.now.lowering is not None:
            raise ChangeUnderWayError(
                f"The write quorum is being lowered to {self.now.lowering.write_quorum}, which "
                "more followers have to hear of; try again later."
            )
        now, record = quorum_change.ask(self.now, write_quorum, self._log.last_seq + 1)
        self._become(now)
        self._tracker.set_write_quorum(now.write_quorum)
        if now.lowering is not None:
            self._lowered = self._loop.create_future()
        appended = self._newest = owner.append_config(record)
        self.go_on()
        return appended

    async def change(self, write_quorum: int) -> None:
        """Changes k, and waits until the change is in force and cannot be lost any more.

        Raises:
            MalformedError: It is not from 0 to the number of followers.
            NotAttemptedError: The epoch has not begun, or the node stops.
            ChangeUnderWayError: k is being lowered.
            OutcomeUnknownError: Too few followers answered in time, or before the node stopped: it
                may come into force later.
        """
        record = self.begin(write_quorum)
        if record is None:
            return
        lowered = self._lowered
        if self.now.lowering is not None and lowered is not None:
            try:
                async with asyncio.timeout(self._request_timeout_s):
                    await asyncio.shield(lowered)
            except TimeoutError:
                raise unknown(record, "too few followers heard of it in time") from None
            if self._owner.decision.standing is Standing.SUPERSEDED:
                raise unknown(record, f"epoch {record.entry.epoch} is over")
            if self.now.lowering is not None:
                raise unknown(record, "the leader stopped")
        await self._owner.wait_committed(record)

    def restate(self) -> None:
        """Has the log of a new epoch say what is in force."""
        now = self.now
        self._owner.append_config(Record(now.write_quorum, now.floor, now.wanted))

    def raise_again(self) -> None:
        """Raises k to what was wanted as far as followers count again."""
        counting = sum(link.counts for link in self._owner.links)
        k = min(self.now.wanted, counting)
        if k > self.now.write_quorum and self.now.lowering is None:
            now, record = quorum_change.resume(self.now, k, self._log.last_seq + 1)
            self._become(now)
            self._tracker.set_write_quorum(k)
            self._newest = self._owner.append_config(record)
            logger.info("k=%d again, of %d that were asked for", k, now.wanted)

    def go_on(self) -> None:
        """Lets a change come into force once enough followers hold what it needs."""
        if not self._owner.is_open:
            return
        if self.now.lowering is not None:
            self._try_lower(self.now.lowering.seq)
        elif self.now.raising is not None:
            self._try_raise_floor(self.now.raising.seq)

    def _try_lower(self, seq: int) -> None:
        record = self._log.get(seq)
        acks = record.ack_count if record is not None else 0
        is_durable = self._tracker.durable_seq >= seq
        if is_durable and quorum_change.is_lowered(self.now, acks, len(self._owner.links)):
            now, lowered = quorum_change.lower(self.now)
            self._become(now)
            self._tracker.set_write_quorum(lowered.write_quorum)
            self._owner.append_config(lowered)
            self.end()

    def _try_raise_floor(self, seq: int) -> None:
        links = self._owner.links
        holders = sum(link.counts and link.held.contiguous >= seq for link in links)
        if quorum_change.is_raised(self.now, holders):
            now, raised = quorum_change.raise_floor(self.now)
            self._become(now)
            self._owner.append_config(raised)

    def end(self) -> None:
        """Ends the wait for a lowering: it is in force, or its leader leads no more, or stops."""
        if self._lowered is not None and not self._lowered.done():
            self._lowered.set_result(None)
