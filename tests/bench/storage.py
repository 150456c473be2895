"""Part ``storage``: what a durable commit costs in each engine, and who waits for it."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import uvloop
from rich.table import Table

from tests.bench.engines import ENTRY_BYTES, engines, has_lmdb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.engines import Engine
    from tests.bench.part import Bench

    Measure = Callable[[Engine, int], float]

SIZES = (1, 16, 128)
COMMITS = 400
SPIN_S = 1.0


def measure_storage(bench: Bench) -> None:
    """Prints commit times, and what a commit leaves to other threads."""
    if not has_lmdb():
        bench.console.print("LMDB is left out: it is not installed (pip install lmdb).")
    bench.console.print(f"Entries of {ENTRY_BYTES} bytes, {COMMITS} commits a turn.")
    _measure_commits(bench)
    _measure_threads(bench)


def _measure_commits(bench: Bench) -> None:
    ways: dict[str, Measure] = {"inline": inline_ms, "by a thread": threaded_ms}
    found_ms: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for _ in range(bench.rounds):
        for size in SIZES:
            for name, open_engine in engines().items():
                for way, measure in ways.items():
                    with bench.fresh_folder() as folder:
                        taken_ms = _with_engine(open_engine, folder, measure, size)
                    found_ms[name, way, size].append(taken_ms)
    for way in ways:
        table = Table(title=f"ms per commit, {way}")
        table.add_column("entries a commit")
        for size in SIZES:
            table.add_column(str(size), justify="right")
        for name in engines():
            medians_ms = [statistics.median(found_ms[name, way, size]) for size in SIZES]
            table.add_row(name, *(f"{median_ms:.3f}" for median_ms in medians_ms))
        bench.console.print(table)


def _with_engine(
    open_engine: Callable[[Path], Engine], folder: Path, measure: Measure, size: int
) -> float:
    engine = open_engine(folder)
    try:
        return measure(engine, size)
    finally:
        engine.close()


def inline_ms(engine: Engine, size: int) -> float:
    """The median commit when the caller commits itself."""
    taken_ns = []
    for number in range(COMMITS):
        start_ns = time.perf_counter_ns()
        engine.commit(number * size, size)
        taken_ns.append(time.perf_counter_ns() - start_ns)
    return statistics.median(taken_ns) / 1e6


def threaded_ms(engine: Engine, size: int) -> float:
    """The median commit when an event loop hands it to a thread and waits for it."""

    async def commit_all(pool: ThreadPoolExecutor) -> float:
        loop = asyncio.get_running_loop()
        taken_ns = []
        for number in range(COMMITS):
            start_ns = time.perf_counter_ns()
            await loop.run_in_executor(pool, engine.commit, number * size, size)
            taken_ns.append(time.perf_counter_ns() - start_ns)
        return statistics.median(taken_ns) / 1e6

    with ThreadPoolExecutor(1) as pool:
        return uvloop.run(commit_all(pool))


def _measure_threads(bench: Bench) -> None:
    table = Table(title="A thread commits one by one, another computes")
    for column in ("", "commits/s", "the other's speed"):
        table.add_column(column, justify="right" if column else "left")
    for name, open_engine in engines().items():
        commits_per_s, shares = [], []
        for _ in range(bench.rounds):
            with bench.fresh_folder() as folder:
                engine = open_engine(folder)
                try:
                    count, beside_per_s = _commit_beside_spins(engine)
                finally:
                    engine.close()
            commits_per_s.append(count / SPIN_S)
            shares.append(beside_per_s / spins_per_s(time.sleep))
        commits, share = statistics.median(commits_per_s), statistics.median(shares)
        table.add_row(name, f"{commits:,.0f}", f"{share:.0%}")
    bench.console.print(table)


def _commit_beside_spins(engine: Engine) -> tuple[int, float]:
    count = 0

    def commit_for(duration_s: float) -> None:
        nonlocal count
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            engine.commit(count, 1)
            count += 1

    rate_per_s = spins_per_s(commit_for)
    return count, rate_per_s


def spins_per_s(action: Callable[[float], None]) -> float:
    """How often a thread counts in a second while this one acts for ``SPIN_S`` seconds."""
    is_over = False
    spins = 0

    def spin() -> None:
        nonlocal spins
        while not is_over:
            spins += 1

    thread = threading.Thread(target=spin)
    thread.start()
    start_s = time.monotonic()
    try:
        action(SPIN_S)
    finally:
        taken_s = time.monotonic() - start_s
        is_over = True
        thread.join()
    return spins / taken_s
