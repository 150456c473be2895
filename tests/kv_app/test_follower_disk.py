"""A follower with a disk: what it acknowledges is durable, and what a failure does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from kv_app import follower as follower_module
from kv_app import session as session_module
from kv_app.messages import (
    CLOSE_NORMAL,
    CLOSE_REPLACED,
    Ack,
    CaughtUp,
    Entry,
    Heartbeat,
    Operation,
    SeqRange,
    Version,
)
from kv_app.recovery import recover
from kv_app.state import State
from tests.kv_app.disks import Syncs, append, opened
from tests.kv_app.fake_leader import (
    Channel,
    entries,
    following,
    hello,
    make_follower,
    put,
    snapshot_frames,
)
from tests.kv_app.fakes import run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kv_app.errors import StorageError
    from kv_app.follower import Follower
    from kv_app.storage import Storage


@pytest.fixture
def storage(folder: Path) -> Iterator[Storage]:
    """The follower's database."""
    with opened(folder, node_id="f1") as found:
        yield found


def state_of(**versions: Version) -> State:
    """Returns a state that holds these keys."""
    state = State()
    for key, version in versions.items():
        state.install(key, version)
    return state


async def recovered_equals(follower: Follower, folder: Path) -> None:
    """Holds what a restart finds against what the follower showed."""
    with opened(folder, node_id="f1") as storage:
        found = recover(storage, 100)
        assert found.state.values() == follower.state.values()
        assert found.held == follower.held


def test_entries_are_acknowledged_after_their_sync_all_that_it_covers_at_once(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acknowledgment is a promise that outlives the process; heartbeats need no disk."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        follower = make_follower(storage)
        channel = Channel(follower)
        assert (await channel.ask(hello())).is_durable
        syncs.hold()
        began = syncs.began
        channel.say(entries(put(1)))
        await until(lambda: syncs.began > began)
        for seq in (2, 3, 5):
            channel.say(entries(put(seq)))
        assert await channel.ask(Heartbeat(5, 0)) == Ack([])
        heard = channel.heard_count
        await asyncio.sleep(0.005)
        assert channel.heard_count == heard
        assert follower.held.max_seq == 5
        syncs.release()
        assert await channel.heard() == Ack([SeqRange(1, 1)])
        assert await channel.heard() == Ack([SeqRange(2, 3), SeqRange(5, 5)])
        assert [entry.seq for entry in storage.entries()] == [1, 2, 3, 5]
        await channel.leave()
        await follower.stop()

    run(check)


def test_entry_that_came_before_is_acknowledged_again_and_written_once(storage: Storage) -> None:
    """The first one stays, in memory and on disk; the sync also covers one still under way."""

    async def check() -> None:
        follower = make_follower(storage)
        channel = await following(follower)
        await channel.ask(entries(put(1, "first")))
        assert await channel.ask(entries(put(1, "second"), put(2))) == Ack([SeqRange(1, 2)])
        assert [entry.value for entry in storage.entries()] == ["first", "v"]
        await channel.leave()
        await follower.stop()

    run(check)


def test_disk_that_fails_is_reported_and_nothing_is_acknowledged_after_it(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk holds is not known from then on, so the process has to end."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        failures: list[StorageError] = []
        follower = make_follower(storage, failures.append)
        channel = await following(follower)
        assert await channel.ask(entries(put(1))) == Ack([SeqRange(1, 1)])
        heard = channel.heard_count
        syncs.failing = "input/output error"
        channel.say(entries(put(2)))
        await until(lambda: failures)
        channel.say(entries(put(3)))
        await until(lambda: len(failures) > 1)
        await asyncio.sleep(0.005)
        assert channel.heard_count == heard
        assert str(failures[0]) == "input/output error"
        await channel.leave()
        await follower.stop()

    run(check)


def test_follower_reads_no_further_while_much_waits_for_its_disk(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk costs bounded memory: the leader feels it through the channel."""
    monkeypatch.setattr(follower_module, "MAX_UNSYNCED_BYTES", 50)
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        follower = make_follower(storage)
        channel = await following(follower)
        syncs.hold()
        for seq in range(1, 11):
            channel.say(entries(put(seq, "x" * 30)))
        await until(lambda: follower.is_behind)
        await asyncio.sleep(0.005)
        assert follower.held.max_seq == 2
        syncs.release()
        await until(lambda: follower.held.contiguous == 10)
        await until(lambda: not follower.is_behind)
        await channel.leave()
        await follower.stop()

    run(check)


def test_channel_that_ended_before_the_sync_did_is_no_error(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next welcome tells what is held."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        follower = make_follower(storage)
        channel = await following(follower)
        syncs.hold()
        channel.say(entries(put(1)))
        await until(lambda: follower.held.max_seq == 1)
        await channel.leave()
        syncs.release()
        again = Channel(follower)
        assert (await again.ask(hello())).contiguous == 1
        await again.leave()
        await follower.stop()

    run(check)


def test_stop_makes_durable_all_that_was_taken(folder: Path) -> None:
    """Also what nobody was told of yet."""

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage)
            channel = await following(follower)
            channel.say(entries(put(1), put(2)))
            await until(lambda: follower.held.contiguous == 2)
            await follower.stop()

    run(check)
    with opened(folder, node_id="f1") as storage:
        assert [entry.seq for entry in storage.entries()] == [1, 2]


@pytest.mark.parametrize("late", [(3, 4, 5, 6), (2,)], ids=["the newest", "one before them"])
def test_entries_that_wait_for_the_disk_are_not_taken_for_folded(
    late: tuple[int, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are stable, and in memory alone: a fold that runs meanwhile stops below them."""
    monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 2)

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            syncs = Syncs(storage, monkeypatch)
            follower = make_follower(storage)
            channel = await following(follower)
            syncs.hold()
            began = syncs.began
            early = [put(seq, f"v{seq}") for seq in range(1, 7) if seq not in late]
            channel.say(entries(*early))
            await until(lambda: syncs.began > began)
            channel.say(entries(*(put(seq, f"v{seq}") for seq in late), stable_seq=6))
            await until(lambda: follower.held.contiguous == 6)
            syncs.release()
            for _ in range(2):
                assert isinstance(await channel.heard(), Ack)
            await channel.leave()
            await follower.stop()
        await recovered_equals(follower, folder)

    run(check)


def test_followers_entries_are_folded_up_to_what_is_settled(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not known to be committed may have to be taken back, and what is above a hole too."""
    monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 1)
    monkeypatch.setattr("kv_app.storage.MIN_FOLD", 1)

    async def check() -> None:
        follower = make_follower(storage)
        channel = Channel(follower)
        await channel.give_base(await channel.ask(hello()))
        await channel.ask(entries(*(put(seq) for seq in range(1, 10))))
        for stable_seq, settled in ((6, 6), (12, 9)):  # 10 is missing
            await channel.ask(Heartbeat(0, stable_seq))
            assert follower.replica.settled_seq == settled
            for _ in range(settled):
                await channel.ask(entries(put(follower.held.max_seq + 2)))
            assert storage.meta.folded == (1, settled)
        assert [entry.seq for entry in storage.entries()] == list(range(11, 40, 2))
        await channel.leave()
        await follower.stop()

    run(check)


# --- snapshots --------------------------------------------------------------------------------


def test_snapshot_is_acknowledged_after_its_sync(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its position is a promise for all that it covers."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        follower = make_follower(storage)
        channel = await following(follower)
        syncs.hold()
        for frame in snapshot_frames(state_of(a=Version("1", 1, 3)), 8):
            channel.say_bytes(frame)
        await until(lambda: follower.held.contiguous == 8)
        assert await channel.ask(Heartbeat(8, 8)) == Ack([])
        syncs.release()
        assert await channel.heard() == CaughtUp(8)
        assert storage.meta.folded == (1, 8)
        await channel.leave()
        await follower.stop()

    run(check)


def test_snapshot_stays_newer_than_the_entries_that_it_replaces(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it comes in, what was there before must not be folded over it."""
    monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 2)

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage)
            channel = await following(follower)
            old = [put(seq, "old", key=key) for seq, key in enumerate("abcd", 1)]
            await channel.ask(entries(*old))
            state = state_of(a=Version("new", 1, 90), b=Version("new", 1, 91))
            *parts, end = snapshot_frames(state, 100)
            channel.say(entries(put(5, "old", key="e"), stable_seq=5))
            for frame in parts:
                channel.say_bytes(frame)
            assert await channel.heard() == Ack([SeqRange(5, 5)])  # its sync is over, and a fold
            channel.say_bytes(end)
            assert await channel.heard() == CaughtUp(100)
            assert follower.state.values() == {"a": "new", "b": "new"}
            await channel.leave()
            await follower.stop()
        await recovered_equals(follower, folder)

    run(check)


def test_key_that_a_snapshot_has_no_more_does_not_come_back_with_a_restart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes from the versions on disk too; what an entry above the snapshot has put stays."""
    monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 2)

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage)
            channel = await following(follower)
            for seq, key in enumerate("abcd", 1):
                await channel.ask(entries(put(seq, key=key), stable_seq=seq))
            assert [key for key, _ in storage.versions()] == list("abcd")
            await channel.ask(entries(put(101, "newer", key="b")))
            for frame in snapshot_frames(state_of(a=Version("v", 1, 1)), 100):
                channel.say_bytes(frame)
            assert await channel.heard() == CaughtUp(100)
            assert follower.state.values() == {"a": "v", "b": "newer"}
            await channel.leave()
            await follower.stop()
        await recovered_equals(follower, folder)

    run(check)


def test_restart_remembers_a_deletion_until_it_is_folded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a snapshot that has the key no more would leave it on the disk, to come back."""
    monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 2)
    monkeypatch.setattr("kv_app.storage.MIN_FOLD", 1)
    settings = {"log_entries": 1}

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            channel = await following(make_follower(storage, **settings))
            await channel.ask(entries(put(1, key="a"), put(2, key="b"), stable_seq=2))
            assert [key for key, _ in storage.versions()] == ["a", "b"]
            monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 1000)
            gone = Entry(1, 3, int(Operation.DELETE), "a", None, None)
            await channel.ask(entries(gone, *(put(seq) for seq in range(4, 9)), stable_seq=8))
            storage.save(replace(storage.meta, stable=(1, 8)))
            await channel.leave()
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage, **settings)
            assert follower.replica.settled_seq == 8
            version = follower.state.read("a")
            assert version is not None
            assert version.value is None
            channel = await following(follower)
            for frame in snapshot_frames(state_of(b=Version("v", 1, 2)), 20):
                channel.say_bytes(frame)
            assert await channel.heard() == CaughtUp(20)
            await channel.leave()
            await follower.stop()
        with opened(folder, node_id="f1") as storage:
            assert make_follower(storage, **settings).state.values() == {"b": "v"}

    run(check)


def test_key_that_was_deleted_long_before_a_snapshot_does_not_come_back_with_a_restart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its deletion is forgotten in memory, and the disk must not know its value any more."""
    monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 8)
    monkeypatch.setattr("kv_app.storage.MIN_FOLD", 1)

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage, log_entries=2)
            channel = await following(follower)
            for seq in range(1, 12):
                await channel.ask(entries(put(seq, key="ab"[seq > 1]), stable_seq=seq))
            assert storage.meta.folded >= (1, 1)
            deletion = Entry(1, 12, int(Operation.DELETE), "a", None, None)
            await channel.ask(entries(deletion, stable_seq=12))
            for seq in range(13, 17):
                await channel.ask(entries(put(seq, key="b"), stable_seq=seq))
            for frame in snapshot_frames(state_of(b=Version("new", 1, 90)), 100):
                channel.say_bytes(frame)
            assert await channel.heard() == CaughtUp(100)
            assert follower.state.values() == {"b": "new"}
            await channel.leave()
            await follower.stop()
        await recovered_equals(follower, folder)

    run(check)


def test_key_that_a_snapshot_has_no_more_goes_from_beneath_an_uncommitted_write_on_disk_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the deleted value is back after a restart, once that write is taken back."""
    monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 1)

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage)
            channel = await following(follower)
            await channel.ask(entries(put(1, "deleted since", key="a"), stable_seq=1))
            assert [key for key, _ in storage.versions()] == ["a"]
            await channel.ask(entries(put(101, "not committed", key="a")))
            for frame in snapshot_frames(State(), 100):
                channel.say_bytes(frame)
            assert await channel.heard() == CaughtUp(100)
            await channel.leave()
            await follower.stop()
        with opened(folder, node_id="f1") as storage:
            found = recover(storage, 100)
            assert found.state.values() == {"a": "not committed"}
            found.state.revert()
            assert found.state.values() == {}

    run(check)


def test_last_idempotency_keys_are_the_same_after_entries_out_of_order_a_fold_and_a_restart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk forgets follows positions, as what is remembered does, not arrival."""
    monkeypatch.setattr("kv_app.group_commit.FOLD_EVERY", 1)

    async def check() -> None:
        with opened(folder, node_id="f1") as storage:
            follower = make_follower(storage, idempotency_keys=3)
            channel = await following(follower)
            for seq in (1, 4, 3, 2, 5):
                await channel.ask(entries(put(seq, idempotency_key=f"i{seq}")))
            for seq in (6, 7):
                await channel.ask(entries(put(seq), stable_seq=5))
            assert storage.meta.folded == (1, 5)
            keys = [write.idempotency_key for write in follower.idempotency.remembered(99)]
            assert keys == ["i3", "i4", "i5"]
            await channel.leave()
            await follower.stop()
        with opened(folder, node_id="f1") as storage:
            found = recover(storage, 3).idempotency
            assert [write.idempotency_key for write in found.remembered(99)] == keys

    run(check)


def test_idempotency_key_that_was_used_again_means_the_same_after_a_restart(folder: Path) -> None:
    """Of two writes with it on the disk the newer one counts, folded or not."""
    for folded in (0, 1, 2):
        with opened(folder / str(folded), node_id="f1") as storage:
            append(storage, *(put(seq, idempotency_key="again") for seq in (1, 2)))
            if folded:
                storage.fold((1, folded), (1, folded), 100)
            found = recover(storage, 100).idempotency.find("again")
            assert found is not None
            assert found.seq == 2


def test_welcome_waits_for_the_disk_so_that_all_it_names_is_durable(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older channel brought, and never acknowledged, counts by the welcome alone."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        follower = make_follower(storage)
        channel = Channel(follower)
        await channel.give_base(await channel.ask(hello()))
        syncs.hold()
        began = syncs.began
        channel.say(entries(put(1)))
        await until(lambda: syncs.began > began)
        channel.say(entries(put(2), stable_seq=2))
        await until(lambda: follower.held.contiguous == 2)
        late = Channel(follower)
        late.say(hello())
        await channel.ended()
        await asyncio.sleep(0.005)
        assert late.heard_count == 0
        syncs.release()
        assert (await late.heard()).contiguous == 2
        assert [entry.seq for entry in storage.entries()] == [1, 2]
        await late.leave()
        await follower.stop()

    run(check)


def test_channel_replaced_while_its_welcome_waits_for_the_disk_ends_like_any_other(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is raised into the server, and its leader is told why."""
    syncs = Syncs(storage, monkeypatch)

    async def check() -> None:
        follower = make_follower(storage)
        channel = Channel(follower)
        await channel.give_base(await channel.ask(hello()))
        syncs.hold()
        began = syncs.began
        channel.say(entries(put(1)))
        await until(lambda: syncs.began > began)
        waiting, last = Channel(follower), Channel(follower)
        waiting.say(hello())
        await channel.ended()
        last.say(hello())
        assert await waiting.ended() == CLOSE_REPLACED
        syncs.release()
        assert (await last.heard()).contiguous == 1
        await last.leave()
        await follower.stop()

    run(check)


def test_channel_that_cannot_acknowledge_for_a_bug_ends_instead_of_staying_without_a_word(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its heartbeats would go on, and the leader wait for ever; a new channel tries again."""
    syncs = Syncs(storage, monkeypatch)

    def fail(_: object) -> None:
        raise ValueError("a bug of the tests")

    async def check() -> None:
        follower = make_follower(storage)
        channel = Channel(follower)
        await channel.give_base(await channel.ask(hello()))
        assert syncs.ended == syncs.began
        monkeypatch.setattr(session_module, "to_ranges", fail)
        channel.say(entries(put(1)))
        assert await channel.ended() == CLOSE_NORMAL
        await follower.stop()

    run(check)
    assert "a bug of the tests" in caplog.text
