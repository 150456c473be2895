"""Who may call what: a browser by the page that asks, everybody by the cluster's token.

A browser lets every page that it shows send requests to every address that it reaches, a node on
its own machine included. It names the page's origin in the header ``Origin``, and always does so
where the request could change something or opens a WebSocket. One trick is left: a page whose name
is made to point at the node while it is shown (DNS rebinding) is of the node's own origin. The
header ``Host`` gives that away, for it has the page's name.
"""

import functools
import hmac
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.types import Scope

from kv_app.addresses import LOCALHOST, ip_of
from kv_app.errors import ForeignOriginError, MalformedError, UnauthorizedError, UnknownHostError
from kv_app.settings import Settings

# Below it nodes speak to each other, and no page has any business.
NODES_ONLY: Final = "/replication"
# Of so many values of ``Host`` it is remembered whether they will do.
REMEMBERED_HOSTS: Final = 256
MAX_SHOWN_CHARS: Final = 80

# The name or the address, then a port.
_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")


class Callers:
    """Tells requests that a foreign page makes from all others, by their headers.

    The name by which a node is called is held to those that it knows where nothing else protects
    it, which is without a token, and where the operator has listed names. Addresses always pass:
    no page can make its own name of them.
    """

    def __init__(self, settings: Settings) -> None:
        own = (settings.host, urlsplit(settings.advertise_url).hostname or "")
        self._names = frozenset({LOCALHOST, *map(_as_sent, own), *settings.allowed_hosts})
        self._checks_host = settings.cluster_token is None or bool(settings.allowed_hosts)
        self._is_known = functools.lru_cache(REMEMBERED_HOSTS)(self._knows)

    def check(self, scope: Scope) -> None:
        """Checks a request, or the handshake of a WebSocket.

        Raises:
            MalformedError: It has no ``Host``, or two (RFC 9112, 3.2).
            ForeignOriginError: It comes from a page of another origin.
            UnknownHostError: It calls the node by a name that is none of the node's.
        """
        host = origin = None
        hosts = 0
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
                hosts += 1
            elif name == b"origin":
                origin = value
        if hosts != 1 and (hosts or scope.get("http_version") == "1.1"):
            raise MalformedError("A request of HTTP/1.1 has one Host header; send just one.")
        if origin is not None:
            _check_origin(origin, host, scope["path"])
        if self._checks_host and host is not None and not self._is_known(host):
            raise UnknownHostError(
                f"This node is not known as {_shown(host)}; call it by its address, by localhost "
                "or by the name in its ADVERTISE_URL, or list the name in its ALLOWED_HOSTS."
            )

    def _knows(self, host: bytes) -> bool:
        name = _name_in(host)
        return name in self._names or ip_of(name) is not None


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


def _check_origin(origin: bytes, host: bytes | None, path: str) -> None:
    """Checks which page asks: one that this node serves itself, and not for what nodes ask."""
    if path.startswith(NODES_ONLY):
        raise ForeignOriginError(
            f"Only nodes call {NODES_ONLY}, and they send no Origin; use the API, see /docs."
        )
    # A proxy may speak TLS to the browser: the scheme does not count.
    if host is None or origin.partition(b"://")[2].lower() != host.lower():
        raise ForeignOriginError(
            f"A page of {_shown(origin)} may not call this node; call it from a program."
        )


def _name_in(host: bytes) -> str:
    """Returns the name or the address in a ``Host``, without its port; empty if it has none."""
    found = _HOST.fullmatch(host.decode("latin-1").lower())
    return found[1] or found[2] if found else ""


def _as_sent(host: str) -> str:
    """Returns a host as a ``Host`` names it: a name in another script in its ASCII form."""
    return host.lower() if host.isascii() else host.encode("idna").decode()


def _shown(header: bytes) -> str:
    return repr(header[:MAX_SHOWN_CHARS].decode("latin-1"))
