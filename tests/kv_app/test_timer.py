"""The timers of links: once, at or after their time, and silent when closed."""

from __future__ import annotations

import asyncio
import select
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from kv_app import timer as timer_module
from kv_app.timer import NS_PER_MS, DescriptorTimer, LoopTimer, Timer, make_timer

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_LIMIT_S = 5.0
# The loop's clock may be a tick ahead of the time that it waits for.
LOOP_EARLY_NS = time.get_clock_info("monotonic").resolution * 1e9 + NS_PER_MS

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="timerfd is a call of Linux")
KINDS = [
    pytest.param(LoopTimer, LOOP_EARLY_NS, id="loop"),
    pytest.param(DescriptorTimer, 0, id="descriptor", marks=on_linux),
]
EVERY_KIND = pytest.mark.parametrize(("kind", "early_ns"), KINDS)


class Calls:
    """Notes when a timer calls, and lets a test wait for it."""

    def __init__(self) -> None:
        self.at_ns: list[int] = []
        self._came = asyncio.Event()

    def note(self) -> None:
        """Is what the timer calls."""
        self.at_ns.append(time.monotonic_ns())
        self._came.set()

    async def next(self) -> int:
        """Waits for one call more than before, and returns when it came."""
        async with asyncio.timeout(WAIT_LIMIT_S):
            await self._came.wait()
        self._came.clear()
        return self.at_ns[-1]


def with_timer(kind: Callable[..., Timer], check: Callable[[Timer, Calls], object]) -> None:
    """Runs a coroutine function with a timer in a loop, and closes the timer."""

    async def run() -> None:
        calls = Calls()
        timer = kind(asyncio.get_running_loop(), calls.note)
        try:
            await check(timer, calls)  # type: ignore[misc]
        finally:
            timer.close()

    asyncio.run(run())


@EVERY_KIND
def test_timer_calls_at_or_after_its_time(kind: type[LoopTimer], early_ns: int) -> None:
    """Whatever the distance, also across the millisecond, it is not early beyond its bound."""

    async def check(timer: Timer, calls: Calls) -> None:
        for wait_ns in (1_000, 300_000, 1_700_000, 4_000_000):
            due_ns = time.monotonic_ns() + wait_ns
            timer.arm(due_ns)
            assert await calls.next() >= due_ns - early_ns
        assert len(calls.at_ns) == 4

    with_timer(kind, check)


@EVERY_KIND
def test_timer_armed_for_the_past_calls_soon(kind: type[LoopTimer], early_ns: int) -> None:
    """What is overdue does not wait for ever, nor does a time of zero disarm the timer."""
    del early_ns

    async def check(timer: Timer, calls: Calls) -> None:
        for due_ns in (time.monotonic_ns() - 10 * NS_PER_MS, 0, -5):
            timer.arm(due_ns)
            await calls.next()
        assert len(calls.at_ns) == 3

    with_timer(kind, check)


@EVERY_KIND
def test_timer_armed_again_forgets_the_time_before(kind: type[LoopTimer], early_ns: int) -> None:
    """One timer serves a whole link: each arming replaces the last, earlier or later."""

    async def check(timer: Timer, calls: Calls) -> None:
        now_ns = time.monotonic_ns()
        timer.arm(now_ns + 3600 * 1000 * NS_PER_MS)
        timer.arm(now_ns + 2 * NS_PER_MS)
        due_ns = now_ns + 6 * NS_PER_MS
        timer.arm(due_ns)
        assert await calls.next() >= due_ns - early_ns
        assert len(calls.at_ns) == 1

    with_timer(kind, check)


@EVERY_KIND
def test_timer_closed_does_not_call_any_more(kind: type[LoopTimer], early_ns: int) -> None:
    """A link that is gone is left alone, even by a time that has come already; twice is fine."""
    del early_ns

    async def check(timer: Timer, calls: Calls) -> None:
        due_ns = time.monotonic_ns() + NS_PER_MS
        timer.arm(due_ns)
        while time.monotonic_ns() < due_ns + NS_PER_MS:
            pass  # the loop does not run meanwhile: the time has come, the call has not
        timer.close()
        timer.close()
        later = Calls()
        other = LoopTimer(asyncio.get_running_loop(), later.note)
        other.arm(time.monotonic_ns() + 2 * NS_PER_MS)
        await later.next()
        assert calls.at_ns == []

    with_timer(kind, check)


@on_linux
def test_descriptor_timer_armed_anew_after_it_fired_does_not_call_for_the_old_time() -> None:
    """Between the descriptor's wake and the callback the time may be set again."""

    async def check(timer: Timer, calls: Calls) -> None:
        timer.arm(1)
        fired_ns = time.monotonic_ns() + NS_PER_MS
        while time.monotonic_ns() < fired_ns:
            pass
        due_ns = time.monotonic_ns() + 100 * NS_PER_MS  # a busy machine may pause us for a while
        timer.arm(due_ns)
        assert isinstance(timer, DescriptorTimer)
        timer._on_readable()  # as the loop would, woken for the old one
        assert calls.at_ns == []
        assert await calls.next() >= due_ns

    with_timer(DescriptorTimer, check)


@on_linux
def test_descriptor_timer_hides_no_error_of_what_it_calls() -> None:
    """Only that there is nothing to be read is no error."""

    async def check(timer: Timer, _: Calls) -> None:
        def fail() -> None:
            raise BlockingIOError("of the callback")

        assert isinstance(timer, DescriptorTimer)
        timer._on_due = fail
        timer.arm(1)
        while not select.select([timer._fd], [], [], WAIT_LIMIT_S)[0]:
            pass
        with pytest.raises(BlockingIOError, match="of the callback"):
            timer._on_readable()

    with_timer(DescriptorTimer, check)


@on_linux
def test_make_timer_on_linux_is_the_exact_one() -> None:
    """The best that the system has is taken without being asked for."""

    async def check(timer: Timer, calls: Calls) -> None:
        del calls
        assert isinstance(timer, DescriptorTimer)

    with_timer(make_timer, check)


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_make_timer_elsewhere_is_the_portable_one(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other systems get the event loop's timer."""
    monkeypatch.setattr(timer_module, "sys", SimpleNamespace(platform=platform))

    async def check(timer: Timer, calls: Calls) -> None:
        del calls
        assert isinstance(timer, LoopTimer)

    with_timer(make_timer, check)


@on_linux
def test_make_timer_without_descriptors_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process at its limit of open files still sends what is due, only less exactly."""

    def refuse(*_: object) -> DescriptorTimer:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(timer_module, "DescriptorTimer", refuse)

    async def check(timer: Timer, calls: Calls) -> None:
        timer.arm(time.monotonic_ns() + NS_PER_MS)
        await calls.next()
        assert isinstance(timer, LoopTimer)

    with_timer(make_timer, check)
