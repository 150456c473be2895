"""Result files: what is written comes back, merged results equal the whole, tails wait."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.load.results import (
    QUANTITIES,
    OperationResult,
    ResultsError,
    TimelineRow,
    TimelineTail,
    TimelineWriter,
    TrialResult,
    decode_histogram,
    merged_row,
    new_histogram,
    read_process,
    read_trial,
)

if TYPE_CHECKING:
    from pathlib import Path

    from hdrh.histogram import HdrHistogram

latencies_ns = st.lists(st.integers(min_value=0, max_value=3_600_000_000_000), max_size=60)


def histogram_of(values_ns: list[int]) -> HdrHistogram:
    """A histogram, filled the plain way."""
    histogram = new_histogram()
    for value_ns in values_ns:
        histogram.record_value(value_ns)
    return histogram


def operation_of(values_ns: list[int], errors: dict[str, int]) -> OperationResult:
    """An operation whose three latencies are all the same."""
    histograms = {name: histogram_of(values_ns) for name in QUANTITIES}
    return OperationResult(ok=len(values_ns), errors=errors, histograms=histograms)


def trial_of(
    operations: dict[str, OperationResult], *, offered: int = 10, ended_early: bool = False
) -> TrialResult:
    """A trial of 2 s."""
    return TrialResult(
        operations=operations,
        offered=offered,
        dropped=1,
        unfinished=2,
        measured_s=2.0,
        generator_cpu_share=0.25,
        ok_in_window=sum(operation.ok for operation in operations.values()),
        ended_early=ended_early,
    )


def shape(histogram: HdrHistogram) -> list[int]:
    """All that a histogram's figures are made of."""
    return [histogram.get_total_count(), histogram.get_max_value(), *histogram.counts]


@given(latencies_ns)
def test_histogram_decoded_from_its_text_is_the_same(values_ns: list[int]) -> None:
    """Nothing is lost on the way through base64, empty histograms included."""
    histogram = histogram_of(values_ns)
    decoded = decode_histogram(histogram.encode().decode())
    assert shape(decoded) == shape(histogram)


@settings(max_examples=50)
@given(st.lists(latencies_ns, min_size=1, max_size=4))
def test_merged_parts_equal_the_whole(parts: list[list[int]]) -> None:
    """No figure depends on how many processes recorded the values."""
    merged = TrialResult.merged(trial_of({"write": operation_of(part, {})}) for part in parts)
    whole = histogram_of([value_ns for part in parts for value_ns in part])
    for name in QUANTITIES:
        assert shape(merged.operations["write"].histograms[name]) == shape(whole)


def test_merged_counts_add_up_and_extremes_stand() -> None:
    """Counts add up; the window is one, the CPU share the busiest process's."""
    first = trial_of({"write": operation_of([1, 2], {"timeout": 1})}, offered=10)
    second = trial_of(
        {"write": operation_of([3], {"timeout": 2, "draining": 1}), "read": operation_of([4], {})},
        offered=11,
        ended_early=True,
    )
    merged = TrialResult.merged([first, second])
    assert merged.operations["write"].ok == 3
    assert merged.operations["write"].errors == {"timeout": 3, "draining": 1}
    assert merged.operations["read"].ok == 1
    assert (merged.offered, merged.dropped, merged.unfinished) == (21, 2, 4)
    assert (merged.measured_s, merged.generator_cpu_share) == (2.0, 0.25)
    assert merged.ended_early
    assert merged.completed == 8
    assert merged.offered_rate_per_s == 10.5
    assert merged.completed_rate_per_s == 4.0
    assert merged.ok_rate_per_s == 2.0


def test_rates_of_an_empty_window_are_zero() -> None:
    """A run that was stopped in its warm-up has no rate, and no division by zero."""
    empty = TrialResult.merged([])
    assert (empty.offered_rate_per_s, empty.completed_rate_per_s, empty.ok_rate_per_s) == (0, 0, 0)


def test_written_results_of_two_processes_are_read_as_one(tmp_path: Path) -> None:
    """What processes write is what the orchestrator reads, merged."""
    parts = [
        trial_of({"write": operation_of([5_000, 7_000_000], {"timeout": 1})}),
        trial_of({"write": operation_of([9_000_000_000], {})}),
    ]
    for index, part in enumerate(parts):
        part.write(tmp_path, index)
    read, merged = read_trial(tmp_path, 2), TrialResult.merged(parts)
    assert read.operations["write"].errors == {"timeout": 1}
    assert read.offered == merged.offered
    for name in QUANTITIES:
        assert shape(read.operations["write"].histograms[name]) == shape(
            merged.operations["write"].histograms[name]
        )


def test_every_figure_of_a_process_is_read_as_it_was_written(tmp_path: Path) -> None:
    """And of several processes counts add up, while the worst stands for generator and window."""
    first = TrialResult(
        operations={"write": operation_of([5_000], {})},
        offered=11,
        dropped=2,
        unfinished=3,
        measured_s=4.0,
        generator_cpu_share=0.5,
        ended_early=True,
        recorded=6,
        ok_in_window=7,
        open_at_start=8,
        open_at_end=9,
        generator_lag_ms=10.0,
    )
    second = TrialResult(
        operations={},
        offered=100,
        dropped=200,
        unfinished=300,
        measured_s=3.0,
        generator_cpu_share=0.75,
        ended_early=False,
        recorded=600,
        ok_in_window=700,
        open_at_start=800,
        open_at_end=900,
        generator_lag_ms=1.0,
    )
    paths = [first.write(tmp_path, 0), second.write(tmp_path, 1)]
    assert sorted(tmp_path.iterdir()) == paths  # and nothing half-written beside them
    for path, written in zip(paths, (first, second), strict=True):
        assert figures(read_process(path)) == figures(written)
    merged = read_trial(tmp_path, 2)
    assert figures(merged) == [111, 202, 303, 4.0, 0.75, True, 606, 707, 808, 909, 10.0]


def figures(result: TrialResult) -> list[float]:
    """All that a result holds beside its operations."""
    return [getattr(result, name.name) for name in fields(result) if name.name != "operations"]


def test_a_result_of_another_version_is_refused_with_both_numbers(tmp_path: Path) -> None:
    """Fields of one version may mean something else in another."""
    path = trial_of({}).write(tmp_path, 0)
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"schema": 1}), encoding="utf-8")
    with pytest.raises(ResultsError, match="schema 1; this version reads 2"):
        read_process(path)


def test_histograms_hold_a_nanosecond_to_an_hour_in_three_digits() -> None:
    """What one version wrote is merged with what another one does."""
    histogram = new_histogram()
    assert histogram.lowest_trackable_value == 1
    assert histogram.highest_trackable_value == 3_600_000_000_000
    assert histogram.significant_figures == 3


@pytest.mark.parametrize("text", [None, "", "{}", '{"schema": 99}', "[1]"])
def test_a_missing_or_damaged_result_is_refused_by_name(tmp_path: Path, text: str | None) -> None:
    """The message names the file that cannot be used."""
    path = tmp_path / "process-0.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match=r"process-0\.json"):
        read_process(path)


def row(t_s: float, **changes: float) -> TimelineRow:
    """A quiet second."""
    plain = TimelineRow(t_s, 100, 98, 97, 1, 2, 5, 1.5, 2.5, 3.5)
    return plain._replace(**changes)  # type: ignore[arg-type]


def test_tail_sees_rows_as_they_are_appended(tmp_path: Path) -> None:
    """Each row is readable at once, and read only once."""
    path = tmp_path / "timeline-0.csv"
    tail = TimelineTail(path)
    assert tail.new_rows() == []
    writer = TimelineWriter(path)
    assert tail.new_rows() == []
    writer.append(row(1.0))
    assert tail.new_rows() == [row(1.0)]
    writer.append(row(2.0))
    writer.append(row(3.0))
    assert tail.new_rows() == [row(2.0), row(3.0)]
    writer.close()
    assert tail.new_rows() == []


@settings(deadline=None)
@given(cut=st.integers(min_value=0, max_value=200))
def test_tail_waits_for_the_end_of_a_half_written_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """Wherever a write is cut in two, every row comes out once and whole."""
    folder = tmp_path_factory.mktemp("tail")
    writer = TimelineWriter(folder / "whole.csv")
    rows = [row(1.0), row(2.0, offered=12345)]
    for each in rows:
        writer.append(each)
    writer.close()
    data = (folder / "whole.csv").read_bytes()
    path = folder / "growing.csv"
    tail = TimelineTail(path)
    path.write_bytes(data[:cut])
    seen = tail.new_rows()
    path.write_bytes(data)
    assert seen + tail.new_rows() == rows


def test_merged_row_adds_counts_and_shows_the_worst_tail() -> None:
    """One line for all processes: counts add up, p99 and maximum are the worst."""
    merged = merged_row(
        [row(1.0, ok=30, response_p50_ms=1.0), row(1.1, ok=10, response_p50_ms=5.0)]
    )
    assert (merged.t_s, merged.offered, merged.ok, merged.in_flight) == (1.1, 200, 40, 10)
    assert merged.response_p50_ms == 2.0
    assert (merged.completed, merged.errors, merged.dropped) == (196, 2, 4)
    assert (merged.response_p99_ms, merged.response_max_ms) == (2.5, 3.5)


def test_merged_row_of_seconds_without_a_success_has_no_latency() -> None:
    """A store that answers nobody is shown, not divided by zero."""
    quiet = row(1.0, ok=0, response_p50_ms=0.0)
    assert merged_row([quiet, quiet]).response_p50_ms == 0
    assert merged_row([quiet, row(1.0, ok=1, response_p50_ms=4.0)]).response_p50_ms == 4.0
