"""An HTTP client small enough to keep up with the store, and a thread to run it in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote, urlsplit

try:
    import uvloop
except ImportError:  # not on Windows
    uvloop = None

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

CLIENT_TIMEOUT_S = 30.0
_LENGTH = b"content-length:"


class Answer(NamedTuple):
    """An answer; ``body`` is its JSON."""

    status: int
    body: Any


class Connection:
    """One HTTP/1.1 connection that is kept open; it connects when it must.

    It understands what the store answers on ``/kv``: a body of a stated length. A request that
    fails half-way closes it.

    Attributes:
        url: Where it goes.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, path: str, body: bytes = b"", idempotency_key: str | None = None
    ) -> Answer:
        """Asks and returns the answer.

        Raises:
            OSError: The connection ended first.
            TimeoutError: There was no answer within ``CLIENT_TIMEOUT_S``.
        """
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
        if idempotency_key is not None:
            head += f"idempotency-key: {idempotency_key}\r\n"
        if body:
            head += "content-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT_S):
                return await self._exchange(head.encode() + body)
        except asyncio.IncompleteReadError as error:
            self.close()
            raise ConnectionResetError("the node closed the connection") from error
        except BaseException:
            self.close()
            raise

    async def _exchange(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        at = head.lower().index(_LENGTH) + len(_LENGTH)
        text = await reader.readexactly(int(head[at : head.index(b"\r", at)]))
        return Answer(int(head[9:12]), json.loads(text))

    def close(self) -> None:
        """Closes it at once; an answer that is on its way is lost."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def key_path(key: str) -> str:
    """Returns the path of a key."""
    return f"/kv/{quote(key, safe='')}"


class Background:
    """An event loop in a thread of its own, so that the main thread may kill, sleep and check."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop() if uvloop is None else uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        """Starts the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(CLIENT_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, work: Coroutine[Any, Any, Any]) -> Job:
        """Runs a coroutine beside all others."""
        return Job(asyncio.run_coroutine_threadsafe(work, self._loop))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine to its end and returns its result."""
        return self.start(work).result()


class Job:
    """Work that goes on in the background."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def result(self) -> Any:
        """Waits for its end; raises what it raised."""
        return self._future.result()

    def check(self) -> None:
        """Raises what it raised, if it has ended so."""
        if self._future.done():
            self._future.result()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
