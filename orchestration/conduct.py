"""Conducts a sweep as a command: cluster, load, report, verdict."""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from orchestration import limits, thresholds
from orchestration.clusters import processes
from orchestration.clusters.attached import AttachedCluster
from orchestration.clusters.compose import FOLLOWERS as COMPOSE_FOLLOWERS
from orchestration.clusters.compose import ComposeCluster
from orchestration.clusters.group import ClusterGroup
from orchestration.clusters.journal import Journal
from orchestration.clusters.local import LocalCluster, LocalSettings
from orchestration.control import Control
from orchestration.cores import Cores, divide_cores
from orchestration.errors import UsageError
from orchestration.exit_codes import OF_VERDICT, ExitCode
from orchestration.interrupt import SignalGuard
from orchestration.load.plan import MIXES, LoadPlan
from orchestration.load.results import TimelineRow, TrialResult
from orchestration.loadgen import Trial, run_trial
from orchestration.manifest import RunFolder, create_run_folder, start_manifest
from orchestration.progress import make_progress
from orchestration.report.console import print_report
from orchestration.report.published import publish
from orchestration.report.result import why_not_good
from orchestration.report.summary import Summary, to_json
from orchestration.report.write import write_report
from orchestration.request import (
    DEFAULT_DELAY_MODEL,
    DEFAULT_FOLLOWERS,
    DEFAULT_OUT,
    SweepRequest,
    to_scenario,
)
from orchestration.scenario import Cell, Scenario, Workload, plan, records_bytes
from orchestration.state_file import state_folder
from orchestration.sweep import Ending, Sweep, TrialRunner
from orchestration.terminal import make_console, print_json, tell
from orchestration.timeline import gather_timelines


@dataclass(frozen=True, slots=True)
class Manners:
    """How the command speaks, and what it leaves beside its report."""

    is_quiet: bool = False
    is_json: bool = False
    is_strict: bool = False
    has_locust_html: bool = False
    prints_report: bool = True


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


def in_gib(size: int) -> str:
    """A size of memory as a user reads it."""
    return f"{size / 2**30:,.1f} GiB"


def check_machine(scenario: Scenario) -> Cores:
    """The cores for a scenario's nodes and generator, if this machine can carry it out.

    What can fail fails here, before a folder is made and anything is measured.

    Raises:
        UsageError: It cannot.
    """
    # Half a second, and the report of an hour's run would be lost to a library that is broken.
    from orchestration.report import drawing  # noqa: F401, PLC0415

    needed, there = records_bytes(scenario), psutil.virtual_memory().total
    if scenario.engine != "attached" and needed > there:
        raise UsageError(
            f"The records of {scenario.workload} take about {in_gib(needed)} in all nodes, but "
            f"this machine has {in_gib(there)}: give fewer --keys, or smaller --value-bytes."
        )
    if scenario.processes > 1 and os.name == "nt":
        raise UsageError("--processes: Locust cannot fork on Windows; leave it out there.")
    return divide_cores(scenario.processes) if scenario.is_pinned else Cores()


@dataclass(frozen=True, slots=True)
class Job:
    """A sweep to carry out, or to finish.

    Attributes:
        request: where the cluster is, if it is attached.
        scenario: what to measure.
        run: where to write.
        manifest: what is known of the run so far.
        cores: where nodes and generator may run.
        done: cells that were measured before.
    """

    request: SweepRequest
    scenario: Scenario
    run: RunFolder
    manifest: dict[str, Any]
    cores: Cores = Cores()  # noqa: RUF009 - it is frozen
    done: tuple[Cell, ...] = ()


def begin(request: SweepRequest, scenario: Scenario) -> Job:
    """Make a folder for a run that is to be carried out.

    Raises:
        UsageError: This machine cannot carry it out; there is no folder then.
    """
    cores = check_machine(scenario)
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
    return Job(request, scenario, run, manifest, cores)


def carry_out(job: Job, control: Control, guard: SignalGuard, manners: Manners) -> int:
    """Run what is left of a sweep, write its report, and return the exit code."""
    scenario, run = job.scenario, job.run
    # What a killed part of the run has left would be taken for its own by a new cluster.
    run.remove_node_data()
    delay_seed = delay_seed_of(job)
    clusters = make_clusters(job.request, scenario, control, run, guard, job.cores, delay_seed)
    progress = make_progress(
        make_console(stderr=True),
        lambda: control.positions(clusters.leader_url),
        is_quiet=manners.is_quiet,
    )
    sweep = Sweep(
        scenario,
        clusters,
        run,
        job.manifest,
        run_trial=make_runner(scenario, job.cores, has_html=manners.has_locust_html),
        control=control,
        progress=progress,
        done=job.done,
        held=guard.held,
    )
    with processes.no_child_left():
        ending = sweep.execute()
    # Gigabytes may have to be removed: a stop signal then must not cost the report.
    with guard.held():
        run.remove_node_data()
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
            journal=Journal(state_folder()),
            say=lambda text: make_console(stderr=True).print(text, soft_wrap=True),
        )
        return ClusterGroup({"": attached})
    if scenario.engine == "compose":
        project = f"quorumeter-sweep-{scenario.seed:08x}"
        composed = ComposeCluster(
            project,
            control,
            delay_ms=scenario.delay_ms,
            delay_model=scenario.delay_model,
            log_dir=run.node_logs,
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
        delay_model=scenario.delay_model or DEFAULT_DELAY_MODEL,
        delay_seed=delay_seed,
        data_dir=run.make_node_data() if ack == "fsync" else None,
        cores=cores.store,
    )


def make_runner(scenario: Scenario, cores: Cores, *, has_html: bool = False) -> TrialRunner:
    """The load generator, set for the scenario; it leaves Locust's own page where that is asked."""

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
            has_html=has_html,
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
        trial=cell.folder,
    )


def finish(run: RunFolder, ending: Ending, manners: Manners, say: Callable[[str], None]) -> int:
    """Write the report of what there is, print it, and return the exit code."""
    gather_timelines(run.path)
    summary = write_report(run.path)
    page = run.path / "report.html"
    if manners.is_json:
        print_json(to_json(summary).decode())
    elif manners.prints_report:
        print_report(make_console(), summary)
        say(f"Report: {page}")
    note_latest(run)
    code = exit_code(summary, ending, is_strict=manners.is_strict)
    found = why_not_good(summary) if code != ExitCode.OK else ""
    tell_end(ending, found, page, resume_hint(run, ending))
    return code


def tell_end(ending: Ending, found: str, page: Path, hint: str = "") -> None:
    """Tell why a run does not end with 0, what to do, and where its report is.

    Args:
        ending: how it ended; its message is told in any case.
        found: what in its results decides the exit code, unless the ending does; or nothing.
        page: the report.
        hint: what to do.
    """
    reasons = [ending.message] if ending.exit_code is not None else [found, ending.message]
    reason = " ".join(filter(None, reasons))
    # A reason with the last lines of a log keeps the rest off them.
    separator = "\n" if "\n" in reason else " "
    if reason:
        tell(separator.join(filter(None, [reason, hint, f"The report is {page}"])))


def resume_hint(run: RunFolder, ending: Ending) -> str:
    """How what is missing of a run that was stopped is measured; empty for one that was not."""
    if ending.status == "complete":
        return ""
    return f"To measure the rest: quorumeter sweep --resume {shlex.quote(str(run.path))}."


def note_latest(run: RunFolder) -> None:
    """Make the run the one that the root shows; say so where that is not possible."""
    for refusal in publish(run.root, run.path):
        make_console(stderr=True).print(refusal, markup=False, emoji=False, soft_wrap=True)


def exit_code(summary: Summary, ending: Ending, *, is_strict: bool = False) -> int:
    """The command's exit code: how it ended, or else what was found.

    A violation comes before a breached threshold, and that before what is not known.
    """
    if ending.exit_code is not None:
        return ending.exit_code
    objectives = thresholds.exit_code(summary.thresholds)
    if summary.verdict != "violated" and objectives is ExitCode.BREACHED:
        return ExitCode.BREACHED
    if is_strict and any(cell.stamp != "ok" for cell in summary.cells):
        return OF_VERDICT[summary.verdict] or ExitCode.UNKNOWN
    return OF_VERDICT[summary.verdict] or objectives
