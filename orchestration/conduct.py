"""Conducts a sweep as a command: cluster, load, report, verdict."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestration import limits, thresholds
from orchestration.clusters import processes
from orchestration.clusters.attached import AttachedCluster
from orchestration.clusters.compose import FOLLOWERS as COMPOSE_FOLLOWERS
from orchestration.clusters.compose import ComposeCluster
from orchestration.clusters.group import ClusterGroup
from orchestration.clusters.local import LocalCluster, LocalSettings
from orchestration.control import Control
from orchestration.cores import Cores, divide_cores
from orchestration.errors import UsageError
from orchestration.interrupt import SignalGuard
from orchestration.load.plan import MIXES, LoadPlan
from orchestration.load.results import TimelineRow, TrialResult
from orchestration.loadgen import Trial, run_trial
from orchestration.manifest import RunFolder, create_run_folder, start_manifest
from orchestration.progress import make_progress
from orchestration.report.console import print_report
from orchestration.report.summary import Summary, to_json
from orchestration.report.write import write_report
from orchestration.request import DEFAULT_FOLLOWERS, DEFAULT_OUT, SweepRequest, to_scenario
from orchestration.scenario import Cell, Scenario, Workload, plan
from orchestration.sweep import Ending, Sweep, TrialRunner
from orchestration.terminal import make_console
from orchestration.timeline import gather_timelines

EXIT_CODES: Mapping[str, int] = {"valid": 0, "violated": 1, "unknown": 2}
EXIT_BREACHED = thresholds.EXIT_CODES["breached"]


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
    now = datetime.now(UTC)
    run = create_run_folder((request.out or DEFAULT_OUT).resolve(), scenario.name, now)
    manifest = start_manifest(
        run,
        scenario,
        command=["quorumeter", *sys.argv[1:]],
        planned_trials=len(plan(scenario)),
        now=now,
    )
    if request.attach_url is not None:
        manifest["attach"] = {
            "leader_url": request.attach_url,
            "reached_urls": list(request.reached_urls),
            "delay_ms": request.delay_ms,
        }
    return carry_out(Job(request, scenario, run, manifest), control, guard, manners)


@dataclass(frozen=True, slots=True)
class Job:
    """A sweep to carry out, or to finish.

    Attributes:
        request: where the cluster is, if it is attached.
        scenario: what to measure.
        run: where to write.
        manifest: what is known of the run so far.
        done: cells that were measured before.
    """

    request: SweepRequest
    scenario: Scenario
    run: RunFolder
    manifest: dict[str, Any]
    done: tuple[Cell, ...] = ()


def carry_out(job: Job, control: Control, guard: SignalGuard, manners: Manners) -> int:
    """Run what is left of a sweep, write its report, and return the exit code."""
    stderr = make_console(stderr=True)
    scenario, run = job.scenario, job.run
    cores = divide_cores(scenario.processes) if scenario.is_pinned else Cores()
    # What a killed part of the run has left would be taken for its own by a new cluster.
    shutil.rmtree(run.node_data, ignore_errors=True)
    delay_seed = delay_seed_of(job)
    clusters = make_clusters(job.request, scenario, control, run, guard, cores, delay_seed)
    progress = make_progress(
        stderr, lambda: control.positions(clusters.leader_url), is_quiet=manners.is_quiet
    )
    sweep = Sweep(
        scenario,
        clusters,
        run,
        job.manifest,
        run_trial=make_runner(scenario, cores),
        control=control,
        progress=progress,
        done=job.done,
        held=guard.held,
    )
    with processes.no_child_left():
        ending = sweep.execute()
    shutil.rmtree(run.node_data, ignore_errors=True)
    if ending.message:
        stderr.print(ending.message, markup=False, soft_wrap=True)
    with guard.held():
        return finish(run, ending, manners, progress.say)


def delay_seed_of(job: Job) -> int:
    """The seed of the link delays: another one each time that a run is resumed.

    A delay is drawn by seed and position, and a new cluster begins at the first position again:
    with the same seed its trials would repeat the delays of those that are there.
    """
    resumed = len(job.manifest.get("resumed_at", ()))
    return (job.scenario.seed + resumed) % (limits.SEED.high + 1)


def make_clusters(
    request: SweepRequest,
    scenario: Scenario,
    control: Control,
    run: RunFolder,
    guard: SignalGuard,
    cores: Cores,
    delay_seed: int | None = None,
) -> ClusterGroup:
    """The clusters that the scenario's engine names, not started yet; one for each ack.

    Args:
        request: where the cluster is, if it is attached.
        scenario: what to measure.
        control: the client for control calls.
        run: where logs and data go.
        guard: holds back a stop signal.
        cores: where nodes may run.
        delay_seed: of the link delays of local nodes; the scenario's, if it is not given.
    """
    delay_seed = scenario.seed if delay_seed is None else delay_seed
    if request.attach_url is not None:
        attached = AttachedCluster(
            request.attach_url,
            control,
            delay_ms=request.delay_ms,
            reached_urls=request.reached_urls,
        )
        return ClusterGroup({"": attached})
    if scenario.engine == "compose":
        project = f"quorumeter-sweep-{scenario.seed:08x}"
        composed = ComposeCluster(
            project, control, delay_ms=scenario.delay_ms, log_dir=run.node_logs
        )
        return ClusterGroup({"": composed})
    return ClusterGroup(
        {
            ack: LocalCluster(
                local_settings(scenario, ack, run, cores, delay_seed),
                run.node_logs if len(scenario.acks) == 1 else run.node_logs / ack,
                control,
                held=guard.held,
            )
            for ack in scenario.acks
        }
    )


def local_settings(
    scenario: Scenario, ack: str, run: RunFolder, cores: Cores, delay_seed: int
) -> LocalSettings:
    """How the nodes are set that acknowledge so."""
    return LocalSettings(
        followers=scenario.followers,
        delay_ms=scenario.delay_ms or (0.0, 0.0),
        delay_seed=delay_seed,
        data_dir=run.node_data if ack == "fsync" else None,
        cores=cores.store,
    )


def make_runner(scenario: Scenario, cores: Cores) -> TrialRunner:
    """The load generator, set for the scenario."""

    def run(
        cell: Cell, leader_url: str, folder: Path, on_row: Callable[[TimelineRow], None]
    ) -> TrialResult:
        trial = Trial(
            scenario=locustfile_of(scenario.workload),
            url=leader_url,
            folder=folder,
            plan=load_plan(scenario, cell),
            users=scenario.users or 1,
            processes=scenario.processes,
            cores=cores.generator,
        )
        return run_trial(trial, on_progress=on_row)

    return run


def locustfile_of(workload: Workload) -> str:
    """The name of the locustfile that drives a workload."""
    return {"seed": "seed_workload"}.get(workload, workload.partition("-")[0])


def load_plan(scenario: Scenario, cell: Cell) -> LoadPlan:
    """The load of one cell."""
    plain = LoadPlan()
    return LoadPlan(
        rate_per_s=cell.rate_per_s or scenario.rate_per_s or 0.0,
        arrivals=scenario.arrivals,
        warmup_s=scenario.warmup_s,
        duration_s=scenario.duration_s or 0.0,
        total_writes=scenario.total_writes or 0,
        keys=scenario.keys or plain.keys,
        key_choice=scenario.key_choice,
        value_bytes=scenario.value_bytes or plain.value_bytes,
        mix=scenario.workload if scenario.workload in MIXES else plain.mix,
        read_share=scenario.read_share,
        read_from=scenario.read_from,
        seed=cell.seed,
    )


def finish(run: RunFolder, ending: Ending, manners: Manners, say: Callable[[str], None]) -> int:
    """Write the report of what there is, print it, and return the exit code."""
    gather_timelines(run.path)
    summary = write_report(run.path, run.root)
    if manners.is_json:
        make_console().out(to_json(summary).decode(), end="", highlight=False)
    else:
        stdout = make_console()
        print_report(stdout, summary)
        say(f"Report: {run.path / 'report.html'}")
    return exit_code(summary, ending, is_strict=manners.is_strict)


def exit_code(summary: Summary, ending: Ending, *, is_strict: bool = False) -> int:
    """The command's exit code: how it ended, or else what was found.

    A violation comes before a breached threshold, and that before what is not known.
    """
    if ending.exit_code is not None:
        return ending.exit_code
    objectives = thresholds.exit_code(summary.thresholds)
    if summary.verdict != "violated" and objectives == EXIT_BREACHED:
        return EXIT_BREACHED
    if is_strict and any(cell.stamp != "ok" for cell in summary.cells):
        return EXIT_CODES[summary.verdict] or EXIT_CODES["unknown"]
    return EXIT_CODES[summary.verdict] or objectives
