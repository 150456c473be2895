"""Reads a scenario from a TOML file, and says which line will not do.

``quorumeter sweep --scenario`` takes such a file, or the name of one that comes along.
"""

import re
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from orchestration import limits
from orchestration.errors import UsageError
from orchestration.request import SweepRequest
from orchestration.scenario import Ack, Arrivals, DelayModel, Engine, KeyChoice, ReadFrom, Workload
from orchestration.thresholds import parse_threshold

T = TypeVar("T")

MAX_FILE_BYTES = 64 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
# What the root of outputs has below these names is not a scenario's.
RESERVED_NAMES = ("latest", "calibration")
# "Expected `int`, got `str` - at `$.load.rate`"
_CONVERSION = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<key>[^`]*)`)?")

Text = int | float | str


class _Cluster(msgspec.Struct, forbid_unknown_fields=True):
    engine: Engine | None = None
    followers: int | None = None
    delay_ms: tuple[float, float] | float | None = None
    delay_model: DelayModel | None = None
    ack: list[Ack] | Ack | None = None
    pin: bool | None = None
    attach: str | None = None


class _Load(msgspec.Struct, forbid_unknown_fields=True):
    workload: Workload | None = None
    rate: float | None = None
    users: int | None = None
    arrivals: Arrivals | None = None
    keys: int | None = None
    key_choice: KeyChoice | None = None
    value_bytes: tuple[int, int] | int | None = None
    read_share: float | None = None
    read_from: ReadFrom | None = None
    total_writes: int | None = None
    processes: int | None = None
    warmup: Text | None = None
    duration: Text | None = None


class _Sweep(msgspec.Struct, forbid_unknown_fields=True):
    k: str | int | list[int] | None = None
    trials: int | None = None
    seed: int | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    description: str = ""
    cluster: _Cluster = msgspec.field(default_factory=_Cluster)
    load: _Load = msgspec.field(default_factory=_Load)
    sweep: _Sweep = msgspec.field(default_factory=_Sweep)
    thresholds: list[str] = []


def read_scenario(name_or_path: str) -> SweepRequest:
    """The request that a scenario file describes.

    Args:
        name_or_path: a path, or the name of a scenario that comes along.

    Raises:
        UsageError: There is no such file, or it will not do; the message has the line.
    """
    path, text = _find(name_or_path)
    return _Reader(path, text).request()


def shipped_scenarios() -> dict[str, str]:
    """The scenarios that come along: each name with its description."""
    files = (file for file in _folder().iterdir() if file.name.endswith(".toml"))
    found = {file.name.removesuffix(".toml"): tomllib.loads(_text(file)) for file in files}
    return {name: str(found[name].get("description", "")) for name in sorted(found)}


def _folder() -> Any:
    return resources.files("orchestration") / "scenarios"


def _text(file: Any) -> str:
    return str(file.read_text(encoding="utf-8"))


def _find(name_or_path: str) -> tuple[str, str]:
    path = Path(name_or_path)
    if _NAME.fullmatch(name_or_path) and not path.is_file():
        shipped = _folder() / f"{name_or_path}.toml"
        if not shipped.is_file():
            names = ", ".join(shipped_scenarios())
            raise UsageError(
                f"There is no scenario {name_or_path!r}: give a file, or one of {names}."
            )
        return f"{name_or_path}.toml", _text(shipped)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes, so no scenario.")
        return str(path), path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise UsageError(
            f"The scenario {path} cannot be read: {problem.strerror}; check its path."
        ) from problem
    except UnicodeDecodeError as problem:
        raise UsageError(
            f"{path} is not UTF-8 text, so no scenario: save it in that encoding."
        ) from problem


class _Reader:
    """One file on its way to a request; errors name the line of the key that they are about."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text

    def request(self) -> SweepRequest:
        file = self._decode()
        cluster, load, sweep = file.cluster, file.load, file.sweep
        check = self._check
        for index, threshold in enumerate(file.thresholds):
            check(f"thresholds.{index}", parse_threshold, threshold)
        if file.name is not None and not _NAME.fullmatch(file.name):
            self._fail("name", "name must be lower-case letters, digits, - and _, up to 64")
        name = file.name or self._own_name()
        if name in RESERVED_NAMES:
            reserved = " and ".join(RESERVED_NAMES)
            self._fail("name", f"{reserved} are taken: give the scenario another name")
        try:
            return SweepRequest(
                name=name,
                workload=load.workload,
                quorums=_quorums(sweep.k),
                quorums_name=self._quorums_name(sweep),
                trials=check("sweep.trials", _in(limits.TRIALS), sweep.trials),
                seed=check("sweep.seed", _in(limits.SEED), sweep.seed),
                warmup_s=check("load.warmup", _parsed(limits.WARMUP), load.warmup),
                duration_s=check("load.duration", _parsed(limits.DURATION), load.duration),
                rate_per_s=check("load.rate", _in(limits.RATE), load.rate),
                users=check("load.users", _in(limits.USERS), load.users),
                total_writes=check(
                    "load.total_writes", _in(limits.TOTAL_WRITES), load.total_writes
                ),
                keys=check("load.keys", _in(limits.KEYS), load.keys),
                arrivals=load.arrivals,
                key_choice=load.key_choice,
                value_bytes=check(
                    "load.value_bytes", limits.VALUE_BYTES.check, _pair(load.value_bytes)
                ),
                read_share=check("load.read_share", _in(limits.READ_SHARE), load.read_share),
                read_from=load.read_from,
                processes=check("load.processes", _in(limits.PROCESSES), load.processes),
                engine=cluster.engine,
                attach_url=check("cluster.attach", limits.parse_load_url, cluster.attach),
                followers=check("cluster.followers", _in(limits.FOLLOWERS), cluster.followers),
                delay_ms=check("cluster.delay_ms", limits.DELAY_MS.check, _pair(cluster.delay_ms)),
                delay_model=cluster.delay_model,
                acks=_acks(cluster.ack),
                is_pinned=cluster.pin,
                thresholds=tuple(file.thresholds),
            )
        except UsageError as problem:
            if str(problem).startswith(self._path):
                raise
            raise UsageError(f"{self._path}: {problem}") from problem

    def _quorums_name(self, sweep: _Sweep) -> str:
        """What to call k where it will not do: that depends on what is not known here."""
        return "--k" if sweep.k is None else f"{self._path}, line {self._line('sweep.k')}: sweep.k"

    def _own_name(self) -> str | None:
        stem = Path(self._path).stem
        return stem if _NAME.fullmatch(stem) else None

    def _decode(self) -> _File:
        try:
            values = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as problem:
            raise UsageError(f"{self._path} is not TOML: {problem}.") from problem
        try:
            return msgspec.convert(values, _File, strict=True)
        except msgspec.ValidationError as problem:
            found = _CONVERSION.fullmatch(str(problem))
            key = (found and found["key"]) or ""
            what = found["what"] if found else str(problem)
            unknown = re.search(r"unknown field `([^`]*)`", what)
            if unknown:
                key = f"{key}.{unknown[1]}".lstrip(".")
                self._fail(
                    key, f"there is no setting {key}; see docs/scenarios.md for those there are"
                )
            self._fail(key, f"{key} will not do: {what[:1].lower()}{what[1:]}")

    def _check(self, key: str, parse: Callable[[Any, str], T], value: Any) -> T | None:
        if value is None:
            return None
        try:
            return parse(value, key)
        except UsageError as problem:
            self._fail(key, str(problem).rstrip("."))

    def _fail(self, key: str, message: str) -> NoReturn:
        raise UsageError(f"{self._path}, line {self._line(key)}: {message}.")

    def _line(self, key: str) -> int:
        """The line on which the value of a key ends, counted from 1.

        It is the first after which the file, cut there, has the key: TOML has too many ways to
        write one to look for it by its text.
        """
        lines = self._text.splitlines()
        for number in range(1, len(lines) + 1):
            try:
                values: Any = tomllib.loads("\n".join(lines[:number]))
            except tomllib.TOMLDecodeError:
                continue
            if _has(values, re.split(r"\.|\[(\d+)\]", key)):
                return number
        return len(lines)


def _has(values: Any, parts: list[str | None]) -> bool:
    for part in filter(None, parts):
        if isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        elif isinstance(values, dict) and part in values:
            values = values[part]
        else:
            return False
    return True


def _in(allowed: limits.Whole | limits.Real) -> Callable[[Any, str], Any]:
    return allowed.check


def _parsed(allowed: limits.Duration) -> Callable[[Any, str], float]:
    return lambda value, name: allowed.parse(str(value), name)


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, (int, float)) else value


def _acks(value: list[Ack] | Ack | None) -> tuple[Ack, ...] | None:
    if value is None:
        return None
    return tuple(value) if isinstance(value, list) else (value,)


def _quorums(value: str | int | list[int] | None) -> str | None:
    return (
        ",".join(map(str, value))
        if isinstance(value, list)
        else None
        if value is None
        else str(value)
    )
