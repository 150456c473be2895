"""Asks other nodes, over HTTP, what ``failover.calls`` describes."""

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from kv_app.failover.calls import Answer, FetchWhole, Question
from kv_app.messages import UNREADABLE

if TYPE_CHECKING:
    import httpx

CALL_PATH: Final = "/replication/call"
WHOLE_PATH: Final = "/replication/whole"
MEDIA_TYPE: Final = "application/msgpack"
LENGTH_BYTES: Final = 4
# No answer, and no message of a snapshot, is longer: one entry of the largest value fits in.
MAX_FRAME_BYTES: Final = 1 << 28

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode


class PeerError(Exception):
    """A node did not answer, or not what it should."""


class Peers(Protocol):
    """The other nodes, as a node that wants to lead sees them."""

    async def call(self, url: str, question: Question, timeout_s: float) -> Answer:
        """Asks a node; the answer has to be there in whole within the time.

        Raises:
            PeerError: It did not answer in time.
        """

    def whole(self, url: str, question: FetchWhole) -> AsyncIterator[bytes]:
        """Yields the messages of a node's snapshot.

        Raises:
            PeerError: It did not answer, or stopped in the midst of it.
        """


class HttpPeers:
    """The other nodes over HTTP."""

    def __init__(self, token: str | None, silence_s: float) -> None:
        """Opens no connection yet.

        Args:
            token: The cluster's, if there is one.
            silence_s: How long a node may say nothing in the midst of a snapshot.
        """
        self._headers = {"Content-Type": MEDIA_TYPE}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._silence_s = silence_s

    def _client(self, timeout_s: float) -> "httpx.AsyncClient":
        return plain_client(self._headers, timeout_s)

    async def call(self, url: str, question: Question, timeout_s: float) -> Answer:
        """Asks a node."""
        import httpx  # noqa: PLC0415  as below

        try:
            async with (
                # The client's own times begin anew with each byte that comes.
                asyncio.timeout(timeout_s),
                self._client(timeout_s) as client,
                client.stream("POST", url + CALL_PATH, content=_encode(question)) as response,
            ):
                if response.status_code != HTTPStatus.OK:
                    raise PeerError(f"{url} answered {response.status_code}")
                body = bytearray()
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > MAX_FRAME_BYTES:
                        raise PeerError(f"{url} answered with more than {MAX_FRAME_BYTES} bytes")
            answer: Answer = _decode_answer(body)
        except TimeoutError as error:
            raise PeerError(f"{url} did not answer within {timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PeerError(
                f"{url} did not answer: {str(error) or type(error).__name__}"
            ) from error
        except UNREADABLE as error:
            raise PeerError(f"{url} answered what cannot be read: {error}") from error
        return answer

    async def whole(self, url: str, question: FetchWhole) -> AsyncIterator[bytes]:
        """Yields the messages of a node's snapshot."""
        import httpx  # noqa: PLC0415  as below

        buffer = bytearray()
        try:
            async with (
                self._client(self._silence_s) as client,
                client.stream("POST", url + WHOLE_PATH, content=_encode(question)) as response,
            ):
                if response.status_code != HTTPStatus.OK:
                    raise PeerError(f"{url} answered {response.status_code}")
                async for part in response.aiter_raw():
                    buffer += part
                    while (frame := _take_frame(buffer)) is not None:
                        yield frame
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PeerError(
                f"{url} did not answer: {str(error) or type(error).__name__}"
            ) from error


def plain_client(headers: Mapping[str, str], timeout_s: float) -> "httpx.AsyncClient":
    """Returns a client for calls to other nodes, which speak plain HTTP, and without a proxy."""
    import httpx  # noqa: PLC0415  0.1 s that only a node which calls others should pay

    return httpx.AsyncClient(
        headers=headers, timeout=timeout_s, trust_env=False, verify=_no_certificates()
    )


@functools.cache
def _no_certificates() -> ssl.SSLContext:
    """A context that reads no certificates; one that does takes 25 ms, in which all else waits."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def framed(message: bytes) -> bytes:
    """Returns a message with its length before it, as ``whole`` takes it."""
    return len(message).to_bytes(LENGTH_BYTES, "big") + message


def _take_frame(buffer: bytearray) -> bytes | None:
    """Takes a whole message out of a buffer, or nothing."""
    if len(buffer) < LENGTH_BYTES:
        return None
    size = int.from_bytes(buffer[:LENGTH_BYTES], "big")
    if size > MAX_FRAME_BYTES:
        raise PeerError(f"a message of {size} bytes in a snapshot")
    if len(buffer) < LENGTH_BYTES + size:
        return None
    frame = bytes(buffer[LENGTH_BYTES : LENGTH_BYTES + size])
    del buffer[: LENGTH_BYTES + size]
    return frame
