"""A network that delays, breaks and partitions; channels keep their order, as TCP does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from kv_app.failover.calls import Answer, FetchWhole, Question
from kv_app.messages import (
    Ack,
    Base,
    BaseHeld,
    CaughtUp,
    Entries,
    Entry,
    FollowerMessage,
    LeaderMessage,
    Replace,
    SeqRange,
    SnapshotBegin,
    SnapshotEnd,
)
from kv_app.meta import BaseRecord, Config
from kv_app.peers import PeerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from random import Random

    from kv_app.node import Node

_encode = msgspec.msgpack.Encoder().encode
_decode_question = msgspec.msgpack.Decoder(Question).decode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode
# What a leader cannot mean: no such epoch, position, base or snapshot can be.
_NOWHERE = Entry(0, 0, 1, "a", "a lie", None)
_FAR = 1 << 60
FALSE_ORDERS: tuple[LeaderMessage, ...] = (
    Entries([_NOWHERE], 0),
    Entries([msgspec.structs.replace(_NOWHERE, epoch=_FAR, seq=1)], 0),
    Entries([msgspec.structs.replace(_NOWHERE, epoch=1, seq=-1)], 0),
    Replace(_FAR),
    SnapshotBegin(-1, 0),
    SnapshotBegin(_FAR, _FAR),
    SnapshotEnd(b""),
    Base(BaseRecord(_FAR, "nobody", "", Config((), 0, 0, 0), 0), ""),
)


def false_answers(held: int) -> list[FollowerMessage]:
    """Returns what no follower can mean, nor say more than once.

    Args:
        held: What it holds.
    """
    answers: list[FollowerMessage] = [
        Ack([SeqRange(5, 2)]),
        Ack([SeqRange(0, 0)]),
        Ack([SeqRange(_FAR, _FAR)]),
        Ack([SeqRange(1, _FAR)]),
        CaughtUp(_FAR),
        BaseHeld(_FAR),
    ]
    if held:
        answers.append(Ack([SeqRange(1, held)] * 50))
    return answers


# How long a partition's other side is tried before a connection is given up.
GIVE_UP_S = 2.0


class Host(Protocol):
    """A machine of the network.

    Attributes:
        url: Its address.
        node: What runs there now; None if nothing does.
    """

    url: str
    node: Node | None


class Network:
    """All hosts, and the ways between them.

    Attributes:
        blocked: Pairs of URLs, from and to, between which nothing goes.
        mean_s: Mean time that a message takes.
        loss: Share of the calls of which question or answer is lost.
        closed: URLs to which no channel can be opened, though calls arrive.
        slow_s: How much longer a call from one URL to another takes.
        window: How many messages of a leader may be on their way to a follower before that is
            congested: few make snapshots that take a while.
    """

    def __init__(self, random: Random, mean_s: float, loss: float, window: int = 1 << 30) -> None:
        self.hosts: dict[str, Host] = {}
        self.blocked: set[tuple[str, str]] = set()
        self.mean_s = mean_s
        self.loss = loss
        self.window = window
        self.closed: set[str] = set()
        self.slow_s: dict[tuple[str, str], float] = {}
        self.channels: list[Channel] = []
        self._random = random

    def delay_s(self) -> float:
        """Draws how long a message takes."""
        return self._random.expovariate(1 / self.mean_s)

    def is_lost(self, source: str, target: str) -> bool:
        """Tells if a call's message does not arrive."""
        return (source, target) in self.blocked or self._random.random() < self.loss

    def running(self, url: str) -> Node | None:
        """Returns what runs at an address."""
        host = self.hosts.get(url)
        return host.node if host is not None else None

    async def connect(
        self, url: str, headers: Sequence[tuple[str, str]], listener: Any, *, max_bytes: int
    ) -> Channel:
        """Opens a channel; stands for ``kv_app.channel.connect``."""
        del headers, max_bytes
        source = listener._config.leader_url
        target = f"http{url.removeprefix('ws').removesuffix('/replication')}"
        await asyncio.sleep(self.delay_s())
        node = self.running(target)
        if node is None or (source, target) in self.blocked or target in self.closed:
            raise ConnectionRefusedError("nobody listens there")
        channel = Channel(self, source, target, node, listener)
        self.channels.append(channel)
        return channel

    def cut(self, url: str) -> None:
        """Breaks all channels of a host: its process is gone."""
        for channel in self.channels:
            if url in {channel.source, channel.target}:
                channel.break_off()
        self.channels = [channel for channel in self.channels if not channel.is_over]

    def break_some(self) -> None:
        """Breaks one of the channels."""
        self.channels = [channel for channel in self.channels if not channel.is_over]
        if self.channels:
            self._random.choice(self.channels).break_off()

    def congest_some(self, for_s: float) -> None:
        """Has one of the followers read nothing for a while."""
        open_ones = [channel for channel in self.channels if not channel.is_over]
        if open_ones:
            channel = self._random.choice(open_ones)
            channel.is_held_up = True
            asyncio.get_running_loop().call_later(for_s, channel.relieve)


class Channel:
    """One connection: the leader's end, and the session at the other."""

    def __init__(
        self, network: Network, source: str, target: str, node: Node, listener: Any
    ) -> None:
        loop = asyncio.get_running_loop()
        self.source, self.target = source, target
        self.listener = listener
        self.closed: asyncio.Future[str] = loop.create_future()
        self.is_over = False
        self.is_held_up = False
        self._on_their_way = 0
        self.last_received_s = loop.time()
        self._loop = loop
        self._network = network
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._last_s = {source: 0.0, target: 0.0}
        self._task = asyncio.create_task(node.serve_channel(self._events.get, self._answer))

    # --- the leader's end ---

    @property
    def is_congested(self) -> bool:
        """True while as much is on its way as may be, or the follower reads nothing."""
        return self.is_held_up or self._on_their_way >= self._network.window

    def send(self, payload: bytes) -> None:
        """Sends a message to the follower."""
        if not self.closed.done():
            event = {"type": "websocket.receive", "bytes": payload}
            self._on_their_way += 1
            self._carry(self.source, self.target, self._take, event)

    def _take(self, event: Any) -> None:
        was_congested = self.is_congested
        self._on_their_way -= 1
        self._events.put_nowait(event)
        if was_congested:
            self._tell_if_writable()

    def _tell_if_writable(self) -> None:
        if not self.is_congested and not self.closed.done():
            self.listener.on_writable()

    def close(self, code: int, reason: str) -> None:
        """Ends the channel from the leader's end."""
        if not self.closed.done():
            self.closed.set_result(reason)
            event = {"type": "websocket.disconnect", "code": code}
            self._carry(self.source, self.target, self._events.put_nowait, event)

    # --- the follower's end ---

    async def _answer(self, event: Any) -> None:
        if self.is_over:
            raise OSError("the channel has ended")
        if event["type"] == "websocket.close":
            self._carry(self.target, self.source, self._end, event["reason"])
        else:
            self._carry(self.target, self.source, self._deliver, event["bytes"])

    def _deliver(self, payload: bytes) -> None:
        if not self.closed.done():
            self.last_received_s = self._loop.time()
            self.listener.on_message(payload)

    def _end(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        self.is_over = True

    # --- between them ---

    def _carry(self, source: str, target: str, take: Any, message: Any) -> None:
        """Delivers a message in its order, a while later."""
        at_s = max(self._loop.time() + self._network.delay_s(), self._last_s[source] + 1e-6)
        self._last_s[source] = at_s
        self._loop.call_at(at_s, self._arrive, source, target, take, message, at_s)

    def _arrive(self, source: str, target: str, take: Any, message: Any, sent_s: float) -> None:
        if self.is_over and take == self._take:
            return
        if self._network.running(target) is None:
            return
        if (source, target) in self._network.blocked:
            self.break_off()
            return
        del sent_s
        take(message)

    def relieve(self) -> None:
        """The follower reads again."""
        self.is_held_up = False
        self._tell_if_writable()

    def lie(self, random: Random) -> None:
        """Has one of the ends send what it cannot mean: the other must believe none of it."""
        if random.random() < 0.5:
            held = self.listener.held.contiguous
            self._deliver(_encode(random.choice(false_answers(held))))
        else:
            frame = _encode(random.choice(FALSE_ORDERS))
            self._events.put_nowait({"type": "websocket.receive", "bytes": frame})

    def break_off(self) -> None:
        """Breaks the connection: what is on its way is lost; each end notices it for itself."""
        if self.is_over:
            return
        self.is_over = True
        self._end("the connection broke")
        self._events.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def kill(self) -> None:
        """Ends the session's task, whose process is gone."""
        self._task.cancel()


class SimulatedPeers:
    """Calls between hosts; stands for ``kv_app.peers.HttpPeers``."""

    def __init__(self, network: Network, url: str) -> None:
        self._network = network
        self._url = url

    async def call(self, url: str, question: Question, timeout_s: float) -> Answer:
        """Asks a node."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._call(url, _encode(question))
        except TimeoutError:
            raise PeerError(f"{url} did not answer in time") from None

    async def _call(self, url: str, payload: bytes) -> Answer:
        network = self._network
        await asyncio.sleep(network.delay_s() + network.slow_s.get((self._url, url), 0.0))
        if network.is_lost(self._url, url):
            await asyncio.Event().wait()
        node = network.running(url)
        if node is None:
            raise PeerError(f"{url} refuses connections")
        answer = _encode(await node.respondent.answer(_decode_question(payload)))
        await asyncio.sleep(network.delay_s())
        if network.running(url) is not node or network.is_lost(url, self._url):
            await asyncio.Event().wait()
        return _decode_answer(answer)

    async def whole(self, url: str, question: FetchWhole) -> AsyncIterator[bytes]:
        """Yields the messages of a node's snapshot."""
        network = self._network
        await asyncio.sleep(network.delay_s())
        node = network.running(url)
        if node is None or network.is_lost(self._url, url):
            raise PeerError(f"{url} refuses connections")
        frames: Iterable[bytes] = node.respondent.whole(question)
        for number, frame in enumerate(frames):
            if number % 64 == 0:
                await asyncio.sleep(network.delay_s())
            if network.running(url) is not node or (url, self._url) in network.blocked:
                raise PeerError(f"{url} went away")
            yield frame


async def quietly(task: asyncio.Task[Any]) -> None:
    """Waits for the end of a task, whatever it ends with."""
    with contextlib.suppress(BaseException):
        await task
