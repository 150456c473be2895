"""Looks for the highest rate that meets an objective, one trial after another; pure.

The rates are rungs of a ladder, each a little above the one below, so that the search is one on
whole numbers. It climbs by doublings until a rung is not met, halves the gap (bisection on the
logarithm) until two neighbours differ, and confirms the lower one. What is known is nothing but the
list of attempts so far: the same attempts always lead to the same next one, so that a report can
follow a search again from what it measured.

A trial is disturbed now and then, and a search that believed each would end far too low or a
little too high. Hence two rules. A rung is not met only when two trials say so for the same reason,
so that one bad trial at a low rate does not end the climb. And the found rung has to be met by most
of `confirm` further trials; the one that led there does not count: it was chosen for its luck.
Most, not all: all of three would look for the rate that is met in four trials of five, and further
down the more confirmations are asked for; most of them look for the rate that is met more often
than not, whatever their number, and one disturbed trial does not change the result.

A trial that says nothing is no vote and is repeated; two at a rung, one after the other, end the
search. A rung that loses its confirmation to as many trials that blame the store as blame
the generator gets one more; if they are as many still, the store has the benefit of the doubt.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from orchestration.audit import ERROR_SHARE
from orchestration.report.summary import WRITES_NEEDED
from orchestration.thresholds import error_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestration.report.records import TrialRow
    from orchestration.thresholds import Threshold

# What a trial says: the objective was met; it was not, by the store; the load generator could not
# offer that rate; or the trial says nothing.
Answer = Literal["met", "missed", "generator-bound", "void"]
Purpose = Literal["search", "confirm"]
Kind = Literal["sustained", "at-least", "none", "void", "unsettled", "unfinished"]

# So many trials that say so for the same reason make a rung one that is not met; so many in a row
# that say nothing end the search.
AGREEING: Final = 2
# Each confirmation that fails sends the search further down: what fails so often has no rate.
CONFIRMATIONS: Final = 4
SIGNIFICANT_DIGITS: Final = 4
# The audit's reason for a trial whose errors may be those of a load that died.
ENDED_EARLY: Final = "the load ended before its plan was done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for, and where.

    Attributes:
        precision: neighbouring rates differ by at most this share, such as 0.05.
        confirm: further trials at the found rate, at least 1.
        first_rate_per_s: where the climb begins; not outside the next two.
        lowest_rate_per_s: below which no trial is made.
        highest_rate_per_s: above which no trial is made.
    """

    precision: float
    confirm: int
    first_rate_per_s: float
    lowest_rate_per_s: float
    highest_rate_per_s: float

    @property
    def doubling(self) -> int:
        """How many rungs a rate is below twice that rate."""
        return math.ceil(math.log(2) / math.log1p(self.precision))

    @property
    def lowest(self) -> int:
        """The lowest rung."""
        return math.ceil(self._position(self.lowest_rate_per_s))

    @property
    def highest(self) -> int:
        """The highest rung."""
        return math.floor(self._position(self.highest_rate_per_s))

    @property
    def most_trials(self) -> int:
        """After so many trials the search gives up."""
        climb = math.ceil(max(self.highest, -self.lowest) / self.doubling) + 1
        halvings = math.ceil(math.log2(self.doubling))
        return AGREEING * climb + CONFIRMATIONS * (AGREEING * halvings + self.confirm)

    def rate_per_s(self, rung: int) -> float:
        """The rate of a rung, in few digits; the first rate has rung 0."""
        exact = self.first_rate_per_s * 2 ** (rung / self.doubling)
        return float(f"{exact:.{SIGNIFICANT_DIGITS}g}")

    def _position(self, rate_per_s: float) -> float:
        # Rounded, lest a rung lie a hair outside of the range that it ends.
        return round(self.doubling * math.log2(rate_per_s / self.first_rate_per_s), 6)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A trial that was made."""

    rung: int
    purpose: Purpose
    answer: Answer


@dataclass(frozen=True, slots=True)
class Next:
    """The trial to make next."""

    rung: int
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Finding:
    """What a search has found.

    Attributes:
        kind: sustained: `rung` is met, and the one above is not, because of the store; at-least:
            `rung` is met, and the load generator or the range of rates ended the climb; none: not
            even the lowest rate is met; void: trials said nothing; unsettled: they contradicted
            each other for too long; unfinished: there is more to try.
        rung: the highest one that is met; None if none is.
        above: the lowest one that is not met; None if all were met.
        why_above: missed or generator-bound, as `above` was.
        votes: confirming trials that met `rung`, and how many said something.
    """

    kind: Kind
    rung: int | None
    above: int | None
    why_above: Answer | None
    votes: tuple[int, int]


def next_step(search: Search, attempts: Sequence[Attempt]) -> Next | Finding:
    """The trial to make after these, or what they have found."""
    step = _step(search, attempts)
    if isinstance(step, Next) and len(attempts) >= search.most_trials:
        return replace(known(search, attempts), kind="unsettled")
    return step


def known(search: Search, attempts: Sequence[Attempt]) -> Finding:
    """What attempts say of a search that has not ended."""
    answers = answers_of(search, attempts)
    failing = [rung for rung, answer in answers.items() if answer in {"missed", "generator-bound"}]
    above = min(failing, default=None)
    met = [rung for rung, answer in answers.items() if answer == "met"]
    rung = max((each for each in met if above is None or each < above), default=None)
    votes = _votes(attempts, rung)
    return Finding(
        "unfinished",
        rung,
        above,
        None if above is None else answers[above],
        (votes.count("met"), len(votes)),
    )


def answers_of(search: Search, attempts: Sequence[Attempt]) -> dict[int, Answer | None]:
    """What is known of each rung that was tried; None of one that must be tried again."""
    rungs = dict.fromkeys(attempt.rung for attempt in attempts)
    return {rung: _answer(search, attempts, rung) for rung in rungs}


def follow(search: Search, answers: Iterable[Answer]) -> list[Attempt]:
    """The attempts of a search that got these answers, in their order; more than it asked are cut.

    The search decides anew what each trial was for.
    """
    attempts: list[Attempt] = []
    for answer in answers:
        step = next_step(search, attempts)
        if isinstance(step, Finding):
            break
        attempts.append(Attempt(step.rung, step.purpose, answer))
    return attempts


def trials_to_find(search: Search, rate_per_s: float) -> int:
    """How many trials it takes on a store that sustains just that rate, if none is disturbed."""
    attempts: list[Attempt] = []
    while isinstance(step := next_step(search, attempts), Next):
        answer: Answer = "met" if search.rate_per_s(step.rung) <= rate_per_s else "missed"
        attempts.append(Attempt(step.rung, step.purpose, answer))
    return len(attempts)


def judge(row: TrialRow, objective: Threshold) -> Answer:
    """What a trial says to an objective about its response time.

    In the audit's order: the store is blamed only for what the generator did not spoil, and only a
    figure that may be quoted is held against the objective.
    """
    if row.stamp == "generator-bound":
        return "generator-bound"
    if row.stamp == "saturated" or has_failed(row):
        return "missed"
    figure = getattr(row.response_ms, objective.quantity)
    is_quotable = row.stamp == "ok" and row.writes >= WRITES_NEEDED.get(objective.quantity, 1)
    if figure is None or not is_quotable:
        return "void"
    return "met" if objective.is_met_by(figure) else "missed"


def has_failed(row: TrialRow) -> bool:
    """Whether the store failed too many requests of a trial that nothing else had spoilt."""
    share = error_share(row.errors, row.samples)
    if share is None or share <= ERROR_SHARE:
        return False
    is_spoilt = row.reason == ENDED_EARLY or row.parity.status in {"mismatch", "error"}
    return row.stamp == "ok" or (row.stamp == "invalid" and not is_spoilt)


def _step(search: Search, attempts: Sequence[Attempt]) -> Next | Finding:
    answers = answers_of(search, attempts)
    for rung, answer in answers.items():
        if answer is None:
            return Next(rung, "confirm" if _votes(attempts, rung) else "search")
    found = known(search, attempts)
    if "void" in answers.values():
        return replace(found, kind="void")
    further = _rung_to_try(search, found)
    if further is not None:
        return Next(further, "search")
    if found.rung is None:
        # A generator that is too slow for the lowest rate says nothing about the store.
        return replace(found, kind="none" if found.why_above == "missed" else "void")
    if found.votes[1] < search.confirm:
        return Next(found.rung, "confirm")
    return replace(found, kind="sustained" if found.why_above == "missed" else "at-least")


def _rung_to_try(search: Search, found: Finding) -> int | None:
    """The rung that tells most; None if the neighbours are known, or there are no more rungs."""
    rung, above = found.rung, found.above
    if rung is None and above is None:
        return 0
    if above is None:
        further = min((rung or 0) + search.doubling, search.highest)
    elif rung is None:
        further = max(above - search.doubling, search.lowest)
    else:
        further = (rung + above) // 2
    return None if further in {rung, above} else further


def _answer(search: Search, attempts: Sequence[Attempt], rung: int) -> Answer | None:
    tried = [each.answer for each in attempts if each.rung == rung]
    if tried[-AGREEING:] == ["void"] * AGREEING:
        return "void"
    votes = _votes(attempts, rung)
    losing = (search.confirm + 1) // 2
    if len(votes) - votes.count("met") >= losing:
        return _why_lost(votes, losing)
    found = [each.answer for each in attempts if each.rung == rung and each.purpose == "search"]
    if "met" in found:
        return "met"
    agreeing = (each for each, count in Counter(found).items() if count >= AGREEING)
    return next((each for each in agreeing if each != "void"), None)


def _votes(attempts: Sequence[Attempt], rung: int | None) -> list[Answer]:
    """The confirming trials that said something."""
    tried = [each.answer for each in attempts if each.rung == rung and each.purpose == "confirm"]
    return [answer for answer in tried if answer != "void"]


def _why_lost(votes: Sequence[Answer], losing: int) -> Answer | None:
    """What most votes against a rung say, of which `losing` are enough; None if one more is due."""
    missed, bound = votes.count("missed"), votes.count("generator-bound")
    is_first_tie = missed == bound and missed + bound == losing and votes[-1] != "met"
    if is_first_tie:
        return None
    return "missed" if missed > bound else "generator-bound"
