"""A leader: its answers to writes, retries, deadlines, limits and changes of k."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from kv_app.errors import (
    IdempotencyConflictError,
    MalformedError,
    NotAttemptedError,
    OutcomeUnknownError,
    TooManyInFlightError,
)
from kv_app.formation import Standing
from kv_app.leader import MAX_WAITERS_PER_WRITE, Leader
from kv_app.links import status_of, switch_link
from kv_app.messages import CLOSE_REFUSED, BaseHeld, Entries, Operation, Version
from kv_app.meta import BaseRecord, Config, Member, Promise
from kv_app.settings import Settings
from tests.kv_app.fakes import Clock, FakeNetwork, run, until
from tests.kv_app.roles import make_replica

if TYPE_CHECKING:
    from collections.abc import Callable

    from kv_app.log import LogRecord

    MakeNetwork = Callable[[int], FakeNetwork]


def put(
    leader: Leader, key: str = "k", value: str = "v", idempotency_key: str | None = None
) -> LogRecord:
    """Appends a put."""
    return leader.append(Operation.PUT, key, value, idempotency_key)


async def expect_unknown(waiting: asyncio.Task[None]) -> OutcomeUnknownError:
    """Waits for a write that must end unknown."""
    with pytest.raises(OutcomeUnknownError) as unknown:
        await waiting
    return unknown.value


def wait(leader: Leader, record: LogRecord) -> asyncio.Task[None]:
    """Starts to wait for a write."""
    return asyncio.create_task(leader.wait_committed(record))


# --- commit -----------------------------------------------------------------------------------


def test_leader_alone_commits_at_once() -> None:
    """Without followers k is 0, and the leader's own copy is all there is."""

    async def check() -> None:
        leader = FakeNetwork(0).make_leader()
        record = put(leader)
        assert record.committed
        await leader.wait_committed(record)
        assert leader.state.read("k") == Version("v", 1, 1)
        assert leader.readiness().standing is Standing.OPEN
        leader.append(Operation.DELETE, "k", None, None)
        assert leader.state.read("k") == Version(None, 1, 2)

    run(check)


def test_write_is_shown_and_answered_only_once_k_followers_hold_it(
    make_network: MakeNetwork,
) -> None:
    """Neither the append nor fewer acknowledgments than k make a value visible."""

    async def check() -> None:
        network = make_network(3)
        leader = await network.start_leader(write_quorum=2)
        record = put(leader)
        waiting = wait(leader, record)
        await until(lambda: network[3].client.seqs == [1])
        network[1].client.acknowledge(1)
        network[1].client.acknowledge(1)
        await asyncio.sleep(0)
        assert leader.state.read("k") is None
        assert not waiting.done()
        network[3].client.acknowledge(1)
        await waiting
        assert leader.state.read("k") == Version("v", 1, 1)
        assert record.ack_count == 2
        network[2].client.acknowledge(1)
        assert record.ack_count == 3
        assert leader.stable_seq == 1
        await leader.stop()

    run(check)


def test_writes_of_one_turn_leave_as_one_batch_in_their_order(make_network: MakeNetwork) -> None:
    """What came together is sent together, to every follower alike."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        for number in range(5):
            put(leader, key=f"k{number}")
        await until(lambda: network[2].client.seqs)
        for follower in (network[1], network[2]):
            assert follower.client.seqs == [1, 2, 3, 4, 5]
            assert sum(isinstance(frame, Entries) for frame in follower.client.frames) == 1
        await leader.stop()

    run(check)


@pytest.mark.parametrize(("first", "batches"), [(1, [1, 1]), (2, [3])])
def test_a_lone_write_leaves_at_once_and_several_take_the_next_turns_with_them(
    make_network: MakeNetwork, first: int, batches: list[int]
) -> None:
    """Where many write, batches are larger; where one does, it waits for nobody."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1)
        for number in range(first):
            put(leader, key=f"k{number}")
        await asyncio.sleep(0)  # one turn of the loop
        put(leader, key="later")
        client = network[1].client
        await until(lambda: len(client.seqs) == first + 1)
        assert [len(one.entries) for one in client.frames if isinstance(one, Entries)] == batches
        await leader.stop()

    run(check)


@pytest.mark.parametrize("delays", [((0.0, 0.0), (1.0, 2.0)), ((1.0, 2.0), (0.0, 0.0))])
def test_delays_changed_between_a_write_and_its_sending_lose_nothing(
    delays: tuple[tuple[float, float], tuple[float, float]], make_network: MakeNetwork
) -> None:
    """A change acts at once, and the writes on their way keep the delays that they had."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1)
        leader.set_delays(*delays[0])
        record = put(leader)
        leader.set_delays(*delays[1])
        assert (record.delays.min_ms, record.delays.max_ms) == delays[0]
        await until(lambda: network[1].client.seqs == [1])
        due_ns = record.appended_ns + record.delays.draw_ns("f1", 1, 1)
        assert network[1].client.sent_ns[1] >= due_ns
        await leader.stop()

    run(check)


# --- refusals ---------------------------------------------------------------------------------


def refused(leader: Leader) -> dict[str, Any]:
    """Tries a write that must not be attempted, and returns the error's details."""
    last_seq = leader.log.last_seq
    with pytest.raises(NotAttemptedError) as refusal:
        put(leader)
    assert leader.log.last_seq == last_seq
    return {**refusal.value.details, "message": refusal.value.message}


def test_write_before_enough_followers_were_heard_is_not_attempted(
    make_network: MakeNetwork,
) -> None:
    """A new leader first hears that nobody holds older data; then it opens, and stays open."""

    async def check() -> None:
        network = make_network(3)
        network[2].is_reachable = network[3].is_reachable = False
        leader = await network.start_leader(write_quorum=1)
        assert refused(leader)["reason"] == "forming"
        assert leader.readiness().standing is Standing.FORMING
        network[2].is_reachable = True
        await until(lambda: leader.readiness().standing is Standing.OPEN)
        put(leader)
        network[1].is_reachable = False
        network[1].client.close(1000, "gone")
        await until(lambda: not leader.links[0].is_connected)
        put(leader)
        await leader.stop()

    run(check)


def test_follower_with_older_data_stops_all_writes_and_keeps_it(
    make_network: MakeNetwork,
) -> None:
    """A leader that came back empty says why it refuses, until the data is given up."""

    async def check() -> None:
        network = make_network(3)
        network[1].cluster_id, network[1].contiguous = "older", 7
        network[2].is_reachable = network[3].is_reachable = False
        leader = network.make_leader(write_quorum=1)
        leader.start()
        await until(lambda: leader.links[0].has_data)
        network[2].is_reachable = network[3].is_reachable = True
        await until(lambda: leader.links[1].is_connected and leader.links[2].is_connected)
        details = refused(leader)
        assert details["reason"] == "recovering"
        assert "http://f1:1" in details["message"]
        assert not leader.links[0].is_connected
        assert all(client.close_code == CLOSE_REFUSED for client in network[1].clients[:-1])
        assert all(client.seqs == [] for client in network[1].clients)
        network[1].cluster_id, network[1].contiguous = "", 0
        await until(lambda: leader.readiness().standing is Standing.OPEN)
        await leader.stop()

    run(check)


def test_follower_with_half_a_snapshot_of_another_cluster_is_not_taken_for_empty(
    make_network: MakeNetwork,
) -> None:
    """It names its cluster though it holds no position yet."""

    async def check() -> None:
        network = make_network(1)
        network[1].cluster_id = "older"
        leader = network.make_leader(write_quorum=1)
        leader.start()
        await until(lambda: leader.links[0].has_data)
        assert refused(leader)["reason"] == "recovering"
        await leader.stop()

    run(check)


def test_write_with_too_few_followers_is_not_attempted(make_network: MakeNetwork) -> None:
    """It fails at once and definitely, and says how many there are."""

    async def check() -> None:
        network = make_network(3)
        network[3].is_reachable = False
        leader = await network.start_leader(write_quorum=3)
        await until(lambda: leader.links[2].detail == "nobody listens there")
        assert refused(leader)["reason"] == "forming"  # it has to hear k followers to begin with
        leader.quorum_changes.begin(2)
        await until(lambda: leader.readiness().standing is Standing.OPEN)
        put(leader)
        leader.quorum_changes.begin(3)
        details = refused(leader)
        assert details["reason"] == "too_few_followers"
        assert "needs 3 followers and 2 of 3 count" in details["message"]
        assert details["message"].endswith("bring followers back or lower the write quorum.")
        assert "2 of 3 followers count" in leader.readiness().reason
        await leader.stop()

    run(check)


def test_write_that_a_lower_quorum_cannot_help_is_not_told_to_lower_it(
    make_network: MakeNetwork,
) -> None:
    """With f=2, two of three followers have to hear of a lowering: with one it would wait."""

    async def check() -> None:
        network = make_network(3)
        leader = await network.start_leader(write_quorum=2)
        put(leader)
        for number in (2, 3):
            network[number].is_reachable = False
            network[number].client.close(1000, "gone")
        await until(lambda: sum(link.counts for link in leader.links) == 1)
        message = refused(leader)["message"]
        assert message.endswith("1 of 3 count now; bring followers back.")
        await leader.stop()

    run(check)


def test_position_that_the_log_has_dropped_is_reached(make_network: MakeNetwork) -> None:
    """All up to the newest committed entry is shown, whether the log still has it or not."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1, log_entries=1)
        put(leader, "a")
        await network[1].client.has_sent(1)
        network[1].client.acknowledge(1)
        await until(lambda: leader.stable_seq == 1)
        put(leader, "b")
        assert leader.log.first_seq == 2
        assert await leader.reads.wait("another", 1, 1)
        await leader.stop()

    run(check)


@pytest.mark.parametrize(
    ("settings", "is_told"),
    [
        (Settings(write_quorum=2, is_write_quorum_set=True), True),
        (Settings(write_quorum=1, is_write_quorum_set=True), False),
        (Settings(write_quorum=2), False),
    ],
    ids=["another k", "the same k", "the default"],
)
def test_restart_with_another_write_quorum_says_which_k_is_in_force(
    caplog: pytest.LogCaptureFixture, settings: Settings, *, is_told: bool
) -> None:
    """The variable is for a new cluster; who sets it must not believe that it holds."""

    async def check() -> None:
        replica = make_replica(settings)
        members = (Member(settings.node_id, settings.advertise_url),)
        promise = Promise(2, settings.node_id, "attempt")
        # It has wanted k=1 since, and waits for a follower to have it.
        record = BaseRecord(2, settings.node_id, "life", Config(members, 0, 0, 1), 0)
        replica.save(cluster_id="c", promise=promise, base=record)
        leader = Leader(replica, promise, base=record)
        leader.start()
        await leader.stop()

    with caplog.at_level(logging.INFO, logger="kv_app.leader"):
        run(check)
    [line] = [one.getMessage() for one in caplog.records if "open for writes" in one.getMessage()]
    told = "; WRITE_QUORUM=2 is for a new cluster only, change k with POST /admin/quorum"
    assert line == "open for writes with k=0 in epoch 2" + told * is_told


def test_leader_that_waits_for_followers_says_why_each_is_not_connected(
    make_network: MakeNetwork,
) -> None:
    """Else only the followers' logs would tell that all were started with one name, say."""

    async def check() -> None:
        network = make_network(4)
        for number in (2, 3, 4):
            network[number].node_id = network[1].node_id
        leader = network.make_leader(write_quorum=1)
        leader.start()
        await until(lambda: sum("is also that of" in link.detail for link in leader.links) == 3)
        await until(lambda: any(link.is_connected for link in leader.links))
        connected = next(link.url for link in leader.links if link.is_connected)
        others = ", ".join(url for url in network.followers if url != connected)
        shared = f"NODE_ID 'f1' is also that of {connected}; give each node its own"
        why = f"not connected: {others} ({shared})"
        assert refused(leader)["message"].endswith(f"hold no data, 1 have; {why}.")
        assert leader.readiness().reason.endswith(f"hold no data, 1 have; {why}")
        await leader.stop()

    run(check)


def test_leader_names_no_more_than_two_reasons_for_followers_that_are_away(
    make_network: MakeNetwork,
) -> None:
    """The sentence goes to every client; all of them are in ``GET /admin/links``."""

    async def check() -> None:
        network = make_network(5)
        leader = await network.start_leader(write_quorum=2)
        for number, reason in ((1, "frozen"), (2, "cut"), (3, "gone"), (4, "cut")):
            network[number].is_reachable = False
            network[number].client.close(1000, reason)
        for number, reason in ((1, "frozen"), (2, "cut"), (3, "gone"), (4, "cut")):
            link = leader.links[number - 1]
            await until(lambda link=link: not link.is_connected)
            link.detail = reason
        assert leader.readiness().reason == (
            "1 of 5 followers count, k is 2; not connected: http://f2:1, http://f4:1 (cut); "
            "http://f1:1 (frozen); 1 more"
        )
        assert "not connected" not in refused(leader)["message"]
        await leader.stop()

    run(check)


def test_quorum_beyond_the_followers_is_refused_on_every_write(
    make_network: MakeNetwork,
) -> None:
    """Such a leader runs, and a change of k opens it."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=3)
        assert "only 2 followers" in refused(leader)["message"]
        leader.quorum_changes.begin(2)
        await until(lambda: leader.readiness().standing is Standing.OPEN)
        put(leader)
        await leader.stop()

    run(check)


def test_write_while_the_node_stops_is_not_attempted(make_network: MakeNetwork) -> None:
    """New ones are refused, those that wait go on, and a stop answers them as unknown."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1)
        first, second = put(leader), put(leader)
        waiting = [wait(leader, first), wait(leader, second)]
        await until(lambda: network[1].client.seqs == [1, 2])
        leader.drain()
        assert refused(leader)["reason"] == "draining"
        network[1].client.acknowledge(1)
        await waiting[0]
        await leader.stop()
        assert (await expect_unknown(waiting[1])).details["seq"] == 2
        assert refused(leader)["reason"] == "draining"

    run(check)


def test_writes_in_flight_are_bounded(make_network: MakeNetwork) -> None:
    """Past MAX_IN_FLIGHT a write is refused with the setting's name, until one has committed."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1, max_in_flight=3)
        for _ in range(3):
            put(leader)
        with pytest.raises(TooManyInFlightError) as refusal:
            put(leader)
        assert refusal.value.details == {"limit": "MAX_IN_FLIGHT"}
        assert leader.log.last_seq == 3
        await until(lambda: network[1].client.seqs == [1, 2, 3])
        network[1].client.acknowledge(2)
        put(leader)
        await leader.stop()

    run(check)


def test_log_behind_a_write_that_waits_is_bounded(make_network: MakeNetwork) -> None:
    """However many commit behind one that waits, the log keeps LOG_ENTRIES and then refuses."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1, log_entries=4)
        for _ in range(2):
            put(leader)
        await until(lambda: network[1].client.seqs == [1, 2])
        network[1].client.acknowledge(1, 2)
        for seq in range(3, 7):
            put(leader)
            await network[1].client.has_sent(seq)
            if seq > 3:
                network[1].client.acknowledge(seq)
            assert len(leader.log) <= 4
        with pytest.raises(TooManyInFlightError) as refusal:
            put(leader)
        assert refusal.value.details == {"limit": "LOG_ENTRIES"}
        network[1].client.acknowledge(3)
        put(leader)
        assert len(leader.log) == 4
        await leader.stop()

    run(check)


# --- idempotency ------------------------------------------------------------------------------


def test_refusal_of_a_full_log_names_the_setting_that_is_full(make_network: MakeNetwork) -> None:
    """A few large values fill it by their bytes: more entries would not help."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1, log_bytes=1 << 20)
        for _ in range(2):
            leader.append(Operation.PUT, "key", "v" * 300_000, None)
        with pytest.raises(TooManyInFlightError, match="or raise LOG_BYTES") as refusal:
            put(leader)
        assert refusal.value.details == {"limit": "LOG_BYTES"}
        await leader.stop()

    run(check)


def test_retry_with_the_same_key_is_the_same_write(make_network: MakeNetwork) -> None:
    """It waits for the same quorum, is answered with the same position, and appends nothing."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=1)
        original = put(leader, idempotency_key="once")
        retry = put(leader, idempotency_key="once")
        assert retry is original
        waiting = [wait(leader, original), wait(leader, retry)]
        await until(lambda: network[1].client.seqs == [1])
        assert not any(task.done() for task in waiting)
        network[1].client.acknowledge(1)
        await asyncio.gather(*waiting)
        assert put(leader, idempotency_key="once") is original
        assert leader.log.last_seq == 1
        await leader.stop()

    run(check)


@pytest.mark.parametrize(
    "other",
    [
        (Operation.PUT, "k", "another"),
        (Operation.PUT, "another", "v"),
        (Operation.DELETE, "k", None),
        (Operation.PUT, "k", ""),
    ],
)
def test_retry_with_something_else_is_a_conflict(
    other: tuple[Operation, str, str | None],
) -> None:
    """The same key with another operation, key or value is refused and changes nothing."""

    async def check() -> None:
        leader = FakeNetwork(0).make_leader()
        put(leader, idempotency_key="once")
        with pytest.raises(IdempotencyConflictError) as conflict:
            leader.append(*other, "once")
        assert conflict.value.details == {"epoch": 1, "seq": 1}
        assert leader.log.last_seq == 1
        assert leader.state.values() == {"k": "v"}

    run(check)


def test_retry_of_a_write_that_left_the_log_gets_its_position_and_acknowledgments(
    make_network: MakeNetwork,
) -> None:
    """What the log has dropped had committed, and the index remembers how."""

    async def check() -> None:
        network = make_network(2)
        leader = await network.start_leader(write_quorum=2, log_entries=1)
        put(leader, idempotency_key="once")
        await until(lambda: network[1].client.seqs and network[2].client.seqs)
        network[1].client.acknowledge(1)
        network[2].client.acknowledge(1)
        put(leader)
        await until(lambda: network[1].client.seqs == [1, 2])
        network[1].client.acknowledge(2)
        assert leader.log.get(1) is None
        retry = put(leader, idempotency_key="once")
        await leader.wait_committed(retry)
        assert (retry.entry.seq, retry.entry.value, retry.ack_count) == (1, "v", 2)
        await leader.stop()

    run(check)


def test_retry_is_answered_while_new_writes_are_refused() -> None:
    """Its write is in the log already, whatever the leader may begin now."""

    async def check() -> None:
        leader = FakeNetwork(0).make_leader()
        original = put(leader, idempotency_key="once")
        leader.drain()
        assert put(leader, idempotency_key="once") is original

    run(check)


def test_key_that_is_forgotten_counts_as_new() -> None:
    """The last IDEMPOTENCY_KEYS are remembered, and an older one writes again."""

    async def check() -> None:
        leader = FakeNetwork(0).make_leader(idempotency_keys=1)
        put(leader, idempotency_key="a")
        put(leader, idempotency_key="b")
        assert put(leader, idempotency_key="a").entry.seq == 3

    run(check)


# --- deadlines --------------------------------------------------------------------------------


def test_write_without_its_quorum_in_time_is_unknown_and_may_commit_later(
    make_network: MakeNetwork,
) -> None:
    """The error names the position and how far it came; the entry stays in the log."""

    async def check() -> None:
        network = make_network(3)
        clock = Clock()
        leader = await network.start_leader(write_quorum=2, request_timeout_s=0.02, now_ns=clock)
        record = put(leader)
        waiting = wait(leader, record)
        await until(lambda: network[1].client.seqs == [1])
        network[1].client.acknowledge(1)
        clock.advance(ms=20)
        unknown = await expect_unknown(waiting)
        assert unknown.details == {"epoch": 1, "seq": 1, "follower_acks": 1, "required": 2}
        assert not unknown.definite
        assert leader.state.read("k") is None
        network[2].client.acknowledge(1)
        assert leader.state.read("k") == Version("v", 1, 1)
        await leader.stop()

    run(check)


def test_waits_for_one_write_are_bounded(make_network: MakeNetwork) -> None:
    """Retries wait beside their write, but not without end: one too many is told to ask again."""

    async def check() -> None:
        network = make_network(1)
        leader = await network.start_leader(write_quorum=1, max_in_flight=2)
        record = put(leader, idempotency_key="once")
        waiting = [wait(leader, record) for _ in range(MAX_WAITERS_PER_WRITE * 2)]
        await asyncio.sleep(0)
        unknown = await expect_unknown(wait(leader, record))
        assert unknown.details["seq"] == 1
        network[1].client.acknowledge(1)
        await asyncio.gather(*waiting)
        await leader.stop()

    run(check)


# --- control ----------------------------------------------------------------------------------


def test_lowering_k_answers_those_that_have_enough(make_network: MakeNetwork) -> None:
    """A write that waits gets the lower quorum at once; an unknown one still names its own k."""

    async def check() -> None:
        network = make_network(3)
        clock = Clock()
        leader = await network.start_leader(write_quorum=3, request_timeout_s=0.02, now_ns=clock)
        enough, few = wait(leader, put(leader)), wait(leader, put(leader))
        await until(lambda: network[1].client.seqs == [1, 2])
        network[1].client.acknowledge(1)
        network[2].client.acknowledge(1)
        leader.quorum_changes.begin(2)  # at seq 3: enough followers have to hear of it first
        await until(lambda: network[2].client.seqs == [1, 2, 3])
        assert not enough.done()
        network[1].client.acknowledge(3)
        network[2].client.acknowledge(3)
        await enough
        assert not few.done()
        clock.advance(ms=20)
        unknown = await expect_unknown(few)
        assert unknown.details["required"] == 3
        await leader.stop()

    run(check)


@pytest.mark.parametrize("k", [-1, 3])
def test_quorum_outside_the_followers_is_refused(k: int, make_network: MakeNetwork) -> None:
    """The bounds are 0 and n, and the message names them."""

    async def check() -> None:
        leader = make_network(2).make_leader(write_quorum=1)
        with pytest.raises(MalformedError, match=f"write_quorum={k} must be from 0 to 2"):
            leader.quorum_changes.begin(k)
        assert leader.write_quorum == 1

    run(check)


def test_link_is_cut_and_mended_by_the_name_of_its_follower(make_network: MakeNetwork) -> None:
    """Names are what a user sees; one that was not heard is refused with those that were."""

    async def check() -> None:
        network = make_network(2)
        network[2].is_reachable = False
        leader = await network.start_leader(write_quorum=0)
        switch_link(leader.links, "f1", is_up=False)
        assert leader.links[0].is_cut
        switch_link(leader.links, "f1", is_up=True)
        await until(lambda: leader.links[0].is_connected)
        with pytest.raises(MalformedError, match="No follower 'f2' was heard; these were: f1"):
            switch_link(leader.links, "f2", is_up=False)
        await leader.stop()

    run(check)


def test_followers_of_one_name_count_once(make_network: MakeNetwork) -> None:
    """Two URLs of one node would be two acknowledgments of one copy: the second is refused."""

    async def check() -> None:
        network = make_network(3)
        network[2].node_id = "f1"
        leader = network.make_leader(write_quorum=1)
        leader.start()
        await until(lambda: any("also that of" in link.detail for link in leader.links))
        await until(lambda: sum(link.counts for link in leader.links) == 2)
        await until(lambda: network[1].attempts + network[2].attempts > 3)
        assert sum(link.counts for link in leader.links) == 2
        await leader.stop()

    run(check)


def test_follower_behind_two_urls_is_one_acknowledgment(make_network: MakeNetwork) -> None:
    """What a node acknowledged on one link is not counted again when it comes on another one."""

    async def check() -> None:
        network = make_network(3)
        network[2].is_reachable = False
        leader = await network.start_leader(write_quorum=2)
        record = put(leader)
        await network[1].client.has_sent(1)
        network[1].client.acknowledge(1)
        network[1].is_reachable = False
        network[1].client.close(1000, "the leader opened another channel")
        await until(lambda: not leader.links[0].is_connected)
        cluster_id = network[1].client.frames[0].cluster_id
        network[2].node_id, network[2].cluster_id, network[2].contiguous = "f1", cluster_id, 1
        network[2].base_epoch = 1
        network[2].is_reachable = True
        await until(lambda: leader.links[1].counts)
        assert record.ack_count == 1
        assert not record.committed
        network[3].client.acknowledge(1)
        assert leader.stable_seq == record.entry.seq
        await leader.stop()

    run(check)


def test_follower_that_lost_a_write_does_not_help_it_any_more(make_network: MakeNetwork) -> None:
    """A follower that comes back empty is not among the k that hold a write which still waits."""

    async def check() -> None:
        network = make_network(3)
        leader = await network.start_leader(write_quorum=2)
        record = put(leader)
        await network[1].client.has_sent(1)
        first_life = network[1].client
        first_life.acknowledge(1)
        network[1].start_id = "second"
        first_life.close(1000, "restarts empty")
        await until(lambda: network[1].client is not first_life and leader.links[0].is_connected)
        network[2].client.acknowledge(1)
        assert not record.committed
        network[1].client.acknowledge(1)
        assert leader.stable_seq == record.entry.seq
        await leader.stop()

    run(check)


def test_link_statuses_tell_how_far_each_follower_is(make_network: MakeNetwork) -> None:
    """Positions with holes, and the reason of one that does not count."""

    async def check() -> None:
        network = make_network(2)
        network[2].is_reachable = False
        leader = await network.start_leader(write_quorum=1)
        await until(lambda: leader.links[1].detail == "nobody listens there")
        network[2].is_reachable = True
        await until(lambda: leader.links[1].is_connected)
        for _ in range(3):
            put(leader)
        await until(lambda: network[1].client.seqs == [1, 2, 3])
        network[1].client.acknowledge(1)
        network[1].client.acknowledge(3)
        first, second = (status_of(link, leader.epoch) for link in leader.links)
        assert (first.contiguous, first.max_seq, first.holes) == (1, 3, 1)
        assert (first.node_id, first.epoch, first.connected, first.detail) == ("f1", 1, True, "")
        assert (second.epoch, second.max_seq, second.learner) == (0, 0, False)
        await leader.stop()
        assert not any(status_of(link, leader.epoch).connected for link in leader.links)

    run(check)


def test_first_epoch_opens_once_a_majority_of_the_electors_holds_its_base(
    make_network: MakeNetwork,
) -> None:
    """A leader that is lost before has acknowledged nothing; one that is lost after is missed."""

    async def check() -> None:
        network = make_network(3)  # of the three electors, two are a majority
        for number in (1, 2, 3):
            network[number].holds_bases = False
        leader = network.make_leader(write_quorum=1)
        leader.start()
        await until(lambda: leader.base is not None)
        await until(lambda: all(link.is_connected for link in leader.links))
        for number in (1, 2):
            assert not leader.is_open
            with pytest.raises(NotAttemptedError, match="not on a majority of the nodes yet") as no:
                put(leader)
            assert no.value.details["reason"] == "forming"
            network[number].client.say(BaseHeld(1))
            await until(lambda number=number: leader.links[number - 1].counts)  # type: ignore[misc]
        assert leader.is_open
        put(leader)
        await leader.stop()

    run(check)


def test_cluster_is_made_of_those_that_are_there(make_network: MakeNetwork) -> None:
    """One that was heard and is gone comes back as another one, which would be no founder."""

    async def check() -> None:
        network = make_network(3)
        for number in (2, 3):
            network[number].is_reachable = False
        leader = network.make_leader(write_quorum=1)
        leader.start()
        await until(lambda: all(link.is_tried for link in leader.links))
        await until(lambda: leader.links[0].is_connected)
        network[1].is_reachable = False
        network[1].lose_all()
        await until(lambda: not leader.links[0].is_connected)
        network[2].is_reachable = True
        await until(lambda: leader.links[1].is_connected)
        assert leader.base is None
        network[1].is_reachable = True
        await until(lambda: leader.is_open)
        assert leader.links[0].counts
        await leader.stop()

    run(check)


@pytest.mark.parametrize("is_base_answer_lost", [False, True])
def test_founder_that_loses_its_data_is_let_in_only_when_others_confirm_the_leader(
    make_network: MakeNetwork, *, is_base_answer_lost: bool
) -> None:
    """That it was empty when the cluster was made says nothing of its next life."""

    async def check() -> None:
        network = make_network(3)
        network[1].holds_bases = not is_base_answer_lost
        leader = network.make_leader(write_quorum=2)
        leader.start()
        await until(lambda: leader.is_open and all(link.counts for link in leader.links[1:]))
        if not is_base_answer_lost:
            network[1].cluster_id = network[1].leads_on
            network[1].client.close(1000, "goes and comes back")
            await until(lambda: len(network[1].clients) == 2 and leader.links[0].counts)
        network[2].confirms = network[3].confirms = False
        network[1].holds_bases = True
        clients = len(network[1].clients)
        network[1].lose_all()
        await until(lambda: len(network[1].clients) > clients and leader.links[0].is_connected)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not leader.links[0].counts
        await leader.stop()

    run(check)
