"""The follower's end of one replication channel, from hello to its end."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from starlette.types import Message, Receive, Send

from kv_app.bounds import shown
from kv_app.errors import ChannelError, ProtocolViolationError, StorageError, SupersededError
from kv_app.log import to_ranges
from kv_app.messages import (
    CLOSE_NORMAL,
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    CLOSE_REPLACED,
    CLOSE_SILENT,
    UNREADABLE,
    Ack,
    Base,
    BaseHeld,
    CaughtUp,
    Confirm,
    Confirmed,
    Entries,
    Entry,
    Heartbeat,
    Hello,
    LeaderMessage,
    Refusal,
    RememberedWrite,
    Replace,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotKeys,
    Version,
    Welcome,
    close_reason,
)
from kv_app.silence import Silence
from kv_app.snapshot import SnapshotReader

logger = logging.getLogger("kv_app.follower")

HELLO_TIMEOUT_S = 5.0
# After a message of more, others come before the next one.
MANY_ENTRIES = 128

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LeaderMessage).decode
_HEARTBEAT_ANSWER: Final = _encode(Ack([]))


class Follows(Protocol):
    """The follower, as its sessions see it; ``Follower`` says what each call does."""

    def leave(self, session: "Session") -> None:
        """A session has ended."""

    def follow(self, session: "Session", hello: Hello) -> None:
        """Decides whether to follow a leader."""

    async def flush(self) -> None:
        """Makes durable all that was taken."""

    def welcome(self) -> Welcome:
        """Returns what a leader is to know of it."""

    def fail(self, error: StorageError) -> None:
        """Ends the process: its disk failed."""

    def is_followed(self, session: "Session") -> bool:
        """Tells if a channel is the one whose entries the replica takes."""

    def replace(self, keep: int) -> None:
        """Begins to take what replaces all above a position."""

    def hold_base(self, base: Base) -> bool:
        """Becomes a voter."""

    def take(self, entries: list[Entry], stable_seq: int, done: Callable[[], None]) -> bool:
        """Applies entries."""

    @property
    def is_behind(self) -> bool:
        """True while so much waits for the disk that no more should be taken."""

    def note_stable(self, stable_seq: int) -> None:
        """Notes what is committed."""

    def begin_snapshot(self) -> None:
        """A snapshot follows."""

    def install(self, versions: dict[str, Version]) -> None:
        """Takes a part of a snapshot."""

    def drop_missing(self, bucket: int, present: set[str], stable_seq: int) -> None:
        """Removes what a snapshot no longer has."""

    def restore(self, writes: list[RememberedWrite]) -> None:
        """Takes idempotency keys of a snapshot."""

    def finish_snapshot(self, stable_seq: int, done: Callable[[], None]) -> bool:
        """Holds all that a snapshot covers."""


class Session:
    """One replication channel, from hello to its end."""

    def __init__(
        self,
        accept: Callable[[Hello], Follows],
        receive: Receive,
        send: Send,
        silence_s: float,
    ) -> None:
        """Makes a session of an accepted WebSocket.

        Args:
            accept: Returns who takes what a leader sends, or raises ``ChannelError``.
            receive: As in ASGI.
            send: As in ASGI.
            silence_s: Ends the session when the leader says nothing for so long.
        """
        self._accept = accept
        self._accepted: Follows | None = None
        self._receive = receive
        self._send = send
        self._silence_s = silence_s
        self._silence = Silence(silence_s)
        self._loop = asyncio.get_running_loop()
        self._watchdog: asyncio.TimerHandle | None = None
        self._task = asyncio.current_task()
        self._hello: Hello | None = None
        self._end: tuple[int, Refusal] | None = None
        self._snapshot: SnapshotReader | None = None
        # The position of the last snapshot that came whole, on which the next may build.
        self._installed_seq = 0
        self._durable: list[int] = []
        self._caught_up: CaughtUp | None = None
        self._synced = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Takes messages until the channel ends, and tells the leader why if it is refused."""
        try:
            await self.run()
        except OSError:
            pass  # the leader has ended the channel
        except SupersededError as error:
            refusal = self._refusal(str(error), error.promised, error.cluster_id)
            await self.close(CLOSE_REFUSED, refusal)
        except ProtocolViolationError as error:
            await self.close(CLOSE_PROTOCOL, Refusal(str(error), 0, ""))
        except ChannelError as error:
            await self.close(CLOSE_REFUSED, Refusal(str(error), 0, ""))
        except StorageError as error:
            self._follower.fail(error)
        finally:
            if self._accepted is not None:
                self._accepted.leave(self)

    @property
    def _follower(self) -> Follows:
        """Who takes what the leader sends, from the hello on."""
        if self._accepted is None:
            raise RuntimeError("a channel begins with a hello")
        return self._accepted

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
        self._hello = hello
        self._accepted = self._accept(hello)
        self._follower.follow(self, hello)
        try:
            # What an older channel brought is on the disk before anything is told of it.
            await self._follower.flush()
            await self._reply(self._follower.welcome())
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
            self._silence.heard()
            match message:
                case Entries():
                    await self._take(message)
                case Heartbeat():
                    self._follower.note_stable(message.stable_seq)
                    await self._say({"type": "websocket.send", "bytes": _HEARTBEAT_ANSWER})
                case Confirm():
                    if self._follower.is_followed(self):
                        await self._reply(Confirmed(message.round))
                case Replace():
                    self._follower.replace(message.keep)
                    self._installed_seq = 0
                case Base():
                    if self._follower.hold_base(message):
                        await self._reply(BaseHeld(message.record.epoch))
                case Hello():
                    raise ProtocolViolationError("a second hello")
                case _:
                    await self._take_snapshot(message)

    async def _take(self, message: Entries) -> None:
        """Takes entries, unless a snapshot is under way.

        Up to its end none can be settled, so that they would only fill the memory; what is not
        acknowledged the leader has to send again.
        """
        if self._snapshot is not None:
            return
        seqs = [entry.seq for entry in message.entries]

        def acknowledge() -> None:
            self._durable += seqs
            self._send_soon()
            self._synced.set()

        if self._follower.take(message.entries, message.stable_seq, acknowledge):
            await self._reply(_acknowledgment(seqs))
        while self._follower.is_behind:
            self._synced.clear()
            await self._synced.wait()
        if len(seqs) > MANY_ENTRIES:
            await asyncio.sleep(0)  # the next message may be there already: others go first

    async def _take_snapshot(
        self, message: SnapshotBegin | SnapshotChunk | SnapshotKeys | SnapshotEnd
    ) -> None:
        if isinstance(message, SnapshotBegin):
            epoch = self._hello.epoch if self._hello is not None else 0
            self._snapshot = SnapshotReader(message, epoch, self._installed_seq)
            if self._snapshot.is_whole:
                self._follower.begin_snapshot()
            return
        snapshot, follower = self._snapshot, self._follower
        if snapshot is None:
            raise ProtocolViolationError("a part of a snapshot that did not begin")
        match message:
            case SnapshotChunk():
                follower.install(snapshot.read(message))
                if message.ends_bucket:
                    ended = snapshot.end_bucket()
                    if snapshot.is_whole:
                        follower.drop_missing(*ended, snapshot.stable_seq)
            case SnapshotKeys():
                snapshot.check_keys(message.writes)
                follower.restore(message.writes)
            case SnapshotEnd():
                snapshot.check_end(message)
                self._snapshot, self._installed_seq = None, snapshot.stable_seq
                await self._finish_snapshot(snapshot.stable_seq)

    async def _finish_snapshot(self, stable_seq: int) -> None:
        caught_up = CaughtUp(stable_seq)

        def tell() -> None:
            self._caught_up = caught_up
            self._send_soon()

        if self._follower.finish_snapshot(stable_seq, tell):
            await self._reply(caught_up)

    # --- acknowledging what became durable ----------------------------------------------------

    def _send_soon(self) -> None:
        """Acknowledges all that one sync has made durable with one message."""
        if self._sending is None:
            self._sending = self._loop.create_task(self._acknowledge())

    async def _acknowledge(self) -> None:
        try:
            await self._acknowledge_all()
        except Exception:
            # The heartbeats would go on, and the leader wait for what never comes.
            logger.exception("an acknowledgment met a bug of this node")
            self._cancel(CLOSE_NORMAL, Refusal("this node met a bug; see its log", 0, ""))
        finally:
            self._sending = None

    async def _acknowledge_all(self) -> None:
        while self._durable or self._caught_up is not None:
            seqs, self._durable = self._durable, []
            caught_up, self._caught_up = self._caught_up, None
            with contextlib.suppress(OSError):  # the channel has ended meanwhile
                if seqs:
                    await self._reply(_acknowledgment(seqs))
                if caught_up is not None:
                    await self._reply(caught_up)

    async def _next(self) -> LeaderMessage | None:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            return None
        try:
            message: LeaderMessage = _decode(event.get("bytes") or b"")
        except UNREADABLE as error:
            raise ProtocolViolationError(f"a message that cannot be read: {error}") from error
        return message

    async def _reply(self, message: Welcome | Ack | CaughtUp | BaseHeld | Confirmed) -> None:
        await self._say({"type": "websocket.send", "bytes": _encode(message)})

    async def _say(self, message: Message) -> None:
        """Sends something.

        Raises:
            OSError: The leader has ended the channel, whether that was read yet or not.
        """
        try:
            await self._send(message)
        except RuntimeError as error:  # the server's word for a close that came meanwhile
            raise ConnectionResetError(str(error)) from error

    def replace(self) -> None:
        """Ends this channel because the leader has opened another one."""
        self._cancel(CLOSE_REPLACED, Refusal("the leader opened another channel", 0, ""))

    def supersede(self, promised: int, cluster_id: str) -> None:
        """Ends this channel because its epoch is over: another one was promised in a cluster."""
        reason = f"this node has promised itself to epoch {promised}"
        self._cancel(CLOSE_REFUSED, self._refusal(reason, promised, cluster_id))

    def _refusal(self, reason: str, promised: int, cluster_id: str) -> Refusal:
        """Returns what the leader is told of a promise.

        The epochs of two clusters have nothing to do with each other, and the id of a cluster is a
        secret of its nodes. But whose cluster is still to be made has to hear that there is one.
        """
        hello = self._hello
        if hello is not None and hello.cluster_id == cluster_id:
            return Refusal(reason, promised, cluster_id)
        is_forming = hello is not None and not hello.is_formed
        return Refusal(reason, promised if is_forming else 0, "")

    async def close(self, code: int, refusal: Refusal) -> None:
        """Tells the leader why, and closes."""
        logger.warning("closes a replication channel: %s", shown(refusal.reason))
        self._cancel_watchdog()
        with contextlib.suppress(OSError):
            await self._say({"type": "websocket.send", "bytes": _encode(refusal)})
            await self._say(
                {"type": "websocket.close", "code": code, "reason": close_reason(refusal.reason)}
            )

    def _watch(self) -> None:
        if self._follower.is_behind:
            self._silence.heard()  # it reads nothing, since it waits for its own disk
        if self._silence.look():
            reason = f"the leader was silent for {self._silence_s:g} s"
            self._cancel(CLOSE_SILENT, Refusal(reason, 0, ""))
        else:
            self._watchdog = self._loop.call_later(self._silence.interval_s, self._watch)

    def _cancel(self, code: int, refusal: Refusal) -> None:
        self._end = (code, refusal)
        if self._task is not None:
            self._task.cancel()

    def _cancel_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()


def _acknowledgment(seqs: list[int]) -> Ack:
    """Returns the acknowledgment of entries, in whatever order they came, some perhaps twice."""
    return Ack(to_ranges(sorted(set(seqs))))
