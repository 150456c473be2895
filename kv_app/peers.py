"""Asks other nodes, over HTTP, what ``failover.calls`` describes."""

import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from kv_app.failover.calls import Answer, FetchWhole, Question
from kv_app.messages import UNREADABLE

if TYPE_CHECKING:
    import httpx

CALL_PATH: Final = "/replication/call"
WHOLE_PATH: Final = "/replication/whole"
LENGTH_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 1 << 28

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode


class PeerError(Exception):
    """A node did not answer, or not what it should."""


class Peers(Protocol):
    """The other nodes, as a node that wants to lead sees them."""

    async def call(self, url: str, question: Question, timeout_s: float) -> Answer:
        """Asks a node.

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
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._silence_s = silence_s
        self._no_tls: ssl.SSLContext | None = None

    def _client(self, timeout_s: float) -> "httpx.AsyncClient":
        import httpx  # noqa: PLC0415  0.1 s that only a change of leader should pay

        # Nodes speak plain HTTP; a context of its own would read all of the system's certificates.
        if self._no_tls is None:
            self._no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx.AsyncClient(
            headers=self._headers, timeout=timeout_s, trust_env=False, verify=self._no_tls
        )

    async def call(self, url: str, question: Question, timeout_s: float) -> Answer:
        """Asks a node."""
        import httpx  # noqa: PLC0415  as above

        try:
            async with self._client(timeout_s) as client:
                response = await client.post(url + CALL_PATH, content=_encode(question))
            if response.status_code != HTTPStatus.OK:
                raise PeerError(f"{url} answered {response.status_code}")
            answer: Answer = _decode_answer(response.content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PeerError(
                f"{url} did not answer: {str(error) or type(error).__name__}"
            ) from error
        except UNREADABLE as error:
            raise PeerError(f"{url} answered what cannot be read: {error}") from error
        return answer

    async def whole(self, url: str, question: FetchWhole) -> AsyncIterator[bytes]:
        """Yields the messages of a node's snapshot."""
        import httpx  # noqa: PLC0415  as above

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
