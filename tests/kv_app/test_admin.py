"""What a leader shows of its followers, and what is done to their links."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest

from kv_app.api import admin
from kv_app.api.admin import _ask, _checked_dump, _shown_replicas
from kv_app.api.answers import encode_json
from kv_app.bodies import DigestAnswer
from kv_app.meta import Role
from tests.kv_app.fakes import FakeNetwork, run, until
from tests.kv_app.nodes import error_of, serve, serve_follower, wait_ready

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kv_app.leader import Leader

    MakeNetwork = Callable[[int], FakeNetwork]

URL = "http://f1:1"


def answer_of(body: bytes) -> httpx.Response:
    """Returns an answer that can be read as it comes."""
    return httpx.Response(200, stream=httpx.ByteStream(body))


def dump_of(answer: Callable[[httpx.Request], httpx.Response]) -> dict[str, Any]:
    """Returns what a leader shows of a follower that answers so."""
    shown: dict[str, Any] = {}

    async def check() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            found = await _ask(client, URL, "/dump", _checked_dump)
            shown.update(json.loads(encode_json(found)))

    run(check)
    return shown


def test_dump_of_a_follower_is_its_keys_and_values() -> None:
    """The data of a follower is shown as it is, whatever its keys are called."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == f"{URL}/dump"
        return answer_of('{"a": "1", "error": "é"}'.encode())

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
    error = dump_of(lambda _: answer_of(body))["error"]
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


class Endless(httpx.AsyncByteStream):
    """An answer that never ends, and counts what was taken of it."""

    def __init__(self) -> None:
        self.taken_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields without end."""
        while True:
            self.taken_bytes += 100
            yield b" " * 100


@pytest.mark.parametrize("path", ["/dump", "/digest"])
def test_answer_of_a_follower_takes_no_more_memory_than_its_limit(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever listens at a follower's URL may send without end."""
    monkeypatch.setattr(admin, "MAX_FOLLOWER_ANSWER_BYTES", 1000)
    endless = Endless()

    async def check() -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=endless))
        async with httpx.AsyncClient(transport=transport) as client:
            shown: Any = await _ask(client, URL, path, _checked_dump)
        assert "MAX_FOLLOWER_ANSWER_BYTES" in shown["error"]["message"]
        assert endless.taken_bytes == 1100

    run(check)


def test_replicas_are_shown_one_after_another_and_in_parts(make_network: MakeNetwork) -> None:
    """The leader never holds the data of two of them, nor its own once more."""
    network = make_network(3)
    asked: list[str] = []

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        leader = leader_of(client)
        await client.put("/kv/a", json={"value": "x" * 1000})

        async def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request.url.host)
            return answer_of(encode_json({"a": request.url.host}))

        shown, largest, waiting = b"", 0, []
        transport = httpx.MockTransport(answer)
        async for part in _shown_replicas(leader, httpx.AsyncClient(transport=transport)):
            shown += part
            largest = max(largest, len(part))
            waiting.append(len(asked))
        assert waiting == sorted(waiting)
        assert set(waiting) == {0, 1, 2, 3}
        status = json.loads(shown)
        assert status["leader"] == {"a": "x" * 1000}
        assert status["followers"] == {
            link.url: {"a": host} for link, host in zip(leader.links, asked, strict=True)
        }
        assert status["positions"].keys() == status["followers"].keys()
        assert (status["epoch"], status["last_seq"], status["stable_seq"]) == (1, 1, 1)

    serve_leader(check, network, write_quorum=0)


def test_views_of_all_followers_read_no_certificates(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes speak plain HTTP; to read all that the system trusts would stop the loop for 25 ms."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("certificates were read")

    monkeypatch.setattr("ssl.create_default_context", fail)
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", fail)
    network = make_network(1)

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        for path in ("/admin/digests", "/admin/replica-status"):
            assert (await client.get(path)).status_code == 200

    serve_leader(check, network, write_quorum=0)


def digest_of(body: bytes) -> DigestAnswer | dict[str, Any]:
    """Returns what a leader shows of a follower whose digest is this."""
    shown: list[DigestAnswer | dict[str, Any]] = []
    transport = httpx.MockTransport(lambda _: answer_of(body))

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


# --- links ------------------------------------------------------------------------------------


def leader_of(client: httpx.AsyncClient) -> Leader:
    """Returns the leader behind a client."""
    leader: Leader = client._transport.app.node.leader  # type: ignore[attr-defined]
    return leader


async def set_link(client: httpx.AsyncClient, node_id: str, state: str) -> dict[str, Any]:
    """Cuts or mends a link; returns what the leader shows of the follower at once."""
    answer = await client.post(f"/admin/links/{node_id}", json={"state": state})
    assert answer.status_code == 200
    status: dict[str, Any] = answer.json()
    shown = (await client.get("/admin/links")).json()["links"]
    assert status in shown.values()
    return status


def serve_leader(
    check: Callable[[httpx.AsyncClient], Any], network: FakeNetwork, write_quorum: int
) -> None:
    """Runs a test with a leader of all followers of a network."""
    urls = tuple(network.followers)
    serve(check, follower_urls=urls, write_quorum=write_quorum, reconnect_max_s=0.01)


def test_link_that_is_cut_counts_for_nothing_at_once_and_stays_down(
    make_network: MakeNetwork,
) -> None:
    """Its follower gets nothing more, and is not called; others are."""
    network = make_network(2)

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        status = await set_link(client, "f1", "down")
        assert (status["node_id"], status["connected"]) == ("f1", False)
        assert "cut on purpose" in status["detail"]
        refused = await client.put("/kv/a", json={"value": "1"})
        assert error_of(refused, "not_attempted")["reason"] == "too_few_followers"
        network[2].acknowledges = True
        await client.post("/admin/quorum", json={"write_quorum": 1})
        assert (await client.put("/kv/a", json={"value": "1"})).status_code == 200
        for _ in range(5):
            calls = len(network[2].clients)
            network[2].client.close(1000, "goes and comes back")
            await until(lambda calls=calls: len(network[2].clients) > calls)
        assert network[1].attempts == 1
        assert network[1].client.entries == []
        again = await set_link(client, "f1", "down")
        assert again == status

    serve_leader(check, network, write_quorum=2)


def test_link_that_is_mended_brings_what_was_missed_and_counts(make_network: MakeNetwork) -> None:
    """As after any outage; to mend one that is up changes nothing."""
    network = make_network(1)
    network[1].acknowledges = True

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        await client.post("/admin/quorum", json={"write_quorum": 0})
        await set_link(client, "f1", "down")
        assert (await client.put("/kv/a", json={"value": "1"})).status_code == 200
        status = await set_link(client, "f1", "up")
        assert (status["connected"], status["detail"]) == (False, "not connected yet")
        await client.post("/admin/quorum", json={"write_quorum": 1})
        await wait_ready(client)
        await network[1].client.has_sent(1)
        written = (await client.put("/kv/a", json={"value": "2"})).json()
        assert written["follower_acks"] == 1
        status = await set_link(client, "f1", "up")
        assert (status["connected"], status["detail"]) == (True, "")
        assert status["contiguous"] == written["seq"]
        assert len(network[1].clients) == 2

    serve_leader(check, network, write_quorum=1)


def test_link_that_is_cut_while_it_connects_does_not_come_up(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection was already on its way, and the follower says welcome."""
    network = make_network(1)
    calls: list[str] = []
    may_connect = asyncio.Event()
    may_connect.set()

    async def connect(url: str, *arguments: Any, **options: Any) -> Any:
        calls.append(url)
        await may_connect.wait()
        return await network.connect(url, *arguments, **options)

    monkeypatch.setattr("kv_app.channel.connect", connect)

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        link = leader_of(client).links[0]
        may_connect.clear()
        network[1].client.close(1000, "a fault")
        await until(lambda: len(calls) == 2)
        await set_link(client, "f1", "down")
        may_connect.set()
        await until(lambda: len(network[1].clients) == 2)
        await network[1].client.closed
        assert not link.is_connected
        assert "cut on purpose" in link.detail

    serve_leader(check, network, write_quorum=1)


@pytest.mark.parametrize(
    "node_id", ["f2", "f1/", "F1", "", "é", "a/b", "a\nb", "f1\n", "\n\x0f\x8d"]
)
def test_link_of_a_follower_that_was_never_heard_is_malformed(
    node_id: str, make_network: MakeNetwork
) -> None:
    """The error says which ones were."""
    network = make_network(1)

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        answer = await client.post(f"/admin/links/{quote(node_id)}", json={"state": "down"})
        message = error_of(answer, "malformed")["message"]
        assert repr(node_id) in message
        assert message.endswith("these were: f1.")

    serve_leader(check, network, write_quorum=1)


def test_link_of_a_follower_with_any_name_can_be_cut(make_network: MakeNetwork) -> None:
    """A name may have slashes and spaces."""
    network = make_network(1)
    network[1].node_id = "rack 1/é"

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        assert (await set_link(client, "rack%201/%C3%A9", "down"))["node_id"] == "rack 1/é"

    serve_leader(check, network, write_quorum=1)


@pytest.mark.parametrize("body", [{"state": "sideways"}, {"state": True}, {}, [], None])
def test_state_of_a_link_that_cannot_be_is_malformed(
    body: object, make_network: MakeNetwork
) -> None:
    """It is up or down; the link stays as it is."""
    network = make_network(1)

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        error_of(await client.post("/admin/links/f1", json=body), "malformed")
        assert leader_of(client).links[0].is_connected

    serve_leader(check, network, write_quorum=1)


def test_links_are_a_leaders_and_need_the_token() -> None:
    """A follower has none; without the token nobody may cut one."""

    async def check_follower(client: httpx.AsyncClient) -> None:
        error_of(await client.post("/admin/links/f1", json={"state": "down"}), "not_leader")

    async def check_token(client: httpx.AsyncClient) -> None:
        error_of(await client.post("/admin/links/f1", json={"state": "down"}), "unauthorized")

    serve_follower(check_follower)
    serve(check_token, cluster_token="secret")
