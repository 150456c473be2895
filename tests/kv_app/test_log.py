"""The log, what a replica holds of it, and idempotency keys, against slow obvious models."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kv_app.delays import DelayModel
from kv_app.log import (
    EntryLog,
    HeldPositions,
    IdempotencyIndex,
    Log,
    LogRecord,
    fingerprint_of,
    memory_of,
    memory_of_record,
    to_ranges,
)
from kv_app.messages import Change, Entry, Operation, RememberedWrite, SeqRange

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

NO_LIMIT = 1 << 40
SMALL_SEQS = st.integers(min_value=1, max_value=40)


def make_record(
    seq: int, idempotency_key: str | None = None, size_bytes: int = 0, epoch: int = 1
) -> LogRecord:
    """Returns the record of a put of a key of its own."""
    entry = Entry(epoch, seq, int(Operation.PUT), f"key{seq}", "value", idempotency_key)
    return LogRecord(entry, bytes(size_bytes), 0, DelayModel(), 1, 1)


def make_log(entries: int, capacity: int = 1000) -> Log:
    """Returns a log with so many entries, none of them dropped."""
    log = Log(capacity, NO_LIMIT)
    for seq in range(1, entries + 1):
        log.append(make_record(seq))
    return log


# --- positions that a replica holds -----------------------------------------------------------

changes = st.one_of(
    st.tuples(st.just("add"), SMALL_SEQS, st.just(0)),
    st.tuples(st.just("add_range"), SMALL_SEQS, st.integers(min_value=0, max_value=10)),
    st.tuples(st.just("advance"), SMALL_SEQS, st.just(0)),
)


def change(held: HeldPositions, model: set[int], step: tuple[str, int, int]) -> None:
    """Applies one step to both, and checks what the step itself returns."""
    name, seq, more = step
    if name == "add":
        assert held.add(seq) is (seq not in model)
        model.add(seq)
    elif name == "add_range":
        held.add_range(seq, seq + more)
        model.update(range(seq, seq + more + 1))
    else:
        held.advance(seq)
        model.update(range(1, seq + 1))


def contiguous_of(model: set[int]) -> int:
    """Returns the highest number below which none is missing."""
    seq = 0
    while seq + 1 in model:
        seq += 1
    return seq


@given(st.lists(changes, max_size=30))
def test_held_positions_after_any_changes_tell_what_a_set_tells(
    steps: list[tuple[str, int, int]],
) -> None:
    """In whatever order positions come, all numbers are those of the plain set of them."""
    held, model = HeldPositions(), set[int]()
    for step in steps:
        change(held, model, step)
        contiguous = contiguous_of(model)
        newest = max(model, default=0)
        assert held.contiguous == contiguous
        assert held.max_seq == newest
        assert held.holes == sum(seq not in model for seq in range(1, newest))
        assert {seq for seq in range(1, 60) if held.holds(seq)} == model
        above = [seq for span in held.ranges_above() for seq in range(span.first, span.last + 1)]
        assert above == sorted(seq for seq in model if seq > contiguous)


@given(st.lists(changes, max_size=20))
def test_held_positions_told_and_read_again_are_equal(steps: list[tuple[str, int, int]]) -> None:
    """``contiguous`` and ``ranges_above`` say everything: whoever reads them holds an equal one."""
    held = HeldPositions()
    for step in steps:
        change(held, {seq for seq in range(1, 60) if held.holds(seq)}, step)
    told = HeldPositions(held.contiguous)
    for span in held.ranges_above():
        told.add_range(span.first, span.last)
    assert told == held
    told.add(told.max_seq + 1)
    assert told != held


def test_held_positions_compared_with_another_type_are_not_equal() -> None:
    """A comparison with something else is no error, and they are not hashable: they change."""
    assert HeldPositions() != 0
    with pytest.raises(TypeError, match="unhashable"):
        hash(HeldPositions())


def test_held_positions_of_a_snapshot_start_contiguous() -> None:
    """A replica that begins at a position holds everything up to it."""
    held = HeldPositions(7)
    assert (held.contiguous, held.max_seq, held.holes) == (7, 7, 0)
    assert held.holds(1)
    assert not held.add(7)
    assert held.add(8)


def test_held_positions_above_a_hole_take_no_memory_of_their_own() -> None:
    """A range stays one: a peer may name one that no memory could hold, position by position."""
    held = HeldPositions(3)
    held.add_range(5, 1 << 62)
    held.add_range(10, 1 << 61)
    assert held.ranges_above() == [SeqRange(5, 1 << 62)]
    assert held.holes == 1
    assert held.add(4)
    assert (held.contiguous, held.ranges_above()) == (1 << 62, [])


# --- ranges -----------------------------------------------------------------------------------


@given(st.lists(SMALL_SEQS, max_size=40))
def test_to_ranges_in_any_order_keeps_every_number(seqs: list[int]) -> None:
    """Nothing is lost, added or reordered."""
    spans = to_ranges(seqs)
    assert [seq for span in spans for seq in range(span.first, span.last + 1)] == seqs


@given(st.sets(SMALL_SEQS))
def test_to_ranges_of_sorted_numbers_is_as_short_as_can_be(seqs: set[int]) -> None:
    """One range per run: a new one starts exactly where the number before is missing."""
    spans = to_ranges(sorted(seqs))
    assert [span.first for span in spans] == sorted(s for s in seqs if s - 1 not in seqs)
    assert [span.last for span in spans] == sorted(s for s in seqs if s + 1 not in seqs)


def test_to_ranges_of_examples() -> None:
    """The shape of the result, spelled out."""
    assert to_ranges([]) == []
    assert to_ranges([4]) == [SeqRange(4, 4)]
    assert to_ranges([1, 2, 3, 7, 9, 10]) == [SeqRange(1, 3), SeqRange(7, 7), SeqRange(9, 10)]


# --- the log ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", [1, 2, 4])
def test_log_append_of_another_than_the_next_seq_is_refused(seq: int) -> None:
    """Positions have no gaps and no second meaning; a refused one changes nothing."""
    log = make_log(2)
    with pytest.raises(ValueError, match=f"seq {seq} does not follow 2"):
        log.append(make_record(seq))
    assert (len(log), log.last_seq) == (2, 2)


@given(
    capacity=st.integers(min_value=1, max_value=8),
    entries=st.integers(min_value=0, max_value=20),
    stable=st.integers(min_value=0, max_value=20),
)
def test_log_trim_drops_the_oldest_over_capacity_and_nothing_above_stable(
    capacity: int, entries: int, stable: int
) -> None:
    """What remains is the suffix that the rule leaves, and it is found at its positions."""
    stable = min(stable, entries)
    log = make_log(entries, capacity)
    log.trim(stable)
    dropped = max(0, min(entries - capacity, stable))
    assert log.first_seq == dropped + 1
    assert len(log) == entries - dropped
    for seq in range(1, entries + 2):
        record = log.get(seq)
        if dropped < seq <= entries:
            assert record is not None
            assert record.entry.seq == seq
        else:
            assert record is None


@given(
    capacity=st.integers(min_value=1, max_value=8),
    max_bytes=st.integers(min_value=1, max_value=3000),
    sizes=st.lists(st.integers(min_value=0, max_value=30), max_size=20),
    stable=st.integers(min_value=0, max_value=20),
)
def test_log_trim_drops_the_oldest_while_either_limit_is_exceeded(
    capacity: int, max_bytes: int, sizes: list[int], stable: int
) -> None:
    """It keeps as much as fits, and knows its size; one that begins later has dropped the rest."""
    stable = min(stable, len(sizes))
    log = Log(capacity, max_bytes, last_seq=100)
    for seq, size in enumerate(sizes, 101):
        log.append(make_record(seq, size_bytes=size))
    sizes = [size + memory_of_record(make_record(101)) for size in sizes]
    assert log.size_bytes == sum(sizes)
    log.trim(100 + stable)
    dropped = 0
    while dropped < stable and (
        len(sizes) - dropped > capacity or sum(sizes[dropped:]) > max_bytes
    ):
        dropped += 1
    assert log.first_seq == 101 + dropped
    assert len(log) == len(sizes) - dropped
    assert log.size_bytes == sum(sizes[dropped:])


@pytest.mark.parametrize(
    ("spare_bytes", "stable", "has_room"), [(1, 0, True), (0, 0, False), (0, 1, True)]
)
def test_log_that_is_full_of_bytes_has_room_once_something_may_be_dropped(
    spare_bytes: int, stable: int, *, has_room: bool
) -> None:
    """One entry may exceed the limit, but none joins it."""
    record = make_record(1)
    log = Log(100, memory_of_record(record) + spare_bytes)
    log.append(record)
    assert log.has_room(stable) is has_room


@pytest.mark.parametrize(
    ("capacity", "records", "limit"), [(2, 2, "LOG_ENTRIES"), (20, 2, "LOG_BYTES")]
)
def test_log_names_the_setting_that_keeps_it_short(capacity: int, records: int, limit: str) -> None:
    """Who raises the other one is helped by nothing."""
    log = Log(capacity, 10_000)
    for seq in range(1, records + 1):
        log.append(make_record(seq, size_bytes=4000))
    assert log.limit == limit


@pytest.mark.parametrize("text", ["x" * 20, "x" * 1000, "é漢" * 500])
@pytest.mark.parametrize("idempotency_key", [None, "a name of the client's own choice"])
def test_log_counts_about_what_its_records_take_in_memory(
    text: str, idempotency_key: str | None
) -> None:
    """``LOG_BYTES`` is a limit of memory: a record holds its texts beside their encoded form."""
    records = 500
    log, replicas = Log(records, NO_LIMIT), EntryLog(records, NO_LIMIT)
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(Entry).decode
    name = f"{idempotency_key} %d" if idempotency_key else None
    tracemalloc.start()
    for seq in range(1, records + 1):
        name_of_one = name % seq if name else None
        entry = Entry(1, seq, int(Operation.PUT), f"key {seq}", f"{text} {seq}", name_of_one)
        log.append(LogRecord(entry, encode(entry), 10**15 + seq, DelayModel(), 1, 1))
    taken, _ = tracemalloc.get_traced_memory()
    frames = [record.encoded for record in log]
    before, _ = tracemalloc.get_traced_memory()
    replicas.extend(map(decode, frames))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.6 < log.size_bytes / taken < 1.4
    assert 0.6 < replicas.size_bytes / (after - before) < 1.8


@given(
    capacity=st.integers(min_value=1, max_value=8),
    entries=st.integers(min_value=0, max_value=20),
    stable=st.integers(min_value=0, max_value=20),
)
def test_log_has_room_exactly_when_a_trim_keeps_one_more_within_capacity(
    capacity: int, entries: int, stable: int
) -> None:
    """Asked of a log within its capacity, the answer is what append and trim would come to."""
    stable = min(stable, entries)
    log = make_log(entries, capacity)
    log.trim(entries)
    has_room = log.has_room(stable)
    log.append(make_record(entries + 1))
    log.trim(stable)
    assert has_room == (len(log) <= capacity)


def test_log_between_two_positions_is_all_that_is_there_ascending() -> None:
    """Who catches up reads it part by part."""
    log = make_log(10, capacity=6)
    log.trim(10)
    assert [record.entry.seq for record in log.between(5, 8)] == [5, 6, 7, 8]
    assert log.between(8, 7) == []
    with pytest.raises(KeyError):
        log.between(4, 5)


# --- the entries of a replica ------------------------------------------------------------------

entry_steps = st.one_of(
    st.tuples(st.just("extend"), st.lists(SMALL_SEQS, max_size=6, unique=True)),
    st.tuples(st.sampled_from(["drop_above", "skip_to", "trim"]), SMALL_SEQS),
    st.tuples(st.just("clear"), st.none()),
)


def take_step(log: EntryLog, model: dict[int, Entry], name: str, argument: Any) -> None:
    """Does one step to both."""
    match name:
        case "extend":
            new = [seq for seq in argument if seq > log.start and seq not in model]
            entries = [make_record(seq).entry for seq in new]
            entries = [replace(one, changes=(Change("k", "x" * one.seq),)) for one in entries]
            log.extend(entries)
            model.update((entry.seq, entry) for entry in entries)
        case "drop_above":
            log.drop_above(argument)
            for seq in [seq for seq in model if seq > argument]:
                del model[seq]
        case "skip_to":
            log.skip_to(argument)
            for seq in [seq for seq in model if seq <= argument]:
                del model[seq]
            assert log.start >= argument
        case "clear":
            log.clear()
            model.clear()


def size_of(entries: Iterable[Entry]) -> int:
    """What entries take together."""
    return sum(memory_of(entry) for entry in entries)


@given(
    steps=st.lists(entry_steps, max_size=12),
    capacity=st.integers(min_value=0, max_value=8),
    max_bytes=st.integers(min_value=0, max_value=4000),
)
def test_log_of_a_replica_holds_the_newest_entries_within_its_limits(
    steps: list[tuple[str, Any]], capacity: int, max_bytes: int
) -> None:
    """Against a dict: only a trim drops by itself, the oldest, and none that is not settled."""
    log, model = EntryLog(capacity, max_bytes), dict[int, Entry]()
    for name, argument in steps:
        if name == "trim":
            log.trim(argument)
            left = log.above(0)
            for entry in [one for seq, one in model.items() if log.get(seq) is None]:
                del model[entry.seq]
                assert entry.seq <= min(argument, log.start)
                # It did not fit beside those that are newer, which are all still there.
                newer = [one for one in left if one.seq > entry.seq]
                assert len(newer) == len(left)
                too_large = size_of([entry, *left]) > max_bytes
                assert len(left) + 1 > capacity or too_large
            assert (len(left) <= capacity and size_of(left) <= max_bytes) or (log.start >= argument)
        else:
            take_step(log, model, name, argument)
        assert log.above(0) == [model[seq] for seq in sorted(model)]
        assert (
            log.above(20)
            == log.between(21, 40)
            == [model[seq] for seq in sorted(model) if seq > 20]
        )
        assert (len(log), log.size_bytes) == (len(model), size_of(model.values()))


def test_entries_between_positions_far_apart_are_found_without_a_walk() -> None:
    """A snapshot moves a replica over millions of positions of which it has no entry."""
    log = EntryLog(10, NO_LIMIT)
    log.extend(make_record(seq).entry for seq in (7, 5, 9))
    assert [entry.seq for entry in log.between(1, 1 << 62)] == [5, 7, 9]
    assert [entry.seq for entry in log.between(6, 8)] == [7]


# --- idempotency keys --------------------------------------------------------------------------


@given(
    capacity=st.integers(min_value=0, max_value=5),
    keys=st.lists(st.integers(min_value=0, max_value=30), unique=True, max_size=12),
)
def test_idempotency_index_remembers_the_last_keys_and_no_others(
    capacity: int, keys: list[int]
) -> None:
    """It forgets by count, oldest first; what it remembers it tells in full."""
    index = IdempotencyIndex(capacity)
    for seq, key in enumerate(keys, start=1):
        index.remember(make_record(seq, str(key)).entry)
    remembered = keys[len(keys) - min(capacity, len(keys)) :]
    for seq, key in enumerate(keys, start=1):
        found = index.find(str(key))
        if key in remembered:
            assert found is not None
            assert (found.epoch, found.seq, found.acks) == (1, seq, 0)
            assert found.fingerprint == fingerprint_of(Operation.PUT, f"key{seq}", "value")
        else:
            assert found is None


def test_idempotency_index_keeps_the_acknowledgments_of_a_commit() -> None:
    """A retry after the entry left the log is told what the first answer said."""
    index = IdempotencyIndex(1)
    index.remember(make_record(1, "a").entry)
    index.committed("a", 3)
    found = index.find("a")
    assert found is not None
    assert found.acks == 3


def test_idempotency_index_forgets_a_dropped_entry_and_no_other_with_its_key() -> None:
    """The key of what an epoch drops may be used again; that of another position stays."""
    index = IdempotencyIndex(3)
    index.remember(make_record(1, "a").entry)
    index.forget(make_record(2, "a").entry)
    index.forget(make_record(1, "a", epoch=2).entry)
    index.forget(make_record(1).entry)
    assert index.find("a") is not None
    index.forget(make_record(1, "a").entry)
    assert index.find("a") is None
    index.remember(make_record(5, "a").entry)
    found = index.find("a")
    assert found is not None
    assert found.seq == 5


def test_idempotency_index_ignores_the_commit_of_a_forgotten_key() -> None:
    """A write may commit after its key was forgotten; that is no error and brings nothing back."""
    index = IdempotencyIndex(1)
    index.remember(make_record(1, "a").entry)
    index.remember(make_record(2, "b").entry)
    index.committed("a", 3)
    assert index.find("a") is None
    found = index.find("b")
    assert found is not None
    assert found.acks == 0


def test_idempotency_index_that_is_empty_has_no_oldest_and_is_full_only_without_room() -> None:
    """The oldest write tells what the disk may forget: nothing, if nothing is remembered."""
    assert IdempotencyIndex(1).oldest() == (0, 0)
    assert not IdempotencyIndex(1).is_full
    assert IdempotencyIndex(0).is_full


def test_idempotency_index_tells_what_it_remembers_and_is_restored_from_it() -> None:
    """Oldest first, up to a position; a restored one finds and forgets the same."""
    index = IdempotencyIndex(3)
    for seq in (1, 2, 3, 4):
        index.remember(make_record(seq, f"i{seq}").entry)
    index.remember(make_record(5).entry)  # has no key
    assert len(index) == 3
    assert index.is_full
    assert index.oldest() == (1, 2)
    told = list(index.remembered(3))
    assert [(write.idempotency_key, write.epoch, write.seq) for write in told] == [
        ("i2", 1, 2),
        ("i3", 1, 3),
    ]
    restored = IdempotencyIndex(2)
    for write in told:
        restored.restore(write)
    found, original = restored.find("i3"), index.find("i3")
    assert found is not None
    assert original is not None
    assert found.fingerprint == original.fingerprint
    restored.remember(make_record(6, "i6").entry)
    assert restored.find("i2") is None


@given(
    capacity=st.integers(min_value=0, max_value=5),
    uses=st.dictionaries(
        st.integers(min_value=1, max_value=30), st.sampled_from("abcdefg"), max_size=20
    ),
    order=st.randoms(use_true_random=False),
    upto=st.integers(min_value=0, max_value=31),
)
def test_idempotency_index_remembers_the_highest_positions_in_whatever_order_they_come(
    capacity: int, uses: dict[int, str], order: random.Random, upto: int
) -> None:
    """Live entries come before the older keys of a snapshot: the newest are never forgotten.

    Of a key that was used again the newest write counts.
    """
    index = IdempotencyIndex(capacity)
    for seq in order.sample(sorted(uses), len(uses)):
        if order.random() < 0.5:
            index.remember(make_record(seq, uses[seq]).entry)
        else:
            index.restore(RememberedWrite(uses[seq], b"f", 1, seq))
    newest = {key: seq for seq, key in sorted(uses.items())}
    model = sorted((seq, key) for key, seq in newest.items())
    model = model[len(model) - min(capacity, len(model)) :]
    told = list(index.remembered(upto))
    assert [(one.seq, one.idempotency_key) for one in told] == [
        (seq, key) for seq, key in model if seq <= upto
    ]
    found = {key: index.find(key) for key in uses.values()}
    assert {key: one.seq for key, one in found.items() if one} == {key: seq for seq, key in model}
    assert index.oldest() == ((1, model[0][0]) if model else (0, 0))
    assert (len(index), index.is_full) == (len(model), len(model) == capacity)


def test_idempotency_index_takes_the_newer_write_of_a_key_that_was_used_again() -> None:
    """A leader that forgot a key takes another write with it: all replicas then mean that one."""
    index = IdempotencyIndex(3)
    index.remember(make_record(4, "a").entry)
    index.remember(make_record(9, "a", epoch=2).entry)
    index.restore(RememberedWrite("a", b"f", 1, 1))
    assert index.oldest() == (2, 9)
    assert len(index) == 1
    index.forget(make_record(4, "a").entry)  # another write's
    assert index.find("a") is not None


def test_idempotency_index_forgets_a_dropped_key_that_came_late() -> None:
    """It is not there any more, and does not count when the next ones are forgotten."""
    index = IdempotencyIndex(2)
    for seq in (9, 3):
        index.remember(make_record(seq, f"i{seq}").entry)
    index.forget(make_record(3, "i3").entry)
    assert (len(index), index.oldest()) == (1, (1, 9))
    for seq in (4, 8):
        index.remember(make_record(seq, f"i{seq}").entry)
    assert [write.seq for write in index.remembered(99)] == [8, 9]
    index.forget(make_record(9, "i9").entry)
    assert index.oldest() == (1, 8)


operations = st.tuples(
    st.sampled_from([Operation.PUT, Operation.DELETE]),
    st.text(alphabet="a:1+-", max_size=4),
    st.none() | st.text(alphabet="a:1+-", max_size=4),
)


@given(operations, operations)
def test_fingerprints_are_equal_only_for_equal_operations(
    first: tuple[Operation, str, str | None], second: tuple[Operation, str, str | None]
) -> None:
    """Neither a value that looks like a key nor an absent one that looks empty is mistaken."""
    same = fingerprint_of(*first) == fingerprint_of(*second)
    assert same == (first == second)
    assert len(fingerprint_of(*first)) == 16


changed = st.lists(
    st.builds(
        Change, st.text(alphabet="a:1+-", max_size=3), st.none() | st.text("a:+", max_size=3)
    ),
    max_size=3,
).map(tuple)


@given(changed, changed)
def test_fingerprints_of_batches_are_equal_only_for_equal_changes(
    first: tuple[Change, ...], second: tuple[Change, ...]
) -> None:
    """Keys, values and their order all count."""
    fingerprints = [fingerprint_of(Operation.BATCH, "", None, some) for some in (first, second)]
    assert (fingerprints[0] == fingerprints[1]) == (first == second)


# --- memory -----------------------------------------------------------------------------------


def test_garbage_collector_passes_over_what_a_full_log_holds() -> None:
    """Else each full collection goes through all of it, and holds up every request meanwhile."""
    log = make_log(entries=3)
    record = log.get(1)
    assert record is not None
    assert not any(map(gc.is_tracked, (record, record.entry, record.encoded)))
