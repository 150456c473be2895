"""The table of a saturation run: the same texts for the console, HTML and Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.report import saturation_words as words
from orchestration.report.numbers import ABSENT, decimals_for, fixed
from orchestration.report.tables import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.report.saturation_summary import Result, SaturationSummary


def columns(summary: SaturationSummary) -> list[Column]:
    """Return the columns, one row a k; latencies in ms are those at the sustained rate."""
    results = summary.results
    shown = dict.fromkeys(("p50", summary.quantity))
    return [
        Column("k", [str(result.k) for result in results]),
        Column("sustains/s", [words.sustained(result) for result in results]),
        *_shares(results),
        *(Column(name, _figures(results, name), rank=2) for name in shown),
        Column("confirmed", [_votes(result) for result in results], rank=3),
        Column("next/s", [words.rate(result.next_rate) for result in results], rank=3),
        Column("there", [_short(result.next_because) for result in results], is_number=False),
        Column("trials", [str(result.trials) for result in results], rank=4),
    ]


def caption(summary: SaturationSummary, shown: Sequence[Column]) -> str:
    """Return what the table with these columns means."""
    of = words.whose(summary.workload, summary.operation)
    objective = words.objective_of(summary.objective, summary.quantity, of)
    whole = " of all requests" if of else ""
    what = f"Sustains: the highest offered rate{whole} that met {objective}."
    higher = f"at most {100 * summary.precision:.3g}% higher"
    parts = [what, f"Next: the lowest rate that failed, {higher}. There: how it failed."]
    headings = {column.heading for column in shown}
    if "p50" in headings:
        parts.append(f"Response times{of} in ms at that rate: medians over the confirming trials.")
    if "confirmed" in headings:
        parts.append("Confirmed: further trials at that rate that met it.")
    if any(result.found == "at-least" for result in summary.results):
        parts.append("≥: not the store ended the climb.")
    if any(ABSENT in column.texts for column in shown):
        parts.append(f"{ABSENT}: unknown, or not to be quoted.")
    return " ".join(parts)


def points(summary: SaturationSummary) -> list[Column]:
    """Return the columns of all rates that were tried, one row each, by k and rate."""
    tried = [(result.k, point) for result in summary.results for point in result.points]
    shown = dict.fromkeys(("p50", summary.quantity))
    return [
        Column("k", [str(k) for k, _ in tried]),
        Column("offered/s", [words.rate(point.rate) for _, point in tried]),
        Column("achieved/s", [fixed(point.achieved_rate, 1) for _, point in tried]),
        *(
            Column(name, [_ms(getattr(point.response_ms, name)) for _, point in tried])
            for name in shown
        ),
        Column("answer", [point.answer or "open" for _, point in tried], is_number=False),
        Column("trials", [str(point.trials) for _, point in tried]),
        Column("stamp", [point.stamp for _, point in tried], is_number=False),
        Column("reason", [point.reason for _, point in tried], is_number=False),
    ]


def notes(summary: SaturationSummary) -> list[str]:
    """Return why results are unknown, a line for each."""
    return [
        f"k={result.k}: no result, because {result.reason}."
        for result in summary.results
        if result.reason
    ]


def _shares(results: Sequence[Result]) -> list[Column]:
    """Return the column of shares, if there is something to share."""
    texts = [words.share(result) for result in results]
    return [Column(f"of k={results[0].k}", texts, rank=1)] if len(results) > 1 else []


def _figures(results: Sequence[Result], name: str) -> list[str]:
    values = [
        getattr(result.point.response_ms, name)
        if result.point and result.found in {"sustained", "at-least"}
        else None
        for result in results
    ]
    return [fixed(value, decimals_for(values)) for value in values]


def _votes(result: Result) -> str:
    met, votes = result.confirmed
    return f"{met} of {votes}" if votes else ABSENT


def _ms(value: float | None) -> str:
    return fixed(value, decimals_for([value]))


def _short(reason: str) -> str:
    """Return a reason without its details, which the notes and the table of all rates have."""
    return reason.partition(":")[0] or ABSENT
