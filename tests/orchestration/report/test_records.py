"""Reading a run's files: whole, cut off, damaged, absent."""

import re
from pathlib import Path

import pytest

from orchestration.report.records import Figures, OperationRow, UnreadableRunError, read_run
from orchestration.report.write import write_report
from tests.orchestration.report import simulated


def test_run_is_read_as_written(tmp_path: Path) -> None:
    """Every trial comes back in order, and unknown fields do not disturb."""
    run = read_run(simulated.write_run(tmp_path, simulated.sweep([0, 3], writes=5, unknown=1)))
    assert [(row.block, row.k) for row in run.rows] == [(b, k) for b in range(3) for k in (0, 3)]
    assert run.manifest.followers == 5
    assert not run.lost_line


@pytest.mark.parametrize("kept", [1, 100, -2])
def test_line_cut_off_at_the_end_is_left_out(tmp_path: Path, kept: int) -> None:
    """A last line that was being written when the process ended costs only its own trial."""
    simulated.write_run(tmp_path, simulated.sweep([0, 1], trials=1, writes=5))
    path = tmp_path / "cells.jsonl"
    whole, last = path.read_text().splitlines()
    path.write_text(f"{whole}\n{last[:kept]}")
    run = read_run(tmp_path)
    assert [row.k for row in run.rows] == [0]
    assert run.lost_line


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    """A broken line before the last is not passed over: the error gives file and line."""
    simulated.write_run(tmp_path, simulated.sweep([0, 1], trials=1, writes=5))
    path = tmp_path / "cells.jsonl"
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(UnreadableRunError, match=r"cells\.jsonl, line 1"):
        read_run(tmp_path)


def test_row_of_another_shape_is_refused(tmp_path: Path) -> None:
    """JSON that is no trial raises even at the end, and says what is wrong with it."""
    simulated.write_run(tmp_path, [simulated.trial(0, writes=5, stamp="fine")])
    with pytest.raises(UnreadableRunError, match=r"line 1 is no trial.*stamp"):
        read_run(tmp_path)


def test_folder_without_manifest_says_what_to_name(tmp_path: Path) -> None:
    """The error of a wrong folder tells which folder is meant."""
    with pytest.raises(UnreadableRunError, match=r"reports/<scenario>"):
        read_run(tmp_path)


def test_damaged_manifest_is_named(tmp_path: Path) -> None:
    """A manifest that is no JSON raises with its path."""
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UnreadableRunError, match=r"manifest\.json is damaged"):
        read_run(tmp_path)


def test_run_without_cells_has_no_rows(tmp_path: Path) -> None:
    """A run that ended before its first trial is readable."""
    simulated.write_run(tmp_path, [])
    (tmp_path / "cells.jsonl").unlink()
    assert read_run(tmp_path).rows == []


@pytest.mark.parametrize("name", ["manifest.json", "cells.jsonl"])
def test_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    """A folder stands where a file should be: the error says which, and what the system said."""
    simulated.write_run(tmp_path, [])
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UnreadableRunError, match=rf"{name} cannot be read \(\w+"):
        read_run(tmp_path)


def test_run_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """Fields whose meaning has changed would be read as what they were: the message says so."""
    run_dir = simulated.write_run(tmp_path, simulated.sweep([1], trials=1), schema=2)
    with pytest.raises(UnreadableRunError, match="schema 2, this version reads 1"):
        read_run(run_dir)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": -1.5}, "rate"),
        ({"users": 0}, "users"),
        ({"k": 9}, "k=9 is not within 0..5 followers"),
        ({"k": -1}, "k=-1"),
        ({"followers": -1}, "-1 followers"),
        ({"delay_ms": [100, 0]}, "100 to 0 ms is no range of delays"),
        ({"delay_ms": [-5, -1]}, "no range of delays"),
        ({"operation": "fly"}, "there is no operation 'fly'"),
        ({"stamp": "good"}, "stamp"),
    ],
)
def test_trial_that_there_cannot_have_been_is_refused_with_its_line(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    """A file that was edited, or comes from elsewhere, ends in a sentence and not in a crash."""
    good, *_ = simulated.sweep([0, 3], trials=1)
    run_dir = simulated.write_run(tmp_path, [good, good | change])
    with pytest.raises(UnreadableRunError, match=f"line 2 is no trial: .*{re.escape(words)}"):
        read_run(run_dir)


@pytest.mark.parametrize(
    "scenario", [{"thresholds": 5}, {"thresholds": "p99 < 1s"}, {"acks": 5}, {"quorums": "abc"}]
)
def test_scenario_of_the_wrong_kind_is_refused(tmp_path: Path, scenario: dict[str, object]) -> None:
    """As far as a report needs it."""
    run_dir = simulated.write_run(tmp_path, simulated.sweep([0], trials=1), scenario=scenario)
    with pytest.raises(UnreadableRunError, match=f"is damaged: .*{next(iter(scenario))}"):
        read_run(run_dir)


def test_damaged_histogram_is_told(tmp_path: Path) -> None:
    """It is met only when the chart is drawn, and is no fault of the tool either."""
    rows = simulated.sweep([0, 3], trials=1)
    rows[1]["operations"]["write"]["histograms"]["response"] = "AAAA"
    run_dir = simulated.write_run(tmp_path, rows)
    with pytest.raises(UnreadableRunError, match=r"histogram in cells\.jsonl is damaged"):
        write_report(run_dir)
    assert {path.name for path in run_dir.iterdir()} == {"manifest.json", "cells.jsonl"}


def test_what_a_file_does_not_say_is_read_as_nothing(tmp_path: Path) -> None:
    """Runs of earlier versions lack fields: no count, time or machine may be made up for them."""
    (tmp_path / "manifest.json").write_text('{"run": "writes/early"}')
    (tmp_path / "cells.jsonl").write_text(
        '{"scenario": "writes", "k": 1, "block": 0, "followers": 5}\n'
    )
    run = read_run(tmp_path)
    (row,) = run.rows
    said = {"scenario", "k", "block", "followers"}
    unsaid = {name: getattr(row, name) for name in row.__struct_fields__ if name not in said}
    words = ("operation", "engine", "arrivals", "delay_model")
    assert [unsaid.pop(name) for name in words] == ["write", "local", "constant", "independent"]
    assert unsaid.pop("parity").status == "error", "nobody compared the replicas"
    assert unsaid.pop("stamp") == "ok"
    assert unsaid.pop("processes") == 1
    assert {name for name, value in unsaid.items() if value and value != Figures()} == set()
    assert row.writes == 0
    assert (run.manifest.followers, run.manifest.planned_trials) == (0, None)
    assert OperationRow() == OperationRow(ok=0, errors={}, histograms={})
