"""Runs Debian's wrk, a load generator in C, against one URL on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
SCRIPT = Path(__file__).with_name("put.lua")


@dataclass(frozen=True, slots=True)
class WrkResult:
    """What wrk saw of one run.

    Attributes:
        answered: Answers, of any status.
        failed: Those that were not 2xx, and socket errors.
        rate_per_s: Answers per second.
        p50_ms: Median latency.
    """

    answered: int
    failed: int
    rate_per_s: float
    p50_ms: float


def require_wrk() -> None:
    """Ends the bench with a sentence if wrk is not there."""
    if shutil.which("wrk") is None:
        raise SystemExit("The bench needs wrk: install it, on Debian with apt-get install wrk.")


def run_wrk(url: str, *, connections: int, duration_s: int) -> WrkResult:
    """PUTs a thousand keys in turn over some connections, back to back."""
    command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{duration_s}s", "-s", SCRIPT, url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return parse(output)


def parse(output: str) -> WrkResult:
    """Reads wrk's report.

    Raises:
        ValueError: It is not one.
    """

    def find(pattern: str) -> re.Match[str]:
        match = re.search(pattern, output)
        if match is None:
            raise ValueError(f"wrk printed no {pattern!r}:\n{output}")
        return match

    not_2xx = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", output)
    p50 = find(r"50%\s+([\d.]+)(us|ms|s)")
    return WrkResult(
        answered=int(find(r"(\d+) requests in")[1]),
        failed=(int(not_2xx[1]) if not_2xx else 0)
        + (sum(map(int, sockets.groups())) if sockets else 0),
        rate_per_s=float(find(r"Requests/sec:\s+([\d.]+)")[1]),
        p50_ms=float(p50[1]) * UNITS_MS[p50[2]],
    )
