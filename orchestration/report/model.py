"""The model of the wait for a quorum that a trial is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.analysis.wait_model import choose_wait, steady_spacing_ms
from orchestration.report.records import WRITE

if TYPE_CHECKING:
    from orchestration.analysis.theory import QuorumWait
    from orchestration.report.records import TrialRow

# Runs from before the workload was written down have writes alone, or mixed them with reads.
ONLY_WRITES = ("", "writes")


def model_of(row: TrialRow) -> QuorumWait | str:
    """Return the model, or the sentence that says why none applies."""
    if row.operation != WRITE:
        return "Theory is about writes: reads wait for no quorum."
    # Several processes begin at different moments, so that together they are not evenly spaced.
    rate = row.rate if row.workload in ONLY_WRITES and row.processes == 1 else None
    spacing_ms = steady_spacing_ms(rate, row.arrivals, row.warmup_s, row.delay_ms)
    return choose_wait(row.followers, row.k, row.delay_ms, row.delay_model, spacing_ms=spacing_ms)
