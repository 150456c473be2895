"""The percentile distribution, against exact values and hdrh's own slow walk."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.load.results import new_histogram
from orchestration.report.hgrm import to_hgrm
from tests.orchestration.report import simulated


def test_hgrm_holds_the_distribution_in_ms() -> None:
    """The plotter's columns rise together and end at the largest value and the full count."""
    values = [float(v) for v in range(1, 1001)]
    text = to_hgrm(simulated.histogram_of(values)).decode()
    heading, *lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert heading.split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    table = [[float(field) for field in line.split()[:3]] for line in lines]
    assert table == sorted(table)
    assert table[-1] == [pytest.approx(1000, rel=1e-3), 1.0, 1000]
    for value, percentile, total in table:
        assert total == pytest.approx(sum(v <= value for v in values), abs=1)
        assert total / 1000 >= percentile - 0.001
    deviation = re.search(r"StdDeviation += +([\d.]+)", text)
    assert deviation
    assert float(deviation[1]) == pytest.approx(288.7, rel=0.01)


@settings(max_examples=10)  # hdrh takes 0.1 s for each
@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(1, 10**6)), min_size=1, max_size=30))
def test_hgrm_is_the_text_of_the_library(recorded: list[tuple[int, int]]) -> None:
    """Line by line what hdrh writes; only the standard deviation, which it leaves in ns, is not."""
    histogram = new_histogram()
    for value_ns, times in recorded:
        histogram.record_value(value_ns, times)
    slow = io.BytesIO()
    histogram.output_percentile_distribution(slow, 1e6)
    found = re.sub(rb"StdDeviation .*", b"", to_hgrm(histogram))
    assert found == re.sub(rb"StdDeviation .*", b"", slow.getvalue())


def test_hgrm_of_nothing_is_refused() -> None:
    """An empty histogram has no distribution, and says so."""
    with pytest.raises(ValueError, match="empty"):
        to_hgrm(new_histogram())
