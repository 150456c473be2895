"""Noise floors of real runs: calibrated, stopped, and used by a comparison."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cluster.nodes import wait_until
from tests.cluster.tool import Tool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.alone
def test_stopped_calibration_leaves_the_floor_of_its_runs(tmp_path: Path) -> None:
    """Ctrl-C in the third run: two make a floor, no process is left, and compare finds it."""
    tool, out = Tool(tmp_path), tmp_path / "out"
    runs = out / "calibration" / "writes"
    short = (
        "--trials",
        "1",
        "--k",
        "1",
        "--followers",
        "2",
        "--delay",
        "0:5",
        "--duration",
        "500ms",
    )
    with tool.started("calibrate", "--runs", "5", *short, "--out", out) as calibrate:
        wait_until(lambda: len(list(runs.glob("*/nodes/leader.log"))) == 3, "the third run", 60)
        calibrate.send_signal(signal.SIGINT)
        told, _ = calibrate.communicate(timeout=60)
    assert calibrate.returncode == 130, told
    tool.assert_nothing_left()
    floor = json.loads((out / "noise_floor.json").read_bytes())
    done = sorted(path.name for path in runs.iterdir())[:2]
    assert floor["runs"] == [f"writes/{name}" for name in done]
    assert floor["percent"]["1"]["mean"] > 0

    named = ("--noise", out / "noise_floor.json")
    compared = tool.run("compare", runs / done[0], runs / done[1], "--json", *named)
    assert compared.returncode == 0, compared.stderr
    found = json.loads(compared.stdout)
    assert found["differences"] == []
    assert "2 runs of" in found["notes"][0]
    # One trial a run: its figures are quoted, and not judged.
    assert "has one trial" in found["cells"][0]["figures"]["mean"]["reason"]
