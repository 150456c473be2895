"""Sleeps until a point in time, to a tenth of a millisecond where the system can.

gevent's event loop waits with epoll, whose timeouts are whole milliseconds, rounded up. A Linux
timer that is a file (`timerfd`) wakes the same loop on time, and costs nothing while it waits.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Protocol

import gevent
from gevent import get_hub

from orchestration.load.plan import NS_PER_S

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
_TFD_TIMER_ABSTIME = 1
_READABLE = 1


def now_ns() -> int:
    """The clock of every measurement: monotonic nanoseconds."""
    return time.perf_counter_ns()


class Alarm(Protocol):
    """Something that a greenlet can sleep with; use it from one greenlet at a time."""

    def sleep_until(self, due_ns: int) -> None:
        """Lets other greenlets run at least once, and returns when `now_ns()` is `due_ns`."""

    def close(self) -> None:
        """Releases what the alarm holds."""


def best_alarm() -> Alarm:
    """The most punctual alarm that this system offers."""
    # The timer's C structure below is that of 64-bit systems.
    if sys.platform == "linux" and ctypes.sizeof(ctypes.c_long) == ctypes.sizeof(ctypes.c_int64):
        try:
            return TimerFileAlarm()
        except (OSError, AttributeError):
            return LoopAlarm()
    return LoopAlarm()


class LoopAlarm:
    """Sleeps by the event loop's own timers: late by up to a millisecond under epoll."""

    def sleep_until(self, due_ns: int) -> None:
        """Lets other greenlets run at least once, and returns when `now_ns()` is `due_ns`."""
        gevent.sleep(0)
        while (left_ns := due_ns - now_ns()) > 0:
            # The loop counts from the time at which it last looked at the clock.
            get_hub().loop.update_now()
            gevent.sleep(left_ns / NS_PER_S)

    def close(self) -> None:
        """Releases nothing."""


class _TimerSpec(ctypes.Structure):
    """Linux' `struct itimerspec`."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class TimerFileAlarm:
    """Sleeps by a `timerfd` on CLOCK_MONOTONIC, which is `perf_counter_ns`' clock on Linux."""

    def __init__(self) -> None:
        # os.timerfd_create is Python 3.13's; until then by the C library.
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._watcher = get_hub().loop.io(self._file, _READABLE)

    def sleep_until(self, due_ns: int) -> None:
        """Lets other greenlets run at least once, and returns when `now_ns()` is `due_ns`."""
        if due_ns <= now_ns():
            gevent.sleep(0)
            return
        spec = _TimerSpec(0, 0, due_ns // NS_PER_S, due_ns % NS_PER_S)
        if self._libc.timerfd_settime(self._file, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        get_hub().wait(self._watcher)

    def close(self) -> None:
        """Closes the timer's file."""
        self._watcher.close()
        os.close(self._file)
