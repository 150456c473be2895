"""What load to offer: the plan of a run, and each process's share of it. Pure."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

NS_PER_S = 1_000_000_000
# A client waits a fifth longer than the store (REQUEST_TIMEOUT, 5 s): else the store's own
# answer "outcome unknown" would never be seen.
CLIENT_TIMEOUT_S = 6.0
CONNECT_TIMEOUT_S = 3.0
MIN_IN_FLIGHT_LIMIT = 64
MAX_RATE_PER_S = 1_000_000.0
MAX_SECONDS = 7 * 24 * 3600.0
MAX_KEYS = 1_000_000_000
# Fingerprint, stream, dash and number, as workload.value_maker writes them.
MIN_VALUE_BYTES = 10 + 6 + 1 + 10
MAX_VALUE_BYTES = 1024 * 1024
ARRIVALS = ("constant", "poisson")
READ_FROM = ("leader", "followers")
KEY_CHOICES = ("default", "uniform", "zipfian", "latest", "hotset")
MIXES = ("ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-e", "ycsb-f")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """The load of one run, checked; a ValueError names the option and its bounds.

    Attributes:
        rate_per_s: arrivals per second over all processes; 0 is a closed loop.
        arrivals: "constant" or "poisson".
        warmup_s: seconds at the start that are not measured.
        duration_s: measured seconds after the warm-up; 0 runs until stopped.
        keys: how many keys there are to choose from.
        key_choice: which of them requests ask for, one of `KEY_CHOICES`; "default" is the
            scenario's own choice.
        value_bytes: smallest and largest size of the values, between which sizes are uniform; at
            least `MIN_VALUE_BYTES`, else values would repeat.
        mix: which operations a YCSB scenario sends, one of `MIXES`.
        read_share: share of reads (0 to 1) where a scenario mixes reads and writes.
        read_from: "leader" or "followers".
        max_in_flight: requests that one process keeps open; 0 derives it from the rate.
        seed: seeds arrivals, keys and values.
        trial: the run's name among those of the same seed: none of them has its values.
        total_writes: requests after which the run ends; 0 is no such end.
        write_quorum: set on the leader before the run; None leaves it as it is.
    """

    rate_per_s: float = 100.0
    arrivals: str = "constant"
    warmup_s: float = 1.0
    duration_s: float = 0.0
    keys: int = 1000
    key_choice: str = "default"
    value_bytes: tuple[int, int] = (64, 64)
    mix: str = "ycsb-a"
    read_share: float = 0.5
    read_from: str = "leader"
    max_in_flight: int = 0
    seed: int = 1
    trial: str = ""
    total_writes: int = 0
    write_quorum: int | None = None

    def __post_init__(self) -> None:
        _check_range("--rate", self.rate_per_s, 0, MAX_RATE_PER_S)
        _check_choice("--arrivals", self.arrivals, ARRIVALS)
        _check_range("--warmup", self.warmup_s, 0, MAX_SECONDS)
        _check_range("--duration", self.duration_s, 0, MAX_SECONDS)
        _check_range("--keys", self.keys, 1, MAX_KEYS)
        _check_choice("--key-choice", self.key_choice, KEY_CHOICES)
        smallest, largest = self.value_bytes
        _check_range("--value-bytes", smallest, MIN_VALUE_BYTES, MAX_VALUE_BYTES)
        _check_range("--value-bytes", largest, smallest, MAX_VALUE_BYTES)
        _check_choice("--mix", self.mix, MIXES)
        _check_range("--read-share", self.read_share, 0, 1)
        _check_choice("--read-from", self.read_from, READ_FROM)
        _check_range("--max-in-flight", self.max_in_flight, 0, 1_000_000)
        _check_range("--load-seed", self.seed, 0, 2**63 - 1)
        _check_range("--total-writes", self.total_writes, 0, 10**12)
        if self.write_quorum is not None:
            _check_range("--write-quorum", self.write_quorum, 0, 1000)

    @property
    def is_open_loop(self) -> bool:
        """Whether arrivals follow a schedule, independent of replies."""
        return self.rate_per_s > 0

    @property
    def has_end(self) -> bool:
        """Whether the run ends by itself."""
        return self.duration_s > 0 or self.total_writes > 0

    @property
    def warmup_ns(self) -> int:
        """Length of the warm-up."""
        return round(self.warmup_s * NS_PER_S)

    @property
    def end_ns(self) -> int | None:
        """Offset at which no further request starts; None if the plan has no such end."""
        if self.duration_s == 0:
            return None
        return round((self.warmup_s + self.duration_s) * NS_PER_S)

    def random(self, purpose: str, stream: int) -> random.Random:
        """A random source of its own for each purpose, so that one never shifts another.

        Args:
            purpose: what is drawn from it.
            stream: the number of the client that draws, lest all draw the same.
        """
        return random.Random(f"{self.seed}/{purpose}/{stream}")  # noqa: S311 - load, not secrets

    def in_flight_limit(self, share: Share) -> int:
        """How many requests one process may have open before further ones are dropped.

        Enough for a store that answers nothing for the whole of the client's timeout.
        """
        if self.max_in_flight:
            return self.max_in_flight
        return max(math.ceil(self.rate_per_s * CLIENT_TIMEOUT_S / share.count), MIN_IN_FLIGHT_LIMIT)


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of the load: `index` (from 0) of `count` processes."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            msg = f"process {self.index} of {self.count} does not exist"
            raise ValueError(msg)

    def of_total(self, total: int) -> int:
        """This process's part of `total` requests; the parts of all processes add up to it."""
        return total // self.count + (1 if self.index < total % self.count else 0)


def _check_range(option: str, value: float, low: float, high: float) -> None:
    # Written so that NaN fails too.
    if not low <= value <= high:
        msg = f"{option} must be between {low:g} and {high:g}, not {value:g}"
        raise ValueError(msg)


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        msg = f"{option} must be {' or '.join(choices)}, not {value!r}"
        raise ValueError(msg)
