"""Stamps: which trials may be quoted."""

from dataclasses import replace

import pytest

from orchestration.audit import Evidence, audit

GOOD = Evidence(
    offered=400,
    completed=400,
    dropped=0,
    samples=400,
    send_delay_p99_ms=1.0,
    response_p50_ms=50.0,
    generator_cpu_share=0.2,
    generator_lag_ms=1.0,
    open_at_start=5,
    open_at_end=6,
    usually_open=5.0,
    has_ended_early=False,
    parity="match",
)


def test_a_trial_that_went_well_is_ok() -> None:
    """No stamp, no reason."""
    assert audit(GOOD) == ("ok", "")


@pytest.mark.parametrize(
    ("changes", "stamp"),
    [
        ({"samples": 0}, "invalid"),
        ({"has_ended_early": True}, "invalid"),
        ({"parity": "error"}, "invalid"),
        ({"parity": "mismatch"}, "invalid"),
        ({"send_delay_p99_ms": 10.5}, "generator-bound"),
        ({"generator_cpu_share": 0.99}, "generator-bound"),
        ({"generator_lag_ms": 10.5}, "generator-bound"),
        ({"samples": 395}, "invalid"),
        ({"dropped": 1, "completed": 399}, "saturated"),
        ({"completed": 379}, "saturated"),
        ({"open_at_start": 20, "open_at_end": 100, "usually_open": 60.0}, "saturated"),
        ({"dropped": 50, "send_delay_p99_ms": 80.0}, "generator-bound"),
    ],
)
def test_a_trial_that_cannot_be_quoted_gets_its_stamp_and_a_reason(
    changes: dict[str, object], stamp: str
) -> None:
    """The generator's own faults come before the rate's, which they explain."""
    found, reason = audit(replace(GOOD, **changes))
    assert found == stamp
    assert reason


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 396, "response_p50_ms": 900.0},
        {"response_p50_ms": 5_000.0, "send_delay_p99_ms": 400.0},
        {"completed": 381},
        {"send_delay_p99_ms": 10.0},
        # Long delays fill the links in a trial without a warm-up.
        {"open_at_start": 0, "open_at_end": 100, "usually_open": 95.0},
        {"open_at_start": 90, "open_at_end": 105, "usually_open": 60.0},
    ],
)
def test_a_stall_or_an_error_of_the_store_stays_ok(changes: dict[str, object]) -> None:
    """What the store does is a result, however bad it looks."""
    assert audit(replace(GOOD, **changes)) == ("ok", "")


@pytest.mark.parametrize(
    ("at_the_limit", "beyond", "reason"),
    [
        ({"completed": 380, "samples": 380}, {"completed": 379, "samples": 379}, "379 of 400"),
        ({"samples": 396}, {"samples": 395}, "5 of 400 requests failed, more than 1%"),
        ({"generator_cpu_share": 0.95}, {"generator_cpu_share": 0.96}, "used 96% of a core"),
        ({"generator_lag_ms": 10.0}, {"generator_lag_ms": 10.1}, "10.1 ms late (p99; allowed 10"),
        ({"send_delay_p99_ms": 10.0}, {"send_delay_p99_ms": 10.1}, "up to 10.1 ms late"),
        (
            {"send_delay_p99_ms": 200.0, "response_p50_ms": 1_000.0},
            {"send_delay_p99_ms": 200.1, "response_p50_ms": 1_000.0},
            "allowed 200.0 ms",
        ),
        # 1.2 times what is usual and 10 are allowed, or 5% of the requests more than before.
        (
            {"usually_open": 25.0, "open_at_start": 0, "open_at_end": 40},
            {"usually_open": 25.0, "open_at_start": 0, "open_at_end": 41},
            "41 requests were open at the end, 41 more than at the start",
        ),
        (
            {"open_at_end": 40, "open_at_start": 20},
            {"open_at_end": 41, "open_at_start": 20},
            "41 requests were open at the end, 21 more than at the start",
        ),
    ],
)
def test_limit_itself_is_allowed_and_what_is_beyond_it_is_told(
    at_the_limit: dict[str, object], beyond: dict[str, object], reason: str
) -> None:
    """The limits of docs/measurement.md, each from both sides."""
    assert audit(replace(GOOD, **at_the_limit)) == ("ok", "")
    stamp, found = audit(replace(GOOD, **beyond))
    assert stamp != "ok"
    assert reason in found
