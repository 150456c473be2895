"""Conducts a sweep as a command: cluster, load, report, verdict."""

import csv
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestration.clusters import processes
from orchestration.clusters.attached import AttachedCluster
from orchestration.clusters.base import Cluster
from orchestration.clusters.compose import FOLLOWERS as COMPOSE_FOLLOWERS
from orchestration.clusters.compose import ComposeCluster
from orchestration.clusters.local import LocalCluster, LocalSettings
from orchestration.control import Control
from orchestration.errors import UsageError
from orchestration.interrupt import SignalGuard
from orchestration.load.results import TimelineRow, TimelineTail, TrialResult
from orchestration.load.plan import LoadPlan
from orchestration.loadgen import Trial, run_trial
from orchestration.manifest import RunFolder, create_run_folder, start_manifest
from orchestration.progress import make_progress
from orchestration.report.console import print_report
from orchestration.report.summary import Summary, to_json
from orchestration.report.write import write_report
from orchestration.request import DEFAULT_FOLLOWERS, DEFAULT_OUT, SweepRequest, to_scenario
from orchestration.scenario import Cell, Scenario, plan
from orchestration.sweep import Ending, Sweep, TrialRunner
from orchestration.terminal import make_console

LOCUSTFILES: Mapping[str, str] = {"writes": "writes", "mixed": "mixed", "seed": "seed_workload"}
EXIT_CODES: Mapping[str, int] = {"valid": 0, "violated": 1, "unknown": 2}


@dataclass(frozen=True, slots=True)
class Manners:
    """How the command speaks."""

    is_quiet: bool = False
    is_json: bool = False
    is_strict: bool = False


def resolve(request: SweepRequest, control: Control, *, fresh_seed: int) -> Scenario:
    """The scenario of a request; an attached cluster is asked how many followers it has."""
    followers = request.followers if request.followers is not None else DEFAULT_FOLLOWERS
    if request.where == "compose" and followers != COMPOSE_FOLLOWERS:
        raise UsageError(
            f"--followers is {followers}, but docker-compose.yml has {COMPOSE_FOLLOWERS}: "
            "leave the option out, or use --engine local."
        )
    if request.attach_url is not None:
        _, followers = control.quorum(request.attach_url.rstrip("/"))
    return to_scenario(request, followers=followers, fresh_seed=fresh_seed)


def conduct(
    request: SweepRequest,
    scenario: Scenario,
    control: Control,
    guard: SignalGuard,
    manners: Manners,
) -> int:
    """Run the sweep, write its report whatever came of it, and return the exit code."""
    stderr = make_console(stderr=True)
    now = datetime.now(UTC)
    run = create_run_folder((request.out or DEFAULT_OUT).resolve(), scenario.workload, now)
    cluster = make_cluster(request, scenario, control, run, guard)
    progress = make_progress(
        stderr, lambda: control.positions(cluster.leader_url), is_quiet=manners.is_quiet
    )
    manifest = start_manifest(
        run,
        scenario,
        command=["quorumeter", *sys.argv[1:]],
        planned_trials=len(plan(scenario)),
        now=now,
    )
    sweep = Sweep(
        scenario,
        cluster,
        run,
        manifest,
        run_trial=make_runner(scenario),
        control=control,
        progress=progress,
        held=guard.held,
    )
    with processes.no_child_left():
        ending = sweep.execute()
    shutil.rmtree(run.node_data, ignore_errors=True)
    if ending.message:
        stderr.print(ending.message, markup=False, soft_wrap=True)
    with guard.held():
        return finish(run, ending, manners, progress.say)


def make_cluster(
    request: SweepRequest,
    scenario: Scenario,
    control: Control,
    run: RunFolder,
    guard: SignalGuard,
) -> Cluster:
    """The cluster that the scenario's engine names, not started yet."""
    if request.attach_url is not None:
        return AttachedCluster(
            request.attach_url,
            control,
            delay_ms=request.delay_ms,
            reached_urls=request.reached_urls,
        )
    if scenario.engine == "compose":
        project = f"quorumeter-sweep-{scenario.seed:08x}"
        return ComposeCluster(project, control, delay_ms=scenario.delay_ms, log_dir=run.node_logs)
    settings = LocalSettings(
        followers=scenario.followers,
        delay_ms=scenario.delay_ms or (0.0, 0.0),
        delay_seed=scenario.seed,
        data_dir=run.node_data if scenario.durable else None,
    )
    return LocalCluster(settings, run.node_logs, control, held=guard.held)


def make_runner(scenario: Scenario) -> TrialRunner:
    """The load generator, set for the scenario."""

    def run(
        cell: Cell, leader_url: str, folder: Path, on_row: Callable[[TimelineRow], None]
    ) -> TrialResult:
        trial = Trial(
            scenario=LOCUSTFILES[scenario.workload],
            url=leader_url,
            folder=folder,
            plan=load_plan(scenario, cell),
            users=scenario.users or 1,
        )
        return run_trial(trial, on_progress=on_row)

    return run


def load_plan(scenario: Scenario, cell: Cell) -> LoadPlan:
    """The load of one cell."""
    plain = LoadPlan()
    return LoadPlan(
        rate_per_s=scenario.rate_per_s or 0.0,
        warmup_s=scenario.warmup_s,
        duration_s=scenario.duration_s or 0.0,
        total_writes=scenario.total_writes or 0,
        keys=scenario.keys or plain.keys,
        seed=cell.seed,
    )


def finish(run: RunFolder, ending: Ending, manners: Manners, say: Callable[[str], None]) -> int:
    """Write the report of what there is, print it, and return the exit code."""
    merge_timelines(run)
    summary = write_report(run.path, run.root)
    if manners.is_json:
        make_console().out(to_json(summary).decode(), end="", highlight=False)
    else:
        stdout = make_console()
        print_report(stdout, summary)
        say(f"Report: {run.path / 'report.html'}")
    return exit_code(summary, ending, is_strict=manners.is_strict)


def exit_code(summary: Summary, ending: Ending, *, is_strict: bool = False) -> int:
    """The command's exit code: how it ended, or else the verdict."""
    if ending.exit_code is not None:
        return ending.exit_code
    if is_strict and any(cell.stamp != "ok" for cell in summary.cells):
        return EXIT_CODES[summary.verdict] or EXIT_CODES["unknown"]
    return EXIT_CODES[summary.verdict]


def merge_timelines(run: RunFolder) -> None:
    """Gather the trials' timelines in ``timeline.csv``, with the cell of each row."""
    with (run.path / "timeline.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["block", "k", *TimelineRow._fields])
        for path in sorted(run.path.glob("trials/*/timeline-0.csv")):
            block, k = path.parent.name.removeprefix("block").split("-k")
            for row in TimelineTail(path).new_rows():
                writer.writerow([block, k, *row])
