"""Changes at run time, and the view of all replicas."""

import asyncio
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar

import httpx
import msgspec
from fastapi import APIRouter, Depends, Path, Request
from pydantic import ValidationError

from kv_app.api.access import check_token
from kv_app.api.answers import document_errors
from kv_app.api.ops import BucketNumber
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

FOLLOWER_ANSWER_TIMEOUT_S = 5.0

NodeName = Annotated[str, Path(description="The follower's `NODE_ID`, as `/admin/links` has it.")]
_Data = TypeVar("_Data")
_decode_dump: Final[Callable[[bytes], dict[str, Any]]] = msgspec.json.Decoder(dict[str, str]).decode
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

    @routes.post("/links/{node_id:path}", responses=_BODY_ERRORS)
    async def set_link(node_id: NodeName, request: LinkRequest) -> LinkStatus:
        """Cuts the link to a follower, or lets it connect again: fault injection."""
        leader = node.require_leader()
        link = switch_link(leader.links, node_id, is_up=request.state is LinkState.UP)
        return status_of(link, leader.epoch)

    @routes.get("/replica-status")
    async def replica_status() -> ReplicaStatusAnswer:
        """Returns the data and the position of every replica; a dead one only as an error."""
        leader = node.require_leader()
        dumps = await _ask_all(node, "/dump", _decode_dump)
        positions = _links(leader)
        return ReplicaStatusAnswer(
            epoch=positions.epoch,
            last_seq=positions.last_seq,
            stable_seq=positions.stable_seq,
            leader=leader.state.values(),
            followers=dumps,
            positions=positions.links,
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


async def _ask_all(
    node: Node, path: str, decode: Callable[[bytes], _Data]
) -> dict[str, _Data | dict[str, Any]]:
    """Asks all followers at once; one that does not answer in time has an error instead."""
    token = node.settings.cluster_token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    urls = [link.url for link in node.require_leader().links]
    async with httpx.AsyncClient(
        headers=headers, timeout=FOLLOWER_ANSWER_TIMEOUT_S, trust_env=False
    ) as client:
        answers = await asyncio.gather(*(_ask(client, url, path, decode) for url in urls))
    return dict(zip(urls, answers, strict=True))


async def _ask(
    client: httpx.AsyncClient, url: str, path: str, decode: Callable[[bytes], _Data]
) -> _Data | dict[str, Any]:
    try:
        async with asyncio.timeout(FOLLOWER_ANSWER_TIMEOUT_S):
            response = await client.get(url + path)
        if response.status_code == HTTPStatus.OK:
            return decode(response.content)
        why = f"answered {response.status_code} instead of its data"
    except (httpx.HTTPError, TimeoutError) as error:
        why = f"did not answer: {str(error) or type(error).__name__}"
    except UNREADABLE as error:
        why = f"answered what is no data of a follower: {error}"
    except ValidationError as error:
        why = f"answered what is no digest: {error.errors()[0]['msg']}"
    return {"error": {"code": "unreachable", "message": f"{url} {why}.", "definite": True}}
