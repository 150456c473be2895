"""All trials' timelines in one file."""

from pathlib import Path

from orchestration.load.results import TimelineRow, TimelineWriter, timeline_path
from orchestration.manifest import RunFolder
from orchestration.scenario import Cell
from orchestration.timeline import COLUMNS, gather_timelines


def write(folder: Path, process: int, *rows: TimelineRow) -> None:
    """Leaves the timeline of one process."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = TimelineWriter(timeline_path(folder, process))
    for row in rows:
        writer.append(row)
    writer.close()


def second(t_s: float, ok: int) -> TimelineRow:
    """A second in which so many requests succeeded."""
    return TimelineRow(t_s, ok, ok, ok, 0, 0, 0, 1.0, 1.0, 1.0)


def gathered(tmp_path: Path) -> list[dict[str, str]]:
    """The rows of timeline.csv by their columns."""
    gather_timelines(tmp_path)
    header, *lines = (tmp_path / "timeline.csv").read_text().splitlines()
    assert header.split(",") == list(COLUMNS)
    return [dict(zip(COLUMNS, line.split(","), strict=True)) for line in lines]


def test_each_row_names_its_trial(tmp_path: Path) -> None:
    """Block, k and ack stand beside every second, in a run of any form."""
    run = RunFolder(path=tmp_path, root=tmp_path)
    cells = [
        Cell(block=1, k=3, seed=1),
        Cell(block=0, k=10, seed=1, ack="fsync", rate_per_s=1500.5),
        Cell(block=0, k=2, seed=1, rate_per_s=0.5),
    ]
    for cell in cells:
        write(run.trial(cell), 0, second(1.0, cell.k))
    found = [(row["block"], row["k"], row["ack"], row["ok"]) for row in gathered(tmp_path)]
    assert sorted(found) == [("0", "10", "fsync", "10"), ("0", "2", "", "2"), ("1", "3", "", "3")]


def test_trials_stand_in_the_order_of_their_blocks(tmp_path: Path) -> None:
    """Block 10 comes after block 2, and k=10 after k=2: by number, not by text."""
    run = RunFolder(path=tmp_path, root=tmp_path)
    for block, k in ((10, 1), (2, 10), (2, 2)):
        write(run.trial(Cell(block=block, k=k, seed=1)), 0, second(1.0, 1))
    found = [(row["block"], row["k"]) for row in gathered(tmp_path)]
    assert found == [("2", "2"), ("2", "10"), ("10", "1")]


def test_rows_of_processes_are_joined_by_their_time(tmp_path: Path) -> None:
    """A process that has no row for a second adds nothing to it, and not its next one."""
    folder = RunFolder(path=tmp_path, root=tmp_path).trial(Cell(block=0, k=1, seed=1))
    write(folder, 0, second(1.0, 3), second(2.0, 5), second(3.0, 7))
    write(folder, 1, second(2.02, 10), second(3.01, 20))
    assert [row["ok"] for row in gathered(tmp_path)] == ["3", "15", "27"]


def test_seconds_of_several_processes_are_one(tmp_path: Path) -> None:
    """What all processes of a trial did in a second adds up; one may end before another."""
    folder = RunFolder(path=tmp_path, root=tmp_path).trial(Cell(block=0, k=1, seed=1))
    write(folder, 0, second(1.0, 3), second(2.0, 5))
    write(folder, 1, second(1.0, 4))
    assert [row["ok"] for row in gathered(tmp_path)] == ["7", "5"]
