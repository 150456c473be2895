"""Whole nodes in this process, called without a socket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from kv_app.errors import StoreError, all_store_errors
from kv_app.main import create_app
from kv_app.messages import PROTOCOL_VERSION, Base, BaseHeld, FollowerMessage, Hello, Welcome
from kv_app.meta import Role
from kv_app.settings import Settings
from tests.kv_app.fake_leader import base
from tests.kv_app.fakes import WAIT_LIMIT_S, encode, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fastapi import FastAPI

    Check = Callable[[httpx.AsyncClient], Awaitable[None]]

BY_CODE = {error.code: error for error in all_store_errors()}


@contextlib.asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[None]:
    """Runs an application's lifespan, as a server does."""
    events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    answers: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, events.get, answers.put))
    events.put_nowait({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        events.put_nowait({"type": "lifespan.shutdown"})
        await task


def serve(check: Check, **options: Any) -> None:
    """Runs a test's coroutine function with a client of one node, a leader alone by default."""

    async def main() -> None:
        app = create_app(Settings(**options))
        transport = httpx.ASGITransport(app=app)
        async with (
            started(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
        ):
            await check(client)

    run(main)


def serve_follower(check: Check, **options: Any) -> None:
    """The same with a follower that nobody leads."""
    serve(check, role=Role.FOLLOWER, **options)


def error_of(response: httpx.Response, code: str) -> dict[str, Any]:
    """Returns the error in a response, after holding it to the one shape."""
    error_class: type[StoreError] = BY_CODE[code]
    assert response.status_code == error_class.http_status
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error["code"] == code
    assert error["definite"] is error_class.definite
    assert error["message"].endswith(".")
    return error


async def wait_ready(client: httpx.AsyncClient) -> None:
    """Waits until a node can do its role's work."""
    async with asyncio.timeout(WAIT_LIMIT_S):
        while (await client.get("/ready")).status_code != 200:  # noqa: ASYNC110  sets no event
            await asyncio.sleep(0)


class OpenChannel:
    """A WebSocket to a node, from the leader's side."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answers: asyncio.Queue[Any] = asyncio.Queue()

    async def next(self) -> Any:
        """Waits for the node's next event."""
        async with asyncio.timeout(WAIT_LIMIT_S):
            return await self.answers.get()

    async def ask(self, message: object) -> FollowerMessage:
        """Sends a message, and waits for the node's answer to it."""
        return await self.ask_bytes(encode(message))

    async def ask_bytes(self, payload: bytes) -> FollowerMessage:
        """Sends a message that is encoded already, and waits for the node's answer to it."""
        self.events.put_nowait({"type": "websocket.receive", "bytes": payload})
        event = await self.next()
        return msgspec.msgpack.decode(event["bytes"], type=FollowerMessage)


@contextlib.asynccontextmanager
async def open_channel(
    app: FastAPI, token: str | None = None, epoch: int = 1
) -> AsyncIterator[OpenChannel]:
    """Opens a replication channel and says hello on it."""
    channel = OpenChannel()
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {
        "type": "websocket",
        "path": "/replication",
        "raw_path": b"/replication",
        "headers": headers,
        "query_string": b"",
        "subprotocols": [],
    }
    channel.events.put_nowait({"type": "websocket.connect"})
    hello = Hello(
        PROTOCOL_VERSION, "c", epoch, "leader", "http://leader:1", 0, "first", is_formed=True
    )
    channel.events.put_nowait({"type": "websocket.receive", "bytes": encode(hello)})
    task = asyncio.create_task(app(scope, channel.events.get, channel.answers.put))
    yield channel
    channel.events.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await task


@contextlib.asynccontextmanager
async def led(client: httpx.AsyncClient, epoch: int = 1) -> AsyncIterator[OpenChannel]:
    """Leads the follower behind a client: opens a channel and gives it the base of an epoch."""
    app = client._transport.app  # type: ignore[attr-defined]
    async with open_channel(app, epoch=epoch) as channel:
        await channel.next()  # accepted
        event = await channel.next()
        welcome = msgspec.msgpack.decode(event["bytes"], type=Welcome)
        assert await channel.ask(Base(base(epoch), welcome.incarnation)) == BaseHeld(epoch)
        yield channel
