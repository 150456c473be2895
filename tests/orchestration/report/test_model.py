"""Which model stands beside a measurement, if any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestration.analysis.fifo import FifoQuorumWait
from orchestration.analysis.theory import QuorumWait
from orchestration.report.model import model_of
from orchestration.report.summary import summarise
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.report.records import Run


def modelled(make_run: Callable[..., Run], **changes: Any) -> QuorumWait | str:
    """Return the model of a trial at k=3 of 5, with these fields."""
    (row,) = make_run([simulated.trial(3) | changes]).rows
    return model_of(row)


def test_writes_over_independent_links_have_the_order_statistic(
    make_run: Callable[..., Run],
) -> None:
    """Whatever sends them, and however they are spaced."""
    for changes in ({}, {"workload": "mixed"}, {"arrivals": "poisson"}, {"rate": None}):
        assert modelled(make_run, **changes) == QuorumWait(5, 3, 0.0, 100.0)


def test_evenly_spaced_writes_over_fifo_links_have_their_own_model(
    make_run: Callable[..., Run],
) -> None:
    """At 100/s they are 10 ms apart; a report shows what it expects of them."""
    fifo = {"delay_model": "fifo"}
    wait = modelled(make_run, **fifo)
    assert wait == FifoQuorumWait(5, 3, 0.0, 100.0, 10.0)
    assert isinstance(wait, FifoQuorumWait)
    (cell,) = summarise(make_run([simulated.trial(3) | fifo])).cells
    assert cell.theory_ms.mean == pytest.approx(wait.mean_ms)
    assert cell.theory_ms.mean > QuorumWait(5, 3, 0.0, 100.0).mean_ms


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"delay_model": "fifo", "arrivals": "poisson"}, "fifo link"),
        ({"delay_model": "fifo", "workload": "mixed"}, "fifo link"),
        ({"delay_model": "fifo", "warmup_s": 0.05}, "fifo link"),
        ({"delay_model": "fifo", "rate": None, "users": 3}, "fifo link"),
        ({"delay_model": "fifo", "processes": 2}, "fifo link"),
        ({"delay_ms": None}, "not known"),
        ({"operation": "read"}, "reads wait for no quorum"),
    ],
)
def test_what_has_no_model_says_why(
    make_run: Callable[..., Run], changes: dict[str, Any], reason: str
) -> None:
    """The reason stands in the report in place of figures."""
    assert reason in str(modelled(make_run, **changes))
    (cell,) = summarise(make_run([simulated.trial(3) | changes])).cells
    assert cell.theory_ms.mean is None
    assert any(reason in note for note in cell.notes)
