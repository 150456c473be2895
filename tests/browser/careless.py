"""A node that every page may steer: what the pages of the test try has to succeed on it.

It is the true node, from whom all that it goes by is hidden; and its answers allow all to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn
from starlette.middleware.cors import CORSMiddleware

from kv_app.main import create_app
from kv_app.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HIDDEN = {b"origin", b"host", b"content-type"}


class Hiding:
    """Hides from an application which page asks, by which name, and with what kind of body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on one request."""
        if scope["type"] != "lifespan":
            kind = b"msgpack" if scope["path"].startswith("/replication") else b"json"
            kept = [header for header in scope["headers"] if header[0] not in HIDDEN]
            told = [(b"host", b"localhost"), (b"content-type", b"application/" + kind)]
            scope = {**scope, "headers": kept + told}
        await self._app(scope, receive, send)


def main() -> None:
    """Runs the node."""
    settings = Settings.from_environment()
    anybody = CORSMiddleware(
        Hiding(create_app(settings)),
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
    )
    uvicorn.run(
        anybody,
        host=settings.host,
        port=settings.port,
        ws="websockets-sansio",
        log_level="warning",
    )


if __name__ == "__main__":
    main()
