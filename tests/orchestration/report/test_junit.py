"""``junit.xml`` as the CI systems' schemas want it, written here as checks of structure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.report import junit
from orchestration.report.records import Manifest, Run
from orchestration.report.summary import summarise
from orchestration.report.write import write_report
from orchestration.saturation import ENDED_EARLY
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Rows = list[dict[str, Any]]

# What junit-10.xsd (Jenkins' xUnit plugin) and JUnit.xsd (Ant's tasks) both allow: each element's
# attributes, those that are required, and its children in their order.
ATTRIBUTES = {
    "testsuites": {"name", "tests", "failures", "errors", "time"},
    "testsuite": {
        *("name", "tests", "failures", "errors", "skipped", "time"),
        *("timestamp", "hostname", "id", "package"),
    },
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"message"},
    "system-out": set(),
}
CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase", "system-out"],
    "properties": ["property"],
    "testcase": ["failure", "error", "skipped"],
}
ONCE = {"properties", "system-out"}
COUNTS = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}


def parse(document: bytes) -> ET.Element:
    """The document's root, once it has been seen to be one that CI systems read."""
    root = ET.fromstring(document)  # noqa: S314 -- our own document
    assert_follows_the_schemas(root)
    return root


def assert_follows_the_schemas(root: ET.Element) -> None:
    """Elements, attributes, order and sums are as the schemas have them."""
    assert root.tag == "testsuites"
    for element in root.iter():
        assert set(element.attrib) == ATTRIBUTES[element.tag], element.tag
        tags = [child.tag for child in element]
        order = CHILDREN.get(element.tag, [])
        assert tags == sorted(tags, key=order.index)
        assert all(tags.count(tag) <= 1 for tag in ONCE)
        if "time" in element.attrib:
            assert re.fullmatch(r"\d+\.\d{3}", element.attrib["time"])
    for case in root.iter("testcase"):
        assert len(case) <= 1
        assert case.attrib["name"]
    for suite in (root, *root.iter("testsuite")):
        for name, tag in COUNTS.items():
            if name in suite.attrib:
                assert int(suite.attrib[name]) == len(list(suite.iter(tag))), name
        total_s = sum(float(case.attrib["time"]) for case in suite.iter("testcase"))
        assert float(suite.attrib["time"]) == pytest.approx(total_s, abs=0.01)
    (suite,) = root
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    names = [(case.attrib["classname"], case.attrib["name"]) for case in root.iter("testcase")]
    assert len(set(names)) == len(names)


@pytest.fixture
def render(make_run: Callable[..., Run]) -> Callable[..., dict[str, ET.Element]]:
    """Return a function that gives the cases of a run by name, of a document that is checked."""

    def cases(rows: Rows, **manifest: Any) -> dict[str, ET.Element]:
        run = make_run(rows, **manifest)
        root = parse(junit.render(run, summarise(run)))
        return {case.attrib["name"]: case for case in root.iter("testcase")}

    return cases


def fault_of(case: ET.Element) -> str | None:
    """Return failure, error or skipped; None for a case that passed."""
    return case[0].tag if len(case) else None


def test_good_run_passes_with_a_case_for_each_cell_and_threshold(
    render: Callable[..., dict[str, ET.Element]],
) -> None:
    """Each k and each objective by its name, with the seconds that were measured."""
    cases = render(
        simulated.sweep([0, 3], trials=2), scenario={"thresholds": ["p99 < 1s", "errors<1%"]}
    )
    assert set(cases) == {"k=0", "k=3", "p99 < 1s", "errors < 1%"}
    assert {fault_of(case) for case in cases.values()} == {None}
    assert cases["k=3"].attrib["classname"] == "quorumeter.writes.cells"
    assert cases["p99 < 1s"].attrib["classname"] == "quorumeter.writes.thresholds"
    assert float(cases["k=3"].attrib["time"]) == pytest.approx(2 * 4.0)


def test_time_of_a_case_is_that_of_its_measured_windows(
    render: Callable[..., dict[str, ET.Element]],
) -> None:
    """A store that fell behind answers later: that makes its window no longer."""
    late = {"samples": 400, "achieved_rate": 50.0, "measured_s": 4.0}
    assert float(render(simulated.sweep([1], trials=2, **late))["k=1"].attrib["time"]) == 8.0


def test_samples_of_a_case_are_those_of_its_latencies(
    render: Callable[..., dict[str, ET.Element]],
) -> None:
    """Of a workload that reads as well, the writes' p99 is of its writes alone."""
    rows = simulated.sweep([1], trials=2, samples=8_000, stamp="saturated", reason="x")
    assert "2 trials, 800 samples" in (render(rows)["k=1"][0].text or "")


def test_suite_says_what_the_run_was(make_run: Callable[..., Run]) -> None:
    """Seed, followers, what an ack means and the version are the suite's properties."""
    run = make_run(simulated.sweep([0], trials=1), ack="fsync")
    root = parse(junit.render(run, summarise(run)))
    found = {p.attrib["name"]: p.attrib["value"] for p in root.iter("property")}
    assert found == {
        "verdict": "valid",
        "result": "none",
        "status": "complete",
        "seed": "42",
        "engine": "local",
        "followers": "5",
        "ack": "fsync",
        "version": "0.1.0",
    }
    assert root[0].attrib["timestamp"] == "2025-06-01T12:00:00"


@pytest.mark.parametrize(
    ("changes", "fault", "kind", "words"),
    [
        ({"stamp": "saturated", "reason": "9 dropped"}, "failure", "saturated", "9 dropped"),
        ({"stamp": "generator-bound", "reason": "late"}, "error", "generator-bound", "late"),
        ({"stamp": "invalid", "reason": "ended"}, "error", "invalid", "ended"),
        (
            {"stamp": "invalid", "reason": ENDED_EARLY, "errors": {"timeout": 200}},
            "error",
            "invalid",
            ENDED_EARLY,
        ),
        (
            {"stamp": "invalid", "reason": "200 of 600 failed", "errors": {"timeout": 200}},
            "failure",
            "invalid",
            "200 of 600 failed",
        ),
        (
            {"parity": {"status": "mismatch", "replicas": []}, "stamp": "invalid", "reason": "x"},
            "failure",
            "parity",
            "replicas differ",
        ),
        ({"parity": {"status": "error", "replicas": []}}, "error", "parity", "not all replicas"),
    ],
)
def test_bad_cell_is_a_failure_of_the_store_or_an_error_of_the_measurement(
    render: Callable[..., dict[str, ET.Element]],
    changes: dict[str, Any],
    fault: str,
    kind: str,
    words: str,
) -> None:
    """Its text has the reason and the figures that may be told; the other cells pass."""
    rows = simulated.sweep([0, 3], trials=2)
    cases = render([row | (changes if row["k"] == 3 else {}) for row in rows])
    assert fault_of(cases["k=0"]) is None
    assert fault_of(cases["k=3"]) == fault
    found = cases["k=3"][0]
    assert found.attrib["type"] == kind
    assert words in found.attrib["message"]
    assert "2 trials, 800 samples" in (found.text or "")
    assert "achieved 99.8/s" in (found.text or "")
    assert ("p99" in (found.text or "")) == (changes.get("stamp") is None)


def test_threshold_is_a_failure_if_breached_and_an_error_if_unknown(
    render: Callable[..., dict[str, ET.Element]],
) -> None:
    """The text lists every cell that the threshold is for."""
    texts = ["mean < 30ms", "p99 < 1s at k=7"]
    cases = render(simulated.sweep([0, 3], trials=2), scenario={"thresholds": texts})
    breached, unknown = cases["mean < 30ms"], cases["p99 < 1s at k=7"]
    assert (fault_of(breached), breached[0].attrib["type"]) == ("failure", "breached")
    assert "k=0: passed, 0." in (breached[0].text or "")
    assert "k=3: breached, 5" in (breached[0].text or "")
    assert (fault_of(unknown), unknown[0].attrib["type"]) == ("error", "unknown")
    assert "no cell with k=7 was measured" in unknown[0].attrib["message"]


@pytest.mark.parametrize(
    ("status", "fault", "words"),
    [("interrupted", "skipped", "was stopped"), ("failed", "error", "failed")],
)
def test_cell_that_was_never_measured_does_not_pass(
    render: Callable[..., dict[str, ET.Element]], status: str, fault: str, words: str
) -> None:
    """A run that was stopped skipped it; one that failed leaves an error."""
    rows = simulated.sweep([0], trials=1)
    cases = render(rows, status=status, scenario={"quorums": [0, 1, 2]})
    assert [fault_of(cases[f"k={k}"]) for k in range(3)] == [None, fault, fault]
    assert words in cases["k=2"][0].attrib["message"]


def test_ack_that_was_never_measured_does_not_pass(
    render: Callable[..., dict[str, ET.Element]],
) -> None:
    """Where memory and disk were planned, each k is two cases."""
    rows = [*simulated.sweep([0, 1], trials=1, ack="memory"), simulated.trial(0, ack="fsync")]
    plan = {"quorums": [0, 1], "acks": ["memory", "fsync"]}
    cases = render(rows, status="interrupted", scenario=plan)
    assert {name: fault_of(case) for name, case in cases.items()} == {
        "k=0, memory": None,
        "k=1, memory": None,
        "k=0, fsync": None,
        "k=1, fsync": "skipped",
    }


def test_run_without_any_cell_is_an_error(render: Callable[..., dict[str, ET.Element]]) -> None:
    """No CI page shows green for a run that measured nothing."""
    (case,) = render([], status="failed").values()
    assert fault_of(case) == "error"
    assert "No trial was finished" in case[0].attrib["message"]


@given(st.text())
def test_any_text_becomes_a_document_that_parses(text: str) -> None:
    """Control characters of a log, markup and surrogates are no danger."""
    manifest = Manifest(run="writes/now", ack=text, scenario={"quorums": []}, status="failed")
    run = Run(manifest, [])
    assert parse(junit.render(run, summarise(run))).attrib["errors"] == "1"


def test_cells_of_hostile_rows_become_a_document_that_parses(
    render: Callable[..., dict[str, ET.Element]],
) -> None:
    """A reason may hold what terminals and pages would take for commands."""
    evil = "\x1b[31m<b>]]>&amp;\x00\ufffe"
    rows = simulated.sweep([0], trials=1, stamp="invalid", reason=evil, errors={evil: 3})
    case = render(rows)["k=0"]
    assert "[31m<b>]]>&amp;" in case[0].attrib["message"]
    assert "\x1b" not in case[0].attrib["message"]


def test_report_writes_the_document_beside_the_others(tmp_path: Path) -> None:
    """It begins with the declaration that names its encoding."""
    write_report(simulated.write_run(tmp_path, simulated.sweep([0], trials=1)))
    content = (tmp_path / "junit.xml").read_bytes()
    assert content.startswith(b"<?xml version='1.0' encoding='utf-8'?>")
    assert parse(content).attrib["tests"] == "1"
