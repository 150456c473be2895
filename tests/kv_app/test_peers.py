"""Calls between nodes over HTTP: the real client against a real application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app import peers
from kv_app.bounds import MAX_SEQ
from kv_app.failover.calls import Denied, FetchWhole, Probe, Probed, Seal
from kv_app.main import create_app
from kv_app.meta import Promise, Role
from kv_app.peers import HttpPeers, PeerError, framed
from kv_app.settings import Settings
from tests.kv_app.fakes import run
from tests.kv_app.nodes import error_of, serve, started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

URL = "http://127.0.0.1:8000"


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 9))
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    messages: list[bytes], size: int
) -> None:
    """A stream keeps no borders between messages."""
    stream = b"".join(map(framed, messages))
    buffer, found = bytearray(), []
    for first in range(0, len(stream), size):
        buffer += stream[first : first + size]
        while (frame := peers._take_frame(buffer)) is not None:
            found.append(frame)
    assert found == messages
    assert not buffer


def test_message_beyond_the_limit_is_refused_before_it_is_kept() -> None:
    """A length may be anything; memory may not."""
    with pytest.raises(PeerError, match="bytes in a snapshot"):
        peers._take_frame(bytearray((peers.MAX_FRAME_BYTES + 1).to_bytes(4, "big")))


class InProcess(HttpPeers):
    """Peers whose requests go to an application in this process."""

    def __init__(self, app: FastAPI, token: str | None = None) -> None:
        super().__init__(token, 1.0)
        self._app = app

    def _client(self, timeout_s: float) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self._app)
        return httpx.AsyncClient(transport=transport, headers=self._headers, timeout=timeout_s)


def test_node_tells_where_it_stands_to_who_has_the_token() -> None:
    """And nothing to anybody else."""

    async def check() -> None:
        app = create_app(Settings(node_id="n1", cluster_token="secret"))
        async with started(app):
            answer = await InProcess(app, "secret").call(URL, Probe(), 1.0)
            assert isinstance(answer, Probed)
            assert (answer.node_id, answer.is_leading) == ("n1", True)
            with pytest.raises(PeerError, match="answered 401"):
                await InProcess(app).call(URL, Probe(), 1.0)

    run(check)


@pytest.mark.parametrize("epoch", [0, -1, MAX_SEQ + 1])
def test_epoch_that_can_not_be_is_not_promised(epoch: int) -> None:
    """A node that did could follow nobody any more."""

    async def check() -> None:
        app = create_app(Settings(role=Role.FOLLOWER))
        async with started(app):
            seal = Seal("c", Promise(epoch, "x", "y"))
            if epoch:
                with pytest.raises(PeerError, match="answered 400"):
                    await InProcess(app).call(URL, seal, 1.0)
            else:
                assert isinstance(await InProcess(app).call(URL, seal, 1.0), Denied)
            assert app.node.replica.promised == 0

    run(check)


def test_what_is_settled_is_handed_only_to_whom_it_was_promised() -> None:
    """Who asks with another promise gets nothing, and no error that tells more."""

    async def check() -> None:
        app = create_app(Settings(role=Role.FOLLOWER))
        async with started(app):
            stranger = FetchWhole(Promise(9, "x", "y"), app.node.replica.meta.incarnation)
            assert [frame async for frame in InProcess(app).whole(URL, stranger)] == []

    run(check)


def test_node_that_is_not_there_is_an_error_of_one_sentence() -> None:
    """Whatever the reason: nobody listens, or the URL is none."""

    async def check() -> None:
        for url in ("http://127.0.0.1:1", "http://[broken"):
            with pytest.raises(PeerError, match="did not answer"):
                await HttpPeers(None, 1.0).call(url, Probe(), 1.0)

    run(check)


class Dripping(httpx.AsyncByteStream):
    """An answer that comes byte by byte, and never ends by itself."""

    def __init__(self, part: bytes = b"x") -> None:
        self._part = part
        self.sent_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Sends a byte from time to time."""
        while True:
            await asyncio.sleep(0)
            self.sent_bytes += len(self._part)
            yield self._part


class Answering(HttpPeers):
    """Peers that all give the same answer."""

    def __init__(self, answer: Dripping) -> None:
        super().__init__(None, 1.0)
        self._answer = answer

    def _client(self, timeout_s: float) -> httpx.AsyncClient:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=self._answer))
        return httpx.AsyncClient(transport=transport, timeout=timeout_s)


def test_node_that_answers_drop_by_drop_is_waited_for_no_longer_than_one_that_is_silent() -> None:
    """A promotion waits for all that it asks: one of them must not hold it up for ever."""

    async def check() -> None:
        with pytest.raises(PeerError, match=rf"^{URL} did not answer within 0.01 s$"):
            await Answering(Dripping()).call(URL, Probe(), 0.01)

    run(check)


def test_answer_without_an_end_takes_no_more_memory_than_the_longest_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever answers fast enough could fill it within the time of a call."""
    monkeypatch.setattr(peers, "MAX_FRAME_BYTES", 1000)

    async def check() -> None:
        answer = Dripping(bytes(300))
        with pytest.raises(PeerError, match=rf"^{URL} answered with more than 1000 bytes$"):
            await Answering(answer).call(URL, Probe(), 5.0)
        assert answer.sent_bytes == 1200

    run(check)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x91" * 100_000])
@pytest.mark.parametrize("path", [peers.CALL_PATH, peers.WHOLE_PATH])
def test_question_that_cannot_be_read_is_malformed(path: str, body: bytes) -> None:
    """In the one shape of all errors."""

    async def check(client: httpx.AsyncClient) -> None:
        headers = {"Content-Type": peers.MEDIA_TYPE}
        error = error_of(await client.post(path, content=body, headers=headers), "malformed")
        assert "no question" in error["message"]
        error_of(await client.get(path), "method_not_allowed")

    serve(check)
