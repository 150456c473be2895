"""From what a user asked for to a scenario: defaults, and the original workload's variables; pure.

An option that was given wins over an environment variable, and that over a default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self, TypeVar

from orchestration import limits
from orchestration.errors import UsageError
from orchestration.scenario import (
    Ack,
    Arrivals,
    DelayModel,
    Engine,
    KeyChoice,
    ReadFrom,
    Scenario,
    Workload,
)

T = TypeVar("T")

DEFAULT_FOLLOWERS = 5
DEFAULT_DELAY_MS = (0.0, 100.0)
DEFAULT_DELAY_MODEL: DelayModel = "independent"
DEFAULT_RATE_PER_S = 100.0
DEFAULT_OUT = Path("reports")
DELAY_MODEL_IS_ATTACHED = (
    "--delay-model cannot be chosen with --attach: nodes have the one that they were started with "
    "(DELAY_MODEL)."
)
READS_NOTHING: frozenset[Workload | None] = frozenset({"writes", "seed"})
# Its records are 10 fields of 100 bytes.
YCSB_VALUE_BYTES = (1000, 1000)
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """The options of ``sweep``; None where the user gave none.

    ``quorums`` is still text, since its range depends on the number of followers;
    ``quorums_name`` is the option or variable it came from.
    """

    name: str | None = None
    workload: Workload | None = None
    quorums: str | None = None
    quorums_name: str = "--k"
    trials: int | None = None
    warmup_s: float | None = None
    duration_s: float | None = None
    rate_per_s: float | None = None
    users: int | None = None
    followers: int | None = None
    delay_ms: tuple[float, float] | None = None
    delay_model: DelayModel | None = None
    engine: Engine | None = None
    attach_url: str | None = None
    reached_urls: tuple[str, ...] = ()
    total_writes: int | None = None
    keys: int | None = None
    arrivals: Arrivals | None = None
    key_choice: KeyChoice | None = None
    value_bytes: tuple[int, int] | None = None
    read_share: float | None = None
    read_from: ReadFrom | None = None
    processes: int | None = None
    acks: tuple[Ack, ...] | None = None
    is_pinned: bool | None = None
    thresholds: tuple[str, ...] = ()
    out: Path | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for options that exclude each other."""
        if self.attach_url is not None and self.engine is not None:
            raise UsageError(
                "--attach uses a cluster that runs already and --engine starts one: give one."
            )
        if self.attach_url is not None and self.followers is not None:
            raise UsageError(
                "--followers cannot be chosen with --attach: the cluster has those it has."
            )
        if self.attach_url is not None and self.delay_model is not None:
            raise UsageError(DELAY_MODEL_IS_ATTACHED)
        if self.acks is not None and self.where != "local":
            raise UsageError(
                "--ack, --durable, and ack in a scenario, start local nodes with a disk or "
                "without: an attached cluster and Compose have what they have; set DATA_DIR there."
            )
        if self.is_pinned and self.where != "local":
            raise UsageError(
                "--pin, and pin in a scenario, give local nodes cores of their own: use --engine "
                "local."
            )
        if self.rate_per_s is not None and self.workload == "seed":
            raise UsageError(
                "--rate is an open loop, and --workload seed a closed one: give --users instead."
            )
        if self.rate_per_s is not None and self.users is not None:
            raise UsageError(
                "--rate is an open loop and --users a closed one: give one of the two."
            )

    def over(self, base: Self) -> Self:
        """This request, completed by `base` where it says nothing.

        What excludes what `base` says, such as clients instead of a rate, replaces it.
        """
        if self.rate_per_s is not None or self.users is not None:
            base = replace(base, rate_per_s=None, users=None)
        if self.users is not None:
            base = replace(base, arrivals=None)
        if self.workload not in {None, "mixed"}:
            base = replace(base, read_share=None)
        if self.workload in READS_NOTHING:
            base = replace(base, read_from=None)
        if self.workload == "seed":
            base = replace(base, rate_per_s=None, arrivals=None)
        if self.attach_url is not None or self.engine is not None:
            base = replace(base, attach_url=None, engine=None)
        if self.attach_url is not None:
            base = replace(base, followers=None, delay_ms=None, delay_model=None)
        given = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        if self.quorums is not None:
            given["quorums_name"] = self.quorums_name
        if self.thresholds:
            given["thresholds"] = base.thresholds + self.thresholds
        return replace(base, **given)

    @property
    def where(self) -> Engine:
        """The engine, with its default."""
        return "attached" if self.attach_url is not None else self.engine or "local"


def parse_acks(text: str, name: str) -> tuple[Ack, ...]:
    """From where nodes acknowledge, as ``text`` lists it: memory, fsync, or both."""
    known: Mapping[str, Ack] = {"memory": "memory", "fsync": "fsync"}
    parts = text.replace(" ", "").split(",")
    if not set(parts) <= set(known):
        raise limits.bad(name, text, "memory, fsync, or memory,fsync")
    return tuple(dict.fromkeys(known[part] for part in parts))


def with_environment(request: SweepRequest, environment: Mapping[str, str]) -> SweepRequest:
    """The request, completed by the original workload's variables if it is that workload.

    SPAWN_CLUSTER (false: use the cluster of LEADER_URL, whose followers FOLLOWER_URLS names),
    QUORUM_VALUES, TOTAL_WRITES, WRITE_CONCURRENCY, KEY_COUNT, REPORT_DIR.
    """
    if request.workload != "seed":
        return request
    found = {name: text.strip() for name, text in environment.items() if text.strip()}
    request = _attach(request, found)
    if request.quorums is None and "QUORUM_VALUES" in found:
        request = replace(request, quorums=found["QUORUM_VALUES"], quorums_name="QUORUM_VALUES")
    if request.users is None:
        text = found.get("WRITE_CONCURRENCY", "10")
        request = replace(request, users=limits.USERS.parse(text, "WRITE_CONCURRENCY"))
    total_writes = limits.TOTAL_WRITES.parse(found.get("TOTAL_WRITES", "100"), "TOTAL_WRITES")
    keys = limits.KEYS.parse(found.get("KEY_COUNT", "10"), "KEY_COUNT")
    out = Path(found["REPORT_DIR"]) if "REPORT_DIR" in found else None
    return replace(
        request,
        total_writes=request.total_writes or total_writes,
        keys=request.keys or keys,
        out=request.out or out,
    )


def to_scenario(request: SweepRequest, *, followers: int, fresh_seed: int) -> Scenario:
    """The scenario of a request on a cluster of ``followers``.

    Args:
        request: what was asked for, the environment included.
        followers: n of the cluster that will be used.
        fresh_seed: taken if the user gave none.
    """
    workload = request.workload or "writes"
    is_seed, is_ycsb = workload == "seed", workload.startswith("ycsb")
    _check_is_used(request, workload)
    least = min(1, followers) if is_seed else 0
    rate_per_s = request.rate_per_s
    if rate_per_s is None and request.users is None:
        rate_per_s = DEFAULT_RATE_PER_S
    delay_ms = request.delay_ms
    if delay_ms is None and request.where != "attached":
        delay_ms = (0.0, 1_000.0) if is_seed else DEFAULT_DELAY_MS
    delay_model = request.delay_model
    if delay_model is None and request.where != "attached":
        delay_model = DEFAULT_DELAY_MODEL
    where = request.where
    return Scenario(
        name=request.name or workload,
        workload=workload,
        engine=where,
        followers=followers,
        quorums=limits.parse_quorums(
            request.quorums or f"{least}-{followers}", request.quorums_name, followers
        ),
        trials=_or(request.trials, 1 if is_seed else 3),
        warmup_s=_or(request.warmup_s, 0.0 if is_seed else 1.0),
        duration_s=request.duration_s if is_seed else _or(request.duration_s, 4.0),
        rate_per_s=rate_per_s,
        users=request.users,
        total_writes=request.total_writes,
        keys=request.keys,
        delay_ms=delay_ms,
        delay_model=delay_model,
        seed=_or(request.seed, fresh_seed),
        arrivals=request.arrivals or "constant",
        key_choice=request.key_choice or "default",
        value_bytes=request.value_bytes or (YCSB_VALUE_BYTES if is_ycsb else None),
        read_share=_or(request.read_share, 0.5),
        read_from=request.read_from or "leader",
        processes=_or(request.processes, 1),
        acks=request.acks or (("memory",) if where == "local" else ("",)),
        is_pinned=bool(request.is_pinned),
        thresholds=request.thresholds,
    )


def _check_is_used(request: SweepRequest, workload: Workload) -> None:
    """Refuse what this load would take no notice of, wherever it was asked for."""
    if request.read_share is not None and workload != "mixed":
        raise UsageError(
            f"--read-share is for --workload mixed: {workload} has its own share of reads."
        )
    if request.read_from is not None and workload in READS_NOTHING:
        raise UsageError(f"--read-from: {workload} reads nothing; leave it out.")
    if request.arrivals is not None and (request.users is not None or workload == "seed"):
        raise UsageError(
            "--arrivals is of an open loop: clients of a closed one send when they have an answer."
        )


def _attach(request: SweepRequest, found: Mapping[str, str]) -> SweepRequest:
    if request.attach_url is not None or request.engine is not None:
        return request
    spawn = found.get("SPAWN_CLUSTER", "true").lower()
    if spawn not in _TRUE | _FALSE:
        raise limits.bad("SPAWN_CLUSTER", found["SPAWN_CLUSTER"], "true or false")
    if spawn in _TRUE:
        return request
    urls = [url.strip() for url in found.get("FOLLOWER_URLS", "").split(",")]
    leader_url = found.get("LEADER_URL", "http://127.0.0.1:8000")
    return replace(
        request,
        attach_url=limits.parse_load_url(leader_url, "LEADER_URL"),
        reached_urls=tuple(limits.parse_url(url, "FOLLOWER_URLS") for url in urls if url),
    )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
