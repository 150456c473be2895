"""A sweep whose cluster is the one of docker-compose.yml."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cluster.tool import Tool, assert_told, run_folder
from tests.compose.engine import docker

if TYPE_CHECKING:
    from pathlib import Path


def test_sweep_runs_on_compose_and_removes_it(tmp_path: Path) -> None:
    """`quorumeter sweep --engine compose` builds, measures, reports and leaves no container."""
    tool = Tool(tmp_path)
    before = docker("ps", "-aq")
    done = tool.run("sweep", "--engine", "compose", "--k", "0,3", "--trials", "1", "--duration",
                    "2s", "--out", tmp_path / "out")  # fmt: skip
    assert_told(done.returncode, tmp_path / "out")
    summary = json.loads((run_folder(tmp_path / "out") / "summary.json").read_text())
    assert summary["engine"] == "compose"
    cells = summary["cells"]
    assert [(cell["k"], cell["errors"], cell["parity"]) for cell in cells] == [
        (0, {}, "match"),
        (3, {}, "match"),
    ]
    assert all(cell["samples"] > 0 for cell in cells)
    assert docker("ps", "-aq") == before
    tool.assert_nothing_left()
