"""``POST /kv`` of one node in this process: many operations, one position, one outcome."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from kv_app.api import batch
from tests.kv_app.fakes import until
from tests.kv_app.nodes import error_of, serve, serve_follower, wait_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.kv_app.fakes import FakeNetwork

    MakeNetwork = Callable[[int], FakeNetwork]


JSON = {"Content-Type": "application/json"}


def put(key: str, value: str) -> dict[str, str]:
    """Returns a put of a batch."""
    return {"op": "put", "key": key, "value": value}


def delete(key: str) -> dict[str, str]:
    """Returns a delete of a batch."""
    return {"op": "delete", "key": key}


async def post(
    client: httpx.AsyncClient, *operations: dict[str, str], **headers: str
) -> httpx.Response:
    """Sends a batch."""
    return await client.post("/kv", json={"operations": list(operations)}, headers=headers)


async def last_seq(client: httpx.AsyncClient) -> int:
    """Returns how many entries the leader's log has had."""
    return int((await client.get("/admin/links")).json()["last_seq"])


def test_batch_answers_each_operation_at_the_one_position() -> None:
    """In order, those on one key too, of which the later wins; the whole is one entry."""

    async def check(client: httpx.AsyncClient) -> None:
        answer = await post(client, put("a", "1"), delete("b"), put("a", ""), put("é/ ", "🐘"))
        assert answer.status_code == 200
        one = {"epoch": 1, "seq": 1, "follower_acks": 0, "quorum_met": True}
        assert answer.json() == {
            "results": [
                {"key": "a", "value": "1", **one},
                {"key": "b", "value": None, **one},
                {"key": "a", "value": "", **one},
                {"key": "é/ ", "value": "🐘", **one},
            ]
        }
        assert (await client.get("/dump")).json() == {"a": "", "é/ ": "🐘"}
        gone = error_of(await client.get("/kv/b"), "not_found")
        assert (gone["epoch"], gone["seq"]) == (1, 1)
        assert await last_seq(client) == 1

    serve(check)


def test_batches_leave_what_their_operations_one_by_one_leave() -> None:
    """Against a plain dictionary, over many batches that often name a key twice."""
    choose = random.Random(11)

    async def check(client: httpx.AsyncClient) -> None:
        model: dict[str, str] = {}
        for number in range(1, 61):
            operations = []
            for _ in range(choose.randint(1, 9)):
                key = choose.choice("abcde")
                if choose.random() < 0.3:
                    operations.append(delete(key))
                    model.pop(key, None)
                else:
                    operations.append(put(key, str(choose.random())))
                    model[key] = operations[-1]["value"]
            results = (await post(client, *operations)).json()["results"]
            assert [result["key"] for result in results] == [one["key"] for one in operations]
            assert {result["seq"] for result in results} == {number}
            assert (await client.get("/dump")).json() == model

    serve(check)


GOOD = put("a", "1")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"operations": []}, "at least one"),
        ({"operations": [GOOD, {"op": "put", "key": "b"}]}, "operations[1]"),
        ({"operations": [GOOD, {"op": "put", "key": "b", "value": None}]}, "operations[1]"),
        ({"operations": [GOOD, {"op": "put", "value": "1"}]}, "operations[1]"),
        ({"operations": [GOOD, GOOD, {**delete("b"), "value": "1"}]}, "operations[2]"),
        ({"operations": [GOOD, {**delete("b"), "value": None}]}, "operations[1]"),
        ({"operations": [{**GOOD, "ttl": 5}, GOOD]}, "operations[0]"),
        ({"operations": [GOOD, {**GOOD, "op": "patch"}]}, "operations[1].op"),
        ({"operations": [GOOD, {"key": "a", "value": "1"}]}, "operations[1]"),
        ({"operations": [GOOD, {**GOOD, "key": 1}]}, "operations[1].key"),
        ({"operations": [GOOD, put("", "1")]}, "operations[1]: A key must not be empty"),
        ({"operations": [GOOD, delete("")]}, "operations[1]: A key must not be empty"),
        ({"operations": [GOOD, None]}, "operations[1]"),
        ({"operations": {"0": GOOD}}, "operations"),
        ({"operations": [GOOD], "idempotency_key": "x"}, "idempotency_key"),
        ({}, "operations"),
        ([GOOD], "object"),
        ("text", "object"),
    ],
)
def test_batch_with_an_operation_that_cannot_be_read_writes_nothing(body: Any, names: str) -> None:
    """Not even the operations before it; the message says which one, and what is wrong."""

    async def check(client: httpx.AsyncClient) -> None:
        error = error_of(await client.post("/kv", json=body), "malformed")
        assert names in error["message"]
        assert (error["follower_acks"], error["required"]) == (0, 0)
        assert await last_seq(client) == 0
        assert (await client.get("/dump")).json() == {}

    serve(check)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"operations": [{"op": "put", "key": "\xff", "value": ""}]}',
        b'{"operations": [{"op": "put", "key": "\\ud800", "value": ""}]}',
        b'{"operations": [{"op": "put", "key": "a", "value": "\xed\xa0\x80"}]}',
        b'{"operations": ' + b"[" * 50_000,
        b'{"operations": [{"op": "put", "key": "a", "value": "1"}]} more',
    ],
)
def test_body_that_is_no_batch_is_malformed(body: bytes) -> None:
    """Whatever is wrong with it, it is the client's error, never the node's."""

    async def check(client: httpx.AsyncClient) -> None:
        answer = await client.post("/kv", content=body, headers=JSON)
        assert "Content-Type" not in error_of(answer, "malformed")["message"]
        assert await last_seq(client) == 0

    serve(check)


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_batch_that_does_not_say_that_it_is_json_is_malformed(kind: str | None) -> None:
    """Any web page may send a form, or a text, to a server on its reader's machine."""
    body = b'{"operations": [{"op": "put", "key": "a", "value": "1"}]}'

    async def check(client: httpx.AsyncClient) -> None:
        headers = {} if kind is None else {"Content-Type": kind}
        error = error_of(await client.post("/kv", content=body, headers=headers), "malformed")
        assert "application/json" in error["message"]
        for said in ("application/json", "Application/JSON; charset=utf-8"):
            answer = await client.post("/kv", content=body, headers={"Content-Type": said})
            assert answer.status_code == 200

    serve(check)


def test_batch_at_its_limits_passes_and_past_one_writes_nothing() -> None:
    """The number of operations, each key, each value; the error names operation and setting."""

    async def check(client: httpx.AsyncClient) -> None:
        fits = [put("k" * 8, "v" * 8), delete("é" * 4), put("b", "🐘🐘")]
        assert (await post(client, *fits)).status_code == 200
        for operations, limit, names in (
            ([*fits, GOOD], "MAX_BATCH_OPERATIONS", "4 operations, 3 at most"),
            ([GOOD, put("k" * 9, "")], "MAX_KEY_BYTES", "operations[1]: The key has 9"),
            ([GOOD, delete("é" * 4 + "x")], "MAX_KEY_BYTES", "operations[1]: The key has 9"),
            ([put("b", "🐘🐘x")], "MAX_VALUE_BYTES", "operations[0]: The value has 9"),
        ):
            error = error_of(await post(client, *operations), "too_large")
            assert error["limit"] == limit
            assert names in error["message"]
        error = error_of(await client.post("/kv", content=b" " * 401, headers=JSON), "too_large")
        assert error["limit"] == "MAX_BODY_BYTES"
        assert await last_seq(client) == 1

    serve(check, max_key_bytes=8, max_value_bytes=8, max_batch_operations=3, max_body_bytes=400)


def test_batch_that_no_frame_of_the_channel_holds_is_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever MAX_BODY_BYTES allows: its entry would end every link again and again."""
    monkeypatch.setattr(batch, "MAX_BATCH_BYTES", 100)

    async def check(client: httpx.AsyncClient) -> None:
        error = error_of(await post(client, put("a", "x" * 100)), "too_large")
        assert error["limit"] == "MAX_BATCH_BYTES"
        assert (await post(client, GOOD)).status_code == 200

    serve(check)


def test_retry_of_a_batch_gets_the_first_answer() -> None:
    """With its Idempotency-Key; another batch, or a put, under the same key is a conflict."""
    once = {"Idempotency-Key": "once"}

    async def check(client: httpx.AsyncClient) -> None:
        first = await post(client, GOOD, delete("b"), **once)
        await client.put("/kv/a", json={"value": "2"})
        assert (await post(client, GOOD, delete("b"), **once)).json() == first.json()
        assert (await client.get("/kv/a")).json()["value"] == "2"
        for other in (
            await post(client, GOOD, **once),
            await post(client, GOOD, delete("c"), **once),
            await client.put("/kv/a", json={"value": "1"}, headers=once),
        ):
            conflict = error_of(other, "idempotency_conflict")
            assert (conflict["epoch"], conflict["seq"]) == (1, 1)
        assert await last_seq(client) == 2

    serve(check)


def test_batch_waits_once_for_its_quorum_and_shows_all_of_it_at_once(
    make_network: MakeNetwork,
) -> None:
    """Nothing of it is visible before, and it is one write of MAX_IN_FLIGHT."""
    network = make_network(2)

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        waiting = asyncio.create_task(post(client, put("a", "1"), put("b", "2"), put("c", "3")))
        await network[1].client.has_sent(1)
        assert network[1].client.seqs == [1]
        assert (await client.get("/dump")).json() == {}
        refused = error_of(await post(client, GOOD), "too_many_in_flight")
        assert refused["limit"] == "MAX_IN_FLIGHT"
        network[2].client.acknowledge(1)
        results = (await waiting).json()["results"]
        assert [(one["seq"], one["follower_acks"]) for one in results] == [(1, 1)] * 3
        assert (await client.get("/dump")).json() == {"a": "1", "b": "2", "c": "3"}

    urls = tuple(network.followers)
    serve(check, follower_urls=urls, write_quorum=1, max_in_flight=1)


def test_batch_without_its_quorum_is_unknown_as_one(make_network: MakeNetwork) -> None:
    """It has one position, says how far it came, and shows nothing."""
    network = make_network(2)

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        waiting = asyncio.create_task(post(client, put("a", "1"), put("b", "2")))
        await network[1].client.has_sent(1)
        network[1].client.acknowledge(1)
        leader = client._transport.app.node.leader  # type: ignore[attr-defined]
        await until(lambda: leader.log.get(1).ack_count)
        leader.end_waits()
        error = error_of(await waiting, "outcome_unknown")
        assert (error["epoch"], error["seq"]) == (1, 1)
        assert (error["follower_acks"], error["required"]) == (1, 2)
        assert (await client.get("/dump")).json() == {}

    urls = tuple(network.followers)
    serve(check, follower_urls=urls, write_quorum=2)


def test_batch_to_a_follower_is_refused() -> None:
    """Only a leader takes it."""

    async def check(client: httpx.AsyncClient) -> None:
        assert error_of(await post(client, GOOD), "not_leader")["follower_acks"] == 0

    serve_follower(check)


def test_bug_while_a_batch_is_taken_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of unknown outcome, and without a word of what broke."""

    def fail(*_: object) -> None:
        raise RuntimeError("what broke")

    async def check(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr("kv_app.leader.Leader.append", fail)
        assert "what broke" not in error_of(await post(client, GOOD), "internal")["message"]

    serve(check)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_other_methods_on_the_path_of_batches_are_not_allowed(method: str) -> None:
    """The answer says which one is."""

    async def check(client: httpx.AsyncClient) -> None:
        answer = await client.request(method, "/kv")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"

    serve(check)
