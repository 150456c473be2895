"""Simulated clusters that do what a script says, and nothing by chance."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from kv_app.errors import StoreError
from kv_app.messages import Change, Operation
from kv_app.promoter import Wish
from tests.simulation.cluster import Cluster, Shape
from tests.simulation.history import keys_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kv_app.candidacy import Promoted
    from kv_app.leader import Leader
    from kv_app.log import LogRecord
    from kv_app.node import Node
    from tests.simulation.cluster import Host


class Script:
    """A cluster whose messages take a millisecond each, and are never lost by chance."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.hosts = cluster.hosts

    def node(self, number: int) -> Node:
        """Returns what runs on a host."""
        node = self.hosts[number].node
        assert node is not None
        return node

    def host(self, number: int) -> Host:
        """Returns a host."""
        return self.hosts[number]

    @property
    def leader(self) -> Leader:
        """Returns who leads."""
        leader = self.cluster.leader()
        assert leader is not None
        return leader

    async def until(self, condition: Callable[[], object], limit_s: float = 20.0) -> None:
        """Waits until something holds; nothing may be broken meanwhile."""
        assert await self.cluster._until(condition, limit_s), "it never came to it"

    async def moment(self, condition: Callable[[], object], limit_s: float = 20.0) -> None:
        """Waits until something holds, and goes on before any further message is there."""
        end_s = self.cluster.clock.now_s + limit_s
        while not condition():
            assert self.cluster.clock.now_s < end_s, "it never came to it"
            await asyncio.sleep(0.0001)

    async def pause(self, s: float = 0.2) -> None:
        """Lets time go by."""
        await asyncio.sleep(s)
        self.cluster.check()

    async def ready(self) -> None:
        """Waits until all followers count."""
        await self.until(
            lambda: self.cluster.leader() and all(link.counts for link in self.leader.links)
        )

    def part(self, *numbers: int) -> None:
        """Parts some hosts from all others."""
        some = {self.hosts[number].url for number in numbers}
        urls = [host.url for host in self.hosts]
        self.cluster.network.blocked = {
            (a, b) for a in urls for b in urls if (a in some) != (b in some)
        }

    def cut(self, one: int, other: int) -> None:
        """Parts two hosts from each other."""
        a, b = self.hosts[one].url, self.hosts[other].url
        self.cluster.network.blocked |= {(a, b), (b, a)}

    def join(self, one: int, other: int) -> None:
        """Ends what parts two hosts."""
        a, b = self.hosts[one].url, self.hosts[other].url
        self.cluster.network.blocked -= {(a, b), (b, a)}

    def mend(self) -> None:
        """Makes the network whole."""
        self.cluster.network.blocked = set()

    def append(self, node: Node, key: str, value: str | None, name: str | None = None) -> LogRecord:
        """Has a leader take a write, and does not wait."""
        assert node.leader is not None
        operation = Operation.DELETE if value is None else Operation.PUT
        return node.leader.append(operation, key, value, name)

    async def put(
        self, node: Node, key: str, value: str | None, name: str | None = None
    ) -> LogRecord:
        """Writes, and waits for the quorum."""
        leader = node.require_leader()
        record = self.append(node, key, value, name)
        await leader.wait_committed(record)
        self.cluster.history_of(node.replica).acknowledge(
            leader,
            record.entry,
            record.required,
            self.cluster.nodes(),
            [host.name for host in self.hosts],
        )
        return record

    async def batch(self, node: Node, changes: dict[str, str | None]) -> LogRecord:
        """Writes several keys at once, and waits."""
        leader = node.require_leader()
        some = tuple(Change(key, value) for key, value in changes.items())
        record = leader.append(Operation.BATCH, "", None, None, some)
        await leader.wait_committed(record)
        self.cluster.history_of(node.replica).acknowledge(
            leader,
            record.entry,
            record.required,
            self.cluster.nodes(),
            [host.name for host in self.hosts],
        )
        return record

    def give_up(self, *keys: str) -> None:
        """Takes for lost what was acknowledged of some keys: an operator forces an epoch."""
        for history in self.cluster.histories.values():
            for position, write in list(history.acknowledged.items()):
                if set(keys_of(write.entry)) & set(keys):
                    del history.acknowledged[position]
                    history.settled.pop(position[1], None)

    async def promote(self, number: int, **wish: Any) -> Promoted | StoreError:
        """Promotes a node; returns what came of it."""
        try:
            return await self.node(number).candidacy.promote(Wish(**wish))
        except StoreError as error:
            return error


def play(
    script: Callable[[Script], Awaitable[None]],
    followers: int,
    write_quorum: int,
    *,
    is_durable: bool = True,
    log_entries: int = 1000,
    max_delay_ms: float = 0.0,
    seed: int = 1,
    is_formed: bool = True,
) -> Cluster:
    """Plays a script on a cluster that has formed, and checks all that a random run is held to.

    If it is not to have formed, its nodes were just started.
    """
    shape = Shape(followers, write_quorum, is_durable, 0.0, log_entries, max_delay_ms, 1.0, 0.0)
    cluster = Cluster(seed, shape)

    async def main(_: int) -> None:
        for host in cluster.hosts:
            host.start()
        one = Script(cluster)
        if is_formed:
            await one.ready()
        await script(one)
        await cluster.heal()

    cluster._main = main  # type: ignore[method-assign]
    cluster.run(0)
    return cluster
