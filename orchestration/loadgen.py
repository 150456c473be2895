"""Runs Locust as a process of its own for one trial, watches it, and returns what it measured."""

from __future__ import annotations

import json
import math
import os
import signal
import site
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from orchestration.clusters import processes
from orchestration.errors import QuorumeterError
from orchestration.load.plan import CLIENT_TIMEOUT_S
from orchestration.load.results import (
    ResultsError,
    TimelineRow,
    TimelineTail,
    TrialResult,
    merged_row,
    read_trial,
    timeline_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestration.load.plan import LoadPlan

POLL_INTERVAL_S = 0.25
# Beyond the plan's own length: Locust's start, requests in flight at the end, its reports.
DEADLINE_SLACK_S = CLIENT_TIMEOUT_S + 20.0
TERMINATE_TIMEOUT_S = 3.0
# The scenarios that write all keys before their load begins, and the slowest that this may be.
SCENARIOS_WITH_RECORDS = ("ycsb",)
SLOW_LOADING_KEYS_PER_S = 200.0
SLOW_LOADING_BYTES_PER_S = 1024 * 1024.0
LOG_FILE_NAME = "locust.log"
# What each load process leaves once it has ended its share.
RESULT_PATTERN = "process-*.json"
# Locust appends ".json".
LOCUST_STATS_NAME = "locust_stats"


class LoadgenError(QuorumeterError):
    """The load generator could not measure.

    Args:
        reason: why, a clause that stands by itself.
        log_path: whose last lines the message adds, if there is one.
    """

    def __init__(self, reason: str, log_path: Path | None = None) -> None:
        tail = "."
        if log_path is not None:
            tail = f"; see {log_path}. Its last lines:\n{processes.tail(log_path)}"
        super().__init__(f"{reason}{tail}")
        self.reason = reason


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
        cores: where Locust may run; anywhere, if none are given.
        has_html: whether Locust writes its own page as well, about 1 MB.
    """

    scenario: str
    url: str
    folder: Path
    plan: LoadPlan
    users: int = 1
    processes: int = 1
    environment: Mapping[str, str] | None = None
    cores: tuple[int, ...] = ()
    has_html: bool = False

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

    @property
    def longest_s(self) -> float:
        """After so many seconds the run has ended, or something is wrong."""
        plan = self.plan
        if plan.duration_s > 0:
            planned_s = plan.warmup_s + plan.duration_s
        elif plan.is_open_loop:
            planned_s = plan.total_writes / plan.rate_per_s
        else:
            # At worst every request runs into the client's timeout.
            planned_s = math.ceil(plan.total_writes / self.users) * CLIENT_TIMEOUT_S
        return planned_s + self._loading_s + DEADLINE_SLACK_S

    @property
    def _loading_s(self) -> float:
        if self.scenario not in SCENARIOS_WITH_RECORDS:
            return 0.0
        keys, value_bytes = self.plan.keys, self.plan.value_bytes[1]
        return max(keys / SLOW_LOADING_KEYS_PER_S, keys * value_bytes / SLOW_LOADING_BYTES_PER_S)


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
        self._is_stopped = False

    def run(self, *, on_progress: Callable[[TimelineRow], None] | None = None) -> TrialResult:
        """Starts Locust and waits for its end; nothing of it is left running, come what may."""
        trial = self._trial
        _make_empty(trial.folder)
        progress = _Progress(trial, on_progress)
        variables = locust_environment(trial.folder) | dict(trial.environment or {})
        locust = processes.spawn(
            command_line(trial), variables, trial.folder / LOG_FILE_NAME, trial.cores
        )
        family = _Family(locust)
        try:
            self._wait(locust, family, progress)
        finally:
            family.end()
        progress.report()
        return self._result(locust)

    def stop(self) -> None:
        """Ends Locust early; `run` then returns what was measured, or raises LoadgenError."""
        self._is_stopped = True

    def _wait(self, locust: processes.Child, family: _Family, progress: _Progress) -> None:
        deadline_s = time.monotonic() + self._trial.longest_s
        while not self._is_stopped:
            try:
                locust.wait(POLL_INTERVAL_S)
            except subprocess.TimeoutExpired:
                if self._trial.processes > 1:
                    self._look_for_lost(family)
                progress.report()
            else:
                return
            if time.monotonic() > deadline_s:
                family.end()
                msg = f"Locust was ended: it took longer than {self._trial.longest_s:g} s"
                raise LoadgenError(msg, self._log_path)

    def _look_for_lost(self, family: _Family) -> None:
        """Locust itself would wait for a process that was killed until the trial's deadline."""
        family.look()
        ended = family.ended_children()
        if len(ended) > len(list(self._trial.folder.glob(RESULT_PATTERN))):
            family.end()
            pids = ", ".join(map(str, ended))
            msg = (
                f"A load process (of those that ended: {pids}) left no result, as one that is "
                "killed does: was memory short?"
            )
            raise LoadgenError(msg, self._log_path)

    def _result(self, locust: processes.Child) -> TrialResult:
        trial = self._trial
        ended = how_ended(locust.pid, locust.returncode)
        try:
            result = read_trial(trial.folder, trial.processes)
        except ResultsError as error:
            raise LoadgenError(f"{ended} and left no result ({error})", self._log_path) from error
        if locust.returncode != 0 and not self._is_stopped:
            raise LoadgenError(ended, self._log_path)
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
            raise LoadgenError(msg, self._log_path) from error
        if counted != result.recorded:
            msg = f"Locust counted {counted} requests, but the recorder {result.recorded}"
            raise LoadgenError(msg, self._log_path)

    @property
    def _log_path(self) -> Path:
        return self._trial.folder / LOG_FILE_NAME


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
        # Written at the very end; the CSV lacks what came in its last second.
        "json-file": folder / LOCUST_STATS_NAME,
        "results-dir": folder,
        "rate": plan.rate_per_s,
        "arrivals": plan.arrivals,
        "warmup": plan.warmup_s,
        "duration": plan.duration_s,
        "keys": plan.keys,
        "key-choice": plan.key_choice,
        "value-bytes": "{}:{}".format(*plan.value_bytes),
        "mix": plan.mix,
        "read-share": plan.read_share,
        "read-from": plan.read_from,
        "max-in-flight": plan.max_in_flight,
        "load-seed": plan.seed,
        "trial": plan.trial,
        "total-writes": plan.total_writes,
        "write-quorum": quorum,
    }
    if trial.has_html:
        options["html"] = folder / "locust.html"
    if trial.processes > 1:
        port = _free_port()
        options |= {"processes": trial.processes, "master-bind-host": "127.0.0.1"}
        options |= {"master-bind-port": port, "master-port": port}
    return [
        *(sys.executable, "-m", "locust", "--headless", "--only-summary"),
        *(f"--{name}={value}" for name, value in options.items()),
    ]


def locust_environment(folder: Path) -> dict[str, str]:
    """What Locust inherits: its options decide what it does, and nothing of the surroundings.

    It would read variables of its own, and ``~/.locust.conf`` beside the files of its working
    folder, so that it gets a home without one. Packages of the user's real home stay importable.
    """
    home = str(folder.resolve())
    inherited = {
        name: value for name, value in os.environ.items() if not name.upper().startswith("LOCUST_")
    }
    user_base = {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
    return inherited | user_base | {"HOME": home, "USERPROFILE": home}


def how_ended(pid: int, exit_code: int) -> str:
    """A clause on how Locust ended; a process that was killed has the signal's negative number."""
    if exit_code >= 0:
        return f"Locust ended with exit code {exit_code}"
    with suppress(ValueError):
        killed = f"Locust (process {pid}) was ended by {signal.Signals(-exit_code).name}"
        is_kill = -exit_code == getattr(signal, "SIGKILL", None)
        return f"{killed}, as a system does that is short of memory" if is_kill else killed
    return f"Locust (process {pid}) was ended by signal {-exit_code}"


def _make_empty(folder: Path) -> None:
    """Makes the folder, without results of an earlier run that could pass for this one's."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in (RESULT_PATTERN, "timeline-*.csv", "locust*"):
        for path in folder.glob(pattern):
            path.unlink()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


class _Family:
    """Locust and the processes that it has forked."""

    def __init__(self, locust: processes.Child) -> None:
        self._locust = locust
        self._parent = processes.mark(locust.pid)
        self._children: set[processes.ProcessMark] = set()
        # Those of the children that carry load: what is a helper for a moment is no longer there.
        self._workers: set[processes.ProcessMark] = set()

    def look(self) -> None:
        """Notes the children while their parent still knows them."""
        with suppress(psutil.Error):
            for child in psutil.Process(self._locust.pid).children(recursive=True):
                mark = processes.mark(child.pid)
                if mark in self._children:
                    self._workers.add(mark)
                self._children.add(mark)

    def ended_children(self) -> list[int]:
        """The pids of those load processes that have ended."""
        return sorted(mark.pid for mark in self._workers if processes.find(mark) is None)

    def end(self) -> None:
        """Ends all of them, with time to write results; returns when none is left."""
        if self._locust.poll() is None:
            self.look()
            self._locust.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._locust.wait(TERMINATE_TIMEOUT_S)
        processes.stop([self._parent, *self._children])
        self._locust.wait()


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
