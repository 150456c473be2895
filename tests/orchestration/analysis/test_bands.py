"""Simultaneous bands: how often chance alone breaks them, and what they must not explain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.analysis.bands import STATISTICS, Cell, Finding, curve_band, hold_against
from orchestration.analysis.fifo import FifoQuorumWait
from orchestration.analysis.theory import QuorumWait
from tests.orchestration.analysis.simulated_links import fifo_waits_ms, sorted_waits_ms

KS = range(1, 6)
WRITES = 500


def figures_of(waits_ms: np.ndarray) -> dict[str, float]:
    """Mean, p50, p95 and p99 of some waits, percentiles at the nearest rank."""
    ranked = np.sort(waits_ms)
    ranks = [int(share * ranked.size + 0.5) - 1 for share in (0.5, 0.95, 0.99)]
    return dict(zip(STATISTICS, (float(ranked.mean()), *ranked[ranks].tolist()), strict=True))


def test_all_figures_lie_in_their_bands_as_often_as_claimed() -> None:
    """Of 1,000 sweeps of 5 k with 4 figures each, 99% at least leave no band at all."""
    rng = np.random.default_rng(11)
    waits = [QuorumWait(5, k, 0.0, 100.0) for k in KS]
    broken = 0
    for _ in range(1_000):
        cells = [Cell(w, WRITES, figures_of(sorted_waits_ms(w, WRITES, rng))) for w in waits]
        broken += any(finding.excess_ms for finding in hold_against(cells))
    assert broken <= 0.016 * 1_000  # 10 expected, with three standard errors below 20


def test_bands_are_not_wider_than_they_need_be() -> None:
    """With a confidence of 50% half of all sweeps may break one, and a fifth at least do."""
    rng = np.random.default_rng(12)
    waits = [QuorumWait(5, k, 0.0, 100.0) for k in KS]
    broken = 0
    for _ in range(200):
        cells = [Cell(w, WRITES, figures_of(sorted_waits_ms(w, WRITES, rng))) for w in waits]
        broken += any(finding.excess_ms for finding in hold_against(cells, confidence=0.5))
    assert 0.2 * 200 < broken <= 0.5 * 200


def test_fifo_figures_lie_in_their_bands() -> None:
    """Of 100 sweeps over FIFO links, whose waits depend on each other, 99 at least."""
    rng = np.random.default_rng(13)
    waits = [FifoQuorumWait(5, k, 0.0, 100.0, 10.0) for k in KS]
    broken = 0
    for _ in range(100):
        cells = [Cell(w, 2_000, figures_of(fifo_waits_ms(w, 2_000, rng))) for w in waits]
        broken += any(finding.excess_ms for finding in hold_against(cells))
    assert broken <= 1


@pytest.mark.parametrize("cost_ms", [1.0, 3.0])
def test_cost_of_the_system_is_residual_and_not_chance(cost_ms: float) -> None:
    """Waits that are all longer by a cost are explained by that cost and not without it."""
    rng = np.random.default_rng(17)
    waits = [QuorumWait(5, k, 0.0, 10.0) for k in KS]
    cells = [Cell(w, 20_000, figures_of(sorted_waits_ms(w, 20_000, rng) + cost_ms)) for w in waits]
    for finding in hold_against(cells):
        assert finding.residual_ms == pytest.approx(cost_ms, abs=0.5)
        assert 0 < finding.excess_ms <= cost_ms
        assert finding.is_explained(cost_ms)
        assert not finding.is_explained(0.0)


def test_store_that_answers_too_early_is_never_explained() -> None:
    """One that waits for one acknowledgment fewer than it says lies below the bands."""
    waits_ms = sorted_waits_ms(QuorumWait(5, 2, 0.0, 100.0), 2_000, np.random.default_rng(19))
    findings = hold_against([Cell(QuorumWait(5, 3, 0.0, 100.0), 2_000, figures_of(waits_ms))])
    assert [finding.statistic for finding in findings] == list(STATISTICS)
    assert all(finding.excess_ms < 0 for finding in findings)
    assert not any(finding.is_explained(1_000.0) for finding in findings)


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_excess_is_the_distance_to_the_band(measured: float, one: float, other: float) -> None:
    """Zero inside, and outside what has to be taken off to be inside."""
    low, high = sorted((one, other))
    finding = Finding(1, "mean", measured, (low + high) / 2, low, high)
    if low <= measured <= high:
        assert finding.excess_ms == 0
    else:
        nearest = min((low, high), key=lambda end: abs(end - measured))
        assert finding.excess_ms == pytest.approx(measured - nearest)


@given(st.integers(1, 5), st.integers(10, 10**6), st.floats(0.5, 0.999))
def test_more_confidence_and_fewer_writes_widen_a_band(
    k: int, writes: int, confidence: float
) -> None:
    """Every band holds the one with more writes, and the one of less confidence."""
    wait = QuorumWait(5, k, 0.0, 100.0)
    measured = dict.fromkeys(STATISTICS, 50.0)
    wide = hold_against([Cell(wait, writes, measured)], confidence)
    for narrow in (
        hold_against([Cell(wait, 10 * writes, measured)], confidence),
        hold_against([Cell(wait, writes, measured)], confidence / 2),
    ):
        for one, other in zip(wide, narrow, strict=True):
            assert one.high_ms - one.low_ms >= other.high_ms - other.low_ms - 1e-9


@pytest.mark.parametrize(
    ("measured_ms", "expected"),
    [(9.9, False), (10.0, True), (12.0, True), (13.0, True), (13.1, False)],
)
def test_figure_is_explained_from_its_bands_foot_to_its_cost_above(
    measured_ms: float,
    *,
    expected: bool,
) -> None:
    """Inside its band chance explains it, above the system's cost; below it nothing does."""
    finding = Finding(1, "mean", measured_ms, theory_ms=11.0, low_ms=10.0, high_ms=12.0)
    assert finding.is_explained(cost_ms=1.0) is expected


def test_curve_lies_in_its_band_as_often_as_claimed() -> None:
    """Of 500 curves of 99 percentiles, 95% at least lie in their 95% band at every point."""
    rng = np.random.default_rng(23)
    wait = QuorumWait(5, 2, 0.0, 100.0)
    levels = np.arange(1.0, 100.0)
    band = np.array(curve_band(wait, WRITES, levels.tolist(), confidence=0.95))
    held = 0
    for _ in range(500):
        curve = np.percentile(sorted_waits_ms(wait, WRITES, rng), levels, method="inverted_cdf")
        held += bool(((band[:, 0] <= curve) & (curve <= band[:, 1])).all())
    # No wider than it need be: some curves leave it.
    assert 0.95 * 500 <= held < 500


def test_curve_band_ends_at_the_longest_and_shortest_wait() -> None:
    """Where a share would be below 0 or above 1 there is nothing beyond the delays."""
    band = curve_band(QuorumWait(5, 3, 10.0, 20.0), 50, [0, 100])
    assert band[0][0] == pytest.approx(10.0)
    assert band[1][1] == pytest.approx(20.0)
