"""An event loop whose clock jumps: nothing waits, and everything happens in one order only."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


# A run takes some ten thousand turns of the loop; one of so many spins.
MAX_TURNS = 1_000_000


class StuckError(RuntimeError):
    """Nothing is ready and nothing is due, or something goes on for ever."""


class Clock:
    """The time of a simulation.

    Attributes:
        now_s: Seconds since its beginning.
    """

    def __init__(self) -> None:
        self.now_s = 1000.0

    def now_ns(self) -> int:
        """Returns the time in ns."""
        return int(self.now_s * 1e9)


class _JumpingSelector(selectors.BaseSelector):
    """Waits for no descriptor: moves the clock on instead."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[object, selectors.SelectorKey] = {}
        self._turns = 0

    def register(self, fileobj: object, events: int, data: object = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)  # type: ignore[arg-type]
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: object) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turns += 1
        if timeout is None or self._turns > MAX_TURNS:
            raise StuckError("nothing is due any more" if timeout is None else "it never ends")
        if timeout > 0:
            self._clock.now_s += timeout
        return []

    def get_map(self) -> Mapping[object, selectors.SelectorKey]:  # type: ignore[override]
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock of its own."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_JumpingSelector(clock))
        self._virtual = clock

    def time(self) -> float:
        """Returns the clock's time."""
        return self._virtual.now_s


class VirtualTimer:
    """A timer on the virtual clock; stands for ``kv_app.timer.make_timer``'s."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[], None]) -> None:
        self._loop = loop
        self._on_due = on_due
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, due_ns: int) -> None:
        """Sets the time."""
        self.close()
        self._handle = self._loop.call_at(due_ns / 1e9 + 1e-6, self._on_due)

    def close(self) -> None:
        """Ends the timer."""
        if self._handle is not None:
            self._handle.cancel()
