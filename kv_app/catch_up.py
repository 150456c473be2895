"""Brings one follower up to the end of the leader's log, over one open channel.

What the log still holds comes from the log, part by part. Where the log has dropped what the
follower lacks, the committed state comes instead, and meanwhile no entries: neither end has to hold
what is written beside it. Then the position decides again. Where the log was too short for the time
that the state took, the follower gets only the versions that are newer than the state it was sent:
each time fewer, until the log reaches back far enough.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from kv_app.log import HeldPositions, IdempotencyIndex, Log
from kv_app.outbox import Outbox
from kv_app.snapshot import snapshot_frames
from kv_app.state import BUCKETS, State

logger = logging.getLogger("kv_app.channel")

# A step of so many takes some milliseconds, and requests wait meanwhile.
RECORDS_PER_STEP: Final = 1024
# A turn of the loop takes as long as the requests that wait for it, and a state has some hundred
# messages, most of them nearly empty where only changes are sent: so a turn is made good use of, up
# to so many keys that are looked at and so many bytes, a millisecond or two.
KEYS_PER_STEP: Final = 2048
BYTES_PER_STEP: Final = 1 << 16


class Source(Protocol):
    """The leader, as who catches up sees it."""

    log: Log
    state: State
    idempotency: IdempotencyIndex

    @property
    def stable_seq(self) -> int:
        """Everything at or below is committed."""


class CatchUp:
    """What one follower is still to be sent before new entries reach it by themselves.

    Attributes:
        is_live: True once all of the log was handed on: from then on new entries are offered.
        gets_state: True while the state is sent, and no entries.
    """

    def __init__(
        self,
        source: Source,
        held: HeldPositions,
        outbox: Outbox,
        send: Callable[[bytes], None],
        give_way: Callable[[], Awaitable[None]],
        on_state_sent: Callable[[], None],
        follower: str,
    ) -> None:
        """Begins behind what a follower holds.

        Args:
            source: The leader.
            held: What the follower said that it holds.
            outbox: Where entries go.
            send: Sends one message.
            give_way: Lets others go first, and waits while the follower does not read.
            on_state_sent: Called once entries follow a state that was sent.
            follower: What the log calls it.
        """
        self.is_live = False
        self._source = source
        self._held = held
        self._outbox = outbox
        self._send = send
        self._give_way = give_way
        self._on_state_sent = on_state_sent
        self._follower = follower
        self._next_seq = held.contiguous + 1
        self.gets_state = self._next_seq < source.log.first_seq
        # The position of the last state that was sent whole; 0 if none was.
        self._known_seq = 0
        self._keeps: int | None = None
        self._rounds = 0

    @property
    def needs_deletions_above(self) -> int | None:
        """Deletions above may be a part of what it is sent next; None if it needs none."""
        return None if self.is_live else self._keeps

    def go_on(self) -> bool:
        """Hands on the next part of the log; returns True if that was all, so that it is live.

        No await may come between the look at the log and the first entry that is offered.
        """
        log = self._source.log
        self.gets_state = self._next_seq < log.first_seq
        if self.gets_state:
            return False
        last = min(self._next_seq + RECORDS_PER_STEP - 1, log.last_seq)
        for record in log.between(self._next_seq, last):
            if not self._held.holds(record.entry.seq):
                self._outbox.push(record)
        self._next_seq = last + 1
        self.is_live = last == log.last_seq
        self._outbox.send_due()
        return self.is_live

    async def run(self) -> None:
        """Sends what the follower lacks, no faster than it reads, until it is live."""
        while True:
            had_state = self.gets_state
            is_live = self.go_on()
            if had_state and not self.gets_state:
                self._on_state_sent()
            if is_live:
                return
            if self.gets_state:
                await self._send_state()
            await self._give_way()

    async def _send_state(self) -> None:
        source = self._source
        position = source.stable_seq
        # A deletion that is forgotten cannot be sent: then only the whole state tells of it.
        since = self._known_seq if source.state.forgotten_seq <= self._known_seq else 0
        self._keeps = since or position
        self._tell(since, position)
        # What still waits there is in the state, and no entry may come beside it.
        self._outbox.clear()
        remembered = source.idempotency.remembered(position, since)
        frames = snapshot_frames(source.state, remembered, position, since)
        most = max(1, KEYS_PER_STEP * BUCKETS // max(len(source.state), 1))
        sent = sent_bytes = 0
        for frame in frames:
            if since and source.state.forgotten_seq > since:
                return  # what is sent is not all: another one follows, whole
            self._send(frame)
            sent, sent_bytes = sent + 1, sent_bytes + len(frame)
            if sent >= most or sent_bytes >= BYTES_PER_STEP:
                sent = sent_bytes = 0
                await self._give_way()
        self._known_seq = self._keeps = position
        self._next_seq = position + 1

    def _tell(self, since: int, position: int) -> None:
        self._rounds += 1
        if not since:
            logger.info("follower %s gets the whole state up to %d", self._follower, position)
        elif self._rounds == 3:  # noqa: PLR2004  what changed during a change was too much as well
            logger.warning(
                "follower %s does not catch up so far: more is written than %s holds in the time "
                "in which it is sent what has changed; raise %s of the leader, or write less",
                self._follower,
                self._source.log.limit,
                self._source.log.limit,
            )
        else:
            logger.log(
                logging.INFO if self._rounds == 2 else logging.DEBUG,  # noqa: PLR2004
                "follower %s gets what has changed from %d up to %d: the log was shorter than "
                "the state took",
                self._follower,
                since,
                position,
            )
