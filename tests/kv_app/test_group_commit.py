"""The way of entries to the disk: what shares a sync, where it runs, and a disk that fails."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app import group_commit
from kv_app.errors import StorageError
from kv_app.group_commit import FOLD_EVERY, INLINE_ENTRIES, GroupCommit
from kv_app.log import IdempotencyIndex
from kv_app.meta import Meta, Role
from tests.kv_app.fake_leader import put
from tests.kv_app.fakes import run, until

if TYPE_CHECKING:
    from kv_app.meta import Position

ONE = b"entry"


class SpyStorage:
    """Stands for a ``Storage``: notes what is asked of it, and fails or waits when it is told to.

    Attributes:
        calls: What was asked, in order.
        sync_threads: Where each sync ran.
        gate: A sync ends only while it is set.
        fold_at_once: How many entries one fold moves at most.
    """

    def __init__(self, folded: Position = (0, 0)) -> None:
        self.meta = Meta("n", Role.LEADER, "life", folded=folded)
        self.calls: list[tuple[Any, ...]] = []
        self.sync_threads: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failing = ""
        self.fold_at_once = 1 << 30

    def append(self, entries: list[tuple[int, int, bytes]]) -> None:
        """Notes the positions."""
        self._note("append", *(seq for _, seq, _ in entries))

    def sync(self) -> None:
        """Waits for the gate."""
        self.sync_threads.append(threading.get_ident())
        self.gate.wait(10)
        self._note("sync")

    def fold(self, upto: Position, stable: Position, entries: int) -> Position:
        """Notes it."""
        self._note("fold", upto, stable, entries)
        reached = min(upto[1], self.meta.folded[1] + self.fold_at_once)
        self.meta = msgspec.structs.replace(self.meta, folded=(upto[0], reached))
        return self.meta.folded

    def forget_remembered(self, below: Position) -> None:
        """Notes it."""
        self._note("forget", below)

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.failing:
            raise StorageError(f"no {call[0]}")


class Commits:
    """A group commit on a spy, and all that it reports."""

    def __init__(self, storage: SpyStorage | None = None, keys: int = 10) -> None:
        self.storage = storage or SpyStorage()
        self.index = IdempotencyIndex(keys)
        self.failures: list[str] = []
        self.group = GroupCommit(
            self.storage,  # type: ignore[arg-type]
            self.index,
            lambda error: self.failures.append(str(error)),
        )

    def add(self, first: int, last: int | None = None) -> None:
        """Adds entries; that they are durable is noted among the calls."""
        seqs = range(first, (first if last is None else last) + 1)
        self.group.add(
            [(1, seq, ONE) for seq in seqs],
            lambda: self.storage.calls.append(("durable", *seqs)),
        )

    @property
    def durable(self) -> list[int]:
        """Everything that was reported as durable, in order."""
        return [seq for name, *seqs in self.storage.calls if name == "durable" for seq in seqs]


def on_the_disk(monkeypatch: pytest.MonkeyPatch, *, is_slow: bool) -> None:
    """Makes every disk look slow, so that all syncs run in a thread, or none slow."""
    monkeypatch.setattr(group_commit, "INLINE_SYNC_NS", -1 if is_slow else 1 << 60)


# --- what shares a sync -----------------------------------------------------------------------


def test_all_that_is_added_in_one_turn_shares_one_write_and_one_sync() -> None:
    """It is durable in the order in which it came, after the sync and not before."""

    async def check() -> None:
        commits = Commits()
        for seq in (1, 2, 3):
            commits.add(seq)
        assert commits.storage.calls == []
        await until(lambda: commits.durable)
        assert commits.storage.calls == [
            ("append", 1, 2, 3),
            ("sync",),
            ("durable", 1),
            ("durable", 2),
            ("durable", 3),
        ]
        await commits.group.close()

    run(check)


def test_commit_that_is_asked_for_is_made_at_once_and_only_once() -> None:
    """A leader does not wait for the loop's next turn, which then has nothing to do."""

    async def check() -> None:
        commits = Commits()
        commits.add(1)
        commits.group.commit()
        assert commits.durable == [1]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [name for name, *_ in commits.storage.calls] == ["append", "sync", "durable"]
        await commits.group.close()

    run(check)


def test_what_is_added_while_a_sync_runs_shares_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk is never asked for two things at once, and nothing is durable too early."""
    on_the_disk(monkeypatch, is_slow=True)

    async def check() -> None:
        commits = Commits()
        commits.storage.gate.clear()
        commits.add(1)
        await until(lambda: commits.storage.sync_threads)
        for seq in (2, 3, 4):
            commits.add(seq)
            await asyncio.sleep(0)
        commits.group.commit()
        assert commits.storage.calls == [("append", 1)]
        assert commits.group.unsynced_bytes == 4 * len(ONE)
        commits.storage.gate.set()
        await until(lambda: commits.durable == [1, 2, 3, 4])
        names = [name for name, *_ in commits.storage.calls]
        assert names == ["append", "sync", "durable", "append", "sync", *["durable"] * 3]
        assert commits.group.unsynced_bytes == 0
        await commits.group.close()

    run(check)


@given(sizes=st.lists(st.integers(min_value=0, max_value=12), max_size=12), is_slow=st.booleans())
def test_everything_added_becomes_durable_once_in_order_after_its_sync(
    sizes: list[int], *, is_slow: bool
) -> None:
    """Whatever comes together, in the loop or in a thread."""

    async def check() -> None:
        commits = Commits()
        seq = 0
        for size in sizes:
            if size:
                commits.add(seq + 1, seq + size)
                seq += size
            else:
                await asyncio.sleep(0)
        await commits.group.close()
        assert commits.durable == list(range(1, seq + 1))
        written: set[int] = set()
        synced: set[int] = set()
        for name, *seqs in commits.storage.calls:
            if name == "append":
                written.update(seqs)
            elif name == "sync":
                synced = set(written)
            else:
                assert synced.issuperset(seqs)

    with pytest.MonkeyPatch.context() as patch:
        on_the_disk(patch, is_slow=is_slow)
        run(check)


# --- where it runs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "is_slow", "is_inline"),
    [(INLINE_ENTRIES, False, True), (INLINE_ENTRIES + 1, False, False), (1, True, False)],
)
def test_sync_of_little_on_a_fast_disk_runs_in_the_loop_and_others_in_a_thread(
    entries: int, monkeypatch: pytest.MonkeyPatch, *, is_slow: bool, is_inline: bool
) -> None:
    """A hop to a thread costs as much as a short sync; a long one must not hold up the loop."""
    on_the_disk(monkeypatch, is_slow=is_slow)

    async def check() -> None:
        commits = Commits()
        commits.add(1, entries)
        await until(lambda: commits.durable)
        [thread] = commits.storage.sync_threads
        assert (thread == threading.get_ident()) is is_inline
        await commits.group.close()

    run(check)


def test_loop_goes_on_while_a_thread_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs holds up what waits for it, and nothing else."""
    on_the_disk(monkeypatch, is_slow=True)

    async def check() -> None:
        commits = Commits()
        commits.storage.gate.clear()
        commits.add(1)
        await asyncio.sleep(0.005)
        assert commits.durable == []
        commits.storage.gate.set()
        await until(lambda: commits.durable)
        await commits.group.close()

    run(check)


def test_close_commits_what_waits_and_what_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node that stops loses nothing that it took."""
    on_the_disk(monkeypatch, is_slow=True)

    async def check() -> None:
        commits = Commits()
        commits.storage.gate.clear()
        commits.add(1)
        await until(lambda: commits.storage.sync_threads)
        commits.add(2)
        asyncio.get_running_loop().call_later(0.005, commits.storage.gate.set)
        await commits.group.close()
        assert commits.durable == [1, 2]
        await commits.group.close()  # nothing is left, and that is no error

    run(check)


# --- folding ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fold_to", "expected"),
    [
        ((1, FOLD_EVERY + 9), []),
        ((1, FOLD_EVERY + 10), [("fold", (1, FOLD_EVERY + 10), (1, FOLD_EVERY + 10), 6)]),
    ],
)
def test_old_entries_are_folded_with_a_commit_once_there_are_many(
    fold_to: Position, expected: list[tuple[Any, ...]]
) -> None:
    """Twice as many as came in, after these are durable: the disk is bounded and nobody waits."""

    async def check() -> None:
        commits = Commits(SpyStorage(folded=(1, 10)))
        commits.group.fold_to = fold_to
        commits.add(1, 3)
        await until(lambda: commits.durable)
        assert commits.storage.calls[3:] == expected
        await commits.group.close()

    run(check)


def test_fold_of_many_entries_goes_on_in_later_turns_of_the_loop() -> None:
    """However many came with one commit, requests are served between two steps."""

    async def check() -> None:
        commits = Commits(SpyStorage(folded=(1, 10)))
        commits.storage.fold_at_once = 4
        commits.group.fold_to = (1, FOLD_EVERY + 10)
        commits.add(1, 5)
        await until(lambda: commits.durable)
        turns = 0
        while commits.storage.meta.folded[1] < 20:
            turns += 1
            await asyncio.sleep(0)
        folds = [call[3] for call in commits.storage.calls if call[0] == "fold"]
        assert folds == [10, 6, 2]
        assert turns >= 2
        await commits.group.close()

    run(check)


def test_fold_under_way_ends_with_what_it_folds() -> None:
    """A log that is replaced, and a database that is closed, are left alone."""

    async def check() -> None:
        for end in ("drop", "close"):
            commits = Commits(SpyStorage(folded=(1, 10)))
            commits.storage.fold_at_once = 1
            commits.group.fold_to = (1, FOLD_EVERY + 10)
            commits.add(1, 3)
            await until(lambda commits=commits: commits.storage.meta.folded[1] > 10)
            if end == "drop":
                commits.group.drop()
            await commits.group.close()
            folded = commits.storage.meta.folded
            for _ in range(5):
                await asyncio.sleep(0)
            assert commits.storage.meta.folded == folded

    run(check)


@pytest.mark.parametrize(("keys", "is_forgotten"), [(2, True), (3, False)])
def test_idempotency_keys_are_forgotten_on_disk_once_as_many_are_remembered_as_may_be(
    keys: int, *, is_forgotten: bool
) -> None:
    """What the memory has forgotten the disk need not keep either, and not a key more."""

    async def check() -> None:
        commits = Commits(keys=keys)
        for seq in (5, 6):
            commits.index.remember(put(seq, idempotency_key=str(seq)))
        commits.group.fold_to = (1, FOLD_EVERY)
        commits.add(1)
        await until(lambda: commits.durable)
        assert (("forget", (1, 5)) in commits.storage.calls) is is_forgotten
        await commits.group.close()

    run(check)


# --- a disk that fails ------------------------------------------------------------------------


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.parametrize("failing", ["append", "sync"])
def test_disk_that_fails_is_reported_and_nothing_is_durable_after_it(
    failing: str, monkeypatch: pytest.MonkeyPatch, *, is_slow: bool
) -> None:
    """Whoever is told ends the process; what came before stays durable."""
    on_the_disk(monkeypatch, is_slow=is_slow)

    async def check() -> None:
        commits = Commits()
        commits.add(1)
        await until(lambda: commits.durable)
        commits.storage.failing = failing
        commits.add(2)
        await until(lambda: commits.failures)
        commits.add(3)
        await until(lambda: len(commits.failures) == 2)
        assert commits.failures == [f"no {failing}"] * 2
        assert commits.durable == [1]
        await commits.group.close()

    run(check)


def test_fold_that_fails_is_reported_too() -> None:
    """The entries were durable; what the disk holds from here on is not known."""

    async def check() -> None:
        commits = Commits()
        commits.storage.failing = "fold"
        commits.group.fold_to = (1, FOLD_EVERY)
        commits.add(1)
        await until(lambda: commits.failures == ["no fold"])
        assert commits.durable == [1]
        await commits.group.close()

    run(check)
