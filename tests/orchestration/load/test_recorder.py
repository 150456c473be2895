"""The recorder: exact to 0.1%, warm-up left out, every arrival accounted for."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.analysis.histograms import describe_ms, percentiles_ns
from orchestration.load.plan import NS_PER_S, LoadPlan, Share
from orchestration.load.recorder import NS_PER_MS, LatencyCounts, Recorder, Sample
from orchestration.load.results import new_histogram, read_trial

if TYPE_CHECKING:
    from pathlib import Path

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
    is_seen = recorder.offer(done.intended_start_ns)
    done = done._replace(is_seen=is_seen)
    recorder.on_request(sample=done, request_type="write", exception=None)


def test_requests_due_in_the_warm_up_are_not_measured() -> None:
    """The intended start decides: one that ends after the warm-up still belongs to it."""
    recorder = Recorder(LoadPlan(warmup_s=1, duration_s=1), START_NS)
    complete(recorder, sample(999.9, service_ms=500))
    complete(recorder, sample(1000))
    result = recorder.result(stopped_ns=None, cpu_share=0.1, lag_ms=0)
    assert (result.offered, result.operations["write"].ok) == (1, 1)
    assert result.measured_s == 1.0
    assert not result.ended_early


def test_response_counts_from_the_intended_start() -> None:
    """Response = send delay + service, each in a histogram of its own."""
    recorder = Recorder(LoadPlan(warmup_s=0, duration_s=1), START_NS)
    complete(recorder, sample(10, late_ms=30, service_ms=2))
    histograms = (
        recorder.result(stopped_ns=None, cpu_share=0, lag_ms=0).operations["write"].histograms
    )
    found_ms = {
        name: histogram.get_value_at_percentile(50) / NS_PER_MS
        for name, histogram in histograms.items()
        if histogram.get_total_count()
    }
    assert found_ms == pytest.approx({"response": 32, "service": 2, "send_delay": 30}, rel=1e-3)


def test_errors_count_by_code_and_stay_out_of_the_latencies() -> None:
    """A quick refusal must not make the store look quick."""
    recorder = Recorder(LoadPlan(warmup_s=0, duration_s=1), START_NS)
    complete(recorder, sample(1))
    complete(recorder, sample(2, error="outcome_unknown"))
    complete(recorder, sample(3, error="outcome_unknown"))
    write = recorder.result(stopped_ns=None, cpu_share=0, lag_ms=0).operations["write"]
    assert (write.ok, write.errors) == (1, {"outcome_unknown": 2})
    assert write.histograms["response"].get_total_count() == 1


def test_every_arrival_is_completed_dropped_or_unfinished() -> None:
    """Nothing that was offered disappears."""
    recorder = Recorder(LoadPlan(warmup_s=0, duration_s=1), START_NS)
    complete(recorder, sample(1))
    for offset_ms in (2, 3, 4):
        recorder.offer(sample(offset_ms).intended_start_ns)
    recorder.drop(sample(4).intended_start_ns, is_seen=False)
    row = recorder.take_row(START_NS + NS_PER_S)
    assert (row.offered, row.completed, row.dropped, row.in_flight) == (4, 1, 1, 2)
    result = recorder.result(stopped_ns=START_NS + NS_PER_S // 2, cpu_share=0, lag_ms=0)
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
    assert recorder.result(stopped_ns=None, cpu_share=0, lag_ms=0).completed == 0
    assert recorder.in_flight == 0


def test_a_run_that_ends_by_count_has_measured_up_to_its_last_reply() -> None:
    """The seed's workload has no planned duration; its rate comes from the time it took."""
    recorder = Recorder(LoadPlan(rate_per_s=0, warmup_s=0, total_writes=2), START_NS)
    complete(recorder, sample(0, late_ms=0, service_ms=10))
    complete(recorder, sample(10, late_ms=0, service_ms=15))
    result = recorder.result(stopped_ns=None, cpu_share=0, lag_ms=0)
    assert result.measured_s == pytest.approx(0.025)
    assert result.completed_rate_per_s == pytest.approx(80)
    assert not result.ended_early


def test_stopping_a_run_without_an_end_is_not_early() -> None:
    """Duration 0 means until stopped."""
    recorder = Recorder(LoadPlan(warmup_s=0), START_NS)
    result = recorder.result(stopped_ns=START_NS + 3 * NS_PER_S, cpu_share=0, lag_ms=0)
    assert (result.ended_early, result.measured_s) == (False, 3.0)


def test_percentiles_of_a_million_latencies_are_exact_however_many_workers(tmp_path: Path) -> None:
    """Up to p99.99 within a thousandth, and four processes' results merged are those of one."""
    exponents = np.random.default_rng(4).uniform(np.log(50e3), np.log(5e9), 1_000_000)
    latencies_ns = np.exp(exponents).astype(np.int64)
    plan = LoadPlan(rate_per_s=0, warmup_s=0, duration_s=1)
    for folder, workers in (("one", 1), ("four", 4)):
        (tmp_path / folder).mkdir()
        for index in range(workers):
            recorder = Recorder(plan, START_NS, Share(index, workers))
            for latency_ns in latencies_ns[index::workers].tolist():
                recorder.on_request(
                    sample=Sample("write", START_NS, START_NS, START_NS + latency_ns, None)
                )
            recorder.result(stopped_ns=None, cpu_share=0, lag_ms=0).write(tmp_path / folder, index)
    one, four = (
        read_trial(tmp_path / folder, workers).operations["write"].histograms["response"]
        for folder, workers in (("one", 1), ("four", 4))
    )
    assert list(one.counts) == list(four.counts)
    levels = (1, 50, 90, 99, 99.9, 99.99)
    exact = np.percentile(latencies_ns, levels, method="inverted_cdf")
    assert percentiles_ns(one, levels) == pytest.approx(exact.tolist(), rel=1e-3)


def test_waiting_clients_miss_what_came_during_a_stall() -> None:
    """A second in which the store stood still delays each of them once: the others never asked."""
    rate_per_s, count = 200, 2_000
    recorder = Recorder(LoadPlan(rate_per_s=rate_per_s, warmup_s=0, duration_s=10), START_NS)
    # The store answers in 2 ms, but for the fifth second, in which it answers nobody.
    arrivals = [
        sample(due_ms, late_ms=0, service_ms=6_000 - due_ms if 5_000 <= due_ms < 6_000 else 2)
        for due_ms in range(0, 1_000 * count // rate_per_s, 1_000 // rate_per_s)
    ]
    play(recorder, arrivals)
    result = recorder.result(stopped_ns=None, cpu_share=0, lag_ms=0)
    histograms = result.operations["write"].histograms
    assert describe_ms(histograms["response"])["p99"] == pytest.approx(900, rel=0.01)
    assert describe_ms(histograms["response"])["max"] == pytest.approx(1_000, rel=0.01)
    assert describe_ms(histograms["uncorrected"])["p99"] == pytest.approx(2, rel=0.01)


def test_a_store_that_falls_behind_does_not_seem_to_keep_up() -> None:
    """Answers that come after the window are those of a backlog, and not achieved in it."""
    recorder = Recorder(LoadPlan(rate_per_s=1_000, warmup_s=1, duration_s=4), START_NS)
    # 1,000 requests come in a second, and 800 are answered.
    play(recorder, [sample(due_ms, late_ms=0, service_ms=due_ms / 4) for due_ms in range(5_000)])
    result = recorder.result(stopped_ns=None, cpu_share=0, lag_ms=0)
    assert result.offered_rate_per_s == 1_000
    assert result.ok_rate_per_s == pytest.approx(800, rel=0.01)
    assert result.operations["write"].ok == 4_000
    assert (result.open_at_start, result.open_at_end) == pytest.approx((200, 1_000), abs=2)


def test_a_steady_store_achieves_its_rate_however_long_it_takes() -> None:
    """What was due before the window and ended in it makes up for what ends after it."""
    recorder = Recorder(LoadPlan(rate_per_s=1_000, warmup_s=1, duration_s=2), START_NS)
    play(recorder, [sample(due_ms, late_ms=0, service_ms=500) for due_ms in range(3_000)])
    result = recorder.result(stopped_ns=None, cpu_share=0, lag_ms=0)
    assert result.ok_rate_per_s == pytest.approx(1_000, rel=0.01)
    assert (result.open_at_start, result.open_at_end) == pytest.approx((500, 500), abs=1)


def play(recorder: Recorder, arrivals: list[Sample]) -> None:
    """Tells a recorder of arrivals and answers in the order of time."""
    ends: list[tuple[int, int, Sample]] = []
    for index, arrival in enumerate(arrivals):
        while ends and ends[0][0] <= arrival.intended_start_ns:
            recorder.on_request(sample=heapq.heappop(ends)[2])
        is_seen = recorder.offer(arrival.intended_start_ns)
        heapq.heappush(ends, (arrival.end_ns, index, arrival._replace(is_seen=is_seen)))
    while ends:
        recorder.on_request(sample=heapq.heappop(ends)[2])
