"""Reading a run's files: whole, cut off, damaged, absent."""

from pathlib import Path

import pytest

from orchestration.report.records import UnreadableRunError, read_run
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
