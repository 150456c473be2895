"""The leader's end of a WebSocket, without a task or a queue between socket and caller.

The `websockets` library does the protocol (its Sans-I/O layer); this module does the I/O. A send is
one synchronous call, and what comes in is handed to a callback, because a replication channel pays
for each hop between tasks on every batch of entries.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from kv_app.bounds import MAX_FRAGMENTS
from kv_app.errors import ChannelError, UnknownHostError
from kv_app.messages import CLOSE_NORMAL, CLOSE_PROTOCOL, close_reason


class Listener(Protocol):
    """Who is told what a connection does."""

    def on_message(self, payload: bytes) -> None:
        """A binary message came in."""

    def on_writable(self) -> None:
        """The peer reads again, after ``WebSocketClient.is_congested`` was true."""


class WebSocketClient(asyncio.Protocol):
    """One open WebSocket connection to a follower.

    Attributes:
        is_congested: The peer reads more slowly than we write; what is sent now is buffered.
        last_received_s: The loop's time of the last bytes from the peer.
        closed: Done when the connection has ended, with the reason.
    """

    def __init__(
        self, url: str, headers: Sequence[tuple[str, str]], listener: Listener, max_bytes: int
    ) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._websocket = ClientProtocol(parse_uri(url), max_size=max_bytes)
        self._headers = headers
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._fragments: list[bytes] = []
        self._opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[str] = loop.create_future()
        self.is_congested = False
        self.last_received_s = loop.time()

    def send(self, payload: bytes) -> None:
        """Sends one binary message; does nothing if the connection has ended."""
        if self._websocket.state is State.OPEN:
            self._websocket.send_binary(payload)
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Ends the connection at once, with a close frame if the peer still reads."""
        if self._websocket.state is State.OPEN:
            self._websocket.send_close(code, close_reason(reason))
            self._flush()
        self._end(reason)

    async def wait_open(self) -> None:
        """Waits for the handshake.

        Raises:
            ChannelError: The peer refused it or went away.
        """
        await self._opened

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the handshake."""
        self._transport = cast("asyncio.Transport", transport)
        request = self._websocket.connect()
        for name, value in self._headers:
            request.headers[name] = value
        self._websocket.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Hands on every message that is complete."""
        self.last_received_s = self._loop.time()
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if isinstance(event, Frame):
                self._on_frame(event)
            elif isinstance(event, Response):
                self._on_handshake()
        self._flush()
        if self._websocket.state is not State.OPEN and self._opened.done():
            closing = self._websocket.close_rcvd
            self._end((closing and closing.reason) or "the follower closed the channel")

    def eof_received(self) -> None:
        """Lets the transport close itself; ``connection_lost`` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells everybody who waits."""
        self._end(str(exc) if exc else "the follower closed the connection")

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self.is_congested = True

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self.is_congested = False
        self._listener.on_writable()

    # --- inside -------------------------------------------------------------------------------

    def _on_handshake(self) -> None:
        error = self._websocket.handshake_exc
        if error is None:
            if not self._opened.done():  # else it was given up, and the answer came after that
                self._opened.set_result(None)
        else:
            reason = f"refused the channel: {error}"
            if isinstance(error, InvalidStatus) and _is_about_name(error.response):
                reason = "does not know its name in this URL: set its ADVERTISE_URL to it"
            elif isinstance(error, InvalidHandshake):
                reason = f"is no follower, or refused the channel: {error}"
            self._end(reason)

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            self._fragments.append(bytes(frame.data))
            if len(self._fragments) > MAX_FRAGMENTS:
                self.close(CLOSE_PROTOCOL, f"the follower sent more than {MAX_FRAGMENTS} fragments")
            elif frame.fin:
                payload = b"".join(self._fragments)
                self._fragments.clear()
                self._listener.on_message(payload)

    def _flush(self) -> None:
        data = self._websocket.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(data))

    def _end(self, reason: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(ChannelError(reason))
        if not self.closed.done():
            self.closed.set_result(reason)
        if self._transport is None:
            return
        if self.is_congested:  # a close would wait for a peer that may never read again
            self._transport.abort()
        else:
            self._transport.close()


def _is_about_name(answer: Response) -> bool:
    return answer.status_code == UnknownHostError.http_status


async def connect(
    url: str, headers: Sequence[tuple[str, str]], listener: Listener, *, max_bytes: int
) -> WebSocketClient:
    """Opens a connection.

    Args:
        url: ``ws://HOST:PORT/PATH``.
        headers: Further headers of the handshake.
        listener: Who is told of messages.
        max_bytes: Longest message that is accepted.

    Raises:
        ChannelError: The peer refused the handshake.
        OSError: It cannot be reached.
    """
    uri = parse_uri(url)
    _, client = await asyncio.get_running_loop().create_connection(
        lambda: WebSocketClient(url, headers, listener, max_bytes), uri.host, uri.port
    )
    try:
        await client.wait_open()
    except asyncio.CancelledError:  # given up: without this its socket would stay open
        client.close(CLOSE_NORMAL, "the handshake was given up")
        raise
    return client
