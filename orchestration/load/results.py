"""The files that a load process leaves behind: their format, written, read and merged.

A process writes `process-<index>.json` (a `TrialResult` of its own) when it ends, and appends a
row a second to `timeline-<index>.csv` while it runs. Merging adds histograms, so that a trial's
percentiles do not depend on how many processes offered it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from hdrh.histogram import HdrHistogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

SCHEMA = 2
QUANTITIES = ("response", "service", "send_delay", "uncorrected")
LOWEST_NS = 1
HIGHEST_NS = 3600 * 1_000_000_000
SIGNIFICANT_DIGITS = 3


class ResultsError(Exception):
    """A result file is missing or damaged; the message names it."""


def new_histogram() -> HdrHistogram:
    """An empty histogram of nanoseconds: 1 ns to 1 h, 3 significant digits."""
    return HdrHistogram(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_DIGITS)


@dataclass(frozen=True, slots=True)
class OperationResult:
    """What became of one operation's requests, those that were due after the warm-up.

    Attributes:
        ok: how many succeeded.
        errors: how many failed, by error code.
        histograms: of the successes, in ns, by `QUANTITIES`: response (end - intended start),
            service (end - actual start), send_delay (actual - intended start), uncorrected (service
            of those requests that clients who wait for their answers would have sent).
    """

    ok: int
    errors: Mapping[str, int]
    histograms: Mapping[str, HdrHistogram]

    @property
    def completed(self) -> int:
        """Requests that ended, well or not."""
        return self.ok + sum(self.errors.values())

    def to_json(self) -> dict[str, Any]:
        """The operation as JSON values; histograms in HdrHistogram's compressed base64."""
        return {
            "ok": self.ok,
            "errors": dict(self.errors),
            "histograms": {
                name: histogram.encode().decode() for name, histogram in self.histograms.items()
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The operation that `to_json` wrote."""
        histograms = {name: decode_histogram(text) for name, text in document["histograms"].items()}
        return cls(ok=document["ok"], errors=document["errors"], histograms=histograms)

    @classmethod
    def merged(cls, parts: Iterable[Self]) -> Self:
        """All parts as one."""
        ok = 0
        errors: dict[str, int] = {}
        histograms = {name: new_histogram() for name in QUANTITIES}
        for part in parts:
            ok += part.ok
            for code, count in part.errors.items():
                errors[code] = errors.get(code, 0) + count
            for name, histogram in histograms.items():
                histogram.add(part.histograms[name])
        return cls(ok=ok, errors=errors, histograms=histograms)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One trial, as measured by one load process or by all of them together.

    Counts are of requests due after the warm-up.

    Attributes:
        operations: by operation: "write", "read", "delete".
        offered: planned arrivals.
        dropped: arrivals that were not sent, because too many were in flight.
        unfinished: requests still open when the run was stopped.
        measured_s: length of the measured window.
        generator_cpu_share: of one core, 0 to 1, that the busiest process used.
        ok_in_window: requests that succeeded within the window, whenever they were due.
        open_at_start: requests that were in flight when the window began.
        open_at_end: requests that were in flight when it ended.
        generator_lag_ms: how late a process's event loop was, 99th percentile of the worst.
        ended_early: whether the run was stopped before its plan was done.
        recorded: all requests that ended, warm-up included; Locust must have counted as many.
    """

    operations: Mapping[str, OperationResult]
    offered: int
    dropped: int
    unfinished: int
    measured_s: float
    generator_cpu_share: float
    ended_early: bool
    recorded: int = 0
    ok_in_window: int = 0
    open_at_start: int = 0
    open_at_end: int = 0
    generator_lag_ms: float = 0.0

    @property
    def completed(self) -> int:
        """Requests that ended, well or not."""
        return sum(operation.completed for operation in self.operations.values())

    @property
    def offered_rate_per_s(self) -> float:
        """Planned arrivals per second."""
        return self._per_s(self.offered)

    @property
    def completed_rate_per_s(self) -> float:
        """Requests that ended, well or not, per second."""
        return self._per_s(self.completed)

    @property
    def ok_rate_per_s(self) -> float:
        """Requests that succeeded per second of the window.

        Answers that came after it are those of a backlog: with them a store that falls behind
        would seem to keep up.
        """
        return self._per_s(self.ok_in_window)

    def _per_s(self, count: int) -> float:
        return count / self.measured_s if self.measured_s > 0 else 0.0

    @classmethod
    def merged(cls, parts: Iterable[Self]) -> Self:
        """The trial of which `parts` are its processes' results."""
        parts = list(parts)
        names = sorted({name for part in parts for name in part.operations})
        return cls(
            operations={
                name: OperationResult.merged(
                    part.operations[name] for part in parts if name in part.operations
                )
                for name in names
            },
            offered=sum(part.offered for part in parts),
            dropped=sum(part.dropped for part in parts),
            unfinished=sum(part.unfinished for part in parts),
            measured_s=max((part.measured_s for part in parts), default=0.0),
            generator_cpu_share=max((part.generator_cpu_share for part in parts), default=0.0),
            ended_early=any(part.ended_early for part in parts),
            recorded=sum(part.recorded for part in parts),
            ok_in_window=sum(part.ok_in_window for part in parts),
            open_at_start=sum(part.open_at_start for part in parts),
            open_at_end=sum(part.open_at_end for part in parts),
            generator_lag_ms=max((part.generator_lag_ms for part in parts), default=0.0),
        )

    def write(self, folder: Path, process: int) -> Path:
        """Writes this process's file, whole or not at all, and returns its path."""
        document = {"schema": SCHEMA, "process": process} | {
            name: getattr(self, name) for name in _PLAIN_FIELDS
        }
        document["operations"] = {
            name: operation.to_json() for name, operation in self.operations.items()
        }
        path = folder / f"process-{process}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(document), encoding="utf-8")
        partial.replace(path)
        return path


_PLAIN_FIELDS = (
    "offered",
    "dropped",
    "unfinished",
    "measured_s",
    "generator_cpu_share",
    "ended_early",
    "recorded",
    "ok_in_window",
    "open_at_start",
    "open_at_end",
    "generator_lag_ms",
)


def decode_histogram(text: str) -> HdrHistogram:
    """The histogram whose compressed base64 form is `text`."""
    # Added to an empty one: a decoded histogram has only as many counters as it needed.
    histogram = new_histogram()
    histogram.add(HdrHistogram.decode(text.encode()))
    return histogram


def read_process(path: Path) -> TrialResult:
    """One process's result; a ResultsError names a file that cannot be used."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            msg = f"{path} has schema {document['schema']}; this version reads {SCHEMA}"
            raise ResultsError(msg)
        operations = {
            name: OperationResult.from_json(operation)
            for name, operation in document["operations"].items()
        }
        return TrialResult(
            operations=operations, **{name: document[name] for name in _PLAIN_FIELDS}
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} is not a load process's result: {error!r}"
        raise ResultsError(msg) from error


def read_trial(folder: Path, processes: int) -> TrialResult:
    """The merged result of all processes; a ResultsError names a file that is missing."""
    return TrialResult.merged(
        read_process(folder / f"process-{index}.json") for index in range(processes)
    )


class TimelineRow(NamedTuple):
    """What happened since the row before, by time of day, warm-up included.

    `t_s` is the row's end in seconds from the start; latencies are of the successes, 0 without.
    """

    t_s: float
    offered: int
    completed: int
    ok: int
    errors: int
    dropped: int
    in_flight: int
    response_p50_ms: float
    response_p99_ms: float
    response_max_ms: float


def merged_row(rows: Sequence[TimelineRow]) -> TimelineRow:
    """The processes' rows of one second as one, for a live display.

    Counts add up. Percentiles do not: p50 is the processes' mean, weighted by their successes,
    p99 the worst process's. Exact ones come from the merged histograms at the end.
    """
    ok = sum(row.ok for row in rows)
    return TimelineRow(
        t_s=max(row.t_s for row in rows),
        offered=sum(row.offered for row in rows),
        completed=sum(row.completed for row in rows),
        ok=ok,
        errors=sum(row.errors for row in rows),
        dropped=sum(row.dropped for row in rows),
        in_flight=sum(row.in_flight for row in rows),
        response_p50_ms=sum(row.response_p50_ms * row.ok for row in rows) / max(ok, 1),
        response_p99_ms=max(row.response_p99_ms for row in rows),
        response_max_ms=max(row.response_max_ms for row in rows),
    )


def timeline_path(folder: Path, process: int) -> Path:
    """Where a process keeps its timeline."""
    return folder / f"timeline-{process}.csv"


class TimelineWriter:
    """Appends rows to a CSV file; each is on its way to a reader at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._append(",".join(TimelineRow._fields))

    def append(self, row: TimelineRow) -> None:
        """Writes one row and flushes it."""
        cells = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row)
        self._append(",".join(cells))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _append(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()


class TimelineTail:
    """Follows a timeline that another process is writing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset_bytes = 0

    def new_rows(self) -> list[TimelineRow]:
        """The complete rows since the last call; a half-written last line waits for its end."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset_bytes, os.SEEK_SET)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset_bytes += len(complete)
        lines = complete.decode("utf-8").splitlines()
        header = ",".join(TimelineRow._fields)
        return [_parse_row(line) for line in lines if line != header]


def _parse_row(line: str) -> TimelineRow:
    t_s, *counts_and_ms = line.split(",")
    counts, latencies_ms = counts_and_ms[:6], counts_and_ms[6:]
    return TimelineRow(float(t_s), *map(int, counts), *map(float, latencies_ms))
