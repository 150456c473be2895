"""The choice of a model: each kind of link has its own, and what has none says why."""

from __future__ import annotations

import pytest

from orchestration.analysis.fifo import FifoQuorumWait
from orchestration.analysis.theory import QuorumWait
from orchestration.analysis.wait_model import choose_wait, steady_spacing_ms


def test_each_kind_of_link_has_its_model() -> None:
    """Independent links need no spacing, FIFO links do."""
    delay_ms = (10.0, 50.0)
    plain = choose_wait(5, 3, delay_ms, "independent", spacing_ms=None)
    assert plain == QuorumWait(5, 3, 10.0, 50.0)
    assert choose_wait(5, 3, delay_ms, "independent", spacing_ms=4.0) == plain
    fifo = choose_wait(5, 3, delay_ms, "fifo", spacing_ms=4.0)
    assert fifo == FifoQuorumWait(5, 3, 10.0, 50.0, 4.0)


@pytest.mark.parametrize(
    ("delay_ms", "model", "spacing_ms", "words"),
    [
        (None, "independent", 4.0, "not known"),
        ((0.0, 1.0), "fifo", None, "on a fifo link"),
        ((0.0, 1.0), "lossy", 4.0, "on a lossy link"),
    ],
)
def test_what_has_no_model_says_why(
    delay_ms: tuple[float, float] | None, model: str, spacing_ms: float | None, words: str
) -> None:
    """A sentence that a report can print."""
    why = choose_wait(5, 3, delay_ms, model, spacing_ms=spacing_ms)
    assert isinstance(why, str)
    assert words in why
    assert why.endswith(".")


@pytest.mark.parametrize(
    ("rate_per_s", "arrivals", "warmup_s", "delay_ms", "expected"),
    [
        (200.0, "constant", 0.1, (0.0, 100.0), 5.0),
        (200.0, "constant", 0.1, (50.0, 100.0), 5.0),
        (200.0, "constant", 0.05, (0.0, 100.0), None),
        (200.0, "poisson", 1.0, (0.0, 100.0), None),
        (None, "constant", 1.0, (0.0, 100.0), None),
        (200.0, "constant", 1.0, None, None),
    ],
)
def test_spacing_is_that_of_steady_even_writes(
    rate_per_s: float | None,
    arrivals: str,
    warmup_s: float,
    delay_ms: tuple[float, float] | None,
    expected: float | None,
) -> None:
    """An open loop with constant arrivals, after a warm-up as long as the range of delays."""
    assert steady_spacing_ms(rate_per_s, arrivals, warmup_s, delay_ms) == expected
