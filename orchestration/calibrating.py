"""What ``quorumeter calibrate`` does: A/A runs, and the noise floor that they show.

Runs are swept one after the other, each with nodes that are started for it and a seed of its own:
that is what two runs differ by that someone compares. The floor is the 95% quantile of how much any
two of them differ, of up to six runs the largest difference: an A/A comparison is to be called a
change as seldom as an interval is wrong.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.table import Table

from orchestration import conduct, limits
from orchestration.analysis.noise import RUNS_NEEDED, floor_of_runs
from orchestration.control import Control
from orchestration.exit_codes import ExitCode
from orchestration.interrupt import Interrupted, SignalGuard
from orchestration.manifest import machine, timestamp
from orchestration.report.comparison import FIGURES, quote, trials_by_cell
from orchestration.report.comparison_words import figure_name
from orchestration.report.noise_floor import FILE_NAME, NoiseFloor, to_json
from orchestration.report.numbers import ABSENT, count, fixed
from orchestration.report.records import Run, read_run
from orchestration.report.write import replace_file
from orchestration.request import DEFAULT_FOLLOWERS, DEFAULT_OUT, SweepRequest
from orchestration.scenario import expected_duration_s
from orchestration.terminal import make_console, print_json, tell

DEFAULT_RUNS = 5
# Below the root: a calibration must not become the root's latest run.
FOLDER = "calibration"
# From best to worst; what is not among them stopped a sweep, and is worse.
SEVERITIES: list[int] = [ExitCode.OK, ExitCode.UNKNOWN, ExitCode.VIOLATED]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A calibration that was asked for.

    Attributes:
        request: The sweep that is run again and again, without ``out``.
        runs: How many sweeps, at least 2.
        seed: Of each sweep's seed.
        out: The root that receives ``noise_floor.json``.
    """

    request: SweepRequest
    runs: int
    seed: int
    out: Path

    def sweeps(self) -> list[SweepRequest]:
        """The sweeps in their order: the same but for their seeds."""
        draw = random.Random(self.seed)  # noqa: S311 - reproducible, no secret
        request = replace(self.request, out=self.out / FOLDER)
        return [
            replace(request, seed=draw.randrange(limits.SEED.high + 1)) for _ in range(self.runs)
        ]


def default_quorums(followers: int | None) -> str:
    """The k that are calibrated without ``--k``: none, and a majority of all nodes."""
    n = DEFAULT_FOLLOWERS if followers is None else followers
    return f"0,{(n + 1) // 2}"


def plan(
    request: SweepRequest, *, runs: int | None, fresh_seed: int, out: Path | None
) -> Calibration:
    """The calibration that some options ask for, completed by defaults."""
    quorums = request.quorums or default_quorums(request.followers)
    return Calibration(
        request=replace(request, quorums=quorums),
        runs=DEFAULT_RUNS if runs is None else runs,
        seed=fresh_seed if request.seed is None else request.seed,
        out=(out or DEFAULT_OUT).resolve(),
    )


def dry_run(calibration: Calibration, *, is_json: bool) -> int:
    """Print what would be run and for how long; start nothing."""
    with Control.from_environment() as control:
        scenario = conduct.resolve(calibration.sweeps()[0], control, fresh_seed=0)
    ks = limits.format_quorums(scenario.quorums)
    total_s = calibration.runs * expected_duration_s(scenario)
    if is_json:
        found = {
            "scenario": scenario.as_dict(),
            "runs": calibration.runs,
            "seed": calibration.seed,
            "expected_duration_s": round(total_s, 1),
        }
        print_json(f"{json.dumps(found, indent=2)}\n")
        return 0
    make_console().print(
        f"{count(calibration.runs, 'run')} of {scenario.workload}, {scenario.followers} followers, "
        f"{scenario.rate_per_s:g} requests/s, k={ks}, {count(scenario.trials, 'trial')} of "
        f"{scenario.duration_s:g} s each, seed {calibration.seed}; about {total_s:.0f} s in all",
        soft_wrap=True,
    )
    return 0


def calibrate(calibration: Calibration, *, is_quiet: bool, is_json: bool) -> int:
    """Run the sweeps, store the noise floor of those that were completed, and print it."""
    stderr = make_console(stderr=True)
    with SignalGuard(watch_parent=True) as guard, Control.from_environment() as control:
        runs, code = _run_all(calibration, control, guard, is_quiet=is_quiet)
        with guard.held():
            floor = noise_floor_of(runs, calibration.seed) if len(runs) >= RUNS_NEEDED else None
            for line in without_floor(runs):
                stderr.print(line, markup=False, soft_wrap=True)
            if floor is None or not floor.percent:
                done = count(len(runs), "run")
                tell(f"There is no noise floor: {done} with figures that may be quoted.")
                return code or ExitCode.UNKNOWN
            path = calibration.out / FILE_NAME
            replace_file(path, to_json(floor))
            _print(floor, is_json=is_json)
            if not is_quiet:
                stderr.print(f"Noise floor: {path}", markup=False, emoji=False, soft_wrap=True)
            if code != ExitCode.OK:
                whole = count(len(runs), "run")
                tell(f"{path} is of {whole}, but not all sweeps ended well, as was said above.")
    return code


def noise_floor_of(runs: Sequence[Run], seed: int) -> NoiseFloor:
    """The noise floor that some runs of one scenario, at least 2, show."""
    cells = [trials_by_cell(run) for run in runs]
    percent: dict[int, dict[str, float]] = {}
    for key in cells[0]:
        quoted = {name: [quote(of[key], name).values for of in cells] for name in FIGURES}
        known = {name: floor_of_runs(values) for name, values in quoted.items() if all(values)}
        if known:
            percent[key.k] = known
    return NoiseFloor(
        created_at=timestamp(datetime.now(UTC)),
        machine=machine(),
        seed=seed,
        runs=[run.manifest.run for run in runs],
        conditions=runs[0].manifest.scenario,
        percent=percent,
    )


def without_floor(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for each k of which a run may not be quoted at all, with the reasons."""
    reasons: dict[int, list[str]] = {}
    for run in runs:
        for key, trials in trials_by_cell(run).items():
            quoted = [quote(trials, name) for name in FIGURES]
            if not any(quotation.values for quotation in quoted):
                reason = f"{run.manifest.run} {quoted[0].reason}"
                reasons.setdefault(key.k, []).append(reason)
    return [f"k={k} has no noise floor: {'; '.join(why)}." for k, why in sorted(reasons.items())]


def worst(codes: Sequence[int]) -> int:
    """Return the worst of some sweeps' exit codes, 0 of none."""
    order = {code: place for place, code in enumerate(SEVERITIES)}
    return max(codes, key=lambda code: order.get(code, len(order)), default=0)


def _run_all(
    calibration: Calibration, control: Control, guard: SignalGuard, *, is_quiet: bool
) -> tuple[list[Run], int]:
    """The runs that were completed, and the worst exit code, of what stopped the others too."""
    stderr = make_console(stderr=True)
    runs: list[Run] = []
    codes: list[int] = []
    try:
        for index, request in enumerate(calibration.sweeps(), 1):
            if not is_quiet:
                stderr.print(f"Run {index} of {calibration.runs}")
            run, code = _run_once(request, control, guard, is_quiet=is_quiet)
            codes.append(code)
            if run.manifest.status != "complete":
                break
            runs.append(run)
    except Interrupted as stop:
        codes.append(stop.exit_code)
    return runs, worst(codes)


def _run_once(
    request: SweepRequest, control: Control, guard: SignalGuard, *, is_quiet: bool
) -> tuple[Run, int]:
    scenario = conduct.resolve(request, control, fresh_seed=0)
    # Its report lies in its folder: here stdout is for the noise floor.
    manners = conduct.Manners(is_quiet=is_quiet, prints_report=False)
    job = conduct.begin(request, scenario)
    code = conduct.carry_out(job, control, guard, manners)
    return read_run(job.run.path), code


def _print(floor: NoiseFloor, *, is_json: bool) -> None:
    stdout = make_console()
    if is_json:
        print_json(to_json(floor).decode())
        return
    table = Table("k", *map(figure_name, FIGURES), box=box.SIMPLE_HEAD)
    for k, percent in floor.percent.items():
        shown = [f"{fixed(percent[f], 1)}%" if f in percent else ABSENT for f in FIGURES]
        table.add_row(str(k), *shown)
    stdout.print(table)
    stdout.print(
        f"Identical runs on this machine differed by up to this much ({len(floor.runs)} runs). "
        "quorumeter compare ignores anything smaller."
    )
