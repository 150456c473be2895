"""A real leader and real followers in one process, with channels between them and no sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from kv_app.errors import StorageError
from kv_app.messages import Operation
from kv_app.meta import Role
from kv_app.settings import Settings
from kv_app.storage import Storage, open_storage
from tests.kv_app.disks import crash
from tests.kv_app.fake_leader import make_follower
from tests.kv_app.fakes import until
from tests.kv_app.roles import forming_leader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kv_app.leader import Leader
    from kv_app.log import LogRecord
    from kv_app.websocket_client import Listener


WRITES_AT_ONCE = 10


class WiredClient:
    """The leader's end of a channel to a follower that runs beside it."""

    def __init__(self, node: FollowerNode, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        self.listener = listener
        self.closed: asyncio.Future[str] = loop.create_future()
        self.is_congested = False
        self.last_received_s = loop.time()
        self._loop = loop
        self._node = node
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task = asyncio.create_task(node.follower.serve(self._receive, self._answer))

    async def _receive(self) -> dict[str, Any]:
        event = await self._events.get()
        if event["type"] == "websocket.receive":
            await self._node.may_read()
        return event

    async def _answer(self, event: Any) -> None:
        if self.closed.done():
            raise OSError("the channel has ended")
        if event["type"] == "websocket.close":
            self._loop.call_soon(self.close, event["code"], event["reason"])  # behind what it said
        else:
            self.last_received_s = self._loop.time()
            self._loop.call_soon(self._deliver, event["bytes"])

    def _deliver(self, payload: bytes) -> None:
        if not self.closed.done():
            self.listener.on_message(payload)

    def send(self, payload: bytes) -> None:
        """Sends a message to the follower, which may change it on its way."""
        if not self.closed.done():
            self._node.sent += 1
            payload = self._node.tamper(payload)
            self._events.put_nowait({"type": "websocket.receive", "bytes": payload})

    def close(self, code: int, reason: str) -> None:
        """Ends the channel on both ends."""
        del code
        if not self.closed.done():
            self.closed.set_result(reason)
            self._events.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def ended(self) -> None:
        """Breaks the channel, and waits until the follower has noticed."""
        self.close(1006, "broken")
        self._task.cancel()
        await asyncio.wait([self._task])


class FollowerNode:
    """A follower that starts, stops, crashes and loses its disk.

    Attributes:
        follower: Its newest start.
        storage: Its database; None if all is in memory.
        is_up: Whether it can be connected to.
        sent: How many messages it was sent.
        reads_left: How many messages it still reads; None for all.
        tamper: What happens to a message on its way.
        failures: What its disk reported.
    """

    def __init__(self, number: int, folder: Path | None, options: dict[str, Any]) -> None:
        self.name = f"f{number}"
        self.url = f"http://{self.name}:1"
        self.is_up = True
        self.sent = 0
        self.reads_left: int | None = None
        self.tamper: Callable[[bytes], bytes] = lambda payload: payload
        self.client: WiredClient | None = None
        self.failures: list[StorageError] = []
        self._options = options
        self._folder = folder
        self._lives = itertools.count()
        self._data_dir = self._new_folder()
        self.storage: Storage | None = None
        self.start()

    def _new_folder(self) -> Path | None:
        life = f"{self.name}-{next(self._lives)}"
        return None if self._folder is None else self._folder / life

    def start(self) -> None:
        """Starts from its disk."""
        if self._data_dir is not None:
            self.storage = open_storage(self._data_dir, self.name, Role.FOLLOWER)
        self.follower = make_follower(
            self.storage, self.failures.append, node_id=self.name, **self._options
        )
        self.is_up = True

    async def end(self) -> None:
        """Ends as on SIGTERM."""
        self.is_up = False
        if self.client is not None:
            await self.client.ended()
        await self.follower.stop()
        if self.storage is not None:
            self.storage.close()

    async def restart(self, *, wiped: bool = False) -> None:
        """Ends and starts again, with or without its data."""
        await self.end()
        if wiped:
            self._data_dir = self._new_folder()
        self.start()

    async def crash(self) -> None:
        """Ends as on SIGKILL, and starts again from what is on its disk."""
        self.is_up = False
        if self.client is not None:
            await self.client.ended()
        assert self.storage is not None
        assert self._data_dir is not None
        old, self._data_dir = self._data_dir, self._new_folder()
        assert self._data_dir is not None
        crash(self.storage, old, self._data_dir)
        if self.follower.commits is not None:
            await self.follower.commits.close()  # a process that is gone has no threads either
        self.failures.clear()
        self.start()

    async def may_read(self) -> None:
        """Waits for ever once it has read all that it may."""
        if self.reads_left is not None:
            if self.reads_left == 0:
                await asyncio.Event().wait()
            self.reads_left -= 1


class Wired:
    """A leader and its followers; stands for ``kv_app.channel.connect``."""

    def __init__(self, folder: Path | None, followers: int, **options: Any) -> None:
        """Makes the followers; ``start`` makes the leader.

        Args:
            folder: Where all disks are; None for memory only.
            followers: n.
            options: Settings of all nodes.
        """
        self._folder = folder
        self._options = {"reconnect_max_s": 0.01, **options}
        self.followers = [
            FollowerNode(number, folder, self._options) for number in range(1, followers + 1)
        ]
        self.storage: Storage | None = None
        self.leader: Leader

    async def connect(
        self, url: str, headers: Sequence[tuple[str, str]], listener: Listener, *, max_bytes: int
    ) -> WiredClient:
        """Opens a channel to a follower."""
        del headers, max_bytes
        [node] = [one for one in self.followers if one.name in url]
        if not node.is_up:
            raise ConnectionRefusedError("nobody listens there")
        node.client = WiredClient(node, listener)
        return node.client

    def start(self, **options: Any) -> Leader:
        """Starts the leader, from its disk if it has one."""
        if self._folder is not None:
            self.storage = open_storage(self._folder / "leader", "leader", Role.LEADER)
        settings = {
            "node_id": "leader",
            "follower_urls": tuple(node.url for node in self.followers),
            **self._options,
            **options,
        }
        self.leader = forming_leader(Settings(**settings), self.storage)
        self.leader.start()
        return self.leader

    async def stop_leader(self) -> None:
        """Ends the leader."""
        await self.leader.stop()
        if self.storage is not None:
            self.storage.close()
            self.storage = None

    async def stop(self) -> None:
        """Ends all nodes."""
        await self.stop_leader()
        for node in self.followers:
            with contextlib.suppress(StorageError):  # it may have ended already
                await node.end()

    async def all_count(self) -> None:
        """Waits until every follower counts."""
        await until(lambda: all(link.counts for link in self.leader.links))

    async def converged(self) -> None:
        """Waits until every follower holds all that the leader has, and shows the same."""
        last_seq = self.leader.log.last_seq
        await self.all_count()
        await until(lambda: self.leader.stable_seq == last_seq)
        for node in self.followers:
            held = node.follower.held
            await until(lambda held=held: held.contiguous == last_seq)  # type: ignore[misc]
            assert node.follower.state.digests() == self.leader.state.digests(), node.name

    async def put(
        self, key: str, value: str = "v", idempotency_key: str | None = None
    ) -> LogRecord:
        """Writes a value, and waits for its quorum."""
        record = self.leader.append(Operation.PUT, key, value, idempotency_key)
        await self.leader.wait_committed(record)
        return record

    async def put_many(self, first: int, last: int) -> None:
        """Writes keys of these numbers, some side by side."""
        for start in range(first, last + 1, WRITES_AT_ONCE):
            numbers = range(start, min(start + WRITES_AT_ONCE, last + 1))
            await asyncio.gather(*(self.put(f"k{number}", f"v{number}") for number in numbers))
