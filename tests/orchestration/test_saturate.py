"""The search on a fake cluster: what is tried, written and told, whatever happens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

from orchestration import cli_saturate, conduct, saturate
from orchestration.cli import run as run_command
from orchestration.clusters.group import ClusterGroup
from orchestration.control import Control
from orchestration.errors import UsageError
from orchestration.goal import make_goal
from orchestration.interrupt import Interrupted
from orchestration.manifest import create_run_folder, start_manifest
from orchestration.progress import Progress
from orchestration.report.saturation_write import write_saturation
from tests.orchestration.test_sweep import NOW, SCENARIO, FakeCluster, good_result, rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestration.cores import Cores
    from orchestration.load.results import TimelineRow, TrialResult
    from orchestration.manifest import RunFolder
    from orchestration.scenario import Cell
    from orchestration.sweep import Ending

# The fake trial has 400 writes of 1 ms.
GOAL = make_goal(SCENARIO, "p99 < 50ms", precision=0.05, confirm=3)


class Heard(Progress):
    """Notes what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        """Note it."""
        self.said.append(message)


def overloaded(result: TrialResult) -> TrialResult:
    """A trial in which arrivals were dropped."""
    return replace(result, dropped=50, offered=450)


def search(
    tmp_path: Path, cluster: FakeCluster, trial: Callable[[Cell], TrialResult]
) -> tuple[Ending, RunFolder, list[str]]:
    """A search whose trials give what ``trial`` says; what was said comes with it."""
    run = create_run_folder(tmp_path, "saturate", NOW)
    manifest = start_manifest(run, SCENARIO, command=["quorumeter"], planned_trials=0, now=NOW)
    manifest |= {"planned_trials": None, "saturation": msgspec.to_builtins(GOAL)}
    heard = Heard()

    def run_trial(
        cell: Cell, leader_url: str, folder: Path, on_row: Callable[[TimelineRow], None]
    ) -> TrialResult:
        del leader_url, folder, on_row
        return trial(cell)

    with Control(transport=httpx.MockTransport(cluster.answer)) as control:
        ending = saturate.Saturation(
            GOAL,
            SCENARIO,
            ClusterGroup({"memory": cluster}),
            run,
            manifest,
            run_trial=run_trial,
            control=control,
            progress=heard,
            now=lambda: NOW,
        ).execute()
    return ending, run, heard.said


def sustaining(rates: dict[int, float]) -> Callable[[Cell], TrialResult]:
    """A store that keeps up to a rate of its own at each k."""

    def trial(cell: Cell) -> TrialResult:
        assert cell.rate_per_s is not None
        result = good_result()
        return result if cell.rate_per_s <= rates[cell.k] else overloaded(result)

    return trial


def test_each_k_is_searched_in_the_order_of_the_goal_and_reported(tmp_path: Path) -> None:
    """One k after the other, each trial in a folder and with a seed of its own, k set before it."""
    cluster = FakeCluster()
    cells: list[Cell] = []

    def trial(cell: Cell) -> TrialResult:
        cells.append(cell)
        return sustaining({0: 1_000, 1: 500})(cell)

    ending, run, _ = search(tmp_path, cluster, trial)
    assert (ending.status, ending.trials_done) == ("complete", len(cells))
    assert list(dict.fromkeys(cell.k for cell in cells)) == list(GOAL.quorums)
    assert cluster.quorums == [cell.k for cell in cells]
    assert cluster.calls == ["start", "stop"]
    assert len({cell.folder for cell in cells}) == len(cells)
    for k in GOAL.quorums:
        mine = [cell for cell in cells if cell.k == k]
        assert [cell.block for cell in mine] == list(range(len(mine)))
        assert len({cell.seed for cell in mine}) == len(mine)
    written = rows(run)
    assert [(row["k"], row["block"], row["rate"]) for row in written] == [
        (cell.k, cell.block, cell.rate_per_s) for cell in cells
    ]
    assert {row["parity"]["status"] for row in written} == {"match"}
    found = {result.k: result for result in write_saturation(run.path).results}
    assert (found[0].found, found[1].found) == ("sustained", "sustained")
    assert 950 < (found[0].rate or 0) <= 1_000
    assert found[1].share == pytest.approx(0.5, abs=0.03)


def test_every_trial_and_result_is_told(tmp_path: Path) -> None:
    """A line each, with the rate, what the trial says, and why."""
    _, _, said = search(tmp_path, FakeCluster(), sustaining({0: 1_000, 1: 500}))
    assert "k=1 at 400/s: met, p99 1.00 ms" in said
    assert (
        "k=1 at 800/s: missed, 50 of 450 arrivals were dropped, too many requests were in flight"
        in said
    )
    assert "k=1: sustained 481.2/s" in said


def test_failing_requests_are_told_with_their_number(tmp_path: Path) -> None:
    """A store that answers with errors does not meet the objective."""

    def trial(cell: Cell) -> TrialResult:
        result = good_result()
        write = replace(result.operations["write"], errors={"timeout": 40})
        failing = replace(result, operations={"write": write}, offered=440)
        return failing if (cell.rate_per_s or 0) > 300 else result

    _, run, said = search(tmp_path, FakeCluster(), trial)
    assert any(line.startswith("k=0 at 400/s: missed") for line in said)
    assert any(line.endswith("40 of 440 failed") for line in said)
    assert {result.found for result in write_saturation(run.path).results} == {"sustained"}


def test_interrupted_search_keeps_its_rows_and_stops_its_cluster(tmp_path: Path) -> None:
    """What was measured is reported, and what is missing named."""
    count = iter(range(100))

    def trial(cell: Cell) -> TrialResult:
        if next(count) == 5:
            raise Interrupted(2)
        return sustaining({0: 1_000, 1: 1_000})(cell)

    cluster = FakeCluster()
    ending, run, _ = search(tmp_path, cluster, trial)
    assert (ending.status, ending.exit_code, ending.trials_done) == ("interrupted", 130, 5)
    assert cluster.calls[-1] == "stop"
    summary = write_saturation(run.path)
    assert summary.missing == (
        "The run is interrupted: 5 trials are here, without a result for k=0, k=1."
    )
    assert summary.verdict == "unknown"


def test_leader_that_dies_ends_the_search_with_a_sentence(tmp_path: Path) -> None:
    """The trial in which it died is written down."""
    cluster = FakeCluster()

    def trial(_: Cell) -> TrialResult:
        cluster.is_leader_alive = False
        return good_result()

    ending, run, _ = search(tmp_path, cluster, trial)
    assert (ending.status, ending.exit_code) == ("failed", 2)
    assert "leader is gone" in ending.message
    assert len(rows(run)) == 1


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """A function that runs ``quorumeter saturate`` with these arguments."""
    monkeypatch.setenv("QUORUMETER_STATE_DIR", str(tmp_path / "state"))
    return lambda *arguments: run_command(["saturate", *arguments])


def test_dry_run_states_the_bound_and_starts_nothing(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Objective, order of k, range of rates, at most so many trials, and the time they take."""
    assert command("--dry-run", "--slo", "p99<50ms", "--k", "0,2", "--seed", "4") == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "seed 4.",
        "meets p99 < 50ms, within 0.05",
        "within 26.25 and 100,000/s",
        f"At most {GOAL.search.most_trials} trials per k, 3 to confirm each rate found among them:",
        "it would take 15 trials each",
    ):
        assert words in out


def test_dry_run_as_json_has_the_goal(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The scenario, what is looked for, and the bounds."""
    assert command("--dry-run", "--json", "--k", "1-3", "--confirm", "5", "--precision", "2%") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["scenario"]["name"] == "saturate"
    assert found["saturation"]["objective"] == "p99 < 200ms"
    assert found["saturation"]["search"]["confirm"] == 5
    assert found["saturation"]["search"]["precision"] == 0.02
    assert sorted(found["saturation"]["quorums"]) == [1, 2, 3]
    assert found["most_trials"] % 3 == 0
    assert found["longest_duration_s"] > 6 * found["most_trials"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slo", "p99 = 5ms"], ["--slo", "'p99 = 5ms'", "character 5"]),
        (["--slo", "rate > 5/s"], ["--slo", "'rate > 5/s'", "response time"]),
        (["--precision", "0.5"], ["--precision", "'0.5'", "1 to 50 %"]),
        (["--confirm", "0"], ["--confirm", "'0'", "1 to 20"]),
        (["--start", "0"], ["--start", "'0'", "0.1 to 100,000"]),
        (["--duration", "500ms"], ["--start", "p99", "--duration"]),
        (["--k", "9"], ["--k", "'9'", "0 to 5"]),
        (["--workload", "seed"], ["--workload", "'seed'"]),
        (["--ack", "fsync", "--engine", "compose"], ["--ack", "DATA_DIR"]),
    ],
)
def test_bad_option_is_refused_in_one_sentence(
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: list[str],
) -> None:
    """Exit code 64; the sentence names the option, what was given and what is allowed."""
    assert command("--dry-run", *arguments) == 64
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("5", 0.05), (" 2.5 % ", 0.025)])
def test_precision_is_written_in_percent(text: str, share: float) -> None:
    """With the sign or without it."""
    assert cli_saturate.parse_precision(text, "--precision") == pytest.approx(share)


def test_report_draws_a_search_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that draws sweeps tells such a run by its manifest."""
    _, run, _ = search(tmp_path, FakeCluster(), sustaining({0: 1_000, 1: 500}))
    assert run_command(["report", str(run.path)]) == 0
    captured = capsys.readouterr()
    assert "k=1 sustains 481 writes/s" in " ".join(captured.out.split())
    assert "report.html" in captured.err
    assert run_command(["report", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["found"] == "sustained"
    assert not (run.path / "summary.json").exists()


def test_damaged_search_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names the file."""
    _, run, _ = search(tmp_path, FakeCluster(), sustaining({0: 1_000, 1: 500}))
    (run.path / "cells.jsonl").write_text("{}\n{}\n")
    assert run_command(["report", str(run.path)]) == 64
    assert "cells.jsonl, line 1" in " ".join(capsys.readouterr().err.split())


def test_search_is_not_resumed_as_if_it_were_a_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its manifest has a scenario, but its trials followed from each other."""
    _, run, _ = search(tmp_path, FakeCluster(), sustaining({0: 1_000, 1: 500}))
    before = (run.path / "cells.jsonl").read_bytes()
    assert run_command(["sweep", "--resume", str(run.path)]) == 64
    assert "begin it anew" in capsys.readouterr().err
    assert (run.path / "cells.jsonl").read_bytes() == before


def test_cores_that_cannot_be_divided_leave_no_folder_behind(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run that is refused has not begun."""

    def refuse(_: int) -> Cores:
        raise UsageError("--pin takes two cores at least")

    monkeypatch.setattr(conduct, "divide_cores", refuse)
    assert command("--pin", "--out", str(tmp_path / "reports")) == 64
    assert not (tmp_path / "reports").exists()
