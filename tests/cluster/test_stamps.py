"""Sweeps that may not be quoted: each says so, says why, and fails where that was asked for."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from tests.cluster.nodes import wait_until
from tests.cluster.tool import Tool, run_folder, wait_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORT = ("--k", "1", "--trials", "1", "--warmup", "100ms", "--duration", "500ms", "--strict")
UNKNOWN = 2
HOGS = 8


@pytest.fixture
def tool(tmp_path: Path) -> Iterator[Tool]:
    """The command; whatever a test did, none of its processes is left."""
    tool = Tool(tmp_path)
    yield tool
    tool.assert_nothing_left()


def cell_of(out: Path) -> dict[str, Any]:
    """The only cell of the only run."""
    (cell,) = json.loads((run_folder(out) / "summary.json").read_text())["cells"]
    return dict(cell)


def assert_not_quoted(out: Path) -> None:
    """No percentile of the cell is in any output."""
    cell = cell_of(out)
    assert cell["reason"]
    assert {cell[name]["p50"] for name in ("response_ms", "service_ms")} == {None}


def test_a_schedule_that_cannot_be_kept_is_stamped(tool: Tool, tmp_path: Path) -> None:
    """A rate beyond what the machine can do is no measurement of the store at that rate."""
    out = tmp_path / "out"
    done = tool.run("sweep", *SHORT, "--followers", "1", "--rate", "20000", "--out", out)
    assert done.returncode == UNKNOWN, done.stderr
    assert cell_of(out)["stamp"] in {"generator-bound", "saturated"}
    assert_not_quoted(out)


@contextlib.contextmanager
def crowded(process: psutil.Process) -> Iterator[None]:
    """A process shares one core with many that never rest."""
    cores = psutil.Process().cpu_affinity()[:1]
    process.cpu_affinity(cores)
    spin = [sys.executable, "-c", "while True: pass"]
    # Linux shares a core among sessions first, and then among a session's processes.
    hogs = [subprocess.Popen(spin, start_new_session=True) for _ in range(HOGS)]
    try:
        for hog in hogs:
            psutil.Process(hog.pid).cpu_affinity(cores)
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


@pytest.mark.alone
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS gives no process a core of its own")
def test_a_generator_that_gets_no_core_is_stamped(tool: Tool, tmp_path: Path) -> None:
    """Requests that left late because the generator had to wait say nothing about the store."""
    out = tmp_path / "out"
    load = ("--followers", "1", "--delay", "0:0", "--rate", "2000", "--out", out)
    with tool.started("sweep", *SHORT, *load) as process:
        (locust,) = wait_until(lambda: tool.processes("locust"), "the load runs")
        wait_until(lambda: list(out.glob("*/*/trials/*/timeline-0.csv")), "it has begun")
        with crowded(locust):
            wait_rows(out, 1)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == UNKNOWN, output
    assert cell_of(out)["stamp"] == "generator-bound"
    assert "late" in cell_of(out)["reason"]
    assert_not_quoted(out)


def test_a_cluster_that_fails_requests_is_stamped(tool: Tool, tmp_path: Path) -> None:
    """Latencies of what still succeeded would flatter a store that refuses the rest."""
    out = tmp_path / "out"
    arguments = ("--k", "1", "--trials", "1", "--warmup", "0", "--duration", "3s", "--strict")
    with tool.started("sweep", *arguments, "--followers", "1", "--out", out) as process:
        timeline = wait_until(lambda: list(out.glob("*/*/trials/*/timeline-0.csv")), "load runs")
        wait_until(lambda: len(timeline[0].read_text().splitlines()) > 1, "a second has passed")
        leader_url = json.loads((run_folder(out) / "manifest.json").read_text())["leader_url"]
        link = f"{leader_url}/admin/links/follower1"
        httpx.post(link, json={"state": "down"}).raise_for_status()
        wait_until(lambda: len(timeline[0].read_text().splitlines()) > 2, "writes have failed")
        httpx.post(link, json={"state": "up"}).raise_for_status()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == UNKNOWN, output
    cell = cell_of(out)
    assert cell["stamp"] == "invalid"
    assert cell["errors"]["not_attempted"] > 0
    assert cell["samples"] > 0
    assert_not_quoted(out)
