"""What a replica holds: the same entries give the same state, in whatever order they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app.messages import Entry, Operation, Version
from kv_app.state import State

if TYPE_CHECKING:
    import random

KEYS = ["a", "b", "c"]


def make_entry(position: tuple[int, int], key: str, value: str | None) -> Entry:
    """Returns a put, or a delete if the value is None."""
    operation = Operation.DELETE if value is None else Operation.PUT
    return Entry(*position, int(operation), key, value, None)


positions = st.tuples(st.integers(min_value=1, max_value=3), st.integers(min_value=1, max_value=12))
writes = st.tuples(st.sampled_from(KEYS), st.none() | st.text(max_size=3))
# One entry per position, as a cluster has it.
logs = st.dictionaries(positions, writes, max_size=20).map(
    lambda log: [make_entry(position, *write) for position, write in log.items()]
)


def newest_of(entries: list[Entry]) -> dict[str, Version]:
    """Returns the state as its definition has it: per key the entry with the highest position."""
    ordered = sorted(entries, key=lambda entry: (entry.epoch, entry.seq))
    return {entry.key: Version(entry.value, entry.epoch, entry.seq) for entry in ordered}


def all_versions(state: State) -> dict[str, Version]:
    """Returns all that a state holds, deletions too."""
    return {key: version for part in state.chunks(1000, 10**9) for key, version in part.items()}


@given(logs, st.randoms(use_true_random=False))
def test_state_of_the_same_entries_in_any_order_is_the_same(
    entries: list[Entry], rng: random.Random
) -> None:
    """Order and repetition make no difference: per key the highest position wins."""
    arrivals = entries + rng.choices(entries, k=5) if entries else []
    rng.shuffle(arrivals)
    state = State()
    for entry in arrivals:
        state.apply(entry)
    assert all_versions(state) == newest_of(entries)
    assert len(state) == len(newest_of(entries))


@given(st.lists(st.tuples(positions, writes), max_size=20))
def test_version_of_a_key_never_goes_back(
    steps: list[tuple[tuple[int, int], tuple[str, str | None]]],
) -> None:
    """After any entry a key's version is the old one or a newer one."""
    state = State()
    for position, (key, value) in steps:
        before = state.read(key)
        state.apply(make_entry(position, key, value))
        after = state.read(key)
        assert after is not None
        if before is not None:
            assert (after.epoch, after.seq) >= (before.epoch, before.seq)
            if (after.epoch, after.seq) == (before.epoch, before.seq):
                assert after == before  # one value per position: the first stays


@given(logs)
def test_state_installed_from_a_snapshot_equals_the_state_applied(entries: list[Entry]) -> None:
    """Chunks carry everything, deletions too, and may meet newer versions without harm."""
    source, copy = State(), State()
    for entry in entries:
        source.apply(entry)
    for entry in entries[::2]:
        copy.apply(entry)
    for part in source.chunks(2, 5):
        for key, version in part.items():
            copy.install(key, version)
    assert all_versions(copy) == all_versions(source)
    assert copy.values() == source.values()


def test_deletion_is_a_version_without_a_value() -> None:
    """A deleted key keeps its tombstone, so that an older put that arrives later stays deleted."""
    state = State()
    state.apply(make_entry((1, 2), "a", None))
    state.apply(make_entry((1, 1), "a", "late"))
    assert state.read("a") == Version(None, 1, 2)
    assert state.values() == {}
    state.apply(make_entry((1, 3), "a", ""))
    assert state.values() == {"a": ""}


@pytest.mark.parametrize("operation", [Operation.NOOP, Operation.CONFIG])
def test_entry_that_writes_no_key_changes_nothing(operation: Operation) -> None:
    """No-ops and configuration take positions, not keys."""
    state = State()
    state.apply(Entry(1, 1, int(operation), "a", "value", None))
    assert state.read("a") is None
    assert len(state) == 0


@given(
    st.dictionaries(st.text(max_size=6), st.none() | st.text(max_size=6), max_size=20),
    st.integers(min_value=1, max_value=5),
    st.integers(min_value=1, max_value=12),
)
def test_chunks_hold_every_key_once_within_their_limits(
    data: dict[str, str | None], max_keys: int, max_chars: int
) -> None:
    """Every key is in exactly one part; a part is over its size only for a single larger key."""
    state = State()
    for seq, (key, value) in enumerate(data.items(), start=1):
        state.apply(make_entry((1, seq), key, value))
    parts = list(state.chunks(max_keys, max_chars))
    assert [key for part in parts for key in part] == list(data)
    for part in parts:
        assert 1 <= len(part) <= max_keys
        chars = sum(len(key) + len(version.value or "") for key, version in part.items())
        assert chars <= max_chars or len(part) == 1
    assert {k: v.value for part in parts for k, v in part.items()} == data


def test_chunks_of_a_state_that_changes_meanwhile_hold_the_versions_of_their_moment() -> None:
    """A stream of the state takes several turns; writes between them neither break nor stop it."""
    state = State()
    state.apply(make_entry((1, 1), "a", "1"))
    state.apply(make_entry((1, 2), "b", "1"))
    parts = state.chunks(1, 100)
    assert next(parts) == {"a": Version("1", 1, 1)}
    state.apply(make_entry((1, 3), "b", "2"))
    state.apply(make_entry((1, 4), "new", "1"))
    # The second part was begun with its first key before the first part was handed out.
    rest = {key: version for part in parts for key, version in part.items()}
    assert list(rest) == ["b"]
    assert rest["b"].seq in {2, 3}
