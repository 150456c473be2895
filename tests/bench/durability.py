"""Part ``durability``: whether each write is synced before its answer, as the system sees it.

strace watches the leader and a follower that each write needs while one client writes. A sync
counts for a write if it began and ended between the write's request and its answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.table import Table

from tests.bench.servers import wait_until
from tests.bench.store import run_store
from tests.bench.workload import KEYS, puts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.part import Bench

FOLLOWERS = 2
WRITES = 200
SYNC_CALLS = ("fsync", "fdatasync", "msync", "sync_file_range", "pwritev2")
STOP_TIMEOUT_S = 10.0
# ``pid time call(…) = 0 <duration>``; a call that another thread's interrupts is on two lines.
_WHOLE = re.compile(r"^(\d+) +([\d.]+) (\w+)\((.*)\) += (-?\d+).*<([\d.]+)>$")
_BEGUN = re.compile(r"^(\d+) +([\d.]+) (\w+)\((.*) <unfinished \.\.\.>$")
_ENDED = re.compile(r"^(\d+) +[\d.]+ <\.\.\. (\w+) resumed>.*\) += (-?\d+).*<([\d.]+)>$")


@dataclass(frozen=True, slots=True)
class Interval:
    """From when to when, in seconds since 1970."""

    begin_s: float
    end_s: float


def measure_durability(bench: Bench) -> None:
    """Counts syncs of the leader and of a follower over some writes on one connection.

    Raises:
        SystemExit: A write was answered that was not synced on both.
    """
    with (
        bench.fresh_folder() as folder,
        run_store(folder, followers=FOLLOWERS, write_quorum=FOLLOWERS, is_durable=True) as cluster,
    ):
        leader, follower, *_ = cluster.nodes
        traces = {node.node_id: folder / f"{node.node_id}.strace" for node in (leader, follower)}
        with contextlib.ExitStack() as stack:
            for node in (leader, follower):
                stack.enter_context(_trace(node.process.pid, traces[node.node_id]))
            writes = _write(leader.url)
        syncs = {name: parse(path.read_text(encoding="utf-8")) for name, path in traces.items()}
    table = Table(title=f"{WRITES} writes on one connection, k = all {FOLLOWERS} followers")
    for column in ("node", "syncs", "writes with one before their answer"):
        table.add_column(column, justify="left" if column == "node" else "right")
    covered = {name: count_covered(writes, found) for name, found in syncs.items()}
    for name, found in syncs.items():
        table.add_row(name, str(len(found)), f"{covered[name]} of {WRITES}")
    bench.console.print(table)
    if min(covered.values()) < WRITES:
        raise SystemExit("A write was answered before it was on disk.")


def count_covered(writes: list[Interval], syncs: list[Interval]) -> int:
    """How many writes had a sync of their own time, begun and ended inside."""
    return sum(
        any(write.begin_s <= sync.begin_s and sync.end_s <= write.end_s for sync in syncs)
        for write in writes
    )


def parse(text: str) -> list[Interval]:
    """The successful syncs in what strace wrote with ``-f -ttt -T``."""
    begun: dict[tuple[str, str], tuple[float, str]] = {}
    found: list[Interval] = []
    for line in text.splitlines():
        if match := _BEGUN.match(line):
            thread, begin_s, call, arguments = match.groups()
            begun[thread, call] = (float(begin_s), arguments)
            continue
        if match := _ENDED.match(line):
            thread, call, result, duration_s = match.groups()
            begin, arguments = begun.pop((thread, call))
        elif match := _WHOLE.match(line):
            _, begin_s, call, arguments, result, duration_s = match.groups()
            begin = float(begin_s)
        else:
            continue
        if _is_sync(call, arguments) and int(result) >= 0:
            found.append(Interval(begin, begin + float(duration_s)))
    return found


def _is_sync(call: str, arguments: str) -> bool:
    if call == "msync":
        return "MS_SYNC" in arguments
    if call == "pwritev2":
        return "SYNC" in arguments  # RWF_SYNC or RWF_DSYNC
    # sync_file_range is shown by strace and promises nothing about the file's length or the disk.
    return call in {"fsync", "fdatasync"}


@contextlib.contextmanager
def _trace(pid: int, path: Path) -> Iterator[None]:
    command = ["strace", "-f", "-ttt", "-T", "-e", f"trace={','.join(SYNC_CALLS)}"]
    command += ["-e", "signal=none", "-o", str(path), "-p", str(pid)]
    log_path = path.with_suffix(".log")
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        wait_until(
            lambda: "attached" in log_path.read_text() or process.poll() is not None,
            lambda: f"strace did not attach to process {pid}.",
        )
        if process.poll() is not None:
            raise SystemExit(f"strace may not watch process {pid}:\n{log_path.read_text()}")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=STOP_TIMEOUT_S)


def _write(url: str) -> list[Interval]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    requests, found = puts(), []
    with contextlib.closing(connection):
        for number in range(WRITES):
            request = requests[number % KEYS]
            begin_s = time.time()
            connection.request(
                request.method, request.path, request.body, {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            body = json.load(answer)
            found.append(Interval(begin_s, time.time()))
            if answer.status != http.client.OK:
                raise SystemExit(f"{url} refused a write: {body}")
    return found
