"""How long the keys and values of entries may be. Pure."""

from kv_app.errors import MalformedError, TooLargeError


def check_key(key: str, max_bytes: int) -> None:
    """Checks a key against its limits.

    Raises:
        MalformedError: It is empty.
        TooLargeError: It has more than ``MAX_KEY_BYTES``.
    """
    if not key:
        raise MalformedError("A key must not be empty; it has one character at least.")
    # A character has at most 4 bytes in UTF-8, so most texts need not be encoded to be counted.
    if len(key) * 4 > max_bytes and (size := len(key.encode())) > max_bytes:
        raise _too_large("key", size, max_bytes, "MAX_KEY_BYTES")


def check_value(value: str, max_bytes: int) -> None:
    """Checks a value against its limit.

    Raises:
        TooLargeError: It has more than ``MAX_VALUE_BYTES``.
    """
    if len(value) * 4 > max_bytes and (size := len(value.encode())) > max_bytes:
        raise _too_large("value", size, max_bytes, "MAX_VALUE_BYTES")


def _too_large(what: str, size: int, max_bytes: int, limit: str) -> TooLargeError:
    return TooLargeError(
        f"The {what} has {size} bytes, {max_bytes} at most; shorten it or raise {limit}.",
        limit=limit,
    )
