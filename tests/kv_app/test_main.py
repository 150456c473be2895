"""The application around the calls: what it does to all of them."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import httpx

from kv_app.main import NodeApp, create_app
from kv_app.settings import Settings
from tests.kv_app.fakes import run

KEYS = 10_000


async def fill(app: NodeApp) -> None:
    """Writes many keys."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        operations = [{"op": "put", "key": f"key{n}", "value": "x" * 1000} for n in range(KEYS)]
        for first in range(0, KEYS, 1000):
            batch = {"operations": operations[first : first + 1000]}
            (await client.post("/kv", json=batch)).raise_for_status()


async def dump(app: NodeApp, leaves_after: float) -> list[Any]:
    """Asks for a dump as a server does; the client leaves after so many messages of it."""
    sent: list[Any] = []
    has_left = asyncio.Event()
    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > leaves_after:
            has_left.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/dump",
        "raw_path": b"/dump",
        "query_string": b"",
        "headers": [],
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return sent


def test_dump_that_nobody_takes_any_more_is_given_up() -> None:
    """A client that asks for all and goes must not keep the node busy with the rest."""

    async def main() -> None:
        app = create_app(Settings())
        app.node.start()
        await fill(app)
        whole = await dump(app, leaves_after=math.inf)
        body = b"".join(message.get("body", b"") for message in whole)
        assert len(json.loads(body)) == KEYS
        abandoned = await dump(app, leaves_after=3)
        assert len(abandoned) < len(whole) // 2
        await app.node.stop()

    run(main)
