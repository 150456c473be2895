"""What may be asked of Locust's web UI: by which page, with which fields, and who gets the token.

Locust's UI answers pages of every origin and knows no token against forged requests, and its form
takes whatever option a request names. So without this any page that a browser on this machine
shows could start tests, and choose where they send the cluster's token.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

DEFAULT_PORTS = {"http": 80, "https": 443}
# What the form sends beside the options that it shows.
LOCUST_FIELDS = frozenset({
    "host", "profile", "run_time", "shape_class", "spawn_rate", "user_classes", "user_count",
})  # fmt: skip
# Of a browser's own words about who sends a request (Fetch Metadata): this page, or the user.
OWN_SITES = frozenset({"same-origin", "none"})


def why_foreign(
    method: str, path: str, headers: Mapping[str, str], *, own_names: Collection[str] | None
) -> str | None:
    """Tells why a request is not one of the UI's own pages or of a program; None if it is.

    Args:
        method: of HTTP.
        path: that is asked for; a link from another page may show the UI itself.
        headers: by their names, in any case.
        own_names: host names by which the UI may be called beside IP addresses; None: by any,
            because who asks has logged in. A name that somebody else made to point here
            (DNS rebinding) is none of them.
    """
    sent = {name.lower(): value for name, value in headers.items()}
    host = sent.get("host", "")
    if own_names is not None and not _is_own(host, own_names):
        return (
            f"The web UI is not called {host!r}: open it by its IP address or localhost, or start "
            "it with --web-login."
        )
    origin = sent.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return f"A page of {origin!r} may not use this web UI: open the UI itself."
    is_link = method == "GET" and path == "/" and sent.get("sec-fetch-mode") == "navigate"
    if sent.get("sec-fetch-site", "none") not in OWN_SITES and not is_link:
        return "A page of another site may not use this web UI: open the UI itself."
    return None


def own_names(web_host: str | None) -> frozenset[str]:
    """The names of this machine by which a browser may call the UI."""
    names = {"localhost", socket.gethostname(), socket.getfqdn(), web_host or ""}
    return frozenset(name.lower() for name in names if name)


def hidden_fields(
    fields: Collection[str], options: Collection[str], shown: Collection[str]
) -> list[str]:
    """The fields of a form that would set an option that the form does not show.

    Args:
        fields: of the request.
        options: all that Locust's command line has; Locust ignores other fields.
        shown: those of them that the form has.
    """
    return sorted((set(fields) & set(options)) - set(shown) - LOCUST_FIELDS)


def origin_of(url: str | None) -> str | None:
    """Scheme, host and port of an address, to tell whether two are the same server."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def _is_own(host: str, names: Collection[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in names or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
