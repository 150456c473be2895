"""When a peer has been silent for too long, and when it was this node that did not listen."""

from __future__ import annotations

from kv_app.silence import LOOKS_PER_TIMEOUT, Silence


def test_peer_is_silent_after_a_whole_timeout_of_looks_in_vain() -> None:
    """The look right after it was heard says nothing: less than an interval may have passed."""
    silence = Silence(8.0)
    assert silence.interval_s * LOOKS_PER_TIMEOUT == 8.0
    assert [silence.look() for _ in range(LOOKS_PER_TIMEOUT)] == [False] * LOOKS_PER_TIMEOUT
    assert silence.look()


def test_peer_that_is_heard_is_not_silent_for_another_timeout() -> None:
    """Whatever it says counts."""
    silence = Silence(8.0)
    for _ in range(3):
        for _ in range(LOOKS_PER_TIMEOUT):
            assert not silence.look()
        silence.heard()
    assert not silence.look()
