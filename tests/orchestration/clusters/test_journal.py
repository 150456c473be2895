"""Notes of what clusters were like: kept apart, and held back while their writer runs."""

import os
from pathlib import Path

import psutil
import pytest

from orchestration.clusters import processes
from orchestration.clusters.journal import Before, BusyError, Journal

BEFORE = Before(2, "http://leader", "s", (1.0, 2.0))


def test_a_note_is_of_one_cluster_until_it_is_removed(tmp_path: Path) -> None:
    """What one cluster was like is never put back on another."""
    journal = Journal(tmp_path)
    journal.write("one", BEFORE)
    journal.write("other", Before(1))
    assert journal.read("one") == BEFORE
    assert journal.read("other") == Before(1)
    journal.remove("one")
    journal.remove("one")
    assert journal.read("one") is None
    assert journal.read("other") == Before(1)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000])
def test_a_damaged_note_is_none(tmp_path: Path, text: str) -> None:
    """It must not keep a cluster from use."""
    journal = Journal(tmp_path)
    journal.write("one", BEFORE)
    [path] = tmp_path.iterdir()
    path.write_text(text)
    assert journal.read("one") is None


def test_a_note_whose_writer_cannot_be_looked_at_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that may run is not taken for a killed one."""
    journal, own = Journal(tmp_path), os.getpid()
    journal.write("one", BEFORE)

    def hide(wanted: processes.ProcessMark) -> psutil.Process | None:
        raise psutil.AccessDenied(wanted.pid)

    with monkeypatch.context() as patch:
        patch.setattr(processes, "find", hide)
        patch.setattr(os, "getpid", lambda: own + 1)
        with pytest.raises(BusyError) as busy:
            journal.read("one")
    assert busy.value.args == (own,)


def test_a_note_of_a_process_that_is_gone_is_to_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That process can do it no more."""
    journal, own = Journal(tmp_path), os.getpid()
    journal.write("one", BEFORE)
    monkeypatch.setattr(processes, "find", lambda _: None)
    monkeypatch.setattr(os, "getpid", lambda: own + 1)
    assert journal.read("one") == BEFORE
