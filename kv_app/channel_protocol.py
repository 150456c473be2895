"""The follower's end of a WebSocket: uvicorn's protocol, with limits.

Until its hello was accepted, whoever has opened a channel is a guest: a few bytes are taken, and
where there are too many guests the oldest has to go. A leader says hello at once.
"""

import asyncio
from typing import Any, Final

from uvicorn._types import ASGIReceiveEvent
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame

from kv_app.bounds import MAX_FRAGMENTS
from kv_app.connections import ConnectionGuard

# A hello with the longest texts that it may have is shorter.
MAX_HELLO_BYTES: Final = 16 * 1024
# How long one that was refused may take to say that it has read why.
CLOSE_TIMEOUT_S: Final = 2.0
# What the application asks for before it takes messages: the handshake, and the hello.
_ASKED_BEFORE: Final = 2


class ChannelProtocol(WebSocketsSansIOProtocol):
    """One replication channel, or who pretends to be one."""

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
        self._asked = 0
        self.close_timeout = CLOSE_TIMEOUT_S
        self.conn.max_message_size = MAX_HELLO_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins as a guest."""
        super().connection_made(transport)
        self._guard.admit_channel(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends."""
        self._guard.release_channel(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Ends at once: others want its place."""
        self.transport.abort()

    async def receive(self) -> ASGIReceiveEvent:
        """Hands on what came; the application asks for more only if it has accepted the hello."""
        if self._asked == _ASKED_BEFORE:
            self.conn.max_message_size = self.config.ws_max_size
            self._guard.keep_channel(self)
        self._asked += 1
        return await super().receive()

    def handle_cont(self, event: Frame) -> None:
        """Takes a part of a message, which nodes send in one piece."""
        if self.close_sent:
            return
        if len(self.frames) >= MAX_FRAGMENTS:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"more than {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)
