"""Turns the requests of one process into its result and its timeline.

Knows neither Locust nor gevent: it is told of arrivals by the executor, and of results through
a keyword argument of Locust's `request` event. Counting a request costs a few microseconds and
no memory: latencies go into counters per HdrHistogram bucket.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from orchestration.load.plan import NS_PER_S
from orchestration.load.results import (
    QUANTITIES,
    OperationResult,
    TimelineRow,
    TrialResult,
    new_histogram,
)
from orchestration.load.waiting import WaitingClients

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hdrh.histogram import HdrHistogram

    from orchestration.load.plan import LoadPlan, Share

NS_PER_MS = 1_000_000
# HdrHistogram keeps 3 significant digits by 2048 sub-buckets (11 bits).
_SUB_BUCKET_BITS = 11


class Sample(NamedTuple):
    """One finished request; times on the process's monotonic clock, error a code or None."""

    operation: str
    intended_start_ns: int
    start_ns: int
    end_ns: int
    error: str | None
    is_seen: bool = False
    """Whether a client that waits for its answers would have sent it."""


class LatencyCounts:
    """A histogram as counters of the buckets in use: quick to add to, sorted only when read.

    Buckets are HdrHistogram's own (lowest 1 ns, 3 digits), so nothing is lost on the way into
    one. Percentiles of a second's requests take microseconds, where HdrHistogram walks through
    all its 33,000 counters, long enough to delay the requests that it measures.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, value_ns: int) -> None:
        """Counts one value, 0 or more."""
        shift = value_ns.bit_length() - _SUB_BUCKET_BITS
        if shift > 0:
            value_ns = value_ns >> shift << shift
        counts = self._counts
        counts[value_ns] = counts.get(value_ns, 0) + 1

    def percentiles_ns(self, percents: Iterable[float]) -> list[int]:
        """The values at ascending percentiles (0 to 100], to 0.1%; zeros if nothing was added."""
        buckets = sorted(self._counts.items())
        total = sum(self._counts.values())
        return [_value_at(buckets, max(round(total * percent / 100), 1)) for percent in percents]

    def to_histogram(self) -> HdrHistogram:
        """The same as an HdrHistogram."""
        histogram = new_histogram()
        for value_ns, count in self._counts.items():
            histogram.record_value(value_ns, count)
        return histogram


def _value_at(buckets: list[tuple[int, int]], rank: int) -> int:
    for value_ns, count in buckets:
        rank -= count
        if rank <= 0:
            return value_ns
    return 0


class _OperationCounts:
    """One operation's successes, errors and latencies so far."""

    __slots__ = ("errors", "ok", "response", "send_delay", "service", "uncorrected")

    def __init__(self) -> None:
        self.ok = 0
        self.errors: dict[str, int] = {}
        self.response = LatencyCounts()
        self.service = LatencyCounts()
        self.send_delay = LatencyCounts()
        self.uncorrected = LatencyCounts()

    def result(self) -> OperationResult:
        histograms = {name: getattr(self, name).to_histogram() for name in QUANTITIES}
        return OperationResult(ok=self.ok, errors=self.errors, histograms=histograms)


class Recorder:
    """Counts one process's requests.

    Invariant: offered = dropped + completed + in flight, for the run and for the measured
    window alike. A request belongs to the window by its intended start, whenever it ends.
    """

    def __init__(self, plan: LoadPlan, start_ns: int, share: Share | None = None) -> None:
        self._start_ns = start_ns
        self._window_start_ns = start_ns + plan.warmup_ns
        self._plan = plan
        self._operations: dict[str, _OperationCounts] = {}
        self._offered = 0
        self._dropped = 0
        self._measured_completed = 0
        self._window_end_ns = math.inf
        if plan.end_ns is not None and not plan.total_writes:
            self._window_end_ns = start_ns + plan.end_ns
        self._open_at_start = 0
        self._ended_in_window = self._ok_in_window = 0
        self._recorded = 0
        self._last_end_ns = start_ns
        self.in_flight = 0
        self._second = _Second()
        self._clients = WaitingClients(plan.rate_per_s / (share.count if share else 1))

    def offer(self, intended_start_ns: int) -> bool:
        """An arrival is due; `on_request` or `drop` follows.

        Returns:
            Whether a client that waits for its answers would have sent it.
        """
        self.in_flight += 1
        self._second.offered += 1
        if intended_start_ns >= self._window_start_ns:
            self._offered += 1
        else:
            self._open_at_start += 1
        return self._clients.begin()

    def drop(self, intended_start_ns: int, *, is_seen: bool) -> None:
        """The arrival was not sent, because too many were in flight."""
        if is_seen:
            self._clients.end()
        self.in_flight -= 1
        self._second.dropped += 1
        if intended_start_ns >= self._window_start_ns:
            self._dropped += 1
        else:
            self._open_at_start -= 1

    def on_request(self, sample: Sample | None = None, **_: object) -> None:
        """Listens to Locust's `request` event; requests without a sample are not ours."""
        if sample is None:
            return
        self.in_flight -= 1
        self._recorded += 1
        response_ns = sample.end_ns - sample.intended_start_ns
        service_ns = sample.end_ns - sample.start_ns
        self._clients.learn(service_ns)
        if sample.is_seen:
            self._clients.end()
        self._second.add(response_ns, sample.error)
        self._count_end(sample)
        if sample.intended_start_ns < self._window_start_ns:
            return
        self._measured_completed += 1
        self._last_end_ns = max(self._last_end_ns, sample.end_ns)
        counts = self._operations.get(sample.operation)
        if counts is None:
            counts = self._operations[sample.operation] = _OperationCounts()
        if sample.error is not None:
            counts.errors[sample.error] = counts.errors.get(sample.error, 0) + 1
            return
        counts.ok += 1
        counts.response.add(response_ns)
        counts.service.add(service_ns)
        if sample.is_seen:
            counts.uncorrected.add(service_ns)
        counts.send_delay.add(sample.start_ns - sample.intended_start_ns)

    def _count_end(self, sample: Sample) -> None:
        """Counts by when a request ended, whenever it was due."""
        if sample.end_ns < self._window_start_ns:
            self._open_at_start -= 1
        elif sample.end_ns < self._window_end_ns:
            self._ended_in_window += 1
            self._ok_in_window += sample.error is None

    def take_row(self, now_ns: int) -> TimelineRow:
        """What happened since the last row."""
        row = self._second.row((now_ns - self._start_ns) / NS_PER_S, self.in_flight)
        self._second = _Second()
        return row

    def result(self, *, stopped_ns: int | None, cpu_share: float, lag_ms: float) -> TrialResult:
        """The process's result.

        Args:
            stopped_ns: when the run was stopped before its plan was done; None if it was done,
                which only a plan that `has_end` can be.
            cpu_share: of one core, 0 to 1, that this process used.
            lag_ms: how late its event loop was, 99th percentile.
        """
        return TrialResult(
            operations={name: counts.result() for name, counts in self._operations.items()},
            offered=self._offered,
            dropped=self._dropped,
            unfinished=self._offered - self._dropped - self._measured_completed,
            measured_s=self._measured_ns(stopped_ns) / NS_PER_S,
            generator_cpu_share=cpu_share,
            generator_lag_ms=lag_ms,
            ended_early=stopped_ns is not None and self._plan.has_end,
            recorded=self._recorded,
            ok_in_window=self._ok_in_window,
            open_at_start=self._open_at_start,
            open_at_end=self._open_at_start + self._offered - self._dropped - self._ended_in_window,
        )

    def _measured_ns(self, stopped_ns: int | None) -> int:
        # A run that ends by count, or is stopped, has measured up to then; one that kept to its
        # schedule has measured the scheduled window, however late the last reply came.
        ends_ns = []
        if self._plan.end_ns is not None:
            ends_ns.append(self._start_ns + self._plan.end_ns)
        if stopped_ns is not None:
            ends_ns.append(stopped_ns)
        elif self._plan.total_writes:
            ends_ns.append(self._last_end_ns)
        return max(min(ends_ns) - self._window_start_ns, 0)


class _Second:
    """The timeline row in the making."""

    __slots__ = ("dropped", "errors", "offered", "ok", "response")

    def __init__(self) -> None:
        self.offered = self.dropped = self.ok = self.errors = 0
        self.response = LatencyCounts()

    def add(self, response_ns: int, error: str | None) -> None:
        if error is None:
            self.ok += 1
            self.response.add(response_ns)
        else:
            self.errors += 1

    def row(self, t_s: float, in_flight: int) -> TimelineRow:
        p50_ns, p99_ns, max_ns = self.response.percentiles_ns((50, 99, 100))
        return TimelineRow(
            t_s=t_s,
            offered=self.offered,
            completed=self.ok + self.errors,
            ok=self.ok,
            errors=self.errors,
            dropped=self.dropped,
            in_flight=in_flight,
            response_p50_ms=p50_ns / NS_PER_MS,
            response_p99_ms=p99_ns / NS_PER_MS,
            response_max_ms=max_ns / NS_PER_MS,
        )
