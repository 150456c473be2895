"""``timeline.csv``: what happened in each second of each trial of a run."""

import csv
import re
from collections import defaultdict
from itertools import chain
from pathlib import Path

from orchestration.load.results import TimelineRow, TimelineTail, merged_row

# "block10", "k3", "rate1500.5", "fsync"
_NUMBERED = re.compile(r"([a-z]+)([\d.]*)")
COLUMNS = ("trial", "block", "k", "ack", *TimelineRow._fields)


def gather_timelines(run_path: Path) -> None:
    """Write the timelines of all trials into one file; those of one trial's processes as one."""
    with (run_path / "timeline.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for folder in sorted((run_path / "trials").glob("block*"), key=_in_order):
            block, k, *more = folder.name.split("-")
            ack = next((part for part in more if not part.startswith("rate")), "")
            cell = [folder.name, block.removeprefix("block"), k.removeprefix("k"), ack]
            for row in _rows(folder):
                writer.writerow([*cell, *row])


def _in_order(trial: Path) -> list[tuple[str, float]]:
    """Numbers in a trial's name count as numbers: block 2 comes before block 10."""
    parts = (_NUMBERED.fullmatch(part) for part in trial.name.split("-"))
    return [(part[1], float(part[2] or 0)) for part in parts if part]


def _rows(trial: Path) -> list[TimelineRow]:
    """The rows of a trial, those of its processes joined where they are of the same second."""
    processes = [TimelineTail(path).new_rows() for path in sorted(trial.glob("timeline-*.csv"))]
    if len(processes) == 1:
        return processes[0]
    seconds: dict[int, list[TimelineRow]] = defaultdict(list)
    for row in chain(*processes):
        seconds[round(row.t_s)].append(row)
    return [merged_row(seconds[second]) for second in sorted(seconds)]
