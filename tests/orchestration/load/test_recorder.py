"""The recorder: exact to 0.1%, warm-up left out, every arrival accounted for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.load.plan import NS_PER_S, LoadPlan
from orchestration.load.recorder import NS_PER_MS, LatencyCounts, Recorder, Sample
from orchestration.load.results import new_histogram

PERCENTS = (1, 25, 50, 90, 95, 99, 99.9, 100)
START_NS = 5_000 * NS_PER_S
latencies_ns = st.lists(
    st.integers(min_value=0, max_value=3_000_000_000_000), min_size=1, max_size=200
)


@settings(deadline=None)
@given(latencies_ns)
def test_percentiles_are_the_exact_ones_to_a_thousandth(values_ns: list[int]) -> None:
    """Both the live percentiles and the histogram's agree with sorting all values."""
    counts = LatencyCounts()
    for value_ns in values_ns:
        counts.add(value_ns)
    ordered = sorted(values_ns)
    recorded_ns = counts.to_histogram().get_percentile_to_value_dict(list(PERCENTS))
    for percent, live_ns in zip(PERCENTS, counts.percentiles_ns(PERCENTS), strict=True):
        rank = max(math.floor(len(ordered) * percent / 100 + 0.5), 1)
        exact_ns = ordered[rank - 1]
        assert recorded_ns[percent] == pytest.approx(exact_ns, rel=1e-3)
        # Rounded half to even there: the neighbour is as good.
        neighbours_ns = ordered[max(rank - 2, 0) : rank + 1]
        assert any(live_ns == pytest.approx(value, rel=1e-3) for value in neighbours_ns)


@settings(deadline=None)
@given(latencies_ns)
def test_counters_are_hdr_histograms_own_buckets(values_ns: list[int]) -> None:
    """Counting first and converting later gives what HdrHistogram would have recorded."""
    counts, histogram = LatencyCounts(), new_histogram()
    for value_ns in values_ns:
        counts.add(value_ns)
        histogram.record_value(value_ns)
    converted = counts.to_histogram()
    assert list(converted.counts) == list(histogram.counts)
    assert converted.get_max_value() == histogram.get_max_value()


def test_percentiles_of_nothing_are_zero() -> None:
    """A second without a success has a row all the same."""
    assert LatencyCounts().percentiles_ns((50, 100)) == [0, 0]


def sample(
    offset_ms: float, *, late_ms: float = 0.5, service_ms: float = 2.0, error: str | None = None
) -> Sample:
    """A write that was due `offset_ms` after the start."""
    intended_ns = START_NS + round(offset_ms * NS_PER_MS)
    start_ns = intended_ns + round(late_ms * NS_PER_MS)
    return Sample("write", intended_ns, start_ns, start_ns + round(service_ms * NS_PER_MS), error)


def complete(recorder: Recorder, done: Sample) -> None:
    """Offers and ends one request."""
    recorder.offer(done.intended_start_ns)
    recorder.on_request(sample=done, request_type="write", exception=None)


def test_requests_due_in_the_warm_up_are_not_measured() -> None:
    """The intended start decides: one that ends after the warm-up still belongs to it."""
    recorder = Recorder(LoadPlan(warmup_s=1, duration_s=1), START_NS)
    complete(recorder, sample(999.9, service_ms=500))
    complete(recorder, sample(1000))
    result = recorder.result(stopped_ns=None, cpu_share=0.1)
    assert (result.offered, result.operations["write"].ok) == (1, 1)
    assert result.measured_s == 1.0
    assert not result.ended_early


def test_response_counts_from_the_intended_start() -> None:
    """Response = send delay + service, each in a histogram of its own."""
    recorder = Recorder(LoadPlan(warmup_s=0, duration_s=1), START_NS)
    complete(recorder, sample(10, late_ms=30, service_ms=2))
    histograms = recorder.result(stopped_ns=None, cpu_share=0).operations["write"].histograms
    found_ms = {name: h.get_value_at_percentile(50) / NS_PER_MS for name, h in histograms.items()}
    assert found_ms == pytest.approx({"response": 32, "service": 2, "send_delay": 30}, rel=1e-3)


def test_errors_count_by_code_and_stay_out_of_the_latencies() -> None:
    """A quick refusal must not make the store look quick."""
    recorder = Recorder(LoadPlan(warmup_s=0, duration_s=1), START_NS)
    complete(recorder, sample(1))
    complete(recorder, sample(2, error="outcome_unknown"))
    complete(recorder, sample(3, error="outcome_unknown"))
    write = recorder.result(stopped_ns=None, cpu_share=0).operations["write"]
    assert (write.ok, write.errors) == (1, {"outcome_unknown": 2})
    assert write.histograms["response"].get_total_count() == 1


def test_every_arrival_is_completed_dropped_or_unfinished() -> None:
    """Nothing that was offered disappears."""
    recorder = Recorder(LoadPlan(warmup_s=0, duration_s=1), START_NS)
    complete(recorder, sample(1))
    for offset_ms in (2, 3, 4):
        recorder.offer(sample(offset_ms).intended_start_ns)
    recorder.drop(sample(4).intended_start_ns)
    row = recorder.take_row(START_NS + NS_PER_S)
    assert (row.offered, row.completed, row.dropped, row.in_flight) == (4, 1, 1, 2)
    result = recorder.result(stopped_ns=START_NS + NS_PER_S // 2, cpu_share=0)
    assert (result.offered, result.completed, result.dropped, result.unfinished) == (4, 1, 1, 2)
    assert result.ended_early
    assert result.measured_s == 0.5


def test_rows_hold_only_their_own_second_warm_up_included() -> None:
    """A timeline shows everything, each request once."""
    recorder = Recorder(LoadPlan(warmup_s=1, duration_s=1), START_NS)
    complete(recorder, sample(100, service_ms=4))
    first = recorder.take_row(START_NS + NS_PER_S)
    second = recorder.take_row(START_NS + 2 * NS_PER_S)
    assert (first.t_s, first.ok, second.t_s, second.ok) == (1.0, 1, 2.0, 0)
    assert first.response_max_ms == pytest.approx(4.5, rel=1e-3)
    assert second.response_p99_ms == 0


def test_requests_of_others_are_ignored() -> None:
    """A request event without our sample is somebody else's."""
    recorder = Recorder(LoadPlan(warmup_s=0, duration_s=1), START_NS)
    recorder.on_request(request_type="GET", name="/", response_time=1.0)
    assert recorder.result(stopped_ns=None, cpu_share=0).completed == 0
    assert recorder.in_flight == 0


def test_a_run_that_ends_by_count_has_measured_up_to_its_last_reply() -> None:
    """The seed's workload has no planned duration; its rate comes from the time it took."""
    recorder = Recorder(LoadPlan(rate_per_s=0, warmup_s=0, total_writes=2), START_NS)
    complete(recorder, sample(0, late_ms=0, service_ms=10))
    complete(recorder, sample(10, late_ms=0, service_ms=15))
    result = recorder.result(stopped_ns=None, cpu_share=0)
    assert result.measured_s == pytest.approx(0.025)
    assert result.completed_rate_per_s == pytest.approx(80)
    assert not result.ended_early


def test_stopping_a_run_without_an_end_is_not_early() -> None:
    """Duration 0 means until stopped."""
    recorder = Recorder(LoadPlan(warmup_s=0), START_NS)
    result = recorder.result(stopped_ns=START_NS + 3 * NS_PER_S, cpu_share=0)
    assert (result.ended_early, result.measured_s) == (False, 3.0)
