"""The log's way from a replica to its leader, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kv_app.api.metrics import _of_link
from kv_app.formation import Standing
from kv_app.leader import Leader
from kv_app.log import memory_of
from kv_app.messages import Entry, Operation, Version
from kv_app.meta import BaseRecord, Config, Member, Promise
from kv_app.settings import Settings
from tests.kv_app.fakes import Clock, run, until
from tests.kv_app.roles import make_replica

if TYPE_CHECKING:
    from collections.abc import Callable

    from kv_app.log import LogRecord
    from tests.kv_app.fakes import FakeNetwork

    MakeNetwork = Callable[[int], FakeNetwork]


def test_node_that_leads_no_more_holds_all_it_took_as_a_follower_does(
    make_network: MakeNetwork,
) -> None:
    """What was not committed is there, can be asked for, and can be taken back."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        leader.append(Operation.PUT, "k", "committed", None)
        await until(lambda: network[1].client.seqs == [1])
        network[1].client.acknowledge(1)
        leader.append(Operation.PUT, "k", "not", None)
        leader.append(Operation.PUT, "other", "not", None)
        leader.abdicate(2)
        assert leader.decision.standing is Standing.SUPERSEDED
        replica = leader._replica
        assert [entry.seq for entry in replica.log.above(0)] == [1, 2, 3]
        assert (replica.settled_seq, replica.held.contiguous) == (1, 3)
        assert replica.state.read("k") == Version("not", 1, 2)
        assert replica.state.values() == {"k": "not", "other": "not"}
        replica.state.revert()
        assert replica.state.values() == {"k": "committed"}

    run(check)


# --- the base of a new epoch ----------------------------------------------------------------------


def promoted(
    network: FakeNetwork, now_ns: Callable[[], int], *names: str | None, **options: Any
) -> Leader:
    """Returns the leader of epoch 2 with k=2, whose base is a put for each idempotency key.

    Its followers are voters of epoch 1, and hold none of it yet.
    """
    settings = Settings(node_id="leader", reconnect_max_s=0.01, **options)
    replica = make_replica(settings)
    replica.save(cluster_id="c1")
    replica.take(
        Entry(1, seq, int(Operation.PUT), "k", "v", name) for seq, name in enumerate(names, 1)
    )
    members = [Member(settings.node_id, settings.advertise_url)]
    for url, follower in network.followers.items():
        follower.base_epoch, follower.acknowledges = 1, True
        members.append(Member(follower.node_id, url))
    incarnation = replica.meta.incarnation
    base = BaseRecord(2, "leader", incarnation, Config(tuple(members), 2, 2, 2), len(names))
    return Leader(replica, Promise(2, "leader", "second"), base=base, now_ns=now_ns)


def test_entries_are_in_one_log_at_a_time_and_counted_once(make_network: MakeNetwork) -> None:
    """What is counted twice would make a node drop entries that LOG_BYTES has room for."""

    async def check() -> None:
        leader = promoted(make_network(2), Clock(), "first", "second")
        log = leader._replica.log
        assert log.above(0) == []
        leader.abdicate(3)
        entries = log.above(0)
        assert [entry.seq for entry in entries] == [1, 2]
        assert log.size_bytes == sum(memory_of(entry) for entry in entries)

    run(check)


def retry(leader: Leader, name: str) -> LogRecord:
    """Asks for the put of an idempotency key again."""
    return leader.append(Operation.PUT, "k", "v", name)


def test_retry_after_a_failover_counts_the_followers_that_hold_the_write(
    make_network: MakeNetwork,
) -> None:
    """Also what they had acknowledged before the epoch opened; never more than hold it now."""

    async def check() -> None:
        network = make_network(4)
        network[3].is_reachable = network[4].is_reachable = False
        leader = promoted(network, Clock(), "first", "second")
        leader.start()
        await until(lambda: leader.is_open)
        base = leader.log.get(2)
        assert base is not None
        assert [retry(leader, name).ack_count for name in ("first", "second")] == [2, 2]
        network[3].is_reachable = True
        await until(lambda: leader.links[2].counts)
        assert retry(leader, "second").ack_count == 3
        network[1].is_reachable = False
        network[1].client.close(1000, "gone")
        await until(lambda: not leader.links[0].counts)
        record = retry(leader, "second")
        assert (record.entry.epoch, record.entry.seq, record.ack_count) == (1, 2, 2)
        assert base.ack_count == 0  # what is committed counts by itself no more
        await leader.stop()

    run(check)


def test_retry_counts_no_follower_that_has_yet_to_acknowledge(make_network: MakeNetwork) -> None:
    """It counts for writes, and need not hold this one."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        leader.append(Operation.PUT, "k", "v", "name")
        for number, acks in ((1, 1), (2, 2)):
            await until(lambda number=number: network[number].client.seqs == [1])  # type: ignore[misc]
            network[number].client.acknowledge(1)
            assert all(link.counts for link in leader.links)
            assert retry(leader, "name").ack_count == acks
        await leader.stop()

    run(check)


def test_retry_after_a_failover_of_what_left_the_log_counts_its_holders_too(
    make_network: MakeNetwork,
) -> None:
    """The new leader has never seen it acknowledged."""

    async def check() -> None:
        leader = promoted(make_network(2), Clock(), "first", "second", log_entries=1)
        leader.start()
        await until(lambda: leader.is_open and all(link.counts for link in leader.links))
        await until(lambda: leader.stable_seq > 2)
        assert leader.log.get(1) is None
        assert retry(leader, "first").ack_count == 2
        await leader.stop()

    run(check)


def test_lag_behind_a_base_is_counted_from_when_its_leader_took_it_over(
    make_network: MakeNetwork,
) -> None:
    """When it was appended only the leader before knew, by a clock of its own."""

    async def check() -> None:
        clock = Clock()
        leader = promoted(make_network(2), clock, None, None)
        clock.advance(40)
        samples = _of_link(leader, leader.links[0], clock())
        assert (samples["replication_lag_entries"], samples["replication_lag_ms"]) == (2, 40)
        await leader.stop()

    run(check)
