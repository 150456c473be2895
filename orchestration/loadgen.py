"""Runs Locust as a process of its own for one trial, watches it, and returns what it measured."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from orchestration.errors import QuorumeterError
from orchestration.load.results import (
    ResultsError,
    TimelineRow,
    TimelineTail,
    TrialResult,
    merged_row,
    read_trial,
    timeline_path,
)
from orchestration.load.schedule import CLIENT_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestration.load.schedule import LoadPlan

POLL_INTERVAL_S = 0.25
# Beyond the plan's own length: Locust's start, requests in flight at the end, its reports.
DEADLINE_SLACK_S = CLIENT_TIMEOUT_S + 20.0
TERMINATE_TIMEOUT_S = 3.0
LOG_FILE_NAME = "locust.log"
# Locust appends ".json".
LOCUST_STATS_NAME = "locust_stats"
_LAST_LOG_LINES = 12


class LoadgenError(QuorumeterError):
    """The load generator could not measure; the message holds its last log lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One Locust run.

    Attributes:
        scenario: name of a locustfile, without ".py".
        url: the leader's address.
        folder: where logs and results go; created, one per trial.
        plan: the load; it must have an end.
        users: closed-loop clients; an open loop needs one per process, whatever is given.
        processes: Locust processes that share the load; more than 1 not on Windows.
        environment: variables in addition to this process's own.
    """

    scenario: str
    url: str
    folder: Path
    plan: LoadPlan
    users: int = 1
    processes: int = 1
    environment: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.plan.has_end:
            msg = "a trial needs an end: give it a duration or a number of writes"
            raise ValueError(msg)
        if self.users < 1 or self.processes < 1:
            msg = "a trial needs at least one user and one process"
            raise ValueError(msg)
        if self.processes > 1 and os.name == "nt":
            msg = "Locust cannot fork on Windows; use one load process there"
            raise ValueError(msg)


def run_trial(
    trial: Trial, *, on_progress: Callable[[TimelineRow], None] | None = None
) -> TrialResult:
    """Runs one trial to its end; a LoadgenError says what went wrong.

    Args:
        trial: what to run.
        on_progress: called once per second of the trial, with all processes' rows as one.
    """
    return LoadGenerator(trial).run(on_progress=on_progress)


class LoadGenerator:
    """One Locust run that can be stopped from outside."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self, *, on_progress: Callable[[TimelineRow], None] | None = None) -> TrialResult:
        """Starts Locust and waits for its end; nothing of it is left running, come what may."""
        trial = self._trial
        _make_empty(trial.folder)
        progress = _Progress(trial, on_progress)
        with (trial.folder / LOG_FILE_NAME).open("wb") as log:
            self._process = _start(trial, log.fileno())
            try:
                self._wait(self._process, progress)
            finally:
                _end_tree(self._process)
        progress.report()
        return self._result(self._process.returncode)

    def stop(self) -> None:
        """Ends Locust early; `run` then returns what was measured, or raises LoadgenError."""
        self._is_stopped = True

    def _wait(self, process: subprocess.Popen[bytes], progress: _Progress) -> None:
        plan = self._trial.plan
        planned_s = plan.warmup_s + plan.duration_s if plan.duration_s else float("inf")
        deadline_s = time.monotonic() + planned_s + DEADLINE_SLACK_S
        while not self._is_stopped:
            try:
                process.wait(POLL_INTERVAL_S)
            except subprocess.TimeoutExpired:
                progress.report()
            else:
                return
            if time.monotonic() > deadline_s:
                _end_tree(process)
                msg = f"Locust did not end {DEADLINE_SLACK_S:g} s after its plan's end"
                raise LoadgenError(self._with_log(msg))

    def _result(self, exit_code: int) -> TrialResult:
        trial = self._trial
        try:
            result = read_trial(trial.folder, trial.processes)
        except ResultsError as error:
            msg = f"Locust ended with exit code {exit_code} and left no result ({error})"
            raise LoadgenError(self._with_log(msg)) from error
        if exit_code != 0 and not self._is_stopped:
            msg = f"Locust ended with exit code {exit_code}"
            raise LoadgenError(self._with_log(msg))
        if not self._is_stopped:
            self._audit(result)
        return result

    def _audit(self, result: TrialResult) -> None:
        """Holds the recorder's count against Locust's own, kept independently of it."""
        path = self._trial.folder / f"{LOCUST_STATS_NAME}.json"
        try:
            counted = sum(entry["num_requests"] for entry in json.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            msg = f"Locust left no count of its own to hold against the recorder's ({error})"
            raise LoadgenError(self._with_log(msg)) from error
        if counted != result.recorded:
            msg = f"Locust counted {counted} requests, but the recorder {result.recorded}"
            raise LoadgenError(self._with_log(msg))

    def _with_log(self, message: str) -> str:
        path = self._trial.folder / LOG_FILE_NAME
        with path.open(encoding="utf-8", errors="replace") as log:
            lines = "".join(deque(log, maxlen=_LAST_LOG_LINES))
        return f"{message}; see {path}. Its last lines:\n{lines}"


def locustfile_path(scenario: str) -> Path:
    """The file of a scenario, wherever the project is installed; LoadgenError names the others."""
    folder = Path(__file__).resolve().parent.parent / "locustfiles"
    path = folder / f"{scenario}.py"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.py")))
        msg = f"There is no scenario {scenario!r}; choose one of: {known}"
        raise LoadgenError(msg)
    return path


def command_line(trial: Trial) -> list[str]:
    """The command that runs a trial's Locust."""
    plan, folder = trial.plan, trial.folder.resolve()
    users = trial.processes if plan.is_open_loop else max(trial.users, trial.processes)
    quorum = "" if plan.write_quorum is None else str(plan.write_quorum)
    options: dict[str, object] = {
        "locustfile": locustfile_path(trial.scenario),
        "host": trial.url,
        "users": users,
        # All at once: ramping up is not part of the load.
        "spawn-rate": users,
        "exit-code-on-error": 0,
        "csv": folder / "locust",
        "html": folder / "locust.html",
        # Written at the very end; the CSV lacks what came in its last second.
        "json-file": folder / LOCUST_STATS_NAME,
        "results-dir": folder,
        "rate": plan.rate_per_s,
        "arrivals": plan.arrivals,
        "warmup": plan.warmup_s,
        "duration": plan.duration_s,
        "keys": plan.keys,
        "value-bytes": plan.value_bytes,
        "read-share": plan.read_share,
        "read-from": plan.read_from,
        "max-in-flight": plan.max_in_flight,
        "load-seed": plan.seed,
        "total-writes": plan.total_writes,
        "write-quorum": quorum,
    }
    if trial.processes > 1:
        port = _free_port()
        options |= {"processes": trial.processes, "master-bind-host": "127.0.0.1"}
        options |= {"master-bind-port": port, "master-port": port}
    return [
        *(sys.executable, "-m", "locust", "--headless", "--only-summary"),
        *(f"--{name}={value}" for name, value in options.items()),
    ]


def _make_empty(folder: Path) -> None:
    """Makes the folder, without results of an earlier run that could pass for this one's."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("process-*.json", "timeline-*.csv"):
        for path in folder.glob(pattern):
            path.unlink()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _start(trial: Trial, log_file: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own interpreter and options
        command_line(trial),
        stdin=subprocess.DEVNULL,
        stdout=log_file,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(trial.environment or {})},
        # In a group of its own: Ctrl-C in a terminal reaches the orchestrator, which decides.
        start_new_session=os.name != "nt",
        creationflags=_new_group_flag(),
    )


def _new_group_flag() -> int:
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP
    return 0


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its children, politely and then not; returns when all are gone."""
    try:
        root = psutil.Process(process.pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    for member in tree:
        _signal(member.terminate)
    _, alive = psutil.wait_procs(tree, timeout=TERMINATE_TIMEOUT_S)
    for member in alive:
        _signal(member.kill)
    psutil.wait_procs(alive, timeout=TERMINATE_TIMEOUT_S)
    process.wait()


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return


class _Progress:
    """Follows the processes' timelines and hands on each second once all have reported it."""

    def __init__(self, trial: Trial, on_progress: Callable[[TimelineRow], None] | None) -> None:
        self._on_progress = on_progress
        self._tails = [
            TimelineTail(timeline_path(trial.folder, index)) for index in range(trial.processes)
        ]
        self._pending: list[deque[TimelineRow]] = [deque() for _ in self._tails]

    def report(self) -> None:
        """Calls back for every second that is complete by now."""
        if self._on_progress is None:
            return
        for tail, pending in zip(self._tails, self._pending, strict=True):
            pending.extend(tail.new_rows())
        while all(self._pending):
            self._on_progress(merged_row([pending.popleft() for pending in self._pending]))
