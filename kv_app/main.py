"""The application of one node, and the server's entry point."""

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.openapi.utils import get_openapi
from starlette.types import Message, Receive, Scope, Send

from kv_app import __version__, uvicorn_entry
from kv_app.addresses import url_of
from kv_app.api import admin, batch, docs, kv, metrics, ops, promotion, replication
from kv_app.api.access import Callers
from kv_app.api.answers import error_response, install_error_handlers, served_as
from kv_app.bounds import MAX_VALUE_LIMIT_BYTES
from kv_app.channel_protocol import ChannelProtocol
from kv_app.connections import RESERVED_CONNECTIONS, ConnectionGuard
from kv_app.descriptors import fit_connections
from kv_app.errors import (
    NotAttemptedError,
    OutcomeUnknownError,
    SettingsError,
    StorageError,
    StoreError,
    UnauthorizedError,
)
from kv_app.http_protocol import NodeProtocol
from kv_app.node import EXIT_STORAGE, Node
from kv_app.settings import Settings

logger = logging.getLogger("kv_app")

EXIT_USAGE = 64
BACKLOG = 2048
# What helps where a node cannot listen; anything else is about the host.
REMEDIES: Final = {
    errno.EADDRINUSE: "end the other process or choose another PORT.",
    errno.EACCES: "choose a PORT that you may take, such as one above 1023.",
}
# A node that stops answers what waits, then waits for the answers to be taken.
LAST_COMMITS_S = 0.5
GRACEFUL_STOP_S = 1
# A frame holds one batch, or one value with some room around it.
MAX_FRAME_BYTES = 2 * MAX_VALUE_LIMIT_BYTES

_READS: Final = frozenset({"GET", "HEAD"})


class NodeApp(FastAPI):
    """FastAPI, with the calls on keys taken out before its middleware.

    The middleware and the router cost more than a whole replicated write: with them one leader took
    8,000 writes/s, without them 15,000 or more. All other calls pass through FastAPI.
    """

    def __init__(self, node: Node, max_body_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        self.node = node
        self._callers = Callers(node.settings)
        self._keys = kv.KeyEndpoint(node)
        self._batches = batch.BatchEndpoint(node)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, WebSocket or lifespan."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        try:
            self._callers.check(scope)
        except StoreError as error:
            await error_response(error)(scope, receive, send)
            return
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif scope["path"].startswith(kv.PREFIX):
            await self._keys(scope, receive, send)
        elif scope["path"] == batch.PATH:
            await self._batches(scope, receive, send)
        else:
            method = scope["method"]
            await self._answer(
                {**scope, "method": served_as(method)},
                _limit_body(receive, self._max_body_bytes),
                _Answer(send, has_body=method != "HEAD"),
            )

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        """Answers a call of the framework's, also one that is cut off because the node stops.

        Uvicorn would tell its client of a bug, in a text of its own.
        """
        try:
            await super().__call__(scope, receive, answer)
        except asyncio.CancelledError:
            if not self.node.is_draining:
                raise
            if not answer.has_begun:
                error = _cut_off(scope["method"], scope["path"])
                await error_response(error)(scope, receive, answer)


def _cut_off(method: str, path: str) -> StoreError:
    """Returns the error of a call that the node's end has cut off."""
    call = f"The node stopped in the middle of {method} {path}"
    if method in _READS:
        return NotAttemptedError(f"{call}; send it to another node.", reason="draining")
    return OutcomeUnknownError(
        f"{call}: it may have had an effect, or have one yet; look what another node's "
        "GET /admin/status says, then ask again if need be."
    )


def _limit_body(receive: Receive, max_bytes: int) -> Receive:
    """Returns a ``receive`` that takes no more of a request's body than it may have.

    The framework's own limit answers in a shape of its own.
    """
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > max_bytes:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return message

    return limited


class _Answer:
    """A ``send`` that lets others go on between two parts of a long answer.

    Where nobody takes the answer any more the server's own returns at once: a dump would be made to
    its end, and no other request served meanwhile. Without a body the answer ends with its head;
    the server says so to whoever makes the rest.
    """

    def __init__(self, send: Send, *, has_body: bool) -> None:
        self.has_begun = False
        self._has_body = has_body
        self._has_ended = False
        self._send = send

    async def __call__(self, message: Message) -> None:
        self.has_begun = True
        if not self._has_body and message["type"] == "http.response.body":
            if not self._has_ended:
                self._has_ended = True
                await self._send({**message, "body": b"", "more_body": False})
        else:
            await self._send(message)
        if message.get("more_body"):
            await asyncio.sleep(0)


class NodeServer(uvicorn.Server):
    """A server that answers all its clients when it is told to stop.

    Uvicorn alone waits for their requests, then cancels them, and tells the clients of a bug.
    """

    def __init__(self, config: uvicorn.Config, node: Node, guard: ConnectionGuard) -> None:
        super().__init__(config)
        self._node = node
        node.connections = self.server_state.connections
        self._guard = guard

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends all connections, and the node."""
        self._node.drain()
        asyncio.get_running_loop().call_later(LAST_COMMITS_S, self._answer_all)
        await super().shutdown(sockets)

    def _answer_all(self) -> None:
        """Ends what waits: for a quorum, or for the rest of a request."""
        self._node.end_waits()
        self._guard.refuse_unfinished(
            NotAttemptedError(
                "The node is stopping, and the request had not come in whole; "
                "send it to the next leader.",
                reason="draining",
            )
        )


def create_app(
    settings: Settings, on_start_failure: Callable[[StorageError], None] | None = None
) -> NodeApp:
    """Returns the ASGI application of a node; the node itself starts with the application.

    Args:
        settings: What the node is told.
        on_start_failure: Called when the data on disk cannot be used, and must end the process.
            Without it the server is told, which shows its user a traceback.
    """
    node = Node(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            node.start()
        except StorageError as error:
            if on_start_failure is not None:
                on_start_failure(error)
            raise
        yield
        await node.stop()

    app = NodeApp(
        node,
        settings.max_body_bytes,
        title="Quorumeter's key-value store",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.router.routes.append(docs.route(lambda: _openapi(app)))
    app.router.routes.extend(replication.routes(node))
    app.include_router(ops.router(node))
    app.include_router(metrics.router(node))
    app.include_router(admin.router(node))
    app.include_router(promotion.router(node))
    install_error_handlers(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: NodeApp) -> dict[str, Any]:
    """Returns the API's description, that of the hot path's plain endpoints included."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description="A replicated key-value store with a write quorum that can be changed.",
            routes=[*kv.documented.routes, *app.routes],
        )
        _drop_framework_errors(document)
        if app.node.settings.cluster_token is not None:
            _declare_token(document)
        app.openapi_schema = document
    return app.openapi_schema


def _drop_framework_errors(document: dict[str, Any]) -> None:
    """Takes out the answer to bad input that FastAPI would give: here it is a 400 like others."""
    for item in document["paths"].values():
        for call in item.values():
            if "HTTPValidationError" in str(call["responses"].get("422")):
                del call["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _declare_token(document: dict[str, Any]) -> None:
    """Says which calls need the token, for programs that are made of it."""
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for item in document["paths"].values():
        for call in item.values():
            if str(UnauthorizedError.http_status) in call["responses"]:
                call["security"] = [{"token": []}]


def __getattr__(name: str) -> FastAPI:
    """Makes ``app`` for ``uvicorn kv_app.main:app``, when it is asked for."""
    if name != "app":
        raise AttributeError(name)
    return create_app(_settings_or_exit(uvicorn_entry.environment))


def main() -> None:
    """Runs a node until it is told to stop; all its settings come from the environment."""
    settings = _settings_or_exit()
    configure_log(settings)
    app, guard = create_app(settings, _refuse_to_start), _make_guard(settings)
    server = NodeServer(server_config(app, guard), app.node, guard)
    listener = _listen(settings)
    logger.info(
        "%s %s listens on %s, start_id=%s, delay_seed=%d",
        settings.role,
        settings.node_id,
        url_of(settings.host, settings.port),
        settings.start_id,
        settings.delay_seed,
    )
    # What is imported stays: a full collection that goes through it too would hold up all requests
    # for 40 ms. ``__main__`` has switched the collector off for the imports.
    gc.freeze()
    gc.enable()
    # Uvicorn raises the signal again when it is done: to be told to end is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def configure_log(settings: Settings) -> None:
    """Logs what the node says at the level that it is told, and of libraries only what is wrong.

    At their lower levels they write down headers, with the token, and messages, with the data.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    logging.basicConfig(
        level=max(level, logging.WARNING),
        format=log_format(settings.node_id),
    )
    logger.setLevel(level)


def log_format(node_id: str) -> str:
    """Returns how a line of the node's log is made; its name may hold what a format means."""
    name = node_id.replace("%", "%%")
    return f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s"


def server_config(app: FastAPI, guard: ConnectionGuard) -> uvicorn.Config:
    """Returns how the server is run: no access log on the hot path, all of a bounded size."""
    return uvicorn.Config(
        app,
        # A factory is all that uvicorn needs; its annotation wants the class.
        http=functools.partial(NodeProtocol, guard),  # type: ignore[arg-type]
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws=functools.partial(ChannelProtocol, guard),  # type: ignore[arg-type]  # as above
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # the channel has heartbeats of its own
        timeout_graceful_shutdown=GRACEFUL_STOP_S,
        backlog=BACKLOG,
    )


def _settings_or_exit(
    environment: Callable[[], Mapping[str, str]] = lambda: os.environ,
) -> Settings:
    try:
        return Settings.from_environment(environment())
    except uvicorn_entry.WorkersError as error:
        _fail(str(error))
        sys.exit(error.exit_code)
    except SettingsError as error:
        sys.exit(_fail(str(error)))


def _make_guard(settings: Settings) -> ConnectionGuard:
    return ConnectionGuard(
        max_connections=fit_connections(settings.max_connections, RESERVED_CONNECTIONS),
        max_body_bytes=settings.max_body_bytes,
        read_timeout_s=settings.request_read_timeout_s,
    )


def _listen(settings: Settings) -> socket.socket:
    """Binds before the application starts, so that a taken port is one clear sentence."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":  # there it would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        where = url_of(settings.host, settings.port)
        remedy = REMEDIES.get(error.errno or 0, "choose another HOST.")
        sys.exit(_fail(f"Cannot listen on {where}: {error.strerror}; {remedy}"))
    return listener


def _refuse_to_start(error: StorageError) -> None:
    logger.critical("the node does not start: %s", error)
    sys.stderr.flush()
    os._exit(EXIT_STORAGE)


def _fail(message: str) -> int:
    print(f"kv_app: {message}", file=sys.stderr)  # noqa: T201  there is no log yet
    return EXIT_USAGE
