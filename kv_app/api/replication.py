"""The follower's end of the replication channel, a WebSocket."""

from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from kv_app.api.access import check_token
from kv_app.errors import UnauthorizedError
from kv_app.messages import CLOSE_REFUSED
from kv_app.node import Node


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
        follower = self._node.follower
        if follower is None:
            reason = "this node is a leader, not a follower"
            await send({"type": "websocket.close", "code": CLOSE_REFUSED, "reason": reason})
            return
        await follower.serve(receive, send)


def route(node: Node) -> WebSocketRoute:
    """Returns the route of the channel."""
    return WebSocketRoute("/replication", ReplicationEndpoint(node))
