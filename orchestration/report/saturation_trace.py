"""A search followed again through the trials that a run has written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orchestration import saturation
from orchestration.report.records import Run, UnreadableRunError
from orchestration.saturation import Attempt, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.goal import Goal
    from orchestration.report.records import TrialRow


class Trace(NamedTuple):
    """One k: its trials, what each was for and said, and what came of it."""

    k: int
    rows: Sequence[TrialRow]
    attempts: Sequence[Attempt]
    finding: Finding

    @property
    def is_known(self) -> bool:
        """Whether the search has a result."""
        return self.finding.kind in {"sustained", "at-least", "none"}

    @property
    def counted(self) -> list[TrialRow]:
        """The trials that figures are taken from.

        At a rate that was confirmed these are the confirming ones that said something: the trials
        that led there were chosen for what they said.
        """
        votes = self.finding.votes[1]
        return [
            row
            for row, attempt in zip(self.rows, self.attempts, strict=False)
            if attempt.rung != self.finding.rung
            or not votes
            or (attempt.purpose == "confirm" and attempt.answer != "void")
        ]


def trace(k: int, rows: Sequence[TrialRow], goal: Goal) -> Trace:
    """Return the search of one k, as far as it came.

    Args:
        k: the write quorum.
        rows: of the whole run, in the order in which they were measured.
        goal: of the run.

    Raises:
        UnreadableRunError: a trial was made at another rate than the search asks for.
    """
    mine = [row for row in rows if row.k == k]
    answers = [saturation.judge(row, goal.threshold) for row in mine]
    attempts = saturation.follow(goal.search, answers)
    _check(mine, attempts, goal)
    step = saturation.next_step(goal.search, attempts)
    finding = step if isinstance(step, Finding) else saturation.known(goal.search, attempts)
    return Trace(k, mine, attempts, finding)


def _check(rows: Sequence[TrialRow], attempts: Sequence[Attempt], goal: Goal) -> None:
    for number, (row, attempt) in enumerate(zip(rows, attempts, strict=False), 1):
        asked_per_s = goal.search.rate_per_s(attempt.rung)
        if row.rate != asked_per_s:
            found = "no rate" if row.rate is None else f"{row.rate:g}/s"
            raise UnreadableRunError(
                f"Trial {number} of k={row.k} in cells.jsonl has {found} where the search asks for "
                f"{asked_per_s:g}/s: a line was removed, or another version measured the run; "
                "measure it again."
            )


def counted(run: Run, goal: Goal) -> Run:
    """Return the run with only those trials that figures are taken from."""
    traces = [trace(k, run.rows, goal) for k in sorted(goal.quorums)]
    return Run(run.manifest, [row for each in traces for row in each.counted], run.lost_line)
