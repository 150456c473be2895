"""``GET /metrics``: what a node counts, in the text format of Prometheus.

Nothing is computed before somebody asks: the hot path adds to plain numbers, which are read here.
"""

import contextlib
import shutil
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kv_app import __version__
from kv_app.api.answers import document_errors
from kv_app.api.kv import WRITE_OUTCOMES
from kv_app.channel import Link
from kv_app.errors import InternalError
from kv_app.follower import Follower
from kv_app.formation import Standing
from kv_app.group_commit import GroupCommit
from kv_app.leader import Leader
from kv_app.metrics import NS_PER_MS, Histogram
from kv_app.node import Node
from kv_app.position_waits import PositionWaits

PREFIX: Final = "quorumeter_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def router(node: Node) -> APIRouter:
    """Returns the call that tells the numbers; it needs no token, and tells nothing of the data."""
    routes = APIRouter(tags=["operations"], responses=document_errors(InternalError))
    registry = CollectorRegistry()
    registry.register(NodeCollector(node))
    ProcessCollector(registry=registry)

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Tells what this node has counted, in the text format of Prometheus."""
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})

    return routes


class NodeCollector(Collector):
    """Reads a node's numbers when they are asked for; ``docs/operations.md`` explains each."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Yields all that the node has in its role."""
        node = self._node
        yield from _of_node(node)
        if node.leader is not None:
            yield from _of_leader(node.leader)
        if node.follower is not None:
            yield from _of_follower(node.follower)
        if node.settings.data_dir is not None:
            with contextlib.suppress(OSError):
                free = shutil.disk_usage(node.settings.data_dir).free
                yield _gauge("disk_free_bytes", "Free on the disk of DATA_DIR.", free)


def _of_node(node: Node) -> Iterator[Metric]:
    info = {"node_id": node.settings.node_id, "role": str(node.role), "version": __version__}
    about = GaugeMetricFamily(f"{PREFIX}node", "Who it is; always 1.", labels=tuple(info))
    about.add_metric(tuple(info.values()), 1)
    yield about
    epoch, contiguous, last = node.position()
    yield _gauge("epoch", "The epoch that it leads or follows.", epoch)
    yield _gauge("contiguous_seq", "It holds all to here; a leader: has committed.", contiguous)
    yield _gauge("last_seq", "The newest entry that it holds.", last)
    yield _gauge("keys", "Keys with a value.", node.state.keys)
    yield _gauge("tombstones", "Deletions that are remembered.", node.state.tombstones)
    yield _gauge("connections", "Open connections, channels too.", len(node.connections))
    writes = CounterMetricFamily(
        f"{PREFIX}writes", "Writes that were answered, a batch as one.", labels=["outcome"]
    )
    for outcome in WRITE_OUTCOMES:
        writes.add_metric([outcome], node.outcomes[outcome])
    yield writes


def _of_leader(leader: Leader) -> Iterator[Metric]:
    yield _gauge("ready", "1 if it would try a write now.", _is_open(leader))
    yield _gauge("stable_seq", "All at or below is committed.", leader.stable_seq)
    yield _gauge("write_quorum", "k of the writes that begin now.", leader.write_quorum)
    yield _gauge("uncommitted_entries", "Appended, and not committed yet.", leader.uncommitted)
    yield _gauge("waiting_writes", "Requests that wait for a quorum.", leader.waiting_writes)
    yield _gauge("log_entries", "Entries in the log's memory.", len(leader.log))
    yield _gauge("log_bytes", "The memory that they take, about.", leader.log.size_bytes)
    yield _histogram(
        "quorum_wait_ms", "From an entry's append to its commit.", leader.quorum_wait_ns, NS_PER_MS
    )
    yield from _of_replica(leader.reads, leader.batch_entries, leader.commits)
    yield from _of_links(leader)


def _of_follower(follower: Follower) -> Iterator[Metric]:
    ready = "1 if it follows a leader and holds all that there was when it began to."
    yield _gauge("ready", ready, _is_open(follower))
    yield _gauge("stable_seq", "Committed, as the leader last said.", follower.stable_seq)
    yield _gauge("holes", "Positions below the newest that are missing.", follower.held.holes)
    yield _gauge("learner", "1 while it counts for nothing.", follower.base_epoch != follower.epoch)
    yield from _of_replica(follower.reads, follower.batch_entries, follower.commits)


def _of_replica(
    reads: PositionWaits, batch_entries: Histogram, commits: GroupCommit | None
) -> Iterator[Metric]:
    yield _gauge("waiting_reads", "Reads that wait for a position.", reads.waiting)
    batches = "Entries that were sent together by a leader, or came together to a follower."
    yield _histogram("batch_entries", batches, batch_entries)
    if commits is not None:
        yield _histogram("sync_ms", "Time of a sync.", commits.sync_times_ns, NS_PER_MS)
        yield _histogram("sync_entries", "Entries that shared a sync.", commits.sync_entries)
        yield _gauge("unsynced_bytes", "Entries that wait for a sync.", commits.unsynced_bytes)


def _of_links(leader: Leader) -> Iterator[Metric]:
    families = {
        name: GaugeMetricFamily(PREFIX + name, text, labels=["follower"])
        for name, text in _LINK_TEXTS.items()
    }
    now_ns = leader.now_ns()
    for link in leader.links:
        for name, value in _of_link(leader, link, now_ns).items():
            families[name].add_metric([link.url], value)
    yield from families.values()


_LINK_TEXTS: Final = {
    "follower_connected": "1 while its channel is open.",
    "follower_counts": "1 while its acknowledgments count for the quorum.",
    "follower_holes": "Positions below its newest that it lacks.",
    "follower_waiting_entries": "Entries that wait for their delay, or for it to read.",
    "replication_lag_entries": "Entries that it has not acknowledged.",
    "replication_lag_ms": "Age of the oldest of these in the log, since this leader has it.",
}


def _of_link(leader: Leader, link: Link, now_ns: int) -> dict[str, float]:
    log, held = leader.log, link.held
    oldest = log.get(max(held.contiguous + 1, log.first_seq))
    return {
        "follower_connected": link.is_connected,
        "follower_counts": link.counts,
        "follower_holes": held.holes,
        "follower_waiting_entries": link.waiting,
        "replication_lag_entries": log.last_seq - held.max_seq + held.holes,
        "replication_lag_ms": (now_ns - oldest.appended_ns) / NS_PER_MS if oldest else 0.0,
    }


def _is_open(replica: Leader | Follower) -> bool:
    return replica.readiness().standing is Standing.OPEN


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _histogram(name: str, text: str, histogram: Histogram, per_unit: int = 1) -> Metric:
    """Returns a histogram with its values divided by a number, and its counts accumulated."""
    bounds = [*(str(bound / per_unit) for bound in histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(
        PREFIX + name, text, buckets=buckets, sum_value=histogram.total / per_unit
    )
