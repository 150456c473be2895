"""Part ``generator``: how late it sends, and how much it can send.

Leader, followers and generator share this machine, as they do in a sweep of the local engine.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from orchestration.analysis.histograms import describe_ms
from orchestration.clusters import processes
from orchestration.load.plan import LoadPlan
from orchestration.loadgen import Trial, run_trial
from tests.bench.store import run_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.load.results import TrialResult
    from tests.bench.part import Bench

FOLLOWERS, WRITE_QUORUM = 5, 3
USERS = 16
WARMUP_S = 2.0
# The send delay's p99 that each rate may have.
GOALS_MS = {1_000: 1.5, 2_000: 3.0}
CLOSED_LOOP_SHARE = 0.9
BARE_USER = Path(__file__).with_name("bare_user.py")


def measure_generator(bench: Bench) -> None:
    """Sends at a rate, and back to back next to the least that Locust can do."""
    with (
        bench.fresh_folder() as folder,
        run_store(
            folder, followers=FOLLOWERS, write_quorum=WRITE_QUORUM, is_durable=False
        ) as cluster,
    ):
        _measure_lateness(bench, cluster.leader_url, folder)
        _measure_closed_loop(bench, cluster.leader_url, folder)


def _measure_lateness(bench: Bench, url: str, folder: Path) -> None:
    table = Table(title="Open loop of writes: send delay in ms, medians of the rounds")
    for column in ("offered/s", "achieved/s", "p50", "p99", "max", "response p50", "CPU"):
        table.add_column(column, justify="right")
    reached: list[tuple[str, float, float]] = []
    for rate_per_s, goal_ms in GOALS_MS.items():
        results = [
            run_trial(_trial(url, folder / f"open{rate_per_s}-{number}", rate_per_s, bench.seconds))
            for number in range(bench.rounds)
        ]
        p99_ms = _median_ms(results, "send_delay", "p99")
        table.add_row(
            f"{rate_per_s:,}",
            f"{statistics.median(result.ok_rate_per_s for result in results):,.0f}",
            *(f"{_median_ms(results, 'send_delay', name):.3f}" for name in ("p50", "p99", "max")),
            f"{_median_ms(results, 'response', 'p50'):.3f}",
            f"{statistics.median(result.generator_cpu_share for result in results):.0%}",
        )
        reached.append((f"{rate_per_s:,}/s", p99_ms, goal_ms))
    bench.console.print(table)
    for rate, p99_ms, goal_ms in reached:
        verdict = "[green]reached[/]" if p99_ms < goal_ms else "[red]missed[/]"
        bench.console.print(
            f"Send delay p99 at {rate}: {p99_ms:.3f} ms, less than {goal_ms:g} wanted: {verdict}."
        )


def _median_ms(results: Sequence[TrialResult], quantity: str, figure: str) -> float:
    found = [describe_ms(result.operations["write"].histograms[quantity]) for result in results]
    return statistics.median(each[figure] or 0.0 for each in found)


def _measure_closed_loop(bench: Bench, url: str, folder: Path) -> None:
    ours: list[float] = []
    bare: list[float] = []
    for number in range(bench.rounds):
        trial = _trial(url, folder / f"closed-{number}", 0.0, bench.seconds)
        ours.append(run_trial(trial).ok_rate_per_s)
        bare.append(_bare_rate_per_s(url, folder / f"bare-{number}", bench.seconds))
    table = Table(title=f"Closed loop of {USERS} users, writes/s")
    for column in ("", "median", "min to max"):
        table.add_column(column, justify="right" if column else "left")
    for name, rates in (("bare FastHttpUser", bare), ("quorumeter", ours)):
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        table.add_row(name, f"{statistics.median(rates):,.0f}", spread)
    bench.console.print(table)
    share = statistics.median(ours) / statistics.median(bare)
    bench.print_target("Share of a bare FastHttpUser's rate", share, CLOSED_LOOP_SHARE)


def _trial(url: str, folder: Path, rate_per_s: float, seconds: int) -> Trial:
    plan = LoadPlan(rate_per_s=rate_per_s, warmup_s=WARMUP_S, duration_s=seconds)
    return Trial(scenario="writes", url=url, folder=folder, plan=plan, users=USERS)


def _bare_rate_per_s(url: str, folder: Path, seconds: int) -> float:
    """What Locust's own user does with the same writes and nothing else.

    Its rate is that of the last seconds: the time in which users start is left out, as our warm-up.
    """
    folder.mkdir()
    options = {
        "locustfile": BARE_USER,
        "host": url,
        "users": USERS,
        "spawn-rate": USERS,
        "run-time": f"{round(WARMUP_S) + seconds}s",
        "json-file": folder / "stats",
    }
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
    command += [f"--{name}={value}" for name, value in options.items()]
    locust = processes.spawn(command, os.environ, folder / "locust.log")
    locust.wait(WARMUP_S + seconds + 30)
    (entry,) = json.loads((folder / "stats.json").read_bytes())
    per_second = {int(second): count for second, count in entry["num_reqs_per_sec"].items()}
    # The first two and the last are not whole.
    whole = [per_second[second] for second in sorted(per_second)[round(WARMUP_S) : -1]]
    if entry["num_failures"] or not whole:
        raise SystemExit(f"The bare user failed: see {folder / 'locust.log'}")
    return statistics.mean(whole)
