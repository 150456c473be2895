"""One run of one load process: the plan, what carries it out, and what it leaves behind."""

from __future__ import annotations

import gc
import logging
import time
from typing import TYPE_CHECKING

import gevent

from orchestration.load.alarm import now_ns
from orchestration.load.drivers.http_kv import HttpKvDriver
from orchestration.load.executor import ClosedLoop, OpenLoop, Sender
from orchestration.load.lag import LoopLag
from orchestration.load.plan import NS_PER_S
from orchestration.load.recorder import NS_PER_MS, Recorder
from orchestration.load.results import TimelineWriter, TrialResult, timeline_path
from orchestration.load.schedule import arrival_offsets_ns
from orchestration.load.workload import InsertedKeys, node_chooser

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gevent import Greenlet

    from orchestration.load.executor import Request, RequestEvent
    from orchestration.load.plan import LoadPlan, Share

# From the dispatching user's start to the first arrival: time to set the stage.
START_LEAD_NS = 20 * NS_PER_MS
TIMELINE_INTERVAL_NS = NS_PER_S

logger = logging.getLogger(__name__)


class Run:
    """What Locust's hooks share of one run in one process, from its start to its results."""

    def __init__(
        self,
        *,
        plan: LoadPlan,
        share: Share,
        url: str,
        token: str | None,
        folder: Path | None,
        request_event: RequestEvent,
        on_done: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.leader = HttpKvDriver(url, token=token)
        self.inserted = InsertedKeys(plan, share)
        self._share = share
        self._folder = folder
        self._request_event = request_event
        self._on_done = on_done
        self._readers = _readers(self.leader, plan, token)
        self._next_node = node_chooser(plan, share.index, len(self._readers))
        self._streams = 0
        self._has_dispatcher = False
        self._has_idle_users = False
        self._measurement: _Measurement | None = None
        # What Locust has imported is here to stay: unfrozen, each full collection goes through
        # it all and holds up requests for tens of milliseconds.
        gc.collect()
        gc.freeze()

    def next_stream(self) -> int:
        """A number for a user's random streams, unique over all processes."""
        stream = self._share.index + self._streams * self._share.count
        self._streams += 1
        return stream

    def next_reader(self) -> HttpKvDriver:
        """The node to read from next."""
        return self._readers[self._next_node()]

    def take_part(self, next_request: Callable[[], Request], *, closed: bool) -> None:
        """Sends one user's requests; returns when there is nothing left for this user to do."""
        closed = closed or not self.plan.is_open_loop
        measurement = self._begun(0 if closed else START_LEAD_NS)
        if closed:
            if measurement.closed_loop.run(next_request):
                self._done(measurement)
        elif self._has_dispatcher:
            self._say_idle()
        else:
            self._has_dispatcher = True
            offsets_ns = arrival_offsets_ns(self.plan, self._share)
            measurement.open_loop.run(measurement.start_ns, offsets_ns, next_request)
            self._done(measurement)

    def close(self) -> TrialResult | None:
        """Ends what still runs and writes the results; None if no user ever started."""
        measurement, self._measurement = self._measurement, None
        if measurement is None:
            return None
        self._request_event.remove_listener(measurement.recorder.on_request)
        result = measurement.close()
        if self._folder is not None:
            result.write(self._folder, self._share.index)
        _log_summary(result)
        for driver in {self.leader, *self._readers}:
            driver.close()
        gc.unfreeze()
        return result

    def _begun(self, lead_ns: int) -> _Measurement:
        if self._measurement is None:
            self._measurement = _Measurement(
                self.plan,
                self._share,
                sender=Sender(self._request_event),
                folder=self._folder,
                start_ns=now_ns() + lead_ns,
            )
            self._request_event.add_listener(self._measurement.recorder.on_request)
        return self._measurement

    def _say_idle(self) -> None:
        if self._has_idle_users:
            return
        self._has_idle_users = True
        logger.warning(
            "One user follows the schedule of %g requests/s: further ones add no load. "
            "For clients that send back to back, set --rate 0.",
            self.plan.rate_per_s,
        )

    def _done(self, measurement: _Measurement) -> None:
        if not measurement.is_done:
            measurement.is_done = True
            self._on_done()


class _Measurement:
    """The part of a run that has a start: it begins with the first user."""

    def __init__(
        self, plan: LoadPlan, share: Share, *, sender: Sender, folder: Path | None, start_ns: int
    ) -> None:
        self.start_ns = start_ns
        self.is_done = False
        self.recorder = Recorder(plan, self.start_ns, share)
        self.open_loop = OpenLoop(
            sender=sender, recorder=self.recorder, in_flight_limit=plan.in_flight_limit(share)
        )
        self.closed_loop = ClosedLoop(
            sender=sender,
            recorder=self.recorder,
            end_ns=None if plan.end_ns is None else self.start_ns + plan.end_ns,
            requests=share.of_total(plan.total_writes) if plan.total_writes else None,
        )
        self._lag = LoopLag()
        self._cpu_start_ns = time.process_time_ns()
        self._timeline: TimelineWriter | None = None
        self._ticker: Greenlet | None = None
        if folder is not None:
            self._timeline = TimelineWriter(timeline_path(folder, share.index))
            self._ticker = gevent.spawn(self._tick, self._timeline)

    def close(self) -> TrialResult:
        ended_ns = now_ns()
        cpu_ns = time.process_time_ns() - self._cpu_start_ns
        if self._ticker is not None:
            self._ticker.kill()
        self.open_loop.close()
        if self._timeline is not None:
            self._timeline.append(self.recorder.take_row(ended_ns))
            self._timeline.close()
        return self.recorder.result(
            stopped_ns=None if self.is_done else ended_ns,
            cpu_share=min(cpu_ns / max(ended_ns - self.start_ns, 1), 1.0),
            lag_ms=self._lag.close(),
        )

    def _tick(self, timeline: TimelineWriter) -> None:
        due_ns = self.start_ns
        while True:
            due_ns += TIMELINE_INTERVAL_NS
            gevent.sleep(max(due_ns - now_ns(), 0) / NS_PER_S)
            timeline.append(self.recorder.take_row(now_ns()))


def _readers(leader: HttpKvDriver, plan: LoadPlan, token: str | None) -> list[HttpKvDriver]:
    """The nodes that serve reads; followers are those that the leader knows."""
    if plan.read_from == "leader":
        return [leader]
    # Not from /admin/replica-status, for which every follower would dump its data.
    urls = list(leader.get_json("/admin/links")["links"])
    if not urls:
        msg = "--read-from followers: the leader has no followers; start some, or read from leader"
        raise ValueError(msg)
    return [HttpKvDriver(url, token=token) for url in urls]


def _log_summary(result: TrialResult) -> None:
    if not result.operations:
        logger.warning("Nothing was measured: no request was due after the warm-up.")
    for name, operation in result.operations.items():
        response = operation.histograms["response"]
        p50_ns, p99_ns = (response.get_value_at_percentile(percent) for percent in (50, 99))
        logger.info(
            "%s: %d ok, errors %s, dropped %d; response p50 %.3f ms, p99 %.3f ms",
            name,
            operation.ok,
            dict(operation.errors) or "none",
            result.dropped,
            p50_ns / NS_PER_MS,
            p99_ns / NS_PER_MS,
        )
