"""HTTP on one connection: what is refused, how, and what the application never sees."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_app.connections import KEEP_ALIVE_S, LINGER_S
from kv_app.request_limits import MAX_HEAD_BYTES, MAX_PIPELINED_REQUESTS
from tests.kv_app.fake_transport import (
    CHANNEL,
    CHUNKED,
    GET,
    MARGIN_S,
    MAX_BODY_BYTES,
    PUT_HEAD,
    READ_TIMEOUT_S,
    WAIT,
    Server,
    read_answers,
    refused,
    serve,
    settle,
)
from tests.kv_app.fakes import until


def head_of(size: int) -> bytes:
    """A request without a body whose head is so many bytes, as the limit counts them, at most."""
    head = b"GET /a HTTP/1.1\r\nHost: x\r\nPadding: "
    return head + b"y" * (size - len(head) - 4) + b"\r\n\r\n"


# --- what is fine ------------------------------------------------------------------------------


def test_requests_that_are_fine_are_answered_one_after_another() -> None:
    """One connection serves many requests, with and without bodies."""

    async def check(server: Server) -> None:
        client = server.connect()
        for number in range(1, 4):
            client.send(PUT_HEAD + b"abc")
            assert (await client.answered(number))[-1].body == b"/p abc"
        assert not client.is_ended

    serve(check)


def test_pipelined_requests_are_answered_in_their_order() -> None:
    """Requests sent without waiting are all answered, the first one first, even if it is slow."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(WAIT + PUT_HEAD + b"abc" + GET)
        await settle()
        assert client.answers == []
        server.app.go.set()
        bodies = [answer.body for answer in await client.answered(3)]
        assert bodies == [b"/wait ", b"/p abc", b"/a "]

    serve(check)


@settings(max_examples=60)
@given(cuts=st.lists(st.integers(1, 150), max_size=12))
def test_requests_cut_anywhere_are_answered_as_if_they_came_in_one_piece(cuts: list[int]) -> None:
    """Where the network cuts a stream of requests makes no difference."""
    stream = PUT_HEAD + b"abc" + CHUNKED + b"2\r\nde\r\n1\r\nf\r\n0\r\n\r\n" + GET
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})

    async def check(server: Server) -> None:
        client = server.connect()
        for first, last in itertools.pairwise(places):
            client.send(stream[first:last])
            await settle()
        assert [a.body for a in await client.answered(3)] == [b"/p abc", b"/c def", b"/a "]

    serve(check)


# --- what is not HTTP --------------------------------------------------------------------------

UNREADABLE = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "zeros": bytes(100),
    "unknown method": b"BREW /a HTTP/1.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "raw UTF-8 in the path": "PUT /kv/é HTTP/1.1\r\n\r\n".encode(),
    "negative length": b"PUT /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "length that is none": b"PUT /a HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n",
    "length without end": b"PUT /a HTTP/1.1\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "two lengths": b"PUT /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunks": b"PUT /a HTTP/1.1\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nabc",
    "unknown coding": b"PUT /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "header without a name": b"GET /a HTTP/1.1\r\n: x\r\n\r\n",
    "space in a header's name": b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
    "a tunnel": b"CONNECT example.com:80 HTTP/1.1\r\n\r\n",
    "a channel without its key": CHANNEL.replace(b"Sec-WebSocket-Key", b"Nothing"),
    "a channel of an old version": CHANNEL.replace(b"Version: 13", b"Version: 8"),
    "a channel by PUT": CHANNEL.replace(b"GET", b"PUT"),
    "a channel with a long header": CHANNEL[:-2] + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=list(UNREADABLE))
def test_bytes_that_are_no_request_are_malformed_and_end_the_connection(data: bytes) -> None:
    """What cannot be read is the client's error, in the one shape; the application sees nothing."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(data)
        await refused(client, "malformed")
        client.send(GET)
        await settle()
        assert server.app.seen == []
        assert len(client.answers) == 1

    serve(check)


def test_chunk_that_cannot_be_read_takes_its_request_from_the_application() -> None:
    """The request was begun; its client is told, the application is not left waiting."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(CHUNKED + b"3\r\nabc\r\n")
        await settle()
        client.send(b"not hexadecimal\r\n")
        await refused(client, "malformed")
        await until(lambda: server.app.broken == ["/c"])
        assert server.app.seen == []

    serve(check)


@pytest.mark.parametrize("bad", [b"\x00\x01", CHUNKED + b"zz\r\n", PUT_HEAD[:20]])
def test_request_before_a_bad_one_gets_its_own_answer_first(bad: bytes) -> None:
    """A client must never take the error of its second request for the outcome of its first."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(WAIT + bad)
        await settle()
        server.sweep(READ_TIMEOUT_S + MARGIN_S)  # one of the bad ones is bad by being late
        assert client.transport.sent == b""
        server.app.go.set()
        answers = await client.answered(2)
        assert answers[0].body == b"/wait "
        await refused(client, "malformed", earlier=1)
        assert [path for path, _, _ in server.app.seen] == ["/wait"]

    serve(check)


@settings(max_examples=100)
@given(data=st.lists(st.binary(max_size=200) | st.sampled_from([GET, PUT_HEAD, CHUNKED, CHANNEL])))
def test_any_bytes_get_well_formed_answers_or_none(data: list[bytes]) -> None:
    """Whatever comes, the protocol raises nothing and sends nothing but whole answers."""

    async def check(server: Server) -> None:
        client = server.connect()
        for piece in data:
            if not client.transport.is_paused and client.transport.protocol is client.protocol:
                client.send(piece)
                await settle()
        server.sweep(READ_TIMEOUT_S + KEEP_ALIVE_S + LINGER_S + 3 * MARGIN_S)
        if client.transport.protocol is client.protocol:
            assert client.transport.is_closed
            for answer in read_answers(client.transport.sent):
                assert answer.status == 200 or answer.error["code"] in {"malformed", "too_large"}

    serve(check)


# --- other protocols ---------------------------------------------------------------------------

# As Java's HttpClient asks for HTTP/2 with every first request.
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
OFFERS = {
    "a read": GET[:-2] + H2C + b"\r\n",
    "a write": PUT_HEAD[:-2] + H2C + b"\r\nabc",
    "a write in chunks": CHUNKED[:-2] + H2C + b"\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
    "a write without a body": b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
    + H2C
    + b"\r\n",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=list(OFFERS))
@pytest.mark.parametrize("size", [1, 7, 60, 10_000])
def test_request_that_offers_another_protocol_is_answered_in_this_one(
    offer: bytes, size: int
) -> None:
    """The offer is ignored (RFC 9110, 7.8), the body read, and the connection kept."""
    stream = offer + PUT_HEAD + b"def" + offer + GET

    async def check(server: Server) -> None:
        client = server.connect()
        for first in range(0, len(stream), size):
            client.send(stream[first : first + size])
            if size < 100:
                await settle()
        answers = await client.answered(4)
        own = answers[0].body
        assert own.partition(b" ")[2] == (b"abc" if b"abc" in offer or b"2\r\n" in offer else b"")
        assert [answer.body for answer in answers] == [own, b"/p def", own, b"/a "]
        assert server.app.seen[0][1]["upgrade"] == "h2c"
        assert not client.is_ended

    serve(check)


def test_body_behind_an_offer_of_another_protocol_has_its_limit() -> None:
    """The offer opens no way around what holds for a request."""

    async def check(server: Server) -> None:
        for length in (b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"):
            client = server.connect()
            client.send(b"PUT /p HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n" + H2C + b"\r\n")
            await settle()
            client.send(b"zz" if b"chunked" in length else b"ab")
            await refused(client, "malformed" if b"chunked" in length else "too_large")

    serve(check)


def test_last_request_of_a_connection_stays_the_last_with_an_offer() -> None:
    """``Connection: close`` beside the offer is heeded."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(GET[:-2] + H2C.replace(b"Upgrade,", b"close, Upgrade,") + b"\r\n")
        assert (await client.answered())[0].body == b"/a "
        assert client.is_ended

    serve(check)


# --- sizes -------------------------------------------------------------------------------------


def test_head_at_the_limit_passes() -> None:
    """All of the 64 KiB are the client's to use, however they come."""

    async def check(server: Server) -> None:
        client, slow = server.connect(), server.connect()
        client.send(head_of(MAX_HEAD_BYTES))
        for byte in range(0, MAX_HEAD_BYTES, 1000):
            slow.send(head_of(MAX_HEAD_BYTES)[byte : byte + 1000])
        for one in (client, slow):
            assert (await one.answered())[0].status == 200

    serve(check)


@pytest.mark.parametrize("piece", [1000, 16_384, 250_000])  # the last is the largest read there is
@pytest.mark.parametrize(
    "endless",
    [
        b"GET /a HTTP/1.1\r\nPadding: " + b"y" * (1 << 20),
        b"GET /a HTTP/1.1\r\n" + b"Some: header\r\n" * (1 << 16),
        b"GET /" + b"y" * (1 << 20),
        CHUNKED + b"3\r\nabc\r\n0\r\nTrailer: " + b"y" * (1 << 20),
        CHUNKED + b"3\r\nabc\r\n0\r\n" + b"Some: trailer\r\n" * (1 << 16),
        CHUNKED + b"3;extension=" + b"y" * (1 << 20),
        b"\r\n" * (1 << 20),
    ],
    ids=["header", "headers", "path", "trailer", "trailers", "chunk extension", "empty lines"],
)
def test_head_without_end_is_refused_at_the_limit(endless: bytes, piece: int) -> None:
    """The node takes no more than the limit and one read before it gives up."""

    async def check(server: Server) -> None:
        client = server.connect()
        taken = 0
        while not client.is_ended:
            client.send(endless[taken : taken + piece])
            taken += piece
            await settle()
        assert taken <= MAX_HEAD_BYTES + 2 * piece
        assert (await refused(client, "too_large"))["limit"] == "MAX_HEAD_BYTES"
        assert server.app.seen == []

    serve(check)


def test_head_over_the_limit_that_comes_whole_is_refused_too() -> None:
    """One byte more is too large, even where it is all there at once."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(head_of(MAX_HEAD_BYTES + 20))
        assert (await refused(client, "too_large"))["limit"] == "MAX_HEAD_BYTES"
        assert server.app.seen == []

    serve(check)


def test_heads_of_many_requests_on_one_connection_do_not_add_up() -> None:
    """Each request has the whole limit for itself."""

    async def check(server: Server) -> None:
        client = server.connect()
        requests = MAX_HEAD_BYTES // len(GET) + 10
        for _ in range(requests):
            client.send(GET)
            await settle()
        client.send(GET[:10])
        client.send(GET[10:])
        assert (await client.answered(requests + 1))[-1].status == 200

    serve(check)


def test_reason_of_a_refusal_does_not_repeat_a_long_request() -> None:
    """What is sent back is short, whatever came."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(b"GET http://x:99999/" + b"y" * 60_000 + b" HTTP/1.1\r\n\r\n")
        assert len(str((await refused(client, "malformed"))["message"])) < 300

    serve(check)


def test_large_body_behind_a_small_head_is_no_large_head() -> None:
    """The head's limit does not count the body, however both come."""

    async def check(server: Server) -> None:
        chunks = b"3e8\r\n" + b"y" * 1000 + b"\r\n"
        for pieces in (100, 1 << 20):
            client = server.connect()
            stream = CHUNKED + chunks * 200 + b"0\r\n\r\n"
            for first in range(0, len(stream), pieces):
                client.send(stream[first : first + pieces])
                await settle()
            assert len((await client.answered())[0].body) == len("/c ") + 200_000

    serve(check)


def test_body_announced_above_the_limit_is_refused_before_it_comes() -> None:
    """A gigabyte that is only announced costs nothing; the answer does not wait for it."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(b"PUT /p HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\nab")
        assert (await refused(client, "too_large"))["limit"] == "MAX_BODY_BYTES"
        await until(lambda: server.app.broken == ["/p"])
        fits = server.connect()
        body = b"y" * MAX_BODY_BYTES
        fits.send(b"PUT /p HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
        fits.send(body)
        assert (await fits.answered())[0].body == b"/p " + body

    serve(check)


def test_length_of_an_earlier_body_is_not_held_against_the_next_request() -> None:
    """The application has answered it; what follows on the connection is judged by itself."""

    async def check(server: Server) -> None:
        client = server.connect()
        size = MAX_BODY_BYTES + 1
        client.send(b"PUT /p HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + b"y" * size)
        await client.answered(1)
        client.send(GET[:10])
        client.send(GET[10:])
        assert (await client.answered(2))[-1].status == 200

    serve(check)


def test_requests_ahead_of_their_answers_are_bounded() -> None:
    """A client that sends without end and waits for nothing fills no memory."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(WAIT + GET * 10_000)
        assert len(client.protocol.pipeline) == MAX_PIPELINED_REQUESTS
        server.app.go.set()
        answers = await client.answered(1 + MAX_PIPELINED_REQUESTS + 1)
        assert {answer.status for answer in answers[:-1]} == {200}
        assert client.is_ended
        assert answers[-1].error["code"] == "malformed"

    serve(check)


def test_trailer_does_not_become_a_header_of_its_request() -> None:
    """What comes behind the body cannot add a token or an idempotency key (RFC 9110, 6.5.1)."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(CHUNKED + b"1\r\nx\r\n")
        await settle()
        client.send(b"0\r\nAuthorization: Bearer token\r\n\r\n")
        await client.answered()
        assert "authorization" not in server.app.seen[0][1]

    serve(check)
