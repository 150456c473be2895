"""Decides whether a trial's figures may be quoted; pure.

A stall or an error of the store is a result and keeps its stamp ``ok``. The other stamps are for
the generator, the schedule and parity.
"""

from dataclasses import dataclass
from typing import Literal

from orchestration.parity import Status

Stamp = Literal["ok", "saturated", "generator-bound", "invalid"]

# A generator this much behind its own schedule adds its lateness to what it measures.
LATE_MS = 10.0
LATE_SHARE_OF_RESPONSE = 0.2
# Fewer requests accounted for than this share of those planned: the schedule was not kept.
ACCOUNTED_SHARE = 0.95
BUSY_CPU_SHARE = 0.95
# By Little's law as many requests are open as come in during one response time. So many times more
# at the end of a trial than on average, and the backlog was growing.
BACKLOG_RATIO = 1.2
# Below so many, chance alone makes such a difference.
LEAST_BACKLOG = 10
# Percentiles of the successes say little about a store that fails more than one request in so many:
# with 1% of errors, one request in a hundred would lie beyond the p99 that is quoted.
ERROR_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a trial tells about itself; counts are of requests due after the warm-up.

    Attributes:
        offered: planned arrivals.
        completed: requests that ended, well or not.
        dropped: arrivals that were not sent.
        samples: successes.
        send_delay_p99_ms: the generator's lateness; None without samples.
        response_p50_ms: None without samples.
        generator_cpu_share: of one core, used by the busiest load process.
        generator_lag_ms: how late its event loop was, 99th percentile.
        open_at_start: requests in flight when the measured window began.
        open_at_end: requests in flight when it ended.
        usually_open: how many would be by Little's law: achieved rate x mean response time.
        has_ended_early: whether the load ended before its plan was done.
        parity: outcome of the comparison after the trial.
    """

    offered: int
    completed: int
    dropped: int
    samples: int
    send_delay_p99_ms: float | None
    response_p50_ms: float | None
    generator_cpu_share: float
    generator_lag_ms: float
    open_at_start: int
    open_at_end: int
    usually_open: float
    has_ended_early: bool
    parity: Status


def audit(evidence: Evidence) -> tuple[Stamp, str]:
    """The stamp of a trial, and its reason: a clause without a full stop, empty for ``ok``."""
    return (
        _find_invalid(evidence)
        or _find_generator(evidence)
        or _find_errors(evidence)
        or _find_rate(evidence)
        or ("ok", "")
    )


def _find_invalid(evidence: Evidence) -> tuple[Stamp, str] | None:
    if evidence.has_ended_early:
        return "invalid", "the load ended before its plan was done"
    if evidence.samples == 0:
        return "invalid", "no request succeeded"
    if evidence.parity == "mismatch":
        return "invalid", "replicas differ from the leader"
    if evidence.parity == "error":
        return "invalid", "not all replicas could be compared"
    return None


def _find_generator(evidence: Evidence) -> tuple[Stamp, str] | None:
    late_ms = evidence.send_delay_p99_ms or 0.0
    allowed_ms = max(LATE_MS, LATE_SHARE_OF_RESPONSE * (evidence.response_p50_ms or 0.0))
    if late_ms > allowed_ms:
        return (
            "generator-bound",
            f"requests left up to {late_ms:.1f} ms late (p99; allowed {allowed_ms:.1f} ms)",
        )
    if evidence.generator_lag_ms > allowed_ms:
        late = f"the generator's event loop was {evidence.generator_lag_ms:.1f} ms late"
        return "generator-bound", f"{late} (p99; allowed {allowed_ms:.1f} ms)"
    if evidence.generator_cpu_share > BUSY_CPU_SHARE:
        return "generator-bound", f"the generator used {evidence.generator_cpu_share:.0%} of a core"
    return None


def _find_errors(evidence: Evidence) -> tuple[Stamp, str] | None:
    failed = evidence.completed - evidence.samples
    if failed > ERROR_SHARE * evidence.completed:
        share = f"{failed} of {evidence.completed} requests failed, more than {ERROR_SHARE:.0%}"
        return "invalid", f"{share}: the latencies of the others would flatter"
    return None


def _find_rate(evidence: Evidence) -> tuple[Stamp, str] | None:
    if evidence.dropped:
        dropped = f"{evidence.dropped} of {evidence.offered} arrivals were dropped"
        return "saturated", f"{dropped}, too many requests were in flight"
    if evidence.completed < ACCOUNTED_SHARE * evidence.offered:
        return "saturated", f"{evidence.completed} of {evidence.offered} requests came to an end"
    growth = evidence.open_at_end - evidence.open_at_start
    is_growing = evidence.open_at_end > BACKLOG_RATIO * evidence.usually_open + LEAST_BACKLOG
    if is_growing and growth > (1 - ACCOUNTED_SHARE) * evidence.offered:
        opened = f"{evidence.open_at_end} requests were open at the end"
        return "saturated", f"{opened}, {growth} more than at the start"
    return None
