"""Reports of saturation runs on stores whose truth is known."""

from __future__ import annotations

import html
import io
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from orchestration.report import drawing, saturation_chart, saturation_table
from orchestration.report.records import UnreadableRunError, read_run
from orchestration.report.saturation_summary import SaturationSummary, summarise_saturation
from orchestration.report.saturation_write import (
    is_saturation,
    print_saturation,
    write_saturation,
)
from tests.orchestration.report import simulated
from tests.orchestration.report.simulated_search import (
    LATE,
    goal,
    limited,
    queue,
    rows,
    write_run,
)
from tests.orchestration.report.test_write import Page

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestration.goal import Goal
    from tests.orchestration.report.simulated_search import Store

# 90% of the capacities: what k=0 and k=3 sustain at p99 < 50 ms.
STORES = {0: queue(2_000), 3: queue(1_000)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run, below a root."""
    return tmp_path / "reports" / "saturate" / "now"


def summary_of(
    folder: Path, stores: Mapping[int, Store], found: Goal | None = None, **manifest: Any
) -> SaturationSummary:
    """What is found on these stores."""
    found = found or goal()
    write_run(folder, found, rows(found, stores), **manifest)
    return summarise_saturation(read_run(folder), found)


def test_highest_rates_are_found_and_compared(folder: Path) -> None:
    """The rate is the highest on the ladder that met it, the next one did not, 0.5 of k=0."""
    summary = summary_of(folder, STORES)
    first, second = summary.results
    assert (first.k, second.k) == (0, 3)
    for result, knee in ((first, 1_800), (second, 900)):
        assert result.found == "sustained"
        assert knee / 1.05 < (result.rate or 0) <= knee < (result.next_rate or 0) < knee * 1.05
        assert result.confirmed == (3, 3)
        assert result.point is not None
        assert 35 < (result.point.response_ms.p99 or 0) < 50
        assert re.fullmatch(r"p99 \d\d\.\d ms", result.next_because)
        assert result.reason == ""
        assert [point.rate for point in result.points] == sorted(p.rate for p in result.points)
    assert (first.share, second.share) == (None, pytest.approx(0.5, abs=0.03))
    assert summary.verdict == "valid"
    assert summary.missing is None
    assert re.fullmatch(
        r"k=3 sustains 8\d\d writes/s at p99 < 50ms, 0\.(49|50) of k=0\.", summary.sentence
    )


def test_generators_limit_is_a_lower_bound_and_not_the_stores_fault(folder: Path) -> None:
    """The sentence says so, and shares are bounds as well."""
    stores = {0: limited(9_000, 1_500), 3: queue(1_000), 5: limited(9_000, 400)}
    summary = summary_of(folder, stores, goal([0, 3, 5]))
    base, third, fifth = summary.results
    assert (base.found, base.share_is, third.share_is) == ("at-least", None, "at-most")
    assert base.next_because.startswith("generator-bound: requests left late")
    assert (fifth.found, fifth.share) == ("at-least", None)
    assert re.search(r"at most 0\.\d\d of k=0\.", summary.sentence)
    alone = summary_of(folder, {0: queue(1_000), 3: limited(9_000, 500)})
    assert alone.results[1].share_is == "at-least"
    assert re.fullmatch(
        r"k=3 sustains at least 4\d\d writes/s at p99 < 50ms, at least 0\.5\d of k=0; "
        r"the load generator could offer no more\.",
        alone.sentence,
    )


def test_highest_rate_of_all_is_a_lower_bound(folder: Path) -> None:
    """Beyond it nothing was tried."""
    summary = summary_of(folder, {0: queue(10**9)}, goal([0]))
    assert (summary.results[0].found, summary.results[0].next_rate) == ("at-least", None)
    assert summary.sentence.endswith("; no more was tried.")


def test_k_that_never_meets_the_objective_is_a_result(folder: Path) -> None:
    """None down to the lowest rate, which is told."""
    summary = summary_of(folder, {0: queue(1_000), 3: queue(20)})
    result = summary.results[1]
    assert (result.found, result.rate, result.point, result.share) == ("none", None, None, None)
    assert summary.verdict == "valid"
    assert summary.sentence == "k=3 does not meet p99 < 50ms even at 27.4 writes/s."


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stamp": "invalid", "reason": "the load ended"}, "the load ended"),
        ({"response_ms": {}}, "trials had too few writes"),
        (LATE, "requests left late"),
    ],
)
def test_search_whose_trials_say_nothing_is_unknown_for_a_reason(
    folder: Path, changes: dict[str, Any], reason: str
) -> None:
    """And a run of only such searches has an unknown verdict."""
    summary = summary_of(folder, {3: lambda *_: changes}, goal([3]))
    assert (summary.results[0].found, summary.results[0].reason) == ("unknown", reason)
    assert summary.verdict == "unknown"
    assert summary.sentence == "Nothing is known about the rates that meet p99 < 50ms."
    assert saturation_table.notes(summary) == [f"k=3: no result, because {reason}."]


def test_search_that_did_not_settle_is_unknown(folder: Path) -> None:
    """A store that is quick only when a rate is new to it contradicts itself."""
    seen: set[float] = set()

    def fickle(rate: float, _: int) -> dict[str, Any]:
        is_new = rate not in seen
        seen.add(rate)
        return queue(10**9 if is_new else 1)(rate, 0)

    summary = summary_of(folder, {3: fickle}, goal([3]))
    assert summary.results[0].found == "unknown"
    assert re.fullmatch(r"\d+ trials contradicted each other", summary.results[0].reason)


def test_stopped_run_reports_what_it_has(folder: Path) -> None:
    """The k that was finished has its result, the others say how far they came."""
    found = goal([3, 0, 1])
    written = rows(found, STORES)
    done = sum(row["k"] == 3 for row in written)
    write_run(folder, found, written[: done + 4], status="interrupted")
    summary = write_saturation(folder)
    by_k = {result.k: result for result in summary.results}
    assert by_k[3].found == "sustained"
    assert (by_k[0].reason, by_k[1].reason) == (
        "the search was not finished",
        "it was not begun",
    )
    assert (by_k[0].rate, by_k[0].trials) == (800.0, 4)
    assert summary.missing == (
        f"The run is interrupted: {done + 4} trials are here, without a result for k=0, k=1."
    )
    assert "interrupted" in (folder / "report.md").read_text()


def test_cut_off_line_is_told(folder: Path) -> None:
    """Half a row is left out, and the run is not taken for whole."""
    write_run(folder, goal(), rows(goal(), STORES))
    path = folder / "cells.jsonl"
    path.write_text(path.read_text()[:-40])
    summary = summarise_saturation(read_run(folder), goal())
    assert "cut off" in (summary.missing or "")


def test_replica_that_differs_makes_the_verdict_violated(folder: Path) -> None:
    """Whatever rates were found."""

    def broken(rate: float, n: int) -> dict[str, Any]:
        mismatch = {"parity": {"status": "mismatch", "replicas": []}, "stamp": "invalid"}
        return queue(1_000)(rate, n) | (mismatch if n == 2 else {})

    assert summary_of(folder, {0: queue(1_000), 3: broken}).verdict == "violated"


def test_found_rate_with_a_disturbed_trial_quotes_no_latency(folder: Path) -> None:
    """Two of three confirmed it, and the third spoils the figures, not the result."""

    def disturbed(rate: float, n: int) -> dict[str, Any]:
        votes.append(rate)
        is_second_vote = votes[-3:] == [rate] * 3 and votes.count(rate) == 3
        return queue(1_000)(rate, n) | (LATE if is_second_vote else {})

    votes: list[float] = []
    summary = summary_of(folder, {3: disturbed}, goal([3]))
    result = summary.results[0]
    assert (result.found, result.confirmed) == ("sustained", (2, 3))
    assert result.point is not None
    assert (result.point.stamp, result.point.response_ms.p99) == ("generator-bound", None)


def test_trials_that_led_to_the_found_rate_are_not_in_its_figures(folder: Path) -> None:
    """They were chosen for what they said; one that was disturbed hides nothing."""

    def disturbed(rate: float, n: int) -> dict[str, Any]:
        is_first = rate not in tried
        tried.add(rate)
        return queue(1_000)(rate, n) | (LATE if is_first else {})

    tried: set[float] = set()
    summary = summary_of(folder, {3: disturbed}, goal([3]))
    result = summary.results[0]
    assert (result.found, result.confirmed) == ("sustained", (3, 3))
    assert result.point is not None
    assert (result.point.trials, result.point.stamp) == (3, "ok")
    assert 35 < (result.point.response_ms.p99 or 0) < 50
    assert summary.trials_done == result.trials > sum(point.trials for point in result.points)


def test_figures_are_medians_lest_they_contradict_what_most_trials_say(folder: Path) -> None:
    """One bad trial of four would lift the mean of p99 over the objective that most have met."""

    def disturbed(rate: float, n: int) -> dict[str, Any]:
        votes.append(rate)
        is_second_vote = votes[-3:] == [rate] * 3 and votes.count(rate) == 3
        return queue(1 if is_second_vote else 1_000)(rate, n)

    votes: list[float] = []
    result = summary_of(folder, {3: disturbed}, goal([3])).results[0]
    assert (result.found, result.confirmed) == ("sustained", (2, 3))
    assert result.point is not None
    quoted = result.point.response_ms
    assert 35 < (quoted.p99 or 0) < 50
    assert quoted.max == pytest.approx(1.5 * (quoted.p99 or 0))


def test_rate_that_met_it_until_it_was_confirmed_shows_no_figure(folder: Path) -> None:
    """Two of its four trials met the objective: their median does not say why it was missed."""

    def fading(rate: float, n: int) -> dict[str, Any]:
        tried.append(rate)
        is_fresh = 900 < rate < 930 and tried.count(rate) <= 2
        return queue(10**6 if is_fresh else 1_000)(rate, n)

    tried: list[float] = []
    result = summary_of(folder, {3: fading}, goal([3])).results[0]
    assert 900 < (result.next_rate or 0) < 930
    assert tried.count(result.next_rate or 0) == 4
    assert (result.found, result.next_because) == ("sustained", "most trials missed it")


def test_missed_rate_with_a_disturbed_trial_is_not_laid_to_the_generator(folder: Path) -> None:
    """Two trials missed it; that a third was disturbed only hides the figure."""

    def disturbed(rate: float, n: int) -> dict[str, Any]:
        is_first = rate > 900 and rate not in tried
        tried.add(rate)
        return queue(1_000)(rate, n) | (LATE if is_first else {})

    tried: set[float] = set()
    result = summary_of(folder, {3: disturbed}, goal([3])).results[0]
    assert (result.found, result.next_because) == ("sustained", "most trials missed it")


def test_report_writes_all_files(folder: Path) -> None:
    """The documented files, and nothing temporary."""
    write_run(folder, goal(), rows(goal(), STORES))
    summary = write_saturation(folder)
    assert {path.name for path in folder.iterdir()} == {
        *("manifest.json", "cells.jsonl", "saturation.json"),
        *("throughput_vs_latency.png", "throughput_vs_latency.svg"),
        *("report.html", "report.md", "summary.md"),
    }
    found = json.loads((folder / "saturation.json").read_bytes())
    assert found["schema"] == 1
    assert found["sentence"] == summary.sentence
    assert [result["rate"] for result in found["results"]] == [r.rate for r in summary.results]


def test_run_is_drawn_the_same_again(folder: Path) -> None:
    """The report follows from the files alone."""
    write_run(folder, goal(), rows(goal(), STORES))
    names = ("saturation.json", "report.html", "report.md", "throughput_vs_latency.svg")
    first, second = (
        (write_saturation(folder), [(folder / name).read_bytes() for name in names])[1]
        for _ in range(2)
    )
    assert first == second


def test_runs_are_told_apart(folder: Path, tmp_path: Path) -> None:
    """A sweep is no saturation run, and neither is nothing."""
    write_run(folder, goal(), [])
    assert is_saturation(folder)
    sweep = simulated.write_run(tmp_path / "sweep", [])
    assert not is_saturation(sweep)
    assert not is_saturation(tmp_path)
    with pytest.raises(UnreadableRunError, match="no saturation run"):
        write_saturation(sweep)
    (sweep / "manifest.json").write_text(
        json.dumps(simulated.manifest(saturation={"objective": 5}))
    )
    assert not is_saturation(sweep)
    with pytest.raises(UnreadableRunError, match="damaged"):
        write_saturation(sweep)


def test_page_needs_nothing_but_itself_and_escapes_the_run(folder: Path) -> None:
    """It refers only to parts of its own, holds the sentence, and its tags close."""
    evil = "<script>alert(1)</script>"
    stores = {0: queue(2_000), 3: lambda *_: {"stamp": "invalid", "reason": evil}}
    write_run(folder, goal(), rows(goal(), stores), command=[evil])
    summary = write_saturation(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert all(reference.startswith("#") for reference in page.references)
    assert "<script" not in text
    assert html.escape(evil, quote=False) in text
    assert summary.sentence in html.unescape(text)
    words = " ".join(text.split())
    for fact in ("Simulated CPU", "in memory", "differ by 5% at most", "Every rate", "Every trial"):
        assert fact in words


def test_markdown_without_charts_refers_to_no_file(folder: Path) -> None:
    """What is appended to a job's summary has the sentence, the verdict and the table."""
    write_run(folder, goal(), rows(goal(), STORES))
    summary = write_saturation(folder)
    whole, alone = ((folder / name).read_text() for name in ("report.md", "summary.md"))
    assert "![throughput vs latency](throughput_vs_latency.png)" in whole
    assert "](" not in alone
    assert html.unescape(alone).startswith(f"# {summary.sentence}\n\nMeasurement: **valid**.")
    assert re.search(r"\| 3 \| 8\d\d \| 0\.\d\d \|", alone)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_table_fits_and_keeps_the_result(folder: Path, width: int) -> None:
    """k, what it sustains and what came next stay whole at any width."""
    summary = summary_of(folder, {0: limited(9_000, 1_500), 3: queue(1_000)})
    console = Console(file=io.StringIO(), width=width)
    print_saturation(console, summary)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    assert "…" not in text
    heading = next(line for line in lines if "sustains/s" in line)
    assert {"k", "sustains/s", "there"} <= set(heading.split())
    assert summary.sentence in " ".join(text.split())
    assert "≥ 1," in text
    assert ("≤ 0." in text) == (width > 40)


def texts(folder: Path, summary: SaturationSummary) -> list[str]:
    """All texts of the chart in the order of drawing."""
    figure = saturation_chart.draw(read_run(folder), summary)
    svg = drawing.to_svg(figure).decode()
    return [re.sub("<.*?>", "", t).strip() for t in re.findall(r"<text.*?</text>", svg, re.DOTALL)]


def test_chart_names_each_k_its_result_and_the_objective(folder: Path) -> None:
    """Labels, the objective's line, the finding as its title, and the conditions."""
    stores = {0: limited(9_000, 1_500), 3: queue(1_000), 5: queue(20)}
    summary = summary_of(folder, stores, goal([0, 3, 5]))
    shown = [html.unescape(text) for text in texts(folder, summary)]
    rates = [f"{result.rate:,.0f}" for result in summary.results[:2]]
    assert {f"k=0: ≥ {rates[0]}", f"k=3: {rates[1]}", "k=5: none", "p99 < 50ms"} <= set(shown)
    everything = " ".join(shown)
    for fact in (
        "5 followers",
        "trials of 4 s",
        "in memory",
        "Simulated CPU",
        "Hollow",
        "Triangle",
    ):
        assert fact in everything


def test_chart_draws_hollow_what_may_not_be_quoted(folder: Path) -> None:
    """A rate with a trial that is not ok has no filled point, and its line is dotted."""
    summary = summary_of(folder, {0: limited(9_000, 1_500)}, goal([0]))
    axes = saturation_chart.draw(read_run(folder), summary).axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    hollow = {float(p.get_xdata()[0]) for p in points if p.get_markerfacecolor() == "white"}  # type: ignore[index] # a list
    bad = {p.achieved_rate for p in summary.results[0].points if p.stamp != "ok"}
    assert hollow == bad
    assert len(points) == 2 * len(summary.results[0].points)
    assert any(line.get_linestyle() == ":" for line in axes.lines)


def test_chart_marks_what_was_found_and_the_objective(folder: Path) -> None:
    """A diamond at the sustained rate and its p99, a line at the limit."""
    summary = summary_of(folder, {3: queue(1_000)}, goal([3]))
    axes = saturation_chart.draw(read_run(folder), summary).axes[0]
    (mark,) = [line for line in axes.lines if line.get_marker() == "D"]
    point = summary.results[0].point
    assert point is not None
    assert [*mark.get_xdata(), *mark.get_ydata()] == [point.achieved_rate, point.response_ms.p99]
    assert any(list(line.get_ydata()) == [50.0, 50.0] for line in axes.lines)


@pytest.mark.parametrize(
    ("stores", "objective", "ks"),
    [
        ({}, "p99<50ms", [0, 3]),
        ({0: queue(30)}, "p99<50ms", [0]),
        ({0: queue(1_000)}, "p50<20ms", [0]),
        ({0: queue(1_000)}, "max<200us", [0]),
        (dict.fromkeys(range(21), queue(700)), "p99<50ms", range(21)),
        ({0: lambda *_: LATE}, "p99<50ms", [0]),
        ({0: lambda *_: {"stamp": "invalid", "reason": "x", "response_ms": {}}}, "p99<50ms", [0]),
        ({0: lambda *_: {"achieved_rate": 0.0, "errors": {"timeout": 99}}}, "p99<50ms", [0]),
    ],
    ids=["nothing", "none", "median", "never", "twenty", "generator", "invalid", "dead"],
)
def test_report_is_drawn_from_hostile_data(
    folder: Path, stores: dict[int, Store], objective: str, ks: Any
) -> None:
    """Nothing, little, much, and broken data give a picture with a title and no warning."""
    found = goal(ks, objective)
    status = "complete" if stores else "failed"
    write_run(folder, found, rows(found, stores), followers=max(5, *ks), status=status)
    summary = write_saturation(folder)
    assert (folder / "throughput_vs_latency.png").read_bytes().startswith(b"\x89PNG")
    assert summary.sentence in html.unescape((folder / "report.md").read_text())


def test_run_without_one_of_its_lines_is_refused_with_a_sentence(folder: Path) -> None:
    """Each trial must be at the rate that the search asks for; else nothing is written."""
    written = rows(goal([3]), STORES)
    rates = [row["rate"] for row in written]
    for index in range(len(written) - 3):
        if rates[index] == rates[index + 1]:
            continue  # The second one says the same as the first.
        write_run(folder, goal([3]), [*written[:index], *written[index + 1 :]])
        with pytest.raises(UnreadableRunError, match=r"of k=3 .* a line was removed, or another"):
            write_saturation(folder)
    assert not (folder / "saturation.json").exists()
    write_run(folder, goal([3]), [written[0] | {"rate": None}])
    with pytest.raises(UnreadableRunError, match=r"Trial 1 of k=3 .* has no rate where .* 100/s"):
        write_saturation(folder)


def test_confirming_trial_that_said_nothing_is_not_in_the_figures(folder: Path) -> None:
    """It was repeated, and the three that confirmed the rate are what is quoted."""

    def disturbed(rate: float, n: int) -> dict[str, Any]:
        votes.append(rate)
        is_second_vote = votes[-3:] == [rate] * 3 and votes.count(rate) == 3
        spoilt = {"stamp": "invalid", "reason": "not all replicas could be compared"}
        return queue(1_000)(rate, n) | (spoilt if is_second_vote else {})

    votes: list[float] = []
    result = summary_of(folder, {3: disturbed}, goal([3])).results[0]
    assert (result.found, result.confirmed) == ("sustained", (3, 3))
    assert votes[-4:] == [result.rate] * 4
    assert result.point is not None
    assert (result.point.trials, result.point.stamp) == (3, "ok")


@pytest.mark.parametrize(("operation", "noun"), [("write", "writes"), ("read", "reads")])
def test_mix_says_whose_latency_is_bounded(folder: Path, operation: str, noun: str) -> None:
    """The rate is that of all requests, the latency that of one operation."""
    written = [
        row | {"operation": operation, "operations": {operation: {"ok": 400}}}
        for row in rows(goal([3]), STORES)
    ]
    write_run(folder, goal([3]), written, scenario={"name": "saturate", "workload": "ycsb-b"})
    summary = write_saturation(folder)
    assert summary.operation == operation
    assert re.fullmatch(
        rf"k=3 sustains 8\d\d requests/s with p99 of {noun} < 50ms\.", summary.sentence
    )
    caption = saturation_table.caption(summary, saturation_table.columns(summary))
    assert f"the highest offered rate of all requests that met p99 of {noun} < 50ms." in caption
    assert f"Response times of {noun} in ms" in caption
