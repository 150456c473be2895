"""Starts processes that outlive a terminal's Ctrl-C, and ends exactly those."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# From the polite request to the kill; together with the rest six nodes are gone within 2 s.
GRACE_S = 1.2
KILL_TIMEOUT_S = 5.0
POLL_S = 0.01
# Creation times are computed from the clock, which may have been set a little since.
SAME_PROCESS_S = 1.0
TAIL_LINES = 15

Child = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """Tells one process from all others, also after its pid has been given to another.

    ``create_time`` is in seconds since 1970, as psutil tells it.
    """

    pid: int
    create_time: float


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    log_path: Path,
    cores: Sequence[int] = (),
) -> Child:
    """Start ``command`` in a session of its own; all it prints goes to ``log_path``.

    Args:
        command: the program and its arguments.
        environment: all its variables.
        log_path: is appended to.
        cores: where it may run, with all that it starts; anywhere, if none are given.
    """
    new_group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    with log_path.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603 - the project's own command, no shell
            list(command),
            env=dict(environment),
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


def mark(pid: int) -> ProcessMark:
    """The mark of a process that has just been started."""
    return ProcessMark(pid=pid, create_time=psutil.Process(pid).create_time())


def find(wanted: ProcessMark) -> psutil.Process | None:
    """The process with this mark, or None once it has ended."""
    try:
        process = psutil.Process(wanted.pid)
        is_same = abs(process.create_time() - wanted.create_time) <= SAME_PROCESS_S
    except psutil.NoSuchProcess:
        return None
    return process if is_same and _is_alive(process) else None


def stop(marks: Sequence[ProcessMark]) -> int:
    """End the processes with these marks, politely first; how many of them still ran."""
    running = [process for wanted in marks if (process := find(wanted)) is not None]
    for process in running:
        _ask(process.terminate)
    remaining = _wait(running, GRACE_S)
    for process in remaining:
        _ask(process.kill)
    _wait(remaining, KILL_TIMEOUT_S)
    return len(running)


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
        with suppress(psutil.NoSuchProcess):
            found.append(ProcessMark(pid=child.pid, create_time=child.create_time()))
    return found


def tail(log_path: Path) -> str:
    """The last lines of a log, or a remark that there are none."""
    try:
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
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
    with suppress(psutil.NoSuchProcess):
        request()
