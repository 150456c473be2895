"""The quorum tracker against a model that recounts everything after every step."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_app.delays import DelayModel
from kv_app.log import Log, LogRecord
from kv_app.messages import Entry, Operation, SeqRange
from kv_app.quorum import QuorumTracker

FOLLOWERS = 4
NO_LIMIT = 1 << 30


@dataclass
class ModelEntry:
    """One entry as the promise has it: who holds it, and the lowest k since its append."""

    required: int
    is_durable: bool
    holders: set[int] = field(default_factory=set)
    is_committed: bool = False

    def settle(self) -> None:
        """Commits it if it is durable and has enough; a commit is never taken back."""
        is_enough = self.is_durable and len(self.holders) >= self.required
        self.is_committed = self.is_committed or is_enough


class Pair:
    """The tracker, and beside it a model that remembers every entry for ever."""

    def __init__(self, capacity: int, write_quorum: int, *, has_disk: bool = False) -> None:
        self.has_disk = has_disk
        self.log = Log(capacity, NO_LIMIT)
        self.commits: list[int] = []
        self.tracker = QuorumTracker(self.log, write_quorum, self._on_commit)
        self.model: list[ModelEntry] = []
        self.records: list[LogRecord] = []
        self.dropped_before_commit: list[int] = []

    def _on_commit(self, record: LogRecord) -> None:
        self.commits.append(record.entry.seq)

    def append(self) -> None:
        """Adds the next entry, with the k in force."""
        k = self.tracker.write_quorum
        entry = Entry(1, self.log.last_seq + 1, int(Operation.PUT), "key", "value", None)
        record = LogRecord(entry, b"", 0, DelayModel(), k, k)
        self.log.append(record)
        self.records.append(record)
        self.model.append(ModelEntry(k, is_durable=not self.has_disk))
        self.tracker.begin(record, is_durable=not self.has_disk)

    def acknowledge(self, follower: int, spans: list[tuple[int, int]]) -> None:
        """Lets a follower acknowledge everything in some spans."""
        for first, last in spans:
            for seq in range(first, last + 1):
                if self.log.get(seq) is not None:  # a dropped one is committed: nobody counts on
                    self.model[seq - 1].holders.add(follower)
        self.tracker.acknowledge(follower, [SeqRange(first, last) for first, last in spans])

    def sync(self, behind: int) -> None:
        """Makes the leader's entries durable, but for some of the newest."""
        last_seq = len(self.model) - behind
        if self.has_disk and last_seq > self.tracker.durable_seq:
            for entry in self.model[:last_seq]:
                entry.is_durable = True
            self.tracker.advance_durable(last_seq)

    def forget(self, follower: int) -> None:
        """Takes back what a follower acknowledged, where that may still matter."""
        for entry in self.model:
            if not entry.is_committed:
                entry.holders.discard(follower)
        self.tracker.forget(follower)

    def set_write_quorum(self, k: int) -> None:
        """Changes k."""
        for entry in self.model:
            if not entry.is_committed:
                entry.required = min(entry.required, k)
        self.tracker.set_write_quorum(k)
        assert self.tracker.write_quorum == k

    def check(self) -> None:
        """Holds everything that the tracker says against the model."""
        for entry in self.model:
            entry.settle()
        committed = {seq for seq, entry in enumerate(self.model, 1) if entry.is_committed}
        assert sorted(self.commits) == sorted(committed)  # each is reported, and once
        for record, entry in zip(self.records, self.model, strict=True):
            assert record.committed == entry.is_committed
            assert record.required == entry.required
            assert record.ack_count == len(entry.holders)
        stable = 0
        while stable + 1 in committed:
            stable += 1
        assert self.tracker.stable_seq == stable
        assert self.tracker.uncommitted == len(self.model) - len(committed)
        held = {seq for seq in range(1, len(self.model) + 1) if self.log.get(seq) is not None}
        assert {seq for seq in range(1, len(self.model) + 1) if seq not in committed} <= held
        assert held == set(range(self.log.first_seq, len(self.model) + 1))


ks = st.integers(min_value=0, max_value=FOLLOWERS + 1)
spans = st.tuples(
    st.integers(min_value=-2, max_value=25), st.integers(min_value=-2, max_value=25)
)  # also empty ones, and beyond both ends of the log
steps = st.one_of(
    st.just(("append",)),
    st.just(("append",)),
    st.tuples(
        st.just("acknowledge"),
        st.integers(min_value=0, max_value=FOLLOWERS - 1),
        st.lists(spans, max_size=3),
    ),
    st.tuples(st.just("forget"), st.integers(min_value=0, max_value=FOLLOWERS - 1)),
    st.tuples(st.just("set_write_quorum"), ks),
    st.tuples(st.just("sync"), st.integers(min_value=0, max_value=3)),
)


@settings(max_examples=300)
@given(
    capacity=st.integers(min_value=1, max_value=6),
    write_quorum=ks,
    has_disk=st.booleans(),
    sequence=st.lists(steps, max_size=40),
)
def test_quorum_after_any_sequence_is_what_a_recount_says(
    capacity: int, write_quorum: int, sequence: list[tuple[object, ...]], *, has_disk: bool
) -> None:
    """Committed is exactly what is durable and has enough distinct followers, told once."""
    pair = Pair(capacity, write_quorum, has_disk=has_disk)
    for name, *arguments in sequence:
        getattr(pair, str(name))(*arguments)
        pair.check()


def test_acknowledgment_of_one_follower_twice_counts_once() -> None:
    """k=2 needs two followers, not two messages."""
    pair = Pair(NO_LIMIT, 2)
    pair.append()
    pair.acknowledge(0, [(1, 1), (1, 1)])
    pair.acknowledge(0, [(1, 1)])
    assert pair.commits == []
    pair.acknowledge(3, [(1, 1)])
    assert pair.commits == [1]


def test_acknowledgment_after_the_commit_still_counts_but_is_not_told_again() -> None:
    """Replication goes on after the answer; the count shows it."""
    pair = Pair(NO_LIMIT, 1)
    pair.append()
    pair.acknowledge(0, [(1, 1)])
    pair.acknowledge(1, [(1, 1)])
    assert pair.commits == [1]
    assert pair.records[0].ack_count == 2


def test_acknowledgment_that_is_forgotten_counts_again_when_it_comes_again() -> None:
    """A follower that lost an entry does not help it, until it holds it again."""
    pair = Pair(NO_LIMIT, 2)
    pair.append()
    pair.acknowledge(0, [(1, 1)])
    pair.forget(0)
    pair.acknowledge(1, [(1, 1)])
    assert pair.commits == []
    pair.acknowledge(0, [(1, 1)])
    assert pair.commits == [1]


def test_commit_at_k_zero_needs_nobody() -> None:
    """k=0 is asynchronous replication: the append is the commit."""
    pair = Pair(NO_LIMIT, 0)
    pair.append()
    assert pair.commits == [1]
    assert pair.tracker.stable_seq == 1


@pytest.mark.parametrize("k", [0, 2])
def test_entry_of_a_leader_with_a_disk_commits_when_it_is_durable_and_has_enough(k: int) -> None:
    """Whichever comes last commits it, in the order of the positions."""
    pair = Pair(NO_LIMIT, k, has_disk=True)
    for _ in range(3):
        pair.append()
    pair.acknowledge(0, [(1, 3)])
    pair.acknowledge(1, [(2, 2)])
    assert pair.commits == []
    pair.sync(behind=1)
    assert pair.commits == ([1, 2] if k == 0 else [2])
    pair.acknowledge(1, [(1, 3)])
    assert pair.commits == ([1, 2] if k == 0 else [2, 1])
    pair.sync(behind=0)
    assert sorted(pair.commits) == [1, 2, 3]
    assert pair.tracker.stable_seq == 3


def test_lowering_k_commits_nothing_that_is_not_durable() -> None:
    """A leader that crashed would have lost what it has told a client."""
    pair = Pair(NO_LIMIT, 2, has_disk=True)
    pair.append()
    pair.acknowledge(0, [(1, 1)])
    pair.set_write_quorum(0)
    assert pair.commits == []
    pair.sync(behind=0)
    assert pair.commits == [1]


def test_sync_that_covers_what_the_log_has_dropped_commits_the_rest() -> None:
    """Positions that a leader recovered are not in its log."""
    log = Log(NO_LIMIT, NO_LIMIT, last_seq=5)
    commits: list[int] = []
    tracker = QuorumTracker(log, 0, lambda record: commits.append(record.entry.seq))
    assert (tracker.stable_seq, tracker.durable_seq) == (5, 5)
    tracker.durable_seq = 3
    entry = Entry(1, 6, int(Operation.PUT), "key", "value", None)
    log.append(record := LogRecord(entry, b"", 0, DelayModel(), 0, 0))
    tracker.begin(record, is_durable=False)
    tracker.advance_durable(6)
    assert commits == [6]
    assert tracker.stable_seq == 6


def test_raising_k_leaves_the_writes_that_wait_as_they_began() -> None:
    """A write keeps the k that it began with; the next one needs the new one."""
    pair = Pair(NO_LIMIT, 1)
    pair.append()
    pair.set_write_quorum(3)
    pair.append()
    pair.acknowledge(0, [(1, 2)])
    assert pair.commits == [1]
    assert [record.required for record in pair.records] == [1, 3]


def test_lowering_k_commits_those_that_have_enough_already() -> None:
    """A lowering helps the writes that wait, at once, and a later raise does not undo it."""
    pair = Pair(NO_LIMIT, 3)
    pair.append()
    pair.append()
    pair.acknowledge(0, [(1, 2)])
    pair.acknowledge(1, [(2, 2)])
    pair.set_write_quorum(2)
    assert pair.commits == [2]
    pair.set_write_quorum(4)
    pair.acknowledge(1, [(1, 1)])
    assert pair.commits == [2, 1]
    assert [record.begun_with for record in pair.records] == [3, 3]


def test_lowering_k_makes_stable_what_waited_behind_an_entry_that_it_commits() -> None:
    """The second has enough before the first has; then the first gets by with what it has."""
    pair = Pair(NO_LIMIT, 2)
    pair.append()
    pair.append()
    pair.acknowledge(0, [(1, 2)])
    pair.acknowledge(1, [(2, 2)])
    pair.set_write_quorum(1)
    assert pair.commits == [2, 1]
    assert pair.tracker.stable_seq == 2


def test_log_behind_an_uncommitted_entry_is_trimmed_up_to_it_as_entries_come() -> None:
    """While one entry waits, the log drops what is stable for each that comes, so it stays full."""
    pair = Pair(4, 0)
    for _ in range(4):
        pair.append()
    pair.set_write_quorum(1)
    for waiting in range(1, 4):
        pair.append()
        assert len(pair.log) == 4
        assert pair.log.first_seq == 1 + waiting


def test_after_its_end_nothing_is_committed_any_more() -> None:
    """What is on its way when an epoch is over may come to another meaning in the next one."""
    pair = Pair(NO_LIMIT, 1, has_disk=True)
    pair.append()
    pair.append()
    pair.acknowledge(0, [(1, 2)])
    pair.tracker.close()
    pair.tracker.advance_durable(2)
    pair.tracker.acknowledge(1, [SeqRange(1, 2)])
    pair.tracker.set_write_quorum(0)
    assert pair.commits == []
    assert pair.tracker.stable_seq == 0


def test_base_is_committed_as_a_whole_and_told_of_in_order() -> None:
    """The epoch opens with it; what commits in its order is not told of a second time."""
    told: list[tuple[int, int]] = []
    log = Log(NO_LIMIT, NO_LIMIT, last_seq=2)
    for seq in (3, 4, 5):
        entry = Entry(1, seq, int(Operation.PUT), "key", "value", None)
        log.append(LogRecord(entry, b"", 0, DelayModel(), 0, 0))
    tracker = QuorumTracker(log, 0, lambda _: None, lambda first, last: told.append((first, last)))
    assert (tracker.stable_seq, tracker.durable_seq) == (2, 5)
    tracker.commit_base()
    entry = Entry(2, 6, int(Operation.PUT), "key", "value", None)
    log.append(record := LogRecord(entry, b"", 0, DelayModel(), 0, 0))
    tracker.begin(record, is_durable=True)
    assert told == [(3, 5)]
    assert tracker.stable_seq == 6
