"""Starts processes that outlive a terminal's Ctrl-C, and ends exactly those."""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec
import psutil

# From the polite request to the kill; together with the rest six nodes are gone within 2 s.
GRACE_S = 1.2
KILL_TIMEOUT_S = 5.0
POLL_S = 0.01
TAIL_LINES = 15
# Of which these lines are looked for; a log may be long.
TAIL_BYTES = 64 * 1024
# Field 22 of /proc/PID/stat, counted from the one after the command's name (proc_pid_stat(5)).
_START_TICKS_FIELD = 19

Child = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """Tells one process from all others, also after its pid has been given to another.

    Attributes:
        pid: its number.
        started: when it started, on a clock that nobody sets: the kernel's ticks since boot on
            Linux, elsewhere the milliseconds since 1970 that the kernel noted once.
    """

    pid: Annotated[int, msgspec.Meta(ge=1)]
    started: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pid means something.

    Attributes:
        host: name of the machine or container.
        boot: tells this start of the machine from others; empty where the system does not tell.
        pids: tells its containers' numbering of processes apart; empty like `boot`.
    """

    host: str
    boot: str
    pids: str


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    log_path: Path,
    cores: Sequence[int] = (),
    *,
    outlives: bool = False,
) -> Child:
    """Start ``command`` in a session of its own; all it prints goes to ``log_path``.

    It works in the log's folder: Python would import modules, and Locust read settings, from the
    one in which the user happens to be.

    Args:
        command: the program and its arguments.
        environment: all its variables.
        log_path: is appended to.
        cores: where it may run, with all that it starts; anywhere, if none are given.
        outlives: whether it is to go on when this process is killed. Otherwise it is terminated
            then, or when the thread ends that has started it, where the system can do that.
    """
    new_group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    with log_path.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603 - the project's own command, no shell
            [*(() if outlives else _ending_with_parent()), *command],
            env=dict(environment),
            cwd=log_path.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=sys.platform != "win32",
            creationflags=new_group,
        )
    if cores:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(child.pid).cpu_affinity(list(cores))
    return child


@cache
def _ending_with_parent() -> tuple[str, ...]:
    """What goes before a command that is to end with its parent, however that ends.

    Empty where there is no such program, or, as in Busybox, one that lacks this.
    """
    program = shutil.which("setpriv") if sys.platform == "linux" else None
    if program is None:
        return ()
    command = (program, "--pdeathsig", "TERM")
    tried = subprocess.run([*command, program, "--version"], check=False, capture_output=True)  # noqa: S603 - as above
    return () if tried.returncode else command


def mark(pid: int) -> ProcessMark:
    """The mark of a process that has just been started."""
    return ProcessMark(pid=pid, started=_started(pid))


def here() -> Place:
    """Where this process runs."""
    boot = pids = ""
    if sys.platform == "linux":
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        with suppress(OSError):
            pids = str(Path("/proc/self/ns/pid").readlink())
    return Place(host=platform.node(), boot=boot, pids=pids)


def find(wanted: ProcessMark) -> psutil.Process | None:
    """The process with this mark; None if there is none here.

    Raises:
        psutil.AccessDenied: The system does not tell.
    """
    try:
        process = psutil.Process(wanted.pid)
        is_same = _started(wanted.pid) == wanted.started
    except psutil.NoSuchProcess:
        return None
    return process if is_same and _is_alive(process) else None


def has_variable(process: psutil.Process, name: str, value: str) -> bool:
    """Tells if a process was started with this environment variable.

    Raises:
        psutil.AccessDenied: The system does not tell.
    """
    try:
        found: object = process.environ().get(name)
    except psutil.NoSuchProcess:
        return False
    return found == value


def stop(marks: Sequence[ProcessMark]) -> tuple[ProcessMark, ...]:
    """End the processes with these marks, politely first; those that run all the same."""
    running = {wanted: process for wanted in marks if (process := _found(wanted)) is not None}
    for process in running.values():
        _ask(process.terminate)
    remaining = _wait(list(running.values()), GRACE_S)
    for process in remaining:
        _ask(process.kill)
    left = _wait(remaining, KILL_TIMEOUT_S)
    return tuple(wanted for wanted, process in running.items() if process in left)


def _started(pid: int) -> int:
    if sys.platform != "linux":
        return round(1_000 * psutil.Process(pid).create_time())
    # psutil computes it from the clock, which may be set at any time.
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except PermissionError:
        raise psutil.AccessDenied(pid) from None
    except OSError:
        raise psutil.NoSuchProcess(pid) from None
    # The command's name may itself hold brackets and spaces.
    return int(stat.rpartition(b")")[2].split()[_START_TICKS_FIELD])


def _found(wanted: ProcessMark) -> psutil.Process | None:
    """The process of a mark that was made here, so that one which is hidden is another's."""
    try:
        return find(wanted)
    except psutil.AccessDenied:
        return None


@contextmanager
def no_child_left() -> Iterator[None]:
    """Ends every process that was started inside and still runs at the end.

    For the moment between a process's start and the noting of its pid, in which a stop signal
    may arrive.
    """
    before = set(_children())
    try:
        yield
    finally:
        stop([child for child in _children() if child not in before])


def _children() -> list[ProcessMark]:
    found: list[ProcessMark] = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found.append(mark(child.pid))
    return found


def tail(log_path: Path, start: int = 0) -> str:
    """The last lines of a log from a byte on, or a remark that there are none."""
    try:
        with log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(start, size - TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join(lines[-TAIL_LINES:]) or "(it printed nothing)"


def _wait(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    deadline_s = time.monotonic() + timeout_s
    remaining = [process for process in processes if _is_alive(process)]
    while remaining and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
        remaining = [process for process in remaining if _is_alive(process)]
    return remaining


def _is_alive(process: psutil.Process) -> bool:
    # A process whose parent does not collect it stays a zombie, and ended all the same.
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _ask(request: Callable[[], None]) -> None:
    with suppress(psutil.Error):
        request()
