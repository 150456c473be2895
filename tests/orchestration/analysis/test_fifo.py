"""The model of FIFO links, against simulated links and the closed forms of its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.analysis.fifo import FifoQuorumWait, link_share
from orchestration.analysis.theory import QuorumWait
from tests.orchestration.analysis.simulated_links import fifo_waits_ms

SPACINGS_MS = (2.0, 7.0, 10.0, 33.0, 100.0, 250.0)


@pytest.mark.parametrize("spacing_ms", SPACINGS_MS)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_model_is_what_simulated_links_do(k: int, spacing_ms: float) -> None:
    """Mean, deviation and percentiles are those of 200,000 writes over five drawn links."""
    wait = FifoQuorumWait(5, k, 20.0, 120.0, spacing_ms)
    waits_ms = fifo_waits_ms(wait, 200_000, np.random.default_rng([3, k]))
    assert wait.mean_ms == pytest.approx(waits_ms.mean(), abs=0.3)
    assert wait.deviation_ms == pytest.approx(waits_ms.std(), abs=0.3)
    for percent in (1, 50, 95, 99):
        expected = np.percentile(waits_ms, percent)
        assert wait.percentile_ms(percent) == pytest.approx(expected, abs=0.7)


@given(st.floats(0.0, 1.0), st.floats(0.01, 2.0))
def test_share_is_the_product_over_all_entries_before(x: float, ratio: float) -> None:
    """The gamma functions give what multiplying factor by factor gives."""
    product = math.prod(min(1.0, x + j * ratio) for j in range(math.ceil(1 / ratio) + 1))
    assert float(link_share(x, ratio)) == pytest.approx(product, rel=1e-6, abs=1e-12)


@given(st.integers(1, 20), st.data())
def test_writes_that_are_far_apart_wait_as_on_independent_links(
    n: int, data: st.DataObject
) -> None:
    """From the range of delays on, nothing waits for anything before it."""
    k = data.draw(st.integers(0, n))
    low, span = data.draw(st.floats(0, 100)), data.draw(st.floats(1, 100))
    fifo = FifoQuorumWait(n, k, low, low + span, span * data.draw(st.floats(1.0001, 10)))
    plain = QuorumWait(n, k, low, low + span)
    assert fifo.mean_ms == pytest.approx(plain.mean_ms, abs=1e-3)
    assert fifo.deviation_ms == pytest.approx(plain.deviation_ms, abs=1e-2)
    levels = [0, 1, 50, 99, 100]
    assert fifo.percentiles_ms(levels) == pytest.approx(plain.percentiles_ms(levels), abs=1e-6)
    assert fifo.independent_writes(1_000) == plain.independent_writes(1_000)


@given(st.integers(1, 20), st.floats(0.01, 50), st.data())
def test_figures_stay_inside_the_delays_and_above_independent_links(
    n: int, spacing_ms: float, data: st.DataObject
) -> None:
    """Waiting for those before only adds, and never more than the longest delay."""
    k = data.draw(st.integers(1, n))
    fifo, plain = FifoQuorumWait(n, k, 5.0, 55.0, spacing_ms), QuorumWait(n, k, 5.0, 55.0)
    assert plain.mean_ms - 1e-3 <= fifo.mean_ms <= 55.0
    figures = fifo.percentiles_ms([0, 1, 50, 95, 99, 100])
    assert figures == sorted(figures)
    assert fifo.max_ms == 55.0
    for found, least in zip(figures, plain.percentiles_ms([0, 1, 50, 95, 99, 100]), strict=True):
        assert least - 1e-6 <= found <= 55.0 + 1e-9


def test_dense_arrivals_wait_nearly_the_longest_delay() -> None:
    """With 10,000 entries per range of delays the slowest of them holds up all."""
    wait = FifoQuorumWait(5, 3, 0.0, 100.0, 0.01)
    assert 98 < wait.mean_ms < 100
    assert 0 < wait.deviation_ms < 1


@pytest.mark.parametrize("wait", [FifoQuorumWait(5, 0, 0, 9, 1), FifoQuorumWait(5, 3, 9, 9, 1)])
def test_nothing_to_wait_for_or_equal_delays_leave_nothing_to_chance(wait: FifoQuorumWait) -> None:
    """With k = 0 all is zero, with a = b all is that delay."""
    expected = 0.0 if wait.write_quorum == 0 else 9.0
    assert {wait.mean_ms, wait.max_ms, *wait.percentiles_ms([0, 1, 50, 99, 100])} == {expected}
    assert wait.deviation_ms == wait.mean_error_ms(100) == 0


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("spacing_ms", [2.0, 10.0, 33.0])
def test_error_of_the_mean_is_not_understated(k: int, spacing_ms: float) -> None:
    """Means of 500 writes in a row scatter no more than the model says, and less than thrice."""
    wait = FifoQuorumWait(5, k, 0.0, 100.0, spacing_ms)
    rng = np.random.default_rng([5, k])
    scatter = np.std([fifo_waits_ms(wait, 500, rng).mean() for _ in range(300)])
    assert 0.9 * scatter <= wait.mean_error_ms(500)
    assert wait.mean_error_ms(500) < 4 * scatter


@pytest.mark.parametrize("spacing_ms", [0.0, -1.0, math.inf, math.nan])
def test_impossible_spacing_is_refused(spacing_ms: float) -> None:
    """Writes at once or never have no steady state; what QuorumWait refuses is refused as well."""
    with pytest.raises(ValueError, match="no spacing"):
        FifoQuorumWait(5, 1, 0.0, 1.0, spacing_ms)
    with pytest.raises(ValueError, match="k=6"):
        FifoQuorumWait(5, 6, 0.0, 1.0, 1.0)
