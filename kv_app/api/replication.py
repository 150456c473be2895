"""What nodes ask of each other: the replication channel, and the calls of a change of leader."""

from collections.abc import AsyncIterator, Iterator
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from kv_app.api.access import check_token
from kv_app.api.answers import error_response, media_type_of
from kv_app.errors import (
    MalformedError,
    MethodNotAllowedError,
    ProtocolViolationError,
    StoreError,
    UnauthorizedError,
)
from kv_app.failover.calls import FetchWhole, Question
from kv_app.messages import CLOSE_REFUSED, UNREADABLE
from kv_app.node import Node
from kv_app.peers import CALL_PATH, MEDIA_TYPE, WHOLE_PATH, framed

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_question: Final = msgspec.msgpack.Decoder(Question).decode
_decode_whole: Final = msgspec.msgpack.Decoder(FetchWhole).decode


class ReplicationEndpoint:
    """The ASGI application behind ``/replication``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one channel until it ends."""
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            check_token(self._node.settings.cluster_token, scope["headers"])
        except UnauthorizedError:
            await send({"type": "websocket.close", "code": CLOSE_REFUSED})  # before accept: 403
            return
        await send({"type": "websocket.accept"})
        await self._node.serve_channel(receive, send)


class CallEndpoint:
    """The ASGI application behind ``/replication/call``: what a node that wants to lead asks."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one question."""
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowedError("Only POST is allowed here.", allow="POST")
            check_token(self._node.settings.cluster_token, scope["headers"])
            if media_type_of(scope["headers"]) != MEDIA_TYPE:
                raise MalformedError(f"Nodes ask with Content-Type: {MEDIA_TYPE}; send that.")
            body = await Request(scope, receive).body()
            answer = await self._answer(scope["path"], body)
        except (*UNREADABLE, ProtocolViolationError) as error:
            refused = MalformedError(f"This is no question of a node: {error}.")
            await error_response(refused)(scope, receive, send)
        except StoreError as error:
            await error_response(error)(scope, receive, send)
        else:
            await answer(scope, receive, send)

    async def _answer(self, path: str, body: bytes) -> Response:
        if path == CALL_PATH:
            answer = await self._node.respondent.answer(_decode_question(body))
            return Response(_encode(answer), media_type=MEDIA_TYPE)
        frames = self._node.respondent.whole(_decode_whole(body))
        return StreamingResponse(_in_turns(frames), media_type=MEDIA_TYPE)


async def _in_turns(frames: Iterator[bytes]) -> AsyncIterator[bytes]:
    for frame in frames:
        yield framed(frame)


def routes(node: Node) -> list[BaseRoute]:
    """Returns the routes of the channel, and of the calls beside it."""
    calls = CallEndpoint(node)
    return [
        WebSocketRoute("/replication", ReplicationEndpoint(node)),
        Route(CALL_PATH, calls),
        Route(WHOLE_PATH, calls),
    ]
