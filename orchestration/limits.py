"""Values that a user writes, and their allowed ranges; pure.

Options and environment variables share one parser each, so that the same bad value gets the
same sentence wherever it comes from.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

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


# The width of a cluster: every node is a process or a container of this machine.
FOLLOWERS = Whole(0, 20)
TRIALS = Whole(1, 1_000)
WARMUP = Duration(0.0, 3_600.0)
DURATION = Duration(0.1, 86_400.0)
RATE = Real(0.1, 100_000.0, "writes/s")
USERS = Whole(1, 10_000)
TOTAL_WRITES = Whole(1, 1_000_000)
KEYS = Whole(1, 1_000_000)
PROCESSES = Whole(1, 64)
READ_SHARE = Real(0.0, 1.0, "(0 none, 1 all)")
# From the least that keeps values distinct to the store's own limit.
VALUE_BYTES = Whole(27, 1024 * 1024)
# Locust's own --seed and numpy's both take 32 bits.
SEED = Whole(0, 2**32 - 1)
PORT = Whole(1_024, 65_535)
DELAY = Real(0.0, 60_000.0, "ms")


_VALUE_SIZES = (
    f"a size in bytes from {VALUE_BYTES.low:,} to {VALUE_BYTES.high:,}, or a range such as 64:1024"
)


def bad(name: str, given: object, allowed: str) -> UsageError:
    """The sentence for a bad value: where it was given, what was given, what is allowed."""
    return UsageError(f"{name} was given {str(given)!r}, but it must be {allowed}.")


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


def parse_value_bytes(text: str, name: str) -> tuple[int, int]:
    """The smallest and largest size of a value in ``text``, in bytes: ``64``, or ``64:1024``."""
    low, _, high = text.partition(":")
    try:
        sizes = (int(low), int(high or low))
    except ValueError:
        raise bad(name, text, _VALUE_SIZES) from None
    return check_value_bytes(sizes, name, given=text)


def check_value_bytes(
    sizes: tuple[int, int], name: str, *, given: str | None = None
) -> tuple[int, int]:
    """``sizes`` itself, if it is a range within the limits."""
    low, high = sizes
    if not VALUE_BYTES.low <= low <= high <= VALUE_BYTES.high:
        raise bad(name, given or f"{low}:{high}", _VALUE_SIZES)
    return sizes


def parse_delay_ms(text: str, name: str) -> tuple[float, float]:
    """The range of link delays in ``text``, in milliseconds: ``0:100``; ``20`` is ``20:20``."""
    allowed = f"a range of delays in ms, such as 0:100, within 0:{DELAY.high:,.0f}"
    low, _, high = text.partition(":")
    try:
        delay_ms = (float(low), float(high or low))
    except ValueError:
        raise bad(name, text, allowed) from None
    return check_delay_ms(delay_ms, name, given=text)


def check_delay_ms(
    delay_ms: tuple[float, float], name: str, *, given: str | None = None
) -> tuple[float, float]:
    """``delay_ms`` itself, if it is a range within the limits."""
    low, high = delay_ms
    if not DELAY.low <= low <= high <= DELAY.high:
        allowed = f"a range of delays in ms, such as 0:100, within 0:{DELAY.high:,.0f}"
        raise bad(name, given or f"{low:g}:{high:g}", allowed)
    return delay_ms


def format_quorums(quorums: Iterable[int]) -> str:
    """The quorums as a user writes them: ``0-2,5``."""
    runs: list[list[int]] = []
    for k in sorted(set(quorums)):
        if runs and k == runs[-1][1] + 1:
            runs[-1][1] = k
        else:
            runs.append([k, k])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
