"""Values that a user writes, and their allowed ranges; pure.

Options and environment variables share one parser each, so that the same bad value gets the
same sentence wherever it comes from.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from orchestration.errors import UsageError

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>ms|s|m|h|)")
_UNIT_S = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "h": 3600.0}
_QUORUM_PART = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from ``low`` to ``high``, both allowed."""

    low: int
    high: int

    @property
    def range(self) -> str:
        """The allowed values, as an error tells them."""
        return f"a whole number from {self.low:,} to {self.high:,}"

    def parse(self, text: str, name: str) -> int:
        """The number that ``text`` says; ``name`` is the option or variable it came from."""
        try:
            value = int(text)
        except ValueError:
            raise bad(name, text, self.range) from None
        return self.check(value, name)

    def check(self, value: int, name: str) -> int:
        """``value`` itself, if it is in range."""
        if not self.low <= value <= self.high:
            raise bad(name, value, self.range)
        return value


@dataclass(frozen=True, slots=True)
class Real:
    """Numbers from ``low`` to ``high``, both allowed, in ``unit``."""

    low: float
    high: float
    unit: str

    @property
    def range(self) -> str:
        """The allowed values, as an error tells them."""
        return f"a number from {self.low:,g} to {self.high:,g} {self.unit}"

    def parse(self, text: str, name: str) -> float:
        """The number that ``text`` says; ``name`` is the option or variable it came from."""
        try:
            value = float(text)
        except ValueError:
            raise bad(name, text, self.range) from None
        if not self.low <= value <= self.high:
            raise bad(name, text, self.range)
        return value

    def check(self, value: float, name: str) -> float:
        """``value`` itself, if it is in range (not-a-number never is)."""
        if not self.low <= value <= self.high:
            raise bad(name, f"{value:g}", self.range)
        return value


@dataclass(frozen=True, slots=True)
class Duration:
    """Lengths of time from ``low_s`` to ``high_s`` seconds: ``10``, ``10s``, ``500ms``, ``2m``."""

    low_s: float
    high_s: float

    @property
    def range(self) -> str:
        """The allowed values, as an error tells them."""
        return f"a duration from {self.low_s:,g}s to {self.high_s:,g}s, such as 10, 10s or 500ms"

    def parse(self, text: str, name: str) -> float:
        """The seconds that ``text`` says; ``name`` is the option or variable it came from."""
        match = _DURATION.fullmatch(text.strip())
        if match is None:
            raise bad(name, text, self.range)
        value_s = float(match["number"]) * _UNIT_S[match["unit"]]
        if not self.low_s <= value_s <= self.high_s:
            raise bad(name, text, self.range)
        return value_s

    def check(self, value_s: float, name: str) -> float:
        """``value_s`` itself, if it is in range."""
        if not self.low_s <= value_s <= self.high_s:
            raise bad(name, f"{value_s:g}s", self.range)
        return value_s


N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Span(Generic[N]):
    """Ranges within ``low`` and ``high``, both allowed: ``0:100``; ``20`` stands for ``20:20``.

    Attributes:
        low: the least.
        high: the most.
        number: makes a number of a text.
        range: the allowed values, as an error tells them.
    """

    low: N
    high: N
    number: Callable[[str], N]
    range: str

    def parse(self, text: str, name: str) -> tuple[N, N]:
        """The range that ``text`` says; ``name`` is the option or variable it came from."""
        low, _, high = text.partition(":")
        try:
            found = (self.number(low), self.number(high or low))
        except ValueError:
            raise bad(name, text, self.range) from None
        return self._checked(found, name, text)

    def check(self, value: tuple[N, N], name: str) -> tuple[N, N]:
        """``value`` itself, if it is within the limits (not-a-number never is)."""
        return self._checked(value, name, "{:g}:{:g}".format(*value))

    def _checked(self, value: tuple[N, N], name: str, given: str) -> tuple[N, N]:
        low, high = value
        if not self.low <= low <= high <= self.high:
            raise bad(name, given, self.range)
        return value


# The width of a cluster: every node is a process or a container of this machine.
FOLLOWERS = Whole(0, 20)
TRIALS = Whole(1, 1_000)
WARMUP = Duration(0.0, 3_600.0)
DURATION = Duration(0.1, 86_400.0)
WATCH_AFTER = Duration(0.5, 3_600.0)
RATE = Real(0.1, 100_000.0, "writes/s")
USERS = Whole(1, 10_000)
TOTAL_WRITES = Whole(1, 1_000_000)
KEYS = Whole(1, 1_000_000)
PROCESSES = Whole(1, 64)
READ_SHARE = Real(0.0, 1.0, "(0 none, 1 all)")
# From the least that keeps values distinct to the store's own limit.
VALUE_BYTES = Span(
    27,
    1024 * 1024,
    int,
    f"a size in bytes from 27 to {1024 * 1024:,}, or a range such as 64:1024",
)
# Locust's own --seed and numpy's both take 32 bits.
SEED = Whole(0, 2**32 - 1)
PORT = Whole(1_024, 65_535)
DELAY_MS = Span(0.0, 60_000.0, float, "a range of delays in ms, such as 0:100, within 0:60,000")


def bad(name: str, given: object, allowed: str) -> UsageError:
    """The sentence for a bad value: where it was given, what was given, what is allowed."""
    return UsageError(f"{name} was given {str(given)!r}, but it must be {allowed}.")


def parse_url(text: str, name: str) -> str:
    """The URL of a node that ``text`` says, without a slash at its end.

    It goes into reports, so that it may hold no password; what refuses it does not repeat it.
    """
    allowed = "the URL of a node, such as http://127.0.0.1:8000"
    if "@" in text:
        raise UsageError(
            f"{name} was given a URL with a user name or a password in it: leave them out. If the "
            "nodes need a token, set CLUSTER_TOKEN."
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:  # a port that is none, a broken IPv6 address, a name that none can look up
        raise bad(name, text, allowed) from None
    is_printable = text.isprintable() and " " not in text
    is_bare = not (parts.query or parts.fragment) and text[-1:] not in {"?", "#"}
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise bad(name, text, allowed)
    if not is_printable or not is_bare:
        raise bad(name, text, allowed)
    return text.rstrip("/")


def parse_load_url(text: str, name: str) -> str:
    """The URL of a node that is to be loaded: the load generator speaks plain HTTP only."""
    url = parse_url(text, name)
    if urlsplit(url).scheme != "http":
        raise bad(name, text, "an http URL: the load generator does not speak https")
    return url


def parse_quorums(text: str, name: str, followers: int) -> tuple[int, ...]:
    """The write quorums in ``text`` (``0-5``, ``1,3``, ``0-2,5``), ascending, each once."""
    allowed = f"write quorums from 0 to {followers} (the followers), such as 0-{followers} or 1,3"
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        match = _QUORUM_PART.fullmatch(part)
        if match is None:
            raise bad(name, text, allowed)
        low = int(match[1])
        high = int(match[2]) if match[2] else low
        if low > high or high > followers:
            raise bad(name, text, allowed)
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def format_quorums(quorums: Iterable[int]) -> str:
    """The quorums as a user writes them: ``0-2,5``."""
    runs: list[list[int]] = []
    for k in sorted(set(quorums)):
        if runs and k == runs[-1][1] + 1:
            runs[-1][1] = k
        else:
            runs.append([k, k])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
