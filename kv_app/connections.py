"""The connections of clients: how many there may be, and how long one may keep the node waiting.

One look at all of them a second takes the place of a timer for each request.
"""

import asyncio
import logging
from typing import Protocol

from kv_app.errors import NotAttemptedError, StoreError, TooManyInFlightError
from kv_app.request_limits import MAX_HEAD_BYTES

logger = logging.getLogger("kv_app.connections")

# Connections beyond the limit of clients that may still show that they are replication channels.
MAX_GUESTS = 64
MAX_CHANNELS = 64
# Replication channels whose hello was not accepted yet.
MAX_NEW_CHANNELS = 64
RESERVED_CONNECTIONS = MAX_GUESTS + MAX_CHANNELS + MAX_NEW_CHANNELS
# Of requests that have not come in whole, all clients together may have sent as much as so many of
# the largest requests.
UNFINISHED_REQUESTS = 64
KEEP_ALIVE_S = 5.0
# A client that takes nothing of its answer for so long has lost it.
ANSWER_STALL_TIMEOUT_S = 60.0
# How long a client that was refused may go on sending, so that it comes to read why.
LINGER_S = 2.0
MAX_SWEEP_INTERVAL_S = 1.0
SWEEPS_PER_TIMEOUT = 4
# A thousand looks take more than a millisecond, and requests wait meanwhile.
LOOKS_PER_TURN = 256


class Connection(Protocol):
    """A client's connection, as the guard sees it."""

    def check(self, now_s: float) -> None:
        """Ends the connection if its client has kept the node waiting for too long."""

    def refuse(self, error: StoreError) -> None:
        """Answers with an error and ends the connection."""

    def refuse_unfinished(self, error: StoreError) -> None:
        """The same, if a request has not come in whole."""


class Channel(Protocol):
    """A replication channel, as the guard sees it."""

    def abort(self) -> None:
        """Ends it at once."""


class ConnectionGuard:
    """All open connections of clients; those that became replication channels are none of them.

    A connection above ``max_connections`` is a guest: it may become a channel, all else is refused.
    A leader asks for its channel as soon as it is connected, so where there are too many guests the
    oldest has to go. The same holds for channels until their hello was accepted.

    Attributes:
        max_connections: How many connections of clients may be open.
        max_body_bytes: Longest body that the application takes.
        max_unfinished_bytes: What may be held of requests that have not come in whole.
        read_timeout_s: Within which a request has to come in whole.
        interval_s: Time between two looks at all connections.
        now_s: The time by which connections are judged. It counts the looks: time in which the
            node itself stood still is not held against its clients.
    """

    def __init__(self, *, max_connections: int, max_body_bytes: int, read_timeout_s: float) -> None:
        self.max_connections = max_connections
        self.max_body_bytes = max_body_bytes
        self.max_unfinished_bytes = UNFINISHED_REQUESTS * (max_body_bytes + MAX_HEAD_BYTES)
        self.read_timeout_s = read_timeout_s
        self.interval_s = min(MAX_SWEEP_INTERVAL_S, read_timeout_s / SWEEPS_PER_TIMEOUT)
        self.now_s = 0.0
        self._connections: set[Connection] = set()
        self._guests: dict[Connection, None] = {}
        self._channels: set[Channel] = set()
        self._new_channels: dict[Channel, None] = {}
        self._unseen: list[Connection] = []  # of the sweep that is under way
        self._timer: asyncio.TimerHandle | None = None
        self._refused = 0
        self._unfinished_bytes = 0

    def __len__(self) -> int:
        return len(self._connections)

    def admit(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> bool:
        """Counts a new connection and looks after it from now on; True if it is a guest."""
        if self._timer is None:
            self._timer = loop.call_later(self.interval_s, self._on_timer, loop)
        self._connections.add(connection)
        if len(self._connections) - len(self._guests) <= self.max_connections:
            return False
        self._guests[connection] = None
        if len(self._guests) > MAX_GUESTS:
            oldest = next(iter(self._guests))
            del self._guests[oldest]
            oldest.refuse(self.too_many())
        return True

    def release(self, connection: Connection) -> None:
        """Forgets a connection that ended or became a channel."""
        self._connections.discard(connection)
        self._guests.pop(connection, None)

    def welcome(self, guest: Connection) -> bool:
        """Makes a guest an ordinary connection if there is room by now; False if there is none."""
        if len(self._connections) - len(self._guests) >= self.max_connections:
            return False
        self._guests.pop(guest, None)
        return True

    def admit_channel(self, channel: Channel) -> None:
        """Takes in a new channel; of too many the oldest has to go."""
        self._new_channels[channel] = None
        if len(self._new_channels) > MAX_NEW_CHANNELS:
            oldest = next(iter(self._new_channels))
            del self._new_channels[oldest]
            oldest.abort()

    def keep_channel(self, channel: Channel) -> None:
        """Notes that the hello of a channel was accepted."""
        if channel in self._new_channels:
            del self._new_channels[channel]
            self._channels.add(channel)

    def release_channel(self, channel: Channel) -> None:
        """Forgets a channel that ended."""
        self._new_channels.pop(channel, None)
        self._channels.discard(channel)

    def check_channels(self) -> None:
        """Checks that there is room for another channel.

        Raises:
            NotAttemptedError: There is none.
        """
        if len(self._channels) >= MAX_CHANNELS:
            raise self.too_many()

    def too_many(self) -> NotAttemptedError:
        """Returns the error for one connection too many."""
        self._refused += 1
        return NotAttemptedError(
            f"The node has {self.max_connections} connections of clients, and takes no more; "
            "close some or raise MAX_CONNECTIONS.",
            reason="too_many_connections",
            limit="MAX_CONNECTIONS",
        )

    def hold(self, size: int) -> None:
        """Counts bytes of a request that has not come in whole.

        Raises:
            TooManyInFlightError: There are too many; these do not count.
        """
        if self._unfinished_bytes + size > self.max_unfinished_bytes:
            raise TooManyInFlightError(
                f"The node holds {self._unfinished_bytes} bytes of requests that have not come in "
                "whole, and takes no more; send it in one go, or later.",
                limit="UNFINISHED_REQUESTS",
            )
        self._unfinished_bytes += size

    def let_go(self, size: int) -> None:
        """Bytes that were held are held no more."""
        self._unfinished_bytes -= size

    def refuse_unfinished(self, error: StoreError) -> None:
        """Refuses every request that has not come in whole."""
        for connection in tuple(self._connections):
            connection.refuse_unfinished(error)

    def sweep(self) -> None:
        """Looks at all connections, ``interval_s`` after the last time."""
        self._begin_sweep()
        while self._unseen:
            self._look_at_some()

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._connections:
            self._timer = loop.call_later(self.interval_s, self._on_timer, loop)
            self._begin_sweep()
            self._go_on(loop)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Looks at some connections, then lets the loop do other things first."""
        self._look_at_some()
        if self._unseen:
            loop.call_soon(self._go_on, loop)

    def _begin_sweep(self) -> None:
        self.now_s += self.interval_s
        self._unseen = list(self._connections)
        if self._refused:
            logger.warning(
                "%d connections were refused: MAX_CONNECTIONS=%d are open",
                self._refused,
                self.max_connections,
            )
            self._refused = 0

    def _look_at_some(self) -> None:
        for _ in range(min(LOOKS_PER_TURN, len(self._unseen))):
            connection = self._unseen.pop()
            if connection in self._connections:
                connection.check(self.now_s)
