"""Objectives that a user writes, such as ``p99 < 50ms at k=3``, and what a run says to them; pure.

``QUANTITY COMPARISON NUMBER UNIT [at k=LIST]``. The quantities are those of a report: ``mean``,
``p50``, ``p95``, ``p99`` and ``max`` of the response time (``us``, ``ms``, ``s``), ``errors``, the
share of requests that failed (``%``), and ``rate``, the achieved one (``/s``). Comparisons are
``<``, ``<=``, ``>`` and ``>=``. Without ``at`` an objective is for every cell of a run.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from orchestration import limits
from orchestration.errors import UsageError
from orchestration.exit_codes import OF_THRESHOLD, ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from orchestration.report.summary import Cell

# From best to worst: the worst check is the threshold's.
Status = Literal["passed", "unknown", "breached"]
Unit = Literal["ms", "%", "/s"]
# What all objectives of a run came to.
Result = Literal["passed", "failed", "unknown"]

EXAMPLE: Final = "p99 < 50ms at k=3"
MAX_CHARACTERS: Final = 200
MAX_THRESHOLDS: Final = 100

_RESULTS: Final[Mapping[Status, Result]] = {
    "passed": "passed",
    "unknown": "unknown",
    "breached": "failed",
}
_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}


class _Kind(NamedTuple):
    """What quantities have in common: the unit they are told in, how users write it, the bound."""

    unit: Unit
    factors: Mapping[str, float]
    largest: float


# The recorder's histograms end at an hour.
_TIME = _Kind("ms", {"us": 0.001, "ms": 1.0, "s": 1_000.0}, 3_600_000.0)
_KINDS: Final[Mapping[str, _Kind]] = {
    **dict.fromkeys(("mean", "p50", "p95", "p99", "max"), _TIME),
    "errors": _Kind("%", {"%": 1.0}, 100.0),
    "rate": _Kind("/s", {"/s": 1.0}, limits.RATE.high),
}
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{0,12})?|\.\d{1,12}")
_K_IS = re.compile(r"k\s*=")
_PART = r"\d+(?:\s*-\s*\d+)?"
_LIST = re.compile(rf"{_PART}(?:\s*,\s*{_PART})*")
_END = re.compile(r"$")


@dataclass(frozen=True, slots=True)
class Threshold:
    """One objective.

    Attributes:
        quantity: mean, p50, p95, p99 or max of the response time, errors, or rate.
        comparison: ``<``, ``<=``, ``>`` or ``>=``.
        value: the number that was written, in ``written_unit``.
        written_unit: us, ms or s of a response time, % of errors, /s of a rate.
        quorums: the write quorums that it is for, ascending; None for all.
    """

    quantity: str
    comparison: str
    value: float
    written_unit: str
    quorums: tuple[int, ...] | None = None

    @property
    def text(self) -> str:
        """The objective in one way of writing, whichever the user chose."""
        number = f"{Decimal(repr(self.value)).normalize():f}{self.written_unit}"
        where = "" if self.quorums is None else f" at k={limits.format_quorums(self.quorums)}"
        return f"{self.quantity} {self.comparison} {number}{where}"

    @property
    def is_response_time(self) -> bool:
        """Whether it is about how long a write takes."""
        return _KINDS[self.quantity] is _TIME

    @property
    def unit(self) -> Unit:
        """The unit of `limit`."""
        return _KINDS[self.quantity].unit

    @property
    def limit(self) -> float:
        """What a figure is held against, in `unit`."""
        return self.value * _KINDS[self.quantity].factors[self.written_unit]

    def is_met_by(self, figure: float) -> bool:
        """Whether a figure in `unit` meets it."""
        return _COMPARISONS[self.comparison](figure, self.limit)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold held against one cell.

    Attributes:
        measured: in the threshold's unit; None if it may not be quoted.
        ci95: its 95% interval over trials, where there is one.
        reason: why it is unknown, a clause without a full stop; empty if it is known.
    """

    scenario: str
    ack: str
    rate: float | None
    users: int | None
    k: int
    status: Status
    measured: float | None = None
    ci95: tuple[float, float] | None = None
    reason: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run says to one threshold.

    Attributes:
        text: the threshold, as `Threshold.text` writes it.
        status: breached if one cell breaches it, else unknown if one is, else passed.
        limit: in ``unit``.
        reason: which cells that it is for are not there, a clause; empty if all are.
        checks: one for each cell that it is for.
    """

    text: str
    status: Status
    limit: float
    unit: Unit
    reason: str
    checks: list[Check]


def parse_thresholds(texts: Sequence[str], name: str) -> tuple[Threshold, ...]:
    """The thresholds in these texts, each once, in their order; see `parse_threshold`."""
    if len(texts) > MAX_THRESHOLDS:
        raise UsageError(f"{name} gives {len(texts)} thresholds; at most {MAX_THRESHOLDS} do.")
    return tuple(dict.fromkeys(parse_threshold(text, name) for text in texts))


def parse_threshold(text: str, name: str) -> Threshold:
    """The threshold that ``text`` says.

    Args:
        text: such as ``p99 < 50ms at k=3``; spaces are free.
        name: the option, or the place in a file, that it came from; the error begins with it.

    Raises:
        UsageError: it says none; the sentence shows the text, the place, and an example.
    """
    reader = _Reader(text, name)
    quantity = reader.take(_any_of(_KINDS), f"one of {', '.join(_KINDS)}")
    comparison = reader.take(_any_of(_COMPARISONS), "<, <=, > or >=")
    value = float(reader.take(_NUMBER, "a number, such as 50"))
    kind = _KINDS[quantity]
    unit = reader.take(_any_of(kind.factors), f"a unit of {quantity} ({', '.join(kind.factors)})")
    if value * kind.factors[unit] > kind.largest:
        raise reader.error(f"but {quantity} is at most {kind.largest:,.0f}{kind.unit}")
    quorums = None if reader.is_at_end else _take_quorums(reader)
    reader.take(_END, "the end")
    return Threshold(quantity, comparison, value, unit, quorums)


def evaluate_all(texts: Sequence[str], cells: Sequence[Cell]) -> list[Outcome]:
    """What these cells say to each of a run's thresholds."""
    return [
        evaluate(threshold, cells)
        for threshold in parse_thresholds(texts, "A threshold of the run")
    ]


def evaluate(threshold: Threshold, cells: Sequence[Cell]) -> Outcome:
    """What these cells say to a threshold; a cell that it is for and that is not there is unknown.

    The estimate decides, not its interval: the interval tells how close it was.
    """
    wanted = threshold.quorums
    checks = [_check(threshold, cell) for cell in cells if wanted is None or cell.k in wanted]
    reason = _why_absent(wanted, {cell.k for cell in cells})
    found = {check.status for check in checks}
    if reason:
        found.add("unknown")
    return Outcome(
        text=threshold.text,
        status=_worst(found),
        limit=threshold.limit,
        unit=threshold.unit,
        reason=reason,
        checks=checks,
    )


def result_of(outcomes: Sequence[Outcome]) -> Result | None:
    """What a run's objectives came to, the worst first; None for a run that has none."""
    return _RESULTS[_worst({outcome.status for outcome in outcomes})] if outcomes else None


def exit_code(outcomes: Iterable[Outcome]) -> ExitCode:
    """99 if a threshold is breached, else 2 if one is unknown, else 0."""
    return OF_THRESHOLD[_worst({outcome.status for outcome in outcomes})]


def error_share(errors: Mapping[str, int], samples: int) -> float | None:
    """The share (0 to 1) of requests that failed; None if none came to an end.

    Args:
        errors: failures by their code.
        samples: successes.
    """
    failed = sum(errors.values())
    return failed / (failed + samples) if failed + samples else None


def _worst(found: set[Status]) -> Status:
    order: tuple[Status, ...] = ("breached", "unknown")
    return next((status for status in order if status in found), "passed")


def _why_absent(wanted: Sequence[int] | None, measured: set[int]) -> str:
    absent = set(wanted or ()) - measured
    if absent:
        return f"no cell with k={limits.format_quorums(absent)} was measured"
    return "" if measured else "no cell was measured"


def _check(threshold: Threshold, cell: Cell) -> Check:
    measured, ci95, reason = _figure(threshold, cell)
    status: Status = "unknown"
    if measured is not None:
        status = "passed" if threshold.is_met_by(measured) else "breached"
    return Check(
        scenario=cell.scenario,
        ack=cell.ack,
        rate=cell.rate,
        users=cell.users,
        k=cell.k,
        status=status,
        measured=measured,
        ci95=ci95,
        reason=reason,
    )


def _figure(
    threshold: Threshold, cell: Cell
) -> tuple[float | None, tuple[float, float] | None, str]:
    """The cell's figure in the threshold's unit, its interval, and why there is none."""
    name = threshold.quantity
    if threshold.is_response_time:
        figure = getattr(cell.response_ms, name)
        why = "" if figure is not None else _why_not_quoted(cell, name)
        return figure, cell.response_ms.ci95.get(name), why
    figure = cell.achieved_rate if name == "rate" else _error_percent(cell)
    if not _is_true(threshold, cell, figure):
        return None, None, f"{cell.stamp}: {cell.reason}"
    return figure, None, "" if figure is not None else "no request came to an end"


def _is_true(threshold: Threshold, cell: Cell, figure: float | None) -> bool:
    """Whether a rate or a share of errors holds in spite of the cell's stamp.

    That the store fell behind makes neither less true. Of an invalid cell, which may be one because
    so many requests failed, this much is known: it had no fewer errors.
    """
    if cell.stamp == "invalid" and threshold.quantity == "errors" and figure is not None:
        return not threshold.is_met_by(figure)
    return cell.stamp in {"ok", "saturated"}


def _error_percent(cell: Cell) -> float | None:
    share = error_share(cell.errors, cell.samples)
    return None if share is None else 100 * share


def _why_not_quoted(cell: Cell, name: str) -> str:
    if cell.stamp != "ok":
        return f"{cell.stamp}: {cell.reason}"
    fitting = [note for note in cell.notes if note.startswith((f"no {name}:", "no latency"))]
    return fitting[0].removesuffix(".") if fitting else f"no {name} was recorded"


def _take_quorums(reader: _Reader) -> tuple[int, ...]:
    reader.take(_any_of(["at"]), "'at k=…' or the end")
    reader.take(_K_IS, "k=")
    highest = limits.FOLLOWERS.high
    expected = f"write quorums from 0 to {highest}, such as 3 or 0-2,5"
    text = reader.take(_LIST, expected)
    try:
        return limits.parse_quorums("".join(text.split()), "k", highest)
    except UsageError as problem:
        raise reader.wrong(expected) from problem


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern for any of these words or signs; a word must end where it does."""
    return re.compile("|".join(re.escape(word) + (r"\b" * word.isalnum()) for word in words))


class _Reader:
    """Takes one token after another from a text, and says where that is not possible."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name
        self._token_start = 0
        self._rest_start = 0
        if len(text) > MAX_CHARACTERS:
            self._text = f"{text[:40]}…"
            raise self.error(f"but a threshold has at most {MAX_CHARACTERS} characters")

    @property
    def is_at_end(self) -> bool:
        """Whether nothing but spaces is left."""
        return not self._text[self._rest_start :].strip()

    def take(self, pattern: re.Pattern[str], expected: str) -> str:
        """The next token; ``expected`` describes it for the error."""
        rest = self._text[self._rest_start :]
        self._token_start = self._rest_start + len(rest) - len(rest.lstrip())
        match = pattern.match(self._text, self._token_start)
        if match is None:
            raise self.wrong(expected)
        self._rest_start = match.end()
        return match[0]

    def wrong(self, expected: str) -> UsageError:
        """The error that the last token should have been something else."""
        rest = self._text[self._token_start :].rstrip()
        place = f"character {self._token_start + 1} ({rest!r})" if rest else "its end"
        return self.error(f"where {place} should be {expected}")

    def error(self, problem: str) -> UsageError:
        """The error with this clause about the text."""
        return UsageError(
            f"{self._name} was given {self._text!r}, {problem}: write it like {EXAMPLE!r}."
        )
