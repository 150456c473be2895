"""A simulated cluster, what is done to it, and what is held to be true meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from kv_app import (
    catch_up,
    channel,
    group_commit,
    outbox,
    quarantine,
    replica,
    snapshot,
    state,
    storage,
)
from kv_app import node as node_module
from kv_app.errors import (
    IdempotencyConflictError,
    OutcomeUnknownError,
    StorageError,
    StoreError,
)
from kv_app.leader import FIRST_EPOCH, Leader
from kv_app.messages import Change, Entry, Operation
from kv_app.meta import Meta, Promise, Role
from kv_app.node import Node
from kv_app.promoter import Wish
from kv_app.recovery import recover
from kv_app.replica import Replica
from kv_app.settings import Settings
from tests.simulation.disk import Batch, Disk, SlowSyncs, mount
from tests.simulation.history import (
    COLD_KEYS,
    HOT_KEYS,
    KEYS,
    History,
    Life,
    Violation,
    check_disk,
    check_recovered,
    holds,
)
from tests.simulation.network import Network, SimulatedPeers
from tests.simulation.virtual_loop import Clock, VirtualLoop, VirtualTimer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEAL_S = 60.0
# What takes long to look at is looked at after so many steps.
DEEP_CHECK_EVERY = 8
# So many of the last writes are retried.
RETRIED = 20


# Object, attribute, and what stands there during a run.
Hook = tuple[Any, str, Any]
# Operation, key, value, idempotency key, changes.
Write = tuple[Operation, str, str | None, str, tuple[Change, ...]]


@dataclass(frozen=True)
class Shape:
    """What a run is made of; drawn from its seed.

    Attributes:
        followers: n.
        write_quorum: k at the beginning.
        is_durable: Whether the nodes have disks.
        wipes: Share of the crashes in which a disk is lost too.
        log_entries: What logs hold: few make snapshots.
        max_delay_ms: Of the link delays.
        mean_ms: Mean time of a message.
        loss: Share of the calls that are lost.
        idempotency_keys: How many of them are remembered.
        has_foreigners: Whether another cluster is there, and takes ports of nodes that are down.
        lies: Whether some messages are sent that nobody honest would send.
        window: How many messages of a leader are on their way at once.
    """

    followers: int
    write_quorum: int
    is_durable: bool
    wipes: float
    log_entries: int
    max_delay_ms: float
    mean_ms: float
    loss: float
    idempotency_keys: int = 100_000
    has_foreigners: bool = False
    lies: bool = False
    window: int = 1 << 30


def draw_shape(source: random.Random) -> Shape:
    """Draws what a run is made of."""
    followers = source.choice([1, 2, 2, 3, 3, 4, 5, 5])
    return Shape(
        followers,
        min(followers, source.choice([0, 1, 1, 2, 2, 3, 4, 5])),
        source.random() < 0.6,
        source.choice([0.0, 0.0, 0.2]),
        source.choice([2, 6, 30, 1000]),
        source.choice([0.0, 2.0, 20.0]),
        source.choice([0.2, 1.0, 5.0]),
        source.choice([0.0, 0.02, 0.1]),
        source.choice([4, 30, 100_000]),
        source.random() < 0.15,
        source.random() < 0.3,
        source.choice([1, 1, 8, 1 << 30]),
    )


class Host:
    """A machine that a node runs on, or not.

    Attributes:
        url: Its address.
        node: What runs; None while it is down.
        disk: What stays when a process ends; None if all is in memory.
    """

    def __init__(self, cluster: Cluster, number: int, *, is_foreign: bool = False) -> None:
        self.name = f"{'x' if is_foreign else 'n'}{number}"
        self.url = f"http://{self.name}:1"
        self.node: Node | None = None
        self.disk = Disk() if cluster.shape.is_durable and not is_foreign else None
        self.is_first = number == 0
        self.is_foreign = is_foreign
        self.lives = 0
        self._cluster = cluster
        self._syncs: SlowSyncs | None = None

    def start(self) -> None:
        """Starts a process."""
        cluster, shape = self._cluster, self._cluster.shape
        self.lives += 1
        options: dict[str, Any] = {}
        if cluster.network.hosts.get(self.url) is not self:  # who was at this port goes
            cluster.network.cut(self.url)
            cluster.network.hosts[self.url] = self
        if self.is_first:
            some = cluster.foreigners if self.is_foreign else cluster.hosts
            urls = tuple(host.url for host in some if host is not self)
            k = 0 if self.is_foreign else shape.write_quorum
            options = {"follower_urls": urls, "write_quorum": k}
        settings = Settings(
            role=Role.LEADER if self.is_first else Role.FOLLOWER,
            node_id=self.name,
            advertise_url=self.url,
            start_id=f"{self.name}-{self.lives}",
            max_delay_ms=shape.max_delay_ms,
            delay_seed=cluster.seed,
            log_entries=shape.log_entries,
            idempotency_keys=shape.idempotency_keys,
            request_timeout_s=1.0,
            heartbeat_timeout_s=1.0,
            reconnect_max_s=0.3,
            data_dir=self.name if self.disk is not None else None,  # type: ignore[arg-type]
            **options,
        )
        self._syncs = SlowSyncs(asyncio.get_running_loop(), cluster.random, 0.002)
        node = Node(
            settings,
            peers=SimulatedPeers(cluster.network, self.url),
            on_failure=_fail,
            executor=self._syncs,
            now_ns=cluster.clock.now_ns,
        )
        self.node = node
        with cluster.tasks_of(self):
            node.start()
        if self.disk is None and not self.is_foreign:
            cluster.lives.setdefault(self.name, set()).add(node.replica.meta.incarnation)

    def crash(self, *, wiped: bool) -> None:
        """Ends the process, as kill -9 does; a disk may be lost too."""
        node, self.node = self.node, None
        if node is None:
            return
        if self._syncs is not None:
            self._syncs.is_dead = True
        life = (self.name, node.replica.meta.incarnation)
        if node.replica.storage is not None:
            node.replica.storage._database.is_dead = True  # type: ignore[attr-defined]
        if self.disk is not None:
            self.disk.crash(self._cluster.random)
        if wiped or self.disk is None:
            self._cluster.lost_lives.add(life)
            self.disk = Disk() if self.disk is not None else None
        self._cluster.network.cut(self.url)
        self._cluster.kill_tasks(node)


class Cluster:
    """A whole cluster on one clock."""

    def __init__(self, seed: int, shape: Shape | None = None) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.shape = shape or draw_shape(self.random)
        self.clock = Clock()
        shape = self.shape
        self.network = Network(self.random, shape.mean_ms / 1000, shape.loss, shape.window)
        self.lost_lives: set[Life] = set()
        self.histories: dict[str, History] = {}
        self.hosts = [Host(self, number) for number in range(self.shape.followers + 1)]
        some = 2 if self.shape.has_foreigners else 0
        self.foreigners = [Host(self, number, is_foreign=True) for number in range(some)]
        self.network.hosts = {host.url: host for host in (*self.hosts, *self.foreigners)}
        self.lives: dict[str, set[str]] = {}
        # All that nodes of this cluster have promised.
        self.promises: set[Promise] = set()
        # For which epochs leaders have stepped down since the last check, and what each had led.
        self.ended: list[tuple[int, Promise]] = []
        self.trace: list[str] = []
        # What nodes have kept aside as dropped, by their names.
        self.quarantined: dict[str, list[Entry]] = {}
        self.violation: BaseException | None = None
        self._scratch: TemporaryDirectory[str] | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._unknown: list[Write] = []
        self._done_writes: list[Write] = []
        self._count = 0
        self._counts: Counter[str] = Counter()

    def history_of(self, replica: Replica) -> History:
        """Returns the history of a node's cluster: one is made anew where most have lost all."""
        cluster_id = replica.meta.cluster_id
        if cluster_id not in self.histories:
            self.histories[cluster_id] = History(self.lost_lives, self.shape.idempotency_keys)
        return self.histories[cluster_id]

    @property
    def counts(self) -> dict[str, int]:
        """How often what happened."""
        totals: Counter[str] = Counter(self._counts)
        for history in self.histories.values():
            totals.update(history.counts)
        return dict(totals)

    # --- running ----------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Runs so many random steps, then heals all and checks what is left.

        Raises:
            Violation: A promise of the store was broken.
        """
        loop = VirtualLoop(self.clock)
        loop.set_exception_handler(self._on_exception)
        asyncio.set_event_loop(loop)
        try:
            with self.patched():
                loop.run_until_complete(self._main(steps))
        finally:
            asyncio.set_event_loop(None)
            _close(loop)
            if self._scratch is not None:
                self._scratch.cleanup()

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """Puts simulated edges in the place of real ones, and looks at what happens inside."""
        source = random.Random(self.seed + 1)
        random.seed(self.seed + 2)
        with contextlib.ExitStack() as stack:
            for where, name, what in (
                (channel, "connect", self.network.connect),
                (node_module, "open_storage", self._open_storage),
                (replica, "quarantine", self._on_quarantine),
                (quarantine, "sync_folder", lambda _: None),
                (quarantine.os, "fsync", lambda _: None),
                (outbox, "make_timer", VirtualTimer),
                (group_commit, "INLINE_SYNC_NS", -1),
                (group_commit, "FOLD_EVERY", 4),
                (storage, "MIN_FOLD", 1),
                (storage, "WriteBatch", Batch),
                (state, "BUCKETS", 4),
                (snapshot, "BUCKETS", 4),
                (catch_up, "BUCKETS", 4),
                (catch_up, "BYTES_PER_STEP", 1),
                (secrets, "token_hex", lambda size: f"{source.getrandbits(8 * size):x}"),
                *self._leader_hooks(),
                *self._replica_hooks(),
            ):
                stack.enter_context(patch.object(where, name, what))
            yield

    def _leader_hooks(self) -> list[Hook]:
        append, record_open, abdicate = Leader._append, Leader._open, Leader.abdicate

        def note_append(leader: Leader, entry: Entry) -> Any:
            self.history_of(leader._replica).appended(leader, entry)
            return append(leader, entry)

        def note_open(leader: Leader) -> None:
            record_open(leader)
            self.note(f"{leader._replica.meta.node_id} opens epoch {leader.epoch}")
            if leader.epoch == FIRST_EPOCH and not self.is_foreign(leader._replica):
                self.check_formation(leader)
            self.history_of(leader._replica).opened(leader)

        def note_abdication(leader: Leader, promised: int) -> Any:
            if not self.is_foreign(leader._replica):
                self.ended.append((promised, leader._promise))
            return abdicate(leader, promised)

        return [
            (Leader, "_append", note_append),
            (Leader, "_open", note_open),
            (Leader, "abdicate", note_abdication),
        ]

    def _replica_hooks(self) -> list[Hook]:
        save, finish_snapshot = Replica.save, Replica.finish_snapshot

        def note_save(one: Replica, **changes: Any) -> None:
            save(one, **changes)
            if one.meta.promise is not None and not self.is_foreign(one):
                self.promises.add(one.meta.promise)

        def note_snapshot(one: Replica, position: int) -> None:
            finish_snapshot(one, position)
            self._counts["snapshots"] += 1
            for node in self.nodes():
                if node.replica is one:
                    check_disk(node)

        return [(Replica, "save", note_save), (Replica, "finish_snapshot", note_snapshot)]

    def is_foreign(self, one: Replica) -> bool:
        """Tells if a replica is of another cluster."""
        return one.settings.node_id in {host.name for host in self.foreigners}

    def _open_storage(self, data_dir: Any, node_id: str, role: Role) -> Any:
        [host] = [host for host in self.hosts if host.name == str(data_dir)]
        assert host.disk is not None
        return mount(host.disk, Meta(node_id, role, secrets.token_hex(8)))

    def _on_quarantine(
        self, data_dir: object, node_id: str, epoch: int, entries: Sequence[Entry]
    ) -> None:
        self.note(f"{node_id} drops {len(entries)} entries, which epoch {epoch} began without")
        if data_dir is not None:
            self._quarantine(self._folder() / node_id, node_id, epoch, entries)
        self.quarantined.setdefault(node_id, []).extend(entries)
        [node] = [node for node in self.nodes() if node.settings.node_id == node_id]
        try:
            for entry in entries:
                self.history_of(node.replica).check_dropped(entry)
        except Violation as error:
            self.violation = self.violation or error

    def _folder(self) -> Path:
        """Returns a folder of this run alone."""
        if self._scratch is None:
            self._scratch = TemporaryDirectory(prefix="quorumeter-simulated-")
        return Path(self._scratch.name)

    def _quarantine(
        self, data_dir: Path, node_id: str, epoch: int, entries: Sequence[Entry]
    ) -> None:
        """Keeps entries aside in files, among which others may have tidied up."""
        data_dir.mkdir(exist_ok=True)
        folder = data_dir / quarantine.FOLDER
        if folder.exists():
            for path in sorted(folder.iterdir()):
                if self.random.random() < 0.3:
                    path.rename(path.with_name(f"{self.random.randint(1, 4):04d}-{path.name[5:]}"))
                elif self.random.random() < 0.2:
                    path.unlink()
        before = set(folder.iterdir()) if folder.exists() else set()
        quarantine.quarantine(data_dir, node_id, epoch, entries)
        [path] = set(folder.iterdir()) - before
        if len(path.read_text("utf-8").splitlines()) != len(entries):
            raise Violation(f"{path} does not hold what {node_id} drops")
        self._counts["quarantines"] += 1

    def _on_exception(self, _loop: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.violation is None:
            self.violation = error or RuntimeError(context["message"])

    def check_formation(self, leader: Leader) -> None:
        """A second cluster is made only if most nodes have nothing of the first one.

        They have lost it, or were never up while it was there.

        Raises:
            Violation: It was made beside one that could have come back.
        """
        self._counts["clusters made"] += 1
        if self._counts["clusters made"] == 1:
            return
        lost = {name for name, _ in self.lost_lives}
        made = self.history_of(leader._replica)
        others = [one for one in self.histories.values() if one is not made]
        joined = set().union(*(one.joined for one in others))
        electors = [host.name for host in self.hosts]
        if len(electors) % 2 == 0:
            electors = electors[1:]
        empty = [name for name in electors if name in lost or name not in joined]
        if len(empty) <= len(electors) // 2:
            raise Violation(f"a cluster was made anew, and only {empty} have nothing")

    def note(self, what: str) -> None:
        """Writes down what happens."""
        self.trace.append(f"{self.clock.now_s - 1000:9.4f} {what}")

    @contextlib.contextmanager
    def tasks_of(self, _host: Host) -> Iterator[None]:
        """Has all tasks that are made inside belong to a host."""
        yield

    def kill_tasks(self, node: Node) -> None:
        """Ends a dead process's tasks; what they still do reaches nobody."""
        tasks = [node._comeback._task, node._recalls._task, node.candidacy._attempt]
        for leader in (node.leader, node.candidate):
            if leader is not None:
                tasks += leader._tasks
                leader._waits.close("the process is gone")
        for task in tasks:
            if task is not None:
                task.cancel()

    async def _main(self, steps: int) -> None:
        for host in (*self.hosts, *self.foreigners):
            host.start()
        if self.random.random() < 0.8:  # else what happens meets a cluster that is being made
            await self._until(lambda: self.leader() is not None, 20.0)
        await self._age_foreigners()
        for number in range(steps):
            self.step()
            await asyncio.sleep(self.random.expovariate(1 / 0.01))
            self.check()
            if number % DEEP_CHECK_EVERY == 0:
                self.check_deeply()
        await self.heal()

    async def _age_foreigners(self) -> None:
        """Has the epochs of another cluster go their own way."""
        nodes = [host.node for host in self.foreigners if host.node is not None]
        for _ in range(self.random.randint(0, 12) if nodes else 0):
            await self._promote(self.random.choice(nodes))

    async def _until(self, condition: Any, limit_s: float) -> bool:
        end_s = self.clock.now_s + limit_s
        while not condition():
            self.check()
            if self.clock.now_s > end_s:
                return False
            await asyncio.sleep(0.05)
        return True

    def check(self) -> None:
        """Looks at all nodes."""
        if self.violation is not None:
            raise self.violation
        while self.ended:
            self._check_end_of_epoch(*self.ended.pop())
        nodes = self.nodes()
        for node in nodes:
            history = self.history_of(node.replica)
            history.check_node(node)
            history.check_settled(node, nodes)

    def _check_end_of_epoch(self, promised: int, led: Promise) -> None:
        """A leader steps down for what a node of its own cluster has promised to another one."""
        others = self.promises - {led}
        if promised and all(other.epoch < promised for other in others):
            raise Violation(f"{led} ended for epoch {promised}, which no node had promised")

    def check_deeply(self) -> None:
        """Looks at what nodes remember, and at their disks."""
        for node in self.nodes():
            self.history_of(node.replica).check_remembered(node)
            check_disk(node)

    def nodes(self) -> list[Node]:
        """Returns what runs."""
        return [host.node for host in self.hosts if host.node is not None]

    def leader(self) -> Leader | None:
        """Returns the open leader of the highest epoch."""
        leaders = [one.leader for one in self.nodes() if one.leader and one.leader.is_open]
        return max(leaders, key=lambda one: one.epoch, default=None)

    # --- what is done -----------------------------------------------------------------------------

    def step(self) -> None:
        """Does one random thing."""
        actions = {
            self.write: 30,
            self.retry: 6,
            self.reuse: 2,
            self.read: 8,
            self.crash: 4,
            self.start: 8,
            self.promote: 3,
            self.partition: 2,
            self.mend: 3,
            self.break_channel: 2,
            self.change_quorum: 3,
            self.slow_down: 1,
        }
        if self.foreigners:
            actions[self.squat] = 4
        if self.shape.lies:
            actions[self.lie] = 4
        self.random.choices(list(actions), list(actions.values()))[0]()

    def write(self) -> None:
        """Begins a put, a deletion or a batch at some leader."""
        self._count += 1
        self._begin(self._draw_write(f"i{self._count}"), is_new=True)

    def _draw_write(self, name: str) -> Write:
        is_cold = self.random.random() < 0.25
        some = COLD_KEYS if is_cold else HOT_KEYS
        deleted = 0.6 if is_cold else 0.3
        keys = self.random.sample(some, self.random.choice([1, 1, 1, 2]))
        values = [None if self.random.random() < deleted else f"v{self._count}" for _ in keys]
        if len(keys) > 1:
            return Operation.BATCH, "", None, name, tuple(map(Change, keys, values))
        kind = Operation.DELETE if values[0] is None else Operation.PUT
        return kind, keys[0], values[0], name, ()

    def retry(self) -> None:
        """Repeats a write, mostly one whose outcome is unknown."""
        writes = self._unknown if self.random.random() < 0.6 else self._done_writes[-RETRIED:]
        if writes:
            self._begin(self.random.choice(writes), is_new=False)

    def reuse(self) -> None:
        """Gives the idempotency key of a write to another one."""
        if self._done_writes:
            self._count += 1
            name = self.random.choice(self._done_writes[-RETRIED:])[3]
            self._begin(self._draw_write(name), is_new=True)

    def _begin(self, write: Write, *, is_new: bool) -> None:
        leaders = [node for node in self.nodes() if node.leader is not None]
        if leaders:
            self._client(self._write(self.random.choice(leaders), write, is_new=is_new))

    def _client(self, job: Any) -> None:
        task = asyncio.create_task(job)
        self._clients.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._clients.discard(task)
        if not task.cancelled() and (error := task.exception()) and self.violation is None:
            self.violation = error

    async def _write(self, node: Node, write: Write, *, is_new: bool) -> None:
        operation, key, value, name, changes = write
        history = self.history_of(node.replica)
        try:
            leader = node.require_leader()
            record = leader.append(operation, key, value, name, changes)
            await leader.wait_committed(record)
        except OutcomeUnknownError:
            if is_new:
                self._unknown.append(write)
        except StoreError as error:
            if isinstance(error, IdempotencyConflictError):
                history.count("conflicts")
                history.conflicted(name, (error.details["epoch"], error.details["seq"]))
            if is_new and value is not None:
                self.history_of(node.replica).refused.add(value)
        else:
            if is_new:
                self._done_writes.append(write)
            if node in self.nodes():
                entry = record.entry
                history = self.history_of(node.replica)
                names = [host.name for host in self.hosts]
                history.acknowledge(leader, entry, record.required, self.nodes(), names)

    def read(self) -> None:
        """Reads a key at some leader, linearizably."""
        leaders = [node for node in self.nodes() if node.leader is not None]
        if leaders:
            self._client(self._read(self.random.choice(leaders), self.random.choice(KEYS)))

    async def _read(self, node: Node, key: str) -> None:
        history = self.history_of(node.replica)
        floor = history.floor_of(key)
        try:
            await node.require_leader().voters.confirm()
        except StoreError:
            return
        if node not in self.nodes():
            return
        history.count("reads")
        version = node.read(key)
        shown = (version.epoch, version.seq) if version is not None else (0, 0)
        if shown >= floor:
            return
        known = history.acknowledged[floor]
        if version is None and history.was_deleted(key, floor):
            return
        if known.holders <= self.lost_lives:
            return
        raise Violation(f"I8: {node.settings.node_id} reads {key} at {shown}, {floor} was before")

    def crash(self) -> None:
        """Kills a node."""
        up = [host for host in self.hosts if host.node is not None]
        if not up:
            return
        leading = [host for host in up if host.node and host.node.leader]
        host = self.random.choice(leading if leading and self.random.random() < 0.4 else up)
        wiped = self.random.random() < self.shape.wipes
        self.note(f"crash {host.name}{' wiped' if wiped else ''}")
        self._counts["crashes"] += 1
        host.crash(wiped=wiped)

    def start(self) -> None:
        """Starts a node that is down."""
        down = [host for host in self.hosts if host.node is None]
        if down:
            host = self.random.choice(down)
            self.note(f"start {host.name}")
            host.start()

    def promote(self) -> None:
        """Asks a node to lead."""
        node = self.random.choice(self.nodes() or [None])
        if node is not None:
            self.note(f"promote {node.settings.node_id}")
            self._client(self._promote(node))

    async def _promote(self, node: Node) -> None:
        with contextlib.suppress(StoreError):
            await node.candidacy.promote(Wish())
            for _ in range(3):  # clients come to the new leader with what they do not know
                self.retry()

    def partition(self) -> None:
        """Parts the network in two, perhaps in one direction only."""
        part = {host.url for host in self.hosts if self.random.random() < 0.5}
        urls = [host.url for host in self.hosts]
        pairs = {(a, b) for a in urls for b in urls if (a in part) != (b in part)}
        if self.random.random() < 0.3:
            pairs = {pair for pair in pairs if self.random.random() < 0.5}
        self.note(f"partition {sorted(part)}")
        self.network.blocked = pairs

    def mend(self) -> None:
        """Ends a partition."""
        if self.network.blocked:
            self.note("the network is whole again")
        self.network.blocked = set()

    def break_channel(self) -> None:
        """Breaks a channel."""
        self.network.break_some()

    def slow_down(self) -> None:
        """Makes the calls of one node to another slow, or stops the reading of a follower."""
        if self.random.random() < 0.5:
            one, other = self.random.choices([host.url for host in self.hosts], k=2)
            self.network.slow_s[one, other] = self.random.expovariate(1.0)
        else:
            self.network.congest_some(self.random.expovariate(1 / 0.3))

    def squat(self) -> None:
        """Has a follower of another cluster listen at the port of a node that is down."""
        down = [host for host in self.hosts if host.node is None]
        if down:
            host = self.random.choice(down)
            self.note(f"another cluster's node is at {host.url}")
            self.network.hosts[host.url] = self.random.choice(self.foreigners)
            self._counts["ports taken"] += 1

    def lie(self) -> None:
        """Sends what nobody honest would send, on a channel of theirs."""
        channels = [one for one in self.network.channels if not one.is_over]
        if channels:
            self.random.choice(channels).lie(self.random)
            self._counts["lies"] += 1

    def change_quorum(self) -> None:
        """Changes k at some leader."""
        leader = self.leader()
        if leader is not None:
            k = self.random.randint(0 if self.random.random() < 0.2 else 1, len(leader.links))
            self.note(f"k={k} in epoch {leader.epoch}")
            self._client(self._change(leader, k))

    async def _change(self, leader: Leader, k: int) -> None:
        with contextlib.suppress(StoreError):
            await leader.quorum_changes.change(k)
            self._counts["quorum changes"] += 1

    # --- the end ----------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Mends all, and checks that the cluster comes back and is of one mind (I1, I7)."""
        self.note("heal")
        self.mend()
        self.network.loss = 0.0
        self.network.slow_s.clear()
        for host in self.hosts:
            if host.node is None:
                host.start()
        await asyncio.sleep(1.0)
        end_s = self.clock.now_s + HEAL_S
        while not self._is_whole():
            self.check()
            if self.clock.now_s > end_s:
                self._check_stuck()
                return
            if self.leader() is None and self.random.random() < 0.1:
                voters = [node for node in self.nodes() if node.replica.base_epoch]
                if voters:
                    self._client(self._promote(self.random.choice(voters)))
            await asyncio.sleep(0.2)
        self._counts["whole again"] += 1
        self._check_end()
        await self._check_restart()
        for task in list(self._clients):
            task.cancel()

    def _is_whole(self) -> bool:
        leader = self.leader()
        if leader is None or not all(link.counts for link in leader.links):
            return False
        last = leader.log.last_seq
        if leader.stable_seq != last or leader.quorum_changes.is_changing:
            return False
        return all(
            node.leader is leader or node.replica.held.contiguous == last for node in self.nodes()
        )

    def _check_stuck(self) -> None:
        """A cluster that does not come back has lost too much; else that is a bug."""
        voters = [node for node in self.nodes() if node.replica.base_epoch]
        clusters = {node.replica.meta.cluster_id for node in voters}
        is_whole = len(voters) == len(self.hosts) and len(clusters) == 1
        if is_whole or not self.lost_lives:
            leader = self.leader()
            state = leader and {
                "epoch": leader.epoch,
                "stable": (leader.stable_seq, leader.log.last_seq),
                "quorums": leader.quorum_changes.now,
                "links": {
                    link.url: (link.counts, link.held.contiguous, link.detail)
                    for link in leader.links
                },
            }
            raise Violation(f"all nodes are up with their data, and it does not come back: {state}")
        self._counts["stuck: data was lost"] += 1

    def _check_end(self) -> None:
        leader = self.leader()
        assert leader is not None
        history = self.history_of(leader._replica)
        digests = {tuple(node.state.digests()) for node in self.nodes()}
        if len(digests) != 1:
            raise Violation("I7: the replicas differ")
        for node in self.nodes():
            if node.state.has_unsettled and node.leader is not None:
                raise Violation(f"never settled on the leader: {node.state._beneath}")
            for seq in range(leader.log.first_seq, leader.log.last_seq + 1):
                record = leader.log.get(seq)
                assert record is not None
                history.check_known(record.entry)
                if node.leader is None and not holds(node, record.entry):
                    other = node.replica.log.get(seq)
                    raise Violation(f"I7: {node.settings.node_id} has {other} at {seq}")
        history._check_keys(leader)
        history._check_versions(leader)
        self.check_deeply()

    async def _check_restart(self) -> None:
        """Each disk gives back what its node held (I12)."""
        for host in self.hosts:
            node, disk = host.node, host.disk
            if node is None or disk is None or node.replica.commits is None:
                continue
            await node.replica.commits.flush()
            copy = Disk()
            copy.durable.values = dict(disk.durable.values)
            found = recover(mount(copy, node.replica.meta), self.shape.idempotency_keys)
            check_recovered(node, found.state, found.idempotency)


def _fail(error: StorageError) -> None:
    raise Violation(f"the disk failed: {error}")


def _close(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
