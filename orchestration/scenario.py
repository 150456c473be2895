"""A frozen, validated description of a sweep, and the order in which its cells run; pure."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from orchestration import limits
from orchestration.errors import UsageError

Workload = Literal["writes", "mixed", "seed"]
Engine = Literal["local", "compose", "attached"]

# What a sweep takes besides its trials, on two cores: starting the cluster, Locust's start and
# end around each trial, drawing the report. Only --dry-run's estimate uses them.
START_S: Mapping[str, float] = {"local": 3.0, "compose": 45.0, "attached": 0.0}
TRIAL_OVERHEAD_S = 1.3
REPORT_S = 4.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that decides what a sweep does; the same scenario gives the same plan.

    Attributes:
        workload: which of Locust's scenarios drives the store.
        engine: where the nodes run.
        followers: n, the number of followers.
        quorums: the write quorums k to measure, ascending, each within 0..n.
        trials: trials per k; each is one block.
        warmup_s: discarded at the start of each trial.
        duration_s: the measured window; None ends a trial by ``total_writes`` alone.
        rate_per_s: arrivals per second of an open loop; None for a closed loop.
        users: clients of a closed loop, back to back; None for an open loop.
        total_writes: writes after which a trial ends; None ends it by ``duration_s``.
        keys: number of distinct keys; None takes the workload's own.
        delay_ms: range of the injected link delays; None leaves those of an attached cluster.
        seed: decides the order of cells, the arrivals, the keys and the link delays.
        durable: nodes that are started here acknowledge from their disks.
    """

    workload: Workload
    engine: Engine
    followers: int
    quorums: tuple[int, ...]
    trials: int
    warmup_s: float
    duration_s: float | None
    rate_per_s: float | None
    users: int | None
    total_writes: int | None
    keys: int | None
    delay_ms: tuple[float, float] | None
    seed: int
    durable: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError, naming the option, for a value that cannot be run."""
        limits.FOLLOWERS.check(self.followers, "--followers")
        limits.TRIALS.check(self.trials, "--trials")
        limits.WARMUP.check(self.warmup_s, "--warmup")
        limits.SEED.check(self.seed, "--seed")
        if not self.quorums:
            raise UsageError("--k names no write quorum: give at least one, such as 1.")
        for k in self.quorums:
            limits.Whole(0, self.followers).check(k, "--k")
        if self.delay_ms is not None:
            limits.check_delay_ms(self.delay_ms, "--delay")
        self._check_load()

    def _check_load(self) -> None:
        if (self.rate_per_s is None) == (self.users is None):
            raise UsageError(
                "Give either --rate (open loop) or --users (closed loop), not both and not neither."
            )
        if self.rate_per_s is not None:
            limits.RATE.check(self.rate_per_s, "--rate")
        if self.users is not None:
            limits.USERS.check(self.users, "--users")
        if self.duration_s is None and self.total_writes is None:
            raise UsageError("A trial needs an end: give --duration.")
        if self.duration_s is not None:
            limits.DURATION.check(self.duration_s, "--duration")
        if self.total_writes is not None:
            limits.TOTAL_WRITES.check(self.total_writes, "TOTAL_WRITES")
        if self.keys is not None:
            limits.KEYS.check(self.keys, "KEY_COUNT")

    def as_dict(self) -> dict[str, object]:
        """The settings as JSON has them, for the manifest."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


@dataclass(frozen=True, slots=True)
class Cell:
    """One trial of the plan: block ``block``, write quorum ``k``.

    All cells of a block share ``seed``, so that they see the same arrivals and keys, and their
    differences are paired.
    """

    block: int
    k: int
    seed: int


def plan(scenario: Scenario) -> tuple[Cell, ...]:
    """The cells in the order they run: randomised complete blocks, so that drift hits all alike."""
    shuffler = random.Random(scenario.seed)  # noqa: S311 - reproducible order, no secret
    cells: list[Cell] = []
    for block in range(scenario.trials):
        order = list(scenario.quorums)
        shuffler.shuffle(order)
        seed = (scenario.seed + block) % (limits.SEED.high + 1)
        cells.extend(Cell(block=block, k=k, seed=seed) for k in order)
    return tuple(cells)


def expected_trial_s(scenario: Scenario, k: int) -> float:
    """About how long a trial at ``k`` takes, without Locust's start and end."""
    if scenario.total_writes is None:
        return scenario.warmup_s + (scenario.duration_s or 0.0)
    # The k-th of n uniform delays has the mean a + (b - a) k / (n + 1) (David and Nagaraja,
    # Order Statistics, 2003, 2.2).
    low, high = scenario.delay_ms or (0.0, 0.0)
    answer_s = (low + (high - low) * k / (scenario.followers + 1)) / 1_000 if k else 0.0
    writes_s = scenario.total_writes * answer_s / (scenario.users or 1)
    return min(writes_s + 1.0, scenario.warmup_s + (scenario.duration_s or writes_s + 1.0))


def expected_duration_s(scenario: Scenario) -> float:
    """About how long the whole sweep takes, from its start to its report."""
    trials_s = sum(expected_trial_s(scenario, k) for k in scenario.quorums) * scenario.trials
    overhead_s = TRIAL_OVERHEAD_S * scenario.trials * len(scenario.quorums)
    return START_S[scenario.engine] + trials_s + overhead_s + REPORT_S
