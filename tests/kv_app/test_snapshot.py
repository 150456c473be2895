"""A state as a stream of messages: whole, damaged, out of order, broken off, and beside writes."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_app import group_commit, snapshot, storage
from kv_app.errors import ProtocolViolationError
from kv_app.messages import (
    CLOSE_PROTOCOL,
    CaughtUp,
    Heartbeat,
    LeaderMessage,
    Operation,
    RememberedWrite,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotKeys,
    Version,
)
from kv_app.snapshot import SnapshotReader
from kv_app.state import BUCKETS, State, bucket_of
from tests.kv_app.disks import memory_folder
from tests.kv_app.fake_leader import (
    entries,
    following,
    make_follower,
    put,
    snapshot_frames,
)
from tests.kv_app.fakes import encode, run, until
from tests.kv_app.wired import Wired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeCluster = Callable[..., Wired]

STABLE = 100
keys = st.text(alphabet="abcdefgh", min_size=1, max_size=2)


def states_at(*seqs: int) -> st.SearchStrategy[dict[str, Version]]:
    """Makes states whose versions have these positions."""
    versions = st.builds(
        Version, st.none() | st.text(max_size=4), st.just(1), st.sampled_from(seqs)
    )
    return st.dictionaries(keys, versions, max_size=30)


def in_bucket_0(prefix: str) -> str:
    """Returns a key of the first bucket that begins so."""
    return next(key for number in count() if bucket_of(key := f"{prefix}{number}") == 0)


def state_of(some: dict[str, Version]) -> State:
    """Returns a state that holds these."""
    state = State()
    for key, version in some.items():
        state.install(key, version)
    return state


def decoded(frames: list[bytes]) -> list[Any]:
    """Returns messages as a follower reads them."""
    return [msgspec.msgpack.decode(frame, type=LeaderMessage) for frame in frames]


def messages_of(some: dict[str, Version]) -> list[Any]:
    """Returns the messages of a snapshot of a state."""
    return decoded(snapshot_frames(state_of(some), STABLE))


def read(messages: list[Any]) -> dict[str, Version]:
    """Reads a snapshot to its end, and returns all its versions."""
    reader = SnapshotReader(messages[0], 1)
    found: dict[str, Version] = {}
    for message in messages[1:]:
        if isinstance(message, SnapshotChunk):
            found.update(reader.read(message))
            if message.ends_bucket:
                bucket, present = reader.end_bucket()
                assert present == {key for key in found if bucket_of(key) == bucket}
        elif isinstance(message, SnapshotEnd):
            reader.check_end(message)
    return found


# --- the messages -----------------------------------------------------------------------------


@settings(max_examples=30)
@given(states_at(*range(1, STABLE + 1)), st.integers(min_value=1, max_value=4))
def test_snapshot_is_read_as_the_state_that_was_sent(
    some: dict[str, Version], keys_per_chunk: int
) -> None:
    """Every key with its version, each bucket ended once, in parts of a bounded size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "KEYS_PER_CHUNK", keys_per_chunk)
        messages = messages_of(some)
    assert read(messages) == some
    chunks = [message for message in messages if isinstance(message, SnapshotChunk)]
    assert [chunk.bucket for chunk in chunks if chunk.ends_bucket] == list(range(BUCKETS))
    assert messages[0] == SnapshotBegin(STABLE, 0)
    assert isinstance(messages[-1], SnapshotEnd)


def test_idempotency_keys_are_sent_in_messages_of_a_bounded_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of them, oldest first, behind the versions and before the end."""
    monkeypatch.setattr(snapshot, "WRITES_PER_MESSAGE", 2)
    writes = [RememberedWrite(f"i{seq}", b"f", 1, seq) for seq in range(1, 6)]

    async def check() -> None:
        messages = decoded(snapshot_frames(State(), STABLE, writes))
        told = [message.writes for message in messages if isinstance(message, SnapshotKeys)]
        assert told == [writes[:2], writes[2:4], writes[4:]]
        assert all(isinstance(message, SnapshotKeys) for message in messages[-4:-1])

    run(check)


SAMPLE = {f"key{number}": Version(f"v{number}", 1, number) for number in range(1, 30)}


def damage(messages: list[Any], how: str) -> list[Any]:
    """Returns the messages of a snapshot with something wrong in the middle."""
    chunks = [
        index
        for index, message in enumerate(messages)
        if isinstance(message, SnapshotChunk) and len(bytes(message.versions)) > 1
    ]
    index = chunks[len(chunks) // 2]
    chunk = messages[index]
    match how:
        case "missing":
            return [*messages[:index], *messages[index + 1 :]]
        case "twice":
            return [*messages[: index + 1], *messages[index:]]
        case "swapped":
            return [*messages[:index], messages[index + 1], chunk, *messages[index + 2 :]]
        case "first missing":
            return [messages[0], *messages[2:]]
        case "other value":
            some = msgspec.msgpack.decode(chunk.versions, type=dict[str, Version])
            some = {key: Version("wrong", one.epoch, one.seq) for key, one in some.items()}
            other = msgspec.structs.replace(chunk, versions=msgspec.Raw(encode(some)))
        case "other bucket":
            other = msgspec.structs.replace(chunk, bucket=chunk.bucket + 1)
        case "other end":
            other = msgspec.structs.replace(chunk, ends_bucket=not chunk.ends_bucket)
        case _:
            other = msgspec.structs.replace(chunk, digest=bytes(16))
    return [*messages[:index], other, *messages[index + 1 :]]


WAYS = [
    "missing",
    "twice",
    "swapped",
    "first missing",
    "other value",
    "other bucket",
    "other end",
    "other digest",
]


@pytest.mark.parametrize("how", WAYS)
def test_chunk_that_is_damaged_or_not_the_next_one_is_refused_before_it_is_taken(how: str) -> None:
    """Nothing of it reaches the follower, whose channel ends; what came before stays."""

    async def check() -> None:
        messages = decoded(snapshot_frames(state_of(SAMPLE), STABLE))
        bad = damage(messages, how)
        first_bad = next(
            index
            for index, (one, other) in enumerate(zip(messages, bad, strict=False))
            if one != other
        )
        good = {
            key
            for message in messages[1:first_bad]
            for key in msgspec.msgpack.decode(message.versions, type=dict[str, Version])
        }
        follower = make_follower()
        channel = await following(follower)
        for message in bad:
            channel.say(message)
        refusal = await channel.heard()
        assert "is damaged or not the next one" in refusal.reason
        assert await channel.ended() == CLOSE_PROTOCOL
        assert follower.state.values() == {key: SAMPLE[key].value for key in good}
        assert follower.held.max_seq == 0

    run(check)


@pytest.mark.parametrize("kept", [1, 2, BUCKETS])
def test_snapshot_that_ends_early_is_refused(kept: int) -> None:
    """Its position is not taken over: the follower does not hold what it was not sent."""

    async def check() -> None:
        messages = decoded(snapshot_frames(state_of(SAMPLE), STABLE))
        follower = make_follower()
        channel = await following(follower)
        for message in messages[:kept]:
            channel.say(message)
        last_digest = messages[kept - 1].digest if kept > 1 else b""
        reason = await channel.refused(SnapshotEnd(last_digest))
        assert f"a snapshot ended after {kept - 1} buckets" in reason
        assert follower.held.max_seq == 0

    run(check)


def test_snapshot_with_another_end_is_refused() -> None:
    """The end names the digest of all that came."""
    *messages, _ = messages_of(SAMPLE)
    with pytest.raises(ProtocolViolationError, match=f"ended after {BUCKETS} buckets"):
        read([*messages, SnapshotEnd(b"another")])


@pytest.mark.parametrize("raw", [b"\xc1", b"\x81\xa2\xff\xfe\x93\xc0\x01\x01", b"\x81\xa1k\x01"])
def test_chunk_whose_versions_cannot_be_read_is_refused(raw: bytes) -> None:
    """Its digest is right, so this is a leader that sends what it should not."""
    reader = SnapshotReader(SnapshotBegin(STABLE, 0), 1)
    digest = snapshot._chain(b"", 0, raw, ends_bucket=True)
    with pytest.raises(ProtocolViolationError, match="cannot be read"):
        reader.read(SnapshotChunk(0, ends_bucket=True, versions=msgspec.Raw(raw), digest=digest))


def chunk_of(digest: bytes, bucket: int, versions: dict[str, Version]) -> SnapshotChunk:
    """Returns a chunk that ends its bucket, and has the digest that it has to have."""
    raw = encode(versions)
    chained = snapshot._chain(digest, bucket, raw, ends_bucket=True)
    return SnapshotChunk(bucket, ends_bucket=True, versions=msgspec.Raw(raw), digest=chained)


@pytest.mark.parametrize("bucket", [BUCKETS, -1, 1 << 62])
def test_bucket_that_there_is_not_is_refused_though_it_is_the_next_one(bucket: int) -> None:
    """A leader that has more buckets, or says so, is told in a sentence."""

    async def check() -> None:
        *messages, end = decoded(snapshot_frames(state_of(SAMPLE), STABLE))
        channel = await following(make_follower())
        for message in messages:
            channel.say(message)
        reason = await channel.refused(chunk_of(end.digest, bucket, {}))
        assert "damaged or not the next one" in reason

    run(check)


@pytest.mark.parametrize(
    ("key", "version"),
    [
        ("elsewhere", Version("v", 1, 1)),
        ("", Version("no configuration", 1, 1)),
        ("", Version(None, 1, 1)),
        (in_bucket_0("later"), Version("v", 2, 1)),
        (in_bucket_0("never"), Version("v", 0, 1)),
        (in_bucket_0("nowhere"), Version("v", 1, 0)),
        (in_bucket_0("x" * (1 << 16)), Version("v", 1, 1)),
    ],
    ids=["other bucket", "config", "no config", "later", "no epoch", "no position", "long key"],
)
def test_version_that_cannot_be_in_a_snapshot_is_refused_with_its_chunk(
    key: str, version: Version
) -> None:
    """It would be shown, or be removed again with what its bucket does not have."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        channel.say(SnapshotBegin(STABLE, 0))
        good = in_bucket_0("good")
        chunk = chunk_of(b"", 0, {good: Version("v", 1, 1), key: version})
        reason = await channel.refused(chunk)
        assert "that cannot be there" in reason or "cannot be read" in reason
        assert follower.state.values() == {}

    run(check)


def test_key_that_comes_twice_in_a_snapshot_is_refused() -> None:
    """A leader lists each once; one that goes on without end must not be read without end."""
    key = in_bucket_0("k")
    raw = encode({key: Version("v", 1, 1)})
    first = snapshot._chain(b"", 0, raw, ends_bucket=False)
    reader = SnapshotReader(SnapshotBegin(STABLE, 0), 1)
    reader.read(SnapshotChunk(0, ends_bucket=False, versions=msgspec.Raw(raw), digest=first))
    with pytest.raises(ProtocolViolationError, match="cannot be there"):
        reader.read(chunk_of(first, 0, {key: Version("v", 1, 1)}))


def test_chunk_with_more_keys_than_one_may_have_is_refused() -> None:
    """Before they are made: a frame has room for millions."""
    many = {str(number): Version("v", 1, 1) for number in range(snapshot.KEYS_PER_CHUNK + 1)}
    with pytest.raises(ProtocolViolationError, match="cannot be read"):
        SnapshotReader(SnapshotBegin(STABLE, 0), 1).read(chunk_of(b"", 0, many))


@pytest.mark.parametrize(
    "part",
    [messages_of({})[1], SnapshotKeys([]), SnapshotEnd(b"")],
    ids=["chunk", "keys", "end"],
)
def test_part_of_a_snapshot_that_did_not_begin_is_refused(part: Any) -> None:
    """A follower does not take what it cannot check."""

    async def check() -> None:
        channel = await following(make_follower())
        assert "a part of a snapshot that did not begin" in await channel.refused(part)

    run(check)


@pytest.mark.parametrize("stable_seq", [-1, 2**62 + 1, 2**64 - 1])
def test_snapshot_of_a_position_that_cannot_be_is_refused(stable_seq: int) -> None:
    """What the disk has no room for must not come so far."""

    async def check() -> None:
        channel = await following(make_follower())
        assert "cannot be read" in await channel.refused(SnapshotBegin(stable_seq, 0))

    run(check)


@pytest.mark.parametrize(
    ("epoch", "seq"), [(0, 1), (-1, 1), (2**62 + 1, 1), (2, 1), (1, 0), (1, -1), (1, STABLE + 1)]
)
def test_key_of_a_position_outside_its_snapshot_is_refused_with_all_beside_it(
    epoch: int, seq: int
) -> None:
    """Not even the good ones of the same message are taken."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        channel.say(SnapshotBegin(STABLE, 0))
        good, bad = RememberedWrite("good", b"f", 1, 1), RememberedWrite("bad", b"f", epoch, seq)
        reason = await channel.refused(SnapshotKeys([good, bad]))
        assert "with a key of" in reason or "cannot be read" in reason
        assert len(follower.idempotency) == 0

    run(check)


def test_snapshot_that_begins_again_gives_up_the_one_before() -> None:
    """The second one alone counts."""

    async def check() -> None:
        frames = snapshot_frames(state_of(SAMPLE), STABLE)
        follower = make_follower()
        channel = await following(follower)
        for frame in [*frames[:40], *frames]:
            channel.say_bytes(frame)
        assert await channel.heard() == CaughtUp(STABLE)
        assert follower.state.digests() == state_of(SAMPLE).digests()

    run(check)


# --- what it does to a follower ---------------------------------------------------------------


@settings(max_examples=50)
@given(
    before=states_at(*range(1, STABLE, 2)),  # no position has two meanings
    sent=states_at(*range(2, STABLE, 2)),
    newer=st.lists(keys, max_size=5),
)
def test_follower_after_a_snapshot_holds_it_and_what_is_newer_and_nothing_else(
    before: dict[str, Version], sent: dict[str, Version], newer: list[str]
) -> None:
    """What the snapshot no longer has is gone, whatever the follower held; newer entries stay."""

    async def check() -> None:
        follower = make_follower()
        channel = await following(follower)
        for key, version in before.items():
            follower.state.install(key, version)
        for seq, key in enumerate(newer, STABLE + 1):
            await channel.ask(entries(put(seq, key=key)))
        for frame in snapshot_frames(state_of(sent), STABLE):
            channel.say_bytes(frame)
        assert await channel.heard() == CaughtUp(STABLE)
        expected = state_of(sent)
        for key, version in before.items():
            if key in sent:
                expected.install(key, version)
        for seq, key in enumerate(newer, STABLE + 1):
            expected.install(key, Version("v", 1, seq))
        assert follower.state.values() == expected.values()
        assert follower.state.digests() == expected.digests()
        await channel.leave()

    run(check)


# --- a leader and followers -------------------------------------------------------------------


@pytest.fixture
def make_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeCluster]:
    """Makes the followers of a cluster whose nodes have disks, and whose leader has a short log."""
    with memory_folder() as folder:

        def make(followers: int, **options: Any) -> Wired:
            wired = Wired(folder, followers, log_entries=12, **options)
            monkeypatch.setattr("kv_app.channel.connect", wired.connect)
            return wired

        yield make


def test_snapshot_that_breaks_off_begins_again_until_it_is_whole(
    make_cluster: MakeCluster,
) -> None:
    """However often the channel breaks or a chunk is damaged, in the end all is right."""

    async def check() -> None:
        cluster = make_cluster(1, write_quorum=0)
        leader = cluster.start()
        await cluster.all_count()
        node, link = cluster.followers[0], leader.links[0]
        await node.restart(wiped=True)
        node.is_up = False
        await cluster.put_many(1, 300)
        node.reads_left = 100
        node.is_up = True
        await until(lambda: node.reads_left == 0)
        assert link.is_learner
        assert node.client is not None
        node.reads_left = None
        damaged = 0

        def damage_late(payload: bytes) -> bytes:
            nonlocal damaged
            if node.sent > 150 and not damaged:
                damaged += 1
                return payload[:-1] + bytes([payload[-1] ^ 1])
            return payload

        node.sent, node.tamper = 0, damage_late
        await node.client.ended()
        await cluster.converged()
        assert damaged == 1
        assert node.sent > 150 + BUCKETS  # one that was damaged, and a whole one
        assert node.follower.state.values() == {f"k{n}": f"v{n}" for n in range(1, 301)}
        await cluster.stop()

    run(check)


def test_snapshot_beside_writes_and_deletions_leaves_equal_replicas_that_stay_so(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys come, change and go while it is sent; the disk holds what the memory does."""
    monkeypatch.setattr(group_commit, "FOLD_EVERY", 4)
    monkeypatch.setattr(storage, "MIN_FOLD", 1)

    async def check() -> None:
        cluster = make_cluster(2, write_quorum=1)
        leader = cluster.start()
        await cluster.all_count()
        await cluster.put_many(1, 200)
        behind, link = cluster.followers[0], leader.links[0]
        await behind.end()
        for number in range(1, 50):
            await cluster.put(f"k{number}", "while away")
        behind.start()
        await until(lambda: link.is_connected)
        for number in range(40, 160):
            if number % 3:
                record = leader.append(Operation.PUT, f"k{number}", "beside", None)
            else:
                record = leader.append(Operation.DELETE, f"k{number}", None, None)
            await leader.wait_committed(record)
        await cluster.converged()
        shown = leader.state.values()
        for node in cluster.followers:
            await node.restart()
            assert node.follower.state.values() == shown
            assert node.follower.state.digests() == leader.state.digests()
        await cluster.stop()

    run(check)


def test_leader_goes_on_writing_while_a_follower_reads_no_snapshot(
    make_cluster: MakeCluster,
) -> None:
    """A follower that hangs in the middle costs the others nothing."""

    async def check() -> None:
        cluster = make_cluster(2, write_quorum=1)
        leader = cluster.start()
        await cluster.all_count()
        await cluster.put_many(1, 100)
        node = cluster.followers[0]
        node.reads_left = 50
        await node.restart(wiped=True)
        await until(lambda: node.reads_left == 0)
        await cluster.put_many(101, 200)
        assert not leader.links[0].counts
        assert leader.stable_seq == 200
        await cluster.stop()

    run(check)


def test_heartbeats_between_the_parts_of_a_snapshot_are_answered() -> None:
    """A large state takes longer than a leader waits for a sign of life."""

    async def check() -> None:
        channel = await following(make_follower())
        frames = snapshot_frames(state_of(SAMPLE), STABLE)
        for frame in frames[:20]:
            channel.say_bytes(frame)
        await channel.ask(Heartbeat(200, STABLE))
        for frame in frames[20:]:
            channel.say_bytes(frame)
        assert await channel.heard() == CaughtUp(STABLE)

    run(check)
