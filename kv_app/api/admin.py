"""Changes at run time, and the view of all replicas."""

import asyncio
import math
from http import HTTPStatus
from typing import Any, Final

import httpx
import msgspec
from fastapi import APIRouter, Depends, Request

from kv_app.api.access import check_token
from kv_app.api.answers import document_errors
from kv_app.delays import MAX_DELAY_LIMIT_MS
from kv_app.errors import MalformedError, NotLeaderError, TooLargeError, UnauthorizedError
from kv_app.leader import Leader
from kv_app.messages import (
    UNREADABLE,
    DelaysAnswer,
    DelaysRequest,
    LinksAnswer,
    QuorumAnswer,
    QuorumRequest,
    ReplicaStatusAnswer,
)
from kv_app.node import Node

FOLLOWER_DUMP_TIMEOUT_S = 5.0

_decode_dump: Final = msgspec.json.Decoder(dict[str, str]).decode
_ERRORS = document_errors(MalformedError, UnauthorizedError, NotLeaderError)
_BODY_ERRORS = document_errors(TooLargeError)


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

    @routes.post("/quorum", responses=_BODY_ERRORS)
    async def set_quorum(request: QuorumRequest) -> QuorumAnswer:
        """Changes the write quorum at once."""
        leader = node.require_leader()
        leader.set_write_quorum(request.write_quorum)
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

    @routes.get("/replica-status")
    async def replica_status() -> ReplicaStatusAnswer:
        """Returns the data and the position of every replica; a dead one only as an error."""
        leader = node.require_leader()
        dumps = await _dump_all([link.url for link in leader.links], node.settings.cluster_token)
        positions = _links(leader)
        return ReplicaStatusAnswer(
            epoch=positions.epoch,
            last_seq=positions.last_seq,
            stable_seq=positions.stable_seq,
            leader=leader.state.values(),
            followers=dumps,
            positions=positions.links,
        )

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
        links=leader.link_statuses(),
    )


def _check_delays(request: DelaysRequest) -> None:
    low, high = request.min_delay_ms, request.max_delay_ms
    if not (math.isfinite(high) and 0 <= low <= high <= MAX_DELAY_LIMIT_MS):
        raise MalformedError(
            f"min_delay_ms={low} and max_delay_ms={high} must be "
            f"0 <= min_delay_ms <= max_delay_ms <= {MAX_DELAY_LIMIT_MS:g}."
        )


async def _dump_all(urls: list[str], token: str | None) -> dict[str, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(
        headers=headers, timeout=FOLLOWER_DUMP_TIMEOUT_S, trust_env=False
    ) as client:
        dumps = await asyncio.gather(*(_dump(client, url) for url in urls))
    return dict(zip(urls, dumps, strict=True))


async def _dump(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    try:
        async with asyncio.timeout(FOLLOWER_DUMP_TIMEOUT_S):
            response = await client.get(f"{url}/dump")
        if response.status_code == HTTPStatus.OK:
            return _decode_dump(response.content)
        why = f"answered {response.status_code} instead of its data"
    except (httpx.HTTPError, TimeoutError) as error:
        why = f"did not answer: {str(error) or type(error).__name__}"
    except UNREADABLE as error:
        why = f"answered what is no data of a follower: {error}"
    return {"error": {"code": "unreachable", "message": f"{url} {why}.", "definite": True}}
