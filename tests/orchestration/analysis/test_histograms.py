"""Figures of histograms, against the recorded values and hdrh's own slow walk."""

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.analysis import histograms
from orchestration.load.results import new_histogram

latencies_ns = st.lists(st.integers(1, 3_600_000_000_000), min_size=1, max_size=60)


def recorded(values_ns: list[int]) -> HdrHistogram:
    """Return a histogram with the values recorded one by one."""
    histogram = new_histogram()
    for value in values_ns:
        assert histogram.record_value(value)
    return histogram


@given(latencies_ns)
def test_figures_are_exact_to_three_digits(values_ns: list[int]) -> None:
    """Mean within a 2,048th, percentiles and max within a 1,024th above the exact value."""
    figures = histograms.describe_ms(recorded(values_ns))
    ordered = sorted(values_ns)
    assert figures["mean"] == pytest.approx(np.mean(values_ns) / 1e6, rel=1 / 2048)
    for name, percent in (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100)):
        exact_ms = ordered[max(int(percent * len(ordered) / 100 + 0.5), 1) - 1] / 1e6
        assert exact_ms <= figures[name] <= exact_ms * (1 + 1 / 1024) + 1e-6  # type: ignore[operator]


@settings(max_examples=15)  # hdrh's walk takes 70 ms
@given(latencies_ns)
def test_filled_buckets_are_those_of_the_library(values_ns: list[int]) -> None:
    """The vectorised index arithmetic finds the same buckets as hdrh's iterator."""
    histogram = recorded(values_ns)
    lowest, width, counts = histograms.filled_buckets(histogram)
    slow = [(item.value_iterated_to, item.count_at_value_iterated_to) for item in histogram]
    top = [int(low + size - 1) for low, size in zip(lowest, width, strict=True)]
    assert list(zip(top, counts.tolist(), strict=True)) == slow


@settings(max_examples=30)
@given(latencies_ns, st.lists(st.floats(0.001, 100), min_size=1, max_size=5))
def test_percentiles_are_those_of_the_library(values_ns: list[int], levels: list[float]) -> None:
    """Any level, hdrh's own rounding of the rank included."""
    histogram = recorded(values_ns)
    slow = histogram.get_percentile_to_value_dict(levels)
    assert histograms.percentiles_ns(histogram, levels) == [slow[level] for level in levels]


@given(st.lists(latencies_ns, max_size=4))
def test_merged_histogram_describes_all_values(parts: list[list[int]]) -> None:
    """Merging after a trip through text equals recording everything into one histogram."""
    merged = histograms.merge(histograms.decode(histograms.encode(recorded(p))) for p in parts)
    everything = recorded([value for part in parts for value in part])
    assert histograms.describe_ms(merged) == histograms.describe_ms(everything)
    assert merged.get_total_count() == everything.get_total_count()


def test_empty_histogram_has_no_figures() -> None:
    """Nothing recorded gives None throughout, and a mean of nothing raises."""
    empty = new_histogram()
    assert set(histograms.describe_ms(empty).values()) == {None}
    with pytest.raises(ValueError, match="empty"):
        histograms.mean_ms(empty)
    with pytest.raises(ValueError, match="empty"):
        histograms.percentiles_ns(empty, [50])


@pytest.mark.parametrize("text", ["", "xx", "HISTFAAA", "not base64 at all!"])
def test_decoding_something_else_is_refused(text: str) -> None:
    """Any other text raises one kind of error, whatever the library raised."""
    with pytest.raises(ValueError, match="HdrHistogram"):
        histograms.decode(text)
