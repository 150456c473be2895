"""A node's settings, and the only reader of the environment.

Every setting is validated once, at the start; every refusal names the variable, what it held and
its bound. ``docs/settings.md`` lists them.
"""

import math
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kv_app.addresses import base_url, is_loopback, is_unspecified, normal_host, url_of
from kv_app.bounds import (
    MAX_BATCH_LIMIT_OPERATIONS,
    MAX_FOLLOWERS,
    MAX_KEY_LIMIT_BYTES,
    MAX_NAME_CHARS,
    MAX_VALUE_LIMIT_BYTES,
)
from kv_app.delays import MAX_DELAY_LIMIT_MS, DelayKind
from kv_app.errors import SettingsError
from kv_app.meta import Role

MAX_TOKEN_CHARS = 1024
# As a browser sends it: of a name in another script that is its ASCII form.
_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one node is told at its start.

    Sizes are in bytes of UTF-8, times in the unit of their suffix. ``follower_urls`` holds n
    distinct base URLs, each in the one spelling of ``addresses.base_url``, as ``advertise_url`` is.
    ``write_quorum`` may exceed n: such a leader runs and refuses writes. It is that of a new
    cluster; ``is_write_quorum_set`` tells whether somebody asked for it.
    """

    role: Role = Role.LEADER
    node_id: str = "node"
    start_id: str = field(default_factory=lambda: secrets.token_hex(8))
    host: str = "127.0.0.1"
    port: int = 8000
    advertise_url: str = "http://127.0.0.1:8000"
    follower_urls: tuple[str, ...] = ()
    write_quorum: int = 0
    is_write_quorum_set: bool = field(default=False, compare=False)
    min_delay_ms: float = 0.0
    max_delay_ms: float = 0.0
    delay_kind: DelayKind = DelayKind.INDEPENDENT
    delay_seed: int = 0
    request_timeout_s: float = 5.0
    cluster_token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    max_key_bytes: int = 1024
    max_value_bytes: int = 1024 * 1024
    max_body_bytes: int = 4 * 1024 * 1024
    max_batch_operations: int = 1000
    max_in_flight: int = 20_000
    max_connections: int = 10_000
    request_read_timeout_s: float = 10.0
    data_dir: Path | None = None
    log_bytes: int = 256 * 1024 * 1024
    log_entries: int = 100_000
    idempotency_keys: int = 100_000
    heartbeat_timeout_s: float = 10.0
    reconnect_max_s: float = 1.0
    log_level: str = "info"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Reads and validates all settings.

        Args:
            environment: Variables to read; those of the process if not given.

        Raises:
            SettingsError: A variable is not usable; the message names it and its bound.
        """
        return _read(_Reader(os.environ if environment is None else environment))


class _Reader:
    """Takes typed values out of an environment; an empty variable counts as unset."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str) -> str:
        return self._environment.get(name, "").strip() or default

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        return int(self._number(name, default, low, high, int, "a whole number"))

    def real(self, name: str, default: float, low: float, high: float) -> float:
        return self._number(name, default, low, high, float, "a number")

    def choice(self, name: str, default: str, allowed: list[str]) -> str:
        value = self.text(name, default).lower()
        if value not in allowed:
            raise SettingsError(f"{name}={value!r} must be one of {', '.join(allowed)}.")
        return value

    def flag(self, name: str) -> bool:
        return self.choice(name, "0", ["0", "1", "true", "false"]) in {"1", "true"}

    def _number(
        self,
        name: str,
        default: float,
        low: float,
        high: float,
        parse: Callable[[str], float],
        noun: str,
    ) -> float:
        text = self.text(name, str(default))
        try:
            value = parse(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # not true of a NaN either
            raise SettingsError(f"{name}={text!r} must be {noun} from {low} to {high}.")
        return value


def _read(reader: _Reader) -> Settings:
    role = Role(reader.choice("ROLE", Role.LEADER, list(Role)))
    host = _host(reader.text("HOST", "127.0.0.1"))
    port = reader.integer("PORT", 8000, 1, 65535)
    follower_urls = _follower_urls(reader.text("FOLLOWER_URLS", ""), role)
    is_alone = role is Role.LEADER and not follower_urls
    advertise_url = _advertise_url(reader.text("ADVERTISE_URL", ""), host, port, is_alone=is_alone)
    min_delay_ms, max_delay_ms = _delay_range(reader)
    token = _token(reader.text("CLUSTER_TOKEN", ""))
    _check_bind(host, token, allowed=reader.flag("ALLOW_INSECURE_BIND"))
    if advertise_url in follower_urls:
        raise SettingsError(
            f"FOLLOWER_URLS names this node itself (ADVERTISE_URL={advertise_url}); name the "
            "others only, and give each node an ADVERTISE_URL of its own."
        )
    max_body_bytes = reader.integer("MAX_BODY_BYTES", 4 * 1024 * 1024, 64, 1 << 30)
    max_in_flight = reader.integer("MAX_IN_FLIGHT", 20_000, 1, 10_000_000)
    return Settings(
        role=role,
        start_id=reader.text("START_ID", secrets.token_hex(8)),
        node_id=_node_id(reader.text("NODE_ID", "node")),
        host=host,
        port=port,
        advertise_url=advertise_url,
        follower_urls=follower_urls,
        write_quorum=reader.integer("WRITE_QUORUM", min(1, len(follower_urls)), 0, MAX_FOLLOWERS),
        is_write_quorum_set=bool(reader.text("WRITE_QUORUM", "")),
        min_delay_ms=min_delay_ms,
        max_delay_ms=max_delay_ms,
        delay_kind=DelayKind(reader.choice("DELAY_MODEL", DelayKind.INDEPENDENT, list(DelayKind))),
        delay_seed=reader.integer("DELAY_SEED", secrets.randbits(32), 0, (1 << 63) - 1),
        request_timeout_s=reader.real("REQUEST_TIMEOUT", 5.0, 0.001, 3600.0),
        cluster_token=token,
        allowed_hosts=_allowed_hosts(reader.text("ALLOWED_HOSTS", "")),
        max_key_bytes=reader.integer("MAX_KEY_BYTES", 1024, 1, MAX_KEY_LIMIT_BYTES),
        max_value_bytes=reader.integer("MAX_VALUE_BYTES", 1024 * 1024, 0, MAX_VALUE_LIMIT_BYTES),
        max_body_bytes=max_body_bytes,
        max_batch_operations=reader.integer(
            "MAX_BATCH_OPERATIONS", 1000, 1, MAX_BATCH_LIMIT_OPERATIONS
        ),
        max_in_flight=max_in_flight,
        max_connections=reader.integer("MAX_CONNECTIONS", 10_000, 1, 1_000_000),
        request_read_timeout_s=reader.real("REQUEST_READ_TIMEOUT_S", 10.0, 0.1, 3600.0),
        data_dir=_data_dir(reader.text("DATA_DIR", "")),
        log_bytes=reader.integer("LOG_BYTES", 256 * 1024 * 1024, 1 << 20, 1 << 40),
        log_entries=reader.integer("LOG_ENTRIES", max(100_000, max_in_flight), 1, 100_000_000),
        idempotency_keys=reader.integer("IDEMPOTENCY_KEYS", 100_000, 0, 100_000_000),
        heartbeat_timeout_s=reader.real("HEARTBEAT_TIMEOUT_S", 10.0, 0.1, 3600.0),
        reconnect_max_s=reader.real("RECONNECT_MAX_S", 1.0, 0.01, 3600.0),
        log_level=reader.choice("LOG_LEVEL", "info", ["debug", "info", "warning", "error"]),
    )


def _node_id(text: str) -> str:
    if len(text) > MAX_NAME_CHARS or not text.isprintable():
        raise SettingsError(
            f"NODE_ID={text[:80]!r} must be 1 to {MAX_NAME_CHARS} printable characters."
        )
    return text


def _data_dir(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _token(text: str) -> str | None:
    # Others do not survive in a header everywhere. The message must not show the token.
    if len(text) > MAX_TOKEN_CHARS or not (text.isascii() and text.isprintable()):
        raise SettingsError(
            f"CLUSTER_TOKEN must be 1 to {MAX_TOKEN_CHARS} printable ASCII characters."
        )
    return text or None


def _allowed_hosts(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise SettingsError(
                f"ALLOWED_HOSTS={name!r} must be a host's name, without scheme and port."
            )
    return names


def _host(text: str) -> str:
    host = normal_host(text)
    try:
        host.encode("idna" if not host.isascii() else "ascii")
    except UnicodeError:
        raise SettingsError(
            f"HOST={text!r} is no name that can be looked up: give an address of this machine."
        ) from None
    return host


def _advertise_url(text: str, host: str, port: int, *, is_alone: bool) -> str:
    """Returns how others reach the node; unless that is told, where it listens."""
    if text:
        return _url("ADVERTISE_URL", text)
    if not is_unspecified(host):
        return url_of(host, port)
    if is_alone:  # no other node ever asks for it
        return url_of("::1" if ":" in host else "127.0.0.1", port)
    raise SettingsError(
        f"HOST={host} stands for all addresses of this machine, and other nodes need one: set "
        "ADVERTISE_URL=http://HOST:PORT, the URL at which they reach this node."
    )


def _url(name: str, text: str) -> str:
    try:
        return base_url(text)
    except ValueError:
        raise SettingsError(
            f"{name}={text!r} must be of the form http://HOST:PORT, where other nodes reach it."
        ) from None


def _follower_urls(text: str, role: Role) -> tuple[str, ...]:
    urls = tuple(_url("FOLLOWER_URLS", part.strip()) for part in text.split(",") if part.strip())
    if len(urls) > MAX_FOLLOWERS:
        raise SettingsError(f"FOLLOWER_URLS names {len(urls)} followers; {MAX_FOLLOWERS} at most.")
    for url in urls:
        if urls.count(url) > 1:
            raise SettingsError(f"FOLLOWER_URLS names {url} more than once; name each once.")
    return urls if role is Role.LEADER else ()


def _delay_range(reader: _Reader) -> tuple[float, float]:
    low = reader.real("MIN_DELAY_MS", 0.0, 0.0, MAX_DELAY_LIMIT_MS)
    high = reader.real("MAX_DELAY_MS", 0.0, 0.0, MAX_DELAY_LIMIT_MS)
    if low > high:
        raise SettingsError(f"MIN_DELAY_MS={low:g} must not exceed MAX_DELAY_MS={high:g}.")
    return low, high


def _check_bind(host: str, token: str | None, *, allowed: bool) -> None:
    if not (token or allowed or is_loopback(host)):
        raise SettingsError(
            f"HOST={host} is reachable from other machines: unset it, or set CLUSTER_TOKEN, or "
            "ALLOW_INSECURE_BIND=1 on a network that you trust."
        )
