"""From a scenario to load and exit code."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from orchestration import limits
from orchestration.conduct import (
    Job,
    delay_seed_of,
    exit_code,
    load_plan,
    local_settings,
    locustfile_of,
    resolve,
)
from orchestration.control import Control
from orchestration.cores import Cores
from orchestration.loadgen import locustfile_path
from orchestration.manifest import RunFolder
from orchestration.request import SweepRequest, to_scenario, with_environment
from orchestration.scenario import WORKLOADS, Cell, Workload
from orchestration.sweep import Ending
from orchestration.thresholds import Status

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
