"""Which model of the wait for a quorum applies to a trial, or why none does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.analysis.fifo import FifoQuorumWait
from orchestration.analysis.theory import QuorumWait

if TYPE_CHECKING:
    from collections.abc import Sequence

MS_PER_S = 1_000.0


def steady_spacing_ms(
    rate_per_s: float | None, arrivals: str, warmup_s: float, delay_ms: Sequence[float] | None
) -> float | None:
    """Return the constant time between writes in the steady state of FIFO links; None without.

    Args:
        rate_per_s: Of an open loop that does nothing but write; None for any other load.
        arrivals: How it spaces them: "constant" or another way.
        warmup_s: What is not measured at the start.
        delay_ms: The least and the longest link delay; None if they are not known.
    """
    if rate_per_s is None or arrivals != "constant" or delay_ms is None:
        return None
    is_steady = warmup_s * MS_PER_S >= delay_ms[1] - delay_ms[0]
    return MS_PER_S / rate_per_s if is_steady else None


def choose_wait(
    followers: int,
    write_quorum: int,
    delay_ms: Sequence[float] | None,
    delay_model: str,
    *,
    spacing_ms: float | None,
) -> QuorumWait | str:
    """Return the model of the wait for k of n acknowledgments, or the sentence that says why none.

    Args:
        followers: n.
        write_quorum: k.
        delay_ms: The least and the longest link delay; None if they are not known.
        delay_model: "independent" or "fifo".
        spacing_ms: From `steady_spacing_ms`; only FIFO links ask for it.
    """
    if delay_ms is None:
        return "The delays of this cluster are not known, so there is no theory beside them."
    low_ms, high_ms = delay_ms
    if delay_model == "independent":
        return QuorumWait(followers, write_quorum, low_ms, high_ms)
    if delay_model == "fifo" and spacing_ms is not None:
        return FifoQuorumWait(followers, write_quorum, low_ms, high_ms, spacing_ms)
    return (
        f"Theory does not apply: on a {delay_model} link an entry waits for those before it, and "
        "there is a model of that only for evenly spaced writes and nothing else, after a warm-up "
        "that is as long as the range of delays."
    )
