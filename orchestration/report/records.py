"""What a run leaves behind, as typed records: ``manifest.json`` and ``cells.jsonl``.

A run's folder holds one manifest and one line a trial. Fields that a reader does not know are
ignored, so that a run may be drawn again by an older version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec

from orchestration.analysis import histograms
from orchestration.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from hdrh.histogram import HdrHistogram

# Both from best to worst: the worst trial's is the cell's.
Stamp = Literal["ok", "saturated", "generator-bound", "invalid"]
ParityStatus = Literal["match", "error", "mismatch"]
WRITE = "write"
OPERATIONS = (WRITE, "read", "scan", "read_modify_write", "delete")
# Of the manifest: raised when a field that stays changes its meaning.
SCHEMA = 1


class UnreadableRunError(UsageError):
    """A run's folder has no files that a report can be made from; the message says which."""


class Figures(msgspec.Struct, frozen=True):
    """One trial's latencies in ms; None where nothing was recorded."""

    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class OperationRow(msgspec.Struct, frozen=True):
    """One operation's share of a trial: successes, errors by code, encoded histograms in ns."""

    ok: int = 0
    errors: dict[str, int] = {}
    histograms: dict[str, str] = {}


class ReplicaParity(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one replica compared with the leader after a trial."""

    url: str
    status: ParityStatus
    mismatch_keys: list[str] | None = None
    extra_keys: list[str] | None = None
    detail: str | None = None


class Parity(msgspec.Struct, frozen=True):
    """The comparison of all replicas after a trial; `status` is the worst among them."""

    status: ParityStatus
    replicas: list[ReplicaParity] = []


class CellKey(NamedTuple):
    """What trials of one cell have in common, within a run and from run to run."""

    scenario: str
    ack: str
    rate: float | None
    users: int | None
    k: int


class TrialRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``cells.jsonl``: one trial of one cell.

    Attributes:
        ack: What an acknowledgment meant: "memory" or "fsync"; empty in runs that had only one
            kind, which their manifest names.
        kind: The cluster of the plan that it ran on; differs from `ack` where that was asked for.
        workload: What drove the store.
        operation: What the latencies are of: the writes, if there are any.
        processes: Load processes that shared the load.
        arrivals: How an open loop spaced its requests.
        rate: Planned writes/s of an open loop; None for a closed loop of `users`.
        delay_ms: The range of link delays; None if a cluster was attached that keeps its own.
        seen: How many `uncorrected_ms` is taken from.
        open_at_start: Requests in flight when the measured window began.
        open_at_end: Requests in flight when it ended.
        samples: 200s after warm-up, of all operations.
        measured_s: Length of the measured window; None in runs that did not note it.
        offered_rate: Planned operations/s.
        achieved_rate: Successful operations/s.
        response_ms: Of the `operation`, as are `service_ms`, `send_delay_ms` and `uncorrected_ms`.
        reason: Why the stamp is not ok; empty if it is.
    """

    scenario: str
    k: int
    block: int
    followers: int
    ack: str = ""
    kind: str = ""
    workload: str = ""
    operation: str = WRITE
    engine: str = "local"
    arrivals: str = "constant"
    rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    users: Annotated[int, msgspec.Meta(gt=0)] | None = None
    processes: int = 1
    seed: int | None = None
    warmup_s: float = 0.0
    duration_s: float = 0.0
    delay_ms: tuple[float, float] | None = None
    delay_model: str = "independent"
    started_at: str = ""
    offered: int = 0
    dropped: int = 0
    samples: int = 0
    seen: int = 0
    open_at_start: int = 0
    open_at_end: int = 0
    errors: dict[str, int] = {}
    measured_s: float | None = None
    offered_rate: float | None = None
    achieved_rate: float | None = None
    generator_cpu_share: float | None = None
    generator_lag_ms: float | None = None
    response_ms: Figures = Figures()
    service_ms: Figures = Figures()
    send_delay_ms: Figures = Figures()
    uncorrected_ms: Figures = Figures()
    operations: dict[str, OperationRow] = {}
    parity: Parity = Parity("error")
    stamp: Stamp = "ok"
    reason: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a trial that there cannot have been."""
        if not 0 <= self.k <= self.followers:
            msg = f"k={self.k} is not within 0..{self.followers} followers"
            raise ValueError(msg)
        if self.operation not in OPERATIONS:
            msg = f"there is no operation {self.operation!r}"
            raise ValueError(msg)
        if self.delay_ms is not None and not 0 <= self.delay_ms[0] <= self.delay_ms[1]:
            msg = f"{self.delay_ms[0]:g} to {self.delay_ms[1]:g} ms is no range of delays"
            raise ValueError(msg)

    @property
    def key(self) -> CellKey:
        """The cell that it is a trial of."""
        return CellKey(self.scenario, self.ack, self.rate, self.users, self.k)

    @property
    def writes(self) -> int:
        """Successes after warm-up of the `operation`: what the latencies are taken from."""
        found = self.operations.get(self.operation)
        if found is None:
            return 0 if self.operations else self.samples
        return found.ok


class Settings(msgspec.Struct, frozen=True):
    """What a report needs of the scenario in a manifest, as it has to be."""

    thresholds: list[str] = []
    acks: list[str] = []
    quorums: list[int] = []


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``: what was asked for, on what, and how it ended.

    Attributes:
        run: ``<scenario>/<UTC timestamp>``.
        ack: What an acknowledgment means: in ``memory``, or ``fsync``.
        machine: machine_id, cpu, cores, cpu_quota, kernel, memory_gib, python.
        status: complete, interrupted or failed.
    """

    run: str
    schema: int = SCHEMA
    command: list[str] = []
    scenario: dict[str, Any] = {}
    seed: int | None = None
    engine: str = "local"
    followers: int = 0
    ack: str = "memory"
    leader_url: str = ""
    versions: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    started_at: str | None = None
    finished_at: str | None = None
    status: str = "complete"
    planned_trials: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a scenario that no report can be made of."""
        msgspec.convert(self.scenario, Settings)


class Run(msgspec.Struct, frozen=True):
    """A run as read from its folder."""

    manifest: Manifest
    rows: list[TrialRow]
    lost_line: bool = False
    """The last line of ``cells.jsonl`` was cut off while it was written, and is left out."""


def response_histogram(part: OperationRow) -> HdrHistogram:
    """Return the histogram of an operation's response times.

    Raises:
        UnreadableRunError: It is damaged, or not there.
    """
    try:
        return histograms.decode(part.histograms["response"])
    except (KeyError, ValueError) as error:
        raise UnreadableRunError(
            f"a histogram in cells.jsonl is damaged ({error}): remove its line to report the rest"
        ) from error


def read_run(run_dir: Path) -> Run:
    """Return the run in this folder; without ``cells.jsonl`` it has no rows.

    Raises:
        UnreadableRunError: There is no manifest, a file cannot be read, or it is damaged other than
            by a cut, or of a newer schema.
    """
    try:
        manifest = msgspec.json.decode((run_dir / "manifest.json").read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise UnreadableRunError(
            f"{run_dir} has no manifest.json: name the folder of a run, "
            "such as reports/<scenario>/<timestamp>"
        ) from error
    except OSError as error:
        raise _unreadable(run_dir / "manifest.json", error) from error
    except msgspec.MsgspecError as error:
        raise UnreadableRunError(f"{run_dir / 'manifest.json'} is damaged: {error}") from error
    if manifest.schema > SCHEMA:
        raise UnreadableRunError(
            f"{run_dir} has schema {manifest.schema}, this version reads {SCHEMA}: use a newer one"
        )
    rows, lost_line = _read_rows(run_dir / "cells.jsonl")
    return Run(manifest, rows, lost_line)


def _read_rows(path: Path) -> tuple[list[TrialRow], bool]:
    lines = _read_lines(path)
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    rows: list[TrialRow] = []
    for number, line in numbered:
        try:
            rows.append(msgspec.json.decode(line, type=TrialRow))
        except msgspec.ValidationError as error:
            raise UnreadableRunError(f"{path}, line {number} is no trial: {error}") from error
        except msgspec.DecodeError as error:
            if number == numbered[-1][0]:
                return rows, True
            raise UnreadableRunError(
                f"{path}, line {number} is damaged ({error}): remove it to report the rest"
            ) from error
    return rows, False


def _read_lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UnreadableRunError:
    return UnreadableRunError(
        f"{path} cannot be read ({error.strerror}): name the folder of a run that you may read"
    )
