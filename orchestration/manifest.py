"""What a run was, so that it can be read and repeated: ``manifest.json``."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

from orchestration.scenario import Cell, Scenario

Status = Literal["running", "complete", "interrupted", "failed"]

_PACKAGES = ("quorumeter", "fastapi", "hdrhistogram", "httpx", "locust", "uvicorn", "uvloop")
_SCHEMA = 1


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
        "command": list(command),
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
    """The hardware and the system below the measurement."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _cpu_name() -> str:
    if sys.platform == "linux":
        # platform.processor() is empty or only the architecture there.
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
