"""Health, readiness and the data of one replica."""

from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from kv_app.api.access import check_token
from kv_app.api.answers import document_errors, encode_json
from kv_app.bodies import DigestAnswer, HealthAnswer, ReadyAnswer
from kv_app.errors import InternalError, MalformedError, NotReadyError, UnauthorizedError
from kv_app.node import Node
from kv_app.state import BUCKETS, State

DUMP_KEYS_PER_CHUNK = 1000
DUMP_CHARS_PER_CHUNK = 1 << 18
BucketNumber = Annotated[
    int | None, Query(ge=0, lt=BUCKETS, description="Adds the versions of this bucket's keys.")
]


def router(node: Node) -> APIRouter:
    """Returns the calls that every node answers."""
    routes = APIRouter(tags=["operations"], responses=document_errors(InternalError))

    @routes.get("/health")
    async def health() -> HealthAnswer:
        """Says that the process runs, and who it is."""
        return node.health()

    @routes.get("/ready", responses=document_errors(NotReadyError))
    async def ready() -> ReadyAnswer:
        """Says whether the node can do its role's work."""
        node.check_ready()
        return ReadyAnswer(role=node.role)

    @routes.get(
        "/dump",
        response_model=dict[str, str],
        response_class=StreamingResponse,
        responses={
            200: {"content": {"application/json": {}}, "description": "All keys with a value."},
            **document_errors(UnauthorizedError),
        },
    )
    async def dump(request: Request) -> StreamingResponse:
        """Streams all that this replica shows."""
        check_token(node.settings.cluster_token, request.headers.raw)
        return StreamingResponse(_as_async(dump_json(node.state)), media_type="application/json")

    @routes.get(
        "/digest",
        response_model=DigestAnswer,
        response_class=StreamingResponse,
        responses={
            200: {"content": {"application/json": {}}, "description": "Digests at one position."},
            **document_errors(MalformedError, UnauthorizedError),
        },
    )
    async def digest(request: Request, bucket: BucketNumber = None) -> StreamingResponse:
        """Tells what this replica holds in a few numbers, all of one moment."""
        check_token(node.settings.cluster_token, request.headers.raw)
        return StreamingResponse(
            _as_async(digest_json(node, bucket)), media_type="application/json"
        )

    return routes


def dump_json(state: State) -> Iterator[bytes]:
    """Yields ``{key: value}`` of all keys that have a value, as JSON in parts."""
    chunks = state.bucket_chunks(DUMP_KEYS_PER_CHUNK, DUMP_CHARS_PER_CHUNK)
    return _members(
        {key: version.value for key, version in part.items() if version.value is not None}
        for _, part, _ in chunks
    )


def digest_json(node: Node, bucket: int | None) -> Iterator[bytes]:
    """Yields a ``DigestAnswer`` as JSON in parts; all of it is of the moment of the first."""
    epoch, contiguous, max_seq = node.position()
    state = node.state
    held = state.bucket(bucket).items() if bucket is not None else ()
    head = {
        "node_id": node.settings.node_id,
        "role": node.role,
        "epoch": epoch,
        "contiguous": contiguous,
        "max_seq": max_seq,
        "keys": state.keys,
        "buckets": [f"{digest:016x}" for digest in state.digests()],
    }
    yield encode_json(head)[:-1]
    if bucket is not None:
        yield b',"versions":'
        live = ((key, (v.epoch, v.seq)) for key, v in held if v.value is not None)
        yield from _members(iter(lambda: dict(islice(live, DUMP_KEYS_PER_CHUNK)), {}))
    yield b"}"


def _members(parts: Iterator[dict[str, object]]) -> Iterator[bytes]:
    """Yields one JSON object of the members of many."""
    yield b"{"
    separator = b""
    for part in parts:
        if part:
            yield separator + encode_json(part)[1:-1]
            separator = b","
    yield b"}"


async def _as_async(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Runs a generator in the event loop, not in a thread: it reads the loop's own data."""
    for part in parts:
        yield part
