"""A follower: whom it follows, what it takes and acknowledges, and when it counts."""

from __future__ import annotations

from unittest.mock import ANY

import msgspec
import pytest

from kv_app.formation import Standing
from kv_app.messages import (
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    CLOSE_REPLACED,
    PROTOCOL_VERSION,
    Ack,
    Base,
    CaughtUp,
    Change,
    Entry,
    Heartbeat,
    Hello,
    LeaderMessage,
    Operation,
    Refusal,
    RememberedWrite,
    SeqRange,
    SnapshotBegin,
    Version,
    Welcome,
)
from kv_app.meta import BaseRecord, Config, Promise
from kv_app.replica import config_value
from kv_app.state import State
from tests.kv_app.fake_leader import (
    LEADER_URL,
    Channel,
    base,
    entries,
    following,
    hello,
    make_follower,
    put,
    run,
    snapshot_frames,
)


def welcome(cluster_id: str = "", epoch: int = 0, contiguous: int = 0, *above: SeqRange) -> Welcome:
    """Returns what a follower in memory that holds no base says of itself."""
    return Welcome(
        "f1", "s1", cluster_id, epoch, contiguous, list(above), ANY, 0, is_durable=False, settled=0
    )


# --- hello and welcome ------------------------------------------------------------------------


def test_hello_to_an_empty_follower_is_welcome() -> None:
    """It says who it is and that it holds nothing, and then follows."""

    async def check() -> None:
        follower = make_follower()
        assert follower.readiness().standing is Standing.NO_LEADER
        channel = Channel(follower)
        assert await channel.ask(hello()) == welcome()
        await channel.ask(Heartbeat(0, 0))
        assert (follower.replica.meta.cluster_id, follower.epoch) == ("c1", 1)
        assert follower.leader_url == LEADER_URL
        assert follower.readiness().standing is Standing.OPEN
        channel.hang_up()
        assert await channel.ended() is None
        assert follower.readiness().standing is Standing.NO_LEADER

    run(check)


def test_hello_of_the_same_leader_again_is_told_what_is_held() -> None:
    """After a break the leader learns position by position what it need not send again."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        await channel.ask(entries(put(1), put(2), put(5)))
        channel.hang_up()
        await channel.ended()
        again = Channel(follower)
        assert await again.ask(hello()) == welcome("c1", 1, 2, SeqRange(5, 5))

    run(check)


def test_hello_of_another_cluster_is_refused_and_the_data_kept() -> None:
    """What it holds of a lost leader may be all that is left: it says so, and keeps it."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        await channel.ask(entries(put(1)))
        channel.hang_up()
        await channel.ended()
        stranger = Channel(follower)
        assert "another cluster" in await stranger.refused(hello("c2"))
        assert stranger.close_code == CLOSE_REFUSED
        assert follower.replica.meta.cluster_id == "c1"
        assert follower.state.values() == {"k1": "v"}

    run(check)


def test_hello_of_another_cluster_while_one_is_followed_is_refused() -> None:
    """A second leader gets no place beside the first, whose channel goes on."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        stranger = Channel(follower)
        assert LEADER_URL in await stranger.refused(hello("c2"))
        assert stranger.close_code == CLOSE_REFUSED
        assert await channel.ask(entries(put(1))) == Ack([SeqRange(1, 1)])

    run(check)


@pytest.mark.parametrize("is_led", [True, False])
def test_leader_of_another_cluster_is_told_neither_epoch_nor_cluster(is_led: bool) -> None:  # noqa: FBT001  a parameter of the test
    """Epochs of two clusters cannot be compared, and who knows a cluster's id may lead it."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        await channel.ask(hello("c1", epoch=7))
        await channel.ask(entries(put(1, epoch=7)))
        if not is_led:
            await channel.leave()
        refusal = await Channel(follower).ask(hello("c2", epoch=3))
        assert isinstance(refusal, Refusal)
        assert (refusal.promised, refusal.cluster_id) == (0, "")
        assert "c1" not in refusal.reason

    run(check)


@pytest.mark.parametrize("is_led", [True, False])
def test_leader_that_forms_is_told_that_there_is_a_cluster_and_not_which(is_led: bool) -> None:  # noqa: FBT001  a parameter of the test
    """It must not make a second cluster beside one whose data is still here."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        await channel.ask(hello("c1", epoch=7))
        await channel.ask(entries(put(1, epoch=7)))
        if not is_led:
            await channel.leave()
        refusal = await Channel(follower).ask(hello("c2", is_formed=False))
        assert isinstance(refusal, Refusal)
        assert (refusal.promised, refusal.cluster_id) == (7, "")

    run(check)


def test_leader_of_this_cluster_whose_epoch_is_over_is_told_by_which() -> None:
    """It believes that of a node of its own cluster, and steps down."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        await channel.ask(hello("c1", epoch=7))
        refusal = await Channel(follower).ask(hello("c1", epoch=3))
        assert isinstance(refusal, Refusal)
        assert (refusal.promised, refusal.cluster_id) == (7, "c1")

    run(check)


def test_promise_in_another_cluster_ends_no_epoch_of_the_one_that_is_followed() -> None:
    """A node without data may change its cluster; the leader that it leaves goes on."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower, "c1")
        follower.release(9, "c2")
        refusal = await channel.heard()
        assert isinstance(refusal, Refusal)
        assert (refusal.promised, refusal.cluster_id) == (0, "")
        assert await channel.ended() == CLOSE_REFUSED

    run(check)


def test_leader_whose_cluster_is_still_to_be_made_leaves_no_trace() -> None:
    """It may be gone before that; the next one finds a node that promised nothing to anybody."""

    async def check() -> None:
        follower = make_follower()
        first = Channel(follower)
        welcomed = await first.ask(hello("c1", is_formed=False))
        await first.ask(Heartbeat(0, 0))
        assert follower.replica.meta.cluster_id == ""
        assert follower.replica.meta.promise is None
        assert LEADER_URL in await Channel(follower).refused(hello("c2", is_formed=False))
        again = Channel(follower)
        await again.ask(hello("c1", is_formed=False))
        assert await first.ended() == CLOSE_REPLACED
        await again.leave()
        second = Channel(follower)
        assert await second.ask(hello("c2", is_formed=False)) == welcomed
        await second.give_base(welcomed)
        assert (follower.replica.meta.cluster_id, follower.epoch, follower.base_epoch) == (
            "c2",
            1,
            1,
        )
        assert follower.replica.meta.incarnation == welcomed.incarnation
        assert await second.ask(entries(put(1))) == Ack([SeqRange(1, 1)])

    run(check)


def test_empty_follower_that_joins_another_cluster_begins_another_life() -> None:
    """It forgets what it promised in the first one, where it may be a founder."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        first = await channel.ask(hello("c1"))
        await channel.ask(Heartbeat(9, 9))
        await channel.leave()
        second = await Channel(follower).ask(hello("c2"))
        assert follower.replica.meta.cluster_id == "c2"
        assert second.incarnation != first.incarnation
        assert follower.stable_seq == 0

    run(check)


def test_follower_that_a_cluster_is_made_of_anew_tells_its_next_life_before() -> None:
    """As whom it will be a founder there; until then it stays who it was."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        first = await channel.ask(hello("c1"))
        await channel.leave()
        visit = Channel(follower)
        told = await visit.ask(hello("c2", is_formed=False))
        assert told.incarnation != first.incarnation
        meta = follower.replica.meta
        assert (meta.cluster_id, meta.incarnation) == ("c1", first.incarnation)
        await visit.give_base(told)
        meta = follower.replica.meta
        assert (meta.cluster_id, meta.incarnation) == ("c2", told.incarnation)

    run(check)


def test_visitor_gives_way_to_a_leader_whose_cluster_is_made() -> None:
    """It may never make one, where it cannot reach those that hold data."""

    async def check() -> None:
        follower = make_follower()
        visit = Channel(follower)
        await visit.ask(hello("c1", is_formed=False))
        await following(follower, "c2")
        assert await visit.ended() == CLOSE_REPLACED
        assert follower.replica.meta.cluster_id == "c2"

    run(check)


@pytest.mark.parametrize("message", [entries(put(1)), SnapshotBegin(1, 0)])
def test_visitor_brings_nothing_before_its_base(message: LeaderMessage) -> None:
    """A node that belongs to no cluster would hold data that no leader could take back."""

    async def check() -> None:
        follower = make_follower()
        visit = Channel(follower)
        await visit.ask(hello("c1", is_formed=False))
        await visit.ask(Heartbeat(9, 9))
        assert follower.stable_seq == 0
        await visit.refused(message)
        assert visit.close_code == CLOSE_PROTOCOL
        assert follower.is_empty

    run(check)


def test_node_that_leaves_its_cluster_forgets_its_promise_with_its_life() -> None:
    """Else it would count as a founder that keeps it."""
    replica = make_follower().replica
    replica.leave()
    before = replica.meta
    replica.join("c1", Promise(1, "leader", "first"))
    assert replica.meta.incarnation == before.incarnation
    replica.leave()
    assert (replica.meta.cluster_id, replica.meta.promise) == ("", None)
    assert replica.meta.incarnation != before.incarnation


def test_second_channel_of_the_same_leader_replaces_the_first() -> None:
    """A leader that lost its channel unnoticed is not locked out by it."""

    async def check() -> None:
        follower = make_follower()
        first = await following(follower)
        second = await following(follower)
        assert await first.ended() == CLOSE_REPLACED
        assert await second.ask(entries(put(1))) == Ack([SeqRange(1, 1)])
        assert follower.readiness().standing is Standing.OPEN

    run(check)


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (
            Hello(PROTOCOL_VERSION + 1, "c1", 1, "leader", LEADER_URL, 0, "first", is_formed=True),
            f"version {PROTOCOL_VERSION}",
        ),
        (hello(epoch=4), "epoch 4 is over"),
        (msgspec.structs.replace(hello(epoch=5), attempt="second"), "epoch 5 is another attempt's"),
        (msgspec.structs.replace(hello(epoch=5), leader_id="n2"), "epoch 5 is another attempt's"),
    ],
)
def test_hello_that_cannot_be_followed_is_refused_with_the_reason(
    message: Hello, part: str
) -> None:
    """Another protocol, an epoch that is over, and another attempt at one are told apart."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        await channel.ask(hello(epoch=5))
        channel.hang_up()
        await channel.ended()
        late = Channel(follower)
        assert part in await late.refused(message)
        assert late.close_code == CLOSE_REFUSED
        assert follower.epoch == 5

    run(check)


def test_entries_in_any_order_are_applied_and_acknowledged_as_ranges() -> None:
    """Links are not FIFO: the acknowledgment names exactly what came, duplicates included."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        assert await channel.ask(entries(put(2), put(3), put(7))) == Ack(
            [SeqRange(2, 3), SeqRange(7, 7)]
        )
        assert await channel.ask(entries(put(2), put(1))) == Ack([SeqRange(1, 2)])
        assert (follower.held.contiguous, follower.held.max_seq, follower.held.holes) == (3, 7, 3)
        assert set(follower.state.values()) == {"k1", "k2", "k3", "k7"}

    run(check)


def test_entry_at_a_position_that_is_held_changes_nothing() -> None:
    """One value per position: the first stays, and it is acknowledged again."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        await channel.ask(entries(put(1, "first")))
        assert await channel.ask(entries(put(1, "second"))) == Ack([SeqRange(1, 1)])
        assert follower.state.values() == {"k1": "first"}

    run(check)


def repr_of_entry(entry: Entry) -> str:
    """Names a test's entry in short."""
    return repr(entry)[:70]


@pytest.mark.parametrize(
    "bad",
    [
        put(2, epoch=2),
        put(2, epoch=0),
        put(0),
        put(-1),
        put(2**62 + 1),
        Entry(1, 2, 9, "k", "v", None),
        Entry(1, 2, int(Operation.PUT), "", "garbage", None),
        Entry(1, 2, int(Operation.PUT), "k" * 200_000, "v", None),
        Entry(1, 2, int(Operation.PUT), "é" * 40_000, "v", None),
        Entry(1, 2, int(Operation.PUT), "k", None, None),
        Entry(1, 2, int(Operation.PUT), "k", "v", None, (Change("a", "1"),)),
        Entry(1, 2, int(Operation.PUT), "k", "v", "i" * 257),
        Entry(1, 2, int(Operation.DELETE), "k", "v", None),
        Entry(1, 2, int(Operation.DELETE), "", None, None),
        Entry(1, 2, int(Operation.NOOP), "k", None, None),
        Entry(1, 2, int(Operation.NOOP), "", "v", None),
        Entry(1, 2, int(Operation.CONFIG), "", "garbage", None),
        Entry(1, 2, int(Operation.CONFIG), "", None, None),
        Entry(1, 2, int(Operation.CONFIG), "k", config_value(base().config), None),
        Entry(1, 2, int(Operation.CONFIG), "", config_value(Config((), 0, 0, 0)), None),
        Entry(1, 2, int(Operation.BATCH), "", None, None),
        Entry(1, 2, int(Operation.BATCH), "k", None, None, (Change("a", "1"),)),
        Entry(1, 2, int(Operation.BATCH), "", None, None, (Change("", "1"),)),
        Entry(1, 2, int(Operation.BATCH), "", None, None, (Change("a", "1"), Change("a", "2"))),
    ],
    ids=repr_of_entry,
)
def test_entries_with_one_that_cannot_be_taken_are_refused_as_a_whole(bad: Entry) -> None:
    """None of the batch is applied, whatever stands before the bad one."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        reason = await channel.refused(entries(put(1), bad))
        assert "cannot be taken" in reason or "cannot be read" in reason
        assert channel.close_code == CLOSE_PROTOCOL
        assert follower.is_empty
        assert follower.state.values() == {}

    run(check)


def test_follower_behind_its_leader_is_not_ready_before_it_has_caught_up() -> None:
    """Ready means: it holds all that there was when the channel was opened."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        await channel.ask(hello(last_seq=2))
        await channel.ask(entries(put(2)))
        assert follower.readiness().standing is Standing.CATCHING_UP
        assert "up to 0 of 2" in follower.readiness().reason
        await channel.ask(entries(put(1)))
        assert follower.readiness().standing is Standing.OPEN

    run(check)


# --- snapshots --------------------------------------------------------------------------------


def state_of(**versions: Version) -> State:
    """Returns a state that holds these keys."""
    state = State()
    for key, version in versions.items():
        state.install(key, version)
    return state


def test_snapshot_brings_keys_versions_and_the_position() -> None:
    """After it the follower holds everything up to its position, newer entries untouched."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        await channel.ask(entries(put(9, "newer", key="a")))
        state = state_of(a=Version("older", 1, 3), b=Version("b", 1, 4), c=Version(None, 1, 5))
        for frame in snapshot_frames(state, 8):
            channel.say_bytes(frame)
        assert await channel.heard() == CaughtUp(8)
        assert follower.state.values() == {"a": "newer", "b": "b"}
        assert follower.state.read("c") == Version(None, 1, 5)
        assert follower.held.contiguous == 9

    run(check)


def test_idempotency_keys_of_a_snapshot_displace_none_of_newer_entries() -> None:
    """Entries come while the snapshot does, and its old keys at its end: the last are kept.

    Else a retry of one of the newest writes would be written twice once this node leads.
    """

    async def check() -> None:
        follower = make_follower(idempotency_keys=3)
        channel = await following(follower)
        newer = [put(seq, idempotency_key=f"i{seq}") for seq in (11, 12)]
        await channel.ask(entries(*newer))
        older = [RememberedWrite(f"i{seq}", b"f", 1, seq) for seq in (8, 9, 10)]
        for frame in snapshot_frames(State(), 10, older):
            channel.say_bytes(frame)
        assert await channel.heard() == CaughtUp(10)
        remembered = follower.idempotency.remembered(99)
        assert [write.idempotency_key for write in remembered] == ["i10", "i11", "i12"]

    run(check)


def test_snapshot_cut_off_keeps_the_follower_with_its_cluster() -> None:
    """Half a snapshot is data of that cluster: another one's would be mixed with it."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        frames = snapshot_frames(state_of(a=Version("1", 1, 1)), 1)
        for frame in frames[:-1]:
            channel.say_bytes(frame)
        await channel.ask(Heartbeat(0, 0))
        await channel.leave()
        assert follower.state.values() == {"a": "1"}
        assert follower.held.max_seq == 0
        stranger = Channel(follower)
        assert "another cluster" in await stranger.refused(hello("c2"))
        assert stranger.close_code == CLOSE_REFUSED
        await following(follower)
        assert follower.replica.meta.cluster_id == "c1"

    run(check)


def test_follower_keeps_no_more_entries_than_its_log_may_hold() -> None:
    """Old ones that are committed are in the versions; those that are not stay, however many."""

    async def check() -> None:
        follower = make_follower(log_entries=10)
        channel = await following(follower)
        await channel.ask(entries(*(put(seq) for seq in range(1, 101)), stable_seq=95))
        assert len(follower.replica.log) == 10
        assert follower.replica.log.start == 90
        await channel.ask(entries(*(put(seq) for seq in range(101, 131)), stable_seq=96))
        assert [entry.seq for entry in follower.replica.log.above(0)] == list(range(97, 131))
        await channel.leave()

    run(check)


@pytest.mark.parametrize(
    "wrong",
    [
        msgspec.structs.replace(base(), config=Config(base().config.members, 2, 1, 1)),
        msgspec.structs.replace(base(), config=Config(base().config.members[:1] * 2, 0, 0, 0)),
        base(epoch=1, forced=2),
    ],
    ids=["more must confirm than there are", "one node twice", "forced by a later epoch"],
)
def test_base_with_which_no_epoch_can_have_begun_is_not_held(wrong: BaseRecord) -> None:
    """The follower would be a voter of a cluster that cannot be, durably."""

    async def check() -> None:
        follower = make_follower()
        channel = Channel(follower)
        told = await channel.ask(hello())
        assert await channel.refused(Base(wrong, told.incarnation))
        assert channel.close_code == CLOSE_PROTOCOL
        assert follower.replica.meta.base is None

    run(check)
