"""Ctrl-C, SIGTERM, a closed terminal and a vanished parent: one exception, once.

The first of them is raised in the main thread as `Interrupted`, so that every ``finally`` on the
way out stops what was started. All that follow are ignored: an impatient second Ctrl-C, or the
SIGTERM that a parent sends after its own patience, must not break the clean-up.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from orchestration.exit_codes import of_signal

PARENT_POLL_S = 0.5
_NAMES = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")


class Interrupted(BaseException):
    """The user or the system asked to stop. No ``except Exception`` may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = of_signal(signum)


class SignalGuard:
    """While entered, turns the first stop signal into one `Interrupted` in the main thread.

    Construct and enter it in the main thread. With ``watch_parent`` the end of the parent process
    counts as SIGTERM, unless the user said by nohup that this process shall outlive it.
    """

    def __init__(self, *, watch_parent: bool = False) -> None:
        self._watch_parent = watch_parent and not _is_hangup_ignored()
        self._first_signum: int | None = None
        self._is_raised = False
        self._holds = 0
        self._previous: dict[int, object] = {}
        self._left = threading.Event()

    def __enter__(self) -> Self:
        for signum in _stop_signals():
            self._previous[signum] = signal.signal(signum, self._on_signal)
        if self._watch_parent:
            threading.Thread(target=self._watch, args=(os.getppid(),), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._left.set()
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type] # what signal.signal returned

    @contextmanager
    def held(self) -> Iterator[None]:
        """A stop signal that arrives inside is raised when the outermost such block ends.

        For steps that must not be cut in half: starting a process and noting its pid, stopping
        what was started.
        """
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        self._raise_if_due()

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if self._first_signum is None:
            self._first_signum = signum
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self._first_signum is not None and not self._holds and not self._is_raised:
            self._is_raised = True
            raise Interrupted(self._first_signum)

    def _watch(self, parent_pid: int) -> None:
        while not self._left.wait(PARENT_POLL_S):
            if os.getppid() != parent_pid:
                _signal_main_thread(signal.SIGTERM)
                return


def _stop_signals() -> list[int]:
    found = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    return [signum for signum in found if not (_is_hangup_ignored() and _is_hangup(signum))]


def _is_hangup(signum: int) -> bool:
    return signum == getattr(signal, "SIGHUP", None)


def _is_hangup_ignored() -> bool:
    return hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def _signal_main_thread(signum: int) -> None:
    ident = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and ident is not None:
        signal.pthread_kill(ident, signum)  # wakes the main thread out of a blocking call
    else:
        signal.raise_signal(signum)
