"""Runs a node on a loop that times its own turns; tells of them when it gets SIGUSR1.

Run as a file, in the place of ``python -m kv_app``. It is asyncio's own loop, since that of uvloop
lets nobody look between two turns; it is slower, so that a turn takes rather longer than in use.
What a turn uses is the processor time of the loop's thread from the end of the wait for sockets and
timers to the next one; beside it the wall time, in which others may have had the core.

No client writes as fast as the log is to be filled here: at SIGUSR2 a leader begins to write into
its own log, as its HTTP does, at the next one it ends that.

Environment: ``TURNS_FILE`` takes a line of JSON for each SIGUSR1, of all turns since the one
before. ``WRITES_FILE``, if there is one, takes a line when writing has ended; ``WRITES_PER_S``,
``WRITES_KEYS`` (how many keys, as ``KEY_FORMAT`` names them) and ``WRITES_BYTES`` (of a value) say
what is written.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import selectors
import signal
import sys
import threading
import time
import traceback
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

NS_PER_MS = 1_000_000
SAMPLE_S, SHOWN_FRAMES, SHOWN_PLACES = 0.005, 4, 3
KEY_FORMAT = "key {}"
# So often a leader writes, and so many entries at most at once: a turn is not to be long for this.
WRITE_EVERY_S, MOST_WRITES = 0.001, 100


class Turns:
    """How long the turns of a loop took, since the last look, and what the longest was at."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._forget()
        self._is_on = False
        threading.Thread(target=self._look, daemon=True).start()

    def _forget(self) -> None:
        self._cpu_ns, self._wall_ns = array("q"), array("q")
        self._began = (time.thread_time_ns(), time.perf_counter_ns())
        self._longest_ns = 0
        self._where = ""
        self._seen: Counter[str] = Counter()

    def begin(self) -> None:
        """A turn begins: the wait is over."""
        if self._seen:
            self._seen = Counter()
        self._began = (time.thread_time_ns(), time.perf_counter_ns())
        self._is_on = True

    def end(self) -> None:
        """It has ended."""
        self._is_on = False
        cpu_ns, wall_ns = self._began
        used_ns = time.thread_time_ns() - cpu_ns
        self._cpu_ns.append(used_ns)
        self._wall_ns.append(time.perf_counter_ns() - wall_ns)
        if used_ns > self._longest_ns:
            self._longest_ns = used_ns
            self._where = ", ".join(place for place, _ in self._seen.most_common(SHOWN_PLACES))

    def _look(self) -> None:
        """Notes what a turn is at, again and again."""
        while True:
            time.sleep(SAMPLE_S)
            if self._is_on and (frame := sys._current_frames().get(self._thread)) is not None:
                stack = traceback.extract_stack(frame)[-SHOWN_FRAMES:]
                self._seen[" < ".join(one.name for one in reversed(stack))] += 1

    def take(self) -> dict[str, Any]:
        """Returns what there was, and forgets it."""
        cpu_ns, wall_ns, where = sorted(self._cpu_ns), sorted(self._wall_ns), self._where
        self._forget()
        count = len(cpu_ns)
        if not count:
            return {"turns": 0, "cpu_max_ms": 0.0, "wall_p999_ms": 0.0, "wall_max_ms": 0.0}
        return {
            "where": where,
            "turns": count,
            "cpu_max_ms": cpu_ns[-1] / NS_PER_MS,
            "wall_p999_ms": wall_ns[min(count - 1, int(count * 0.999))] / NS_PER_MS,
            "wall_max_ms": wall_ns[-1] / NS_PER_MS,
        }


class TimedSelector(selectors.DefaultSelector):
    """Notes when the wait of a turn is over."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns

    def select(self, timeout: float | None = None) -> Any:
        """Waits."""
        events = super().select(timeout)
        self._turns.begin()
        return events


class TimedLoop(asyncio.SelectorEventLoop):
    """Times its turns."""

    def __init__(self, turns: Turns) -> None:
        super().__init__(TimedSelector(turns))
        self._turns = turns

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        self._turns.end()


class Writes:
    """A leader's own writes into its log, at a rate; those that are late are made up for."""

    def __init__(self, node: Any, path: Path, rate_per_s: float, keys: int, size: int) -> None:
        """Writes nothing yet.

        Args:
            node: A leader's.
            path: Takes what there was.
            rate_per_s: Entries per second.
            keys: How many keys are written, each as often as the others.
            size: Bytes of a value.
        """
        self._node, self._path, self._rate_per_s = node, path, rate_per_s
        self._keys, self._value = keys, "w" * size
        self._random = random.Random(keys)
        self._is_on = False
        self._began_s = 0.0
        self._written = self._refused = 0

    def toggle(self) -> None:
        """Begins, or ends and tells."""
        self._is_on = not self._is_on
        if self._is_on:
            self._began_s, self._written, self._refused = time.monotonic(), 0, 0
            self._write()
            return
        seconds = time.monotonic() - self._began_s
        told = {"written": self._written, "refused": self._refused, "seconds": seconds}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")

    def _write(self) -> None:
        from kv_app.errors import StoreError  # noqa: PLC0415  not before its place is known
        from kv_app.messages import Operation  # noqa: PLC0415

        if not self._is_on:
            return
        due = int((time.monotonic() - self._began_s) * self._rate_per_s) - self._written
        for _ in range(min(due, MOST_WRITES)):
            key = KEY_FORMAT.format(self._random.randrange(self._keys))
            try:
                self._node.leader.append(Operation.PUT, key, self._value, None)
            except StoreError:
                self._refused += 1
            else:
                self._written += 1
        asyncio.get_running_loop().call_later(WRITE_EVERY_S, self._write)


def main() -> None:
    """Runs the node."""
    sys.path.pop(0)  # this folder: what the node imports is not to be found here
    from kv_app import main as node  # noqa: PLC0415  not before the line above

    turns, path = Turns(), Path(os.environ.pop("TURNS_FILE"))
    writes_path = os.environ.pop("WRITES_FILE", "")
    numbers = [int(os.environ.pop(f"WRITES_{name}", "1")) for name in ("PER_S", "KEYS", "BYTES")]
    make_config, loop = node.server_config, TimedLoop(turns)

    def timed_config(app: Any, *arguments: Any) -> Any:
        if writes_path:
            writes = Writes(app.node, Path(writes_path), *numbers)
            loop.add_signal_handler(signal.SIGUSR2, writes.toggle)
        config = make_config(app, *arguments)
        config.get_loop_factory = lambda: lambda: loop  # type: ignore[method-assign]
        return config

    def tell(*_: object) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(turns.take()) + "\n")

    node.server_config = timed_config
    signal.signal(signal.SIGUSR1, tell)
    node.main()


if __name__ == "__main__":
    main()
