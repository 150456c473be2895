"""Processes are told apart and ended exactly."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.clusters import processes

SLEEP = [sys.executable, "-c", "print('here', flush=True); import time; time.sleep(60)"]


def test_a_process_is_ended_once_and_then_gone(tmp_path: Path) -> None:
    """Stopping counts those that ran, and stopping again finds nothing."""
    child = processes.spawn(SLEEP, os.environ, tmp_path / "log")
    mark = processes.mark(child.pid)
    assert processes.find(mark) is not None
    assert processes.stop([mark]) == 1
    assert processes.find(mark) is None
    assert processes.stop([mark]) == 0
    child.wait()


def test_a_stranger_with_a_known_pid_is_left_alone() -> None:
    """A pid that was given to another process since is not ours."""
    own = processes.mark(os.getpid())
    assert processes.find(own) is not None
    assert processes.find(replace(own, create_time=own.create_time - 100)) is None
    assert processes.stop([replace(own, create_time=own.create_time - 100)]) == 0


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
    assert processes.tail(tmp_path / "none") == "(it printed nothing)"
