"""Whole nodes in this process, called without a socket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx

from kv_app.errors import StoreError, all_store_errors
from kv_app.main import create_app
from kv_app.messages import Role
from kv_app.settings import Settings
from tests.kv_app.fakes import run

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
            httpx.AsyncClient(transport=transport, base_url="http://node") as client,
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
