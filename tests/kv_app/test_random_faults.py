"""Clusters with disks under random writes and faults: what was acknowledged is nowhere lost."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from kv_app import group_commit, outbox, storage
from kv_app.errors import NotAttemptedError, OutcomeUnknownError, TooManyInFlightError
from kv_app.log import HeldPositions
from kv_app.messages import Change, Operation
from tests.kv_app.fakes import run, until
from tests.kv_app.wired import FollowerNode, Wired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kv_app.storage import Storage

KEYS = [f"k{number}" for number in range(40)]
SETTINGS = {
    "idempotency_keys": 1000,
    "heartbeat_timeout_s": 0.5,
    "request_timeout_s": 0.5,
    "min_delay_ms": 0.0,
    "max_delay_ms": 2.0,
}
STEPS = 60


@dataclass
class History:
    """What was done, and what was answered.

    Attributes:
        expected: The value of each key as the acknowledged writes leave it, with its position.
        acknowledged: The position of each acknowledged idempotency key.
    """

    expected: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    def note(self, seq: int, changes: dict[str, str | None]) -> None:
        """Notes an acknowledged write."""
        for key, value in changes.items():
            if seq > self.expected.get(key, (0, None))[0]:
                self.expected[key] = (seq, value)


class Chaos:
    """Writes and faults, chosen by a seeded source."""

    def __init__(self, cluster: Wired, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.history = History()
        self.writes: list[asyncio.Task[None]] = []
        self.count = 0

    def write(self) -> None:
        """Begins a put, a deletion or a batch."""
        self.count += 1
        name, pick = f"i{self.count}", self.random
        keys = pick.sample(KEYS, pick.choice([1, 1, 1, 3]))
        changes = {key: pick.choice([None, f"v{self.count}", f"v{self.count}"]) for key in keys}
        if len(keys) > 1:
            some = tuple(Change(key, value) for key, value in changes.items())
            arguments = (Operation.BATCH, "", None, name, some)
        else:
            [(key, value)] = changes.items()
            operation = Operation.DELETE if value is None else Operation.PUT
            arguments = (operation, key, value, name, ())
        self.writes.append(asyncio.create_task(self._write(name, changes, *arguments)))

    async def _write(self, name: str, changes: dict[str, str | None], *arguments: object) -> None:
        try:
            record = self.cluster.leader.append(*arguments)  # type: ignore[arg-type]
            await self.cluster.leader.wait_committed(record)
        except OutcomeUnknownError:
            self.history.unknown.add(name)
        except (NotAttemptedError, TooManyInFlightError):
            pass
        else:
            self.history.acknowledged[name] = record.entry.seq
            self.history.note(record.entry.seq, changes)

    async def fault(self) -> None:
        """Does something to a follower, or mends it."""
        node = self.random.choice(self.cluster.followers)
        match self.random.randrange(6):
            case 0:
                await self.check_kept(node, node.restart)
            case 1 | 2:
                await self.check_kept(node, node.crash)
            case 3:
                await node.restart(wiped=True)
            case 4:
                node.reads_left = self.random.randrange(400)
            case _:
                await self.mend(node)

    async def check_kept(self, node: FollowerNode, end: Callable[[], Awaitable[None]]) -> None:
        """Lets a follower end and start again, and holds it to what it had acknowledged."""
        [link] = [one for one in self.cluster.leader.links if one.url == node.url]
        before, acknowledged = node.follower, link.held if link.is_connected else HeldPositions()
        await end()
        after = node.follower
        assert after.held.contiguous >= acknowledged.contiguous
        for span in acknowledged.ranges_above():
            assert all(after.held.holds(seq) for seq in range(span.first, span.last + 1))
        for key in KEYS:
            was, found = before.state.read(key), after.state.read(key)
            if was is not None and acknowledged.holds(was.seq):
                assert (found.value if found else None) == was.value, (node.name, key)

    async def mend(self, node: FollowerNode) -> None:
        """Lets a follower read again, on a new channel."""
        node.reads_left = None
        if node.client is not None:
            await node.client.ended()

    async def run(self) -> None:
        """Writes and breaks, then mends everything."""
        for _ in range(STEPS):
            for _ in range(self.random.randrange(4)):
                self.write()
            if self.random.random() < 0.2:
                await self.fault()
            await asyncio.sleep(self.random.choice([0, 0, 0.001, 0.005]))
        for node in self.cluster.followers:
            await self.mend(node)
        await asyncio.gather(*self.writes)
        await self.cluster.converged()


def slow_sync(seed: int, sync: Callable[[Storage], None]) -> Callable[[Storage], None]:
    """Returns a sync that takes up to some milliseconds, in which more comes."""
    source = random.Random(seed)

    def slow(one: Storage) -> None:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(source.choice([0.0, 0.001, 0.003]))
        sync(one)

    return slow


@pytest.mark.parametrize("seed", range(6))
def test_what_was_acknowledged_is_on_every_replica_whatever_happened_to_the_followers(
    seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restarts, crashes, lost disks, broken channels and snapshots: all end with equal replicas.

    The disks hold what the memories do: everything is compared again after one more start.
    """
    monkeypatch.setattr(group_commit, "FOLD_EVERY", 4)
    monkeypatch.setattr(storage, "MIN_FOLD", 1)
    monkeypatch.setattr(outbox, "MAX_BATCH_ENTRIES", 5)
    monkeypatch.setattr(group_commit, "INLINE_SYNC_NS", -1 if seed % 2 else 1 << 60)
    if seed % 2:
        monkeypatch.setattr(storage.Storage, "sync", slow_sync(seed, storage.Storage.sync))

    async def check() -> None:
        # With a short log followers are sent snapshots, with a long one entries.
        log_entries = 12 if seed % 4 < 2 else 1000
        cluster = Wired(folder, 3, write_quorum=1 + seed % 2, log_entries=log_entries, **SETTINGS)
        monkeypatch.setattr("kv_app.channel.connect", cluster.connect)
        leader = cluster.start()
        await cluster.all_count()
        chaos = Chaos(cluster, seed)
        await chaos.run()
        history = chaos.history
        assert len(history.acknowledged) > STEPS / 2
        for is_restarted in (False, True):
            for node in cluster.followers:
                if is_restarted:
                    await node.crash()
                check_replica(node, cluster, history)
                assert node.follower.state.digests() == leader.state.digests()
        await until(lambda: all(link.counts for link in leader.links))
        shown = leader.state.values()
        await cluster.stop_leader()
        leader = cluster.start()
        assert leader.state.values() == shown
        for name, seq in history.acknowledged.items():
            found = leader.idempotency.find(name)
            assert found is not None
            assert found.seq == seq
        await cluster.stop()

    run(check)


def check_replica(node: FollowerNode, cluster: Wired, history: History) -> None:
    """Holds a follower to every acknowledged write: its value, and its idempotency key."""
    assert node.follower.held.contiguous == cluster.leader.log.last_seq
    for key, (seq, value) in history.expected.items():
        version = node.follower.state.read(key)
        if version is not None and version.seq > seq:
            continue  # one whose outcome was unknown did commit after it
        assert (version.value if version else None) == value, (node.name, key)
    for name, seq in history.acknowledged.items():
        found = node.follower.idempotency.find(name)
        assert found is not None, (node.name, name)
        assert found.seq == seq
