"""Part ``delays``: the mean response time under injected delays, next to what theory expects."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from tests.bench.part import Bench

FOLLOWERS = 5
RATE_PER_S = 100
DURATION_S = 12
RANGES_MS = ((0, 100), (0, 1000))
TOLERANCE_MS = 2.0
SIGMAS = 3.0


def measure_delays(bench: Bench) -> None:
    """Sweeps k from 1 to n at two ranges of delays, and holds each mean against theory."""
    for low, high in RANGES_MS:
        table = Table(title=f"Open loop at {RATE_PER_S}/s, delays {low}:{high} ms")
        for column in ("k", "samples", "mean ms", "theory ms", "residual ms", "sampling error ms"):
            table.add_column(column, justify="right")
        cells = sweep(low, high)
        for cell in cells:
            table.add_row(*_row(cell, high - low))
        bench.console.print(table)
        for cell in cells:
            if cell["response_ms"]["mean"] is None:
                bench.console.print(f"k={cell['k']} is {cell['stamp']}: {cell['reason']}")


def _row(cell: dict[str, Any], spread_ms: float) -> list[str]:
    """A line of the table; a cell that may not be quoted shows its stamp in place of figures."""
    k, samples = cell["k"], cell["samples"]
    mean, theory = cell["response_ms"]["mean"], cell["theory_ms"]["mean"]
    if mean is None:
        return [str(k), str(samples), cell["stamp"], f"{theory:.2f}", "", ""]
    error = standard_error_ms(spread_ms, k, samples)
    is_inside = abs(mean - theory) <= TOLERANCE_MS + SIGMAS * error
    residual = f"{mean - theory:+.2f}{'' if is_inside else ' (!)'}"
    return [str(k), str(samples), f"{mean:.2f}", f"{theory:.2f}", residual, f"{error:.2f}"]


def sweep(low: int, high: int) -> list[dict[str, Any]]:
    """The cells of one sweep, run as a user runs it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "orchestration", "sweep", "--json", "--quiet"]
        command += ["--k", f"1-{FOLLOWERS}", "--trials", "1", "--warmup", "1"]
        command += ["--rate", str(RATE_PER_S), "--duration", str(DURATION_S)]
        command += ["--delay", f"{low}:{high}", "--out", str(Path(folder))]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cells: list[dict[str, Any]] = json.loads(output)["cells"]
    return cells


def standard_error_ms(spread_ms: float, k: int, samples: int) -> float:
    """Of the mean of some draws of the k-th of n uniform delays.

    The k-th order statistic of n uniform draws is Beta(k, n+1-k), with variance
    k (n+1-k) / ((n+1)^2 (n+2)).
    """
    n = FOLLOWERS
    variance = k * (n + 1 - k) / ((n + 1) ** 2 * (n + 2))
    return spread_ms * math.sqrt(variance / samples)
