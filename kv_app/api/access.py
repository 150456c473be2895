"""Who may call what: the cluster's token."""

import hmac
from collections.abc import Iterable

from kv_app.errors import UnauthorizedError


def check_token(token: str | None, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Checks the ``Authorization`` header of a request, in constant time.

    Args:
        token: What it must bear; None lets everybody in.
        headers: Names in lower case, with their values.

    Raises:
        UnauthorizedError: The token is missing or another one.
    """
    if token is None:
        return
    given = next((value for name, value in headers if name == b"authorization"), b"")
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise UnauthorizedError(
            "This call needs the cluster's token; send it as Authorization: Bearer TOKEN."
        )
