"""``quorumeter compare`` from its command line to its exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from orchestration.cli import run
from orchestration.report import noise_floor
from orchestration.report.noise_floor import NoiseFloor
from tests.orchestration.report import simulated, simulated_search

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of a run, in a root as a sweep leaves it."""
    return simulated.write_run(tmp_path / "reports" / "writes" / "1", simulated.sweep([1, 3], 5))


@pytest.fixture
def slower(tmp_path: Path) -> Path:
    """The folder of a run whose delays are longer by two thirds."""
    rows = simulated.sweep([1, 3], 5, delay_ms=(0.0, 166.0), seed=2)
    return simulated.write_run(tmp_path / "reports" / "writes" / "2", rows, run="writes/2")


def store_floor(path: Path, **changes: Any) -> Path:
    """Writes a noise floor of 300%, which hides any change."""
    percent = {3: dict.fromkeys(("mean", "p50", "p95", "p99", "achieved_rate"), 300.0)}
    floor = NoiseFloor(
        created_at="2025-06-01T12:00:00.000Z",
        machine=simulated.manifest()["machine"],
        seed=1,
        runs=["a", "b"],
        conditions={"trials": 5, "acks": ["memory"], "rate_per_s": 100.0, "workload": "mixed"},
        percent=percent,
    )
    content = json.loads(noise_floor.to_json(floor)) | changes
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without line breaks."""
    return " ".join(capsys.readouterr().out.split())


def test_comparison_is_printed_with_its_sentence(
    base: Path, slower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What changed, that the delays differ; without a gate the exit code is 0."""
    assert run(["compare", str(base), str(slower)]) == 0
    text = told(capsys)
    assert "The runs differ in delay (ms): 0:100 in BASE, 0:166 in NEW." in text
    assert "NEW is slower: " in text


def test_json_is_the_comparison_and_nothing_else(
    base: Path, slower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data on stdout can be read by a program."""
    assert run(["compare", str(base), str(slower), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert found["cells"][1]["figures"]["p50"]["verdict"] == "slower"


@pytest.mark.parametrize(
    ("swapped", "gate", "code"), [(False, [], 0), (False, ["-"], 99), (True, ["-"], 0)]
)
def test_gate_fails_for_what_got_worse_and_not_for_what_got_better(
    base: Path, slower: Path, *, swapped: bool, gate: list[str], code: int
) -> None:
    """99 with --fail-on-regression, if anything is slower or a rate lower."""
    runs = [str(slower), str(base)] if swapped else [str(base), str(slower)]
    assert run(["compare", *runs, *["--fail-on-regression" for _ in gate]]) == code


def test_gate_does_not_pass_on_what_it_cannot_see(base: Path, tmp_path: Path) -> None:
    """A store that is so slow that its cell is saturated has no figures that could be worse."""
    rows = simulated.sweep([1, 3], 5, stamp="saturated", reason="dropped")
    new = simulated.write_run(tmp_path / "reports" / "writes" / "2", rows)
    assert run(["compare", str(base), str(new), "--fail-on-regression"]) == 2
    assert run(["compare", str(base), str(new)]) == 0


@pytest.mark.parametrize(
    "rows",
    [
        [],
        simulated.sweep([1, 3], 5, stamp="saturated", reason="dropped"),
        simulated.sweep([1], 5, stamp="invalid") + simulated.sweep([3], 5),
        simulated.sweep([1, 3], 5, writes=0, response_ms={}, achieved_rate=None),
    ],
    ids=["no rows", "saturated", "one cell invalid", "nothing recorded"],
)
def test_gate_does_not_pass_without_a_base_to_hold_against(
    base: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    """Where BASE has no figures nothing got worse, and nothing is known: 2."""
    blank = simulated.write_run(tmp_path / "reports" / "writes" / "0", rows)
    assert run(["compare", str(blank), str(base), "--fail-on-regression"]) == 2
    assert run(["compare", str(blank), str(base)]) == 0


def test_gate_passes_on_what_is_unclear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two trials a run know next to nothing; the page says that a gate lets that pass."""
    folders = [
        simulated.write_run(tmp_path / str(seed), simulated.sweep([1], 2, seed=seed))
        for seed in (1, 3)
    ]
    assert run(["compare", *map(str, folders), "--fail-on-regression"]) == 0
    assert "unclear, for want of trials" in told(capsys)


def test_out_receives_the_files(
    base: Path, slower: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page, the chart twice, the numbers; where they are is said on stderr."""
    out = tmp_path / "new" / "folder"
    assert run(["compare", str(base), str(slower), "--out", str(out)]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["comparison.json", "comparison.md", "comparison.png", "comparison.svg"]
    assert str(out / "comparison.md") in capsys.readouterr().err


@pytest.mark.parametrize("missing", [0, 1])
def test_folder_that_is_no_run_is_a_usage_error(
    base: Path, tmp_path: Path, missing: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """64, with what a run's folder looks like."""
    runs = [str(base), str(base)]
    runs[missing] = str(tmp_path)
    assert run(["compare", *runs]) == 64
    assert "manifest.json" in capsys.readouterr().err


def test_path_that_is_a_file_is_a_usage_error(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """64 and a sentence where a file of the run is named instead of its folder."""
    assert run(["compare", str(base), str(base / "cells.jsonl")]) == 64
    assert "cells.jsonl" in capsys.readouterr().err


def test_saturation_run_is_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells have the rates that it found: 64, on either side."""
    found = simulated_search.goal()
    searched = simulated_search.write_run(tmp_path / "search", found, [])
    for runs in ((base, searched), (searched, base)):
        assert run(["compare", *map(str, runs)]) == 64
        assert f"{searched} is a run of quorumeter saturate" in capsys.readouterr().err


def test_calibration_in_the_root_is_found_and_named(
    base: Path, slower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It hides the change; its settings that are not those of the runs are told."""
    path = store_floor(base.parents[1] / "noise_floor.json")
    assert run(["compare", str(base), str(slower), "--fail-on-regression", "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert note == (
        f"Noise floor of the machine from {path}, 2 runs of 2025-06-01. It was measured at other "
        "settings: trials: 5 in the calibration, 3 in NEW; workload: mixed in the calibration, "
        "writes in NEW."
    )


def test_calibration_that_is_named_wins_over_the_one_in_the_root(
    base: Path, slower: Path, tmp_path: Path
) -> None:
    """--noise says which."""
    store_floor(base.parents[1] / "noise_floor.json")
    calm = store_floor(tmp_path / "calm.json", percent={"3": {"mean": 0.1}})
    gate = ["compare", str(base), str(slower), "--fail-on-regression"]
    assert run(gate) == 0
    assert run([*gate, "--noise", str(calm)]) == 99


def test_calibration_of_another_machine_is_left_out_or_refused(
    base: Path, slower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that lies there is no floor here, with a note; one that was named is an error.

    It is enough that one of the two runs is not its machine's.
    """
    moved = json.loads((slower / "manifest.json").read_bytes())
    moved["machine"]["cores"] = 64
    (slower / "manifest.json").write_text(json.dumps(moved))
    path = store_floor(base.parents[1] / "noise_floor.json")
    gate = ["compare", str(base), str(slower), "--fail-on-regression"]
    assert run(gate) == 99
    assert "is the noise floor of another machine than that of BASE and NEW" in told(capsys)
    assert run([*gate, "--noise", str(path)]) == 64
    assert "calibrate there" in capsys.readouterr().err


def test_damaged_calibration_is_left_out_or_refused(
    base: Path, slower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The comparison goes on without it; one that was named is an error."""
    path = base.parents[1] / "noise_floor.json"
    path.write_text("{")
    assert run(["compare", str(base), str(slower)]) == 0
    assert "is no noise floor" in told(capsys)
    assert run(["compare", str(base), str(slower), "--noise", str(path)]) == 64
    assert "calibrate anew" in capsys.readouterr().err
