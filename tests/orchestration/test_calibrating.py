"""``quorumeter calibrate`` without its sweeps: what it plans, keeps and tells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from orchestration import calibrating, conduct
from orchestration.cli import run
from orchestration.conduct import Job
from orchestration.interrupt import Interrupted
from orchestration.manifest import RunFolder, machine
from orchestration.report.noise_floor import read_noise_floor
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from pathlib import Path

    from orchestration.request import SweepRequest
    from orchestration.scenario import Scenario

SHORT = ["--runs", "3", "--trials", "2", "--k", "0,1", "--duration", "1", "--seed", "7"]


class Sweeps:
    """Stands in for the sweeps: each leaves a simulated run, the second one twice as slow.

    Attributes:
        scenarios: what was asked for.
        statuses: how each sweep ends; the last one goes on.
        changes: what replaces fields of all rows.
        codes: the exit codes of sweeps that are completed; the last one goes on.
        bad_k: a k that is generator-bound in each sweep, if any.
    """

    def __init__(self) -> None:
        self.scenarios: list[Scenario] = []
        self.statuses = ["complete"]
        self.changes: dict[str, Any] = {}
        self.codes = [0]
        self.bad_k: int | None = None

    def begin(self, request: SweepRequest, scenario: Scenario) -> Job:
        """Names the folder of a run."""
        assert request.out is not None
        folder = request.out / "writes" / str(len(self.scenarios))
        return Job(request, scenario, RunFolder(path=folder, root=request.out), {})

    def carry_out(self, job: Job, *more: object) -> int:
        """Writes a run as conduct does, whose report is not to be printed."""
        assert not more[-1].prints_report  # type: ignore[attr-defined]
        scenario, folder = job.scenario, job.run.path
        index = len(self.scenarios)
        self.scenarios.append(scenario)
        status = self.statuses[min(index, len(self.statuses) - 1)]
        if status == "between":
            raise Interrupted(2)
        rows = simulated.sweep(scenario.quorums, scenario.trials, writes=100, **self.changes)
        late = {"stamp": "generator-bound", "reason": "late"}
        rows = [row | (late if row["k"] == self.bad_k else {}) for row in rows]
        if index == 1:
            rows = [row | {"response_ms": doubled(row["response_ms"])} for row in rows]
        name, settings = f"writes/{index}", scenario.as_dict()
        simulated.write_run(folder, rows, run=name, status=status, scenario=settings)
        code = self.codes[min(index, len(self.codes) - 1)]
        return code if status == "complete" else 130


def doubled(figures: dict[str, float]) -> dict[str, float]:
    """Twice as slow."""
    return {name: 2 * value for name, value in figures.items()}


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> Sweeps:
    """The sweeps that the command believes to run."""
    stand_in = Sweeps()
    monkeypatch.setattr(conduct, "begin", stand_in.begin)
    monkeypatch.setattr(conduct, "carry_out", stand_in.carry_out)
    return stand_in


def test_floor_is_what_the_runs_differ_by(
    sweeps: Sweeps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of three runs is twice as slow: the floor is 100%, with where, when and how measured."""
    assert run(["calibrate", *SHORT, "--out", str(tmp_path)]) == 0
    floor = read_noise_floor(tmp_path / "noise_floor.json")
    assert floor.percent.keys() == {0, 1}
    for percent in floor.percent.values():
        assert percent.pop("achieved_rate") == pytest.approx(0)
        assert percent == dict.fromkeys(("mean", "p50", "p95", "p99"), pytest.approx(100))
    assert floor.runs == ["writes/0", "writes/1", "writes/2"]
    assert (floor.seed, floor.machine) == (7, machine())
    assert floor.conditions["duration_s"] == sweeps.scenarios[0].duration_s == 1.0
    captured = capsys.readouterr()
    assert "100.0%" in captured.out
    assert "Run 3 of 3" in captured.err


def test_runs_differ_in_their_seeds_and_in_nothing_else(sweeps: Sweeps, tmp_path: Path) -> None:
    """Two runs that someone compares have seeds of their own; the same --seed repeats them."""
    for _ in range(2):
        assert run(["calibrate", *SHORT, "--quiet", "--out", str(tmp_path)]) == 0
    seeds = [scenario.seed for scenario in sweeps.scenarios]
    assert len(set(seeds[:3])) == 3
    assert seeds[:3] == seeds[3:]
    settings = [{**scenario.as_dict(), "seed": 0} for scenario in sweeps.scenarios]
    assert all(each == settings[0] for each in settings)


@pytest.mark.parametrize(("followers", "quorums"), [(None, (0, 3)), (4, (0, 2)), (0, (0,))])
def test_without_k_none_and_a_majority_are_calibrated(
    sweeps: Sweeps, tmp_path: Path, followers: int | None, quorums: tuple[int, ...]
) -> None:
    """Of 5 followers 0 and 3; without followers there is only 0."""
    given = [] if followers is None else ["--followers", str(followers)]
    assert run(["calibrate", *given, "--runs", "2", "--out", str(tmp_path), "--quiet"]) == 0
    assert sweeps.scenarios[0].quorums == quorums


@pytest.mark.parametrize("ending", ["interrupted", "between"])
def test_stopped_calibration_keeps_what_it_has(sweeps: Sweeps, tmp_path: Path, ending: str) -> None:
    """The third sweep is stopped, or comes never: two runs make a floor, the code is Ctrl-C's."""
    sweeps.statuses = ["complete", "complete", ending]
    assert run(["calibrate", *SHORT, "--out", str(tmp_path)]) == 130
    assert read_noise_floor(tmp_path / "noise_floor.json").runs == ["writes/0", "writes/1"]


def test_calibration_stopped_too_early_leaves_no_floor(
    sweeps: Sweeps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run says nothing; an earlier floor stays as it was."""
    sweeps.statuses = ["complete", "interrupted"]
    assert run(["calibrate", *SHORT, "--out", str(tmp_path)]) == 130
    assert not (tmp_path / "noise_floor.json").exists()
    assert "There is no noise floor: 1 run" in capsys.readouterr().err


def test_runs_that_may_not_be_quoted_leave_no_floor(sweeps: Sweeps, tmp_path: Path) -> None:
    """What is generator-bound is not the noise of the store: 2, as for any unknown."""
    sweeps.changes = {"stamp": "generator-bound", "reason": "late"}
    assert run(["calibrate", *SHORT, "--out", str(tmp_path)]) == 2
    assert not (tmp_path / "noise_floor.json").exists()


@pytest.mark.parametrize(
    ("codes", "expected"), [([0, 1, 0], 1), ([2, 1, 2], 1), ([0, 2, 0], 2), ([0, 0, 0], 0)]
)
def test_worst_code_of_the_sweeps_is_returned(
    sweeps: Sweeps, tmp_path: Path, codes: list[int], expected: int
) -> None:
    """A violation in one of three completed sweeps is not passed over; the floor is kept."""
    sweeps.codes = codes
    assert run(["calibrate", *SHORT, "--quiet", "--out", str(tmp_path)]) == expected
    assert (tmp_path / "noise_floor.json").exists()


def test_k_without_a_floor_is_left_out_with_the_reason(
    sweeps: Sweeps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file has only what was measured; stderr says which k is missing and why."""
    sweeps.bad_k = 1
    assert run(["calibrate", *SHORT, "--quiet", "--out", str(tmp_path)]) == 0
    assert read_noise_floor(tmp_path / "noise_floor.json").percent.keys() == {0}
    told = capsys.readouterr().err
    assert "k=1 has no noise floor: writes/0 is generator-bound (late); writes/1 is" in told
    assert "k=0 has" not in told


def test_json_is_the_noise_floor(
    sweeps: Sweeps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stdout stands what the file holds."""
    assert run(["calibrate", *SHORT, "--json", "--quiet", "--out", str(tmp_path)]) == 0
    assert sweeps.scenarios
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads((tmp_path / "noise_floor.json").read_bytes())


def test_dry_run_tells_the_plan_and_starts_nothing(
    sweeps: Sweeps, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many runs of what, and for how long."""
    assert run(["calibrate", *SHORT, "--dry-run"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("3 runs of writes, 5 followers, 100 requests/s, k=0-1, 2 trials of 1 s")
    assert "seed 7; about " in out
    assert not sweeps.scenarios


@pytest.mark.parametrize("arguments", [["--runs", "1"], ["--k", "9"], ["--rate", "0"]])
def test_bad_option_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 64, and the sentence names the option."""
    assert run(["calibrate", "--dry-run", *arguments]) == 64
    assert arguments[0] in capsys.readouterr().err


def test_default_calibration_takes_a_few_minutes(
    sweeps: Sweeps, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that takes an hour would never be run."""
    assert run(["calibrate", "--dry-run"]) == 0
    words = capsys.readouterr().out.split()
    assert 60 < float(words[words.index("about") + 1]) < 360
    assert calibrating.DEFAULT_RUNS == 5
    assert not sweeps.scenarios
