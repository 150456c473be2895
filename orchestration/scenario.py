"""A frozen, validated description of a sweep, and the order in which its cells run; pure."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, Self, get_args

import msgspec

from orchestration import limits
from orchestration.errors import UsageError
from orchestration.load.plan import LoadPlan
from orchestration.thresholds import parse_thresholds

Workload = Literal[
    "writes", "mixed", "seed", "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-e", "ycsb-f"
]
Engine = Literal["local", "compose", "attached"]
Ack = Literal["memory", "fsync", ""]
DelayModel = Literal["independent", "fifo"]
Arrivals = Literal["constant", "poisson"]
KeyChoice = Literal["default", "uniform", "zipfian", "latest", "hotset"]
ReadFrom = Literal["leader", "followers"]

WORKLOADS: tuple[Workload, ...] = get_args(Workload)

# What a sweep takes besides its trials, on two cores: starting the cluster, Locust's start and
# end around each trial, drawing the report. Only --dry-run's estimate uses them.
START_S: Mapping[str, float] = {"local": 3.0, "compose": 45.0, "attached": 0.0}
TRIAL_OVERHEAD_S = 1.3
# Workloads with records write them all before their first trial.
LOADED_KEYS_PER_S = 10_000.0
LOADED_BYTES_PER_S = 10 * 2**20
# What a node's memory holds of a key besides its value: name, version, places in tables.
KEY_BYTES = 500
REPORT_S = 4.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that decides what a sweep does; the same scenario gives the same plan.

    Attributes:
        name: what the run is called: the folder of its results.
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
        arrivals: how an open loop spaces them.
        key_choice: which keys are asked for; "default" is the workload's own choice.
        value_bytes: smallest and largest size of a value; None takes the workload's own.
        read_share: share of reads, 0 to 1, in the workload that mixes.
        read_from: which nodes serve reads.
        processes: load processes that share the load.
        delay_ms: range of the injected link delays; None leaves those of an attached cluster.
        delay_model: whether an entry may overtake another one on its link ("independent") or not
            ("fifo"); None leaves it to the nodes: to those of an attached cluster.
        seed: decides the order of cells, the arrivals, the keys and the link delays.
        acks: what acknowledgments mean, each measured at every k: "memory" or "fsync"; "" is what
            a cluster that was not started here does.
        is_pinned: nodes and generator have cores of their own.
        thresholds: objectives that decide the exit code, such as "p99 < 50ms at k=3".
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
    name: str = ""
    delay_model: DelayModel | None = None
    arrivals: Arrivals = "constant"
    key_choice: KeyChoice = "default"
    value_bytes: tuple[int, int] | None = None
    read_share: float = 0.5
    read_from: ReadFrom = "leader"
    processes: int = 1
    acks: tuple[Ack, ...] = ("memory",)
    is_pinned: bool = False
    thresholds: tuple[str, ...] = ()

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
            limits.DELAY_MS.check(self.delay_ms, "--delay")
        if (self.acks == ("",)) == (self.engine == "local") or len(set(self.acks)) < len(self.acks):
            raise UsageError(
                "Which acknowledgments to measure, memory or fsync, can be chosen for local nodes "
                "and for no others: set DATA_DIR where yours are started."
            )
        limits.PROCESSES.check(self.processes, "--processes")
        if self.is_pinned and self.engine != "local":
            raise UsageError("--pin gives local nodes cores of their own: use --engine local.")
        if self.read_from == "followers" and not self.followers:
            raise UsageError("--read-from followers: there are none; read from the leader.")
        self._check_thresholds()
        self._check_load()

    def _check_thresholds(self) -> None:
        for threshold in parse_thresholds(self.thresholds, "--threshold"):
            if threshold.quorums and not set(threshold.quorums) & set(self.quorums):
                raise UsageError(
                    f"The threshold {threshold.text!r} is for no k that is measured: --k is "
                    f"{limits.format_quorums(self.quorums)}."
                )

    def _check_load(self) -> None:
        if (self.rate_per_s is None) == (self.users is None):
            raise UsageError(
                "Give either --rate (open loop) or --users (closed loop), not both and not neither."
            )
        if self.rate_per_s is not None:
            limits.RATE.check(self.rate_per_s, "--rate")
        if self.users is not None:
            limits.USERS.check(self.users, "--users")
            if self.users < self.processes:
                raise UsageError(
                    f"{self.processes} load processes need at least as many clients: --users is "
                    f"{self.users}."
                )
        if self.duration_s is None and self.total_writes is None:
            raise UsageError("A trial needs an end: give --duration.")
        if self.duration_s is not None:
            limits.DURATION.check(self.duration_s, "--duration")
        if self.total_writes is not None:
            limits.TOTAL_WRITES.check(self.total_writes, "TOTAL_WRITES")
        if self.keys is not None:
            limits.KEYS.check(self.keys, "--keys")
        if self.value_bytes is not None:
            limits.VALUE_BYTES.check(self.value_bytes, "--value-bytes")
        limits.READ_SHARE.check(self.read_share, "--read-share")

    def as_dict(self) -> dict[str, object]:
        """The settings as JSON has them, for the manifest."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """The scenario whose settings `as_dict` gave; a ValueError says what will not do."""
        return msgspec.convert(values, cls, strict=True)


@dataclass(frozen=True, slots=True)
class Cell:
    """One trial of the plan: block ``block``, write quorum ``k``.

    All cells of a block share ``seed``, so that they see the same arrivals and keys, and their
    differences are paired.

    Attributes:
        ack: on which kind of cluster.
        rate_per_s: arrivals per second, where trials of one run differ in it; None leaves it to
            the scenario.
    """

    block: int
    k: int
    seed: int
    ack: Ack = ""
    rate_per_s: float | None = None

    @property
    def folder(self) -> str:
        """A name for the trial's files, in no two trials of a run the same."""
        parts = [f"block{self.block}", f"k{self.k}", self.ack]
        if self.rate_per_s is not None:
            parts.append(f"rate{self.rate_per_s:g}")
        return "-".join(part for part in parts if part)


def plan(scenario: Scenario) -> tuple[Cell, ...]:
    """The cells in the order they run: randomised complete blocks, so that drift hits all alike."""
    shuffler = random.Random(scenario.seed)  # noqa: S311 - reproducible order, no secret
    cells: list[Cell] = []
    for block in range(scenario.trials):
        order = [(k, ack) for ack in scenario.acks for k in scenario.quorums]
        shuffler.shuffle(order)
        seed = (scenario.seed + block) % (limits.SEED.high + 1)
        cells.extend(Cell(block=block, k=k, seed=seed, ack=ack) for k, ack in order)
    return tuple(cells)


def expected_trial_s(scenario: Scenario, k: int) -> float:
    """About how long a trial at ``k`` takes, without Locust's start and end."""
    if scenario.total_writes is None:
        return scenario.warmup_s + (scenario.duration_s or 0.0)
    # The k-th of n uniform delays has the mean a + (b - a) k / (n + 1) (David and Nagaraja,
    # Order Statistics, 2003, 2.2).
    low, high = scenario.delay_ms or (0.0, 0.0)
    # On a fifo link a client's write waits for those of the others: about the longest delay.
    share = 1.0 if scenario.delay_model == "fifo" else k / (scenario.followers + 1)
    answer_s = (low + (high - low) * share) / 1_000 if k else 0.0
    writes_s = scenario.total_writes * answer_s / (scenario.users or 1)
    return min(writes_s + 1.0, scenario.warmup_s + (scenario.duration_s or writes_s + 1.0))


def records_of(scenario: Scenario) -> tuple[int, int]:
    """How many keys a workload writes before it begins, and the bytes of a value on average."""
    if not scenario.workload.startswith("ycsb"):
        return 0, 0
    return scenario.keys or LoadPlan().keys, sum(
        scenario.value_bytes or LoadPlan().value_bytes
    ) // 2


def records_bytes(scenario: Scenario) -> int:
    """About how much memory all nodes together need for the records of a workload."""
    keys, value_bytes = records_of(scenario)
    nodes = (scenario.followers + 1) * len(scenario.acks)
    return keys * (value_bytes + KEY_BYTES) * nodes


def expected_loading_s(scenario: Scenario) -> float:
    """About how long it takes to write the records of a workload, on each kind of cluster once."""
    keys, value_bytes = records_of(scenario)
    once_s = max(keys / LOADED_KEYS_PER_S, keys * value_bytes / LOADED_BYTES_PER_S)
    return once_s * len(scenario.acks)


def expected_duration_s(scenario: Scenario) -> float:
    """About how long the whole sweep takes, from its start to its report."""
    rounds = scenario.trials * len(scenario.acks)
    trials_s = sum(expected_trial_s(scenario, k) for k in scenario.quorums) * rounds
    overhead_s = TRIAL_OVERHEAD_S * rounds * len(scenario.quorums)
    around_s = START_S[scenario.engine] * len(scenario.acks) + REPORT_S
    return around_s + expected_loading_s(scenario) + trials_s + overhead_s
