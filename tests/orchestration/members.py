"""A cluster of six nodes that tell where they stand, inside of their network and from outside."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING

import httpx

from orchestration.control import Control
from orchestration.failover import Member, NodeStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MEMBERS = tuple(Member(f"n{number}", f"http://n{number}") for number in range(6))
# Those that were not heard when the cluster was made have no name in it.
NAMELESS = tuple(Member("", member.url) for member in MEMBERS)


def status(number: int, *, floor: int = 3, **changes: object) -> NodeStatus:
    """A follower of a cluster with five of them, whose first leader is n0."""
    node = NodeStatus(
        url=f"http://n{number}",
        member_url=f"http://n{number}",
        incarnation=f"i{number}",
        node_id=f"n{number}",
        role="follower",
        epoch=1,
        base_epoch=1,
        base_leader="n0",
        founders={},
        leader_url="http://n0",
        is_led=False,
        is_open=False,
        contiguous=10 + number,
        max_seq=20,
        holes=1,
        write_quorum=floor,
        floor=floor,
        wanted=floor,
        config_epoch=0,
        config_seq=0,
        members=MEMBERS,
    )
    return dataclasses.replace(node, **changes)  # type: ignore[arg-type]


def published(*numbers: int) -> list[str]:
    """The URLs of some nodes from outside of their network."""
    return [f"http://published:{8000 + number}" for number in numbers]


def refuse(_: httpx.Request) -> httpx.Response:
    """What a node answers that is not to be promoted."""
    return httpx.Response(409, json={"error": {"message": "Not you."}})


def outside(
    *numbers: int,
    calls: list[httpx.Request] | None = None,
    answer_call: Callable[[httpx.Request], httpx.Response] = refuse,
    each: Mapping[int, Mapping[str, object]] = MappingProxyType({}),
    **changes: object,
) -> Control:
    """Reaches some nodes at published ports only: their names mean nothing here.

    Args:
        numbers: those that run.
        calls: receives what is asked of them beside where they stand.
        answer_call: answers that; refuses everything by default.
        each: changes to where some of them stand, by their numbers.
        changes: changes to where all of them stand.
    """

    def answer(request: httpx.Request) -> httpx.Response:
        number = (request.url.port or 0) - 8000
        if request.url.host != "published" or number not in numbers:
            raise httpx.ConnectError("no such host")
        if request.url.path != "/admin/status":
            assert calls is not None, request.url
            calls.append(request)
            return answer_call(request)
        stands = status(number, **{**changes, **each.get(number, {})})  # type: ignore[arg-type]
        return httpx.Response(200, json=dataclasses.asdict(stands))

    return Control(transport=httpx.MockTransport(answer))
