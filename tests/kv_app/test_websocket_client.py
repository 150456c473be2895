"""The leader's end of a WebSocket, over a transport that is none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from kv_app.errors import ChannelError
from kv_app.messages import close_reason
from kv_app.websocket_client import WebSocketClient, connect
from tests.kv_app.fakes import run

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "ws://127.0.0.1:1/replication"
MAX_BYTES = 1000


class FakeTransport(asyncio.Transport):
    """A connection to a server that the test plays, without a socket."""

    def __init__(self, protocol: WebSocketClient, *, answers: bool) -> None:
        super().__init__()
        self._protocol = protocol
        self._answers = answers
        self.server = ServerProtocol()
        self.is_closed = False
        self.is_aborted = False
        self.received: list[Any] = []

    def write(self, data: Any) -> None:
        """Hands bytes to the server, and its answers back."""
        self.server.receive_data(bytes(data))
        for event in self.server.events_received():
            if isinstance(event, Request):
                if self._answers:
                    self.server.send_response(self.server.accept(event))
            else:
                self.received.append(event)
        asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Hands to the client what the server has to say."""
        for data in self.server.data_to_send():
            if data:
                self._protocol.data_received(data)

    def is_closing(self) -> bool:
        """Tells if it is closed."""
        return self.is_closed

    def close(self) -> None:
        """Closes it."""
        self.is_closed = True

    def abort(self) -> None:
        """Closes it without waiting for the peer."""
        self.is_closed = self.is_aborted = True


class Notes:
    """Who is told what the connection does."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.writable = 0

    def on_message(self, payload: bytes) -> None:
        """Notes a message."""
        self.messages.append(payload)

    def on_writable(self) -> None:
        """Notes that the peer reads again."""
        self.writable += 1


class Wire:
    """Makes the loop connect to fake transports, and keeps them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, answers: bool = True) -> None:
        self.transports: list[FakeTransport] = []
        self.notes = Notes()

        async def create(
            make: Callable[[], WebSocketClient], *_: object
        ) -> tuple[FakeTransport, WebSocketClient]:
            protocol = make()
            transport = FakeTransport(protocol, answers=answers)
            self.transports.append(transport)
            protocol.connection_made(transport)
            return transport, protocol

        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create)

    async def connect(self) -> WebSocketClient:
        """Opens a connection."""
        headers = [("Authorization", "Bearer t")]
        return await connect(URL, headers, self.notes, max_bytes=MAX_BYTES)


async def turns() -> None:
    """Lets the loop deliver what is on its way."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_messages_pass_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each send is one frame, each frame or run of fragments is one message."""

    async def check() -> None:
        wire = Wire(monkeypatch)
        client = await wire.connect()
        transport = wire.transports[0]
        client.send(b"to the follower")
        assert [bytes(frame.data) for frame in transport.received] == [b"to the follower"]
        transport.server.send_binary(b"whole")
        transport.server.send_binary(b"in ", fin=False)
        transport.server.send_continuation(b"two ", fin=False)
        transport.server.send_continuation(b"parts", fin=True)
        transport.flush()
        assert wire.notes.messages == [b"whole", b"in two parts"]

    run(check)


def test_handshake_that_is_given_up_closes_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that accepts and never answers would cost a socket for every try."""

    async def check() -> None:
        wire = Wire(monkeypatch, answers=False)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await wire.connect()
        assert [transport.is_closed for transport in wire.transports] == [True]

    run(check)


def test_answer_to_a_handshake_that_was_given_up_is_no_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leader steps down at any moment, also while it connects; that is no traceback."""

    async def check() -> None:
        wire = Wire(monkeypatch)
        connecting = asyncio.create_task(wire.connect())
        await asyncio.sleep(0)  # the request is sent; its answer is on the way
        connecting.cancel()
        faults: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        await turns()
        assert connecting.cancelled()
        assert wire.transports[0].is_closed
        assert faults == []

    run(check)


@pytest.mark.parametrize(("status", "why"), [(403, "403"), (421, "ADVERTISE_URL")])
def test_handshake_that_is_refused_tells_why(
    status: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server, or a follower that wants a token, is no follower to this leader.

    One that does not know the name by which it is called needs a setting.
    """

    async def check() -> None:
        wire = Wire(monkeypatch, answers=False)
        connecting = asyncio.create_task(wire.connect())
        await turns()
        server = wire.transports[0].server
        server.send_response(server.reject(status, "no token"))
        wire.transports[0].flush()
        with pytest.raises(ChannelError, match=why):
            await connecting
        assert wire.transports[0].is_closed

    run(check)


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset by peer")])
def test_connection_that_is_lost_ends_with_its_reason(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the end is told, and sending is no error any more."""

    async def check() -> None:
        wire = Wire(monkeypatch)
        client = await wire.connect()
        client.connection_lost(error)
        expected = "reset by peer" if error else "the follower closed the connection"
        assert client.closed.result() == expected

    run(check)


def test_close_frame_of_the_follower_ends_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason in the frame is what an operator reads."""

    async def check() -> None:
        wire = Wire(monkeypatch)
        client = await wire.connect()
        wire.transports[0].server.send_close(4002, "replaced")
        wire.transports[0].flush()
        assert client.closed.result() == "replaced"
        client.send(b"too late")
        assert wire.transports[0].is_closed

    run(check)


def test_message_over_the_limit_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower cannot fill the leader's memory."""

    async def check() -> None:
        wire = Wire(monkeypatch)
        client = await wire.connect()
        wire.transports[0].server.send_binary(b"x" * (MAX_BYTES + 1))
        wire.transports[0].flush()
        assert client.closed.done()
        assert wire.notes.messages == []

    run(check)


def test_close_sends_a_reason_and_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that reads is told; one that does not is cut off."""

    async def check() -> None:
        wire = Wire(monkeypatch)
        client = await wire.connect()
        client.close(4003, "stillé" * 30)
        transport = wire.transports[0]
        close_frame = transport.server.close_rcvd
        assert close_frame is not None
        assert close_frame.code == 4003
        assert close_frame.reason == close_reason("stillé" * 30)
        assert transport.is_closed
        assert not transport.is_aborted

        congested = await wire.connect()
        congested.pause_writing()
        assert congested.is_congested
        congested.close(4004, "too slow")
        assert wire.transports[1].is_aborted

    run(check)


def test_close_with_a_long_reason_in_any_language_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name may be long, and its characters wide; that the frame is short is no peer's fault."""

    async def check() -> None:
        wire = Wire(monkeypatch)
        client = await wire.connect()
        client.close(4000, "\u00e9" * 128)
        close_frame = wire.transports[0].server.close_rcvd
        assert close_frame is not None
        assert close_frame.reason == "\u00e9" * 61

    run(check)


def test_peer_that_reads_again_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Congestion begins and ends with the transport's buffer."""

    async def check() -> None:
        wire = Wire(monkeypatch)
        client = await wire.connect()
        client.pause_writing()
        client.resume_writing()
        assert not client.is_congested
        assert wire.notes.writable == 1

    run(check)
