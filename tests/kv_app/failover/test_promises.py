"""An epoch belongs to one attempt."""

from __future__ import annotations

import pytest

from kv_app.failover.promises import allows
from kv_app.meta import Promise

GIVEN = Promise(5, "a", "one")


@pytest.mark.parametrize(
    ("wanted", "is_allowed"),
    [
        (Promise(6, "b", "two"), True),
        (Promise(6, "a", "one"), True),
        (Promise(5, "a", "one"), True),
        (Promise(5, "a", "two"), False),
        (Promise(5, "b", "one"), False),
        (Promise(4, "a", "one"), False),
    ],
)
def test_only_a_newer_epoch_or_the_same_attempt_is_agreed_to(
    wanted: Promise, *, is_allowed: bool
) -> None:
    """Two attempts at one epoch would give its positions two meanings."""
    assert allows(GIVEN, wanted) is is_allowed


def test_who_has_promised_nothing_agrees_to_all() -> None:
    """A new node."""
    assert allows(None, Promise(1, "a", ""))
