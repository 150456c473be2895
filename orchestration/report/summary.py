"""The typed summary of a run, and ``summary.json``, schema version 1.

Top level: ``schema``, ``run``, ``engine``, ``followers``, ``seed``, ``ack``, ``verdict`` (valid;
violated: a replica differed; unknown: nothing could be quoted), ``result`` (of the objectives:
failed if one is breached, else unknown if one is, else passed; null without any), ``status``,
``planned_trials``, ``trials_done``, ``missing`` (a sentence, or null), ``sentence``, ``cells``, and
``thresholds``: what the cells say to the run's objectives (`orchestration.thresholds.Outcome`).

A cell is one (scenario, ack, rate, users, k). Its latencies are in ms and those of its
``operation``, the writes if there are any; ``operations`` has the others' response times.
``response_ms`` (from the intended start; the headline), ``service_ms`` (from the actual start),
``send_delay_ms`` (between the two), ``uncorrected_ms`` (what clients who wait for their answers
would have measured) and ``theory_ms`` (what the link delays alone would cost).
``mean``, ``p50``, ``p95`` and ``p99`` are means over trials of the per-trial value, ``max`` is the
largest of all trials; ``ci95`` has the 95% interval over trials of each, null for one trial.
``residual_ms`` is response minus theory. ``difference_ms`` is the paired difference within a
block to the smallest k of the sweep, ``against``; ``over_memory_ms`` that of acknowledgments from
disk to those from memory, at the same k. ``theory_mean_error_ms`` is the standard error
that so many writes leave in the mean even if nothing but the delays took time.

A figure that may not be quoted is null, and ``notes`` says why in sentences.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from orchestration.analysis.histograms import describe_ms
from orchestration.analysis.stats import Estimate, estimate
from orchestration.report import sentence
from orchestration.report.model import model_of
from orchestration.report.records import (
    Figures,
    OperationRow,
    ParityStatus,
    Stamp,
    response_histogram,
)
from orchestration.thresholds import Outcome, Result, evaluate_all, result_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.report.records import CellKey, Manifest, Run, TrialRow

SCHEMA = 1
ACKS = ("memory", "fsync")
STATISTICS = ("mean", "p50", "p95", "p99")
# A percentile needs at least one sample beyond it: 1 / (1 - p).
WRITES_NEEDED = {"mean": 1, "p50": 2, "p95": 20, "p99": 100}
KEYS_NAMED = 10
STAMPS: tuple[Stamp, ...] = get_args(Stamp)
PARITIES: tuple[ParityStatus, ...] = get_args(ParityStatus)

Verdict = Literal["valid", "violated", "unknown"]


class Block(msgspec.Struct, frozen=True):
    """Figures of one quantity in ms over trials, with their 95% intervals."""

    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    ci95: dict[str, tuple[float, float] | None] = {}

    def estimate(self, statistic: str) -> Estimate | None:
        """Return one of mean, p50, p95, p99 with its interval; None if it may not be quoted."""
        value = getattr(self, statistic)
        return None if value is None else Estimate(value, self.ci95.get(statistic))


class Difference(Block, frozen=True):
    """Paired differences to the smallest k, within the blocks that have both."""

    against: int = 0
    blocks: int = 0


class Operation(msgspec.Struct, frozen=True):
    """What became of one operation over all trials: successes, errors by code, response times."""

    ok: int
    errors: dict[str, int]
    response_ms: Block


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one cell; see the module's head for the fields."""

    scenario: str
    k: int
    ack: str
    operation: str
    rate: float | None
    users: int | None
    stamp: Stamp
    reason: str
    trials: int
    samples: int
    writes: int
    dropped: int
    offered_rate: float | None
    achieved_rate: float | None
    errors: dict[str, int]
    parity: ParityStatus
    response_ms: Block
    service_ms: Block
    send_delay_ms: Block
    uncorrected_ms: Block
    theory_ms: Block
    theory_mean_error_ms: float | None
    residual_ms: Block
    difference_ms: Difference | None
    over_memory_ms: Difference | None
    operations: dict[str, Operation]
    notes: list[str]

    def has(self, row: TrialRow) -> bool:
        """Whether a trial is one of this cell's."""
        return row.key._replace(ack=row.ack or self.ack) == (
            self.scenario,
            self.ack,
            self.rate,
            self.users,
            self.k,
        )

    @property
    def is_quotable(self) -> bool:
        """Whether there is a mean response time that may be told."""
        return self.response_ms.mean is not None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found; written as ``summary.json``."""

    schema: int = SCHEMA
    run: str
    engine: str
    followers: int
    seed: int | None
    ack: str
    verdict: Verdict
    result: Result | None
    status: str
    planned_trials: int | None
    trials_done: int
    missing: str | None
    sentence: str
    cells: list[Cell]
    thresholds: list[Outcome]


def summarise(run: Run) -> Summary:
    """Return the summary of a run, complete or not."""
    manifest, rows = run.manifest, run.rows
    cells = _cells(rows, manifest.ack)
    outcomes = evaluate_all(manifest.scenario.get("thresholds") or [], cells)
    return Summary(
        run=manifest.run,
        engine=manifest.engine,
        followers=manifest.followers,
        seed=manifest.seed,
        ack=manifest.ack,
        verdict=_verdict(cells),
        result=result_of(outcomes),
        status=manifest.status,
        planned_trials=manifest.planned_trials,
        trials_done=len(rows),
        missing=_missing(manifest, rows, lost_line=run.lost_line),
        sentence=sentence.headline(cells, followers=manifest.followers),
        cells=cells,
        thresholds=outcomes,
    )


def to_json(summary: Summary) -> bytes:
    """Return the text of ``summary.json``."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"


def _cells(rows: Sequence[TrialRow], ack: str) -> list[Cell]:
    """Return the cells of all trials; `ack` is that of rows that do not say theirs."""
    grouped: dict[CellKey, list[TrialRow]] = {}
    for row in rows:
        grouped.setdefault(row.key, []).append(row)
    keys = sorted(grouped, key=_order)
    return [
        _cell(
            grouped[key],
            base=grouped[min(other for other in keys if other._replace(k=key.k) == key)],
            in_memory=grouped.get(key._replace(ack="memory"), []),
            ack=key.ack or ack,
        )
        for key in keys
    ]


def _order(key: CellKey) -> tuple[object, ...]:
    """Return what cells are sorted by: memory before the disk, and k last."""
    ack = ACKS.index(key.ack) if key.ack in ACKS else len(ACKS)
    return key.scenario, ack, key.ack, key.rate or 0.0, key.users or 0, key.k


def _cell(
    trials: list[TrialRow], *, base: list[TrialRow], in_memory: list[TrialRow], ack: str
) -> Cell:
    first = trials[0]
    stamp = max((row.stamp for row in trials), key=STAMPS.index)
    quotable = _quotable(trials)
    response = _block([row.response_ms for row in trials], quotable)
    theory, error_ms, why = _theory(trials)
    return Cell(
        scenario=first.scenario,
        k=first.k,
        ack=ack,
        operation=first.operation,
        rate=first.rate,
        users=first.users,
        stamp=stamp,
        reason=_reason(trials, stamp),
        trials=len(trials),
        samples=sum(row.samples for row in trials),
        writes=sum(row.writes for row in trials),
        dropped=sum(row.dropped for row in trials),
        offered_rate=_mean_rate([row.offered_rate for row in trials]),
        achieved_rate=_mean_rate([row.achieved_rate for row in trials]),
        errors=dict(sum((Counter(row.errors) for row in trials), Counter())),
        parity=max((row.parity.status for row in trials), key=PARITIES.index),
        response_ms=response,
        service_ms=_block([row.service_ms for row in trials], quotable),
        send_delay_ms=_block([row.send_delay_ms for row in trials], quotable),
        uncorrected_ms=_block(
            [row.uncorrected_ms for row in trials],
            {name for name in quotable if min(row.seen for row in trials) >= WRITES_NEEDED[name]},
        ),
        theory_ms=theory,
        theory_mean_error_ms=error_ms,
        residual_ms=_residual(response, theory),
        difference_ms=_difference(trials, base, quotable),
        over_memory_ms=_difference(trials, in_memory, quotable) if in_memory else None,
        operations=_others(trials),
        notes=[*_notes(trials, stamp), *([why] if why else [])],
    )


def _reason(trials: Sequence[TrialRow], stamp: Stamp) -> str:
    """Return the distinct reasons of the trials with the worst stamp; empty if all are ok."""
    if stamp == "ok":
        return ""
    reasons = dict.fromkeys(row.reason for row in trials if row.stamp == stamp and row.reason)
    return "; ".join(reasons) or "no reason was recorded"


def _quotable(trials: Sequence[TrialRow]) -> set[str]:
    """Return the statistics that may be quoted of a cell."""
    if any(row.stamp != "ok" or row.operation != trials[0].operation for row in trials):
        return set()
    fewest = min(row.writes for row in trials)
    return {
        name
        for name in STATISTICS
        if fewest >= WRITES_NEEDED[name]
        and all(getattr(row.response_ms, name) is not None for row in trials)
    }


def _notes(trials: Sequence[TrialRow], stamp: Stamp) -> list[str]:
    """Return why figures are missing, and which replicas did not match, in sentences."""
    return [*_why_not_quoted(trials, stamp), *_why_no_match(trials)]


def _why_not_quoted(trials: Sequence[TrialRow], stamp: Stamp) -> list[str]:
    if stamp != "ok":
        return [f"{stamp}, so no latency is quoted: {_reason(trials, stamp)}."]
    fewest = min(row.writes for row in trials)
    what = sentence.OPERATIONS[trials[0].operation]
    if not fewest:
        return [f"no latency is quoted: a trial had no {what.one} that succeeded."]
    return [
        f"no {name}: it takes {needed} {what.many} a trial, one had {fewest}."
        for name, needed in WRITES_NEEDED.items()
        if needed > fewest
    ]


def _why_no_match(trials: Sequence[TrialRow]) -> list[str]:
    lines = []
    for row in trials:
        for replica in row.parity.replicas:
            if replica.status == "match":
                continue
            keys = [*(replica.mismatch_keys or []), *(replica.extra_keys or [])]
            named = ", ".join(keys[:KEYS_NAMED]) or replica.detail or "no detail was recorded"
            more = f" and {len(keys) - KEYS_NAMED:,} more keys" if len(keys) > KEYS_NAMED else ""
            lines.append(f"block {row.block}, {replica.url}, {replica.status}: {named}{more}.")
    return lines


def _block(figures: Sequence[Figures], quotable: set[str]) -> Block:
    estimates = {name: _over_trials(figures, name) for name in STATISTICS if name in quotable}
    largest = [f.max for f in figures if f.max is not None]
    return Block(**_fields(estimates), max=max(largest) if quotable and largest else None)


def _fields(estimates: dict[str, Estimate | None]) -> dict[str, Any]:
    """Return the fields of a block that holds these estimates."""
    known = {name: found for name, found in estimates.items() if found}
    intervals = {name: known[name].interval if name in known else None for name in STATISTICS}
    return {name: found.value for name, found in known.items()} | {"ci95": intervals}


def _over_trials(figures: Sequence[Figures], name: str) -> Estimate | None:
    values = [getattr(f, name) for f in figures]
    # Student's t knows of no bound, but no request takes less than no time.
    return None if None in values else estimate(values).not_below(0.0)


def _mean_rate(rates: Sequence[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) / len(known) if known else None


def _theory(trials: Sequence[TrialRow]) -> tuple[Block, float | None, str | None]:
    """Return the model's figures, the sampling error of the mean, and why there are none."""
    first = trials[0]
    wait = model_of(first)
    if isinstance(wait, str):
        return Block(ci95=dict.fromkeys(STATISTICS)), None, wait
    p50, p95, p99 = wait.percentiles_ms([50, 95, 99])
    block = Block(wait.mean_ms, p50, p95, p99, wait.max_ms, dict.fromkeys(STATISTICS))
    writes = sum(row.writes for row in trials)
    return block, wait.mean_error_ms(writes) if writes else None, None


def _others(trials: Sequence[TrialRow]) -> dict[str, Operation]:
    """Return the operations that the headline leaves out."""
    names = sorted({name for row in trials for name in row.operations} - {trials[0].operation})
    return {name: _operation(trials, name) for name in names}


def _operation(trials: Sequence[TrialRow], name: str) -> Operation:
    found = [row.operations.get(name) or OperationRow() for row in trials]
    fewest = min(part.ok for part in found)
    is_ok = all(row.stamp == "ok" for row in trials)
    quotable = {each for each, needed in WRITES_NEEDED.items() if is_ok and fewest >= needed}
    figures = [
        Figures(**describe_ms(response_histogram(part))) if part.ok else Figures() for part in found
    ]
    return Operation(
        ok=sum(part.ok for part in found),
        errors=dict(sum((Counter(part.errors) for part in found), Counter())),
        response_ms=_block(figures, quotable),
    )


def _residual(response: Block, theory: Block) -> Block:
    found: dict[str, Estimate | None] = {}
    for name in STATISTICS:
        measured, model = response.estimate(name), getattr(theory, name)
        found[name] = measured.shifted(-model) if measured and model is not None else None
    return Block(**_fields(found))


def _difference(
    trials: Sequence[TrialRow], base: Sequence[TrialRow], quotable: set[str]
) -> Difference | None:
    """Return the paired difference to the base cell; None where that is this cell or not quoted."""
    if trials[0].key == base[0].key:
        return None
    both = quotable & _quotable(base)
    base_by_block = {row.block: row for row in base}
    pairs = [
        (row.response_ms, base_by_block[row.block].response_ms)
        for row in trials
        if row.block in base_by_block
    ]
    if not pairs or not both:
        return None
    differences: dict[str, Estimate | None] = {
        name: estimate([getattr(new, name) - getattr(old, name) for new, old in pairs])
        for name in both
    }
    return Difference(**_fields(differences), against=base[0].k, blocks=len(pairs))


def _verdict(cells: Sequence[Cell]) -> Verdict:
    if any(cell.parity == "mismatch" for cell in cells):
        return "violated"
    return "valid" if any(cell.is_quotable for cell in cells) else "unknown"


def _missing(manifest: Manifest, rows: Sequence[TrialRow], *, lost_line: bool) -> str | None:
    """Return what a run lacks of its plan, as a sentence; None if it is whole."""
    planned = manifest.planned_trials
    short = planned is not None and len(rows) < planned
    if not short and not lost_line and manifest.status == "complete":
        return None
    of_plan = f" of {planned}" if planned is not None else ""
    parts = [f"The run is {manifest.status}: {len(rows)}{of_plan} trials are here"]
    if short and (behind := _ks_behind(rows)):
        parts.append(f"with fewer of {behind} than of the others")
    if lost_line:
        parts.append("and a last line that was cut off is left out")
    return ", ".join(parts) + "."


def _ks_behind(rows: Sequence[TrialRow]) -> str:
    trials = Counter(row.k for row in rows)
    most = max(trials.values(), default=0)
    return ", ".join(f"k={k}" for k in sorted(trials) if trials[k] < most)
