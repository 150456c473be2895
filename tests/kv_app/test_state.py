"""What a replica holds: the same entries give the same state, in whatever order they come."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from kv_app.messages import Change, Entry, Operation, Version
from kv_app.state import BUCKETS, CONFIG_KEY, State, bucket_of

if TYPE_CHECKING:
    import random

    import pytest

KEYS = ["a", "b", "c"]
# They meet in one bucket, as the digest of a bucket is about several keys.
NEIGHBOURS = [key for key in map(str, range(4_000)) if bucket_of(key) == bucket_of("0")][:4]


def make_entry(position: tuple[int, int], key: str, value: str | None) -> Entry:
    """Returns a put, or a delete if the value is None."""
    operation = Operation.DELETE if value is None else Operation.PUT
    return Entry(*position, int(operation), key, value, None)


def make_batch(position: tuple[int, int], values: dict[str, str | None]) -> Entry:
    """Returns a batch that changes these keys."""
    changes = tuple(Change(key, value) for key, value in values.items())
    return Entry(*position, int(Operation.BATCH), "", None, None, changes)


positions = st.tuples(st.integers(min_value=1, max_value=3), st.integers(min_value=1, max_value=12))
values = st.none() | st.text(max_size=3)
writes = st.tuples(st.sampled_from(KEYS + NEIGHBOURS), values)
batches = st.dictionaries(st.sampled_from(KEYS + NEIGHBOURS), values, max_size=4)
# One entry per position, as a cluster has it.
logs = st.dictionaries(positions, writes | batches, max_size=20).map(
    lambda log: [
        make_batch(position, what) if isinstance(what, dict) else make_entry(position, *what)
        for position, what in log.items()
    ]
)


def newest_of(entries: list[Entry]) -> dict[str, Version]:
    """Returns the state as its definition has it: per key what the highest position wrote."""
    newest: dict[str, Version] = {}
    for entry in sorted(entries, key=lambda entry: (entry.epoch, entry.seq)):
        is_batch = entry.operation == Operation.BATCH
        changes = entry.changes if is_batch else (Change(entry.key, entry.value),)
        newest |= {c.key: Version(c.value, entry.epoch, entry.seq) for c in changes}
    return newest


def tuple_hash(numbers: tuple[int, ...]) -> int:
    """Returns how CPython hashes a tuple of numbers: a lane of xxHash for each, in 64 bits."""
    prime_1, prime_2, prime_5 = 11400714785074694791, 14029467366897019727, 2870177450012600261
    mixed = prime_5
    for number in numbers:
        mixed = (mixed + number * prime_2) % 2**64
        mixed = (mixed << 31 | mixed >> 33) * prime_1 % 2**64
    mixed = (mixed + (len(numbers) ^ prime_5 ^ 3527539)) % 2**64
    return mixed - 2**64 if mixed >= 2**63 else mixed


def remainder(number: int) -> int:
    """Returns how CPython hashes a number: the remainder by a prime, with the number's sign."""
    return abs(number) % (2**61 - 1) * (1 if number >= 0 else -1)


def digests_of(versions: dict[str, Version]) -> list[int]:
    """Returns the digests as their definition has them: per bucket the sum over its live keys."""
    sums = [0] * 256
    for key, version in versions.items():
        if version.value is not None:
            lanes = crc32(key.encode()), crc32(version.value.encode()), version.epoch, version.seq
            sums[crc32(key.encode()) % 256] += remainder(tuple_hash(lanes) ** 3)
    return [total % 2**64 for total in sums]


def filled(entries: list[Entry]) -> State:
    """Returns a state that took these entries."""
    state = State()
    for entry in entries:
        state.apply(entry)
    return state


def all_versions(state: State) -> dict[str, Version]:
    """Returns all that a state holds, deletions too."""
    return {
        key: version for number in range(BUCKETS) for key, version in state.bucket(number).items()
    }


def check_against(state: State, model: dict[str, Version]) -> None:
    """Compares all that a state tells with a plain dict of versions."""
    assert all_versions(state) == model
    assert len(state) == len(model)
    assert state.tombstones == sum(version.value is None for version in model.values())
    assert state.digests() == digests_of(model)
    assert state.values() == {k: v.value for k, v in model.items() if v.value is not None}


@given(logs, st.randoms(use_true_random=False))
def test_state_of_the_same_entries_in_any_order_is_the_same(
    entries: list[Entry], rng: random.Random
) -> None:
    """Order and repetition make no difference: per key the highest position wins."""
    arrivals = entries + rng.choices(entries, k=5) if entries else []
    rng.shuffle(arrivals)
    check_against(filled(arrivals), newest_of(entries))


@given(st.lists(st.tuples(positions, writes), max_size=20))
def test_version_of_a_key_never_goes_back(
    steps: list[tuple[tuple[int, int], tuple[str, str | None]]],
) -> None:
    """After any install a key's version is the old one or a newer one, and it says which."""
    state = State()
    for position, (key, value) in steps:
        before = state.read(key)
        is_newer = before is None or position > (before.epoch, before.seq)
        assert state.install(key, Version(value, *position)) == is_newer
        # One value per position: the first stays.
        assert state.read(key) == (Version(value, *position) if is_newer else before)


def test_deletion_is_a_version_without_a_value() -> None:
    """A deleted key keeps its tombstone, so that an older put that arrives later stays deleted."""
    state = State()
    state.apply(make_entry((1, 2), "a", None))
    state.apply(make_entry((1, 1), "a", "late"))
    assert state.read("a") == Version(None, 1, 2)
    assert state.values() == {}
    state.apply(make_entry((1, 3), "a", ""))
    assert state.values() == {"a": ""}


def test_entry_that_writes_no_key_changes_nothing() -> None:
    """No-ops take positions, not keys."""
    state = State()
    state.apply(Entry(1, 1, int(Operation.NOOP), "", "value", None))
    check_against(state, {})


def test_configuration_is_kept_like_a_key_that_nobody_sees() -> None:
    """Replicas that differ in it have other digests; a dump does not show it."""
    state, other = State(), State()
    state.apply(Entry(1, 1, int(Operation.CONFIG), "", "{}", None))
    assert state.read(CONFIG_KEY) == Version("{}", 1, 1)
    assert (state.values(), state.keys) == ({}, 0)
    assert state.bucket(bucket_of(CONFIG_KEY)) == {}
    assert not any(part for _, part, _ in state.bucket_chunks(10, 10))
    assert [part for _, part, _ in state.settled_chunks(10, 10) if part] == [
        {CONFIG_KEY: Version("{}", 1, 1)}
    ]
    assert state.digests() != other.digests()


@given(
    st.permutations(range(1, 9)),
    st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.just("v")), min_size=8, max_size=8),
    st.integers(0, 8),
)
def test_what_is_not_settled_can_be_taken_back(
    order: list[int], writes: list[tuple[str, str | None]], settled: int
) -> None:
    """Against the obvious model: only what is settled was ever applied.

    Entries come in any order; those up to a position settle, as they have come.
    """
    state, model = State(), State()
    entries = {seq: make_entry((1, seq), *write) for seq, write in enumerate(writes, start=1)}
    done = 0
    for seq in order:
        state.apply_unsettled(entries[seq])
        come = set(order[: order.index(seq) + 1])
        while done < settled and done + 1 in come:
            done += 1
            state.settle([entries[done]])
    check_against(state, newest_of(list(entries.values())))
    assert done == settled
    for seq in range(1, settled + 1):
        model.apply(entries[seq])
    chunks = {k: v for _, part, _ in state.settled_chunks(10, 99) for k, v in part.items()}
    assert chunks == all_versions(model)
    state.revert()
    assert not state.has_unsettled
    check_against(state, all_versions(model))
    for seq in range(settled + 1, 9):
        state.apply_unsettled(entries[seq])
    check_against(state, newest_of(list(entries.values())))


def test_keys_spread_evenly_over_the_buckets() -> None:
    """No bucket of many similar keys is far larger than the others."""
    state = filled([make_entry((1, seq), f"user:{seq}", "") for seq in range(1, 20_001)])
    sizes = [len(state.bucket(number)) for number in range(BUCKETS)]
    assert max(sizes) < 2 * 20_000 / BUCKETS


@given(st.lists(st.text(min_size=1, max_size=3), unique=True, min_size=2, max_size=len(NEIGHBOURS)))
def test_digest_of_another_value_position_or_key_is_another(texts: list[str]) -> None:
    """A wrong or swapped value, another position, a lost key: each shows, in its bucket alone."""
    contents: dict[str, str | None] = dict(zip(NEIGHBOURS, texts, strict=False))
    expected = filled([make_batch((1, 1), contents)]).digests()
    one, other = NEIGHBOURS[:2]
    changed = {
        "swapped values": make_batch(
            (1, 1), contents | {one: contents[other], other: contents[one]}
        ),
        "another value": make_batch((1, 1), contents | {one: contents[other]}),
        "a lost key": make_batch((1, 1), {k: v for k, v in contents.items() if k != one}),
        "another seq": make_batch((1, 2), contents),
        "another epoch": make_batch((2, 1), contents),
    }
    for what, entry in changed.items():
        found = filled([entry]).digests()
        differ = [n for n in range(BUCKETS) if found[n] != expected[n]]
        assert differ == [bucket_of(one)], what


@given(logs, logs, positions)
def test_forgotten_deletions_are_all_at_or_below_the_position(
    first: list[Entry], second: list[Entry], position: tuple[int, int]
) -> None:
    """Values stay whatever is forgotten; a later deletion above the position stays."""
    state = filled(first)
    before = newest_of(first)
    forgotten = state.forget_deletions(position[1])
    for key in forgotten:
        assert before[key].value is None
        assert before[key].seq <= position[1]
    held = {key: version for key, version in before.items() if key not in forgotten}
    check_against(state, held)
    assert len(set(forgotten)) == len(forgotten)
    # And it goes on as if the forgotten had never been there.
    for entry in second:
        state.apply(entry)
    rest = filled([])
    for key, version in held.items():
        rest.install(key, version)
    for entry in second:
        rest.apply(entry)
    check_against(state, all_versions(rest))


@given(logs)
def test_all_deletions_are_forgotten_at_the_highest_position(entries: list[Entry]) -> None:
    """Nothing of a deletion remains, in whatever order they came."""
    state = filled(entries)
    state.forget_deletions(1 << 40)
    live = {key: v for key, v in newest_of(entries).items() if v.value is not None}
    check_against(state, live)
    assert state.forget_deletions(1 << 40) == []


def test_deletion_that_may_not_be_forgotten_yet_delays_later_ones_only() -> None:
    """Those before it go, it and those behind it go with it later; a replaced one delays none."""
    state = State()
    for seq, key in [(1, "a"), (9, "b"), (2, "c"), (8, "d")]:
        state.apply(make_entry((1, seq), key, None))
    assert state.forget_deletions(5) == ["a"]
    state.apply(make_entry((1, 10), "b", "again"))
    assert state.forget_deletions(5) == ["c"]
    assert state.forget_deletions(8) == ["d"]
    check_against(state, {"b": Version("again", 1, 10)})


@given(logs, logs, positions)
def test_state_that_took_a_snapshot_holds_it_and_what_is_newer(
    source_log: list[Entry], own_log: list[Entry], position: tuple[int, int]
) -> None:
    """Chunks, then dropping what they lack: the copy equals a model that does it key by key."""
    source, copy = filled(source_log), filled(own_log)
    model, snapshot = newest_of(own_log), newest_of(source_log)
    present: set[str] = set()
    for bucket, part, ends_bucket in source.bucket_chunks(2, 5):
        present |= part.keys()
        for key, version in part.items():
            copy.install(key, version)
        if ends_bucket:
            copy.drop_missing(bucket, present, position[1])
            present.clear()
    for key, version in snapshot.items():
        old = model.get(key)
        if old is None or (version.epoch, version.seq) > (old.epoch, old.seq):
            model[key] = version
    kept = {k: v for k, v in model.items() if k in snapshot or v.seq > position[1]}
    check_against(copy, kept)


def test_dropped_keys_are_named_and_other_buckets_left_alone() -> None:
    """Who keeps the state on disk learns what to remove there."""
    state = filled([make_entry((1, 1), "a", "1"), make_entry((1, 2), NEIGHBOURS[0], None)])
    assert state.drop_missing(bucket_of(NEIGHBOURS[0]), set(), 2) == [NEIGHBOURS[0]]
    check_against(state, {"a": Version("1", 1, 1)})


def test_what_a_snapshot_lacks_beneath_an_uncommitted_version_is_named_too() -> None:
    """The disk still has it, and it would be shown again once the newer one is taken back."""
    state = filled([make_entry((1, 1), "a", "old")])
    state.apply_unsettled(make_entry((1, 9), "a", "not committed"))
    assert state.drop_missing(bucket_of("a"), set(), 5) == ["a"]
    check_against(state, {"a": Version("not committed", 1, 9)})
    state.revert()
    check_against(state, {})


def test_end_of_a_bucket_looks_at_its_own_keys_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncommitted keys of other buckets are not gone through, 256 times a snapshot."""
    state = State()
    keys = [f"k{number}" for number in range(2 * BUCKETS)]
    for seq, key in enumerate(keys, 1):
        state.apply_unsettled(make_entry((1, seq), key, "v"))
    sums: list[bytes] = []
    monkeypatch.setattr("kv_app.state.crc32", lambda data: (sums.append(data), crc32(data))[1])
    for bucket in range(BUCKETS):
        state.drop_missing(bucket, set(keys), 1 << 40)
    assert len(sums) <= len(keys)


def test_copy_of_a_bucket_is_not_the_bucket() -> None:
    """It holds its moment, and changing it changes nothing."""
    state = filled([make_entry((1, 1), "a", "1")])
    copy = state.bucket(bucket_of("a"))
    copy.clear()
    state.apply(make_entry((1, 2), "a", "2"))
    check_against(state, {"a": Version("2", 1, 2)})


@given(
    st.dictionaries(
        st.sampled_from(NEIGHBOURS) | st.text(min_size=1, max_size=6),
        st.none() | st.text(max_size=6),
        max_size=20,
    ),
    st.integers(min_value=1, max_value=5),
    st.integers(min_value=1, max_value=12),
)
def test_chunks_hold_every_key_once_within_their_limits(
    data: dict[str, str | None], max_keys: int, max_chars: int
) -> None:
    """Each bucket is ended once, in order; a part is over its size only for a single larger key."""
    state = filled(
        [make_entry((1, seq), *write) for seq, write in enumerate(data.items(), start=1)]
    )
    chunks = list(state.bucket_chunks(max_keys, max_chars))
    assert [bucket for bucket, _, ends in chunks if ends] == list(range(BUCKETS))
    assert [bucket for bucket, _, _ in chunks] == sorted(bucket for bucket, _, _ in chunks)
    assert sorted(key for _, part, _ in chunks for key in part) == sorted(data)
    for bucket, part, ends_bucket in chunks:
        assert all(bucket_of(key) == bucket for key in part)
        assert len(part) <= max_keys
        assert part or (ends_bucket and not state.bucket(bucket))
        chars = sum(len(key) + len(version.value or "") for key, version in part.items())
        assert chars <= max_chars or len(part) == 1
    assert {k: v.value for _, part, _ in chunks for k, v in part.items()} == data


def test_chunks_of_a_state_that_changes_meanwhile_hold_the_versions_of_their_moment() -> None:
    """A stream of the state takes several turns; writes between them neither break nor stop it."""
    one, two, three, late = NEIGHBOURS
    state = State()
    for seq, key in enumerate([one, two, three], start=1):
        state.apply(make_entry((1, seq), key, None if key == three else "1"))
    bucket = bucket_of(one)
    parts = state.bucket_chunks(1, 100)
    before = [next(parts) for _ in range(bucket + 1)]
    assert before[-1] == (bucket, {one: Version("1", 1, 1)}, False)
    state.apply(make_entry((1, 4), two, "2"))
    state.apply(make_entry((1, 5), late, "1"))
    state.forget_deletions(3)
    assert next(parts) == (bucket, {two: Version("2", 1, 4)}, False)
    assert next(parts) == (bucket, {}, True)
    assert [number for number, _, _ in parts] == list(range(bucket + 1, BUCKETS))
