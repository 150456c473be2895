"""Limits of keys and values are counted in bytes of UTF-8, not in characters."""

from __future__ import annotations

import pytest

from kv_app.entry_limits import check_key, check_value
from kv_app.errors import MalformedError, TooLargeError


@pytest.mark.parametrize("text", ["k", "k" * 8, "é" * 4, "𝄞" * 2])
def test_text_within_its_limit_is_taken(text: str) -> None:
    """As many bytes as the limit are no more than the limit."""
    check_key(text, 8)
    check_value(text, 8)


@pytest.mark.parametrize("text", ["k" * 9, "é" * 4 + "k", "𝄞" * 2 + "k"])
def test_text_above_its_limit_is_refused(text: str) -> None:
    """The error says how long it is, how long it may be, and which setting allows more."""
    with pytest.raises(TooLargeError, match=r"The key has 9 bytes, 8 at most") as key:
        check_key(text, 8)
    with pytest.raises(TooLargeError, match=r"The value has 9 bytes, 8 at most") as value:
        check_value(text, 8)
    assert key.value.details == {"limit": "MAX_KEY_BYTES"}
    assert value.value.details == {"limit": "MAX_VALUE_BYTES"}


def test_only_a_value_may_be_empty() -> None:
    """A path without a key names nothing; a value without text is one."""
    check_value("", 8)
    with pytest.raises(MalformedError, match="must not be empty"):
        check_key("", 8)
