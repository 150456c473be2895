"""The executors: on schedule whatever the store does, bounded, and honest about stalls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.alone

PROGRAM = Path(__file__).parent / "programs" / "executor_program.py"


def outcome_of(case: str) -> dict[str, Any]:
    """What the program's case printed."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), case],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def test_a_stall_of_the_generator_shows_in_response_but_not_in_service() -> None:
    """Requests that were due while the generator stood still are late, not slow."""
    samples = outcome_of("generator_stall")["samples"]
    assert len(samples) == 60
    held_up = [sample for sample in samples if 10 <= sample["intended_ms"] < 400]
    assert len(held_up) == 39
    for sample in held_up:
        assert sample["response_ms"] >= 500 - sample["intended_ms"] - 1
        assert sample["send_delay_ms"] >= 500 - sample["intended_ms"] - 1
        assert sample["service_ms"] < 250


def test_a_stall_of_the_store_shows_in_every_request_that_was_due() -> None:
    """Arrivals do not wait for replies: each request of the stall feels the rest of it."""
    samples = outcome_of("store_stall")["samples"]
    assert len(samples) == 60
    stalled = [sample for sample in samples if sample["intended_ms"] < 400]
    assert len(stalled) == 40
    for sample in stalled:
        assert sample["response_ms"] >= 500 - sample["intended_ms"] - 1
        assert sample["send_delay_ms"] < 250


def test_arrivals_beyond_the_bound_are_dropped_and_counted() -> None:
    """Overflow is neither sent late nor forgotten."""
    outcome = outcome_of("overflow")
    assert (outcome["offered"], outcome["dropped"], outcome["unfinished"]) == (60, 55, 0)
    assert len(outcome["samples"]) == 5


def test_workers_are_reused_last_first() -> None:
    """A quick store is asked by few, as many as are open at a time, though more are there."""
    outcome = outcome_of("reuse")
    assert len(outcome["samples"]) == 60
    assert 1 <= outcome["workers"] <= outcome["most_open"] + 1


def test_failures_are_recorded_by_code_and_end_nothing() -> None:
    """The driver's code counts; a fault of the generator is named so, and the run goes on."""
    samples = outcome_of("failures")["samples"]
    errors = [sample["error"] for sample in samples]
    assert errors == ["outcome_unknown", "generator_error", None, None, None]


def test_closed_loop_users_share_the_requests_exactly() -> None:
    """No request more or less than asked for, at most one per user, and one last leaver."""
    assert outcome_of("closed_loop") == {"sent": 20, "most_open": 3, "last_leavers": 1}


def test_closed_loop_ends_when_time_is_up() -> None:
    """The last request starts before the end; there is no send delay in a closed loop."""
    samples = outcome_of("closed_loop_time")["samples"]
    assert samples
    assert samples[-1]["intended_ms"] < 100
    assert max(sample["send_delay_ms"] for sample in samples) == pytest.approx(0, abs=5)


def test_alarms_are_never_early_and_let_others_run() -> None:
    """Whatever is due, past or to come, by either kind of alarm."""
    assert outcome_of("alarms")["earliest_ns"] >= 0
