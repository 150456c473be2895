"""The HTTP driver: outcomes and error codes as they are, nothing sent twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "programs" / "http_kv_program.py"


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    """All cases, run once in a process of their own."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def test_write_returns_acks_and_position(cases: dict[str, Any]) -> None:
    """The outcome is the store's, as (acks, epoch, seq)."""
    assert cases["write"]["outcome"] == [3, 2, 7]
    assert cases["delete"]["outcome"] == [3, 2, 7]
    assert cases["by_name"]["outcome"] == [3, 2, 7]


def test_write_is_sent_as_the_api_has_it(cases: dict[str, Any]) -> None:
    """Key quoted, value as JSON, token and idempotency key in their headers."""
    (request,) = cases["write"]["requests"]
    head, body = request.split("\r\n\r\n")
    assert head.startswith("PUT /kv/a%2Fb HTTP/1.1\r\n")
    assert "\r\nIdempotency-Key: once" in head
    assert "\r\nAuthorization: Bearer a-token" in head
    assert json.loads(body) == {"value": "väl"}


def test_read_returns_the_value_or_none(cases: dict[str, Any]) -> None:
    """An absent key is an answer, not an error."""
    assert cases["read"]["outcome"] == "1"
    assert cases["read_absent"]["outcome"] is None


@pytest.mark.parametrize(
    ("case", "code", "definite"),
    [
        ("unknown", "outcome_unknown", False),
        ("not_leader", "not_leader", True),
        ("no_json", "http_502", False),
        ("not_http", "bad_reply", False),
        ("bad_body", "bad_reply", False),
        ("silence", "timeout", False),
        ("reset", "connection_reset", False),
        ("refused", "connection_refused", True),
    ],
)
def test_failures_have_a_code_and_are_definite_only_if_certain(
    cases: dict[str, Any], case: str, code: str, *, definite: bool
) -> None:
    """The store's code where it gave one; a timeout or reset never says that nothing happened."""
    outcome = cases[case]["outcome"]
    assert (outcome["code"], outcome["definite"]) == (code, definite)


@pytest.mark.parametrize("case", ["silence", "reset", "not_http"])
def test_a_write_that_may_have_happened_is_not_sent_again(cases: dict[str, Any], case: str) -> None:
    """A repeated PUT would write twice and hide the failure."""
    assert len(cases[case]["requests"]) == 1


def test_connections_are_kept_and_dead_ones_noticed(cases: dict[str, Any]) -> None:
    """One connection for many requests; one that the store closed is replaced, not an error."""
    assert cases["kept_open"]["connections"] == 1
    assert len(cases["kept_open"]["requests"]) == 5
    for case in ("closed_each_time", "asked_to_close"):
        assert cases[case]["outcome"] == [3, 2, 7]
        assert cases[case]["connections"] == 3
