"""What a request may look like before the application sees it. Pure."""

from collections.abc import Iterable
from typing import TypeAlias

from kv_app.errors import MalformedError, StoreError, TooLargeError

# The request line and the headers; the same bounds what comes between the parts of a body.
MAX_HEAD_BYTES = 64 * 1024
# Requests that may wait on one connection for the answers to earlier ones.
MAX_PIPELINED_REQUESTS = 128
MAX_REASON_CHARS = 200
_FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]


def check_head_size(url: bytes, headers: Headers) -> None:
    """Checks the size of a head that came whole.

    Raises:
        TooLargeError: It exceeds ``MAX_HEAD_BYTES``.
    """
    if len(url) + sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD_BYTES:
        raise head_too_large()


def check_announced_size(headers: Headers, max_bytes: int) -> None:
    """Checks the ``Content-Length``, which the parser has found to be a number.

    Raises:
        TooLargeError: It exceeds ``max_bytes``.
    """
    if next((int(value) for name, value in headers if name == b"content-length"), 0) > max_bytes:
        raise TooLargeError(
            f"The body has more than {max_bytes} bytes; shorten it or raise MAX_BODY_BYTES.",
            limit="MAX_BODY_BYTES",
        )


def opens_websocket(method: bytes, headers: Headers) -> bool:
    """Tells if a request to speak another protocol opens a WebSocket (RFC 6455, 4.2.1).

    Raises:
        MalformedError: It is to be one, and what opens it is missing; or it asks for a tunnel.
    """
    found = dict(headers)
    is_websocket = found.get(b"upgrade", b"").lower() == b"websocket"
    if not is_websocket and method != b"CONNECT":
        return False
    opens_it = found.get(b"sec-websocket-version") == b"13" and b"sec-websocket-key" in found
    if not (is_websocket and opens_it and method == b"GET"):
        raise MalformedError(
            "The node makes of a connection a WebSocket (RFC 6455) and nothing else; "
            "tell the client to open one by that, or to speak HTTP/1.1."
        )
    return True


def framing_of(headers: Headers) -> bytes:
    """Returns a head that tells of a body, and of its connection's end, what these headers do."""
    lines = [b"%s: %s\r\n" % header for header in headers if header[0] in _FRAMING]
    return b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(lines)


def check_pipeline(length: int) -> None:
    """Checks how many requests wait on a connection.

    Raises:
        MalformedError: There are as many as may be.
    """
    if length >= MAX_PIPELINED_REQUESTS:
        raise MalformedError(
            f"More than {MAX_PIPELINED_REQUESTS} requests wait on this connection; "
            "send further ones when the first are answered."
        )


def head_too_large() -> TooLargeError:
    """Returns the error for a head above ``MAX_HEAD_BYTES``, whole or not."""
    return TooLargeError(
        f"The request line and the headers have more than {MAX_HEAD_BYTES} bytes; send less.",
        limit="MAX_HEAD_BYTES",
    )


def too_slow(timeout_s: float) -> MalformedError:
    """Returns the error for a request that took longer than it may."""
    return MalformedError(
        f"The request did not come in whole within {timeout_s:g} s; "
        "send it in one go or raise REQUEST_READ_TIMEOUT_S."
    )


def unreadable(error: Exception) -> StoreError:
    """Returns why the parser gave up: what was raised inside of it, or what it says itself."""
    why = error.__context__ or error
    if isinstance(why, StoreError):
        return why
    return MalformedError(f"The request cannot be read as HTTP/1.1: {str(why)[:MAX_REASON_CHARS]}.")
