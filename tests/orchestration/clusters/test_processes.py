"""Processes are told apart and ended exactly."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestration.clusters import processes

SLEEP = [sys.executable, "-c", "print('here', flush=True); import time; time.sleep(60)"]


def test_a_process_is_ended_once_and_then_gone(tmp_path: Path) -> None:
    """Stopping leaves nothing that runs, and stopping again is no error."""
    child = processes.spawn(SLEEP, os.environ, tmp_path / "log")
    mark = processes.mark(child.pid)
    assert processes.find(mark) is not None
    assert processes.stop([mark]) == ()
    assert processes.find(mark) is None
    assert processes.stop([mark]) == ()
    child.wait()


def test_a_stranger_with_a_known_pid_is_left_alone() -> None:
    """A pid that was given to another process since is not ours."""
    own = processes.mark(os.getpid())
    assert processes.find(own) is not None
    assert processes.find(replace(own, started=own.started - 1)) is None
    assert processes.stop([replace(own, started=own.started - 1)]) == ()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel notes the time once")
def test_a_process_is_known_after_the_clock_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Psutil reckons creation times from the clock: a step of it must not orphan anything."""
    child = processes.spawn(SLEEP, os.environ, tmp_path / "log")
    mark = processes.mark(child.pid)
    boot_s = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_s + 2)
    assert processes.find(mark) is not None
    assert processes.stop([mark]) == ()
    assert child.wait(timeout=5) is not None


def test_a_process_that_may_not_be_ended_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of another user, it is left, and named instead of a traceback."""
    child = processes.spawn(SLEEP, os.environ, tmp_path / "log")
    mark = processes.mark(child.pid)

    def refuse(self: psutil.Process) -> None:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(processes, "GRACE_S", 0.0)
    monkeypatch.setattr(processes, "KILL_TIMEOUT_S", 0.0)
    monkeypatch.setattr(psutil.Process, "terminate", refuse)
    monkeypatch.setattr(psutil.Process, "kill", refuse)
    assert processes.stop([mark]) == (mark,)
    monkeypatch.undo()
    assert processes.stop([mark]) == ()
    child.wait()


@pytest.mark.skipif(not processes._ending_with_parent(), reason="setpriv is not here")
@pytest.mark.parametrize("outlives", [False, True])
def test_a_process_ends_with_a_parent_that_is_killed(tmp_path: Path, *, outlives: bool) -> None:
    """No clean-up runs in a killed tool; only what `up` keeps is to go on."""
    program = (
        "import os, sys, time; from pathlib import Path\n"
        "from orchestration.clusters import processes\n"
        f"child = processes.spawn({SLEEP!r}, os.environ, Path({str(tmp_path / 'log')!r}), "
        f"outlives={outlives})\n"
        "mark = processes.mark(child.pid); print(mark.pid, mark.started, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, started = map(int, parent.stdout.readline().split())
        while not (tmp_path / "log").read_text():
            time.sleep(0.01)  # it runs by then
        parent.kill()
    mark = processes.ProcessMark(pid, started)
    deadline_s = time.monotonic() + (0.3 if outlives else 10)
    while processes.find(mark) is not None and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert (processes.find(mark) is not None) is outlives
    assert processes.stop([mark]) == ()


def test_a_process_does_not_import_from_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's json.py must not take the place of the module that the process wants."""
    mine, ours = tmp_path / "mine", tmp_path / "ours"
    mine.mkdir()
    ours.mkdir()
    (mine / "json.py").write_text("print('mine')\n")
    monkeypatch.chdir(mine)
    child = processes.spawn(
        [sys.executable, "-c", "import json; print(json.__name__)"], os.environ, ours / "log"
    )
    assert child.wait(timeout=10) == 0
    assert (ours / "log").read_text() == "json\n"


def test_children_of_a_block_do_not_survive_it(tmp_path: Path) -> None:
    """Also when an exception ends the block."""
    started: list[processes.Child] = []

    def start_and_fail() -> None:
        with processes.no_child_left():
            started.append(processes.spawn(SLEEP, os.environ, tmp_path / "log"))
            raise KeyError("anything")

    with pytest.raises(KeyError):
        start_and_fail()
    [child] = started
    assert child.wait(timeout=5) is not None


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    """Long logs are cut, empty and missing ones say so."""
    log = tmp_path / "log"
    log.write_text("\n".join(str(i) for i in range(100)))
    assert processes.tail(log).splitlines() == [str(i) for i in range(85, 100)]
    assert processes.tail(log, len("0\n" * 10 + "10\n" * 88)).splitlines() == ["98", "99"]
    assert processes.tail(tmp_path / "none") == "(it printed nothing)"


def test_a_log_of_one_long_line_is_read_from_its_end(tmp_path: Path) -> None:
    """A log may be larger than memory: only its last part is looked at."""
    log = tmp_path / "log"
    log.write_text("x" * 200_000 + "end")
    assert processes.tail(log) == "x" * (64 * 1024 - 3) + "end"


def test_all_that_a_process_prints_is_added_to_its_log(tmp_path: Path) -> None:
    """What it was told of by the start before is still there, and nothing waits for a terminal."""
    log = tmp_path / "log"
    log.write_text("before\n")
    program = "import sys; print('out', flush=True); print(repr(sys.stdin.read()), file=sys.stderr)"
    child = processes.spawn([sys.executable, "-c", program], os.environ, log)
    assert child.wait(timeout=10) == 0
    assert log.read_text() == "before\nout\n''\n"


@pytest.mark.skipif(sys.platform == "win32", reason="sessions are POSIX")
def test_a_process_has_a_session_of_its_own(tmp_path: Path) -> None:
    """A terminal's Ctrl-C is for the tool, which then ends its processes in order."""
    child = processes.spawn(SLEEP, os.environ, tmp_path / "log")
    try:
        assert os.getsid(child.pid) == child.pid
    finally:
        assert processes.stop([processes.mark(child.pid)]) == ()
        child.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="cores are told to Linux only")
def test_a_process_runs_where_it_is_told_to(tmp_path: Path) -> None:
    """Cores that are kept for the nodes are not shared with the load generator."""
    own = sorted(os.sched_getaffinity(0))
    for cores, expected in (((), own), ((own[-1],), [own[-1]])):
        child = processes.spawn(SLEEP, os.environ, tmp_path / "log", cores)
        try:
            assert sorted(os.sched_getaffinity(child.pid)) == expected
        finally:
            assert processes.stop([processes.mark(child.pid)]) == ()
            child.wait()


def test_a_process_is_known_by_a_variable_of_its_own(tmp_path: Path) -> None:
    """One that was started with another value is somebody else's."""
    child = processes.spawn(SLEEP, {**os.environ, "NONCE": "a"}, tmp_path / "log")
    mark = processes.mark(child.pid)
    found = processes.find(mark)
    assert found is not None
    while not (tmp_path / "log").read_text():
        time.sleep(0.01)  # it runs by then
    assert processes.has_variable(found, "NONCE", "a")
    assert not processes.has_variable(found, "NONCE", "b")
    assert not processes.has_variable(found, "OTHER", "a")
    assert processes.stop([mark]) == ()
    child.wait()
    assert not processes.has_variable(found, "NONCE", "a")


def test_a_process_that_does_not_comply_is_killed_after_its_grace(tmp_path: Path) -> None:
    """It gets a second to end in order, and no more."""
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('here', flush=True); time.sleep(60)"
    )
    child = processes.spawn([sys.executable, "-c", stubborn], os.environ, tmp_path / "log")
    while not (tmp_path / "log").read_text():
        time.sleep(0.01)
    start_s = time.monotonic()
    assert processes.stop([processes.mark(child.pid)]) == ()
    assert 1 <= time.monotonic() - start_s < 5
    assert child.wait() == -9


def test_a_process_that_complies_is_asked_politely(tmp_path: Path) -> None:
    """A node closes its files, Locust writes its results."""
    polite = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
        "print('here', flush=True); time.sleep(60)"
    )
    child = processes.spawn([sys.executable, "-c", polite], os.environ, tmp_path / "log")
    while not (tmp_path / "log").read_text():
        time.sleep(0.01)
    assert processes.stop([processes.mark(child.pid)]) == ()
    assert child.wait() == 7


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_the_place_tells_the_machine_its_start_and_its_numbering() -> None:
    """A pid of another container or another boot is no process of ours."""
    place = processes.here()
    assert all((place.host, place.boot, place.pids))
    assert place == processes.here()
