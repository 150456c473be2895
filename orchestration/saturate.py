"""Looks for the highest rate that each k sustains: the experiment, and the command around it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from orchestration import limits
from orchestration.clusters import processes
from orchestration.conduct import (
    check_machine,
    make_clusters,
    make_runner,
    note_latest,
    resolve,
    tell_end,
)
from orchestration.control import Control
from orchestration.exit_codes import OF_VERDICT
from orchestration.goal import make_goal
from orchestration.interrupt import SignalGuard
from orchestration.manifest import RunFolder, create_run_folder, start_manifest
from orchestration.progress import make_progress
from orchestration.report import conditions
from orchestration.report.numbers import ms
from orchestration.report.records import TrialRow
from orchestration.report.saturation_summary import to_json
from orchestration.report.saturation_write import print_saturation, write_saturation
from orchestration.request import DEFAULT_OUT, SweepRequest
from orchestration.saturation import Attempt, Next, judge, next_step, trials_to_find
from orchestration.scenario import REPORT_S, START_S, TRIAL_OVERHEAD_S, Cell, Scenario
from orchestration.sweep import Ending, Sweep
from orchestration.terminal import make_console, print_json
from orchestration.timeline import gather_timelines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestration.conduct import Manners
    from orchestration.goal import Goal
    from orchestration.report.saturation_summary import SaturationSummary
    from orchestration.saturation import Answer

# --dry-run tells how many trials it takes to find this rate.
EXAMPLE_RATE_PER_S = 1_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturateRequest:
    """The options of ``saturate``.

    Attributes:
        sweep: those that it shares with ``sweep``; its rate is where the climb begins.
        objective: what the rate has to meet.
        precision: share by which neighbouring rates differ at most.
        confirm: further trials at the found rate.
    """

    sweep: SweepRequest
    objective: str
    precision: float
    confirm: int


class Saturation(Sweep):
    """A sweep whose next trial follows from those before.

    Args:
        goal: what is looked for.
        arguments: those of `Sweep`.
        options: those of `Sweep`.
    """

    def __init__(self, goal: Goal, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._goal = goal

    def _run_cells(self) -> None:
        goal = self._goal
        with self._progress.running(len(goal.quorums) * goal.search.most_trials):
            for k in goal.quorums:
                self._find(k)

    def _find(self, k: int) -> None:
        goal, attempts = self._goal, list[Attempt]()
        while isinstance(step := next_step(goal.search, attempts), Next):
            row = self._try(self._cell(k, len(attempts), goal.search.rate_per_s(step.rung)))
            answer = judge(row, goal.threshold)
            attempts.append(Attempt(step.rung, step.purpose, answer))
            self._progress.say(describe(row, goal, answer))
        rate = "" if step.rung is None else f" {goal.search.rate_per_s(step.rung):,g}/s"
        self._progress.say(f"k={k}: {step.kind}{rate}")

    def _cell(self, k: int, index: int, rate_per_s: float) -> Cell:
        seed = (self._scenario.seed + index) % (limits.SEED.high + 1)
        ack = self._scenario.acks[0]
        return Cell(block=index, k=k, seed=seed, ack=ack, rate_per_s=rate_per_s)

    def _try(self, cell: Cell) -> TrialRow:
        row = self._measure_cell(cell, self._trials_done)
        self._check_leader()
        return msgspec.convert(row, TrialRow)


def describe(row: TrialRow, goal: Goal, answer: Answer) -> str:
    """A trial in one line: "k=3 at 1,600/s: met, p99 12.3 ms"."""
    name = goal.threshold.quantity
    figure = getattr(row.response_ms, name)
    parts: list[str] = [answer]
    if row.stamp == "ok" and figure is not None:
        parts.append(f"{name} {ms(figure)}")
    if row.reason:
        parts.append(row.reason)
    if row.errors:
        parts.append(f"{sum(row.errors.values()):,} of {row.offered:,} failed")
    return f"k={row.k} at {row.rate:,g}/s: {', '.join(parts)}"


def plan_run(
    request: SaturateRequest, control: Control, *, fresh_seed: int
) -> tuple[Scenario, Goal]:
    """The scenario and the goal of a request; an attached cluster is asked for its followers."""
    scenario = resolve(request.sweep, control, fresh_seed=fresh_seed)
    goal = make_goal(
        scenario, request.objective, precision=request.precision, confirm=request.confirm
    )
    return scenario, goal


def saturate(request: SaturateRequest, manners: Manners, *, fresh_seed: int) -> int:
    """Run the search, write its report whatever came of it, and return the exit code."""
    with SignalGuard(watch_parent=True) as guard, Control.from_environment() as control:
        scenario, goal = plan_run(request, control, fresh_seed=fresh_seed)
        cores = check_machine(scenario)
        now = datetime.now(UTC)
        root = (request.sweep.out or DEFAULT_OUT).resolve()
        run = create_run_folder(root, scenario.name, now)
        command = ["quorumeter", *sys.argv[1:]]
        manifest = start_manifest(run, scenario, command=command, planned_trials=0, now=now)
        # Nobody knows how many there will be.
        manifest |= {"planned_trials": None, "saturation": msgspec.to_builtins(goal)}
        clusters = make_clusters(request.sweep, scenario, control, run, guard, cores)
        progress = make_progress(
            make_console(stderr=True),
            lambda: control.positions(clusters.leader_url),
            is_quiet=manners.is_quiet,
        )
        search = Saturation(
            goal,
            scenario,
            clusters,
            run,
            manifest,
            run_trial=make_runner(scenario, cores, has_html=manners.has_locust_html),
            control=control,
            progress=progress,
            held=guard.held,
        )
        with processes.no_child_left():
            ending = search.execute()
        # Gigabytes may have to be removed: a stop signal then must not cost the report.
        with guard.held():
            run.remove_node_data()
            return _finish(run, ending, manners, progress.say)


def dry_run(request: SaturateRequest, *, fresh_seed: int, is_json: bool) -> int:
    """Print what would be done, and how long it takes at most; start nothing."""
    with Control.from_environment() as control:
        scenario, goal = plan_run(request, control, fresh_seed=fresh_seed)
    stdout = make_console()
    most = goal.search.most_trials
    if is_json:
        found = {
            "scenario": scenario.as_dict(),
            "saturation": msgspec.to_builtins(goal),
            "most_trials": most * len(goal.quorums),
            "longest_duration_s": round(_duration_s(scenario, goal, most), 1),
        }
        print_json(f"{json.dumps(found, indent=2)}\n")
        return 0
    search, example = goal.search, trials_to_find(goal.search, EXAMPLE_RATE_PER_S)
    stdout.print(
        f"{scenario.workload} on {scenario.engine}, {scenario.followers} followers, "
        f"{conditions.delays(scenario)}, seed {scenario.seed}. The highest rate that meets "
        f"{goal.objective}, within {search.precision:.3g}, for each k in this order: "
        f"{' '.join(map(str, goal.quorums))}.\n"
        f"Rates begin at {search.first_rate_per_s:,g}/s, and stay within "
        f"{search.lowest_rate_per_s:,.4g} and {search.highest_rate_per_s:,g}/s.\n"
        f"At most {most} trials per k, {search.confirm} to confirm each rate found among them: "
        f"{_duration_s(scenario, goal, most) / 60:.0f} min in all. If every k sustained "
        f"{EXAMPLE_RATE_PER_S:,g}/s, it would take {example} trials each, "
        f"{_duration_s(scenario, goal, example) / 60:.1f} min.",
        soft_wrap=True,
    )
    return 0


def _duration_s(scenario: Scenario, goal: Goal, trials: int) -> float:
    """About how long so many trials per k take, from the cluster's start to the report."""
    trial_s = scenario.warmup_s + (scenario.duration_s or 0.0) + TRIAL_OVERHEAD_S
    return START_S[scenario.engine] + trial_s * trials * len(goal.quorums) + REPORT_S


def report(run_dir: Path, *, is_json: bool) -> int:
    """Draw a saturation run again, and print it; the exit code is its verdict's."""
    summary = write_saturation(run_dir)
    stderr = make_console(stderr=True)
    page = run_dir / "report.html"
    _print(summary, page, lambda line: stderr.print(line, soft_wrap=True), is_json=is_json)
    code = OF_VERDICT[summary.verdict]
    tell_end(Ending("complete", summary.trials_done), _why(summary), page)
    return code


def _finish(run: RunFolder, ending: Ending, manners: Manners, say: Callable[[str], None]) -> int:
    gather_timelines(run.path)
    summary = write_saturation(run.path)
    page = run.path / "report.html"
    _print(summary, page, say, is_json=manners.is_json)
    note_latest(run)
    code = OF_VERDICT[summary.verdict] if ending.exit_code is None else ending.exit_code
    hint = f"A search cannot be resumed: begin it anew, with --seed {summary.seed}."
    tell_end(ending, _why(summary), page, "" if ending.status == "complete" else hint)
    return code


def _why(summary: SaturationSummary) -> str:
    """Why a search that was not stopped does not end with 0; empty if it does."""
    if summary.verdict == "violated":
        return "Replicas differ from the leader after a trial."
    return summary.sentence if summary.verdict == "unknown" else ""


def _print(
    summary: SaturationSummary, page: Path, say: Callable[[str], object], *, is_json: bool
) -> None:
    if is_json:
        print_json(to_json(summary).decode())
        return
    print_saturation(make_console(), summary)
    say(f"Report: {page}")
