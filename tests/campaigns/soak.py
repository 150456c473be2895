"""Writes at half of the maximum rate for long, and watches memory, disk and errors.

The warm-up writes without a pause, and so tells the maximum. It fills all that has a bound: the log
and the memory of idempotency keys, which are set small, and the engine's buffers, which reach their
size after some flushes. What grows after it, at the lower rate, grows for ever.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from tests.campaigns.campaign import Stage, Violation, conduct, parser_of
from tests.campaigns.client import Background
from tests.campaigns.memory import MIB, MemorySampler, growth_mib_per_min, peaks
from tests.campaigns.nodes import Cluster
from tests.campaigns.open_loop import OpenLoop, Stream
from tests.campaigns.views import check_equal

if TYPE_CHECKING:
    from tests.campaigns.client import Job

FOLLOWERS, WRITE_QUORUM = 2, 1
SHARE_OF_MAXIMUM = 0.5
# The engine's memory comes and goes with each of its flushes: values of this length make one every
# few seconds, so that a window sees the peak of several.
KEYS, VALUE_BYTES = 10_000, 1000
WARMUP_TIMEOUT_S = 600.0
PEAK_WINDOW_S = 15.0
GROWTH_LIMIT_MIB_PER_MIN = 1.0
# By so much the memory of a node that leaks nothing differs from one window to another: what the
# engine gives back depends on when it compacts. It weighs in a short run, and not in a long one.
NOISE_MIB = 4.0
SAMPLE_S = 0.5
DISK_SAMPLES = 20
# Full within seconds at any rate that deserves the name.
SETTINGS = {"LOG_ENTRIES": "20000", "IDEMPOTENCY_KEYS": "20000", "LOG_BYTES": str(8 * MIB)}


@dataclass(frozen=True, slots=True)
class Form:
    """How long: writes at the maximum rate, then seconds at half of it, not counted and counted."""

    warmup_writes: int
    calm_s: float
    measured_s: float


FULL, SHORT = Form(1_000_000, 60.0, 3300.0), Form(100_000, 5.0, 75.0)


@dataclass(frozen=True, slots=True)
class NodeGrowth:
    """What one node needed: memory by the fitted line, disk at its least and most."""

    name: str
    mib_per_min: float
    last_mib: float
    disk_mib: tuple[float, float]


def campaign(stage: Stage) -> str:
    """Measures the maximum, then writes at half of it."""
    form = SHORT if stage.options.short else FULL
    with (
        Background() as background,
        Cluster(stage, "cluster", FOLLOWERS, WRITE_QUORUM, **SETTINGS) as cluster,
    ):
        cluster.start()
        cluster.wait_counting()
        maximum_per_s = warm_up(stage, cluster, background, form.warmup_writes)
        stage.say(f"  maximum: {maximum_per_s:,.0f} writes/s")
        rate_per_s = SHARE_OF_MAXIMUM * maximum_per_s
        stream = Stream(rate_per_s, KEYS, VALUE_BYTES)
        loop = OpenLoop(cluster.leader.url, stream, stage.random.getrandbits(32))
        with MemorySampler(cluster.nodes, SAMPLE_S) as sampler:
            job = background.start(loop.run())
            try:
                wait(cluster, job, form.calm_s)
                start_s = time.monotonic()
                disks_mib = watch_disks(cluster, job, form.measured_s)
            finally:
                loop.stop()
                job.result()
        growths = [
            NodeGrowth(
                node.name,
                growth_mib_per_min(peaks(sampler.since(node, start_s), PEAK_WINDOW_S)),
                sampler.since(node, start_s)[-1].bytes / MIB,
                (min(disks_mib[node.name]), max(disks_mib[node.name])),
            )
            for node in cluster.nodes
        ]
        report(stage, growths)
        check(loop, growths, form.measured_s / 60)
        cluster.wait_converged()
        check_equal(cluster, cluster.nodes)
        cluster.check_logs()
    worst = max(growth.mib_per_min for growth in growths)
    return (
        f"{loop.acknowledged:,} writes at {rate_per_s:,.0f}/s, no error, memory up by "
        f"{worst:.2f} MiB a minute at most."
    )


def warm_up(stage: Stage, cluster: Cluster, background: Background, writes: int) -> float:
    """Writes without a pause; returns how many writes per second that were."""
    stream = Stream(math.inf, KEYS, VALUE_BYTES)
    loop = OpenLoop(cluster.leader.url, stream, stage.random.getrandbits(32))
    start_s = time.monotonic()
    job = background.start(loop.run())
    try:
        while loop.acknowledged < writes and time.monotonic() - start_s < WARMUP_TIMEOUT_S:
            wait(cluster, job, 1.0)
    finally:
        loop.stop()
        job.result()
    if loop.failures:
        raise Violation("Writes failed at the maximum rate.", list(loop.failures))
    return loop.acknowledged / (time.monotonic() - start_s)


def wait(cluster: Cluster, job: Job, seconds: float) -> None:
    """Sleeps as long as all is well."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        job.check()
        for node in cluster.nodes:
            node.check_alive()
        time.sleep(min(1.0, max(0.0, end_s - time.monotonic())))


def watch_disks(cluster: Cluster, job: Job, seconds: float) -> dict[str, list[float]]:
    """Waits; returns each node's disk use in MiB at some times."""
    found: dict[str, list[float]] = {node.name: [] for node in cluster.nodes}
    for _ in range(DISK_SAMPLES):
        wait(cluster, job, seconds / DISK_SAMPLES)
        for node in cluster.nodes:
            found[node.name].append(node.disk_bytes() / MIB)
    return found


def report(stage: Stage, growths: list[NodeGrowth]) -> None:
    """Prints what each node needed."""
    table = Table("node", "memory MiB/min", "last, MiB", "disk MiB, least to most")
    for growth in growths:
        low, high = growth.disk_mib
        table.add_row(
            growth.name,
            f"{growth.mib_per_min:+.2f}",
            f"{growth.last_mib:.0f}",
            f"{low:.0f} to {high:.0f}",
        )
    stage.console.print(table)


def check(loop: OpenLoop, growths: list[NodeGrowth], minutes: float) -> None:
    """Checks that nothing failed, and nothing grows.

    Raises:
        Violation: Something did.
    """
    wrong = [f"{count} times {text}" for text, count in loop.failures.items()]
    limit = GROWTH_LIMIT_MIB_PER_MIN + NOISE_MIB / minutes
    wrong += [
        f"the memory of {growth.name} grows by {growth.mib_per_min:.2f} MiB a minute; over "
        f"{minutes:.2f} minutes {limit:.2f} may be chance"
        for growth in growths
        if growth.mib_per_min >= limit
    ]
    if wrong:
        raise Violation("The store does not stay as it is.", wrong)


def main() -> None:
    """Runs the campaign."""
    conduct(parser_of("soak", __doc__ or ""), campaign)


if __name__ == "__main__":
    main()
