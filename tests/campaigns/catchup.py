"""Takes a follower's data away under load, and watches what that costs the leader.

Wiped: a follower of a large store loses its disk and starts again while clients go on to write.
It must count again within a minute, and the leader's memory must not grow with the data.

Away: a follower is frozen, then dead, while writes of much more than the leader may grow go on.
It must catch up afterwards.

Follower, leader, both: a snapshot beside as many writes as there may be, for a real follower of a
scripted leader, for a real leader with a slow scripted follower, and for both. None may take more
memory than with the state alone, beside twice the log and 100 MiB; no turn of a loop may use more
than 50 ms of the processor; the follower has to count again within 120 s.

Limit, which runs only if it is named: up to which rate a wiped follower does, with how short a log.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.campaigns import beside
from tests.campaigns.beside import (
    follower_alone,
    leader_and_follower,
    leader_with_a_slow_follower,
)
from tests.campaigns.campaign import Stage, Violation, conduct, parser_of
from tests.campaigns.client import Background, Connection
from tests.campaigns.limits import find_limits
from tests.campaigns.memory import MIB, MemorySampler
from tests.campaigns.nodes import Cluster, wait_until
from tests.campaigns.open_loop import OpenLoop, Stream, random_text
from tests.campaigns.views import check_equal

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLLOWERS, WRITE_QUORUM = 2, 1
RATE_PER_S = 500
VALUE_BYTES = 100
LOAD_BATCH, LOADERS = 1000, 4
CATCH_UP_LIMIT_S = 60.0
GROWTH_LIMIT_MIB = 100
# While a follower is away, so much is written: a leader that kept it for him would be found out.
MISSED_MIB = 3 * GROWTH_LIMIT_MIB
WRITTEN_TIMEOUT_S = 120.0
FILL_MIB, FILL_VALUE_BYTES = 128, 64 << 10
# Few enough that large values at all of them make no large store.
STREAM_KEYS = 50
SAMPLE_S = 0.1
STEADY_S = 2.0
# The log holds a part of what a follower misses, and no more.
SETTINGS = {"LOG_BYTES": str(32 * MIB), "HEARTBEAT_TIMEOUT_S": "3"}


@dataclass(frozen=True, slots=True)
class Form:
    """How much: keys of the store, how long a follower is away, and a snapshot beside writes."""

    keys: int
    away_s: float
    beside: beside.Form


FULL = Form(1_000_000, 600.0, beside.Form(1_000_000, log_mib=32, state_s=30.0))
SHORT = Form(50_000, 10.0, beside.Form(50_000, log_mib=2, state_s=3.0))


class CatchUp:
    """One cluster, its load and its leader's memory."""

    def __init__(
        self, stage: Stage, cluster: Cluster, background: Background, sampler: MemorySampler
    ) -> None:
        self._stage = stage
        self._cluster = cluster
        self._background = background
        self._sampler = sampler

    def fill(self, keys: int) -> None:
        """Puts keys into the store, by batches."""
        start_s = time.monotonic()
        random = Random(self._stage.random.random())
        self._background.run(load(self._cluster.leader.url, keys, random))
        took_s = time.monotonic() - start_s
        self._cluster.wait_converged()
        self._stage.say(
            f"  loaded {keys:,} keys in {took_s:.1f} s, {keys / took_s:,.0f}/s; leader has "
            f"{self._leader_mib():.0f} MiB in memory, {self._disk_mib()} MiB on disk"
        )

    def wipe(self) -> tuple[float, float]:
        """Wipes a follower under load; returns its catch-up in s, the leader's growth in MiB."""
        cluster, (victim, *_) = self._cluster, self._cluster.followers
        with self._load(VALUE_BYTES):
            time.sleep(STEADY_S)
            before_mib, start_s = self._leader_mib(), time.monotonic()
            cluster.kill(victim)
            cluster.wipe(victim)
            started_s = time.monotonic()
            cluster.launch(victim)
            limit_s = 3 * CATCH_UP_LIMIT_S  # late is told apart from never
            wait_until(lambda: victim.name in self._counting(), "it counts again", limit_s)
            took_s = time.monotonic() - started_s
            time.sleep(STEADY_S)
        grown_mib = self._sampler.peak_bytes(cluster.leader, start_s) / MIB - before_mib
        self._stage.say(
            f"  wiped follower counted again after {took_s:.1f} s; leader's memory from "
            f"{before_mib:.0f} MiB up by {grown_mib:.0f} MiB at most"
        )
        return took_s, grown_mib

    def leave_away(self, away_s: float) -> float:
        """Freezes a follower, then kills it; returns the leader's growth in MiB."""
        cluster, (victim, *_) = self._cluster, self._cluster.followers
        # What the log and the engine's buffers hold anyway is not the absent one's fault.
        with self._load(FILL_VALUE_BYTES) as loop:
            wait_written(loop, FILL_MIB)
        value_bytes = int(MISSED_MIB * MIB / (RATE_PER_S * away_s))
        before_mib, start_s = self._leader_mib(), time.monotonic()
        with self._load(value_bytes) as loop:
            victim.process.suspend()
            time.sleep(away_s / 2)
            cluster.kill(victim)
            time.sleep(away_s / 2)
            wait_written(loop, MISSED_MIB)
        grown_mib = self._sampler.peak_bytes(cluster.leader, start_s) / MIB - before_mib
        cluster.start(victim)
        self._stage.say(
            f"  follower away for {away_s:g} s, {MISSED_MIB} MiB written in values of "
            f"{value_bytes:,} bytes; leader's memory from {before_mib:.0f} MiB up by "
            f"{grown_mib:.0f} MiB at most"
        )
        return grown_mib

    def check_equal(self) -> None:
        """Checks that all replicas are equal in the end."""
        self._cluster.wait_counting()
        self._cluster.wait_converged()
        check_equal(self._cluster, self._cluster.nodes)

    @contextmanager
    def _load(self, value_bytes: int) -> Iterator[OpenLoop]:
        """Writes at the fixed rate for as long as the block lasts; no write may fail."""
        stream = Stream(RATE_PER_S, keys=STREAM_KEYS, value_bytes=value_bytes)
        loop = OpenLoop(self._cluster.leader.url, stream, self._stage.random.getrandbits(32))
        job = self._background.start(loop.run())
        try:
            yield loop
        finally:
            loop.stop()
            job.result()
        if loop.failures:
            lines = [f"{count} times {text}" for text, count in loop.failures.items()]
            raise Violation("Writes failed though enough followers were there.", lines)
        self._stage.say(
            f"  {loop.acknowledged:,} writes acknowledged, {loop.latest_s * 1000:.0f} ms late "
            "at most"
        )

    def _counting(self) -> list[str]:
        links = self._cluster.links()["links"]
        self._cluster.leader.check_alive()
        return [n for n, link in links.items() if link["connected"] and not link["learner"]]

    def _leader_mib(self) -> float:
        return float(self._cluster.leader.process.memory_info().rss / MIB)

    def _disk_mib(self) -> str:
        return " + ".join(f"{node.disk_bytes() / MIB:.0f}" for node in self._cluster.nodes)


def wait_written(loop: OpenLoop, mib: float) -> None:
    """Waits until the load has written so much."""
    stream = loop.stream
    wait_until(
        lambda: loop.acknowledged * stream.value_bytes >= mib * MIB,
        f"{mib} MiB are written",
        WRITTEN_TIMEOUT_S,
    )


async def load(url: str, keys: int, random: Random) -> None:
    """Puts ``keys`` keys with random values of ``VALUE_BYTES`` into a store, by batches."""
    firsts = iter(range(0, keys, LOAD_BATCH))

    async def work() -> None:
        connection = Connection(url)
        for first in firsts:
            numbers = range(first, min(first + LOAD_BATCH, keys))
            operations = [
                {"op": "put", "key": f"key {number}", "value": random_text(random, VALUE_BYTES)}
                for number in numbers
            ]
            body = json.dumps({"operations": operations}).encode()
            answer = await connection.request("POST", "/kv", body)
            if answer.status != 200:
                raise Violation("A batch was refused.", [f"{answer.status} {answer.body}"])
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(LOADERS):
            group.create_task(work())


def run_away(stage: Stage, form: Form) -> str:
    """Wipes a follower, and leaves one away, on one cluster."""
    wrong: list[str] = []
    with (
        Background() as background,
        Cluster(stage, "cluster", FOLLOWERS, WRITE_QUORUM, **SETTINGS) as cluster,
    ):
        cluster.start()
        cluster.wait_counting()
        with MemorySampler([cluster.leader], SAMPLE_S) as sampler:
            work = CatchUp(stage, cluster, background, sampler)
            work.fill(form.keys)
            took_s, wiped_mib = work.wipe()
            work.check_equal()
            away_mib = work.leave_away(form.away_s)
            work.check_equal()
        cluster.check_logs()
    if took_s > CATCH_UP_LIMIT_S:
        wrong.append(f"catching up took {took_s:.1f} s, {CATCH_UP_LIMIT_S:g} s at most")
    for name, grown_mib in (("wiped", wiped_mib), ("away", away_mib)):
        if grown_mib > GROWTH_LIMIT_MIB:
            wrong.append(
                f"{name}: the leader grew by {grown_mib:.0f} MiB, {GROWTH_LIMIT_MIB} at most"
            )
    if wrong:
        raise Violation("Catching up cost too much.", wrong)
    return (
        f"wiped follower of {form.keys:,} keys back in {took_s:.1f} s under {RATE_PER_S} "
        f"writes/s; leader up by {wiped_mib:.0f} MiB, and by {away_mib:.0f} MiB over an absence "
        f"of {form.away_s:g} s."
    )


def run_beside(stage: Stage, form: beside.Form, part: str) -> str:
    """Sends a snapshot beside as many writes as there may be."""
    with Background() as background:

        def fill(url: str) -> None:
            background.run(load(url, form.keys, Random(stage.random.random())))

        match part:
            case "follower":
                wrong = follower_alone(stage, form)
            case "leader":
                wrong = leader_with_a_slow_follower(stage, form, fill)
            case "limit":
                return f"limit: a wiped follower counts again {find_limits(stage, form, fill)}."
            case _:
                wrong = [
                    line
                    # With disks it is these that bound the writes.
                    for is_timed, is_durable in ((True, True), (True, False), (False, False))
                    for line in leader_and_follower(
                        stage, form, fill, is_timed=is_timed, is_durable=is_durable
                    )
                ]
    if wrong:
        raise Violation(f"A snapshot beside writes cost too much ({part}).", wrong)
    return f"{part}: a snapshot of {form.keys:,} keys beside writes within its bounds."


PARTS = ("away", "follower", "leader", "both")
MEASURED = ("limit",)


def campaign(stage: Stage) -> str:
    """Runs all parts, or the one that was asked for."""
    form = SHORT if stage.options.short else FULL
    chosen = [stage.options.part] if stage.options.part else PARTS
    return " ".join(
        run_away(stage, form) if part == "away" else run_beside(stage, form.beside, part)
        for part in chosen
    )


def main() -> None:
    """Runs the campaign."""
    parser = parser_of("catchup", __doc__ or "")
    parser.add_argument("--part", choices=PARTS + MEASURED, help="one of them alone")
    conduct(parser, campaign)


if __name__ == "__main__":
    main()
