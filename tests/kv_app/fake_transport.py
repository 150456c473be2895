"""A connection to the node's HTTP protocol without a socket, for tests of its limits."""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httptools
import uvicorn
from uvicorn.server import ServerState

from kv_app.channel_protocol import ChannelProtocol
from kv_app.connections import ConnectionGuard
from kv_app.http_protocol import NodeProtocol
from tests.kv_app.fakes import run, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    Check = Callable[["Server"], Awaitable[None]]

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
PUT_HEAD = b"PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
CHUNKED = b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
CHANNEL = (
    b"GET /replication HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
READ_TIMEOUT_S = 10.5
MARGIN_S = 3.0  # the clock of connections is coarse
MAX_BODY_BYTES = 1000
MAX_FRAME_BYTES = 100_000
HELLO = b"a hello"


def frame(payload: bytes, *, opcode: int = 2, fin: bool = True) -> bytes:
    """Returns a WebSocket frame as a client sends it, masked with zeros."""
    head = bytes([opcode | (0x80 if fin else 0)])
    size = len(payload)
    if size < 126:
        return head + bytes([0x80 | size]) + bytes(4) + payload
    return head + bytes([0x80 | 127]) + size.to_bytes(8, "big") + bytes(4) + payload


class FakeTransport:
    """Records what the node does to a connection; ``unsent`` is what its client does not take."""

    def __init__(self) -> None:
        self.sent = b""
        self.unsent = 0
        self.is_half_closed = self.is_closed = self.is_aborted = False
        self.is_paused = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        """Takes bytes for the client."""
        assert not self.is_half_closed, "written behind the end"
        if self.is_closed:
            raise RuntimeError("written to a connection that is closed")  # so does uvloop
        self.sent += data

    def can_write_eof(self) -> bool:
        """As of TCP."""
        return True

    def write_eof(self) -> None:
        """Ends the node's half."""
        self.is_half_closed = True

    def close(self) -> None:
        """Ends both halves."""
        self.is_closed = True

    def abort(self) -> None:
        """Ends both halves at once."""
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        """True once it was closed."""
        return self.is_closed

    def pause_reading(self) -> None:
        """No more comes."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """More comes."""
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        """What the client has not taken."""
        return self.unsent

    def get_extra_info(self, _name: str) -> None:
        """There is no socket."""

    def set_protocol(self, protocol: Any) -> None:
        """Hands the connection over."""
        self.protocol = protocol

    def get_protocol(self) -> Any:
        """Whose the connection is."""
        return self.protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the node."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error, after holding it to the one shape."""
        assert self.headers["content-type"] == "application/json"
        body = json.loads(self.body)
        assert body.keys() == {"error"}
        error: dict[str, Any] = body["error"]
        assert error["message"].endswith(".")
        assert error["definite"] is True
        return error


class _AnswerReader:
    """Callbacks of httptools, for a stream of answers."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.is_whole = True
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = b""
        self.is_whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.is_whole = True
        self.answers.append(Answer(self.parser.get_status_code(), self._headers, self._body))


def read_answers(sent: bytes) -> list[Answer]:
    """Reads what the node sent; nothing may be left over."""
    reader = _AnswerReader()
    reader.parser.feed_data(sent)
    assert reader.is_whole, sent
    return reader.answers


class EchoApp:
    """Reads each request to its end, waits below ``/wait`` or ``/later``, and echoes it.

    Attributes:
        seen: Path, headers and body of every request that came in whole.
        broken: Paths of the requests whose client went away first.
        taken: The sizes of the messages that channels brought behind their hello.
        ended: How many channels have ended.
        go: Lets the requests below ``/wait`` be answered.
        go_later: Lets those below ``/later`` be answered.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.broken: list[str] = []
        self.taken: list[int] = []
        self.ended = 0
        self.go = asyncio.Event()
        self.go_later = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        path, body = scope["path"], b""
        if scope["type"] == "websocket":
            await self._follow(receive, send)
            return
        if path.startswith("/early"):
            await self._answer(send, path.encode())
            return
        more_body = True
        while more_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.broken.append(path)
                return
            body += message["body"]
            more_body = message["more_body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((path, headers, body))
        if path.startswith("/wait"):
            await self.go.wait()
        if path.startswith("/later"):
            await self.go_later.wait()
        await self._answer(send, path.encode() + b" " + body)

    async def _follow(self, receive: Receive, send: Send) -> None:
        """Accepts a channel whose first message is a hello, and takes what comes until its end."""
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        if message.get("bytes") == HELLO:
            while (message := await receive())["type"] == "websocket.receive":
                self.taken.append(len(message["bytes"]))
        self.ended += 1

    @staticmethod
    async def _answer(send: Send, body: bytes) -> None:
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


class Server:
    """The protocol's side of a server, with one guard for all its connections."""

    def __init__(self, *, max_connections: int = 100) -> None:
        self.app = EchoApp()
        self.state = ServerState()
        self.guard = ConnectionGuard(
            max_connections=max_connections,
            max_body_bytes=MAX_BODY_BYTES,
            read_timeout_s=READ_TIMEOUT_S,
        )
        self._config = uvicorn.Config(
            self.app,
            http=functools.partial(NodeProtocol, self.guard),
            ws=functools.partial(ChannelProtocol, self.guard),
            ws_max_size=MAX_FRAME_BYTES,
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        self._config.load()

    def connect(self) -> Client:
        """Opens a connection."""
        return Client(self)

    def make_protocol(self) -> NodeProtocol:
        """Makes the protocol of one connection, as uvicorn's server does."""
        return self._config.http_protocol_class(
            config=self._config, server_state=self.state, app_state={}
        )

    def sweep(self, seconds: float) -> None:
        """Looks at all connections until so many seconds are past."""
        for _ in range(int(seconds / self.guard.interval_s)):
            self.guard.sweep()


class Client:
    """One connection, from the client's side."""

    def __init__(self, server: Server) -> None:
        self.transport = FakeTransport()
        self.protocol = server.make_protocol()
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        """Sends bytes in one piece, unless the node has closed the connection."""
        assert not self.transport.is_paused, "the node does not read"
        if not self.transport.is_closed:
            self.transport.protocol.data_received(data)

    @property
    def answers(self) -> list[Answer]:
        """All that the node has answered so far."""
        return read_answers(self.transport.sent)

    async def answered(self, count: int = 1) -> list[Answer]:
        """Waits for so many answers, and returns them."""
        await until(lambda: self.transport.sent.count(b"HTTP/1.1 ") >= count)
        await settle()
        assert len(self.answers) == count
        return self.answers

    @property
    def is_ended(self) -> bool:
        """True once the node says no more."""
        return self.transport.is_half_closed or self.transport.is_closed


async def settle() -> None:
    """Lets every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def serve(check: Check, *, max_connections: int = 100) -> None:
    """Runs a test's coroutine function with a server without sockets."""

    async def main() -> None:
        await check(Server(max_connections=max_connections))

    run(main)


async def refused(client: Client, code: str, *, earlier: int = 0) -> dict[str, object]:
    """Waits for the last answer on a connection, which must be an error and its end."""
    answer = (await client.answered(earlier + 1))[-1]
    assert answer.error["code"] == code
    assert answer.headers["connection"] == "close"
    assert client.is_ended
    return answer.error
