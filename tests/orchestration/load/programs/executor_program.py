"""Runs one executor case against a fake driver and prints what happened as JSON.

A program of its own since gevent must stay out of pytest's process.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event

from orchestration.load.alarm import LoopAlarm, best_alarm, now_ns
from orchestration.load.drivers import DriverError
from orchestration.load.executor import ClosedLoop, OpenLoop, Request, Sender
from orchestration.load.plan import NS_PER_S, LoadPlan, Share
from orchestration.load.recorder import Recorder, Sample
from orchestration.load.schedule import arrival_offsets_ns

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeRequestEvent:
    """Keeps the samples that Locust's listeners would see."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def add_listener(self, handler: Callable[..., None]) -> None:
        """Nobody listens."""

    def remove_listener(self, handler: Callable[..., None]) -> None:
        """Nobody listened."""

    def fire(self, *, sample: Sample, **_: object) -> None:
        """Keeps the sample."""
        self.samples.append(sample)


def open_loop(
    call: Callable[[], object],
    *,
    rate_per_s: float,
    duration_s: float,
    in_flight_limit: int = 1000,
    while_running: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Follows a constant schedule; `call` is the driver."""
    plan = LoadPlan(rate_per_s=rate_per_s, warmup_s=0, duration_s=duration_s)
    event = FakeRequestEvent()
    start_ns = now_ns()
    recorder = Recorder(plan, start_ns)
    loop = OpenLoop(sender=Sender(event), recorder=recorder, in_flight_limit=in_flight_limit)
    if while_running is not None:
        gevent.spawn(while_running)
    offsets_ns = arrival_offsets_ns(plan, Share())
    loop.run(start_ns, offsets_ns, lambda: Request("write", call))
    loop.close()
    for sample in event.samples:
        recorder.on_request(sample=sample)
    result = recorder.result(stopped_ns=None, cpu_share=0, lag_ms=0)
    return {
        "offered": result.offered,
        "dropped": result.dropped,
        "unfinished": result.unfinished,
        "samples": [as_ms(sample, start_ns) for sample in event.samples],
    }


def as_ms(sample: Sample, start_ns: int) -> dict[str, Any]:
    """A sample for JSON."""
    return {
        "intended_ms": (sample.intended_start_ns - start_ns) / 1e6,
        "send_delay_ms": (sample.start_ns - sample.intended_start_ns) / 1e6,
        "service_ms": (sample.end_ns - sample.start_ns) / 1e6,
        "response_ms": (sample.end_ns - sample.intended_start_ns) / 1e6,
        "error": sample.error,
    }


def generator_stall() -> dict[str, Any]:
    """The first request holds up the whole process for half a second."""
    calls = iter(range(10_000))

    def call() -> None:
        if next(calls) == 0:
            time.sleep(0.5)  # not gevent's: nothing else runs

    return open_loop(call, rate_per_s=100, duration_s=0.6)


def store_stall() -> dict[str, Any]:
    """The store answers nobody until half a second has passed."""
    thawed = Event()

    def thaw() -> None:
        gevent.sleep(0.5)
        thawed.set()

    return open_loop(thawed.wait, rate_per_s=100, duration_s=0.6, while_running=thaw)


def overflow() -> dict[str, Any]:
    """The store answers nobody until the schedule is over, and 5 requests may be open."""
    answered = Event()

    def answer() -> None:
        gevent.sleep(0.5)
        answered.set()

    return open_loop(
        answered.wait, rate_per_s=200, duration_s=0.3, in_flight_limit=5, while_running=answer
    )


def reuse() -> dict[str, Any]:
    """Ten slow answers, then quick ones: how many greenlets, so connections, serve the quick?

    A machine that is in use sends late, and then several at once, for which as many are needed:
    so it also tells the most that were ever open together.
    """
    slow = 10
    calls = iter(range(10_000))
    ended_slow = open_now = most_open = 0
    quick_greenlets = set()

    def call() -> None:
        nonlocal ended_slow, open_now, most_open
        if next(calls) < slow:
            gevent.sleep(0.3)
            ended_slow += 1
            return
        open_now += 1
        if ended_slow == slow:
            quick_greenlets.add(gevent.getcurrent())
            most_open = max(most_open, open_now)
        gevent.sleep(0.001)
        open_now -= 1

    done = open_loop(call, rate_per_s=50, duration_s=1.2)
    return done | {"workers": len(quick_greenlets), "most_open": most_open}


def failures() -> dict[str, Any]:
    """The driver raises its own error, and one that it should not."""
    errors = iter([DriverError("outcome_unknown", definite=False), ZeroDivisionError("a fault")])

    def call() -> None:
        error = next(errors, None)
        if error is not None:
            raise error

    return open_loop(call, rate_per_s=100, duration_s=0.05)


def alarms() -> dict[str, Any]:
    """How late each kind of alarm is, and whether others ran while it slept."""
    kinds = [best_alarm(), LoopAlarm()]
    lateness_ns, turns = [], 0

    def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    bystander = gevent.spawn(others)
    for alarm in kinds:
        for delay_ns in (-NS_PER_S, 0, 1, 1_000, 300_000, 2_500_000):
            due_ns, turns_before = now_ns() + delay_ns, turns
            alarm.sleep_until(due_ns)
            lateness_ns.append(now_ns() - due_ns)
            if turns == turns_before:
                raise RuntimeError(f"{alarm} let nobody else run")
        alarm.close()
    bystander.kill()
    return {"earliest_ns": min(lateness_ns)}


def closed_loop() -> dict[str, Any]:
    """Three users share 20 requests."""
    event = FakeRequestEvent()
    plan = LoadPlan(rate_per_s=0, warmup_s=0, total_writes=20)
    recorder = Recorder(plan, now_ns())
    loop = ClosedLoop(sender=Sender(event), recorder=recorder, end_ns=None, requests=20)
    open_now = most = 0

    def call() -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        gevent.sleep(0.001)
        open_now -= 1

    users = [gevent.spawn(loop.run, lambda: Request("write", call)) for _ in range(3)]
    gevent.joinall(users, raise_error=True)
    lasts = [user.value for user in users]
    return {"sent": len(event.samples), "most_open": most, "last_leavers": sum(lasts)}


def closed_loop_time() -> dict[str, Any]:
    """One user until time is up."""
    event = FakeRequestEvent()
    start_ns = now_ns()
    recorder = Recorder(LoadPlan(rate_per_s=0, warmup_s=0, duration_s=0.1), start_ns)
    end_ns = start_ns + NS_PER_S // 10
    loop = ClosedLoop(sender=Sender(event), recorder=recorder, end_ns=end_ns, requests=None)
    loop.run(lambda: Request("write", lambda: gevent.sleep(0.005)))
    return {"samples": [as_ms(sample, start_ns) for sample in event.samples]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[1]]()))
