"""A follower: takes entries from its leader's channel, applies and acknowledges them."""

import asyncio
import logging

import msgspec
from starlette.types import Receive, Send

from kv_app.errors import ChannelError, ProtocolViolationError
from kv_app.formation import Decision, Standing
from kv_app.log import HeldPositions, to_ranges
from kv_app.messages import (
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    CLOSE_REPLACED,
    CLOSE_SILENT,
    PROTOCOL_VERSION,
    UNREADABLE,
    Ack,
    CaughtUp,
    Entries,
    Entry,
    Heartbeat,
    Hello,
    LeaderMessage,
    Operation,
    Refusal,
    SnapshotChunk,
    SnapshotEnd,
    Welcome,
)
from kv_app.settings import Settings
from kv_app.state import State

logger = logging.getLogger("kv_app.follower")

HELLO_TIMEOUT_S = 5.0

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LeaderMessage).decode
_OPERATIONS = frozenset(int(operation) for operation in Operation)
_HEARTBEAT_ANSWER = _encode(Ack([]))


class Follower:
    """A replica that follows one leader at a time.

    Attributes:
        state: Everything that it has applied, committed or not.
        held: Which positions it holds.
        cluster_id: The cluster whose entries it holds; empty before it followed anyone.
        epoch: The epoch that it follows; 0 before the first.
        leader_url: Where the leader said that clients reach it.
    """

    def __init__(self, settings: Settings) -> None:
        self.state = State()
        self.held = HeldPositions()
        self.cluster_id = ""
        self.epoch = 0
        self.leader_url: str | None = None
        self._settings = settings
        self._session: _Session | None = None
        self._caught_up_at = 0

    @property
    def is_empty(self) -> bool:
        """True if it holds no entry, and no part of a snapshot either."""
        return self.held.max_seq == 0 and len(self.state) == 0

    async def serve(self, receive: Receive, send: Send) -> None:
        """Serves one replication channel (an accepted ASGI WebSocket) until it ends."""
        session = _Session(self, receive, send, self._settings.heartbeat_timeout_s)
        try:
            await session.run()
        except ProtocolViolationError as error:
            await session.close(CLOSE_PROTOCOL, str(error))
        except ChannelError as error:
            await session.close(CLOSE_REFUSED, str(error))
        finally:
            if self._session is session:
                self._session = None

    def follow(self, session: "_Session", hello: Hello) -> Welcome:
        """Decides whether to follow a leader, and returns what it is to know.

        Raises:
            ChannelError: This replica will not follow it, and why.
        """
        if hello.protocol != PROTOCOL_VERSION:
            raise ChannelError(
                f"this node speaks version {PROTOCOL_VERSION} of the protocol, not {hello.protocol}"
            )
        is_same = hello.cluster_id == self.cluster_id
        if not is_same and self._session is not None:
            raise ChannelError(f"this node follows {self.leader_url}")
        if is_same and hello.epoch < self.epoch:
            raise ChannelError(f"epoch {hello.epoch} is over, this node is in {self.epoch}")
        welcome = self._welcome()
        if is_same or self.is_empty:
            if self._session is not None:
                self._session.replace()
            self._session = session
            self.cluster_id, self.epoch = hello.cluster_id, hello.epoch
            self.leader_url = hello.leader_url
            self._caught_up_at = hello.last_seq
        return welcome

    def _welcome(self) -> Welcome:
        return Welcome(
            node_id=self._settings.node_id,
            start_id=self._settings.start_id,
            cluster_id="" if self.is_empty else self.cluster_id,
            epoch=0 if self.is_empty else self.epoch,
            contiguous=self.held.contiguous,
            above=self.held.ranges_above(),
        )

    def is_followed(self, session: "_Session") -> bool:
        """Tells if a channel is the one whose entries this replica takes."""
        return self._session is session

    def apply(self, entries: list[Entry]) -> Ack:
        """Applies a batch and returns its acknowledgment.

        Raises:
            ProtocolViolationError: An entry is not one of this epoch; none of the batch is applied.
        """
        for entry in entries:
            if entry.epoch != self.epoch or entry.seq < 1 or entry.operation not in _OPERATIONS:
                raise ProtocolViolationError(
                    f"an entry of epoch {entry.epoch}, seq {entry.seq}, operation "
                    f"{entry.operation} cannot be taken in epoch {self.epoch}"
                )
        for entry in entries:
            if self.held.add(entry.seq):
                self.state.apply(entry)
        return Ack(to_ranges([entry.seq for entry in entries]))

    def readiness(self) -> Decision:
        """Returns ``OPEN`` if it follows a leader and holds all that there was when it began to."""
        if self._session is None:
            return Decision(Standing.NO_LEADER, "no leader has a channel to this node")
        if self.held.contiguous < self._caught_up_at:
            return Decision(
                Standing.CATCHING_UP,
                f"it holds everything up to {self.held.contiguous} of {self._caught_up_at}",
            )
        return Decision(Standing.OPEN)


class _Session:
    """One replication channel, from hello to its end."""

    def __init__(self, follower: Follower, receive: Receive, send: Send, silence_s: float) -> None:
        self._follower = follower
        self._receive = receive
        self._send = send
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._watchdog: asyncio.TimerHandle | None = None
        self._task = asyncio.current_task()
        self._end: tuple[int, str] | None = None
        self._snapshot_keys = 0

    async def run(self) -> None:
        """Takes messages until the channel ends.

        Raises:
            ChannelError: The channel has to be closed, and why.
        """
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                hello = await self._next()
        except TimeoutError:
            raise ProtocolViolationError("no hello in time") from None
        if not isinstance(hello, Hello):
            raise ProtocolViolationError("a channel begins with a hello")
        welcome = self._follower.follow(self, hello)
        try:
            await self._reply(welcome)
            if not self._follower.is_followed(self):
                raise ChannelError("this node holds the entries of another cluster, and keeps them")
            logger.info("follows %s at %s", hello.leader_id, hello.leader_url)
            self._watch()
            await self._take_messages()
        except asyncio.CancelledError:
            if self._end is None:
                raise
            await self.close(*self._end)
        finally:
            if self._watchdog is not None:
                self._watchdog.cancel()
            logger.info("the channel of %s has ended", hello.leader_id)

    async def _take_messages(self) -> None:
        while (message := await self._next()) is not None:
            self._heard_s = self._loop.time()
            match message:
                case Entries():
                    await self._reply(self._follower.apply(message.entries))
                case Heartbeat():
                    await self._send({"type": "websocket.send", "bytes": _HEARTBEAT_ANSWER})
                case SnapshotChunk():
                    self._install(message)
                case SnapshotEnd():
                    await self._reply(self._finish_snapshot(message))
                case Hello():
                    raise ProtocolViolationError("a second hello")

    def _install(self, chunk: SnapshotChunk) -> None:
        for key, version in chunk.versions.items():
            self._follower.state.install(key, version)
        self._snapshot_keys += len(chunk.versions)

    def _finish_snapshot(self, end: SnapshotEnd) -> CaughtUp:
        keys, self._snapshot_keys = self._snapshot_keys, 0
        if keys != end.keys:
            raise ProtocolViolationError(f"a snapshot of {end.keys} keys had {keys}")
        self._follower.held.advance(end.stable_seq)
        return CaughtUp(end.stable_seq)

    async def _next(self) -> LeaderMessage | None:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            return None
        try:
            message: LeaderMessage = _decode(event.get("bytes") or b"")
        except UNREADABLE as error:
            raise ProtocolViolationError(f"a message that cannot be read: {error}") from error
        return message

    async def _reply(self, message: Welcome | Ack | CaughtUp) -> None:
        await self._send({"type": "websocket.send", "bytes": _encode(message)})

    def replace(self) -> None:
        """Ends this channel because the leader has opened another one."""
        self._cancel(CLOSE_REPLACED, "the leader opened another channel")

    async def close(self, code: int, reason: str) -> None:
        """Tells the leader why, and closes."""
        logger.warning("closes a replication channel: %s", reason)
        self._cancel_watchdog()
        await self._send({"type": "websocket.send", "bytes": _encode(Refusal(reason))})
        await self._send({"type": "websocket.close", "code": code, "reason": reason[:100]})

    def _watch(self) -> None:
        quiet_s = self._loop.time() - self._heard_s
        if quiet_s >= self._silence_s:
            self._cancel(CLOSE_SILENT, f"the leader was silent for {self._silence_s:g} s")
        else:
            self._watchdog = self._loop.call_later(self._silence_s - quiet_s, self._watch)

    def _cancel(self, code: int, reason: str) -> None:
        self._end = (code, reason)
        if self._task is not None:
            self._task.cancel()

    def _cancel_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
