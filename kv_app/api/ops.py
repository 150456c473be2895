"""Health, readiness and the data of one replica."""

from collections.abc import AsyncIterator, Iterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from kv_app.api.access import check_token
from kv_app.api.answers import document_errors, encode_json
from kv_app.errors import NotReadyError, UnauthorizedError
from kv_app.messages import HealthAnswer, ReadyAnswer
from kv_app.node import Node
from kv_app.state import State

DUMP_KEYS_PER_CHUNK = 1000
DUMP_CHARS_PER_CHUNK = 1 << 18


def router(node: Node) -> APIRouter:
    """Returns the calls that every node answers."""
    routes = APIRouter(tags=["operations"])

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

    return routes


def dump_json(state: State) -> Iterator[bytes]:
    """Yields ``{key: value}`` of all keys that have a value, as JSON in parts."""
    yield b"{"
    separator = b""
    for _, part, _ in state.bucket_chunks(DUMP_KEYS_PER_CHUNK, DUMP_CHARS_PER_CHUNK):
        values = {key: version.value for key, version in part.items() if version.value is not None}
        if values:
            yield separator + encode_json(values)[1:-1]
            separator = b","
    yield b"}"


async def _as_async(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Runs a generator in the event loop, not in a thread: it reads the loop's own data."""
    for part in parts:
        yield part
