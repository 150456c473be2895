"""What a leader shows of the data of its followers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from kv_app.api.admin import _ask, _decode_dump
from kv_app.messages import DigestAnswer, Role
from tests.kv_app.fakes import run

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "http://f1:1"


def dump_of(answer: Callable[[httpx.Request], httpx.Response]) -> dict[str, Any]:
    """Returns what a leader shows of a follower that answers so."""
    shown: dict[str, Any] = {}

    async def check() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            shown.update(await _ask(client, URL, "/dump", _decode_dump))

    run(check)
    return shown


def test_dump_of_a_follower_is_its_keys_and_values() -> None:
    """The data of a follower is shown as it is, whatever its keys are called."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == f"{URL}/dump"
        return httpx.Response(200, json={"a": "1", "error": "é"})

    assert dump_of(answer) == {"a": "1", "error": "é"}


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'"text"',
        b'{"a": 1}',
        b'{"a": null}',
        b"<html>",
        b"",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_stranger_that_answers_for_a_follower_is_shown_as_an_error(body: bytes) -> None:
    """Whatever listens at a follower's URL, the view of all replicas does not fail."""
    error = dump_of(lambda _: httpx.Response(200, content=body))["error"]
    assert (error["code"], error["definite"]) == ("unreachable", True)
    assert URL in error["message"]


@pytest.mark.parametrize("status", [401, 404, 500])
def test_follower_that_refuses_its_data_is_shown_as_an_error(status: int) -> None:
    """An answer that is no data is not shown as data."""
    error = dump_of(lambda _: httpx.Response(status, json={"detail": "Not Found"}))["error"]
    assert error["code"] == "unreachable"
    assert str(status) in error["message"]


def test_follower_that_does_not_answer_is_shown_as_an_error() -> None:
    """A follower that is down is named, with the reason."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody listens there", request=request)

    error = dump_of(answer)["error"]
    assert error["message"] == f"{URL} did not answer: nobody listens there."


def digest_of(body: bytes) -> DigestAnswer | dict[str, Any]:
    """Returns what a leader shows of a follower whose digest is this."""
    shown: list[DigestAnswer | dict[str, Any]] = []
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))

    async def check() -> None:
        async with httpx.AsyncClient(transport=transport) as client:
            shown.append(await _ask(client, URL, "/digest", DigestAnswer.model_validate_json))

    run(check)
    return shown[0]


def test_digest_of_a_follower_is_shown_as_it_is() -> None:
    """What the leader tells of a follower is what the follower says."""
    answer = DigestAnswer(
        node_id="f1",
        role=Role.FOLLOWER,
        epoch=1,
        contiguous=3,
        max_seq=4,
        keys=1,
        buckets=["0" * 16] * 256,
        versions={"a": (1, 3)},
    )
    assert digest_of(answer.model_dump_json().encode()) == answer


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b'{"a": "\xff"}', b"[" * 100_000])
def test_stranger_that_answers_for_a_followers_digest_is_shown_as_an_error(body: bytes) -> None:
    """Whatever listens at a follower's URL, the view of all digests does not fail."""
    shown = digest_of(body)
    assert isinstance(shown, dict)
    assert shown["error"]["code"] == "unreachable"
