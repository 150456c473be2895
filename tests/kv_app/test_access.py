"""Who may call a node: programs, and pages of its own; no other page, however it comes."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from kv_app.api.access import Callers
from kv_app.errors import ForeignOriginError, MalformedError, StoreError, UnknownHostError
from kv_app.failover.calls import Probe
from kv_app.main import create_app
from kv_app.peers import CALL_PATH, MEDIA_TYPE, WHOLE_PATH
from kv_app.settings import Settings
from tests.kv_app.fakes import encode, run
from tests.kv_app.nodes import error_of, serve, serve_follower, started

if TYPE_CHECKING:
    import httpx
    from starlette.types import Scope

EVIL = "http://evil.example"
OWN = "127.0.0.1:8000"
SECRET = "secret"
# Pages of another site, of another port of this machine, of a sandboxed frame or a file, and of a
# site that looks like the node.
FOREIGN_ORIGINS = [
    EVIL,
    "http://localhost:9999",
    "http://127.0.0.1:8001",
    "https://127.0.0.1",
    "null",
    "file://",
    "",
    f"http://{OWN}.evil.example",
    f"http://evil.example/{OWN}",
    OWN,
]
CALLS = [
    ("GET", "/kv/a"),
    ("PUT", "/kv/a"),
    ("DELETE", "/kv/a"),
    ("POST", "/kv"),
    ("GET", "/dump"),
    ("GET", "/digest"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/admin/status"),
    ("GET", "/admin/replica-status"),
    ("POST", "/admin/quorum"),
    ("POST", "/admin/promote"),
    ("POST", CALL_PATH),
    ("POST", WHOLE_PATH),
    ("GET", "/nothing"),
]


def scope_of(*headers: tuple[str, str], path: str = "/kv/a", version: str = "1.1") -> Scope:
    """A request with these headers."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return {"type": "http", "path": path, "http_version": version, "headers": raw}


def refused(settings: Settings, scope: Scope) -> type[StoreError] | None:
    """Why a node refuses a request by its headers; None if it does not."""
    try:
        Callers(settings).check(scope)
    except StoreError as error:
        return type(error)
    return None


# --- pages of another origin ------------------------------------------------------------------


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
@pytest.mark.parametrize("token", [None, SECRET])
def test_page_of_another_origin_is_refused_with_and_without_a_token(
    origin: str, token: str | None
) -> None:
    """Also where the page knows the token: a page that does is no page of the operator."""
    scope = scope_of(("host", OWN), ("origin", origin), ("authorization", f"Bearer {SECRET}"))
    assert refused(Settings(cluster_token=token), scope) is ForeignOriginError


def test_every_call_refuses_a_foreign_page_and_does_nothing() -> None:
    """Keys, administration, data and what nodes ask: the answer is the same."""

    async def check(client: httpx.AsyncClient) -> None:
        for method, path in CALLS:
            answer = await client.request(method, path, json={}, headers={"Origin": EVIL})
            assert error_of(answer, "foreign_origin")
        put = await client.put("/kv/a", json={"value": "1"}, headers={"Origin": EVIL})
        error_of(put, "foreign_origin")
        error_of(await client.get("/kv/a"), "not_found")

    serve(check)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (OWN, f"http://{OWN}"),
        (OWN, f"https://{OWN}"),
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST:8000", "http://localhost:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_page_of_the_node_itself_may_call_its_api_and_not_its_channel(
    host: str, origin: str
) -> None:
    """Whatever a node serves may use it; nodes are no pages, so their calls are not for these."""
    headers = ("host", host), ("origin", origin)
    assert refused(Settings(), scope_of(*headers)) is None
    for path in ("/replication", CALL_PATH, WHOLE_PATH):
        assert refused(Settings(), scope_of(*headers, path=path)) is ForeignOriginError


@pytest.mark.parametrize("token", [None, SECRET])
@pytest.mark.parametrize(
    "headers",
    [
        [("host", OWN), ("origin", EVIL)],
        [("host", OWN), ("origin", f"http://{OWN}")],
        [("host", "evil.example")],
    ],
)
def test_channel_of_a_page_is_refused_before_it_is_open(
    headers: list[tuple[str, str]], token: str | None
) -> None:
    """A WebSocket asks no permission of the server's for a foreign page; its head names the page.

    With a token the name does not count, but the page has no token.
    """

    async def main() -> None:
        app = create_app(Settings(cluster_token=token))
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(event: Any) -> None:
            sent.append(event)

        scope = {**scope_of(*headers, path="/replication"), "type": "websocket"}
        async with started(app):
            await app(scope, receive, send)
        assert sent[0]["type"] in {"websocket.http.response.start", "websocket.close"}
        assert sent[0].get("status", 403) in {403, 421}

    run(main)


@pytest.mark.parametrize("path", [CALL_PATH, WHOLE_PATH])
def test_question_of_a_node_has_to_say_what_it_is(path: str) -> None:
    """A form may hold the bytes of a question; it cannot have their media type unasked."""

    async def check(client: httpx.AsyncClient) -> None:
        for kind in ("", "text/plain", "application/json", "application/x-www-form-urlencoded"):
            headers = {"content-type": kind} if kind else {}
            answer = await client.post(path, content=encode(Probe()), headers=headers)
            assert MEDIA_TYPE in error_of(answer, "malformed")["message"]

    serve_follower(check)


# --- names that are made to point at the node -------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8001",
        "LocalHost:1",
        "127.0.0.1",
        "127.0.0.1:8001",
        "127.9.9.9:80",
        "[::1]",
        "[::1]:8001",
        "10.1.2.3:8000",
        "[fd00::9]:9203",
        "127.1:8000",
        "leader:8000",
        "leader:80",
        "store.example",
        "Other.Example:443",
    ],
)
def test_addresses_and_names_of_the_node_are_known_at_any_port(host: str) -> None:
    """Ports are published under other numbers; an address is nobody's name."""
    settings = Settings(
        advertise_url="http://leader:8000", allowed_hosts=("store.example", "other.example")
    )
    assert refused(settings, scope_of(("host", host))) is None


def test_name_in_another_script_is_known_as_clients_send_it() -> None:
    """What connects to a name that is not ASCII sends its ASCII form; the leader does too."""
    settings = Settings(advertise_url="http://b\u00fccher:8000")
    assert refused(settings, scope_of(("host", "xn--bcher-kva:8000"))) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "localhost:8000.evil.example",
        "127.0.0.1.evil.example",
        "[evil.example]",
        "[::1].evil.example@",
        "leader.evil.example:8000",
        "",
        ":8000",
        "é",
    ],
)
def test_name_that_is_none_of_the_nodes_is_refused_without_a_token(host: str) -> None:
    """Such a name was made to point here; with a token its page can do nothing that counts."""
    settings = Settings(advertise_url="http://leader:8000")
    assert refused(settings, scope_of(("host", host))) is UnknownHostError
    assert refused(Settings(cluster_token=SECRET), scope_of(("host", host))) is None


def test_names_that_an_operator_lists_are_held_to_with_a_token_too() -> None:
    """Who lists names means that there are no others."""
    settings = Settings(cluster_token=SECRET, allowed_hosts=("store.example",))
    assert refused(settings, scope_of(("host", "store.example"))) is None
    assert refused(settings, scope_of(("host", "evil.example"))) is UnknownHostError


def test_every_call_refuses_a_name_that_was_made_to_point_here() -> None:
    """The page behind it is of the node's own origin, so that the browser would let it read."""
    headers = {"Host": "evil.example:8000"}

    async def check(client: httpx.AsyncClient) -> None:
        for method, path in CALLS:
            answer = await client.request(method, path, json={}, headers=headers)
            assert "ALLOWED_HOSTS" in error_of(answer, "unknown_host")["message"]
        own = {**headers, "Origin": "http://evil.example:8000"}
        error_of(await client.put("/kv/a", json={"value": "1"}, headers=own), "unknown_host")
        error_of(await client.get("/kv/a"), "not_found")

    serve(check)


def test_refusal_shows_a_long_name_in_short() -> None:
    """What is sent back is short, whatever came."""
    for headers in (
        [("host", "x" * 60_000)],
        [("host", OWN), ("origin", "http://" + "x" * 60_000)],
    ):
        with pytest.raises((UnknownHostError, ForeignOriginError)) as error:
            Callers(Settings()).check(scope_of(*headers))
        assert len(error.value.message) < 300


# --- what HTTP itself wants -------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, SECRET])
def test_request_of_http_1_1_names_one_host(token: str | None) -> None:
    """None or two are malformed (RFC 9112, 3.2); HTTP/1.0 has no need of any."""
    settings = Settings(cluster_token=token)
    twice = ("host", OWN), ("host", OWN)
    assert refused(settings, scope_of()) is MalformedError
    assert refused(settings, scope_of(*twice)) is MalformedError
    assert refused(settings, scope_of(*twice, version="1.0")) is MalformedError
    assert refused(settings, scope_of(version="1.0")) is None


def test_programs_are_let_in_as_before() -> None:
    """A client that sends no Origin and calls the node by an address passes."""

    async def check(client: httpx.AsyncClient) -> None:
        assert (await client.put("/kv/a", json={"value": "1"})).status_code == 200
        basic = {"Authorization": "Basic " + base64.b64encode(b"a:b").decode()}
        assert (await client.get("/health", headers=basic)).status_code == 200

    serve(check)
