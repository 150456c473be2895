"""From a scenario to load and exit code."""

import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from orchestration import conduct, limits
from orchestration.clusters.local import LocalCluster
from orchestration.conduct import (
    Job,
    Manners,
    delay_seed_of,
    exit_code,
    finish,
    load_plan,
    local_settings,
    locustfile_of,
    make_clusters,
    resolve,
)
from orchestration.control import Control
from orchestration.cores import Cores
from orchestration.errors import UsageError
from orchestration.interrupt import Interrupted, SignalGuard
from orchestration.loadgen import locustfile_path
from orchestration.manifest import RunFolder
from orchestration.request import SweepRequest, to_scenario, with_environment
from orchestration.scenario import WORKLOADS, Cell, Workload
from orchestration.scenario import plan as plan_cells
from orchestration.sweep import Ending, Sweep
from orchestration.thresholds import Status
from tests.orchestration.report import simulated

CELL = Cell(block=1, k=3, seed=42)
COMPLETE = Ending("complete", 4)


def summary(verdict: str, *stamps: str) -> SimpleNamespace:
    """As much of a summary as decides the exit code."""
    return SimpleNamespace(
        verdict=verdict, cells=[SimpleNamespace(stamp=s) for s in stamps], thresholds=[]
    )


@pytest.mark.parametrize(("verdict", "code"), [("valid", 0), ("violated", 1), ("unknown", 2)])
def test_a_complete_sweep_ends_with_its_verdict(verdict: str, code: int) -> None:
    """0 valid, 1 violated, 2 unknown."""
    assert exit_code(summary(verdict, "ok"), COMPLETE) == code


@pytest.mark.parametrize(
    ("verdict", "stamps", "code"),
    [
        ("valid", ["ok", "ok"], 0),
        ("valid", ["ok", "saturated"], 2),
        ("violated", ["invalid"], 1),
        ("unknown", ["invalid"], 2),
    ],
)
def test_strict_wants_every_cell_ok(verdict: str, stamps: list[str], code: int) -> None:
    """One cell that is not ok makes a valid sweep unknown; a violation stays one."""
    assert exit_code(summary(verdict, *stamps), COMPLETE, is_strict=True) == code


@pytest.mark.parametrize(
    ("verdict", "statuses", "code"),
    [
        ("valid", ["passed"], 0),
        ("valid", ["passed", "breached", "unknown"], 99),
        ("valid", ["passed", "unknown"], 2),
        ("violated", ["breached"], 1),
        ("unknown", ["breached"], 99),
    ],
)
def test_thresholds_decide_unless_the_data_is_wrong(
    verdict: str, statuses: list[Status], code: int
) -> None:
    """99 if one is breached, 2 if one cannot be told, 1 whatever they say if replicas differ."""
    found = summary(verdict, "ok")
    found.thresholds = [SimpleNamespace(status=status) for status in statuses]
    assert exit_code(found, COMPLETE) == code


def test_an_interrupted_sweep_ends_with_the_signal_whatever_it_found() -> None:
    """The caller asked it to stop, and it did."""
    assert exit_code(summary("violated", "ok"), Ending("interrupted", 1, 130)) == 130


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload_has_its_locustfile(workload: Workload) -> None:
    """What can be chosen can be run."""
    assert locustfile_path(locustfile_of(workload)).is_file()


def test_an_open_loop_keeps_its_rate_and_its_cells_seed() -> None:
    """The plan of a trial is the scenario's load with the cell's seed."""
    plan = load_plan(to_scenario(SweepRequest(), followers=5, fresh_seed=1), CELL)
    assert (plan.rate_per_s, plan.warmup_s, plan.duration_s, plan.seed) == (100.0, 1.0, 4.0, 42)
    assert plan.is_open_loop


def test_every_trial_of_a_plan_has_a_name_of_its_own_for_its_values() -> None:
    """Trials of a block share their seed, so that by it alone values would repeat."""
    scenario = to_scenario(SweepRequest(acks=("memory", "fsync")), followers=2, fresh_seed=1)
    names = [load_plan(scenario, cell).trial for cell in plan_cells(scenario)]
    assert len(set(names)) == len(names) == 18


def test_a_closed_loop_has_no_rate() -> None:
    """Clients send back to back until the window ends."""
    plan = load_plan(to_scenario(SweepRequest(users=4), followers=5, fresh_seed=1), CELL)
    assert not plan.is_open_loop
    assert plan.has_end


def test_the_original_workload_ends_by_its_writes() -> None:
    """100 writes to 10 keys, however long they take."""
    request = with_environment(SweepRequest(workload="seed"), {})
    plan = load_plan(to_scenario(request, followers=5, fresh_seed=1), CELL)
    assert (plan.total_writes, plan.keys, plan.duration_s) == (100, 10, 0.0)
    assert not plan.is_open_loop


def test_an_attached_cluster_is_asked_for_its_followers() -> None:
    """K runs from 0 to the n that the leader tells."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://leader/admin/quorum"
        return httpx.Response(200, json={"write_quorum": 1, "followers": 2})

    with Control(transport=httpx.MockTransport(answer)) as control:
        scenario = resolve(SweepRequest(attach_url="http://leader/"), control, fresh_seed=1)
    assert (scenario.followers, scenario.quorums) == (2, (0, 1, 2))


@pytest.mark.parametrize(("given", "used"), [(None, 7), (0, 0), (8, 8)])
def test_link_delays_are_drawn_by_the_scenarios_seed_unless_another_is_given(
    tmp_path: Path, given: int | None, used: int
) -> None:
    """A run is repeated by its seed."""
    request = SweepRequest(seed=7)
    scenario = to_scenario(request, followers=2, fresh_seed=1)
    run = RunFolder(path=tmp_path, root=tmp_path)
    with Control() as control:
        group = make_clusters(request, scenario, control, run, SignalGuard(), Cores(), given)
    (cluster,) = group._clusters.values()
    assert isinstance(cluster, LocalCluster)
    assert cluster._settings.delay_seed == used


def test_a_resumed_run_draws_link_delays_of_its_own(tmp_path: Path) -> None:
    """Else its trials would repeat those that are there, and intervals come out too narrow."""
    request = SweepRequest(seed=limits.SEED.high)
    scenario = to_scenario(request, followers=5, fresh_seed=1)
    run = RunFolder(path=tmp_path, root=tmp_path)
    manifests: list[dict[str, Any]] = [{}, {"resumed_at": ["a"]}, {"resumed_at": ["a", "b"]}]
    seeds = [delay_seed_of(Job(request, scenario, run, manifest)) for manifest in manifests]
    assert seeds == [limits.SEED.high, 0, 1]
    settings = local_settings(scenario, "memory", run, Cores(), seeds[1])
    assert settings.delay_seed == seeds[1]


def finished(
    tmp_path: Path, manners: Manners, ending: Ending = COMPLETE, **changes: Any
) -> tuple[int, RunFolder]:
    """The end of a simulated run with thresholds, as `finish` makes it."""
    scenario = {"thresholds": ["p99 < 5ms at k=3", "errors < 1%"]}
    path = simulated.write_run(
        tmp_path / "writes" / "now",
        simulated.sweep([0, 3], trials=2, **changes),
        status=ending.status,
        scenario=scenario,
    )
    run = RunFolder(path=path, root=tmp_path)
    return finish(run, ending, manners, lambda _: None), run


@pytest.mark.parametrize("manners", [Manners(), Manners(is_json=True), Manners(is_quiet=True)])
def test_a_breach_is_told_in_one_line_on_stderr(
    tmp_path: Path, manners: Manners, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json and --quiet too: which threshold, what was measured, where the report is."""
    code, run = finished(tmp_path, manners)
    told = capsys.readouterr().err
    assert (code, told.count("\n")) == (99, 1)
    assert re.match(r"quorumeter: 1 threshold breached: p99 < 5ms at k=3, measured \d+\.\d", told)
    assert told.endswith(f"The report is {run.path / 'report.html'}\n")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"stamp": "invalid", "reason": "x[y]"}, 2, "2 thresholds unknown: p99 < 5ms at k=3: k=3"),
        ({"parity": {"status": "mismatch", "replicas": []}}, 1, "the leader at k=0, 3."),
    ],
)
def test_what_keeps_a_run_from_0_is_told(
    tmp_path: Path,
    changes: dict[str, Any],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The reason that decides the code, not another one."""
    assert finished(tmp_path, Manners(is_json=True), **changes)[0] == code
    assert words in capsys.readouterr().err


def test_a_run_that_was_stopped_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that measures the rest, and no plain "valid"."""
    ending = Ending("interrupted", 4, 130, "The run was stopped by SIGINT.")
    code, run = finished(tmp_path, Manners(is_quiet=True), ending)
    captured = capsys.readouterr()
    assert code == 130
    assert f"quorumeter sweep --resume {run.path}" in captured.err
    assert "Measurement: valid, but incomplete (interrupted)" in captured.out


def test_what_a_cluster_left_is_told_beside_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that ended well has it alone, another one beside what decides its code."""
    left = Ending("complete", 4, None, "Containers are left.")
    code, _ = finished(tmp_path, Manners(is_json=True), left)
    told = capsys.readouterr().err
    assert code == 99
    assert told.index("breached") < told.index("Containers are left.")
    rows = simulated.sweep([0, 3], trials=2)
    path = simulated.write_run(tmp_path / "writes" / "good", rows)
    assert finish(RunFolder(path, tmp_path), left, Manners(is_json=True), lambda _: None) == 0
    assert "Containers are left." in capsys.readouterr().err


def test_a_run_that_is_good_says_nothing_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Silence is 0."""
    rows = simulated.sweep([0, 3], trials=2)
    path = simulated.write_run(tmp_path / "writes" / "now", rows)
    run = RunFolder(path=path, root=tmp_path)
    assert finish(run, COMPLETE, Manners(is_quiet=True), lambda _: None) == 0
    assert not capsys.readouterr().err
    assert (tmp_path / "latest").resolve() == path.resolve()


def test_a_latest_of_the_users_is_left_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is there, and so is what was there before."""
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "thesis.tex").write_text("mine")
    code, _ = finished(tmp_path, Manners(is_json=True))
    assert code == 99
    assert (tmp_path / "latest" / "thesis.tex").read_text() == "mine"
    assert "stays as it is" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"processes": 2}])
def test_what_this_machine_cannot_do_is_refused_before_there_is_a_folder(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is refused has not begun; Locust does not fork on Windows."""
    request = SweepRequest(out=tmp_path / "reports", **options)
    monkeypatch.setattr(conduct.os, "name", "nt")
    scenario = to_scenario(request, followers=5, fresh_seed=1)
    with pytest.raises(UsageError, match="--processes"):
        conduct.begin(request, scenario)
    assert not (tmp_path / "reports").exists()


def test_cores_that_cannot_be_divided_leave_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run without a manifest in the root of outputs."""

    def refuse(_: int) -> Cores:
        raise UsageError("--pin takes two cores at least")

    monkeypatch.setattr(conduct, "divide_cores", refuse)
    request = SweepRequest(out=tmp_path / "reports", is_pinned=True)
    with pytest.raises(UsageError, match="--pin"):
        conduct.begin(request, to_scenario(request, followers=5, fresh_seed=1))
    assert not (tmp_path / "reports").exists()


def test_ctrl_c_while_data_are_removed_does_not_cost_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes take a while, and the sweep was complete."""
    scenario = to_scenario(SweepRequest(out=tmp_path), followers=5, fresh_seed=1)
    job = conduct.begin(SweepRequest(out=tmp_path), scenario)

    def execute(_: Sweep) -> Ending:
        rows = simulated.sweep([0, 3], trials=2)
        simulated.write_run(job.run.path, rows)
        return COMPLETE

    removals = iter([False, True])

    def remove(_: RunFolder) -> None:
        if next(removals):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Sweep, "execute", execute)
    monkeypatch.setattr(RunFolder, "remove_node_data", remove)
    with Control() as control, SignalGuard() as guard, pytest.raises(Interrupted):
        conduct.carry_out(job, control, guard, Manners(is_quiet=True))
    assert (job.run.path / "report.html").is_file()
