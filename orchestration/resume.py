"""Opens a run that was stopped, so that what is missing of it can be measured."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from orchestration.errors import UsageError
from orchestration.manifest import RunFolder, machine, timestamp, versions
from orchestration.report.records import UnreadableRunError, read_run
from orchestration.report.saturation_write import is_saturation
from orchestration.report.write import replace_file
from orchestration.request import SweepRequest
from orchestration.scenario import Cell, Scenario, plan


def open_run(path: Path) -> tuple[RunFolder, Scenario, dict[str, Any], tuple[Cell, ...]]:
    """The folder of a run, its scenario, its manifest, and the cells that it has measured.

    A last line that was cut off while it was written is removed from ``cells.jsonl``.

    Raises:
        UsageError: There is no run, it cannot be read, or it was not measured on this machine.
    """
    folder = path.resolve()
    if is_saturation(folder):
        raise UsageError(f"{path} is a search for the highest rate: begin it anew, with its seed.")
    try:
        run = read_run(folder)
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
        scenario = Scenario.from_dict(manifest["scenario"])
    except (UnreadableRunError, msgspec.ValidationError, KeyError, ValueError) as problem:
        raise UsageError(f"{path} cannot be resumed: {problem}") from problem
    _check_same(path, manifest)
    if run.lost_line:
        whole = (folder / "cells.jsonl").read_bytes().splitlines(keepends=True)[:-1]
        replace_file(folder / "cells.jsonl", b"".join(whole))
    _end_last_line(folder / "cells.jsonl")
    measured = {(row.block, row.k, row.kind) for row in run.rows}
    done = tuple(cell for cell in plan(scenario) if (cell.block, cell.k, cell.ack) in measured)
    resumed = [*manifest.get("resumed_at", []), timestamp(datetime.now(UTC))]
    manifest |= {"resumed_at": resumed, "status": "running", "finished_at": None, "message": ""}
    return RunFolder(path=folder, root=folder.parents[1]), scenario, manifest, done


def _check_same(path: Path, manifest: dict[str, Any]) -> None:
    """Refuses a run of another machine, or of other versions of what it is measured by."""
    here = {**machine(), **versions()}
    there = {**manifest["machine"], **manifest["versions"]}
    if changed := [name for name in sorted(here) if there.get(name) != here[name]]:
        raise UsageError(
            f"{path} was measured on another machine or by other versions ({', '.join(changed)} "
            "differ): such trials do not belong in one run."
        )


def _end_last_line(path: Path) -> None:
    """A line that was cut just before its end is whole; the next one must not run into it."""
    text = path.read_bytes() if path.exists() else b""
    if text and not text.endswith(b"\n"):
        replace_file(path, text + b"\n")


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
