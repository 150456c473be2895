"""What requests ask for: operations, keys and values. Pure and seeded.

Each client passes a `stream` number of its own, lest all ask for the same.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from orchestration.load.plan import MIN_VALUE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from orchestration.load.plan import LoadPlan, Share

# YCSB's constants: the exponent of its zipfian and latest choices, the longest scan, and the hot
# set's share of the keys and of the requests.
ZIPFIAN_EXPONENT = 0.99
MAX_SCAN_KEYS = 100
HOT_KEYS = 0.2
HOT_REQUESTS = 0.8


class Mix(NamedTuple):
    """Which operations there are.

    Attributes:
        shares: of each operation; they add up to 1.
        key_choice: which keys they ask for.
    """

    shares: Mapping[str, float]
    key_choice: str


YCSB: Mapping[str, Mix] = {
    "ycsb-a": Mix({"read": 0.5, "write": 0.5}, "zipfian"),
    "ycsb-b": Mix({"read": 0.95, "write": 0.05}, "zipfian"),
    "ycsb-c": Mix({"read": 1.0}, "zipfian"),
    "ycsb-d": Mix({"read": 0.95, "insert": 0.05}, "latest"),
    "ycsb-e": Mix({"scan": 0.95, "insert": 0.05}, "zipfian"),
    "ycsb-f": Mix({"read": 0.5, "read_modify_write": 0.5}, "zipfian"),
}
"""The core workloads of Cooper et al., Benchmarking Cloud Serving Systems with YCSB (SoCC 2010)."""


class Zipfian:
    """Draws ranks from 1 to n, rank i in proportion to i to the power of -exponent.

    By rejection-inversion (Hörmann and Derflinger, Rejection-inversion to generate variates from
    monotone discrete distributions, 1996): exact, with nothing to add up over all ranks first, so
    that n may be large and may grow.

    Args:
        ranks: n, at least 1.
        exponent: above 0, not 1.
    """

    def __init__(self, ranks: int, exponent: float = ZIPFIAN_EXPONENT) -> None:
        self._exponent = exponent
        self._shortcut = 2 - self._inverse(self._integral(2.5) - 2**-exponent)
        self._above_first = self._integral(1.5) - 1
        self.grow(ranks)

    def grow(self, ranks: int) -> None:
        """Changes n."""
        self.ranks = ranks
        self._end = self._integral(ranks + 0.5)

    def draw(self, random: Callable[[], float]) -> int:
        """The next rank, from a source of uniform numbers in [0, 1)."""
        while True:
            area = self._end + random() * (self._above_first - self._end)
            x = self._inverse(area)
            rank = min(max(int(x + 0.5), 1), self.ranks)
            if rank - x <= self._shortcut:
                return rank
            if area >= self._integral(rank + 0.5) - rank**-self._exponent:
                return rank

    def _integral(self, x: float) -> float:
        """The integral of t to the power of -exponent, from 1 to x."""
        power: float = x ** (1 - self._exponent)
        return (power - 1) / (1 - self._exponent)

    def _inverse(self, area: float) -> float:
        base = max(1 + area * (1 - self._exponent), 0.0)
        return math.exp(math.log(base) / (1 - self._exponent)) if base else 0.0


class InsertedKeys:
    """The keys that one process has added to those that were there.

    Keys are numbers; those of several processes differ. A key may be read once its insert, and all
    that this process began before it, came to an end.
    """

    def __init__(self, plan: LoadPlan, share: Share) -> None:
        self._present = plan.keys
        self._share = share
        self._begun = 0
        self._ended: set[int] = set()
        self.readable = 0
        """How many inserted keys may be read."""

    def begin(self) -> int:
        """The number of a key that is not there yet."""
        self._begun += 1
        return self._number(self._begun - 1)

    def end(self, number: int) -> None:
        """Notes that the insert of `begin`'s key has come to its end, well or not."""
        self._ended.add((number - self._present - self._share.index) // self._share.count)
        while self.readable in self._ended:
            self._ended.remove(self.readable)
            self.readable += 1

    def newest(self, rank: int) -> int:
        """The key that is the `rank`-th newest, from 1 to readable + those that were there."""
        if rank <= self.readable:
            return self._number(self.readable - rank)
        return self._present - 1 - (rank - self.readable - 1)

    def _number(self, insert: int) -> int:
        return self._present + self._share.index + insert * self._share.count


def key_name(number: int) -> str:
    """The key with this number."""
    return f"key-{number}"


def key_chooser(
    plan: LoadPlan, stream: int, inserted: InsertedKeys, key_choice: str = "uniform"
) -> Callable[[], int]:
    """A function that gives the number of the next key to ask for.

    Args:
        plan: its `key_choice` decides; its keys have the numbers from 0.
        stream: of the client.
        inserted: what `latest` counts back from.
        key_choice: where the plan leaves it open.
    """
    random = plan.random("keys", stream)
    match key_choice if plan.key_choice == "default" else plan.key_choice:
        case "zipfian":
            ranks = Zipfian(plan.keys)
            return lambda: ranks.draw(random.random) - 1
        case "latest":
            return _latest(plan.keys, inserted, random)
        case "hotset":
            return _hot_set(plan.keys, random)
        case _:
            randrange, keys = random.randrange, plan.keys
            return lambda: randrange(keys)


def _latest(keys: int, inserted: InsertedKeys, random: Random) -> Callable[[], int]:
    ranks = Zipfian(keys + inserted.readable)

    def choose() -> int:
        if ranks.ranks != keys + inserted.readable:
            ranks.grow(keys + inserted.readable)
        return inserted.newest(ranks.draw(random.random))

    return choose


def _hot_set(keys: int, random: Random) -> Callable[[], int]:
    hot = max(1, round(keys * HOT_KEYS))

    def choose() -> int:
        if keys == hot or random.random() < HOT_REQUESTS:
            return random.randrange(hot)
        return random.randrange(hot, keys)

    return choose


def value_maker(plan: LoadPlan, stream: int) -> Callable[[], str]:
    """A function that gives the next value: ASCII, of the plan's sizes, never the same twice.

    Unique over all streams of a run, and over runs that differ in their seed or their name. Those
    of one seed have the same sizes in the same order.
    """
    random = plan.random(f"values of {plan.trial}", stream)
    fingerprint = f"{random.getrandbits(40):010x}"
    counter = itertools.count()
    smallest, largest = plan.value_bytes
    padding = "." * (largest - MIN_VALUE_BYTES)
    if smallest == largest:
        return lambda: f"{fingerprint}{stream:06x}-{next(counter):010x}{padding}"
    randint, prefix = plan.random("sizes", stream).randint, f"{fingerprint}{stream:06x}-"
    return lambda: f"{prefix}{next(counter):010x}{padding}"[: randint(smallest, largest)]


def read_chooser(plan: LoadPlan, stream: int) -> Callable[[], bool]:
    """A function that says for each request in turn whether it is a read."""
    draw = plan.random("reads", stream).random
    read_share = plan.read_share
    return lambda: draw() < read_share


def operation_chooser(plan: LoadPlan, stream: int) -> Callable[[], str]:
    """A function that gives the next operation of the plan's mix."""
    choices = plan.random("operations", stream).choices
    shares = YCSB[plan.mix].shares
    names, bounds = list(shares), list(itertools.accumulate(shares.values()))
    return lambda: choices(names, cum_weights=bounds)[0]


def scan_length_chooser(plan: LoadPlan, stream: int) -> Callable[[], int]:
    """A function that gives the number of keys of the next scan, uniform from 1."""
    randint = plan.random("scans", stream).randint
    return lambda: randint(1, MAX_SCAN_KEYS)


def node_chooser(plan: LoadPlan, stream: int, nodes: int) -> Callable[[], int]:
    """A function that gives the number of the next node to read from, uniform and seeded."""
    randrange = plan.random("nodes", stream).randrange
    return lambda: randrange(nodes)
