"""Changes at run time, and the view of all replicas."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.convertors import Convertor, register_url_convertor

from kv_app.api.access import check_token
from kv_app.api.answers import document_errors, encode_json
from kv_app.api.ops import BucketNumber, dump_json
from kv_app.bodies import (
    DelaysAnswer,
    DelaysRequest,
    DigestAnswer,
    ErrorBody,
    LinkRequest,
    LinksAnswer,
    LinkState,
    LinkStatus,
    QuorumAnswer,
    QuorumRequest,
    ReplicaStatusAnswer,
)
from kv_app.delays import MAX_DELAY_LIMIT_MS
from kv_app.errors import (
    ChangeUnderWayError,
    InternalError,
    MalformedError,
    NotAttemptedError,
    NotLeaderError,
    OutcomeUnknownError,
    TooLargeError,
    UnauthorizedError,
)
from kv_app.leader import Leader
from kv_app.links import status_of, switch_link
from kv_app.messages import UNREADABLE
from kv_app.node import Node
from kv_app.peers import plain_client

if TYPE_CHECKING:
    import httpx

FOLLOWER_ANSWER_TIMEOUT_S = 5.0
# What a leader takes of a follower's data or digest: as much as it can hold, and check in one step.
MAX_FOLLOWER_ANSWER_BYTES = 16 * 1024 * 1024


class _NameConvertor(Convertor[str]):
    """All of the rest of a path: the framework's own convertor stops at a newline."""

    regex: ClassVar[str] = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _NameConvertor())
NodeName = Annotated[str, Path(description="The follower's `NODE_ID`, as `/admin/links` has it.")]
_Data = TypeVar("_Data")
_decode_dump: Final = msgspec.json.Decoder(dict[str, str]).decode
_ERRORS = document_errors(MalformedError, UnauthorizedError, NotLeaderError, InternalError)
_BODY_ERRORS = document_errors(TooLargeError)
_QUORUM_ERRORS = document_errors(
    TooLargeError, ChangeUnderWayError, NotAttemptedError, OutcomeUnknownError
)


def router(node: Node) -> APIRouter:
    """Returns the calls under ``/admin``; only a leader answers them."""

    async def authorized(request: Request) -> None:
        check_token(node.settings.cluster_token, request.headers.raw)

    routes = APIRouter(
        prefix="/admin", tags=["admin"], dependencies=[Depends(authorized)], responses=_ERRORS
    )

    @routes.get("/quorum")
    async def quorum() -> QuorumAnswer:
        """Returns the write quorum in force."""
        return _quorum(node.require_leader())

    @routes.post("/quorum", responses=_QUORUM_ERRORS)
    async def set_quorum(request: QuorumRequest) -> QuorumAnswer:
        """Changes the write quorum, and answers once the change cannot be lost any more.

        A raise is in force at once; a lowering below the floor once enough followers know of it.
        """
        leader = node.require_leader()
        await leader.quorum_changes.change(request.write_quorum)
        return _quorum(leader)

    @routes.get("/delays")
    async def delays() -> DelaysAnswer:
        """Returns the link delays in force."""
        return _delays(node.require_leader())

    @routes.post("/delays", responses=_BODY_ERRORS)
    async def set_delays(request: DelaysRequest) -> DelaysAnswer:
        """Changes the link delays of all entries from now on."""
        leader = node.require_leader()
        _check_delays(request)
        leader.set_delays(request.min_delay_ms, request.max_delay_ms)
        return _delays(leader)

    @routes.get("/links")
    async def links() -> LinksAnswer:
        """Returns how far every follower is, without any data."""
        return _links(node.require_leader())

    @routes.post("/links/{node_id:name}", responses=_BODY_ERRORS)
    async def set_link(node_id: NodeName, request: LinkRequest) -> LinkStatus:
        """Cuts the link to a follower, or lets it connect again: fault injection."""
        leader = node.require_leader()
        link = switch_link(leader.links, node_id, is_up=request.state is LinkState.UP)
        return status_of(link, leader.epoch)

    @routes.get(
        "/replica-status",
        response_model=ReplicaStatusAnswer,
        response_class=StreamingResponse,
        responses={200: {"content": {"application/json": {}}, "description": "All replicas."}},
    )
    async def replica_status() -> StreamingResponse:
        """Streams the positions and the data of every replica; a dead one's only as an error."""
        leader = node.require_leader()
        return StreamingResponse(
            _shown_replicas(leader, _client_of(node)), media_type="application/json"
        )

    @routes.get(
        "/digests",
        response_model=dict[str, DigestAnswer | ErrorBody],
        response_model_exclude_unset=True,
    )
    async def digests(bucket: BucketNumber = None) -> Mapping[str, DigestAnswer | dict[str, Any]]:
        """Returns every follower's digest, for who cannot reach them; a dead one as an error."""
        path = "/digest" if bucket is None else f"/digest?bucket={bucket}"
        return await _ask_all(node, path, DigestAnswer.model_validate_json)

    return routes


def _quorum(leader: Leader) -> QuorumAnswer:
    return QuorumAnswer(write_quorum=leader.write_quorum, followers=len(leader.links))


def _delays(leader: Leader) -> DelaysAnswer:
    return DelaysAnswer(
        min_delay_ms=leader.delays.min_ms,
        max_delay_ms=leader.delays.max_ms,
        delay_model=leader.delays.kind,
    )


def _links(leader: Leader) -> LinksAnswer:
    return LinksAnswer(
        epoch=leader.epoch,
        last_seq=leader.log.last_seq,
        stable_seq=leader.stable_seq,
        links={link.url: status_of(link, leader.epoch) for link in leader.links},
    )


def _check_delays(request: DelaysRequest) -> None:
    low, high = request.min_delay_ms, request.max_delay_ms
    if not (math.isfinite(high) and 0 <= low <= high <= MAX_DELAY_LIMIT_MS):
        raise MalformedError(
            f"min_delay_ms={low} and max_delay_ms={high} must be "
            f"0 <= min_delay_ms <= max_delay_ms <= {MAX_DELAY_LIMIT_MS:g}."
        )


def _client_of(node: Node) -> "httpx.AsyncClient":
    token = node.settings.cluster_token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return plain_client(headers, FOLLOWER_ANSWER_TIMEOUT_S)


async def _shown_replicas(leader: Leader, client: "httpx.AsyncClient") -> AsyncIterator[bytes]:
    """Yields a ``ReplicaStatusAnswer`` as JSON in parts, one follower at a time.

    The positions are those of the beginning; each replica's data is of its own, later moment.
    """
    head = _links(leader).model_dump(mode="json")
    head["positions"] = head.pop("links")
    yield encode_json(head)[:-1] + b',"leader":'
    for part in dump_json(leader.state):
        yield part
    yield b',"followers":{'
    async with client:
        for number, link in enumerate(tuple(leader.links)):
            shown = {link.url: await _ask(client, link.url, "/dump", _checked_dump)}
            yield (b"," if number else b"") + encode_json(shown)[1:-1]
    yield b"}}"


def _checked_dump(body: bytes) -> msgspec.Raw:
    """Returns a dump as it came, once it is sure that it is one."""
    _decode_dump(body)
    return msgspec.Raw(body)


async def _ask_all(
    node: Node, path: str, decode: Callable[[bytes], _Data]
) -> dict[str, _Data | dict[str, Any]]:
    """Asks all followers at once; one that does not answer in time has an error instead."""
    urls = [link.url for link in node.require_leader().links]
    async with _client_of(node) as client:
        answers = await asyncio.gather(*(_ask(client, url, path, decode) for url in urls))
    return dict(zip(urls, answers, strict=True))


async def _ask(
    client: "httpx.AsyncClient", url: str, path: str, decode: Callable[[bytes], _Data]
) -> _Data | dict[str, Any]:
    import httpx  # noqa: PLC0415  0.1 s that only a node which calls others should pay

    try:
        async with (
            asyncio.timeout(FOLLOWER_ANSWER_TIMEOUT_S),
            client.stream("GET", url + path) as response,
        ):
            if response.status_code == HTTPStatus.OK:
                return decode(await _bounded(response))
        why = f"answered {response.status_code} instead of its data"
    except _TooLongError:
        why = (
            f"answered with more than MAX_FOLLOWER_ANSWER_BYTES={MAX_FOLLOWER_ANSWER_BYTES}; "
            f"ask it for {path} itself"
        )
    except (httpx.HTTPError, TimeoutError) as error:
        why = f"did not answer: {str(error) or type(error).__name__}"
    except UNREADABLE as error:
        why = f"answered what is no data of a follower: {error}"
    except ValidationError as error:
        why = f"answered what is no digest: {error.errors()[0]['msg']}"
    return {"error": {"code": "unreachable", "message": f"{url} {why}.", "definite": True}}


class _TooLongError(Exception):
    """A follower's answer is longer than a leader takes."""


async def _bounded(response: "httpx.Response") -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MAX_FOLLOWER_ANSWER_BYTES:
            raise _TooLongError
    return bytes(body)
