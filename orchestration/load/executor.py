"""Sends requests: open loop by a schedule, closed loop one after the other.

The open loop follows wrk2: a request is due when the schedule says so, whether or not earlier
ones have been answered, and its response time counts from then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import gevent
from gevent import get_hub
from gevent.hub import Waiter

from orchestration.load.alarm import best_alarm, now_ns
from orchestration.load.drivers import DriverError
from orchestration.load.plan import CLIENT_TIMEOUT_S, CONNECT_TIMEOUT_S, NS_PER_S
from orchestration.load.recorder import NS_PER_MS, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gevent import Greenlet

    from orchestration.load.recorder import Recorder

DRAIN_POLL_S = 0.005
# After the schedule's end every request has connected and answered, or timed out, by then.
DRAIN_LIMIT_S = CONNECT_TIMEOUT_S + CLIENT_TIMEOUT_S + 1.0


class RequestEvent(Protocol):
    """Locust's `request` event, as far as the load uses it."""

    def add_listener(self, handler: Callable[..., None]) -> object:
        """Calls `handler` for every request from now on."""

    def remove_listener(self, handler: Callable[..., None]) -> None:
        """Calls `handler` no more."""

    def fire(self, **kwargs: object) -> None:
        """Tells all listeners of a request."""


class Request(NamedTuple):
    """An operation's name to record it by, and the call that carries it out."""

    operation: str
    call: Callable[[], object]


class Sender:
    """Carries out one request at a time per caller, timed, and fires Locust's `request` event."""

    def __init__(self, request_event: RequestEvent) -> None:
        self._event = request_event

    def send(self, request: Request, intended_start_ns: int, is_seen: bool) -> None:  # noqa: FBT001 - as handed on
        """Sends now, and records what came of it."""
        failure: Exception | None = None
        start_ns = now_ns()
        try:
            request.call()
        except Exception as error:  # noqa: BLE001 - a fault of ours is counted too, never lost
            failure = error
        end_ns = now_ns()
        self._event.fire(
            request_type=request.operation,
            name="key-value store",
            response_time=(end_ns - intended_start_ns) / NS_PER_MS,
            response_length=0,
            exception=failure,
            context={},
            sample=Sample(
                request.operation,
                intended_start_ns,
                start_ns,
                end_ns,
                None if failure is None else _code(failure),
                is_seen,
            ),
        )


def _code(failure: Exception) -> str:
    return failure.code if isinstance(failure, DriverError) else "generator_error"


class _Worker:
    """A greenlet that sends what it is handed and then waits for more."""

    __slots__ = ("_back", "_sender", "_waiter", "greenlet")

    def __init__(self, sender: Sender, back: Callable[[_Worker], None]) -> None:
        self._sender = sender
        self._back = back
        self._waiter = Waiter()
        self.greenlet: Greenlet = gevent.spawn(self._run)

    def hand(self, *task: object) -> None:
        """Has the worker send, as `Sender.send` is told, once the caller lets go of the loop."""
        get_hub().loop.run_callback(self._waiter.switch, task)

    def _run(self) -> None:
        while True:
            task = self._waiter.get()
            self._waiter.clear()
            try:
                self._sender.send(*task)
            finally:
                self._back(self)


class OpenLoop:
    """Sends requests when they are due, at most `in_flight_limit` at a time."""

    def __init__(self, *, sender: Sender, recorder: Recorder, in_flight_limit: int) -> None:
        self._sender = sender
        self._recorder = recorder
        self._in_flight_limit = in_flight_limit
        self._workers: list[_Worker] = []
        # The last to become idle is the first to work again: few stay warm, with few connections.
        self._idle: list[_Worker] = []

    def run(
        self, start_ns: int, offsets_ns: Iterator[int], next_request: Callable[[], Request]
    ) -> None:
        """Follows the schedule to its end, then waits for what is in flight, but not for ever."""
        alarm = best_alarm()
        try:
            for offset_ns in offsets_ns:
                # Chosen before it is due: that is the generator's work, not the request's.
                request = next_request()
                intended_start_ns = start_ns + offset_ns
                alarm.sleep_until(intended_start_ns)
                self._dispatch(request, intended_start_ns)
        finally:
            alarm.close()
        self._drain()

    def close(self) -> None:
        """Ends all workers; requests in flight stay unfinished."""
        gevent.killall([worker.greenlet for worker in self._workers])

    def _dispatch(self, request: Request, intended_start_ns: int) -> None:
        is_seen = self._recorder.offer(intended_start_ns)
        if self._idle:
            worker = self._idle.pop()
        elif len(self._workers) < self._in_flight_limit:
            worker = _Worker(self._sender, self._idle.append)
            self._workers.append(worker)
        else:
            self._recorder.drop(intended_start_ns, is_seen=is_seen)
            return
        worker.hand(request, intended_start_ns, is_seen)

    def _drain(self) -> None:
        deadline_ns = now_ns() + round(DRAIN_LIMIT_S * NS_PER_S)
        # One more turn of the loop for those that were handed a request just now.
        gevent.sleep(0)
        while len(self._idle) < len(self._workers) and now_ns() < deadline_ns:
            gevent.sleep(DRAIN_POLL_S)


class ClosedLoop:
    """Turns that users take: back to back, until time or the number of requests is up."""

    def __init__(
        self,
        *,
        sender: Sender,
        recorder: Recorder,
        end_ns: int | None,
        requests: int | None,
    ) -> None:
        self._sender = sender
        self._recorder = recorder
        self._end_ns = end_ns
        self._requests_left = requests
        self._users = 0

    def run(self, next_request: Callable[[], Request]) -> bool:
        """Sends one user's requests; true for the last user to leave, when all is done."""
        self._users += 1
        try:
            while self._take_turn():
                request = next_request()
                intended_start_ns = now_ns()
                is_seen = self._recorder.offer(intended_start_ns)
                self._sender.send(request, intended_start_ns, is_seen)
        finally:
            self._users -= 1
        return self._users == 0

    def _take_turn(self) -> bool:
        if self._end_ns is not None and now_ns() >= self._end_ns:
            return False
        if self._requests_left is None:
            return True
        if self._requests_left == 0:
            return False
        self._requests_left -= 1
        return True
