"""PUT, GET and DELETE of one key: the hot path, as a plain ASGI endpoint.

FastAPI's validation and serialisation would cost more than the write itself. The calls are
described to OpenAPI by ``documented``, whose functions are never called.
"""

import logging
import re
from typing import Annotated, Final, Literal
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kv_app.api.answers import document_errors, encode_json, error_response, send_ok
from kv_app.bodies import PutBody, PutRequest, ReadAnswer, ReadBody, WriteAnswer, WriteBody
from kv_app.bounds import MAX_IDEMPOTENCY_KEY_BYTES
from kv_app.entry_limits import check_key, check_value
from kv_app.errors import (
    IdempotencyConflictError,
    InternalError,
    MalformedError,
    MethodNotAllowedError,
    NotAttemptedError,
    NotConfirmedError,
    NotFoundError,
    NotLeaderError,
    OutcomeUnknownError,
    PositionNotReachedError,
    StoreError,
    TooLargeError,
    TooManyInFlightError,
)
from kv_app.messages import UNREADABLE, Operation
from kv_app.meta import Position
from kv_app.node import ACKNOWLEDGED, Node

logger = logging.getLogger("kv_app.api")

PREFIX: Final = "/kv/"

_READS: Final = frozenset({"GET", "HEAD"})
_WRITES: Final = frozenset({"PUT", "DELETE"})
# Neither number exceeds what the disk's positions hold.
AFTER_PATTERN: Final = r"^([1-9][0-9]{0,17})\.([1-9][0-9]{0,17})$"
_AFTER: Final = re.compile(AFTER_PATTERN, re.ASCII)
# A percent sign and no two hexadecimal digits (RFC 3986, 2.1).
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Ignored, they would have a write done that was not meant so (RFC 9110, 8.4, 13.1 and 14.5).
_CHANGES_MEANING: Final = frozenset({
    b"content-encoding", b"content-range",
    b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since",
})  # fmt: skip
_decode_put: Final = msgspec.json.Decoder(PutBody).decode


class KeyEndpoint:
    """The ASGI application behind ``/kv/{key}``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        method = scope["method"]
        try:
            if method in _WRITES:
                body = await self._write(method, scope, receive)
            else:
                if scope["query_string"]:
                    await self._wait(method, scope)
                body = self._read(method, scope)
        except StoreError as error:
            await refusal(self._node, error, is_write=method in _WRITES)(scope, receive, send)
        except Exception:
            logger.exception("%s of a key failed", method)
            bug = bug_of(f"{method} of a key")
            await refusal(self._node, bug, is_write=method in _WRITES)(scope, receive, send)
        else:
            await send_ok(scope, send, body)

    async def _wait(self, method: str, scope: Scope) -> None:
        """Waits until a read can show what its query asks for."""
        if method not in _READS:
            return
        position, is_linearizable = demands_of(scope["query_string"])
        key = key_of(scope)
        check_key(key, self._node.settings.max_key_bytes)
        if position is not None:
            await self._node.wait_reached(key, position)
        if is_linearizable:
            leader = self._node.require_leader()
            await leader.voters.confirm()
            if self._node.leader is not leader:  # superseded, before this went on
                raise NotConfirmedError("This node leads no more; ask who does.")

    def _read(self, method: str, scope: Scope) -> bytes:
        if method not in _READS:
            raise MethodNotAllowedError(
                f"{method} is not allowed on a key; see /docs.", allow="GET, HEAD, PUT, DELETE"
            )
        key = key_of(scope)
        check_key(key, self._node.settings.max_key_bytes)
        version = self._node.read(key)
        if version is None:
            raise NotFoundError(f"There is no key {key!r}.")
        if version.value is None:
            raise NotFoundError(f"{key!r} was deleted.", epoch=version.epoch, seq=version.seq)
        return encode_json(ReadBody(key, version.value, version.epoch, version.seq))

    async def _write(self, method: str, scope: Scope, receive: Receive) -> bytes:
        node, settings = self._node, self._node.settings
        leader = node.require_leader()
        key = key_of(scope)
        check_key(key, settings.max_key_bytes)
        body = await read_body(receive, settings.max_body_bytes)
        if method == "PUT":
            operation, value = Operation.PUT, decode_value(body)
            check_value(value, settings.max_value_bytes)
        else:
            operation, value = Operation.DELETE, None
        record = leader.append(operation, key, value, idempotency_key_of(scope))
        if not record.committed:
            await leader.wait_committed(record)
        node.outcomes[ACKNOWLEDGED] += 1
        entry = record.entry
        return encode_json(WriteBody(key, value, entry.epoch, entry.seq, record.ack_count))


def bug_of(call: str) -> InternalError:
    """Returns what a client is told of a bug."""
    return InternalError(f"{call} met a bug of the node; see its log.")


def refusal(node: Node, error: StoreError, *, is_write: bool) -> Response:
    """Returns an error's answer; a write's also says how far its quorum had come."""
    if not is_write:
        return error_response(error)
    node.outcomes[error.code] += 1
    required = node.leader.write_quorum if node.leader is not None else None
    return error_response(error, follower_acks=0, required=required)


def key_of(scope: Scope) -> str:
    """Returns the key that a request names: all of the path behind ``/kv/``, decoded.

    Raises:
        MalformedError: It is not UTF-8, or not encoded as a path is.
    """
    raw: bytes = scope.get("raw_path") or b""
    if b"%" not in raw:
        return str(scope["path"])[len(PREFIX) :]
    if _BAD_ESCAPE.search(raw):
        raise MalformedError(
            "The key in the path has a % without two hexadecimal digits behind it; encode % as %25."
        )
    # The server replaces what is not UTF-8 by a substitute: two keys would become one.
    try:
        return unquote_to_bytes(raw).decode()[len(PREFIX) :]
    except UnicodeDecodeError:
        raise MalformedError("The key in the path is not UTF-8; encode it so.") from None


def demands_of(query: bytes) -> tuple[Position | None, bool]:
    """Returns the position of ``after=EPOCH.SEQ``, and whether ``consistency=linearizable`` is set.

    Raises:
        MalformedError: One of them is given twice or cannot be read, or there is another parameter.
            To ignore that would give a client less than it asked for, unseen.
    """
    demands = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    position, is_linearizable = None, False
    for name, text in demands:
        if name == "consistency":
            if text != "linearizable" or is_linearizable:
                raise MalformedError(
                    "consistency must be linearizable, given once; leave it out for a read of what "
                    "this node shows."
                )
            is_linearizable = True
            continue
        if name != "after":
            raise MalformedError(
                f"A read has no parameter {name[:80]!r}; it takes after=EPOCH.SEQ and "
                "consistency=linearizable, or none."
            )
        found = _AFTER.fullmatch(text)
        if found is None or position is not None:
            raise MalformedError(
                "after must be the EPOCH.SEQ of one write's answer, as in after=1.42, given once."
            )
        position = int(found[1]), int(found[2])
    return position, is_linearizable


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """Reads a request's body.

    Raises:
        TooLargeError: It exceeds the limit; the rest is not read.
        MalformedError: The client went away before its end.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [body], len(body)
        while message.get("more_body") and size <= max_bytes:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        body = b"".join(parts)
    if len(body) > max_bytes:
        raise TooLargeError(
            f"The body has more than {max_bytes} bytes; shorten it or raise MAX_BODY_BYTES.",
            limit="MAX_BODY_BYTES",
        )
    if message["type"] == "http.disconnect":
        raise MalformedError("The client went away in the middle of its request.")
    return body


def decode_value(body: bytes) -> str:
    """Returns the value in the body of a put.

    Raises:
        MalformedError: It is not ``{"value": "…"}``.
    """
    try:
        return _decode_put(body).value
    except UNREADABLE as error:
        raise MalformedError(f'The body must be {{"value": "…"}}: {error}.') from None


def idempotency_key_of(scope: Scope) -> str | None:
    """Returns the ``Idempotency-Key`` of a write, or None without one.

    Raises:
        MalformedError: It is empty, too long, not printable ASCII, or there are two; or the request
            asks for what no write does, and would be done otherwise than it means.
    """
    if scope["query_string"]:
        raise MalformedError("A write takes no parameters in its URL; leave them out.")
    found: str | None = None
    for name, value in scope["headers"]:
        if name == b"idempotency-key":
            if found is not None:
                raise MalformedError("A write has one Idempotency-Key; send just one.")
            found = _checked_idempotency_key(value.decode("latin-1"))
        elif name in _CHANGES_MEANING and value.lower() != b"identity":
            header = name.decode().title()
            raise MalformedError(
                f"A write is whole, plain and without conditions: leave the header {header} out."
            )
    return found


def _checked_idempotency_key(text: str) -> str:
    if not 0 < len(text) <= MAX_IDEMPOTENCY_KEY_BYTES or not (
        text.isascii() and text.isprintable()
    ):
        raise MalformedError(
            f"Idempotency-Key must be 1 to {MAX_IDEMPOTENCY_KEY_BYTES} printable ASCII characters."
        )
    return text


# --- what OpenAPI says of it -------------------------------------------------------------------

documented: Final = APIRouter(tags=["keys"])

KeyPath = Annotated[
    str, Path(description="All of the path behind `/kv/`: any UTF-8, also with slashes; not empty.")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Printable ASCII. A retry with the same key never becomes a second write.",
        min_length=1,
        max_length=MAX_IDEMPOTENCY_KEY_BYTES,
        pattern="^[ -~]+$",
    ),
]
After = Annotated[
    str | None,
    Query(
        description="EPOCH.SEQ of a write's answer: waits until that write or a newer one shows.",
        pattern=AFTER_PATTERN,
    ),
]
Consistency = Annotated[
    Literal["linearizable"] | None,
    Query(
        description="On the leader: followers confirm first that no newer epoch has begun, so that "
        "the value is at least as new as any that was acknowledged or read before."
    ),
]
_WRITE_FAILURES: Final = (
    MalformedError,
    NotLeaderError,
    TooLargeError,
    IdempotencyConflictError,
    TooManyInFlightError,
    InternalError,
    NotAttemptedError,
    OutcomeUnknownError,
)
WRITE_ERRORS: Final = document_errors(*_WRITE_FAILURES)
WRITE_OUTCOMES: Final = (ACKNOWLEDGED, *(error.code for error in _WRITE_FAILURES))


@documented.put("/kv/{key}", responses=WRITE_ERRORS)
def put(key: KeyPath, body: PutRequest, idempotency_key: IdempotencyKey = None) -> WriteAnswer:
    """Writes a value; answers once k followers have acknowledged it."""
    raise NotImplementedError


@documented.delete("/kv/{key}", responses=WRITE_ERRORS)
def delete(key: KeyPath, idempotency_key: IdempotencyKey = None) -> WriteAnswer:
    """Deletes a key, also an absent one; answers once k followers have acknowledged it."""
    raise NotImplementedError


@documented.get(
    "/kv/{key}",
    responses=document_errors(
        MalformedError,
        NotLeaderError,
        NotFoundError,
        NotConfirmedError,
        PositionNotReachedError,
        TooLargeError,
        TooManyInFlightError,
        InternalError,
        NotAttemptedError,
    ),
)
def get(key: KeyPath, after: After = None, consistency: Consistency = None) -> ReadAnswer:
    """Reads a key: the committed value on the leader, the newest applied one on a follower."""
    raise NotImplementedError
