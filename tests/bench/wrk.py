"""Runs Debian's wrk, a load generator in C, against one URL on this machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.turns import LoadResult

if TYPE_CHECKING:
    from collections.abc import Sequence

UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
SCRIPT = Path(__file__).with_name("requests.lua")


def run_wrk(url: str, requests: Path, *, connections: int, duration_s: int) -> LoadResult:
    """Sends the requests of a file in turn over some connections, back to back on each."""
    command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{duration_s}s"]
    output, cpu_s = run_timed([*command, "-s", str(SCRIPT), url, "--", str(requests)])
    return parse(output, cpu_s / duration_s)


def run_timed(command: Sequence[str]) -> tuple[str, float]:
    """What a command prints, and the processor time in seconds that it used.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            output = process.stdout.read() if process.stdout else ""
            # Popen's own wait() would drop what the process has used.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return output, usage.ru_utime + usage.ru_stime


def parse(output: str, cpu_share: float) -> LoadResult:
    """Reads wrk's report.

    Raises:
        ValueError: It is not one.
    """

    def find(pattern: str) -> re.Match[str]:
        match = re.search(pattern, output)
        if match is None:
            raise ValueError(f"wrk printed no {pattern!r}:\n{output}")
        return match

    def percentile_ms(percent: int) -> float:
        match = find(rf"\n +{percent}% +([\d.]+)(us|ms|s)\b")
        return float(match[1]) * UNITS_MS[match[2]]

    not_2xx = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    sockets = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output
    )
    answered = int(find(r"(\d+) requests in")[1])
    refused = int(not_2xx[1]) if not_2xx else 0
    # wrk's rate is that of all answers.
    success_share = (answered - refused) / answered if answered else 0.0
    return LoadResult(
        succeeded=answered - refused,
        failed=refused + (sum(map(int, sockets.groups())) if sockets else 0),
        rate_per_s=float(find(r"Requests/sec:\s+([\d.]+)")[1]) * success_share,
        p50_ms=percentile_ms(50),
        p99_ms=percentile_ms(99),
        cpu_share=cpu_share,
    )
