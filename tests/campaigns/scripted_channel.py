"""Both ends of a replication channel by a script: they keep the protocol, and their own pace."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from kv_app.log import to_ranges
from kv_app.messages import (
    PROTOCOL_VERSION,
    Ack,
    Base,
    BaseHeld,
    CaughtUp,
    Confirm,
    Confirmed,
    Entries,
    Entry,
    FollowerMessage,
    Heartbeat,
    Hello,
    LeaderMessage,
    Operation,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    Version,
    Welcome,
)
from kv_app.meta import BaseRecord, Config, Member
from kv_app.snapshot import snapshot_frames
from kv_app.state import BUCKETS, State
from tests.campaigns.campaign import Violation
from tests.campaigns.fuzz_follower import QUIET

if TYPE_CHECKING:
    from types import TracebackType

CLUSTER, LEADER_ID, EPOCH = "c" * 16, "leader", 1
WAIT_S = 300.0
HEARTBEAT_S = 0.5
ENTRIES_PER_MESSAGE = 400

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FollowerMessage).decode
_decode_leader = msgspec.msgpack.Decoder(LeaderMessage).decode


class ScriptedLeader:
    """Makes one follower hold a state, and sends entries beside it if it is told to.

    Attributes:
        beside: How many entries it sent before the end of the state.
        acknowledged: How many of these the follower acknowledged.
    """

    def __init__(self, url: str, state: State, keys: int, value: str) -> None:
        """Connects to a follower that holds nothing.

        Args:
            url: The follower's.
            state: All positions are at or below ``keys``.
            keys: The position of the state, and how many keys its entries are of.
            value: That of each entry.
        """
        self.beside = self.acknowledged = 0
        self._url, self._state, self._keys, self._value = url, state, keys, value
        self._last_seq = keys
        self._welcome: Welcome | None = None
        self._caught_up, self._counts = threading.Event(), threading.Event()
        self._contiguous = 0

    def teach(self, rate_per_s: float) -> float:
        """Sends the state, entries at a rate beside it, then all of these; returns the seconds.

        Raises:
            Violation: The follower did not come to count.
        """
        began_s = time.monotonic()
        with connect(
            f"ws{self._url.removeprefix('http')}/replication",
            proxy=None,
            compression=None,
            ping_interval=None,
            max_size=None,
            logger=QUIET,
        ) as channel:
            channel.send(_encode(self._hello()))
            self._note(channel.recv(WAIT_S, decode=False))
            reader = threading.Thread(target=self._read, args=(channel,), daemon=True)
            reader.start()
            self._send_state(channel, rate_per_s)
            self._expect(self._caught_up, "the follower holds the state")
            # Now it takes entries: all that it was sent in vain once more, and what has come since.
            seq, last_s = self._keys, time.monotonic()
            while seq < self._last_seq:
                now_s = time.monotonic()
                self._last_seq += int(rate_per_s * (now_s - last_s))
                last_s = now_s
                last = min(seq + ENTRIES_PER_MESSAGE, self._last_seq)
                self._send_entries(channel, seq + 1, last)
                seq = last
            deadline_s = time.monotonic() + WAIT_S
            while self._contiguous < seq:
                if time.monotonic() > deadline_s or not reader.is_alive():
                    raise Violation(f"The follower acknowledged {self._contiguous} of {seq}.")
                time.sleep(0.01)
            channel.send(_encode(Base(self._base(), self._welcomed.incarnation)))
            self._expect(self._counts, "the follower holds the base")
        return time.monotonic() - began_s

    def _send_state(self, channel: ClientConnection, rate_per_s: float) -> None:
        began_s = time.monotonic()
        for frame in snapshot_frames(self._state, (), self._keys):
            channel.send(frame)
            due = int(rate_per_s * (time.monotonic() - began_s)) - self.beside
            while due >= ENTRIES_PER_MESSAGE:
                first = self._last_seq + 1
                self._last_seq += ENTRIES_PER_MESSAGE
                self._send_entries(channel, first, self._last_seq)
                self.beside += ENTRIES_PER_MESSAGE
                due -= ENTRIES_PER_MESSAGE

    def _send_entries(self, channel: ClientConnection, first: int, last: int) -> None:
        some = [
            Entry(EPOCH, seq, int(Operation.PUT), key_of(seq % self._keys), self._value, None)
            for seq in range(first, last + 1)
        ]
        channel.send(_encode(Entries(some, last)))

    def _read(self, channel: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._note(channel.recv(decode=False))

    def _note(self, payload: bytes) -> None:
        message = _decode(payload)
        match message:
            case Welcome():
                self._welcome = message
            case Ack():
                for span in message.ranges:
                    if not self._caught_up.is_set():
                        self.acknowledged += span.last - span.first + 1
                    self._contiguous = max(self._contiguous, span.last)
            case CaughtUp():
                self._contiguous = message.contiguous
                self._caught_up.set()
            case BaseHeld():
                self._counts.set()
            case _:
                raise Violation(f"The follower said {message!r:.200}.")

    def _expect(self, event: threading.Event, what: str) -> None:
        if not event.wait(WAIT_S):
            raise Violation(f"Not within {WAIT_S:g} s: {what}.")

    @property
    def _welcomed(self) -> Welcome:
        if self._welcome is None:
            raise Violation("The follower did not welcome its leader.")
        return self._welcome

    def _hello(self) -> Hello:
        return Hello(
            PROTOCOL_VERSION,
            CLUSTER,
            EPOCH,
            LEADER_ID,
            "http://leader:1",
            last_seq=0,
            attempt="first",
            is_formed=True,
        )

    def _base(self) -> BaseRecord:
        members = (Member(LEADER_ID, "http://leader:1"), Member("follower1", self._url))
        return BaseRecord(EPOCH, LEADER_ID, "life", Config(members, 0, 0, 0), 0)


@dataclass
class Seen:
    """What a scripted follower was sent since it lost its data.

    Attributes:
        snapshots: Of each, from where and up to where.
        entries: How many entries came.
        beside: How many of them came between the beginning of a snapshot and its end.
    """

    snapshots: list[tuple[int, int]] = field(default_factory=list)
    entries: int = 0
    beside: int = 0


class ScriptedFollower:
    """Listens where the leader expects a follower, and keeps nothing.

    Attributes:
        seen: What it was sent.
        counts: Set while it holds the base.
        wrong: What went wrong in it; None if nothing did.
    """

    def __init__(self, url: str, node_id: str) -> None:
        """Is empty.

        Args:
            url: Where.
            node_id: Its name.
        """
        self.seen = Seen()
        self.counts = threading.Event()
        self.wrong: BaseException | None = None
        self._address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._node_id = node_id
        self._life, self._state_s = 1, 0.0
        self._channel: ServerConnection | None = None
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begins to listen."""
        self._server = serve(
            self._serve,
            *self._address,
            compression=None,
            ping_interval=None,
            max_size=None,
            logger=QUIET,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()

    def lose_all(self, state_s: float) -> None:
        """Comes back without its data, and then takes so long to read the first state."""
        self.seen, self._life, self._state_s = Seen(), self._life + 1, state_s
        self.counts.clear()
        if self._channel is not None:
            self._channel.close()

    def _serve(self, channel: ServerConnection) -> None:
        self._channel = channel
        try:
            with contextlib.suppress(ConnectionClosed):
                self._follow(channel, self._life, self._state_s)
        except BaseException as error:
            self.wrong = error
            raise

    def _follow(self, channel: ServerConnection, life: int, state_s: float) -> None:
        seen, is_in_snapshot, position = self.seen, False, 0
        while True:
            message: Any = _decode_leader(channel.recv(decode=False))
            match message:
                case Hello():
                    channel.send(_encode(self._welcome(life)))
                case Heartbeat():
                    channel.send(_encode(Ack([])))
                case Confirm():
                    channel.send(_encode(Confirmed(message.round)))
                case Base():
                    channel.send(_encode(BaseHeld(message.record.epoch)))
                    self.counts.set()
                case SnapshotBegin():
                    is_in_snapshot, position = True, message.stable_seq
                    seen.snapshots.append((message.since, position))
                case SnapshotChunk() if message.ends_bucket and len(seen.snapshots) == 1:
                    time.sleep(state_s / BUCKETS)  # past what a socket holds, the leader waits
                case SnapshotEnd():
                    is_in_snapshot = False
                    channel.send(_encode(CaughtUp(position)))
                case Entries():
                    seen.entries += len(message.entries)
                    seen.beside += len(message.entries) if is_in_snapshot else 0
                    seqs = [entry.seq for entry in message.entries]
                    channel.send(_encode(Ack(to_ranges(seqs))))

    def _welcome(self, life: int) -> Welcome:
        return Welcome(
            self._node_id,
            "scripted",
            cluster_id="",
            epoch=0,
            contiguous=0,
            above=[],
            incarnation=f"life {life}",
            base_epoch=0,
            is_durable=False,
            settled=0,
        )


def key_of(number: int) -> str:
    """Returns a key, the same as ``load`` of the catchup campaign makes."""
    return f"key {number}"


def state_of(keys: int, value: str) -> State:
    """Returns a state of so many keys, written in order."""
    state = State()
    for number in range(keys):
        state.install(key_of(number), Version(value, EPOCH, number + 1))
    return state
