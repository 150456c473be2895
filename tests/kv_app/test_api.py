"""The HTTP API of one node in this process: every call, every limit, every error's shape."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kv_app.bodies import WriteAnswer, WriteBody
from kv_app.errors import StorageError
from kv_app.main import create_app
from kv_app.messages import CLOSE_REFUSED, Entry, Operation
from kv_app.meta import Config
from kv_app.replica import config_value
from kv_app.settings import Settings
from kv_app.state import CONFIG_KEY
from tests.kv_app.fake_leader import base, entries
from tests.kv_app.fakes import run
from tests.kv_app.nodes import (
    BY_CODE,
    error_of,
    led,
    open_channel,
    serve,
    serve_follower,
    started,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import httpx

# What the node answers so far, of the table of calls in its semantics.
CALLS = {
    "/kv/{key}": {"get", "put", "delete"},
    "/kv": {"post"},
    "/dump": {"get"},
    "/digest": {"get"},
    "/health": {"get"},
    "/ready": {"get"},
    "/metrics": {"get"},
    "/admin/quorum": {"get", "post"},
    "/admin/promote": {"post"},
    "/admin/status": {"get"},
    "/admin/delays": {"get", "post"},
    "/admin/links": {"get"},
    "/admin/links/{node_id}": {"post"},
    "/admin/replica-status": {"get"},
    "/admin/digests": {"get"},
}


# --- one key ----------------------------------------------------------------------------------


def test_put_get_and_delete_of_a_key_answer_with_its_positions() -> None:
    """The whole life of a key, deletion and the deletion of an absent one included."""

    async def check(client: httpx.AsyncClient) -> None:
        written = await client.put("/kv/a", json={"value": "1"})
        assert written.status_code == 200
        assert written.json() == {
            "key": "a",
            "value": "1",
            "epoch": 1,
            "seq": 1,
            "follower_acks": 0,
            "quorum_met": True,
        }
        read = await client.get("/kv/a")
        assert read.json() == {"key": "a", "value": "1", "epoch": 1, "seq": 1}
        deleted = await client.delete("/kv/a")
        assert deleted.json() == {**written.json(), "value": None, "seq": 2}
        gone = error_of(await client.get("/kv/a"), "not_found")
        assert (gone["epoch"], gone["seq"]) == (1, 2)
        never = error_of(await client.get("/kv/never"), "not_found")
        assert "epoch" not in never
        assert "seq" not in never
        assert (await client.delete("/kv/never")).json()["seq"] == 3

    serve(check)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a", "a"),
        ("a/b/c", "a/b/c"),
        ("a%2Fb", "a/b"),
        ("a%20b", "a b"),
        ("%F0%9F%90%98", "🐘"),
        ("%C3%A9", "é"),
        ("%2E%2E", ".."),
        ("%25", "%"),
        ("%2541", "%41"),
        ("a%3Fb", "a?b"),
        ("%00", "\x00"),
        ("a%2fb", "a/b"),
        ("+", "+"),
    ],
)
def test_key_in_a_path_is_decoded_once(path: str, key: str) -> None:
    """Any UTF-8 is a key, however much of it has to be encoded."""

    async def check(client: httpx.AsyncClient) -> None:
        written = await client.put(f"/kv/{path}", json={"value": key})
        assert written.json()["key"] == key
        assert (await client.get(f"/kv/{path}")).json()["value"] == key
        assert (await client.get("/dump")).json() == {key: key}

    serve(check)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["%FF", "a%C3", "%ED%A0%80", "%C0%AF"])
def test_key_that_is_no_utf8_is_malformed(path: str, method: str) -> None:
    """Two keys must never become one by a substitute for what could not be read."""

    async def check(client: httpx.AsyncClient) -> None:
        error = error_of(await client.request(method, f"/kv/{path}", content=b"{}"), "malformed")
        assert "UTF-8" in error["message"]

    serve(check)


@pytest.mark.parametrize("path", ["%", "100%", "%zz", "a%2", "%%41", "%-1", "% 1"])
def test_percent_sign_that_begins_no_byte_is_malformed(path: str) -> None:
    """A client that forgot to encode its key would write under another one, and never know."""

    async def check() -> None:
        sent: list[Any] = []

        async def send(event: Any) -> None:
            sent.append(event)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b'{"value": ""}'}

        app = create_app(Settings())
        scope = {"type": "http", "path": f"/kv/{path}", "headers": [], "query_string": b""}
        async with started(app):
            for method in ("GET", "PUT", "DELETE"):
                sent.clear()
                raw = {"method": method, "raw_path": f"/kv/{path}".encode()}
                await app({**scope, **raw}, receive, send)
                assert sent[0]["status"] == 400
                assert "%25" in json.loads(sent[1]["body"])["error"]["message"]

    run(check)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_empty_key_is_malformed(method: str) -> None:
    """``/kv/`` names no key."""

    async def check(client: httpx.AsyncClient) -> None:
        error_of(await client.request(method, "/kv/", content=b'{"value": ""}'), "malformed")

    serve(check)


@pytest.mark.parametrize("value", ["", " ", "é🐘", "\x00", '"\\', "x" * 10_000, "\u2028"])
def test_value_of_any_text_comes_back_as_it_was(value: str) -> None:
    """Empty values are fine, and nothing is stripped."""

    async def check(client: httpx.AsyncClient) -> None:
        await client.put("/kv/a", json={"value": value})
        assert (await client.get("/kv/a")).json()["value"] == value
        assert (await client.get("/dump")).json() == {"a": value}

    serve(check)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"value": null}',
        b'{"value": 1}',
        b'{"value": ["a"]}',
        b'{"value": "a"} trailing',
        b'{"value": "a", "ttl": 60}',
        b'{"Value": "b", "value": "a"}',
        b'{"value": "\xff"}',
        b'{"value": "\xed\xa0\x80"}',
        b'{"value": "\\ud800"}',
        b'{"value": "\\ud800abcdef"}',
        b'{"value": "\\udc00"}',
        b'{"value": "\\udc00abcdef"}',
        b'{"value": "\\ud800\\ud800"}',
        b'{"other": ' + b"[" * 50_000,
        b'{"other": ' + b"[" * 50_000 + b"]" * 50_000 + b', "value": ""}',
    ],
)
def test_body_that_cannot_be_read_is_malformed_and_writes_nothing(body: bytes) -> None:
    """Whatever is wrong with it, it is the client's error and definite, never the node's."""

    async def check(client: httpx.AsyncClient) -> None:
        error = error_of(await client.put("/kv/a", content=body), "malformed")
        assert error["follower_acks"] == 0
        assert error["required"] == 0
        error_of(await client.get("/kv/a"), "not_found")

    serve(check)


def test_body_that_is_a_form_by_its_header_is_a_write_but_no_administration() -> None:
    """``curl -d`` calls all that it sends a form; but a form may come from any web page."""

    async def check(client: httpx.AsyncClient) -> None:
        form = {"content-type": "application/x-www-form-urlencoded"}
        answer = await client.put("/kv/a", content=b'{"value": "1"}', headers=form)
        assert answer.status_code == 200
        for headers in (form, {}):
            answer = await client.post(
                "/admin/quorum", content=b'{"write_quorum": 0}', headers=headers
            )
            assert "application/json" in error_of(answer, "malformed")["message"]

    serve(check)


def test_sizes_at_their_limits_pass_and_one_byte_more_does_not() -> None:
    """Bytes of UTF-8 count, not characters; each refusal names its setting."""

    async def check(client: httpx.AsyncClient) -> None:
        for fits in ("x" * 8, "é" * 4, "🐘🐘"):
            assert (await client.put("/kv/a", json={"value": fits})).status_code == 200
            assert (await client.put(f"/kv/{fits}", json={"value": ""})).status_code == 200
        for too_large in ("x" * 9, "é" * 4 + "x", "🐘🐘x"):
            value = await client.put("/kv/a", json={"value": too_large})
            assert error_of(value, "too_large")["limit"] == "MAX_VALUE_BYTES"
            for method in ("PUT", "GET", "DELETE"):
                key = await client.request(method, f"/kv/{too_large}", json={"value": ""})
                assert error_of(key, "too_large")["limit"] == "MAX_KEY_BYTES"

    serve(check, max_key_bytes=8, max_value_bytes=8)


async def in_parts(*parts: bytes) -> AsyncIterator[bytes]:
    """Sends a body without saying its length before."""
    for part in parts:
        yield part


def test_body_over_its_limit_is_too_large_however_it_comes() -> None:
    """Whole or in parts, on every call that takes a body."""

    async def check(client: httpx.AsyncClient) -> None:
        fits = b'{"value": "%s"}' % (b"x" * 87)
        assert len(fits) == 100
        assert (await client.put("/kv/a", content=fits)).status_code == 200
        parts = in_parts(fits[:40], b"", fits[40:])
        assert (await client.put("/kv/a", content=parts)).status_code == 200
        for content in (fits + b" ", in_parts(fits, b" "), in_parts(b" " * 101, b" " * 10**6)):
            error = error_of(await client.put("/kv/a", content=content), "too_large")
            assert error["limit"] == "MAX_BODY_BYTES"
        error = error_of(await client.post("/admin/quorum", content=b" " * 101), "too_large")
        assert error["limit"] == "MAX_BODY_BYTES"

    serve(check, max_body_bytes=100)


def test_client_that_leaves_in_mid_body_writes_nothing() -> None:
    """Half a body is no request."""

    async def main() -> None:
        app = create_app(Settings())
        async with started(app):
            events: list[dict[str, Any]] = [
                {"type": "http.request", "body": b'{"value": ', "more_body": True},
                {"type": "http.disconnect"},
            ]
            sent: list[Any] = []

            async def receive() -> dict[str, Any]:
                return events.pop(0)

            async def send(event: Any) -> None:
                sent.append(event)

            scope = {
                "type": "http",
                "method": "PUT",
                "path": "/kv/a",
                "raw_path": b"/kv/a",
                "headers": [],
            }
            await app(scope, receive, send)
            assert sent[0]["status"] == 400
            assert json.loads(sent[1]["body"])["error"]["code"] == "malformed"

    run(main)


# --- idempotency ------------------------------------------------------------------------------


def test_retry_with_an_idempotency_key_gets_the_first_answer() -> None:
    """The same write is answered alike; another one under the same key is a conflict."""

    async def check(client: httpx.AsyncClient) -> None:
        once = {"Idempotency-Key": "once"}
        first = await client.put("/kv/a", json={"value": "1"}, headers=once)
        await client.put("/kv/a", json={"value": "2"})
        retry = await client.put("/kv/a", json={"value": "1"}, headers=once)
        assert retry.json() == first.json()
        assert (await client.get("/kv/a")).json()["value"] == "2"
        for other in (
            await client.put("/kv/a", json={"value": "3"}, headers=once),
            await client.put("/kv/b", json={"value": "1"}, headers=once),
            await client.delete("/kv/a", headers=once),
        ):
            conflict = error_of(other, "idempotency_conflict")
            assert (conflict["epoch"], conflict["seq"]) == (1, 1)
        assert (await client.get("/admin/links")).json()["last_seq"] == 2

    serve(check)


@pytest.mark.parametrize("bad", [b"", b"x" * 257, b"caf\xc3\xa9", b"a\x00b", b"a\tb"])
def test_idempotency_key_that_cannot_be_kept_is_malformed(bad: bytes) -> None:
    """It goes into the log: printable, and of a bounded length."""

    async def check(client: httpx.AsyncClient) -> None:
        headers = [(b"Idempotency-Key", bad)]
        answer = await client.put("/kv/a", json={"value": "1"}, headers=headers)
        assert "1 to 256" in error_of(answer, "malformed")["message"]

    serve(check)


def test_two_idempotency_keys_are_malformed_and_write_nothing() -> None:
    """A retry by the one that was not heeded would be a second write."""

    async def check(client: httpx.AsyncClient) -> None:
        twice = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
        for calls in (
            client.put("/kv/a", json={"value": "1"}, headers=twice),
            client.delete("/kv/a", headers=twice),
            client.post("/kv", json={"operations": [{"op": "delete", "key": "a"}]}, headers=twice),
        ):
            assert "one Idempotency-Key" in error_of(await calls, "malformed")["message"]
        assert (await client.get("/admin/links")).json()["last_seq"] == 0

    serve(check)


def test_documented_answer_of_a_write_is_the_one_that_is_sent() -> None:
    """What is left to its default is the same in both."""
    sent = msgspec.json.encode(WriteBody("k", "v", 1, 2, 3))
    told = WriteAnswer(key="k", value="v", epoch=1, seq=2, follower_acks=3)
    assert told.model_dump() == msgspec.json.decode(sent)


@pytest.mark.parametrize(
    ("query", "headers", "named"),
    [
        ("?ttl=60", {}, "URL"),
        ("?write_quorum=5", {}, "URL"),
        ("?", {"If-Match": '"1.1"'}, "If-Match"),
        ("", {"If-None-Match": "*"}, "If-None-Match"),
        ("", {"If-Modified-Since": "Tue, 01 Dec 2026 00:00:00 GMT"}, "If-Modified-Since"),
        ("", {"If-Unmodified-Since": "Tue, 01 Dec 2026 00:00:00 GMT"}, "If-Unmodified-Since"),
        ("", {"Content-Range": "bytes 0-1/2"}, "Content-Range"),
        ("", {"Content-Encoding": "gzip"}, "Content-Encoding"),
    ],
)
def test_write_that_means_more_than_a_write_can_is_malformed_and_not_done(
    query: str, headers: dict[str, str], named: str
) -> None:
    """To ignore a condition is to lose somebody's update."""

    async def check(client: httpx.AsyncClient) -> None:
        batch = {"operations": [{"op": "delete", "key": "a"}]}
        for call in (
            client.put(f"/kv/a{query}", json={"value": "1"}, headers=headers),
            client.delete(f"/kv/a{query}", headers=headers),
            client.post(f"/kv{query}", json=batch, headers=headers),
        ):
            assert named in error_of(await call, "malformed")["message"]
        assert (await client.get("/admin/links")).json()["last_seq"] == 0
        plain = {"Content-Encoding": "identity"}
        answer = await client.put("/kv/a", json={"value": "1"}, headers=plain)
        assert answer.status_code == 200

    serve(check)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/admin/quorum", {"write_quorum": 0, "force": True}),
        ("/admin/delays", {"min_delay_ms": 0, "max_delay_ms": 0, "delay_model": "fifo"}),
        ("/admin/links/f1", {"state": "up", "for_s": 1}),
        ("/admin/promote", {"member": []}),
    ],
)
def test_member_that_a_call_does_not_know_is_malformed(path: str, body: object) -> None:
    """To ignore it would do something else than was asked for."""

    async def check(client: httpx.AsyncClient) -> None:
        error_of(await client.post(path, json=body), "malformed")

    serve(check)


# --- other calls ------------------------------------------------------------------------------


def test_health_and_readiness_of_a_leader_alone() -> None:
    """Who it is, and that it can do its work."""

    async def check(client: httpx.AsyncClient) -> None:
        assert (await client.get("/health")).json() == {
            "status": "ok",
            "role": "leader",
            "node_id": "n",
            "epoch": 1,
            "start_id": "s",
            "durable": False,
        }
        assert (await client.get("/ready")).json() == {"status": "ready", "role": "leader"}

    serve(check, node_id="n", start_id="s")


def test_quorum_beyond_the_followers_makes_a_leader_unready_and_refuses_its_writes() -> None:
    """Both say why, and a change of k mends it."""

    async def check(client: httpx.AsyncClient) -> None:
        assert error_of(await client.get("/ready"), "not_ready")["reason"] == "forming"
        refused = await client.put("/kv/a", json={"value": "1"})
        error = error_of(refused, "not_attempted")
        assert (error["reason"], error["follower_acks"], error["required"]) == ("forming", 0, 2)
        lowered = await client.post("/admin/quorum", json={"write_quorum": 0})
        assert lowered.json() == {"write_quorum": 0, "followers": 0}
        assert (await client.put("/kv/a", json={"value": "1"})).status_code == 200

    serve(check, write_quorum=2)


def test_dump_holds_all_keys_that_have_a_value() -> None:
    """It is streamed in parts, and is one JSON document however many there are."""

    async def check(client: httpx.AsyncClient) -> None:
        assert (await client.get("/dump")).json() == {}
        expected = {}
        for number in range(1_200):
            await client.put(f"/kv/k{number}", json={"value": str(number)})
            if number % 2:
                await client.delete(f"/kv/k{number}")
            else:
                expected[f"k{number}"] = str(number)
        assert (await client.get("/dump")).json() == expected
        status = (await client.get("/admin/replica-status")).json()
        assert status["leader"] == expected
        assert (status["followers"], status["positions"]) == ({}, {})
        assert (status["last_seq"], status["stable_seq"]) == (1_800, 1_800)

    serve(check)


@pytest.mark.parametrize(
    "body",
    [
        {"write_quorum": 1},
        {"write_quorum": -1},
        {"write_quorum": "many"},
        {"write_quorum": 0.5},
        {"write_quorum": 0.0},
        {"write_quorum": "0"},
        {"write_quorum": False},
        {"write_quorum": None},
        {},
        [],
        None,
    ],
)
def test_quorum_that_cannot_be_is_malformed(body: object) -> None:
    """Outside 0 to n, or no number at all; the one in force stays."""

    async def check(client: httpx.AsyncClient) -> None:
        error_of(await client.post("/admin/quorum", json=body), "malformed")
        answer = await client.get("/admin/quorum")
        assert answer.json() == {"write_quorum": 0, "followers": 0}

    serve(check)


@pytest.mark.parametrize(
    "body",
    [
        b'{"min_delay_ms": 5, "max_delay_ms": 4}',
        b'{"min_delay_ms": -1, "max_delay_ms": 4}',
        b'{"min_delay_ms": 0, "max_delay_ms": 3600001}',
        b'{"min_delay_ms": 0, "max_delay_ms": Infinity}',
        b'{"min_delay_ms": NaN, "max_delay_ms": NaN}',
        b'{"min_delay_ms": 0, "max_delay_ms": 1e400}',
        b'{"min_delay_ms": 0}',
        b'{"min_delay_ms": "0", "max_delay_ms": 1}',
        b'{"min_delay_ms": 0, "max_delay_ms": true}',
        b'{"min_delay_ms": "\\ud800", "max_delay_ms": 1}',
        b"{",
        b"",
        b"\xff",
        b"[" * 50_000,
    ],
)
def test_delays_that_cannot_be_are_malformed(body: bytes) -> None:
    """Upside down, negative, without end, or unreadable; those in force stay."""

    async def check(client: httpx.AsyncClient) -> None:
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/admin/delays", content=body, headers=headers)
        assert "Content-Type" not in error_of(answer, "malformed")["message"]
        assert (await client.get("/admin/delays")).json() == {
            "min_delay_ms": 1.0,
            "max_delay_ms": 2.0,
            "delay_model": "independent",
        }

    serve(check, min_delay_ms=1.0, max_delay_ms=2.0)


def test_delays_are_changed_for_the_writes_to_come() -> None:
    """The answer and the next look show what is in force."""

    async def check(client: httpx.AsyncClient) -> None:
        body = {"min_delay_ms": 0.5, "max_delay_ms": 10}
        answer = await client.post("/admin/delays", json=body)
        assert answer.json() == {**body, "delay_model": "independent"}
        assert (await client.get("/admin/delays")).json() == answer.json()

    serve(check)


# --- the one shape of errors ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/", "unknown_path"),
        ("GET", "/kvs", "unknown_path"),
        ("POST", "/replicate", "unknown_path"),
        ("GET", "/health/", "unknown_path"),
        ("GET", "/replication", "unknown_path"),
        ("POST", "/health", "method_not_allowed"),
        ("DELETE", "/dump", "method_not_allowed"),
        ("PUT", "/admin/quorum", "method_not_allowed"),
        ("POST", "/kv/a", "method_not_allowed"),
        ("PATCH", "/kv/a", "method_not_allowed"),
        ("OPTIONS", "/kv/a", "method_not_allowed"),
        ("GET", "/kv", "method_not_allowed"),
        ("DELETE", "/kv", "method_not_allowed"),
        ("POST", "/metrics", "method_not_allowed"),
        ("GET", "/admin/links/f1", "method_not_allowed"),
    ],
)
def test_call_that_there_is_not_is_refused_in_the_one_shape(
    method: str, path: str, code: str
) -> None:
    """The framework's own errors never reach a client."""

    async def check(client: httpx.AsyncClient) -> None:
        error_of(await client.request(method, path), code)

    serve(check)


@pytest.mark.parametrize("path", [*CALLS, "/docs"])
def test_refused_method_is_answered_with_all_that_are_allowed(path: str) -> None:
    """A path may have several, each of a route of its own."""

    async def check(client: httpx.AsyncClient) -> None:
        answer = await client.options(path.replace("{key}", "a").replace("{node_id}", "f1"))
        error = error_of(answer, "method_not_allowed")
        allowed = {method.upper() for method in CALLS.get(path, {"get"})}
        if "GET" in allowed:
            allowed.add("HEAD")
        assert set(answer.headers["allow"].split(", ")) == allowed
        assert error["allow"] == answer.headers["allow"]

    serve(check)


@pytest.mark.parametrize("path", [path for path, calls in CALLS.items() if "get" in calls])
def test_head_of_a_call_is_that_of_its_answer_without_the_body(path: str) -> None:
    """A health checker may ask for it, or who wants to know if there is a key (RFC 9110, 9.3.2)."""

    async def check(client: httpx.AsyncClient) -> None:
        await client.put("/kv/a", json={"value": "1"})
        url = path.replace("{key}", "a")
        whole, head = await client.get(url), await client.head(url)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers == whole.headers or path == "/metrics"

    serve(check)


def test_head_of_what_is_refused_has_the_same_status() -> None:
    """Also with a query, and where only other methods are allowed."""

    async def check(client: httpx.AsyncClient) -> None:
        for path, status in (
            ("/kv/never", 404),
            ("/kv/a?after=9.9", 409),
            ("/kv/a?stale=1", 400),
            ("/kv", 405),
            ("/admin/promote", 405),
            ("/nothing", 404),
        ):
            assert (await client.head(path)).status_code == status, path

    serve(check, request_timeout_s=0.01)


def test_bug_of_the_node_is_an_internal_error_of_unknown_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever raises, the client gets the one shape, and no promise."""

    def fail(*_: object) -> None:
        raise RuntimeError("what broke")

    async def check(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr("kv_app.leader.Leader.append", fail)
        error = error_of(await client.put("/kv/a", json={"value": "1"}), "internal")
        assert "what broke" not in error["message"]

    serve(check)


def test_start_on_data_that_cannot_be_used_is_reported_before_anything_is_served(
    tmp_path: Path,
) -> None:
    """To whoever is to end the process; without one, to the server."""
    told: list[StorageError] = []

    async def start(node_id: str, on_failure: Callable[[StorageError], None] | None) -> None:
        app = create_app(Settings(node_id=node_id, data_dir=tmp_path), on_failure)
        async with app.router.lifespan_context(app):
            """It runs."""

    async def check() -> None:
        await start("one", told.append)
        assert told == []
        for handler in (told.append, None):
            with pytest.raises(StorageError, match="holds the data of node 'one'"):
                await start("another", handler)
        assert len(told) == 1

    run(check)


# --- a follower -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/kv/a", {"value": "1"}),
        ("DELETE", "/kv/a", None),
        ("GET", "/admin/quorum", None),
        ("POST", "/admin/quorum", {"write_quorum": 0}),
        ("GET", "/admin/delays", None),
        ("POST", "/admin/delays", {"min_delay_ms": 0, "max_delay_ms": 0}),
        ("GET", "/admin/links", None),
        ("GET", "/admin/replica-status", None),
    ],
)
def test_follower_sends_a_leaders_calls_to_its_leader(method: str, path: str, body: object) -> None:
    """It names the leader once it knows it, and never acts itself."""

    async def check(client: httpx.AsyncClient) -> None:
        before = error_of(await client.request(method, path, json=body), "not_leader")
        assert before["leader_url"] is None
        app = client._transport.app  # type: ignore[attr-defined]
        async with open_channel(app) as channel:
            await channel.next()  # accepted
            await channel.next()  # welcome
            after = error_of(await client.request(method, path, json=body), "not_leader")
            assert after["leader_url"] == "http://leader:1"
            assert "http://leader:1" in after["message"]

    serve_follower(check)


def test_follower_answers_for_itself() -> None:
    """Reads, health and its dump are its own; it is ready once it is followed up."""

    async def check(client: httpx.AsyncClient) -> None:
        health = (await client.get("/health")).json()
        assert (health["role"], health["epoch"]) == ("follower", 0)
        assert error_of(await client.get("/ready"), "not_ready")["reason"] == "no_leader"
        error_of(await client.get("/kv/a"), "not_found")
        assert (await client.get("/dump")).json() == {}
        app = client._transport.app  # type: ignore[attr-defined]
        async with open_channel(app) as channel:
            await channel.next()
            await channel.next()
            assert (await client.get("/ready")).json() == {"status": "ready", "role": "follower"}
            assert (await client.get("/health")).json()["epoch"] == 1

    serve_follower(check)


def test_status_tells_where_the_other_nodes_reach_the_node() -> None:
    """Its URL among the members, by its name; its own idea of it before it knows them."""

    async def check(client: httpx.AsyncClient) -> None:
        assert (await client.get("/admin/status")).json()["url"] == "http://mine:1"
        async with led(client):
            assert (await client.get("/admin/status")).json()["url"] == "http://f1:1"

    serve_follower(check, node_id="f1", advertise_url="http://mine:1")


def test_status_tells_if_a_leader_has_a_channel_to_the_node() -> None:
    """Then there is a leader, though who asks may not reach it."""

    async def check(client: httpx.AsyncClient) -> None:
        assert (await client.get("/admin/status")).json()["is_led"] is False
        async with led(client):
            assert (await client.get("/admin/status")).json()["is_led"] is True
        assert (await client.get("/admin/status")).json()["is_led"] is False

    serve_follower(check)


def test_status_tells_of_which_record_its_quorum_is() -> None:
    """Who compares nodes sees which of them knows better; at first it is that of the base."""
    told = ("write_quorum", "floor", "wanted", "config_epoch", "config_seq")

    async def check(client: httpx.AsyncClient) -> None:
        status = (await client.get("/admin/status")).json()
        assert [status[name] for name in told] == [None, None, None, 0, 0]
        async with led(client) as channel:
            status = (await client.get("/admin/status")).json()
            assert [status[name] for name in told] == [1, 1, 1, 0, 0]
            config = config_value(Config(base().config.members, 0, 0, 1))
            await channel.ask(entries(Entry(1, 7, int(Operation.CONFIG), CONFIG_KEY, config, None)))
            status = (await client.get("/admin/status")).json()
            assert [status[name] for name in told] == [0, 0, 1, 1, 7]

    serve_follower(check)


@pytest.mark.parametrize("bucket", ["-1", "256", "x", ""])
def test_digest_of_a_bucket_that_is_none_is_malformed(bucket: str) -> None:
    """The error names the parameter."""

    async def check(client: httpx.AsyncClient) -> None:
        for path in ("/digest", "/admin/digests"):
            answer = await client.get(path, params={"bucket": bucket})
            assert "query.bucket" in error_of(answer, "malformed")["message"]

    serve(check)


# --- the token --------------------------------------------------------------------------------

# A call of these alone may do without it.
OPEN = {"/kv/{key}", "/kv", "/health", "/ready", "/metrics"}


def test_token_protects_every_call_but_those_on_keys_and_the_open_ones() -> None:
    """Without it, or with another one, 401, whatever else is wrong; the error tells no token.

    The calls are those of the node's own OpenAPI document, so that none is forgotten.
    """

    async def check(client: httpx.AsyncClient) -> None:
        paths = (await client.get("/openapi.json")).json()["paths"]
        guarded = [
            (method, path.replace("{node_id}", "f1"))
            for path, calls in paths.items()
            for method in calls
            if path not in OPEN
        ]
        guarded += [("head", path) for method, path in guarded if method == "get"]
        assert len(guarded) > 10
        for method, path in guarded:
            for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "secret"}):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 401, (method, path)
                assert "secret" not in answer.text
                assert answer.headers["www-authenticate"] == "Bearer"
            answer = await client.request(method, path, headers={"Authorization": "Bearer secret"})
            assert answer.status_code != 401, (method, path)

    serve(check, cluster_token="secret")


def test_token_is_not_needed_for_keys_and_health() -> None:
    """Clients of the store need no rights of its operators."""

    async def check(client: httpx.AsyncClient) -> None:
        assert (await client.put("/kv/a", json={"value": "1"})).status_code == 200
        assert (await client.get("/kv/a")).status_code == 200
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        batch = {"operations": [{"op": "delete", "key": "a"}]}
        assert (await client.post("/kv", json=batch)).status_code == 200

    serve(check, cluster_token="secret")


def test_channel_needs_the_token_and_a_follower() -> None:
    """Who lacks it is refused before the channel opens; a leader takes no channel."""

    async def check_follower(client: httpx.AsyncClient) -> None:
        app = client._transport.app  # type: ignore[attr-defined]
        async with open_channel(app, "other") as channel:
            assert await channel.next() == {"type": "websocket.close", "code": CLOSE_REFUSED}
        async with open_channel(app, "secret") as channel:
            assert (await channel.next())["type"] == "websocket.accept"
            assert (await channel.next())["type"] == "websocket.send"

    async def check_leader(client: httpx.AsyncClient) -> None:
        app = client._transport.app  # type: ignore[attr-defined]
        async with open_channel(app) as channel:
            assert (await channel.next())["type"] == "websocket.accept"
            await channel.next()  # the refusal
            closed = await channel.next()
            assert closed["code"] == CLOSE_REFUSED
            assert "this node is a leader" in closed["reason"]

    serve_follower(check_follower, cluster_token="secret")
    serve(check_leader)


# --- the document -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The OpenAPI document as a client reads it."""
    answers: list[dict[str, Any]] = []

    async def check(client: httpx.AsyncClient) -> None:
        answers.append((await client.get("/openapi.json")).json())

    serve(check)
    return answers[0]


def references_in(node: Any) -> list[str]:
    """Returns all that a part of the document refers to."""
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [ref for value in node.values() for ref in references_in(value)]
    if isinstance(node, list):
        return [ref for value in node for ref in references_in(value)]
    return []


def test_document_lists_every_call_and_no_other(document: dict[str, Any]) -> None:
    """It is complete and true."""
    assert {path: set(item) for path, item in document["paths"].items()} == CALLS


def test_document_is_structurally_openapi_3_1(document: dict[str, Any]) -> None:
    """Required members are there, references lead somewhere, path parameters are declared."""
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    for reference in references_in(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target
    names = []
    for path, item in document["paths"].items():
        for call in item.values():
            names.append(call["operationId"])
            declared = {p["name"] for p in call.get("parameters", ()) if p["in"] == "path"}
            assert all(f"{{{name}}}" in path for name in declared)
            assert path.count("{") == len(declared)
            for status, response in call["responses"].items():
                assert 100 <= int(status) <= 599
                assert response["description"]
    assert len(set(names)) == len(names)


def codes_in(call: dict[str, Any]) -> dict[str, set[str]]:
    """Returns the error codes that a call's description names, by status."""
    return {
        status: set(re.findall(r"(?<!`)`(\w+)`:", response["description"]))
        for status, response in call["responses"].items()
        if status != "200"
    }


WRITE_CODES = {
    "400": {"malformed"},
    "403": {"not_leader"},
    "413": {"too_large"},
    "422": {"idempotency_conflict"},
    "429": {"too_many_in_flight"},
    "500": {"internal"},
    "503": {"not_attempted"},
    "504": {"outcome_unknown"},
}
READ_CODES = {
    "400": {"malformed"},
    "403": {"not_leader"},
    "404": {"not_found"},
    "409": {"position_not_reached", "not_confirmed"},
    "413": {"too_large"},
    "429": {"too_many_in_flight"},
    "500": {"internal"},
    "503": {"not_attempted"},
}
OPEN_CODES = {"500": {"internal"}}
DATA_CODES = {"401": {"unauthorized"}, **OPEN_CODES}
ADMIN_CODES = {"400": {"malformed"}, "403": {"not_leader"}, **DATA_CODES}
CHANGE_CODES = {**ADMIN_CODES, "413": {"too_large"}}
QUORUM_CODES = {
    **CHANGE_CODES,
    "409": {"change_under_way"},
    "503": {"not_attempted"},
    "504": {"outcome_unknown"},
}
PROMOTE_CODES = {
    "400": {"malformed"},
    "409": {"not_enough_survivors", "outbid"},
    "413": {"too_large"},
    "503": {"not_attempted"},
    "504": {"outcome_unknown"},
    **DATA_CODES,
}


@pytest.mark.parametrize(
    ("path", "method", "codes"),
    [
        ("/kv/{key}", "put", WRITE_CODES),
        ("/kv/{key}", "delete", WRITE_CODES),
        ("/kv/{key}", "get", READ_CODES),
        ("/kv", "post", WRITE_CODES),
        ("/dump", "get", DATA_CODES),
        ("/digest", "get", {"400": {"malformed"}, **DATA_CODES}),
        ("/health", "get", OPEN_CODES),
        ("/ready", "get", {"503": {"not_ready"}, **OPEN_CODES}),
        ("/metrics", "get", OPEN_CODES),
        ("/admin/quorum", "get", ADMIN_CODES),
        ("/admin/quorum", "post", QUORUM_CODES),
        ("/admin/promote", "post", PROMOTE_CODES),
        ("/admin/status", "get", DATA_CODES),
        ("/admin/delays", "get", ADMIN_CODES),
        ("/admin/delays", "post", CHANGE_CODES),
        ("/admin/links", "get", ADMIN_CODES),
        ("/admin/links/{node_id}", "post", CHANGE_CODES),
        ("/admin/replica-status", "get", ADMIN_CODES),
        ("/admin/digests", "get", ADMIN_CODES),
    ],
)
def test_document_names_each_calls_errors_with_their_status(
    path: str, method: str, codes: dict[str, set[str]], document: dict[str, Any]
) -> None:
    """What a call may answer is said, in the one shape, and nothing of the framework's own."""
    call = document["paths"][path][method]
    assert codes_in(call) == codes
    for status, named in codes.items():
        assert {str(BY_CODE[code].http_status) for code in named} == {status}
        schema = call["responses"][status]["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith("/ErrorBody")
    assert "200" in call["responses"]


def test_document_says_which_calls_need_the_token_of_a_node_that_has_one(
    document: dict[str, Any],
) -> None:
    """Those that answer 401; a node without a token asks for none."""
    documents: list[dict[str, Any]] = []

    async def check(client: httpx.AsyncClient) -> None:
        documents.append((await client.get("/openapi.json")).json())

    serve(check, cluster_token="secret")
    assert "security" not in json.dumps(document)
    for path, item in documents[0]["paths"].items():
        for call in item.values():
            needs = path.startswith(("/admin/", "/dump", "/digest"))
            assert call.get("security") == ([{"token": []}] if needs else None)
            assert ("401" in call["responses"]) == needs
    assert documents[0]["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_document_describes_a_batch_as_it_is_taken(document: dict[str, Any]) -> None:
    """Of two kinds of operations, told apart by ``op``, and with nothing else in them."""
    schemas = document["components"]["schemas"]
    body = schemas["BatchRequest"]
    assert body["additionalProperties"] is False
    operation = body["properties"]["operations"]["items"]
    assert set(operation["discriminator"]["mapping"]) == {"put", "delete"}
    assert schemas["PutOperation"]["required"] == ["op", "key", "value"]
    assert schemas["DeleteOperation"]["required"] == ["op", "key"]
    for name in ("PutOperation", "DeleteOperation"):
        assert schemas[name]["additionalProperties"] is False


def test_document_describes_the_whole_key_as_the_path(document: dict[str, Any]) -> None:
    """A write takes its value and, if the client likes, an idempotency key."""
    call = document["paths"]["/kv/{key}"]["put"]
    parameters = {(p["in"], p["name"]): p["required"] for p in call["parameters"]}
    assert parameters == {("path", "key"): True, ("header", "idempotency-key"): False}
    assert call["requestBody"]["required"] is True
