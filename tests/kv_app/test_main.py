"""The application around the calls: what it does to all of them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from kv_app.main import NodeApp, configure_log, create_app, log_format
from kv_app.settings import Settings
from tests.kv_app.fakes import run, until
from tests.kv_app.nodes import error_of, serve, serve_follower, wait_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from kv_app.node import Node
    from tests.kv_app.fakes import FakeNetwork

    MakeNetwork = Callable[[int], FakeNetwork]

KEYS = 10_000
DUMP: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "path": "/dump",
    "raw_path": b"/dump",
    "query_string": b"",
    "headers": [(b"host", b"127.0.0.1")],
    "server": ("127.0.0.1", 80),
}


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_log_of_any_level_has_neither_token_nor_data(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries write down headers and whole messages at their lower levels."""
    log = io.StringIO()
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(sys, "stderr", log)
    levels = [(logger, logger.level) for logger in (logging.root, logging.getLogger("kv_app"))]
    try:
        configure_log(Settings(node_id="n1", log_level=level))
        for name in ("kv_app.channel", "websockets.client", "httpcore.http11", "httpx", "any"):
            for severity in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                logging.getLogger(name).log(severity, "%s %d", name, severity)
        handshake = ClientProtocol(parse_uri("ws://127.0.0.1:1/"))
        request = handshake.connect()
        request.headers["Authorization"] = "Bearer secret"
        handshake.send_request(request)
    finally:
        for logger, before in levels:
            logger.setLevel(before)
    lines = log.getvalue().splitlines()
    assert not [line for line in lines if "secret" in line]
    asked = getattr(logging, level.upper())
    for name, lowest in (("kv_app.channel", asked), ("any", max(asked, logging.WARNING))):
        told = [int(line.split()[-1]) for line in lines if f" {name}: " in line]
        assert told == [severity for severity in (10, 20, 30, 40) if severity >= lowest]


async def fill(app: NodeApp) -> None:
    """Writes many keys."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
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

    await app(dict(DUMP), receive, send)
    return sent


def node_of(client: httpx.AsyncClient) -> Node:
    """Returns the node behind a client."""
    node: Node = client._transport.app.node  # type: ignore[attr-defined]
    return node


async def hang(*_: object) -> None:
    """Stands for what may take longer than a node has to stop."""
    await asyncio.Event().wait()


def test_name_with_a_percent_sign_is_logged_as_it_is() -> None:
    """It is a text, and no part of the format: systemd's templates put one in by mistake."""
    record = logging.LogRecord("kv_app", logging.INFO, "", 1, "up for %d s", (5,), None)
    line = logging.Formatter(log_format("kv-%i %(message)s %%")).format(record)
    assert line.endswith(" kv-%i %(message)s %% INFO kv_app: up for 5 s")


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


# --- a node that stops --------------------------------------------------------------------------


def test_calls_that_wait_for_followers_are_answered_in_the_one_shape_when_the_node_stops(
    make_network: MakeNetwork,
) -> None:
    """A read that waits for a confirmation, and a change of k; nothing waits for its time."""
    network = make_network(2)

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        network[1].confirms = network[2].confirms = False
        asked = len(network[1].client.frames)
        read = asyncio.create_task(client.get("/kv/a?consistency=linearizable"))
        await until(lambda: len(network[1].client.frames) > asked)
        change = asyncio.create_task(client.post("/admin/quorum", json={"write_quorum": 2}))
        await network[1].client.has_sent(1)
        node = node_of(client)
        node.drain()
        node.end_waits()
        error_of(await read, "not_confirmed")
        assert error_of(await change, "outcome_unknown")["seq"] == 1

    urls = tuple(network.followers)
    serve(check, follower_urls=urls, write_quorum=1, request_timeout_s=3600)


def test_promotion_that_is_under_way_when_the_node_stops_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node may hold the base of the new epoch by then, and lead with it when it is back."""
    monkeypatch.setattr("kv_app.candidacy.promote", hang)

    async def check(client: httpx.AsyncClient) -> None:
        node = node_of(client)
        promotion = asyncio.create_task(client.post("/admin/promote", json={}))
        await until(lambda: node.candidacy.is_under_way)
        node.drain()
        node.end_waits()
        error = error_of(await promotion, "outcome_unknown")
        assert "in the middle of POST /admin/promote" in error["message"]
        await until(lambda: not node.candidacy.is_under_way)

    serve_follower(check)


@pytest.mark.parametrize("is_draining", [True, False])
def test_read_that_the_server_cuts_off_at_the_end_is_refused(
    monkeypatch: pytest.MonkeyPatch, *, is_draining: bool
) -> None:
    """One that asks a follower that is frozen, say. A server that goes on sees its own cut."""
    monkeypatch.setattr("kv_app.api.admin._ask_all", hang)

    async def check(client: httpx.AsyncClient) -> None:
        node = node_of(client)
        read = asyncio.create_task(client.get("/admin/digests"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not read.done()
        if is_draining:
            node.drain()
        read.cancel()
        if is_draining:
            assert error_of(await read, "not_attempted")["reason"] == "draining"
        else:
            with pytest.raises(asyncio.CancelledError):
                await read

    serve(check)


def test_answer_that_the_server_cuts_off_at_the_end_has_no_second_beginning() -> None:
    """Its client sees that it is not whole, for the connection ends."""

    async def main() -> None:
        app = create_app(Settings())
        app.node.start()
        await fill(app)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            if message.get("body"):
                await hang()

        async def receive() -> dict[str, Any]:
            await hang()
            raise AssertionError

        call = asyncio.create_task(app(dict(DUMP), receive, send))
        await until(lambda: len(sent) == 2)
        app.node.drain()
        call.cancel()
        await call
        assert [message["type"] for message in sent] == [
            "http.response.start",
            "http.response.body",
        ]
        await app.node.stop()

    run(main)
