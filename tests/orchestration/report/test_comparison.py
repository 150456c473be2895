"""Two runs held against each other: what is paired, judged, refused, and said."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from orchestration.analysis.comparison import change
from orchestration.report.comparability import settings_that_differ
from orchestration.report.comparison import FIGURES, RATE, Comparison, compare
from orchestration.report.comparison_files import to_json
from orchestration.report.noise_floor import NoiseFloor, read_noise_floor
from orchestration.report.noise_floor import to_json as floor_to_json
from orchestration.report.records import Run, UnreadableRunError, read_run
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Run]:
    """Return a function that writes rows as a run of a name and reads them again."""

    def write(name: str, rows: list[dict[str, Any]], **manifest: Any) -> Run:
        folder = tmp_path / "writes" / name
        return read_run(simulated.write_run(folder, rows, run=f"writes/{name}", **manifest))

    return write


def changed(rows: list[dict[str, Any]], k: int, **changes: Any) -> list[dict[str, Any]]:
    """Return the rows, with some fields of those at one k replaced."""
    return [row | (changes if row["k"] == k else {}) for row in rows]


def scaled(rows: list[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    """Return the rows of a store that is slower by a factor."""
    return [
        row | {"response_ms": {name: factor * value for name, value in row["response_ms"].items()}}
        for row in rows
    ]


def verdicts(comparison: Comparison, k: int) -> dict[str, str]:
    """Return the verdict of each figure at a k."""
    (cell,) = [cell for cell in comparison.cells if cell.k == k]
    return {name: figure.verdict for name, figure in cell.figures.items()}


def test_floor_of_another_machine_of_the_same_type_is_not_its_own() -> None:
    """Processor, cores and memory are alike of two virtual machines; their ids are not."""
    machine = {"cpu": "c", "cores": 2, "memory_gib": 8.0, "machine_id": "a1", "cpu_quota": None}
    floor = NoiseFloor(created_at="", machine=machine, seed=1, runs=[], conditions={}, percent={})
    assert floor.is_of(machine)
    assert not floor.is_of(machine | {"machine_id": "b2"})
    assert not floor.is_of(machine | {"cpu_quota": 0.5})


def test_slower_store_is_called_slower_and_the_other_way_round(make: Callable[..., Run]) -> None:
    """Latencies a third higher are slower, a third lower faster, the rate is as it was."""
    rows = simulated.sweep([2, 3], trials=5)
    base, new = make("base", rows), make("new", scaled(simulated.sweep([2, 3], 5, seed=2), 1.33))
    latencies = dict.fromkeys(FIGURES[:-1], "slower")
    assert verdicts(compare(base, new), 3) == {**latencies, RATE: "no change"}
    assert set(verdicts(compare(new, base), 3).values()) == {"faster", "no change"}
    assert compare(base, new).has_regression
    assert not compare(new, base).has_regression


def test_rate_that_falls_is_lower_and_a_regression(make: Callable[..., Run]) -> None:
    """A rate has its own words: less is worse."""
    rows = simulated.sweep([1], trials=5)
    base, new = make("base", rows), make("new", changed(rows, 1, achieved_rate=50.0))
    assert verdicts(compare(base, new), 1)[RATE] == "lower"
    assert compare(base, new).has_regression
    assert verdicts(compare(new, base), 1)[RATE] == "higher"
    assert not compare(new, base).has_regression


def test_figures_are_those_of_the_reports_with_the_change_of_their_trials(
    make: Callable[..., Run],
) -> None:
    """Base and new are means over trials; the interval is that of the per-trial values."""
    base, new = make("base", simulated.sweep([1])), make("new", simulated.sweep([1], seed=2))
    p95s = [[row.response_ms.p95 or 0 for row in run.rows] for run in (base, new)]
    found = compare(base, new).cells[0].figures["p95"]
    assert (found.base, found.new) == pytest.approx([sum(values) / 3 for values in p95s])
    expected = change(*p95s)
    assert found.change_percent == (expected.low, expected.estimate, expected.high)


def test_three_trials_without_calibration_assume_a_floor_and_say_so(
    make: Callable[..., Run],
) -> None:
    """Nothing measured the noise: the default stands beside every figure, a note says it once."""
    base, new = make("base", simulated.sweep()), make("new", simulated.sweep(seed=2))
    found = compare(base, new)
    assert {figure.floor_source for _, _, figure in found.figures()} == {"assumed"}
    assert sum("No noise floor was measured: 10%" in note for note in found.notes) == 1


def floor(**percent: float) -> NoiseFloor:
    """Return a noise floor that was measured at k=0."""
    return NoiseFloor(
        created_at="2025-06-01T12:00:00.000Z",
        machine={"cpu": "Simulated CPU @ 2.0 GHz", "cores": 2, "memory_gib": 8.0},
        seed=1,
        runs=["a", "b"],
        conditions={"trials": 3, "acks": ["memory"]},
        percent={0: percent, 1: {"mean": 1.0}},
    )


def test_calibrated_floor_stands_in_for_every_k(make: Callable[..., Run]) -> None:
    """The k that was calibrated has its own, the others the highest; what lacks has the default."""
    base, new = make("base", simulated.sweep([0, 1, 5])), make("new", simulated.sweep([0, 1, 5]))
    found = compare(base, new, floor(mean=30.0, p50=2.0))
    floors = {
        (cell.k, name): (figure.floor_percent, figure.floor_source)
        for cell, name, figure in found.figures()
    }
    assert floors[0, "mean"] == floors[5, "mean"] == (pytest.approx(30.0), "calibrated")
    assert floors[1, "mean"] == (1.0, "least")
    assert floors[5, "p50"] == (pytest.approx(2.0), "calibrated")
    assert floors[1, "p50"] == floors[0, "p99"] == (10.0, "assumed")


def test_floor_of_memory_is_none_of_fsync(make: Callable[..., Run]) -> None:
    """Cells on disk keep the assumed floor, with a note; those in memory have the calibrated."""
    rows = [row | {"ack": ack} for ack in ("memory", "fsync") for row in simulated.sweep([1])]
    found = compare(make("base", rows), make("new", rows), floor(mean=1.0))
    sources = {(cell.ack, name): figure.floor_source for cell, name, figure in found.figures()}
    assert (sources["memory", "mean"], sources["fsync", "mean"]) == ("least", "assumed")
    assert any("were from memory: it is no floor for fsync." in note for note in found.notes)


@pytest.mark.parametrize("conditions", [{}, {"trials": 0, "acks": ["memory"]}, {"trials": 3}])
def test_noise_floor_of_unknown_trials_or_acks_is_refused(
    tmp_path: Path, conditions: dict[str, Any]
) -> None:
    """Whether it may be used depends on them."""
    path = tmp_path / "noise_floor.json"
    path.write_bytes(floor_to_json(msgspec.structs.replace(floor(), conditions=conditions)))
    with pytest.raises(UnreadableRunError, match="calibrate anew"):
        read_noise_floor(path)


def test_noise_floor_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The file holds all of it, and knows its machine by its hardware."""
    path = tmp_path / "noise_floor.json"
    path.write_bytes(floor_to_json(floor(mean=30.0)))
    assert read_noise_floor(path) == floor(mean=30.0)
    assert floor().is_of({**floor().machine, "kernel": "newer"})
    assert not floor().is_of({**floor().machine, "cores": 4})


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"schema": 1}', b"[1"])
def test_file_that_is_no_noise_floor_says_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    """None, an empty one, one that lacks fields, a torn one."""
    path = tmp_path / "noise_floor.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableRunError, match="calibrate"):
        read_noise_floor(path)


def test_noise_floor_of_another_schema_is_refused(tmp_path: Path) -> None:
    """Its numbers might mean something else."""
    path = tmp_path / "noise_floor.json"
    path.write_bytes(floor_to_json(msgspec.structs.replace(floor(), schema=2)))
    with pytest.raises(UnreadableRunError, match="schema 2"):
        read_noise_floor(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stamp": "saturated", "reason": "9 dropped"}, "NEW is saturated (9 dropped)"),
        ({"stamp": "invalid"}, "NEW is invalid"),
        ({"response_ms": {}, "achieved_rate": None}, "NEW recorded no mean in a trial"),
    ],
)
def test_cell_that_may_not_be_quoted_is_unknown_with_the_reason(
    make: Callable[..., Run], changes: dict[str, Any], reason: str
) -> None:
    """No figure of it is judged, and a gate is told that it could not see."""
    rows = simulated.sweep([0, 1], trials=4)
    base, new = make("base", rows), make("new", changed(rows, 1, **changes))
    found = compare(base, new)
    assert set(verdicts(found, 1).values()) == {"unknown"}
    assert found.cells[1].figures["mean"].reason == reason
    assert found.cells[1].figures["mean"].base is not None
    assert found.has_unjudged_figures
    assert "unknown" not in verdicts(found, 0).values()


def test_percentile_of_too_few_writes_is_unknown_and_no_gap_of_new(
    make: Callable[..., Run],
) -> None:
    """With 40 writes a trial there is no p99 in either run; that is no loss."""
    base = make("base", simulated.sweep([1], writes=40))
    new = make("new", simulated.sweep([1], writes=40, seed=2))
    figure = compare(base, new).cells[0].figures["p99"]
    assert figure.verdict == "unknown"
    assert "BASE had 40 acknowledged writes in a trial, p99 takes 100" in figure.reason
    assert not compare(base, new).has_unjudged_figures


def test_one_trial_is_quoted_but_not_judged(make: Callable[..., Run]) -> None:
    """Its mean is known, a change is not."""
    base, new = make("base", simulated.sweep([1], 1)), make("new", simulated.sweep([1], 5))
    figure = compare(base, new).cells[0].figures["mean"]
    assert figure.base is not None
    assert (figure.verdict, figure.change_percent) == ("unknown", None)
    assert figure.reason == "BASE has one trial, an interval takes 2"
    assert compare(base, new).has_unjudged_figures


def test_cells_of_only_one_run_are_listed(make: Callable[..., Run]) -> None:
    """What cannot be paired is not lost; one that NEW lacks leaves a gate open."""
    base, new = make("base", simulated.sweep([0, 1])), make("new", simulated.sweep([1, 2]))
    found = compare(base, new)
    assert [cell.k for cell in found.cells] == [1]
    assert [cell.k for cell in found.only_in_base] == [0]
    assert [cell.k for cell in found.only_in_new] == [2]
    assert found.has_unjudged_figures
    assert not compare(new, make("both", simulated.sweep([1, 2, 3]))).has_unjudged_figures


def test_rows_without_an_ack_take_that_of_their_manifest(make: Callable[..., Run]) -> None:
    """An old run in memory is paired with the memory cells of one that measured both."""
    rows = simulated.sweep([1])
    both = [row | {"ack": ack} for ack in ("memory", "fsync") for row in rows]
    found = compare(make("base", rows, ack="memory"), make("new", both, ack="mixed"))
    assert [(cell.ack, cell.k) for cell in found.cells] == [("memory", 1)]
    assert [cell.ack for cell in found.only_in_new] == ["fsync"]
    assert "ack: memory in BASE, fsync and memory in NEW" in found.differences


def test_blocks_are_taken_in_their_order(make: Callable[..., Run]) -> None:
    """A run that was resumed has late rows of early blocks: the drift that is seen is the same."""
    rows = simulated.sweep([1], trials=8)
    drifting = [row | {"achieved_rate": 90.0 + 3 * row["block"]} for row in rows]
    floors = []
    for order in (drifting, drifting[::2] + drifting[1::2]):
        run = make("run", order)
        floors.append(compare(run, run).cells[0].figures[RATE].floor_percent)
    assert floors[0] == floors[1]


@pytest.mark.parametrize(
    ("rows", "manifest", "difference"),
    [
        ({"followers": 3}, {}, "followers: 5 in BASE, 3 in NEW"),
        ({"delay_ms": [0, 22]}, {}, "delay (ms): 0:100 in BASE, 0:22 in NEW"),
        ({"delay_model": "fifo"}, {}, "delay model: independent in BASE, fifo in NEW"),
        ({"duration_s": 8.0}, {}, "duration (s): 4 in BASE, 8 in NEW"),
        ({"operation": "read"}, {}, "operation: write in BASE, read in NEW"),
        ({}, {"ack": "fsync"}, "ack: memory in BASE, fsync in NEW"),
        ({}, {"scenario": {"workload": "mixed"}}, "workload: writes in BASE, mixed in NEW"),
        ({}, {"machine": {"cores": 4}}, "cores: 2 in BASE, 4 in NEW"),
        ({}, {"versions": {"locust": "2.1"}}, "locust: 2.0 in BASE, 2.1 in NEW"),
    ],
)
def test_runs_that_are_not_alike_are_told_apart(
    make: Callable[..., Run], rows: dict[str, Any], manifest: dict[str, Any], difference: str
) -> None:
    """Each condition that must be equal is named with both its values, and nothing else is."""
    trials = simulated.sweep([1], trials=2)
    base = make("base", trials, versions={"locust": "2.0", "quorumeter": "1"})
    plain = {"versions": {"locust": "2.0", "quorumeter": "2"}, "seed": 99}
    new = make("new", [row | rows for row in trials], **(plain | manifest))
    assert compare(base, new).differences == [difference]


def test_settings_of_one_side_alone_are_no_difference() -> None:
    """An older version did not record them; chance and names may differ."""
    one = {"rate_per_s": 1e6, "seed": 1, "trials": 3, "name": "a", "old": 1, "keys": None}
    other = {"rate_per_s": 1e6 + 1, "seed": 2, "trials": 5, "name": "b", "new": 1, "keys": 10}
    assert settings_that_differ(one, other, ("A", "B")) == [
        "rate (per s): 1000000 in A, 1000001 in B",
        "keys: none in A, 10 in B",
    ]


def test_settings_in_a_tuple_and_in_a_list_are_the_same() -> None:
    """One side was just resolved, the other read from JSON."""
    one, other = {"delay_ms": (0.0, 20.0)}, {"delay_ms": [0, 20]}
    assert settings_that_differ(one, other, ("A", "B")) == []
    assert settings_that_differ(one, {"delay_ms": [0, 22]}, ("A", "B"))


def test_run_against_itself_says_so(make: Callable[..., Run]) -> None:
    """A slip of the hand would else look like a store without any change."""
    base = make("base", simulated.sweep([1]))
    assert "BASE and NEW are the same run." in compare(base, base).notes


@pytest.mark.parametrize(
    ("ks", "changes", "words"),
    [
        ([], {}, "no cell in common"),
        ([1], {"stamp": "invalid"}, "nothing is known of a change"),
        ([1], {}, "Nothing changed by more than the noise, in 5 figures."),
    ],
)
def test_sentence_says_that_nothing_changed_or_is_known(
    make: Callable[..., Run], ks: list[int], changes: dict[str, Any], words: str
) -> None:
    """Nothing to compare, nothing to judge, nothing changed."""
    rows = simulated.sweep(ks, trials=5)
    assert words in compare(make("base", rows), make("new", changed(rows, 1, **changes))).sentence


def test_sentence_names_the_largest_change_for_the_worse(make: Callable[..., Run]) -> None:
    """What got worse comes first, latency before rate, with its interval."""
    rows = simulated.sweep([1, 3], trials=5)
    worse = scaled([r for r in rows if r["k"] == 3], 1.5)
    better = scaled([r for r in rows if r["k"] == 1], 0.5)
    base, new = make("base", rows), make("new", [*better, *worse])
    found = compare(base, new).sentence
    assert re.match(r"NEW is slower: (mean|p\d\d) at k=3 by 50.0% \(4\d.\d% to 5\d.\d%\), ", found)
    assert "the largest of 4 changes for the worse in 10 figures; 4 changed for the better" in found
    assert re.match(r"NEW is slower: .* at k=1 by 100% \(", compare(new, base).sentence)


def test_sentence_of_a_rate_says_what_gets_done(make: Callable[..., Run]) -> None:
    """Less done is worse, more is better."""
    rows = simulated.sweep([1], trials=5)
    base, new = make("base", rows), make("new", changed(rows, 1, achieved_rate=49.9))
    less, more = compare(base, new).sentence, compare(new, base).sentence
    assert less.startswith("NEW gets less done: its rate at k=1 by 50.0% (50.0% to 50.0%)")
    assert more.startswith("NEW gets more done: its rate at k=1 by 100% (100% to 100%)")
    assert "1 change for the worse" in less


def test_sentence_counts_what_is_unclear(make: Callable[..., Run]) -> None:
    """Two trials know next to nothing, and the sentence does not claim that all is well."""
    base, new = make("base", simulated.sweep([1], 2)), make("new", simulated.sweep([1], 2, seed=3))
    sentence = compare(base, new).sentence
    unclear = list(verdicts(compare(base, new), 1).values()).count("unclear")
    assert unclear > 0
    assert f"in 5 figures; {unclear} unclear, for want of trials" in sentence


def test_json_is_what_was_found(make: Callable[..., Run]) -> None:
    """The file can be read back into the same comparison, with finite numbers only."""
    rows = changed(simulated.sweep(trials=2), 1, stamp="invalid")
    found = compare(make("base", rows), make("new", simulated.sweep(range(4), trials=2, seed=3)))
    assert msgspec.json.decode(to_json(found), type=Comparison) == found
    numbers = [end for _, _, f in found.figures() for end in f.change_percent or ()]
    assert numbers
    assert all(map(math.isfinite, numbers))
