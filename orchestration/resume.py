"""Opens a run that was stopped, so that what is missing of it can be measured."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from orchestration.conduct import Job, check_machine
from orchestration.errors import UsageError
from orchestration.manifest import RunFolder, machine, timestamp, versions
from orchestration.report.records import Run, UnreadableRunError, read_run
from orchestration.report.saturation_write import is_saturation
from orchestration.report.write import replace_file
from orchestration.request import SweepRequest
from orchestration.scenario import Scenario, plan


def open_run(path: Path) -> Job:
    """What is missing of the run in a folder, as a job.

    A last line that was cut off while it was written is removed from ``cells.jsonl``, and so is a
    last trial that was spoilt by what ended the run: it is measured again.

    Raises:
        UsageError: There is no run, it cannot be read, or it was not measured on this machine.
    """
    folder = path.resolve()
    if is_saturation(folder):
        raise UsageError(f"{path} is a search for the highest rate: begin it anew, with its seed.")
    try:
        found = read_run(folder)
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
        scenario = Scenario.from_dict(manifest["scenario"])
        request = request_of(manifest)
        _check_same(path, manifest)
    except (UnreadableRunError, msgspec.ValidationError, LookupError, TypeError, ValueError) as why:
        raise UsageError(f"{path} cannot be resumed: {why}") from why
    run = RunFolder(path=folder, root=folder.parents[1])
    if "fsync" in scenario.acks and run.node_data.exists() and not run.owns_node_data:
        raise UsageError(
            f"{run.node_data} is not one of quorumeter's, and the nodes' data go there: move it."
        )
    cores = check_machine(scenario)
    rows = found.rows[:-1] if _is_last_spoilt(found) else found.rows
    _keep_lines(folder / "cells.jsonl", len(rows))
    measured = {(row.block, row.k, row.kind) for row in rows}
    done = tuple(cell for cell in plan(scenario) if (cell.block, cell.k, cell.ack) in measured)
    resumed = [*manifest.get("resumed_at", []), timestamp(datetime.now(UTC))]
    manifest |= {"resumed_at": resumed, "status": "running", "finished_at": None, "message": ""}
    return Job(request, scenario, run, manifest, cores, done)


def _is_last_spoilt(run: Run) -> bool:
    """Whether the last trial is one that fell victim to what ended the run.

    That replicas differed after it would be a finding, and stays.
    """
    has_broken_off = run.manifest.status in {"failed", "running"}
    last = run.rows[-1] if run.rows else None
    return (
        has_broken_off
        and last is not None
        and last.stamp == "invalid"
        and last.parity.status != "mismatch"
    )


def _keep_lines(path: Path, count: int) -> None:
    """Keep the first lines of a file that are not empty, each with its end."""
    if not path.exists():
        return
    lines = [line for line in path.read_bytes().splitlines() if line.strip()][:count]
    content = b"".join(line + b"\n" for line in lines)
    if content != path.read_bytes():
        replace_file(path, content)


def _check_same(path: Path, manifest: dict[str, Any]) -> None:
    """Refuses a run of another machine, or of other versions of what it is measured by."""
    here = {**machine(), **versions()}
    there = {**manifest["machine"], **manifest["versions"]}
    if changed := [name for name in sorted(here) if there.get(name) != here[name]]:
        raise UsageError(
            f"{path} was measured on another machine or by other versions ({', '.join(changed)} "
            "differ): such trials do not belong in one run."
        )


def request_of(manifest: dict[str, Any]) -> SweepRequest:
    """As much of the request as decides where the cluster is."""
    attach = manifest.get("attach")
    if attach is None:
        return SweepRequest()
    delay_ms = attach["delay_ms"]
    return SweepRequest(
        attach_url=attach["leader_url"],
        reached_urls=tuple(attach["reached_urls"]),
        delay_ms=None if delay_ms is None else (delay_ms[0], delay_ms[1]),
    )
