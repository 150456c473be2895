"""Runs with more than one kind of cell or operation: memory beside disk, reads beside writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from orchestration.report import (
    drawing,
    effect_table,
    html,
    markdown,
    operation_table,
    quorum_chart,
    spectrum_chart,
    tables,
)
from orchestration.report.summary import summarise
from orchestration.report.write import write_report
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestration.report.records import Run

DISK_MS = 3.0


def both_acks(ks: tuple[int, ...] = (0, 1, 2), trials: int = 3) -> list[dict[str, Any]]:
    """A sweep whose disk costs so much in every trial."""
    return [
        simulated.trial(k, block, n=2, cost_ms=cost_ms, ack=ack)
        for block in range(trials)
        for k in ks
        for ack, cost_ms in (("memory", 0.6), ("fsync", 0.6 + DISK_MS))
    ]


def with_reads(row: dict[str, Any], read_ms: float, errors: dict[str, int]) -> dict[str, Any]:
    """The row of a trial that also read, each time in so many ms."""
    text = simulated.histograms.encode(simulated.histogram_of([read_ms] * 300))
    read = {"ok": 300, "errors": errors, "histograms": dict.fromkeys(("response",), text)}
    return row | {"operations": row["operations"] | {"read": read}}


def test_cells_of_memory_and_disk_stand_apart(make_run: Callable[..., Run]) -> None:
    """Each k has a cell of either kind, compared with the smallest k of its own."""
    cells = summarise(make_run(both_acks(), ack="memory and fsync", followers=2)).cells
    assert [(cell.ack, cell.k) for cell in cells] == [
        (ack, k) for ack in ("memory", "fsync") for k in (0, 1, 2)
    ]
    assert all(cell.trials == 3 for cell in cells)
    assert [cell.difference_ms is None for cell in cells] == [True, False, False] * 2


def test_disk_costs_its_paired_difference_to_memory(make_run: Callable[..., Run]) -> None:
    """What the disk adds at the same k, within a block, with its interval and in words."""
    summary = summarise(make_run(both_acks(), ack="memory and fsync", followers=2))
    for cell in summary.cells:
        if cell.ack == "memory":
            assert cell.over_memory_ms is None
            continue
        assert cell.over_memory_ms is not None
        assert cell.over_memory_ms.blocks == 3
        assert cell.over_memory_ms.mean == pytest.approx(DISK_MS, rel=0.1)
        low, high = cell.over_memory_ms.ci95["mean"] or (0, 0)
        assert low < cell.over_memory_ms.mean < high
    assert re.search(r"At k=1 the disk costs \+[23]\.\d+ ms at p50 over memory\.", summary.sentence)
    assert "while the others' memory lasts" not in summary.sentence


def test_disk_that_costs_nothing_is_said_to(make_run: Callable[..., Run]) -> None:
    """An interval around zero is no cost."""
    rows = [
        simulated.trial(k, block, n=2, ack=ack, seed=seed)
        for block in range(3)
        for k in (0, 1)
        for ack, seed in (("memory", 1), ("fsync", 2))
    ]
    sentence = summarise(make_run(rows, ack="memory and fsync", followers=2)).sentence
    assert "At k=1 the disk shows no measurable cost at p50" in sentence


@pytest.mark.parametrize("chart", [quorum_chart, spectrum_chart])
def test_charts_give_each_kind_a_panel(make_run: Callable[..., Run], chart: Any) -> None:
    """Both are named, and a run of one kind has no such titles."""
    both = make_run(both_acks(), ack="memory and fsync", followers=2)
    svg = drawing.to_svg(chart.draw(both, summarise(both))).decode()
    assert "acknowledged from memory" in svg
    assert "acknowledged from disk (fsync)" in svg
    one = make_run(simulated.sweep())
    assert "acknowledged from disk" not in drawing.to_svg(chart.draw(one, summarise(one))).decode()


def test_tables_name_the_kind_where_there_are_two(make_run: Callable[..., Run]) -> None:
    """A column tells them apart, and is not there where there is one kind."""
    cells = summarise(make_run(both_acks(), ack="memory and fsync", followers=2)).cells
    assert tables.columns(cells)[0].heading == "ack"
    one = summarise(make_run(simulated.sweep())).cells
    assert tables.columns(one)[0].heading == "k"


def test_spectra_of_two_kinds_are_files_of_their_own(tmp_path: Path) -> None:
    """No file of one kind is written over by the other."""
    write_report(simulated.write_run(tmp_path, both_acks(), ack="memory and fsync", followers=2))
    found = {path.name for path in tmp_path.glob("*.hgrm")}
    kinds = ("memory", "fsync")
    assert found == {f"response_{ack}_k{k}.hgrm" for ack in kinds for k in (0, 1, 2)}


def test_other_operations_have_a_table(make_run: Callable[..., Run]) -> None:
    """Reads beside writes are counted and timed, in every output."""
    rows = [with_reads(row, 1.5, {"timeout": 2}) for row in simulated.sweep([0, 3])]
    run = make_run(rows)
    summary = summarise(run)
    read = summary.cells[1].operations["read"]
    assert (read.ok, read.errors) == (900, {"timeout": 6})
    assert read.response_ms.p99 == pytest.approx(1.5, rel=1e-3)
    columns = {column.heading: column.texts for column in operation_table.columns(summary.cells)}
    assert columns["cell"] == ["k=0", "k=3"]
    assert columns["operation"] == ["read", "read"]
    assert columns["errors"] == ["6 timeout", "6 timeout"]
    assert "The other operations" in html.render(run, summary, ["<svg></svg>"] * 2)
    assert "The other operations" in markdown.render(run, summary, [])


def test_other_operations_of_a_bad_cell_are_not_quoted(make_run: Callable[..., Run]) -> None:
    """A stamp is for all of a cell's latencies."""
    row = with_reads(simulated.trial(0), 1.5, {}) | {"stamp": "saturated", "reason": "x"}
    read = summarise(make_run([row])).cells[0].operations["read"]
    assert (read.ok, read.response_ms.p50) == (300, None)


def test_writes_alone_have_no_such_table(make_run: Callable[..., Run]) -> None:
    """Nothing is said of operations that there were not."""
    run = make_run(simulated.sweep([0]))
    assert operation_table.columns(summarise(run).cells) == []
    assert "The other operations" not in markdown.render(run, summarise(run), [])


def test_a_workload_without_writes_is_reported_by_its_reads(make_run: Callable[..., Run]) -> None:
    """The caption says what the latencies are of."""
    row = simulated.trial(0)
    row["operations"] = {"read": row["operations"]["write"]}
    cells = summarise(make_run([row | {"operation": "read"}])).cells
    assert (cells[0].operation, cells[0].writes) == ("read", 400)
    assert tables.caption(cells, tables.columns(cells)).startswith("Response time of reads in ms")


def test_uncorrected_latencies_stand_beside_the_response_time(make_run: Callable[..., Run]) -> None:
    """A reader sees what clients who wait would have told."""
    figures = {"mean": 2.0, "p50": 2.0, "p95": 2.5, "p99": 3.25, "max": 9.0}
    rows = [row | {"uncorrected_ms": figures, "seen": 100} for row in simulated.sweep([0, 1])]
    cells = summarise(make_run(rows)).cells
    few = [row | {"seen": 99} for row in rows]
    assert summarise(make_run(few)).cells[0].uncorrected_ms.p99 is None
    assert cells[0].uncorrected_ms.p99 == 3.25
    columns = {column.heading: column.texts for column in tables.columns(cells)}
    assert columns["p99 uncorrected"] == ["3.25", "3.25"]


def test_costs_are_told_with_their_intervals(make_run: Callable[..., Run]) -> None:
    """Each k over the smallest, and the disk over memory, in the page and in Markdown."""
    run = make_run(both_acks(), ack="memory and fsync", followers=2)
    summary = summarise(run)
    columns = {column.heading: column.texts for column in effect_table.columns(summary.cells)}
    assert columns["over"] == ["k=0", "k=0", "memory", "k=0", "memory", "k=0", "memory"]
    assert set(columns["blocks"]) == {"3"}
    assert all(re.fullmatch(r"[+-]\S+ \[\S+, \S+\]", text) for text in columns["p50"])
    difference = summary.cells[1].difference_ms
    assert difference is not None
    assert columns["mean"][0].startswith(f"+{difference.mean:.1f} [")
    assert "What each k costs" in html.render(run, summary, ["<svg></svg>"] * 2)
    assert "What each k costs" in markdown.render(run, summary, [])


def test_a_single_k_costs_nothing_more_than_itself(make_run: Callable[..., Run]) -> None:
    """Without another cell there is no difference, and no table of any."""
    run = make_run(simulated.sweep([3]))
    assert effect_table.columns(summarise(run).cells) == []
    assert "What each k costs" not in markdown.render(run, summarise(run), [])


def test_trials_of_different_operations_are_not_one_figure(make_run: Callable[..., Run]) -> None:
    """Reads and writes have no common latency."""
    rows = [simulated.trial(0, 0), simulated.trial(0, 1) | {"operation": "read"}]
    assert summarise(make_run(rows)).cells[0].response_ms.p50 is None
