"""Charts are drawn by the project's settings alone, whatever matplotlib was told elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

from orchestration.report.write import write_report
from tests.orchestration.report import simulated


def test_a_users_style_changes_no_chart(tmp_path: Path) -> None:
    """The PNG is the same, byte for byte, with another background, font and grid."""
    run_dir = simulated.write_run(tmp_path, simulated.sweep([0, 3], trials=2))
    write_report(run_dir)
    names = ("quorum_vs_latency.png", "percentile_spectrum.png")
    before = [(run_dir / name).read_bytes() for name in names]
    theirs = {
        "savefig.facecolor": "black",
        "savefig.bbox": "tight",
        "lines.linewidth": 9,
        "font.size": 4,
        "axes.grid": False,
        "savefig.dpi": 10,
    }
    with mpl.rc_context(theirs):
        write_report(run_dir)
    assert [(run_dir / name).read_bytes() for name in names] == before


@pytest.mark.parametrize(
    "code",
    [
        "from orchestration.report import drawing, quorum_chart, spectrum_chart, saturation_chart",
        "from orchestration.report import drawing; drawing.to_png(drawing.new_figure())",
    ],
)
def test_neither_a_backend_nor_a_broken_settings_file_keeps_charts_from_being_drawn(
    tmp_path: Path, code: str
) -> None:
    """A shell in a notebook names a backend that is not installed; a file may be no text."""
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe\x00 no text")
    theirs = {"MPLBACKEND": "module://no_such.backend", "PYTHONPATH": str(Path.cwd())}
    code += "; import os; assert os.environ['MPLBACKEND'] == 'module://no_such.backend'"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **theirs},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
