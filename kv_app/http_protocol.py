"""HTTP on one connection: uvicorn's protocol, with limits and with errors in the one shape.

Uvicorn bounds neither the head of a request nor the time that it takes to come, parses any number
of requests ahead, and answers what it cannot read with a text. All of that is decided here; the
application sees none of it.
"""

import asyncio
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from kv_app import whole_answer
from kv_app.api.answers import last_answer
from kv_app.connections import (
    ANSWER_STALL_TIMEOUT_S,
    KEEP_ALIVE_S,
    LINGER_S,
    ConnectionGuard,
)
from kv_app.errors import MalformedError, StoreError
from kv_app.request_limits import (
    MAX_HEAD_BYTES,
    check_announced_size,
    check_head_size,
    check_pipeline,
    framing_of,
    head_too_large,
    opens_websocket,
    too_slow,
    unreadable,
)

# What nodes ask of each other beside the channels.
NODE_CALLS: Final = b"/replication/"


class NodeProtocol(HttpToolsProtocol):
    """One connection of a client.

    A connection is *reading* from the first byte of a request to its last, and when it is new. A
    request that was refused ends its connection: the answers to earlier requests go out, then that
    to the refused one, and what the client still sends is dropped.

    Attributes:
        cycle: The newest request that went to the application, and its answer.
    """

    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # None before the first

    def __init__(
        self,
        guard: ConnectionGuard,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._guard = guard
        self._is_guest = False
        self._is_reading = True
        # Since when the client owes the next request, or the rest of one; too early by less than
        # the guard's interval.
        self._since_s = 0.0
        # What came since the last end of a request or the last part of a body.
        self._framing_bytes = 0
        # What the guard counts of this connection.
        self._held_bytes = 0
        # With requests waiting behind it: the one that is being answered.
        self._answering: RequestResponseCycle | None = None
        # The request whose announced length has been looked at.
        self._measured: object = None
        # The request that is being read offers another protocol; the parser has yet to be told so.
        self._ignores_offer = False
        self._is_refused = False
        self._has_ended = False
        self._refusal = b""
        self._unsent_bytes = 0
        self._stalled_since_s = 0.0

    # --- what asyncio calls -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to read."""
        super().connection_made(transport)
        self._is_guest = self._guard.admit(self, self.loop)
        self._since_s = self._guard.now_s

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._guard.release(self)
        self._let_go()
        if self._answering is not None:  # uvicorn tells only the newest request
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what came; the parser calls the methods below."""
        if self._is_refused:
            return
        self._framing_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._on_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self.refuse(unreadable(error))
        else:
            if self._is_reading:
                self._check_unfinished(len(data))

    # --- what the parser calls ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request's first byte came."""
        self._is_reading = True
        self._since_s = self._guard.now_s
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head came; it goes to the application unless it is refused."""
        if self._ignores_offer:  # of this request, once more
            self._ignores_offer = False
            return
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade and not opens_websocket(self.parser.get_method(), self.headers):
            is_upgrade, self._ignores_offer = False, True
        if is_upgrade:
            self._check_channel()
        elif self._is_guest:
            self._check_guest()
        if self.pipeline:
            check_pipeline(len(self.pipeline))
        elif self.cycle is not None and not self.cycle.response_complete:
            self._answering = self.cycle
        if self._framing_bytes > MAX_HEAD_BYTES:
            check_head_size(self.url, self.headers)
        super().on_headers_complete()
        if not is_upgrade:
            whole_answer.offer(self, self.scope)  # type: ignore[arg-type]  # a plain mapping here
            self.headers = []  # what comes behind the body is no header of the request

    def on_body(self, body: bytes) -> None:
        """A part of a request's body came."""
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's last byte came."""
        if self._ignores_offer:  # the parser would leave the body to the other protocol
            return
        self._is_reading = False
        self._framing_bytes = 0
        if self._held_bytes:
            self._let_go()
        super().on_message_complete()

    # --- other protocols ----------------------------------------------------------------------

    def _on_upgrade(self, rest: bytes) -> None:
        """The parser has ended with a head that asks for another protocol; ``rest`` came behind it.

        A WebSocket begins, or the offer is ignored (RFC 9110, 7.8): then a new parser takes the
        request's body and what comes behind it.
        """
        if not self._ignores_offer:
            self.handle_websocket_upgrade()
            return
        kept = self.url, self.scope, self.expect_100_continue, self._since_s
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(framing_of(self.scope["headers"]))
        self.url, self.scope, self.expect_100_continue, self._since_s = kept
        self._framing_bytes -= len(rest)
        self.data_received(rest)

    # --- limits -------------------------------------------------------------------------------

    def _check_channel(self) -> None:
        """Lets a WebSocket begin only where no answer is due, and as long as there is room."""
        if self.cycle is not None and not self.cycle.response_complete:
            raise MalformedError("A WebSocket begins on a connection where no answer is due.")
        self._guard.check_channels()

    def _check_guest(self) -> None:
        if self.url.startswith(NODE_CALLS):
            return  # it stays a guest: who is to lead must be heard where clients took all places
        if not self._guard.welcome(self):
            raise self._guard.too_many()
        self._is_guest = False

    def _check_unfinished(self, size: int) -> None:
        """Looks at a request of which only a part came so far, ``size`` bytes of it right now."""
        cycle = self.cycle
        try:
            if self._framing_bytes > MAX_HEAD_BYTES:
                raise head_too_large()
            self._guard.hold(size)
            self._held_bytes += size
            if cycle is None or cycle is self._measured or cycle.scope is not self.scope:
                return
            self._measured = cycle
            check_announced_size(cycle.scope["headers"], self._guard.max_body_bytes)
        except StoreError as error:
            self.refuse(error)

    def _let_go(self) -> None:
        """Nothing of an unfinished request is held any more."""
        self._guard.let_go(self._held_bytes)
        self._held_bytes = 0

    def check(self, now_s: float) -> None:
        """Ends the connection if its client has kept the node waiting for too long."""
        self._check_stall(now_s)
        waited_s = now_s - self._since_s - self._guard.interval_s
        if self._has_ended:
            if waited_s > LINGER_S:
                self.transport.abort()
        elif self._is_refused:
            return
        elif self._is_reading:
            if self.flow.read_paused:  # it is not the client that keeps the request from coming
                self._since_s = now_s
            elif waited_s > self._guard.read_timeout_s:
                self.refuse(too_slow(self._guard.read_timeout_s))
        elif self.cycle is None or not self.cycle.response_complete:
            self._since_s = now_s
        elif waited_s > KEEP_ALIVE_S:
            self.transport.close()

    def _check_stall(self, now_s: float) -> None:
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes == 0 or unsent_bytes != self._unsent_bytes:
            self._unsent_bytes, self._stalled_since_s = unsent_bytes, now_s
        elif now_s - self._stalled_since_s > ANSWER_STALL_TIMEOUT_S:
            self.transport.abort()

    # --- the end ------------------------------------------------------------------------------

    def refuse_unfinished(self, error: StoreError) -> None:
        """Refuses a request that has not come in whole, if there is one, and does not linger."""
        if self._is_reading and not self._is_refused:
            self.refuse(error)
            if self._has_ended:
                self.transport.close()

    def refuse(self, error: StoreError) -> None:
        """Answers the request that is being read with an error, in its turn; then ends."""
        self._is_refused = True
        self._refusal = last_answer(error)
        self._let_go()
        if not self._is_answer_due():
            self._end()

    def _is_answer_due(self) -> bool:
        """Takes the refused request from the application; tells if others wait for an answer."""
        cycle = self.cycle
        if cycle is None:
            return False
        if not self._is_reading or cycle.scope is not self.scope:  # the application never saw it
            return not cycle.response_complete
        if cycle.response_started:
            self._refusal = b""
            return not cycle.response_complete
        cycle.disconnected = True
        cycle.message_event.set()
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
            return True
        return False

    def on_response_complete(self) -> None:
        """An answer is out: goes on with the next request that waits.

        Uvicorn's own would set a timer for the next request: a fifth of the time that it takes to
        parse one. The guard looks after that.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._answering, app = self.pipeline.pop()
            self._start_asgi_task(self._answering, app)
        elif self._is_refused:
            self._end()

    def _end(self) -> None:
        """Says the last word, and lets the client read it.

        To close at once, with bytes of the client unread, would reset the connection, and the
        client might never see the answer.
        """
        if self.transport.is_closing():
            return
        self._has_ended = True
        self.transport.write(self._refusal)
        if self._is_guest or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._since_s = self._guard.now_s
        self.flow.resume_reading()

    def shutdown(self) -> None:
        """Ends the connection once what is due was answered."""
        if self._has_ended:
            self.transport.close()
        else:
            super().shutdown()

    def handle_websocket_upgrade(self) -> None:
        """Hands the connection over to the protocol of channels."""
        self._guard.release(self)
        super().handle_websocket_upgrade()
        if not getattr(self.transport.get_protocol(), "handshake_initiated", True):
            # The WebSocket library has limits of its own, and uvicorn would wait for ever.
            self.transport.write(last_answer(MalformedError("The WebSocket cannot be opened so.")))
            self.transport.close()
