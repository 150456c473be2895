"""A leader's end of a channel without a socket, for tests of the follower's side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kv_app import snapshot
from kv_app.follower import Follower
from kv_app.messages import (
    PROTOCOL_VERSION,
    Base,
    BaseHeld,
    Change,
    Entries,
    Entry,
    FollowerMessage,
    Hello,
    Operation,
    Refusal,
    RememberedWrite,
    Welcome,
)
from kv_app.meta import BaseRecord, Config, Member, Role
from kv_app.settings import Settings
from tests.kv_app.fakes import TEST_LIMIT_S, WAIT_LIMIT_S, encode
from tests.kv_app.roles import make_replica

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from kv_app.errors import StorageError
    from kv_app.state import State
    from kv_app.storage import Storage

LEADER_URL = "http://leader:8000"


def make_follower(
    storage: Storage | None = None,
    on_failure: Callable[[StorageError], None] | None = None,
    **options: Any,
) -> Follower:
    """Returns a follower that holds what its disk does."""
    settings = {"role": Role.FOLLOWER, "node_id": "f1", "start_id": "s1", **options}
    return Follower(make_replica(Settings(**settings), storage, on_failure))


class Channel:
    """A leader's end of a channel: what an ASGI server would hand over."""

    def __init__(self, follower: Follower) -> None:
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self.is_congested = False
        self.was_blocked = asyncio.Event()
        self.close_code: int | None = None
        self.heard_count = 0
        self.served = asyncio.create_task(follower.serve(self._events.get, self._send))

    async def _send(self, event: Any) -> None:
        if self.is_congested:
            self.was_blocked.set()
            await asyncio.Event().wait()
        if event["type"] == "websocket.close":
            self.close_code = event["code"]
        else:
            assert event["type"] == "websocket.send"
            answer = msgspec.msgpack.decode(event["bytes"], type=FollowerMessage)
            self.heard_count += 1
            self._answers.put_nowait(answer)

    def say(self, message: Any) -> None:
        """Sends a message to the follower."""
        self.say_bytes(encode(message))

    def say_bytes(self, payload: bytes) -> None:
        """Sends anything to the follower."""
        self._events.put_nowait({"type": "websocket.receive", "bytes": payload})

    def say_text(self, text: str) -> None:
        """Sends a text frame, which no leader does."""
        self._events.put_nowait({"type": "websocket.receive", "text": text})

    def hang_up(self) -> None:
        """Ends the channel."""
        self._events.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def heard(self) -> Any:
        """Waits for the follower's next message; fails at once if it serves no more."""
        answer = asyncio.create_task(self._answers.get())
        await asyncio.wait(
            [answer, self.served], timeout=WAIT_LIMIT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not answer.done():
            answer.cancel()
            pytest.fail(f"no answer; the channel is {self.served!r}")
        return answer.result()

    async def ask(self, message: Any) -> Any:
        """Sends a message and waits for the answer."""
        self.say(message)
        return await self.heard()

    async def ended(self) -> int | None:
        """Waits until the follower serves no more, and returns the code with which it closed."""
        await asyncio.wait([self.served], timeout=WAIT_LIMIT_S)
        self.served.result()
        return self.close_code

    async def refused(self, message: Any) -> str:
        """Sends a message that must end the channel, and returns the reason."""
        answer = await self.ask(message)
        assert isinstance(answer, Refusal)
        await self.ended()
        return answer.reason

    async def leave(self) -> None:
        """Ends the channel and waits until the follower has noticed."""
        self.hang_up()
        await self.ended()

    async def give_base(self, welcome: Welcome, epoch: int = 1) -> None:
        """Makes the follower a voter."""
        assert await self.ask(Base(base(epoch), welcome.incarnation)) == BaseHeld(epoch)


def base(epoch: int = 1, position: int = 0, forced: int = 0) -> BaseRecord:
    """Returns what an epoch began with."""
    config = Config((Member("leader", LEADER_URL), Member("f1", "http://f1:1")), 1, 1, 1)
    return BaseRecord(epoch, "leader", "life", config, position, forced)


def hello(
    cluster_id: str = "c1", epoch: int = 1, last_seq: int = 0, *, is_formed: bool = True
) -> Hello:
    """Returns a leader's hello."""
    return Hello(
        PROTOCOL_VERSION, cluster_id, epoch, "leader", LEADER_URL, last_seq, "first", is_formed
    )


def put(
    seq: int,
    value: str = "v",
    epoch: int = 1,
    *,
    key: str | None = None,
    idempotency_key: str | None = None,
) -> Entry:
    """Returns a put, of a key of its own if none is named."""
    return Entry(epoch, seq, int(Operation.PUT), key or f"k{seq}", value, idempotency_key)


def batch(seq: int, changes: dict[str, str | None], idempotency_key: str | None = None) -> Entry:
    """Returns a batch."""
    some = tuple(Change(key, value) for key, value in changes.items())
    return Entry(1, seq, int(Operation.BATCH), "", None, idempotency_key, some)


def entries(*some: Entry, stable_seq: int = 0) -> Entries:
    """Returns entries as a leader sends them."""
    return Entries(list(some), stable_seq)


async def following(follower: Follower, cluster_id: str = "c1") -> Channel:
    """Returns a channel whose leader the follower has welcomed."""
    channel = Channel(follower)
    assert isinstance(await channel.ask(hello(cluster_id)), Welcome)
    return channel


def snapshot_frames(
    state: State, stable_seq: int, remembered: Sequence[RememberedWrite] = (), since: int = 0
) -> list[bytes]:
    """Returns the messages of a snapshot."""
    return list(snapshot.snapshot_frames(state, remembered, stable_seq, since))


def run(check: Callable[[], Awaitable[None]]) -> None:
    """Runs a test's coroutine function in an event loop, and ends what it left."""

    async def main() -> None:
        async with asyncio.timeout(TEST_LIMIT_S):
            await check()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(main())
