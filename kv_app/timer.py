"""One timer that is exact enough for link delays.

An event loop's own timers count whole milliseconds: uvloop's fire up to one early or one late, and
that error would be read as the system's cost in every measurement. Linux has timers with a
descriptor (timerfd_create(2)) that wake the loop within tens of microseconds. Elsewhere the loop's
own timer is used, rounded up.
"""

import asyncio
import contextlib
import ctypes
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Timer(Protocol):
    """Calls back once at, or shortly after, a time; it may be armed again and again."""

    def arm(self, due_ns: int) -> None:
        """Sets the time, on ``time.monotonic_ns``; an earlier setting is forgotten."""

    def close(self) -> None:
        """Ends the timer for good; it does not call back any more."""


class LoopTimer:
    """A timer of the event loop, in whole milliseconds. Portable."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[], None]) -> None:
        self._loop = loop
        self._on_due = on_due
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, due_ns: int) -> None:
        """Sets the time."""
        self.close()
        wait_ms = max(1, math.ceil((due_ns - time.monotonic_ns()) / NS_PER_MS))
        self._handle = self._loop.call_later(wait_ms / 1000, self._on_due)

    def close(self) -> None:
        """Ends the timer."""
        if self._handle is not None:
            self._handle.cancel()


class _TimeSpec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class DescriptorTimer:
    """A Linux timer with a descriptor, exact to tens of microseconds.

    Raises:
        OSError: The system has none to give.
    """

    _NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
    _ABSOLUTE = 1

    def __init__(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[], None]) -> None:
        self._loop = loop
        self._on_due = on_due
        # Python itself offers these calls from 3.13 on.
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._spec = _TimerSpec()
        self._spec_at = ctypes.byref(self._spec)
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, self._NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._fd, self._on_readable)

    def arm(self, due_ns: int) -> None:
        """Sets the time."""
        value = self._spec.value
        value.s, value.ns = divmod(max(1, due_ns), NS_PER_S)  # all zero would disarm it
        if self._libc.timerfd_settime(self._fd, self._ABSOLUTE, self._spec_at, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Ends the timer."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _on_readable(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # armed anew since it fired
            return
        self._on_due()


def make_timer(loop: asyncio.AbstractEventLoop, on_due: Callable[[], None]) -> Timer:
    """Returns the most exact timer that this system has."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            return DescriptorTimer(loop, on_due)
    return LoopTimer(loop, on_due)
