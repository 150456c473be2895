"""Runs the store's own code in simulated clusters, and looks whether a promise is ever broken.

Each run is one cluster in one thread: its clock, network and disks are simulated, and all that
happens follows from its seed: writes, retries, linearizable reads, promotions, crashes, lost disks,
partitions, changes of the write quorum. A run that breaks a promise names its seed;
``--replay SEED`` shows what happened in it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from tests.campaigns.campaign import Stage, Violation, conduct, parser_of
from tests.simulation.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 200
RUNS = 20_000
SHORT_S = 120.0
PER_TASK = 20
TRACE_LINES = 60
# The order of sets of texts depends on it, and all else on that order.
HASH_SEED = "0"


def simulate(seed: int) -> tuple[str, dict[str, int]]:
    """Runs a cluster; returns what promise it broke, if it did, and what happened how often."""
    logging.disable(logging.CRITICAL)
    cluster = Cluster(seed)
    try:
        cluster.run(STEPS)
    except Exception as error:  # noqa: BLE001  whatever it is, it is a find
        return f"{type(error).__name__}: {error}", cluster.counts
    return "", cluster.counts


def simulate_some(seeds: list[int]) -> list[tuple[int, str, dict[str, int]]]:
    """Runs some clusters, one after the other."""
    return [(seed, *simulate(seed)) for seed in seeds]


def campaign(stage: Stage) -> str:
    """Runs many clusters, or shows one."""
    if stage.options.replay is not None:
        return replay(stage, stage.options.replay)
    deadline_s = time.monotonic() + SHORT_S if stage.options.short else None
    runs = stage.options.runs
    found: list[str] = []
    totals: Counter[str] = Counter()
    with ProcessPoolExecutor(stage.options.processes) as pool:
        for done in results(pool, seeds_from(stage.options.seed), runs, deadline_s):
            for seed, violation, counts in done:
                totals.update(counts, runs=1)
                if violation:
                    found.append(f"--replay {seed}: {violation}")
                    stage.console.print(found[-1], markup=False)
            if len(found) >= stage.options.most:
                pool.shutdown(cancel_futures=True)
                break
    what = ", ".join(f"{totals[name]:,} {name}" for name in sorted(totals))
    if found:
        raise Violation(f"{len(found)} of {totals['runs']} runs broke a promise ({what}).", found)
    return f"no promise broken in {totals['runs']:,} runs of {STEPS} steps ({what})."


def seeds_from(first: int) -> Iterator[list[int]]:
    """Yields lists of seeds, for ever."""
    while True:
        yield list(range(first, first + PER_TASK))
        first += PER_TASK


def results(
    pool: ProcessPoolExecutor, seeds: Iterator[list[int]], runs: int, deadline_s: float | None
) -> Iterator[list[tuple[int, str, dict[str, int]]]]:
    """Yields what runs came to, in the order of their seeds, until enough or out of time."""
    width = 2 * (os.cpu_count() or 1)
    left = max(1, runs // PER_TASK)
    while left > 0 and (deadline_s is None or time.monotonic() < deadline_s):
        some = list(islice(seeds, min(width, left)))
        left -= len(some)
        yield from pool.map(simulate_some, some)


def replay(stage: Stage, seed: int) -> str:
    """Runs one cluster and shows what happened."""
    if stage.options.verbose:
        logging.basicConfig(level=logging.INFO, format="          %(name)s: %(message)s")
    cluster = Cluster(seed)
    stage.say(f"{cluster.shape}")
    try:
        cluster.run(STEPS)
    except Exception as error:
        raise Violation(f"{type(error).__name__}: {error}", cluster.trace[-TRACE_LINES:]) from error
    return f"seed {seed} breaks no promise ({cluster.counts})."


def main() -> None:
    """Runs the campaign."""
    parser = parser_of("simulate", __doc__ or "")
    parser.add_argument("--replay", type=int, metavar="SEED", help="show the run of one seed")
    parser.add_argument("--verbose", action="store_true", help="with what the nodes log")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"how many ({RUNS})")
    parser.add_argument("--most", type=int, default=5, help="stop after so many finds (5)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="side by side")
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
        command = [sys.executable, "-m", "tests.campaigns.simulate", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)
    conduct(parser, campaign)


if __name__ == "__main__":
    main()
