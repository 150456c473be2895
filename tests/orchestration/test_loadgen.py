"""The load generator's command line, and trials that cannot be."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.clusters import processes
from orchestration.load.plan import LoadPlan
from orchestration.loadgen import (
    DEADLINE_SLACK_S,
    SCENARIOS_WITH_RECORDS,
    SLOW_LOADING_BYTES_PER_S,
    SLOW_LOADING_KEYS_PER_S,
    LoadgenError,
    Trial,
    _make_empty,
    command_line,
    how_ended,
    locust_environment,
    locustfile_path,
)

# No two alike, and none the default.
ODD_PLAN = LoadPlan(
    rate_per_s=123.5,
    arrivals="poisson",
    warmup_s=0.25,
    duration_s=2.75,
    keys=17,
    key_choice="hotset",
    value_bytes=(99, 101),
    mix="ycsb-f",
    read_share=0.125,
    read_from="followers",
    max_in_flight=321,
    seed=77,
    total_writes=4321,
    write_quorum=2,
    trial="block1-k2",
)


def trial_of(**changes: Any) -> Trial:
    """A trial of the odd plan."""
    plain = {"scenario": "writes", "url": "http://127.0.0.1:1", "folder": Path("trial")}
    return Trial(**{"plan": ODD_PLAN} | plain | changes)


def option(trial: Trial, name: str) -> str:
    """An option's value on the trial's command line."""
    (found,) = [part for part in command_line(trial) if part.startswith(f"--{name}=")]
    return found.partition("=")[2]


def test_command_line_says_every_field_of_the_plan() -> None:
    """No setting of a plan is lost on its way to Locust."""
    command = command_line(trial_of())
    values = [part.partition("=")[2] for part in command if part.startswith("--")]
    for field in dataclasses.fields(ODD_PLAN):
        value = getattr(ODD_PLAN, field.name)
        assert value != field.default, field.name
        text = "99:101" if field.name == "value_bytes" else str(value)
        assert values.count(text) == 1, field.name


def test_pages_of_locust_are_written_only_where_they_are_asked_for() -> None:
    """One is 950 KB a trial: most of a run's folder, for what the report says better."""
    assert not any("locust.html" in part for part in command_line(trial_of()))
    assert option(trial_of(has_html=True), "html").endswith("locust.html")


def test_counts_of_an_earlier_attempt_do_not_stay(tmp_path: Path) -> None:
    """Locust's own count of a trial before would pass for this one's."""
    stale = [
        tmp_path / name for name in ("locust_stats.json", "locust_stats.csv", "process-0.json")
    ]
    for path in stale:
        path.write_text("[]")
    (tmp_path / "notes.txt").write_text("a user's own")
    _make_empty(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_command_line_leaves_the_quorum_alone_unless_told() -> None:
    """No write quorum in the plan is an empty option, not k=0."""
    quiet = dataclasses.replace(ODD_PLAN, write_quorum=None)
    assert option(trial_of(plan=quiet), "write-quorum") == ""
    zero = dataclasses.replace(ODD_PLAN, write_quorum=0)
    assert option(trial_of(plan=zero), "write-quorum") == "0"


@pytest.mark.skipif(os.name == "nt", reason="Locust cannot fork on Windows")
@pytest.mark.parametrize(
    ("rate_per_s", "users", "processes", "expected"),
    [(100.0, 10, 1, "1"), (100.0, 1, 3, "3"), (0.0, 10, 1, "10"), (0.0, 1, 3, "3")],
)
def test_users_are_clients_in_a_closed_loop_and_dispatchers_in_an_open_one(
    rate_per_s: float, users: int, processes: int, expected: str
) -> None:
    """An open loop takes one user per process, a closed loop at least that."""
    plan = dataclasses.replace(ODD_PLAN, rate_per_s=rate_per_s)
    trial = trial_of(plan=plan, users=users, processes=processes)
    assert option(trial, "users") == option(trial, "spawn-rate") == expected


def test_results_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locust's working directory decides nothing."""
    monkeypatch.chdir(tmp_path)
    assert option(trial_of(), "results-dir") == str(tmp_path / "trial")


def test_nothing_of_the_surroundings_decides_what_locust_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its variables nor its files of settings; all else is inherited."""
    for name in ("LOCUST_RUN_TIME", "LOCUST_TAGS", "LOCUST_HEADLESS", "locust_users"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CLUSTER_TOKEN", "secret")
    found = locust_environment(tmp_path)
    assert not [name for name in found if name.upper().startswith("LOCUST")]
    assert (found["HOME"], found["CLUSTER_TOKEN"]) == (str(tmp_path), "secret")


def test_locust_reads_no_settings_of_the_users_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the home, of the folder that the user is in, nor of a project there."""
    home, trial = tmp_path / "home", tmp_path / "trial"
    home.mkdir()
    trial.mkdir()
    (home / ".locust.conf").write_text("run-time = 2s\n")
    (home / "locust.conf").write_text("tags = smoke\n")
    (home / "pyproject.toml").write_text("[tool.locust]\nexclude-tags = 'a'\n")
    (home / "locust.py").write_text("raise SystemExit(9)\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOCUST_STOP_TIMEOUT", "77")
    monkeypatch.chdir(home)
    program = (
        "from locust.argument_parser import get_parser\n"
        "o = get_parser().parse_args([])\n"
        "print(o.run_time, o.tags, o.exclude_tags, o.stop_timeout)"
    )
    child = processes.spawn(
        [sys.executable, "-c", program], locust_environment(trial), trial / "log"
    )
    assert child.wait(timeout=60) == 0
    assert (trial / "log").read_text().splitlines()[-1] == "None None None 0"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "Locust ended with exit code 1"),
        (-15, r"Locust \(process 7\) was ended by SIGTERM$"),
        (-9, "by SIGKILL, as a system does that is short of memory"),
        (-999, "by signal 999"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_how_locust_ended_is_told_with_the_signal(code: int, words: str) -> None:
    """Not a negative exit code, for which one would have to know the convention."""
    assert re.search(words, how_ended(7, code))


def test_unknown_scenario_is_refused_with_the_known_ones() -> None:
    """The message lists what there is."""
    with pytest.raises(LoadgenError, match=r"'wrong'.*mixed, seed_workload, writes"):
        locustfile_path("wrong")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": LoadPlan()}, "needs an end"),
        ({"users": 0}, "at least one user"),
        ({"processes": 0}, "at least one"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    """Before anything starts."""
    with pytest.raises(ValueError, match=message):
        trial_of(**changes)


@pytest.mark.parametrize(
    ("plan", "planned_s"),
    [
        (LoadPlan(warmup_s=1, duration_s=4), 5),
        (LoadPlan(rate_per_s=50, total_writes=100), 2),
        # Ten rounds of ten users, each until the client gives up.
        (LoadPlan(rate_per_s=0, total_writes=100), 60),
    ],
)
def test_deadline_leaves_time_for_the_plan_at_its_worst(plan: LoadPlan, planned_s: float) -> None:
    """A run that is merely slow is not ended."""
    assert trial_of(plan=plan, users=10).longest_s == planned_s + DEADLINE_SLACK_S


@pytest.mark.parametrize(
    ("value_bytes", "loading_s"),
    [
        (100, 50_000 / SLOW_LOADING_KEYS_PER_S),
        (1024 * 1024, 50_000 * 1024 * 1024 / SLOW_LOADING_BYTES_PER_S),
    ],
)
def test_deadline_leaves_time_to_write_the_records(value_bytes: int, loading_s: float) -> None:
    """Many keys, or large values, are not an error of the load generator."""
    plan = LoadPlan(warmup_s=1, duration_s=4, keys=50_000, value_bytes=(value_bytes, value_bytes))
    longest_s = [trial_of(plan=plan, scenario=scenario).longest_s for scenario in ("ycsb", "mixed")]
    assert longest_s == [5 + loading_s + DEADLINE_SLACK_S, 5 + DEADLINE_SLACK_S]


def test_scenarios_with_records_are_those_that_say_so() -> None:
    """The deadline knows every locustfile that writes its records first."""
    files = locustfile_path("ycsb").parent.glob("*.py")
    found = {path.stem for path in files if "needs_records = True" in path.read_text("utf-8")}
    assert found == set(SCENARIOS_WITH_RECORDS)


def test_orchestrator_never_imports_gevent_or_locust() -> None:
    """What gevent patches in the standard library, asyncio and charts would not survive."""
    program = (
        "import sys, orchestration.loadgen, orchestration.load.schedule\n"
        "print(sorted({'gevent', 'locust'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
