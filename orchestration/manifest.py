"""What a run was, so that it can be read and repeated: ``manifest.json``."""

import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

from orchestration.cores import usable_cores
from orchestration.scenario import Cell, Scenario

Status = Literal["running", "complete", "interrupted", "failed"]

_PACKAGES = ("quorumeter", "fastapi", "hdrhistogram", "httpx", "locust", "uvicorn", "uvloop")
_SCHEMA = 1
# See machine-id(5): it is not to be told to others as it is.
MACHINE_ID = Path("/etc/machine-id")
# Of a container, which sees its own control group (version 2) as the root.
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
# Says of a folder that it was made here, and may be removed.
_OWN_MARK = ".quorumeter"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where one run writes.

    Attributes:
        path: ``<out>/<scenario>/<UTC timestamp>``.
        root: ``<out>``, which receives the files that stay the same from run to run.
    """

    path: Path
    root: Path

    @property
    def name(self) -> str:
        """``<scenario>/<UTC timestamp>``."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def node_logs(self) -> Path:
        """Where the nodes' logs go."""
        return self.path / "nodes"

    @property
    def node_data(self) -> Path:
        """Where nodes with a disk keep their data while the run lasts."""
        return self.path / "data"

    def make_node_data(self) -> Path:
        """The folder for the nodes' data, made and marked as one that may be removed."""
        self.node_data.mkdir(exist_ok=True)
        (self.node_data / _OWN_MARK).touch()
        return self.node_data

    def remove_node_data(self) -> None:
        """Remove the nodes' data; what was not made here stays."""
        if self.owns_node_data:
            shutil.rmtree(self.node_data, ignore_errors=True)

    @property
    def owns_node_data(self) -> bool:
        """Whether what stands in the place of the nodes' data was made here."""
        return (self.node_data / _OWN_MARK).is_file()

    def trial(self, cell: Cell) -> Path:
        """Where the load generator writes for this cell."""
        return self.path / "trials" / cell.folder


def create_run_folder(root: Path, scenario_name: str, now: datetime) -> RunFolder:
    """Make a folder of its own for a run that starts ``now``."""
    base = root / scenario_name / now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    path, number = base, 1
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = base.with_name(f"{base.name}-{number}")
        else:
            return RunFolder(path=path, root=root)


def start_manifest(
    run: RunFolder,
    scenario: Scenario,
    *,
    command: Sequence[str],
    planned_trials: int,
    now: datetime,
) -> dict[str, Any]:
    """The manifest of a run that begins; ``ack`` and the cluster's particulars come later."""
    return {
        "schema": _SCHEMA,
        "run": run.name,
        "command": [_told(word) for word in command],
        "scenario": scenario.as_dict(),
        "seed": scenario.seed,
        "engine": scenario.engine,
        "followers": scenario.followers,
        "ack": "unknown",
        "leader_url": "",
        "versions": versions(),
        "machine": machine(),
        "started_at": timestamp(now),
        "finished_at": None,
        "status": "running",
        "planned_trials": planned_trials,
    }


def _told(word: str) -> str:
    """A word as JSON can hold it: a path need not be text, and what is none is replaced."""
    return word.encode(errors="surrogateescape").decode(errors="replace")


def write_manifest(run: RunFolder, manifest: dict[str, Any]) -> None:
    """Replace ``manifest.json`` in one step."""
    fresh = run.path / "manifest.json.new"
    fresh.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    fresh.replace(run.path / "manifest.json")


def timestamp(now: datetime) -> str:
    """UTC, ISO 8601, to the millisecond."""
    return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def versions() -> dict[str, str]:
    """Versions of the packages that a measurement depends on."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The hardware and the system below the measurement, and what of it may be used.

    ``machine_id`` tells machines of one type apart; ``cpu_quota`` is a container's limit in cores.
    Both are None where nothing is known of one.
    """
    return {
        "machine_id": _machine_id(),
        "cpu": _cpu_name(),
        "cores": len(usable_cores()),
        "cpu_quota": _cpu_quota(),
        "kernel": f"{platform.system()} {platform.release()}",
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _machine_id() -> str | None:
    """A name for this installation of a system; its own id, which is confidential, stays here."""
    try:
        own = MACHINE_ID.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    if not own or own == "uninitialized":
        return None
    return hashlib.sha256(f"quorumeter {own}".encode()).hexdigest()[:12]


def _cpu_quota() -> float | None:
    try:
        limit, period = CPU_LIMIT.read_text(encoding="ascii").split()
        return int(limit) / int(period)
    except (OSError, ValueError):  # none, or "max"
        return None


def _cpu_name() -> str:
    if sys.platform == "linux":
        # platform.processor() is empty or only the architecture there.
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
