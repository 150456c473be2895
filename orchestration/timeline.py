"""``timeline.csv``: what happened in each second of each trial of a run."""

import csv
from itertools import zip_longest
from pathlib import Path

from orchestration.load.results import TimelineRow, TimelineTail, merged_row

COLUMNS = ("trial", "block", "k", "ack", *TimelineRow._fields)


def gather_timelines(run_path: Path) -> None:
    """Write the timelines of all trials into one file; those of one trial's processes as one."""
    with (run_path / "timeline.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for folder in sorted((run_path / "trials").glob("block*")):
            block, k, *more = folder.name.split("-")
            ack = next((part for part in more if not part.startswith("rate")), "")
            cell = [folder.name, block.removeprefix("block"), k.removeprefix("k"), ack]
            for row in _rows(folder):
                writer.writerow([*cell, *row])


def _rows(trial: Path) -> list[TimelineRow]:
    processes = [TimelineTail(path).new_rows() for path in sorted(trial.glob("timeline-*.csv"))]
    seconds = zip_longest(*processes)
    return [merged_row([row for row in second if row is not None]) for second in seconds]
