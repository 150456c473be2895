"""The typed comparison of two runs, and ``comparison.json``, schema version 1.

Top level: ``schema``, ``base`` and ``new`` (the runs' names), ``sentence``, ``differences`` (what
must be equal and is not), ``notes``, ``cells``, and the cells that only one of the runs has,
``only_in_base`` and ``only_in_new``.

A cell has its key (``scenario``, ``ack``, ``rate``, ``users``, ``k``), the number of trials and the
stamp in each run, and ``figures``: ``mean``, ``p50``, ``p95`` and ``p99`` of the response time, and
``achieved_rate``. A figure has its value in each run (ms or operations/s, the mean over trials, as
reports have it), its ``change_percent`` with the 95% interval as [low, estimate, high], the noise
floor beside which it was judged and where that is from (``least``, ``halves``, ``calibrated`` or
``assumed``), its ``verdict``, and for ``unknown`` the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from orchestration.analysis.comparison import TRIALS_NEEDED, change, judge
from orchestration.analysis.noise import ASSUMED_PERCENT, BLOCKS_NEEDED, noise_floor
from orchestration.report.comparability import differences
from orchestration.report.comparison_words import RATE, WORSE, Verdict, headline
from orchestration.report.records import Stamp  # noqa: TC001 - msgspec resolves it
from orchestration.report.sentence import OPERATIONS
from orchestration.report.summary import STAMPS, STATISTICS, WRITES_NEEDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestration.analysis.comparison import Outcome
    from orchestration.analysis.noise import Calibrated
    from orchestration.report.noise_floor import NoiseFloor
    from orchestration.report.records import CellKey, Run, TrialRow

SCHEMA = 1
FIGURES = (*STATISTICS, RATE)


class FigureChange(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of a cell in two runs; see the module's head for the fields."""

    base: float | None = None
    new: float | None = None
    change_percent: tuple[float, float, float] | None = None
    floor_percent: float | None = None
    floor_source: str | None = None
    verdict: Verdict = "unknown"
    reason: str = ""


class CellName(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies a cell, from run to run: the fields of `CellKey`."""

    scenario: str
    ack: str
    rate: float | None
    users: int | None
    k: int


class CellComparison(CellName, frozen=True, kw_only=True):
    """One cell that both runs have; `trials` and `stamps` of BASE and of NEW."""

    trials: tuple[int, int]
    stamps: tuple[Stamp, Stamp]
    figures: dict[str, FigureChange]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What changed from BASE to NEW; written as ``comparison.json``."""

    schema: int = SCHEMA
    base: str
    new: str
    sentence: str
    differences: list[str]
    notes: list[str]
    cells: list[CellComparison]
    only_in_base: list[CellName]
    only_in_new: list[CellName]

    def figures(self) -> Iterator[tuple[CellComparison, str, FigureChange]]:
        """Yield each figure of each cell with its name."""
        for cell in self.cells:
            for name, figure in cell.figures.items():
                yield cell, name, figure

    @property
    def has_regression(self) -> bool:
        """Whether a latency or a rate was declared to have got worse."""
        return any(figure.verdict in WORSE for _, _, figure in self.figures())

    @property
    def has_unjudged_figures(self) -> bool:
        """Whether nothing was judged, or not all that BASE has, or should have, to be held against.

        It has no cell to be held against where one is not ok.
        """
        if self.only_in_base or any(cell.stamps[0] != "ok" for cell in self.cells):
            return True
        figures = [figure for _, _, figure in self.figures()]
        return all(figure.verdict == "unknown" for figure in figures) or any(
            figure.base is not None and figure.verdict == "unknown" for figure in figures
        )


def compare(
    base: Run, new: Run, calibration: NoiseFloor | None = None, *, notes: Sequence[str] = ()
) -> Comparison:
    """Return what changed from one run to another, cell by cell.

    Args:
        base: What is compared against.
        new: What is compared.
        calibration: The noise floor of the machine that both ran on, if it was measured.
        notes: What a reader has to know besides, in sentences.
    """
    old_cells, new_cells = trials_by_cell(base), trials_by_cell(new)
    cells = [
        _compare_cell(key, old_cells[key], new_cells[key], calibration)
        for key in sorted(old_cells.keys() & new_cells.keys(), key=_order)
    ]
    return Comparison(
        base=base.manifest.run,
        new=new.manifest.run,
        sentence=headline(cells),
        differences=differences(base, new),
        notes=[*notes, *_notes(base, new, cells, calibration)],
        cells=cells,
        only_in_base=_alone(old_cells.keys() - new_cells.keys()),
        only_in_new=_alone(new_cells.keys() - old_cells.keys()),
    )


def trials_by_cell(run: Run) -> dict[CellKey, list[TrialRow]]:
    """Return the trials of each cell, block by block; each key says what its acks meant."""
    cells: dict[CellKey, list[TrialRow]] = {}
    for row in sorted(run.rows, key=lambda row: row.block):
        cells.setdefault(row.key._replace(ack=row.ack or run.manifest.ack), []).append(row)
    return cells


@dataclass(frozen=True, slots=True)
class Quotation:
    """A figure of a cell in one run: one value a trial, or the reason why it may not be judged."""

    values: list[float]
    reason: str = ""

    @property
    def mean(self) -> float | None:
        """The mean over trials, as reports have it; None if it may not be quoted."""
        return sum(self.values) / len(self.values) if self.values else None


def quote(trials: Sequence[TrialRow], name: str) -> Quotation:
    """Return what the trials of a cell, at least one, say about one of `FIGURES`."""
    stamp = _stamp(trials)
    if stamp != "ok":
        reason = next((row.reason for row in trials if row.stamp == stamp and row.reason), "")
        return Quotation([], f"is {stamp}" + (f" ({reason})" if reason else ""))
    fewest, needed = min(row.writes for row in trials), WRITES_NEEDED.get(name, 1)
    if fewest < needed:
        what = OPERATIONS[trials[0].operation].many
        return Quotation([], f"had {fewest:,} {what} in a trial, {name} takes {needed:,}")
    values = [value for row in trials if (value := _value(row, name))]
    if len(values) < len(trials):
        return Quotation([], f"recorded no {name} in a trial")
    if len(values) < TRIALS_NEEDED:
        return Quotation(values, f"has one trial, an interval takes {TRIALS_NEEDED}")
    return Quotation(values)


def _stamp(trials: Sequence[TrialRow]) -> Stamp:
    return max((row.stamp for row in trials), key=STAMPS.index)


def _value(row: TrialRow, name: str) -> float | None:
    value: float | None = row.achieved_rate if name == RATE else getattr(row.response_ms, name)
    return value


def _compare_cell(
    key: CellKey,
    base: Sequence[TrialRow],
    new: Sequence[TrialRow],
    calibration: NoiseFloor | None,
) -> CellComparison:
    figures = {}
    for name in FIGURES:
        floor = calibration.of(key.k, key.ack, name) if calibration else None
        figures[name] = _compare_figure(name, quote(base, name), quote(new, name), floor)
    return CellComparison(
        **key._asdict(),
        trials=(len(base), len(new)),
        stamps=(_stamp(base), _stamp(new)),
        figures=figures,
    )


def _compare_figure(
    name: str, base: Quotation, new: Quotation, calibrated: Calibrated | None
) -> FigureChange:
    reasons = [
        f"{run} {quotation.reason}"
        for run, quotation in (("BASE", base), ("NEW", new))
        if quotation.reason
    ]
    if reasons:
        return FigureChange(base=base.mean, new=new.mean, reason="; ".join(reasons))
    found = change(base.values, new.values)
    floor = noise_floor(base.values, new.values, calibrated)
    return FigureChange(
        base=base.mean,
        new=new.mean,
        change_percent=(found.low, found.estimate, found.high),
        floor_percent=floor.percent,
        floor_source=floor.source,
        verdict=_verdict(name, judge(found, floor.percent)),
    )


def _verdict(name: str, outcome: Outcome) -> Verdict:
    if name == RATE or outcome in {"no change", "unclear"}:
        return outcome
    return "slower" if outcome == "higher" else "faster"


def _notes(
    base: Run, new: Run, cells: Sequence[CellComparison], calibration: NoiseFloor | None
) -> list[str]:
    notes = []
    acks = {cell.ack for cell in cells if calibration and not calibration.is_for(cell.ack)}
    if calibration and acks:
        measured, lacking = (
            " and ".join(sorted(a)) for a in (calibration.conditions["acks"], acks)
        )
        notes.append(
            f"The calibration's acknowledgments were from {measured}: it is no floor for {lacking}."
        )
    if base.manifest == new.manifest:
        notes.append("BASE and NEW are the same run.")
    if any(figure.floor_source == "assumed" for cell in cells for figure in cell.figures.values()):
        notes.append(
            f"No noise floor was measured: {ASSUMED_PERCENT:g}% is assumed, smaller changes stay "
            f"hidden. Runs of {BLOCKS_NEEDED} blocks or more bring their own; calibrate measures "
            "the machine's."
        )
    return notes


def _alone(keys: set[CellKey]) -> list[CellName]:
    return [CellName(**key._asdict()) for key in sorted(keys, key=_order)]


def _order(key: CellKey) -> tuple[str | float, ...]:
    return key.scenario, key.ack, key.rate or 0.0, key.users or 0, key.k
