"""Where a node stands in its cluster, and the call that makes it the leader."""

from fastapi import APIRouter, Depends, Request

from kv_app.addresses import base_url
from kv_app.api.access import check_token
from kv_app.api.answers import document_errors
from kv_app.bodies import MemberStatus, PromoteAnswer, PromoteRequest, StatusAnswer
from kv_app.errors import (
    InternalError,
    MalformedError,
    NotAttemptedError,
    NotEnoughSurvivorsError,
    OutbidError,
    OutcomeUnknownError,
    TooLargeError,
    UnauthorizedError,
)
from kv_app.failover.electors import own_url
from kv_app.node import Node
from kv_app.promoter import Wish

_ERRORS = document_errors(UnauthorizedError, InternalError)
_PROMOTE_ERRORS = document_errors(
    MalformedError,
    TooLargeError,
    NotEnoughSurvivorsError,
    OutbidError,
    NotAttemptedError,
    OutcomeUnknownError,
)


def router(node: Node) -> APIRouter:
    """Returns the calls under ``/admin`` that any node answers."""

    async def authorized(request: Request) -> None:
        check_token(node.settings.cluster_token, request.headers.raw)

    routes = APIRouter(
        prefix="/admin", tags=["failover"], dependencies=[Depends(authorized)], responses=_ERRORS
    )

    @routes.get("/status")
    async def status() -> StatusAnswer:
        """Returns where this node stands: any node answers."""
        return _status(node)

    @routes.post("/promote", responses=_PROMOTE_ERRORS)
    async def promote(request: PromoteRequest) -> PromoteAnswer:
        """Makes this node the leader of a new epoch; answers once it takes writes."""
        try:
            urls = tuple(map(base_url, request.members))
        except ValueError:
            raise MalformedError("members must be URLs of the form http://HOST:PORT.") from None
        done = await node.candidacy.promote(Wish(urls, request.write_quorum, request.force))
        return PromoteAnswer(
            epoch=done.epoch,
            leader=node.settings.node_id,
            sealed=list(done.sealed),
            required=done.required,
            entries=done.entries,
            holes_filled=done.holes_filled,
            write_quorum=done.write_quorum,
            may_have_lost=done.may_have_lost,
        )

    return routes


def _status(node: Node) -> StatusAnswer:
    replica, leader = node.replica, node.leader
    meta = replica.meta
    probed = node.respondent.probed()
    config = probed.config
    k = config.write_quorum if config is not None else None
    floor = config.floor if config is not None else None
    wanted = config.wanted if config is not None else None
    if leader is not None:
        now = leader.quorum_changes.now
        k, floor, wanted = leader.write_quorum, now.floor, now.wanted
    members = config.members if config is not None else ()
    return StatusAnswer(
        node_id=meta.node_id,
        url=own_url(members, meta.node_id, node.settings.advertise_url),
        role=node.role,
        epoch=node.epoch,
        base_epoch=replica.base_epoch,
        base_leader=meta.base.leader_id if meta.base is not None else None,
        base_position=meta.base.position if meta.base is not None else 0,
        founders=meta.base.founders if meta.base is not None else {},
        promise=meta.promise.leader_id if meta.promise is not None else None,
        cluster_id=meta.cluster_id,
        incarnation=meta.incarnation,
        leader_url=probed.leader_url,
        is_led=node.is_led,
        is_open=probed.is_leading,
        contiguous=probed.contiguous,
        max_seq=probed.max_seq,
        holes=probed.holes,
        write_quorum=k,
        floor=floor,
        wanted=wanted,
        config_epoch=probed.config_epoch,
        config_seq=probed.config_seq,
        members=[MemberStatus(node_id=one.node_id, url=one.url) for one in members],
        durable=replica.storage is not None,
    )
