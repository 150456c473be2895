"""Addresses of nodes: the one place that reads them, and gives each one spelling. Pure.

Members of a cluster are told apart by their URLs, as texts: two spellings of one address would be
two members. So whatever comes from a user goes through here before it is used or compared.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from kv_app.bounds import MAX_URL_CHARS

LOCALHOST = "localhost"
DEFAULT_HTTP_PORT = 80

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def ip_of(host: str) -> IPAddress | None:
    """Returns the address that a text is, also in a short form (``127.1``); None of a name."""
    text = host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _short_ipv4(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _short_ipv4(text: str) -> IPAddress | None:
    """Reads what the system takes for an IPv4 address beside four numbers, such as ``0``."""
    if not text or not set(text.lower()) <= set("0123456789abcdefx."):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except OSError:
        return None


def normal_host(host: str) -> str:
    """Returns a host's one spelling, without brackets."""
    address = ip_of(host)
    return host.lower() if address is None else str(address)


def is_loopback(host: str) -> bool:
    """Tells if only this machine reaches what listens on a host."""
    address = ip_of(host)
    return host.lower() == LOCALHOST if address is None else address.is_loopback


def is_unspecified(host: str) -> bool:
    """Tells if a host stands for all addresses of a machine: one listens there, none reaches it."""
    address = ip_of(host)
    return address is not None and address.is_unspecified


def url_of(host: str, port: int) -> str:
    """Returns the base URL of what listens on a host and port."""
    normal = normal_host(host)
    return f"http://[{normal}]:{port}" if ":" in normal else f"http://{normal}:{port}"


def base_url(text: str) -> str:
    """Returns the one spelling of a base URL ``http://HOST:PORT``.

    Raises:
        ValueError: It is of another form, or no other node can reach it.
    """
    url = text.strip().rstrip("/")
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port  # a port that is none raises, too
    host.encode("idna")
    is_bare = url == f"http://{parts.netloc}" and not {"@", " "} & set(url)
    is_short = len(url) <= MAX_URL_CHARS and url.isprintable()
    if not is_bare or not is_short or not host or port == 0 or is_unspecified(host):
        raise ValueError(text)
    return url_of(host, DEFAULT_HTTP_PORT if port is None else port)
