"""Stop signals become one exception, once."""

import signal

import pytest

from orchestration.interrupt import Interrupted, SignalGuard


def test_a_stop_signal_raises_once_and_decides_the_exit_code() -> None:
    """The second signal, whatever it is, no longer disturbs the clean-up."""
    with SignalGuard():
        with pytest.raises(Interrupted) as stopped:
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert stopped.value.exit_code == 130


def test_sigterm_ends_with_its_own_exit_code() -> None:
    """143 is what a parent expects of a child that it terminated."""
    with SignalGuard(), pytest.raises(Interrupted) as stopped:
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.exit_code == 143


def test_a_held_signal_waits_for_the_end_of_the_step() -> None:
    """A step that must not be cut in half is finished first; nested steps count as one."""
    done: list[str] = []

    def step(guard: SignalGuard) -> None:
        with guard.held():
            with guard.held():
                signal.raise_signal(signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("beyond")

    with SignalGuard() as guard:
        with pytest.raises(Interrupted):
            step(guard)
        with guard.held():
            done.append("clean-up")
    assert done == ["inner", "outer", "clean-up"]


def test_an_error_in_a_held_step_stays_that_error() -> None:
    """A signal that came meanwhile does not hide what went wrong."""

    def step(guard: SignalGuard) -> None:
        with guard.held():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("broken")

    with SignalGuard() as guard, pytest.raises(ValueError, match="broken"):
        step(guard)


def test_handlers_are_as_before_afterwards() -> None:
    """Leaving restores what was there."""
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with SignalGuard(watch_parent=True):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def test_no_exception_handler_swallows_a_stop() -> None:
    """Interrupted passes every `except Exception`."""
    assert not issubclass(Interrupted, Exception)
