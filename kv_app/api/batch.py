"""``POST /kv``: many operations as one write, as a plain ASGI endpoint."""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from kv_app.api.answers import encode_json, error_response, not_json, says_json, send_ok
from kv_app.api.kv import (
    WRITE_ERRORS,
    IdempotencyKey,
    bug_of,
    documented,
    idempotency_key_of,
    read_body,
    refusal,
)
from kv_app.bodies import (
    BatchAnswer,
    BatchBody,
    BatchOperation,
    BatchRequest,
    BatchResults,
    WriteBody,
)
from kv_app.bounds import MAX_VALUE_LIMIT_BYTES
from kv_app.entry_limits import check_key, check_value
from kv_app.errors import MalformedError, MethodNotAllowedError, StoreError, TooLargeError
from kv_app.messages import UNREADABLE, Change, Operation
from kv_app.node import ACKNOWLEDGED, Node

logger = logging.getLogger("kv_app.api")

PATH: Final = "/kv"
# A batch is one entry, and must fit into one frame of the replication channel, as a value must. It
# is shorter there than here.
MAX_BATCH_BYTES: Final = MAX_VALUE_LIMIT_BYTES
_SHAPE: Final = '{"operations": [{"op": "put", "key": "…", "value": "…"}, …]}'
_decode: Final = msgspec.json.Decoder(BatchBody).decode


class BatchEndpoint:
    """The ASGI application behind ``/kv``."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        method, node = scope["method"], self._node
        if method != "POST":
            wrong = MethodNotAllowedError(
                f"{method} is not allowed on {PATH}; see /docs.", allow="POST"
            )
            await error_response(wrong)(scope, receive, send)
            return
        try:
            body = await self._write(scope, receive)
        except StoreError as error:
            await refusal(node, error, is_write=True)(scope, receive, send)
        except Exception:
            logger.exception("%s %s failed", method, PATH)
            await refusal(node, bug_of("a batch"), is_write=True)(scope, receive, send)
        else:
            await send_ok(scope, send, body)

    async def _write(self, scope: Scope, receive: Receive) -> bytes:
        node = self._node
        leader = node.require_leader()
        if not says_json(scope["headers"]):
            raise not_json()
        body = await read_body(receive, node.settings.max_body_bytes)
        if len(body) > MAX_BATCH_BYTES:
            raise TooLargeError(
                f"The batch has {len(body)} bytes, {MAX_BATCH_BYTES} at most; split it.",
                limit="MAX_BATCH_BYTES",
            )
        operations = decode_operations(body)
        changes = self._changes(operations)
        record = leader.append(Operation.BATCH, "", None, idempotency_key_of(scope), changes)
        if not record.committed:
            await leader.wait_committed(record)
        node.outcomes[ACKNOWLEDGED] += 1
        epoch, seq, acks = record.entry.epoch, record.entry.seq, record.ack_count
        return encode_json(
            BatchResults([WriteBody(one.key, one.value, epoch, seq, acks) for one in operations])
        )

    def _changes(self, operations: Sequence[BatchOperation]) -> tuple[Change, ...]:
        """Returns what a batch does to each key: the later operation on a key wins.

        Raises:
            StoreError: An operation cannot be taken, or there are too many.
        """
        settings = self._node.settings
        most = settings.max_batch_operations
        if len(operations) > most:
            raise TooLargeError(
                f"The batch has {len(operations)} operations, {most} at most; split it or raise "
                "MAX_BATCH_OPERATIONS.",
                limit="MAX_BATCH_OPERATIONS",
            )
        changes: dict[str, str | None] = {}
        for number, operation in enumerate(operations):
            key, value = operation.key, operation.value
            try:
                check_key(key, settings.max_key_bytes)
                if value is not None:
                    check_value(value, settings.max_value_bytes)
            except StoreError as error:
                message = f"operations[{number}]: {error.message}"
                raise type(error)(message, **error.details) from None
            changes[key] = value
        return tuple([Change(key, value) for key, value in changes.items()])


def decode_operations(body: bytes) -> list[BatchOperation]:
    """Returns the operations in the body of a batch, at least one.

    Raises:
        MalformedError: It cannot be read, and where.
    """
    try:
        operations: list[BatchOperation] = _decode(body).operations
    except UNREADABLE as error:
        raise MalformedError(f"The body must be {_SHAPE}: {error}.") from None
    if not operations:
        raise MalformedError(f"A batch needs at least one operation: {_SHAPE}.")
    return operations


@documented.post("/kv", responses=WRITE_ERRORS)
def batch(body: BatchRequest, idempotency_key: IdempotencyKey = None) -> BatchAnswer:
    """Writes many keys at one position; answers once k followers have acknowledged all of it."""
    raise NotImplementedError
