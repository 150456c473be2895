"""Followers and channels without sockets, for tests of the leader's side."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from kv_app.messages import (
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
    SeqRange,
    SnapshotBegin,
    SnapshotEnd,
    Welcome,
)
from kv_app.settings import Settings
from tests.kv_app.roles import forming_leader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from kv_app.errors import StorageError
    from kv_app.leader import Leader
    from kv_app.storage import Storage
    from kv_app.websocket_client import Listener

WAIT_LIMIT_S = 5.0
TEST_LIMIT_S = 30.0
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(LeaderMessage).decode


def run(check: Callable[[], Awaitable[None]]) -> None:
    """Runs a test's coroutine function in an event loop."""

    async def main() -> None:
        async with asyncio.timeout(TEST_LIMIT_S):  # what never comes is a failure, not a hang
            await check()

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    """Waits until a condition holds, turn by turn of the loop.

    Raises:
        TimeoutError: It never did.
    """
    async with asyncio.timeout(WAIT_LIMIT_S):
        while not condition():  # noqa: ASYNC110  what plain objects hold sets no event
            await asyncio.sleep(0)


class Clock:
    """Nanoseconds that stand still until a test moves them, however busy the machine is."""

    def __init__(self) -> None:
        self.now_ns = time.monotonic_ns()

    def __call__(self) -> int:
        """Returns the time."""
        return self.now_ns

    def advance(self, ms: int) -> None:
        """Moves it on."""
        self.now_ns += ms * 1_000_000


class FakeClient:
    """Stands for a ``WebSocketClient``: the leader's end of one channel."""

    def __init__(self, follower: FakeFollower, listener: Listener) -> None:
        self._follower = follower
        self.listener = listener
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.close_code: int | None = None
        self.is_congested = False
        self.last_received_s = asyncio.get_running_loop().time()
        self.frames: list[Any] = []
        self.sent_ns: dict[int, int] = {}

    @property
    def entries(self) -> list[Entry]:
        """All entries that were sent, in the order of their sending."""
        batches = [frame.entries for frame in self.frames if isinstance(frame, Entries)]
        return [entry for batch in batches for entry in batch]

    @property
    def seqs(self) -> list[int]:
        """Their positions."""
        return [entry.seq for entry in self.entries]

    async def has_sent(self, seq: int) -> None:
        """Waits until a position was sent."""
        await until(lambda: seq in self.seqs)

    def send(self, payload: bytes) -> None:
        """Notes a message and lets the follower answer."""
        if self.closed.done():
            return
        message = decode(payload)
        self.frames.append(message)
        if isinstance(message, Entries):
            now_ns = time.monotonic_ns()
            for entry in message.entries:
                self.sent_ns.setdefault(entry.seq, now_ns)
        answer = self._follower.answer(message)
        if answer is not None:
            asyncio.get_running_loop().call_soon(self.say, answer)

    def close(self, code: int, reason: str) -> None:
        """Ends the channel."""
        if not self.closed.done():
            self.close_code = code
            self.closed.set_result(reason)

    def say(self, message: object) -> None:
        """Sends a message of the follower to the leader."""
        self.say_bytes(encode(message))

    def say_bytes(self, payload: bytes) -> None:
        """Sends anything to the leader, unless the channel has ended."""
        if not self.closed.done():
            self.last_received_s = asyncio.get_running_loop().time()
            self.listener.on_message(payload)

    def acknowledge(self, first: int, last: int | None = None) -> None:
        """Says that the follower holds some entries."""
        self.say(Ack([SeqRange(first, first if last is None else last)]))


@dataclass
class FakeFollower:
    """Another node as the network shows it: it welcomes, and acknowledges if it is told to.

    A base that it is given it holds, and says so, unless it is told to be silent about it.
    """

    node_id: str
    start_id: str = "first"
    incarnation: str = "life 1"
    base_epoch: int = 0
    is_durable: bool = False
    cluster_id: str = ""
    contiguous: int = 0
    above: Sequence[SeqRange] = ()
    is_reachable: bool = True
    is_silent: bool = False
    holds_bases: bool = True
    acknowledges: bool = False
    confirms: bool = True
    clients: list[FakeClient] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    attempts: int = 0

    @property
    def client(self) -> FakeClient:
        """Its newest channel."""
        return self.clients[-1]

    @property
    def leads_on(self) -> str:
        """The cluster of the leader that said hello to it last."""
        return str(self.client.frames[0].cluster_id)

    def keep(self, contiguous: int, above: Sequence[SeqRange] = ()) -> None:
        """Says from its next welcome on that it holds these of its leader's entries."""
        self.cluster_id, self.contiguous, self.above = self.leads_on, contiguous, above

    def lose_all(self) -> None:
        """Starts again without its data: another incarnation, and no base."""
        self.incarnation = f"life {len(self.clients) + 1}"
        self.base_epoch, self.cluster_id, self.contiguous, self.above = 0, "", 0, ()
        self.client.close(1000, "restarts empty")

    def answer(self, message: object) -> object:  # noqa: PLR0911  one for each message
        """Returns what it says to a message, None for nothing."""
        match message:
            case Hello() if not self.is_silent:
                return Welcome(
                    self.node_id,
                    self.start_id,
                    self.cluster_id,
                    message.epoch if self.contiguous or self.above else 0,
                    self.contiguous,
                    list(self.above),
                    self.incarnation,
                    self.base_epoch,
                    self.is_durable,
                    0,
                )
            case Heartbeat() if not self.is_silent:
                return Ack([])
            case Base() if self.holds_bases and message.incarnation == self.incarnation:
                self.base_epoch = message.record.epoch
                return BaseHeld(message.record.epoch)
            case Confirm() if self.confirms:
                return Confirmed(message.round)
            case Entries() if self.acknowledges:
                return Ack([SeqRange(entry.seq, entry.seq) for entry in message.entries])
            case SnapshotEnd() if self.acknowledges:
                begins = [frame for frame in self.client.frames if isinstance(frame, SnapshotBegin)]
                return CaughtUp(begins[-1].stable_seq)
        return None


class FakeNetwork:
    """All followers by URL; it stands for ``kv_app.channel.connect``."""

    def __init__(self, followers: int) -> None:
        self.followers = {
            f"http://f{number}:1": FakeFollower(f"f{number}") for number in range(1, followers + 1)
        }

    def __getitem__(self, number: int) -> FakeFollower:
        """Returns a follower by its number, from 1."""
        return self.followers[f"http://f{number}:1"]

    async def connect(
        self, url: str, headers: Sequence[tuple[str, str]], listener: Listener, *, max_bytes: int
    ) -> FakeClient:
        """Opens a channel to a follower."""
        if max_bytes <= 0:
            raise ValueError(max_bytes)
        follower = self.followers[f"http{url.removeprefix('ws').removesuffix('/replication')}"]
        follower.attempts += 1
        follower.headers = list(headers)
        if not follower.is_reachable:
            raise ConnectionRefusedError("nobody listens there")
        follower.clients.append(FakeClient(follower, listener))
        return follower.client

    def make_leader(
        self,
        storage: Storage | None = None,
        on_failure: Callable[[StorageError], None] | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
        **options: Any,
    ) -> Leader:
        """Returns a leader of all these followers that has not connected yet."""
        settings = {
            "node_id": "leader",
            "follower_urls": tuple(self.followers),
            "reconnect_max_s": 0.01,
            **options,
        }
        return forming_leader(Settings(**settings), storage, on_failure, now_ns)

    async def start_leader(self, *arguments: Any, **options: Any) -> Leader:
        """Returns a leader to which all that can be reached are connected.

        If they are enough to make a cluster, it is open and they count.
        """
        leader = self.make_leader(*arguments, **options)
        leader.start()
        reachable = [link for link in leader.links if self.followers[link.url].is_reachable]
        await until(
            lambda: (
                all(link.is_connected for link in reachable)
                if leader.base is None
                else leader.is_open and all(link.counts for link in reachable)
            )
        )
        return leader
