"""Reads after a position: who waits for what, and is woken when it arrives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app.errors import TooManyInFlightError
from kv_app.messages import Ack, CaughtUp, Change, Entries, Entry, Operation, SeqRange
from kv_app.position_waits import PositionWaits
from kv_app.snapshot import snapshot_frames
from kv_app.state import State
from tests.kv_app.fakes import run, until
from tests.kv_app.nodes import error_of, led, open_channel, serve, serve_follower, wait_ready

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from tests.kv_app.fakes import FakeNetwork

    MakeNetwork = Callable[[int], FakeNetwork]

NEVER_S = 3600.0


def put(key: str, seq: int, epoch: int = 1) -> Entry:
    """Returns a put whose value is its position."""
    return Entry(epoch, seq, int(Operation.PUT), key, f"{epoch}.{seq}", None)


# --- the waits alone --------------------------------------------------------------------------


class Shown:
    """Stands for a replica: what it can show is what has arrived, nothing more."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def reaches(self, key: str, epoch: int, seq: int) -> bool:
        """Looks through all that has arrived."""
        return any(
            (one.epoch, one.seq) == (epoch, seq)
            or ((one.epoch, one.seq) > (epoch, seq) and key in keys_of(one))
            for one in self.entries
        )


def keys_of(entry: Entry) -> set[str]:
    """Returns what an entry changes."""
    return {entry.key, *(change.key for change in entry.changes)}


keys = st.sampled_from("abc")
seqs = st.integers(1, 6)
batches = st.builds(
    lambda seq, names: Entry(
        1, seq, int(Operation.BATCH), "", None, None, tuple(Change(name, "v") for name in names)
    ),
    seqs,
    st.sets(keys, max_size=3),
)
entries = st.builds(put, keys, seqs) | batches


@given(st.lists(st.tuples(keys, seqs), max_size=8), st.lists(entries, max_size=8))
def test_each_arrival_wakes_those_who_may_go_on_and_no_other(
    asked: list[tuple[str, int]], arrivals: list[Entry]
) -> None:
    """Whatever comes in whatever order: against a look at all of them after each arrival."""

    async def check() -> None:
        shown = Shown()
        waits = PositionWaits(shown.reaches, NEVER_S, limit=100)
        tasks = [asyncio.create_task(waits.wait(key, 1, seq)) for key, seq in asked]
        await asyncio.sleep(0)
        for entry in arrivals:
            shown.entries.append(entry)
            waits.arrived(entry)
            for _ in range(3):
                await asyncio.sleep(0)
            for (key, seq), task in zip(asked, tasks, strict=True):
                assert task.done() == shown.reaches(key, 1, seq)
        waits.end()
        answers = await asyncio.gather(*tasks)
        assert answers == [shown.reaches(key, 1, seq) for key, seq in asked]
        assert waits.waiting == 0
        assert not waits._waits

    run(check)


def test_read_that_waits_in_vain_is_told_so_and_leaves_nothing() -> None:
    """After its time, when it is given up, and at the end."""

    async def check() -> None:
        waits = PositionWaits(lambda *_: False, 0.001, limit=1)
        assert await waits.wait("a", 1, 1) is False
        given_up = asyncio.create_task(waits.wait("a", 1, 1))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert waits.waiting == 0
        assert not waits._waits

    run(check)


def test_reads_beyond_the_limit_are_refused() -> None:
    """Those that need not wait pass all the same."""

    async def check() -> None:
        waits = PositionWaits(lambda _, __, seq: seq < 5, NEVER_S, limit=2)
        tasks = [asyncio.create_task(waits.wait("a", 1, seq)) for seq in (5, 6)]
        await asyncio.sleep(0)
        assert waits.waiting == 2
        with pytest.raises(TooManyInFlightError) as error:
            await waits.wait("a", 1, 7)
        assert error.value.details == {"limit": "MAX_IN_FLIGHT"}
        assert await waits.wait("a", 1, 1) is True
        waits.end()
        assert await asyncio.gather(*tasks) == [False, False]

    run(check)


# --- a leader ---------------------------------------------------------------------------------


async def ask(client: httpx.AsyncClient, key: str, after: str) -> httpx.Response:
    """Reads a key after a position."""
    return await client.get(f"/kv/{key}", params={"after": after})


async def asking(client: httpx.AsyncClient, key: str, after: str) -> asyncio.Task[httpx.Response]:
    """Begins a read that has to wait."""
    app = client._transport.app  # type: ignore[attr-defined]
    replica = app.node.leader or app.node.follower
    before = replica.reads.waiting
    task = asyncio.create_task(ask(client, key, after))
    await until(lambda: replica.reads.waiting > before)
    return task


def test_leader_shows_a_position_once_it_is_committed(make_network: MakeNetwork) -> None:
    """Of this key or another; entries may commit out of order."""
    network = make_network(1)

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        for key in ("a", "b"):
            asyncio.get_running_loop().create_task(client.put(f"/kv/{key}", json={"value": key}))
        await network[1].client.has_sent(2)
        first = await asking(client, "a", "1.1")
        second = await asking(client, "a", "1.2")
        network[1].client.acknowledge(2)
        error_of(await second, "not_found")  # the write of b is committed, that of a is not
        assert not first.done()
        network[1].client.acknowledge(1)
        assert (await first).json() == {"key": "a", "value": "a", "epoch": 1, "seq": 1}
        assert (await ask(client, "a", "1.2")).json()["seq"] == 1

    serve(check, follower_urls=tuple(network.followers), write_quorum=1)


def test_position_that_a_leader_never_gave_is_not_reached() -> None:
    """Nor one of an epoch to come; the error says what it holds."""

    async def check(client: httpx.AsyncClient) -> None:
        await client.put("/kv/a", json={"value": "1"})
        for after in ("1.2", "2.1"):
            error = error_of(await ask(client, "a", after), "position_not_reached")
            assert f"{error['epoch']}.{error['seq']}" == after
            assert error["contiguous"] == 1
            assert error["message"].endswith("; try again later.")
        assert (await ask(client, "a", "1.1")).json()["value"] == "1"

    serve(check, request_timeout_s=0.01)


def test_leader_of_a_later_epoch_shows_all_positions_of_earlier_ones(tmp_path: Path) -> None:
    """It began with all that was committed before, whatever the positions were."""

    async def write(client: httpx.AsyncClient) -> None:
        assert (await client.put("/kv/a", json={"value": "1"})).json()["epoch"] == 1

    async def read(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        for after in ("1.1", "1.999"):
            assert (await ask(client, "a", after)).json()["value"] == "1"
        error_of(await ask(client, "a", "2.3"), "position_not_reached")

    serve(write, data_dir=tmp_path)
    serve(read, data_dir=tmp_path, request_timeout_s=0.01)


@pytest.mark.parametrize(
    "query",
    [
        "after=",
        "after",
        "after=1",
        "after=1.",
        "after=.1",
        "after=0.1",
        "after=1.0",
        "after=-1.1",
        "after=1.1.1",
        "after=1,1",
        "after=01.1",
        "after=1.%201",
        "after=1.1%0a",
        "after=%D9%A1.%D9%A1",
        "after=1." + "9" * 19,
        "after=1.1&after=1.1",
        "after=1.1&consistency=eventual",
        "consistency=linearizable&consistency=linearizable",
        "consistency=",
        "afer=1.1",
        "=",
        "%FF=1",
    ],
)
def test_query_that_cannot_be_is_malformed(query: str) -> None:
    """A read must not promise less than its client thought that it asked for."""

    async def check(client: httpx.AsyncClient) -> None:
        await client.put("/kv/a", json={"value": "1"})
        error = error_of(await client.get(f"/kv/a?{query}"), "malformed")
        assert "after" in error["message"] or "consistency" in error["message"]

    serve(check)


def test_query_of_other_calls_on_a_key_changes_nothing() -> None:
    """An empty one is none; the key is checked first."""

    async def check(client: httpx.AsyncClient) -> None:
        assert (await client.put("/kv/a?", json={"value": "1"})).status_code == 200
        assert (await client.get("/kv/a?")).json()["value"] == "1"
        assert (await client.get("/kv/a?&")).json()["value"] == "1"
        error_of(await client.get("/kv/?after=1.9"), "malformed")
        error_of(await client.post("/kv/a?after=1.9"), "method_not_allowed")

    serve(check)


# --- a follower -------------------------------------------------------------------------------


def test_follower_shows_a_position_once_it_holds_it() -> None:
    """Its own key's or another's; what is missing below it does not matter."""

    async def check(client: httpx.AsyncClient) -> None:
        async with led(client) as channel:
            own = await asking(client, "b", "1.2")
            other = await asking(client, "x", "1.3")
            assert await channel.ask(Entries([put("b", 2)], 0)) == Ack([SeqRange(2, 2)])
            assert (await own).json() == {"key": "b", "value": "1.2", "epoch": 1, "seq": 2}
            assert not other.done()
            await channel.ask(Entries([put("c", 3)], 0))
            error_of(await other, "not_found")
            assert (await ask(client, "b", "1.2")).json()["seq"] == 2

    serve_follower(check)


def test_follower_that_holds_a_newer_version_of_the_key_need_not_wait() -> None:
    """Links are not FIFO: it may come first, also in a batch, and also as a deletion."""

    async def check(client: httpx.AsyncClient) -> None:
        async with led(client) as channel:
            by_put, by_batch = await asking(client, "a", "1.1"), await asking(client, "b", "1.1")
            deleted = await asking(client, "c", "1.1")
            changes = (Change("b", "new"), Change("c", None))
            batch = Entry(1, 5, int(Operation.BATCH), "", None, None, changes)
            await channel.ask(Entries([put("a", 4), batch], 0))
            assert (await by_put).json()["seq"] == 4
            assert (await by_batch).json()["value"] == "new"
            assert error_of(await deleted, "not_found")["seq"] == 5

    serve_follower(check)


def test_learner_shows_no_position_but_its_keys_versions_until_it_has_the_base() -> None:
    """What it holds at a seq may be of another epoch as long as it lacks the base."""

    async def check(client: httpx.AsyncClient) -> None:
        app = client._transport.app  # type: ignore[attr-defined]
        async with open_channel(app) as channel:
            await channel.next()
            await channel.next()
            await channel.ask(Entries([put("a", 1)], 1))
            other = await asking(client, "x", "1.1")
            assert (await ask(client, "a", "1.1")).json()["seq"] == 1
            assert not other.done()
        async with led(client):
            error_of(await other, "not_found")

    serve_follower(check)


def test_base_of_a_newer_epoch_satisfies_all_older_positions_and_no_newer_one() -> None:
    """All that was committed before is in it."""

    async def check(client: httpx.AsyncClient) -> None:
        older = await asking(client, "a", "1.77")
        newer = await asking(client, "a", "3.1")
        async with led(client, epoch=2):
            error_of(await older, "not_found")
            error_of(await ask(client, "a", "1.78"), "not_found")
            assert not newer.done()
        app = client._transport.app  # type: ignore[attr-defined]
        app.node.end_waits()
        error = error_of(await newer, "position_not_reached")
        assert (error["epoch"], error["seq"], error["contiguous"]) == (3, 1, 0)
        assert error["message"].endswith("; try again later or read from the leader.")

    serve_follower(check)


def test_snapshot_satisfies_the_positions_that_it_covers() -> None:
    """A key's when its part arrives, the others at its end."""

    async def check(client: httpx.AsyncClient) -> None:
        app = client._transport.app  # type: ignore[attr-defined]
        state = State()
        state.apply(put("a", 8))
        frames = list(snapshot_frames(state, [], 9))
        async with led(client) as channel:
            own, other = await asking(client, "a", "1.8"), await asking(client, "x", "1.9")
            above = await asking(client, "x", "1.10")
            for frame in frames[:-1]:
                channel.events.put_nowait({"type": "websocket.receive", "bytes": frame})
            assert (await own).json()["seq"] == 8
            assert not other.done()
            assert await channel.ask_bytes(frames[-1]) == CaughtUp(9)
            error_of(await other, "not_found")
            assert not above.done()
        app.node.end_waits()
        assert error_of(await above, "position_not_reached")["contiguous"] == 9

    serve_follower(check)


def test_follower_that_does_not_reach_a_position_in_time_says_what_it_holds() -> None:
    """Where it has holes, up to the first of them."""

    async def check(client: httpx.AsyncClient) -> None:
        async with led(client) as channel:
            await channel.ask(Entries([put("a", 1), put("a", 3)], 0))
            error = error_of(await ask(client, "b", "1.2"), "position_not_reached")
            assert (error["epoch"], error["seq"], error["contiguous"]) == (1, 2, 1)
            assert (await ask(client, "a", "1.2")).json()["seq"] == 3

    serve_follower(check, request_timeout_s=0.01)


def test_reads_beyond_max_in_flight_are_refused_by_a_follower() -> None:
    """Those that need not wait are answered."""

    async def check(client: httpx.AsyncClient) -> None:
        app = client._transport.app  # type: ignore[attr-defined]
        async with led(client) as channel:
            await channel.ask(Entries([put("a", 1)], 0))
            waiting = await asking(client, "b", "1.2")
            error = error_of(await ask(client, "b", "1.2"), "too_many_in_flight")
            assert error["limit"] == "MAX_IN_FLIGHT"
            assert (await ask(client, "b", "1.1")).status_code == 404
            app.node.end_waits()
            error_of(await waiting, "position_not_reached")

    serve_follower(check, max_in_flight=1)
