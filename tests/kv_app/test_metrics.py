"""What a node counts, and what ``/metrics`` tells of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kv_app import __version__
from kv_app.api.kv import WRITE_OUTCOMES
from kv_app.errors import StorageError
from kv_app.messages import Entries, Entry, Operation
from kv_app.metrics import SIZE_BOUNDS, TIME_BOUNDS_NS, Histogram
from tests.kv_app.fakes import Clock, until
from tests.kv_app.nodes import led, serve, serve_follower, wait_ready

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from kv_app.leader import Leader
    from tests.kv_app.fakes import FakeNetwork

    MakeNetwork = Callable[[int], FakeNetwork]

Labels = tuple[str, ...]


# --- a histogram ------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [TIME_BOUNDS_NS, SIZE_BOUNDS, (5,)])
@given(data=st.data())
def test_histogram_counts_each_value_below_its_bound(
    bounds: tuple[int, ...], data: st.DataObject
) -> None:
    """Against a look at every value for every bound."""
    edges = [edge + step for edge in bounds for step in (-1, 0, 1)]
    values = data.draw(st.lists(st.sampled_from(edges) | st.integers(0, 10**12)))
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    for index, bound in enumerate(bounds):
        assert sum(histogram.counts[: index + 1]) == sum(value <= bound for value in values)
    assert sum(histogram.counts) == len(values)
    assert histogram.total == sum(values)


def test_bounds_are_ascending_and_cover_what_is_usual() -> None:
    """From 50 us to twice the default REQUEST_TIMEOUT, and up to a full batch of the channel."""
    for bounds in (TIME_BOUNDS_NS, SIZE_BOUNDS):
        assert list(bounds) == sorted(set(bounds))
    assert (TIME_BOUNDS_NS[0], TIME_BOUNDS_NS[-1]) == (50_000, 10_000_000_000)
    assert (SIZE_BOUNDS[0], SIZE_BOUNDS[-1]) == (1, 4096)


# --- what a node tells ------------------------------------------------------------------------


async def scrape(client: httpx.AsyncClient) -> dict[str, dict[Labels, float]]:
    """Returns every sample by its name and the values of its labels, as Prometheus reads it."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            name = sample.name.removeprefix("quorumeter_")
            samples.setdefault(name, {})[tuple(sample.labels.values())] = sample.value
    return samples


async def value_of(client: httpx.AsyncClient, name: str, *labels: str) -> float:
    """Returns one sample."""
    return (await scrape(client))[name][labels]


def leader_of(client: httpx.AsyncClient) -> Leader:
    """Returns the leader behind a client."""
    leader: Leader = client._transport.app.node.leader  # type: ignore[attr-defined]
    return leader


def put_body(value: str = "v") -> dict[str, str]:
    """Returns the body of a put."""
    return {"value": value}


def test_writes_are_counted_by_their_outcome(make_network: MakeNetwork) -> None:
    """Each once, whatever it was; a batch is one, and what is no write is none."""
    network = make_network(1)
    once = {"Idempotency-Key": "once"}

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        network[1].acknowledges = True
        for _ in range(3):
            await client.put("/kv/a", json=put_body(), headers=once)
        await client.delete("/kv/a")
        operations = [{"op": "delete", "key": key} for key in "abc"]
        await client.post("/kv", json={"operations": operations})
        await client.put("/kv/a", json=put_body("other"), headers=once)
        await client.put("/kv/a", content=b"{")
        await client.post("/kv", json={})
        await client.put("/kv/a", json=put_body("x" * 101))
        network[1].acknowledges = False
        waiting = asyncio.create_task(client.put("/kv/a", json=put_body()))
        await network[1].client.has_sent(4)
        await client.put("/kv/a", json=put_body())
        leader_of(client).end_waits()
        await waiting
        await client.post("/admin/links/f1", json={"state": "down"})
        await client.put("/kv/a", json=put_body())
        for path in ("/kv/a", "/kv/none", "/kv/", "/kv/a?after=x"):
            await client.get(path)
        await client.patch("/kv/a")
        await client.get("/kv")
        writes = (await scrape(client))["writes_total"]
        assert writes.keys() == {(outcome,) for outcome in WRITE_OUTCOMES}
        assert {outcome: count for (outcome,), count in writes.items() if count} == {
            "acknowledged": 5,
            "idempotency_conflict": 1,
            "malformed": 2,
            "too_large": 1,
            "outcome_unknown": 1,
            "too_many_in_flight": 1,
            "not_attempted": 1,
        }

    urls = tuple(network.followers)
    serve(check, follower_urls=urls, write_quorum=1, max_in_flight=1, max_value_bytes=100)


def test_write_that_a_follower_or_a_bug_refused_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the code that its client was told."""

    async def check_follower(client: httpx.AsyncClient) -> None:
        await client.put("/kv/a", json=put_body())
        assert await value_of(client, "writes_total", "not_leader") == 1

    def fail(*_: object) -> None:
        raise RuntimeError

    async def check_bug(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr("kv_app.leader.Leader.append", fail)
        await client.put("/kv/a", json=put_body())
        await client.post("/kv", json={"operations": [{"op": "delete", "key": "a"}]})
        assert await value_of(client, "writes_total", "internal") == 2

    serve_follower(check_follower)
    serve(check_bug)


def test_wait_for_the_quorum_is_that_from_append_to_commit(make_network: MakeNetwork) -> None:
    """In ms, of every entry once, however many acknowledge it."""
    network, clock = make_network(2), Clock()

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        leader_of(client).now_ns = clock
        waiting = asyncio.create_task(client.put("/kv/a", json=put_body()))
        await network[2].client.has_sent(1)
        clock.advance(7)
        network[1].client.acknowledge(1)
        await waiting
        clock.advance(100)
        network[2].client.acknowledge(1)
        await until(lambda: leader_of(client).links[1].held.contiguous == 1)
        samples = await scrape(client)
        buckets = samples["quorum_wait_ms_bucket"]
        assert {bound for (bound,), count in buckets.items() if count == 0} == {
            *("0.05", "0.1", "0.2", "0.5", "1.0", "2.0", "5.0")
        }
        assert buckets["10.0",] == buckets["+Inf",] == samples["quorum_wait_ms_count"][()] == 1
        assert samples["quorum_wait_ms_sum"][()] == 7

    serve(check, follower_urls=tuple(network.followers), write_quorum=1)


def test_lag_of_a_follower_is_what_it_has_not_acknowledged_and_how_old_that_is(
    make_network: MakeNetwork,
) -> None:
    """With holes, before it was ever heard, and once it has all."""
    network, clock = make_network(3), Clock()
    network[3].is_reachable = False
    names = ("connected", "counts", "holes")

    async def check(client: httpx.AsyncClient) -> None:
        leader = leader_of(client)
        leader.now_ns = clock
        await until(lambda: leader.links[0].counts)
        for _ in range(4):
            await client.put("/kv/a", json=put_body())
            clock.advance(10)
        await network[1].client.has_sent(4)
        for seq in (1, 3):
            network[1].client.acknowledge(seq)
        await until(lambda: leader.links[0].held.max_seq == 3)
        samples = await scrape(client)
        first, _, second = (link.url for link in leader.links)
        lag = samples["replication_lag_entries"]
        assert (lag[first,], lag[second,]) == (2, 4)
        lag_ms = samples["replication_lag_ms"]
        assert (lag_ms[first,], lag_ms[second,]) == (30, 40)
        assert [samples[f"follower_{name}"][first,] for name in names] == [1, 1, 1]
        assert [samples[f"follower_{name}"][second,] for name in names] == [0, 0, 0]
        for seq in (2, 4):
            network[1].client.acknowledge(seq)
        await until(lambda: leader.links[0].held.contiguous == 4)
        samples = await scrape(client)
        assert samples["follower_waiting_entries"][second,] == 0
        assert samples["replication_lag_entries"][first,] == 0
        assert samples["replication_lag_ms"][first,] == 0

    serve(check, follower_urls=tuple(network.followers), write_quorum=0)


def test_lag_behind_the_log_is_as_old_as_the_log(make_network: MakeNetwork) -> None:
    """What the log has dropped has no age any more; it still counts."""
    network, clock = make_network(1), Clock()

    async def check(client: httpx.AsyncClient) -> None:
        leader = leader_of(client)
        leader.now_ns = clock
        await wait_ready(client)
        await client.post("/admin/links/f1", json={"state": "down"})
        await client.put("/kv/a", json=put_body())
        for _ in range(5):
            clock.advance(10)
            await client.put("/kv/a", json=put_body())
        url = leader.links[0].url
        samples = await scrape(client)
        oldest = leader.log.get(leader.log.first_seq)
        assert leader.log.first_seq > 1
        assert oldest is not None
        assert samples["replication_lag_entries"][url,] == 6
        age_ms = (clock.now_ns - oldest.appended_ns) / 1e6
        assert 0 < samples["replication_lag_ms"][url,] == age_ms < 50

    urls = tuple(network.followers)
    serve(check, follower_urls=urls, write_quorum=0, log_entries=3)


def test_leader_tells_what_waits_and_how_much_its_log_holds(make_network: MakeNetwork) -> None:
    """Requests, reads, entries, and what a slow follower has not read."""
    network = make_network(1)

    async def check(client: httpx.AsyncClient) -> None:
        await wait_ready(client)
        before = await scrape(client)
        assert [before[name][()] for name in ("ready", "epoch", "write_quorum")] == [1, 1, 1]
        assert list(before["node"].values()) == [1]
        network[1].client.is_congested = True
        writes = [asyncio.create_task(client.put(f"/kv/{key}", json=put_body())) for key in "abc"]
        read = asyncio.create_task(client.get("/kv/a?after=1.3"))
        leader = leader_of(client)
        await until(lambda: leader.waiting_writes == 3 and leader.reads.waiting == 1)
        await until(lambda: leader.links[0].waiting == 3)
        samples = await scrape(client)
        shown = {name: values[()] for name, values in samples.items() if () in values}
        assert shown["waiting_writes"] == shown["uncommitted_entries"] == shown["log_entries"] == 3
        assert shown["waiting_reads"] == 1
        assert shown["log_bytes"] == leader.log.size_bytes > 0
        assert (shown["stable_seq"], shown["contiguous_seq"], shown["last_seq"]) == (0, 0, 3)
        assert samples["follower_waiting_entries"][leader.links[0].url,] == 3
        leader.end_waits()
        leader.reads.end()
        await asyncio.gather(read, *writes)
        assert (await scrape(client))["waiting_writes"][()] == 0

    serve(check, follower_urls=tuple(network.followers), write_quorum=1)


def test_follower_tells_its_position_holes_and_batches() -> None:
    """And that it is a learner until it has the base."""

    async def check(client: httpx.AsyncClient) -> None:
        async with led(client) as channel:
            entries = [Entry(1, seq, int(Operation.PUT), "k", "v", None) for seq in (1, 2, 5)]
            await channel.ask(Entries(entries, 1))
            await channel.ask(Entries([Entry(1, 7, int(Operation.DELETE), "d", None, None)], 2))
            samples = await scrape(client)
            shown = {name: values[()] for name, values in samples.items() if () in values}
            assert (shown["contiguous_seq"], shown["last_seq"], shown["holes"]) == (2, 7, 3)
            assert (shown["stable_seq"], shown["epoch"], shown["ready"]) == (2, 1, 1)
            assert (shown["keys"], shown["tombstones"], shown["learner"]) == (1, 1, 0)
            assert (shown["batch_entries_count"], shown["batch_entries_sum"]) == (2, 4)
            assert samples["batch_entries_bucket"]["1.0",] == 1
            assert samples["batch_entries_bucket"]["4.0",] == 2
            assert samples["node"].keys() == {("f", "follower", __version__)}
        assert await value_of(client, "ready") == 0

    serve_follower(check, node_id="f")


@pytest.mark.parametrize("is_durable", [True, False])
def test_syncs_are_told_by_a_node_that_has_a_disk(*, is_durable: bool, tmp_path: Path) -> None:
    """How long, and of how many entries; without DATA_DIR there are none."""
    on_disk = {"sync_ms_count", "sync_entries_sum", "unsynced_bytes", "disk_free_bytes"}

    async def check(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            await client.put("/kv/a", json=put_body())
        samples = await scrape(client)
        assert on_disk & samples.keys() == (on_disk if is_durable else set())
        if is_durable:
            assert samples["sync_entries_sum"][()] == 3
            assert samples["sync_ms_count"][()] == samples["sync_entries_count"][()] == 3
            assert samples["sync_ms_sum"][()] > 0
            assert samples["unsynced_bytes"][()] == 0
            assert samples["disk_free_bytes"][()] > 0
        await until(lambda: leader_of(client).batch_entries.total == 3)

    serve(check, data_dir=tmp_path if is_durable else None)


def test_sync_that_failed_is_no_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the node; until then nothing says that entries were made durable."""
    failed: list[StorageError] = []
    monkeypatch.setattr("kv_app.node.end_process", failed.append)

    def fail(*_: Any) -> None:
        raise StorageError("the disk failed to sync")

    async def check(client: httpx.AsyncClient) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("kv_app.storage.Storage.sync", fail)
            waiting = asyncio.create_task(client.put("/kv/a", json=put_body()))
            await until(lambda: failed)
            samples = await scrape(client)
            assert samples["sync_ms_count"][()] == samples["sync_entries_sum"][()] == 0
            assert samples["unsynced_bytes"][()] > 0
            leader_of(client).end_waits()
            await waiting

    serve(check, data_dir=tmp_path)


def test_metrics_need_no_token_and_tell_nothing_of_the_data() -> None:
    """Who scrapes them learns no key, no value and no token."""

    async def check(client: httpx.AsyncClient) -> None:
        await client.put("/kv/secret-key", json=put_body("secret-value"))
        await client.put("/kv/x", json=put_body(), headers={"Idempotency-Key": "secret-id"})
        text = (await client.get("/metrics")).text
        assert "quorumeter_keys 2" in text
        assert "secret" not in text

    serve(check, cluster_token="secret-token")


def test_connections_are_those_of_the_server() -> None:
    """As long as it has told which."""

    async def check(client: httpx.AsyncClient) -> None:
        assert await value_of(client, "connections") == 0
        app = client._transport.app  # type: ignore[attr-defined]
        app.node.connections = {object(), object()}
        assert await value_of(client, "connections") == 2

    serve(check)
