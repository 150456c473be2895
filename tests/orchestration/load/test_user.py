"""What users send: to whom, for which keys, and what counts as an error."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "programs" / "user_program.py"
READS = ("read", "scan", "read_modify_write")


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    """All cases, run once in a process of their own."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def test_records_are_written_unless_first_and_last_are_there_in_their_size(
    cases: dict[str, Any],
) -> None:
    """What another workload left behind does not pass for the records."""
    others = dict.fromkeys(("none", "last", "first", "short", "long"), True)
    assert cases["loads"] == {"both": False} | others


def test_a_read_that_finds_no_record_is_an_error(cases: dict[str, Any]) -> None:
    """All records were written: one that is not there was lost, or has not arrived."""
    assert cases["recorded"] == dict.fromkeys(READS, "not_found")


def test_a_read_that_finds_nothing_is_an_answer_without_records(cases: dict[str, Any]) -> None:
    """Where keys come to be there as the load goes on, most are absent at first."""
    assert cases["plain"] == dict.fromkeys(READS, "ok")


def test_scans_read_records_only_and_go_round(cases: dict[str, Any]) -> None:
    """After the last record comes the first, not a key that nobody wrote."""
    numbers = cases["scans"]
    assert set(numbers) == set(range(30))
    assert 0 in {after for before, after in itertools.pairwise(numbers) if before == 29}


def test_an_insert_that_is_dropped_holds_up_no_other(cases: dict[str, Any]) -> None:
    """A request that was made and never sent does not keep later inserts from being read."""
    assert cases["readable_after_a_drop"] == 1


def test_followers_are_found_without_their_data(cases: dict[str, Any]) -> None:
    """The leader is asked for its links, and for nothing that has every follower dump its data."""
    assert cases["asked_for_followers"] == ["GET /admin/links", "GET /kv/key-0"]
