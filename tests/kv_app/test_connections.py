"""Connections: how long one may keep the node waiting, how many there may be, how they end."""

from __future__ import annotations

import pytest
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from kv_app.bounds import MAX_FRAGMENTS
from kv_app.channel_protocol import MAX_HELLO_BYTES
from kv_app.connections import (
    ANSWER_STALL_TIMEOUT_S,
    KEEP_ALIVE_S,
    LINGER_S,
    LOOKS_PER_TURN,
    MAX_CHANNELS,
    MAX_GUESTS,
    MAX_NEW_CHANNELS,
    ConnectionGuard,
)
from kv_app.errors import NotAttemptedError
from tests.kv_app.fake_transport import (
    CHANNEL,
    CHUNKED,
    GET,
    HELLO,
    LATER,
    MARGIN_S,
    MAX_FRAME_BYTES,
    PUT_HEAD,
    READ_TIMEOUT_S,
    WAIT,
    Client,
    Server,
    frame,
    refused,
    serve,
    settle,
)
from tests.kv_app.fakes import until

# --- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", b"GET /a HT", PUT_HEAD, PUT_HEAD + b"ab", CHUNKED])
def test_request_that_does_not_come_in_whole_in_time_is_malformed(begun: bytes) -> None:
    """Slowloris, half a body, or nothing at all: it is answered and ended, and not too early."""

    async def check(server: Server) -> None:
        client = server.connect()
        if begun:
            client.send(begun)
        await settle()
        server.sweep(READ_TIMEOUT_S + 1)  # it may have come just before the first look
        assert client.transport.sent == b""
        server.sweep(MARGIN_S)
        assert "10.5 s" in str((await refused(client, "malformed"))["message"])
        assert server.app.seen == []

    serve(check)


def test_request_that_drips_in_is_not_saved_by_its_drops() -> None:
    """The time counts from the first byte of a request, not from the last."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(b"GET /a HTTP/1.1\r\n")
        for _ in range(int(READ_TIMEOUT_S + MARGIN_S)):
            if not client.is_ended:
                client.send(b"A: b\r\n")
            server.sweep(1)
        await refused(client, "malformed")

    serve(check)


def test_time_of_a_request_begins_anew_with_each() -> None:
    """A connection that is used all the time is never ended for its age."""

    async def check(server: Server) -> None:
        client = server.connect()
        for number in range(1, 8):
            client.send(PUT_HEAD)
            server.sweep(4)
            client.send(b"abc")
            await client.answered(number)
        assert not client.is_ended

    serve(check)


def test_request_that_waits_for_its_answer_is_left_alone() -> None:
    """However long a quorum takes, the client is not the one to blame."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(WAIT)
        await settle()
        server.sweep(10 * READ_TIMEOUT_S)
        assert not client.is_ended
        server.app.go.set()
        assert (await client.answered())[0].body == b"/wait "
        server.sweep(KEEP_ALIVE_S)
        assert not client.is_ended  # the time to think begins with the answer

    serve(check)


def test_request_behind_one_that_waits_is_not_late_while_the_node_does_not_read_it() -> None:
    """A pipelined request whose rest the node does not fetch cannot come in whole."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(WAIT)
        await settle()
        large = b"%x\r\n" % HIGH_WATER_LIMIT + bytes(HIGH_WATER_LIMIT) + b"\r\n"
        client.send(CHUNKED + large + b"1\r\n")
        assert client.transport.is_paused
        server.sweep(10 * READ_TIMEOUT_S)
        server.app.go.set()
        await client.answered(1)
        client.send(b"1\r\n0\r\n\r\n")
        assert len((await client.answered(2))[1].body) == len("/c 1") + HIGH_WATER_LIMIT

    serve(check)


def test_rest_of_a_request_that_was_answered_already_gets_no_second_answer() -> None:
    """An answer may come before the body's end; what does not come then just ends."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(PUT_HEAD.replace(b"/p", b"/early"))
        await client.answered(1)
        server.sweep(READ_TIMEOUT_S + MARGIN_S)
        assert client.is_ended
        assert len(client.answers) == 1

    serve(check)


@pytest.mark.parametrize("noise", [b"", b"\r\n"])
def test_connection_without_a_further_request_is_closed(noise: bytes) -> None:
    """An idle connection ends in silence; empty lines do not keep it."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(GET)
        await client.answered()
        server.sweep(KEEP_ALIVE_S)
        assert not client.is_ended
        if noise:
            client.send(noise)
        server.sweep(MARGIN_S)
        assert client.transport.is_closed
        assert len(client.answers) == 1

    serve(check)


def test_client_that_takes_nothing_of_its_answer_is_cut_off() -> None:
    """An answer that nobody reads is not kept for ever; one that is read slowly is."""

    async def check(server: Server) -> None:
        for step, is_cut in ((0, True), (1, False)):
            client = server.connect()
            client.send(WAIT)
            client.transport.unsent = 100_000
            for _ in range(int(ANSWER_STALL_TIMEOUT_S) + 2):
                client.transport.unsent -= step
                server.sweep(1)
            assert client.transport.is_aborted is is_cut
            client.protocol.connection_lost(None)

    serve(check)


def test_refused_client_that_does_not_go_is_cut_off() -> None:
    """It may read why for a while, and what it still sends is dropped."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(b"\x00")
        await refused(client, "malformed")
        client.send(GET)
        assert not client.transport.is_closed
        server.sweep(LINGER_S + MARGIN_S)
        assert client.transport.is_aborted
        assert server.app.seen == []

    serve(check)


# --- numbers -----------------------------------------------------------------------------------


def test_connection_above_the_limit_is_refused_at_its_first_request() -> None:
    """It is told that nothing was tried and which setting was exceeded; others go on."""

    async def check(server: Server) -> None:
        held = [server.connect() for _ in range(3)]
        above = server.connect()
        above.send(PUT_HEAD + b"abc")
        error = await refused(above, "not_attempted")
        assert (error["reason"], error["limit"]) == ("too_many_connections", "MAX_CONNECTIONS")
        assert above.transport.is_closed
        assert server.app.seen == []
        for client in held:
            client.send(GET)
            assert (await client.answered())[0].status == 200

    serve(check, max_connections=3)


def test_connection_above_the_limit_stays_if_another_one_ends_in_time() -> None:
    """The limit counts open connections, so a free place is taken by who waits for one."""

    async def check(server: Server) -> None:
        held, above = server.connect(), server.connect()
        held.protocol.connection_lost(None)
        for number in range(1, 3):
            above.send(GET)
            assert (await above.answered(number))[-1].status == 200
            for _ in range(MAX_GUESTS + 1):
                server.connect()  # above the limit themselves
        assert not above.is_ended
        above.send(b"\x00")
        await refused(above, "malformed", earlier=2)
        assert not above.transport.is_closed  # as of any client, not of one too many

    serve(check, max_connections=1)


def test_place_of_a_connection_above_the_limit_is_free_again_when_it_ends() -> None:
    """Those that have gone push out nobody."""

    async def check(server: Server) -> None:
        server.connect()
        for _ in range(3):
            above = [server.connect() for _ in range(MAX_GUESTS)]
            assert not any(client.is_ended for client in above)
            for client in above:
                client.protocol.connection_lost(None)
        one = server.connect()
        one.send(GET)
        await refused(one, "not_attempted")  # and the limit is where it was

    serve(check, max_connections=1)


def test_channel_gets_in_where_clients_have_taken_all_places() -> None:
    """However many clients hold a connection, silent ones above the limit included."""

    async def check(server: Server) -> None:
        clients = [server.connect() for _ in range(10 + 3 * MAX_GUESTS)]
        channel = server.connect()
        channel.send(CHANNEL)
        assert channel.transport.protocol is not channel.protocol
        assert not channel.is_ended
        open_ones = [client for client in clients if not client.is_ended]
        assert open_ones == clients[:10] + clients[1 - MAX_GUESTS :]

    serve(check, max_connections=10)


def test_call_of_a_node_is_answered_where_clients_have_taken_all_places() -> None:
    """A new leader has to be heard; what else comes on its connection is refused."""

    async def check(server: Server) -> None:
        server.connect()
        node = server.connect()
        node.send(GET.replace(b"/a", b"/replication/call"))
        assert (await node.answered())[0].status == 200
        node.send(GET)
        await refused(node, "not_attempted", earlier=1)

    serve(check, max_connections=1)


async def opened(server: Server, *frames: bytes) -> Client:
    """Opens a channel, and sends some frames on it."""
    client = server.connect()
    client.send(CHANNEL)
    await settle()
    for one in frames:
        if not client.is_ended:
            client.transport.protocol.data_received(one)
        await settle()
    return client


def test_channels_are_bounded_too() -> None:
    """A connection that calls itself a channel is no way around the limit."""

    async def check(server: Server) -> None:
        for _ in range(MAX_CHANNELS):
            assert not (await opened(server, frame(HELLO))).is_ended
        above = server.connect()
        above.send(CHANNEL)
        assert (await refused(above, "not_attempted"))["reason"] == "too_many_connections"

    serve(check)


def test_channels_that_say_nothing_keep_no_leader_out() -> None:
    """However many there are: the oldest goes for each new one, and a leader says hello at once."""

    async def check(server: Server) -> None:
        idle = [await opened(server) for _ in range(MAX_CHANNELS + MAX_NEW_CHANNELS)]
        leader = await opened(server, frame(HELLO))
        for _ in range(2 * MAX_NEW_CHANNELS):
            await opened(server)
        leader.transport.protocol.data_received(frame(b"entries"))
        await until(lambda: server.app.taken == [7])
        assert not leader.is_ended
        assert all(one.transport.is_aborted for one in idle)

    serve(check)


def test_channel_takes_few_bytes_before_its_hello_and_the_usual_ones_after_it() -> None:
    """Memory is held for those alone who may lead."""

    async def check(server: Server) -> None:
        head_of_a_larger_one = frame(b"x" * (MAX_HELLO_BYTES + 1))[:14]
        early = await opened(server, head_of_a_larger_one)
        assert early.is_ended
        leader = await opened(server, frame(HELLO), frame(b"x" * MAX_FRAME_BYTES))
        await until(lambda: server.app.taken == [MAX_FRAME_BYTES])
        assert not leader.is_ended
        leader.transport.protocol.data_received(frame(b"x" * (MAX_FRAME_BYTES + 1)))
        assert leader.is_ended

    serve(check)


@pytest.mark.parametrize("part", [b"", b"x"], ids=["empty", "a byte"])
def test_message_in_any_number_of_parts_is_not_collected(part: bytes) -> None:
    """An empty part counts for no limit of bytes, and each takes memory and time."""

    async def check(server: Server) -> None:
        head = frame(HELLO[:1], fin=False)
        rest = frame(part, opcode=0, fin=False)
        client = await opened(server, head + rest * (MAX_FRAGMENTS - 1))
        assert not client.is_ended
        client.transport.protocol.data_received(rest * 3)
        assert client.is_ended
        await until(lambda: server.app.ended == 1)

    serve(check)


def test_channel_on_a_connection_where_an_answer_is_due_is_refused() -> None:
    """Two protocols never write to one connection."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(WAIT + CHANNEL)
        await settle()
        assert client.transport.protocol is client.protocol
        server.app.go.set()
        await refused(client, "malformed", earlier=1)

    serve(check)


@pytest.mark.parametrize("requests", [LATER, LATER + GET + GET, WAIT + LATER + GET, WAIT + LATER])
def test_answer_to_a_client_that_is_gone_is_not_written(
    requests: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """However many of its requests waited, a client that leaves fills no log."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(requests)
        server.app.go.set()
        await settle()
        sent = client.transport.sent
        client.transport.close()
        client.protocol.connection_lost(None)
        server.app.go_later.set()
        await settle()
        assert client.transport.sent == sent

    serve(check)
    assert caplog.records == []


def test_requests_that_do_not_come_in_whole_are_bounded_together() -> None:
    """Half-sent bodies of many clients fill no memory; what ends in any way makes room again."""

    async def check(server: Server) -> None:
        half = CHUNKED + b"ff00\r\n" + bytes(0xFF00)
        for way_out in range(4):
            clients = []
            while not clients or not clients[-1].is_ended:
                clients.append(server.connect())
                clients[-1].send(half)
            last = clients.pop()
            answer = (await last.answered())[-1]
            assert answer.error["code"] == "too_many_in_flight"
            assert len(clients) == server.guard.max_unfinished_bytes // len(half)
            small = server.connect()
            small.send(GET)
            assert (await small.answered())[0].status == 200
            for client in clients:
                match way_out:
                    case 0:
                        client.send(b"\r\n0\r\n\r\n")
                    case 1:
                        client.send(b"no end of a chunk")
                    case 2:
                        client.protocol.connection_lost(None)
            if way_out == 3:
                server.sweep(READ_TIMEOUT_S + MARGIN_S)
            await settle()
            assert server.guard._unfinished_bytes == 0

    serve(check, max_connections=10_000)


# --- the end -----------------------------------------------------------------------------------


def test_stop_answers_only_the_requests_that_have_not_come_in_whole() -> None:
    """Who was about to ask is told that nothing was tried; who waits is answered as usual."""

    async def check(server: Server) -> None:
        half, waiting = server.connect(), server.connect()
        half.send(PUT_HEAD)
        waiting.send(WAIT)
        await settle()
        for client in (half, waiting):
            client.protocol.shutdown()
        server.guard.refuse_unfinished(NotAttemptedError("It stops.", reason="draining"))
        assert (await refused(half, "not_attempted"))["reason"] == "draining"
        assert half.transport.is_closed
        server.app.go.set()
        assert (await waiting.answered())[0].status == 200
        assert waiting.is_ended

    serve(check)


def test_stop_does_not_wait_for_a_client_that_was_refused() -> None:
    """It has had its answer."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(CHUNKED)
        client.send(b"not hexadecimal\r\n")
        await refused(client, "malformed")
        assert not client.transport.is_closed
        client.protocol.shutdown()
        assert client.transport.is_closed

    serve(check)


# --- the guard ---------------------------------------------------------------------------------


def test_guard_looks_at_all_connections_by_itself_while_there_are_any() -> None:
    """One timer serves all connections, however many; without any there is none."""

    async def check(server: Server) -> None:
        server.guard.interval_s, server.guard.read_timeout_s = 0.001, 0.002
        clients = [server.connect() for _ in range(2 * LOOKS_PER_TURN + 1)]
        await until(lambda: all(client.is_ended for client in clients))
        for client in clients:
            client.protocol.connection_lost(None)
        await until(lambda: server.guard._timer is None)

    serve(check, max_connections=10_000)


def test_guard_looks_at_some_connections_at_a_time() -> None:
    """Ten thousand connections do not hold up the requests of the moment."""

    async def check(server: Server) -> None:
        for _ in range(2 * LOOKS_PER_TURN + 1):
            server.connect()
        server.guard._begin_sweep()
        server.guard._look_at_some()
        assert len(server.guard._unseen) == LOOKS_PER_TURN + 1

    serve(check, max_connections=10_000)


def test_guard_does_not_touch_what_became_a_channel_meanwhile() -> None:
    """A channel may be silent for as long as its two ends agree."""

    async def check(server: Server) -> None:
        client = server.connect()
        client.send(GET)
        await client.answered()
        client.send(CHANNEL[:-2])
        server.sweep(KEEP_ALIVE_S + MARGIN_S)
        server.guard._begin_sweep()
        client.send(CHANNEL[-2:])
        sent = client.transport.sent
        server.guard._look_at_some()
        assert not client.is_ended
        assert client.transport.sent == sent

    serve(check)


@pytest.mark.parametrize(("read_timeout_s", "interval_s"), [(0.4, 0.1), (3600, 1.0)])
def test_guard_looks_often_enough_for_a_short_limit(
    read_timeout_s: float, interval_s: float
) -> None:
    """Four times within the time that a request may take, and at least once a second."""
    guard = ConnectionGuard(max_connections=1, max_body_bytes=1, read_timeout_s=read_timeout_s)
    assert guard.interval_s == interval_s
