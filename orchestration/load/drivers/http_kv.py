"""A client of the HTTP store: persistent connections, the last used first.

It writes its requests itself and reads replies with geventhttpclient's parser. The library's
`HTTPClient` is not used since it sends a PUT again when a connection closes: a write that may
have happened would be repeated, and the reset would be hidden from the measurement.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import gevent.socket
import msgspec
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPSocketResponse

from orchestration.load.drivers import DriverError, Outcome
from orchestration.load.plan import CLIENT_TIMEOUT_S, CONNECT_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Mapping

_READ_BYTES = 16 * 1024
_HTTP_OK = 200
_HTTP_NOT_FOUND = 404


class _WriteReply(msgspec.Struct):
    epoch: int
    seq: int
    follower_acks: int


class _ReadReply(msgspec.Struct):
    value: str


class _Error(msgspec.Struct):
    code: str
    message: str = ""
    definite: bool = False


class _ErrorReply(msgspec.Struct):
    error: _Error


class HttpKvDriver:
    """One node of the store, at `url` (http://host:port)."""

    def __init__(
        self, url: str, *, token: str | None = None, timeout_s: float = CLIENT_TIMEOUT_S
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            msg = f"{url!r} is not a node's address; give one like http://127.0.0.1:8000"
            raise ValueError(msg)
        self._host_and_port = (parts.hostname, parts.port or 80)
        self._addresses: list[tuple[int, Any]] = []
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._head = f" HTTP/1.1\r\nHost: {parts.netloc}\r\n{authorization}"
        self._idle: list[Any] = []
        self._encode = msgspec.json.Encoder().encode
        self._decode_write = msgspec.json.Decoder(_WriteReply).decode
        self._decode_read = msgspec.json.Decoder(_ReadReply).decode

    def write(self, key: str, value: str, idempotency_key: str | None = None) -> Outcome:
        """Puts a value and waits until it is committed."""
        extra = f"Idempotency-Key: {idempotency_key}\r\n" if idempotency_key else ""
        status, body = self._exchange("PUT", _path(key), self._encode({"value": value}), extra)
        return self._outcome(status, body)

    def delete(self, key: str) -> Outcome:
        """Removes a key, present or not, and waits until that is committed."""
        return self._outcome(*self._exchange("DELETE", _path(key)))

    def read(self, key: str) -> str | None:
        """The key's value as this node has it, or None if it has none."""
        status, body = self._exchange("GET", _path(key))
        if status == _HTTP_OK:
            value: str = _decoded(self._decode_read, body).value
            return value
        error = _store_error(status, body)
        if status == _HTTP_NOT_FOUND and error.code != f"http_{status}":
            return None
        raise error

    def write_batch(self, values: Mapping[str, str]) -> None:
        """Puts all values, by key, as one write, and waits until it is committed."""
        operations = [{"op": "put", "key": key, "value": value} for key, value in values.items()]
        self.post_json("/kv", {"operations": operations})

    def get_json(self, path: str) -> Any:
        """The reply to a GET of `path`, for administration, not for load."""
        return self._json(*self._exchange("GET", path))

    def post_json(self, path: str, document: Any) -> Any:
        """The reply to a POST of `document`, for administration, not for load."""
        return self._json(*self._exchange("POST", path, self._encode(document)))

    def close(self) -> None:
        """Closes idle connections; those in use close when their request ends."""
        while self._idle:
            self._idle.pop().close()

    def _outcome(self, status: int, body: bytes) -> Outcome:
        if status != _HTTP_OK:
            raise _store_error(status, body)
        reply = _decoded(self._decode_write, body)
        return Outcome(reply.follower_acks, reply.epoch, reply.seq)

    def _json(self, status: int, body: bytes) -> Any:
        if status != _HTTP_OK:
            raise _store_error(status, body)
        return _decoded(msgspec.json.decode, body)

    def _exchange(
        self, method: str, path: str, body: bytes = b"", extra: str = ""
    ) -> tuple[int, bytes]:
        if body:
            extra += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head = f"{method} {self._prefix}{path}{self._head}{extra}\r\n".encode("latin-1")
        connection = self._connection()
        try:
            connection.sendall(head + body)
            response = HTTPSocketResponse(connection, block_size=_READ_BYTES, method=method)
            reply = response.read()
        except BaseException as error:
            connection.close()
            if isinstance(error, (OSError, HTTPParseError)):
                raise DriverError(_failure_code(error), definite=False) from error
            raise
        if response.should_close():
            connection.close()
        else:
            self._idle.append(connection)
        return response.status_code, reply

    def _connection(self) -> Any:
        # The last used first: it is the warmest, and the others can grow old together.
        while self._idle:
            connection = self._idle.pop()
            if _is_alive(connection):
                return connection
            connection.close()
        try:
            connection = self._connect()
        except OSError as error:
            # Nothing was sent, so whatever it was, it did not happen.
            code = "connect_timeout" if isinstance(error, TimeoutError) else _failure_code(error)
            raise DriverError(code, definite=True) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self._timeout_s)
        return connection

    def _connect(self) -> Any:
        # Looked up once: gevent asks a pool of threads, and each answer can hold up this thread
        # for milliseconds until it gets the interpreter back.
        if not self._addresses:
            found = gevent.socket.getaddrinfo(*self._host_and_port, type=socket.SOCK_STREAM)
            self._addresses = [(family, address) for family, _, _, _, address in found]
        failure = OSError("no address")
        for family, address in self._addresses:
            connection = gevent.socket.socket(family, socket.SOCK_STREAM)
            connection.settimeout(CONNECT_TIMEOUT_S)
            try:
                connection.connect(address)
            except OSError as error:
                connection.close()
                failure = error
            else:
                # "localhost" has two, of which often only one listens.
                self._addresses = [(family, address)]
                return connection
        raise failure


def _path(key: str) -> str:
    return f"/kv/{quote(key, safe='')}"


def _is_alive(connection: Any) -> bool:
    """Whether an idle connection is still open: servers close those that rest too long."""
    try:
        # The plain socket below gevent's never waits. Bytes or an end would both be wrong here.
        connection._sock.recv(1, socket.MSG_PEEK)  # noqa: SLF001 - gevent's would wait
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _decoded(decode: Any, body: bytes) -> Any:
    try:
        return decode(body)
    except msgspec.MsgspecError as error:
        raise DriverError("bad_reply", definite=False) from error


def _store_error(status: int, body: bytes) -> DriverError:
    """The store's own error; for a reply that has none, one named after the HTTP status."""
    try:
        error = msgspec.json.decode(body, type=_ErrorReply).error
    except msgspec.MsgspecError:
        return DriverError(f"http_{status}", definite=False)
    return DriverError(error.code, definite=error.definite, detail=error.message)


def _failure_code(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "timeout"
        case HTTPConnectionClosed() | ConnectionResetError() | BrokenPipeError():
            return "connection_reset"
        case ConnectionRefusedError():
            return "connection_refused"
        case socket.gaierror():
            return "unknown_host"
        case HTTPParseError():
            return "bad_reply"
        case _:
            return "network_error"
