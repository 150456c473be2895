"""Part ``theory``: response times under injected delays, held against order statistics.

Chance alone takes any figure out of its band in one run of a hundred. What is beyond a band has to
be the system's own cost: no more than a write takes that waits for nobody, and a little for the way
to the followers and back. No figure may be below its band: then writes were answered too early.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

from rich.table import Table

from orchestration.analysis.bands import CONFIDENCE, STATISTICS, Cell, curve_band, hold_against
from orchestration.analysis.fifo import FifoQuorumWait
from orchestration.analysis.histograms import NS_PER_MS, decode, percentiles_ns
from orchestration.analysis.theory import QuorumWait
from orchestration.report.records import read_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestration.analysis.bands import Finding
    from orchestration.report.records import TrialRow
    from tests.bench.part import Bench

FOLLOWERS = 5
DELAY_MS = (0.0, 100.0)
RATE_PER_S = 100
DURATION_S = 20
MODELS = ("independent", "fifo")
# What replication may cost beside what a write costs that waits for nobody.
REPLICATION_MS = 2.0
LEVELS = tuple(float(level) for level in range(1, 100))


def measure_theory(bench: Bench) -> None:
    """Sweeps every k over both kinds of links, and holds all figures against their bands."""
    for model in MODELS:
        seed = secrets.randbits(32)
        with bench.fresh_folder() as folder:
            rows = sweep(model, folder, seed)
        title = f"{model} links, delays {DELAY_MS[0]:g}:{DELAY_MS[1]:g} ms, "
        bench.console.print(f"{title}{RATE_PER_S}/s, seed {seed}")
        if unsound := [row for row in rows if row.stamp != "ok"]:
            for row in unsound:
                bench.console.print(f"k={row.k} is {row.stamp}: {row.reason}")
            bench.console.print(f"{model}: nothing is known of the others beside them.")
            continue
        judge(bench, model, rows)


def sweep(model: str, folder: Path, seed: int) -> Sequence[TrialRow]:
    """One trial of each k from 0 on, run as a user runs it; by k."""
    low_ms, high_ms = DELAY_MS
    command = [sys.executable, "-m", "orchestration", "sweep", "--json", "--quiet"]
    command += ["--followers", str(FOLLOWERS), "--delay", f"{low_ms:g}:{high_ms:g}"]
    command += ["--delay-model", model, "--seed", str(seed)]
    command += ["--trials", "1", "--warmup", "1", "--duration", str(DURATION_S)]
    command += ["--rate", str(RATE_PER_S), "--out", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if not done.stdout or json.loads(done.stdout)["status"] != "complete":
        raise SystemExit(f"The sweep ended with {done.returncode}: {done.stderr}")
    return sorted(read_run(folder / "latest").rows, key=lambda row: row.k)


def judge(bench: Bench, model: str, rows: Sequence[TrialRow]) -> None:
    """Prints each figure with its band and residual, and whether all of them are explained."""
    base, *others = rows
    cells = [Cell(wait_of(model, row.k), row.writes, figures_of(row)) for row in others]
    findings = hold_against(cells)
    # Beside k=0, which waits for no link.
    allowed_ms = {name: figures_of(base)[name] + REPLICATION_MS for name in STATISTICS}
    table = Table(title=f"ms over {DURATION_S} s; bands hold all at once with {CONFIDENCE:.0%}")
    for column in ("k", "figure", "measured", "theory", "residual", "band", "beyond", "allowed"):
        table.add_column(column, justify="right")
    for finding in findings:
        table.add_row(*texts_of(finding, allowed_ms[finding.statistic]))
    bench.console.print(table)
    for row in others:
        bench.console.print(curve_line(model, row, len(others)))
    explained = sum(finding.is_explained(allowed_ms[finding.statistic]) for finding in findings)
    verdict = "[green]reached[/]" if explained == len(findings) else "[red]missed[/]"
    bench.console.print(
        f"{model}: chance and cost explain {explained} of {len(findings)} figures: {verdict}."
    )


def wait_of(model: str, k: int) -> QuorumWait:
    """The model of the wait for k acknowledgments."""
    if model == "fifo":
        return FifoQuorumWait(FOLLOWERS, k, *DELAY_MS, 1_000 / RATE_PER_S)
    return QuorumWait(FOLLOWERS, k, *DELAY_MS)


def figures_of(row: TrialRow) -> dict[str, float]:
    """The response times of a trial that is ok, in ms."""
    return {name: getattr(row.response_ms, name) or 0.0 for name in STATISTICS}


def texts_of(finding: Finding, allowed_ms: float) -> list[str]:
    """A line of the table; one that is not explained is marked."""
    mark = "" if finding.is_explained(allowed_ms) else " (!)"
    return [
        str(finding.write_quorum),
        finding.statistic,
        f"{finding.measured_ms:.2f}",
        f"{finding.theory_ms:.2f}",
        f"{finding.residual_ms:+.2f}",
        f"{finding.low_ms:.2f} to {finding.high_ms:.2f}",
        f"{finding.excess_ms:+.2f}{mark}" if finding.excess_ms else "0",
        f"{allowed_ms:.2f}",
    ]


def curve_line(model: str, row: TrialRow, curves: int) -> str:
    """How far the percentiles from 1 to 99 are beyond their common band, at most."""
    histogram = decode(row.operations["write"].histograms["response"])
    found_ms = [value / NS_PER_MS for value in percentiles_ns(histogram, LEVELS)]
    confidence = 1.0 - (1.0 - CONFIDENCE) / curves
    bands_ms = curve_band(wait_of(model, row.k), row.writes, LEVELS, confidence)
    above = max(found - high for found, (_, high) in zip(found_ms, bands_ms, strict=True))
    below = max(low - found for found, (low, _) in zip(found_ms, bands_ms, strict=True))
    return (
        f"k={row.k}: the curve from p1 to p99 is at most {max(0.0, above):.2f} ms above its band "
        f"and {max(0.0, below):.2f} ms below it."
    )
