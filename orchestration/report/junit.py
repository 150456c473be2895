"""``junit.xml``: a run as CI systems read test results.

One suite a run, one test case a cell and one a threshold. A failure is something found out about
the store, an error a question that could not be answered, as JUnit means them; what the run did not
get to before it was stopped is skipped. The elements and attributes are those on which the schemas
in use agree (Jenkins' ``junit-10.xsd`` and the older one of Ant's tasks).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from orchestration.report import tables, threshold_table
from orchestration.report.labels import labels
from orchestration.report.numbers import ms
from orchestration.saturation import has_failed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal

    from orchestration.report.records import Run, TrialRow
    from orchestration.report.summary import Cell, Summary
    from orchestration.thresholds import Outcome

    Fault = Literal["failure", "error", "skipped"]

# The older schema wants a host's name and names this one for a host that is not told.
HOST = "localhost"
# Tabs, line feeds and carriage returns are the only control characters that XML 1.0 can hold.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Case(NamedTuple):
    """One test case; without a fault it passed.

    Attributes:
        group: cells or thresholds.
        time_s: how long was measured for it.
        message: the fault in a line.
        text: its figures.
    """

    group: str
    name: str
    time_s: float = 0.0
    fault: Fault | None = None
    message: str = ""
    text: str = ""


def render(run: Run, summary: Summary) -> bytes:
    """Return the document."""
    cases = list(_cases(run, summary))
    faults = [case.fault for case in cases]
    totals = {
        "tests": str(len(cases)),
        "failures": str(faults.count("failure")),
        "errors": str(faults.count("error")),
        "time": f"{sum(case.time_s for case in cases):.3f}",
    }
    root = ET.Element("testsuites", {"name": "quorumeter", **totals})
    about = {
        "name": _clean(summary.run),
        "package": "quorumeter",
        "id": "0",
        "hostname": HOST,
        "timestamp": (run.manifest.started_at or "1970-01-01T00:00:00")[:19],
        "skipped": str(faults.count("skipped")),
    }
    suite = ET.SubElement(root, "testsuite", about | totals)
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(run, summary):
        ET.SubElement(properties, "property", name=name, value=_clean(value))
    for case in cases:
        _append(suite, case, summary)
    ET.SubElement(suite, "system-out").text = _clean(summary.sentence)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _properties(run: Run, summary: Summary) -> Iterator[tuple[str, str]]:
    yield "verdict", summary.verdict
    yield "result", summary.result or "none"
    yield "status", summary.status
    yield "seed", str(summary.seed)
    yield "engine", summary.engine
    yield "followers", str(summary.followers)
    yield "ack", summary.ack
    yield "version", str(run.manifest.versions.get("quorumeter", "unknown"))


def _cases(run: Run, summary: Summary) -> Iterator[Case]:
    for name, cell in zip(labels(summary.cells), summary.cells, strict=True):
        rows = [row for row in run.rows if cell.has(row)]
        yield _of_cell(name, cell, rows)
    yield from _of_unmeasured(run, summary)
    for outcome in summary.thresholds:
        yield _of_threshold(outcome)


def _of_cell(name: str, cell: Cell, rows: Sequence[TrialRow]) -> Case:
    case = Case("cells", name, sum(row.measured_s or 0.0 for row in rows))
    fault, message = _fault(cell, rows)
    return case._replace(fault=fault, message=message, text=_figures(cell)) if fault else case


def _fault(cell: Cell, rows: Sequence[TrialRow]) -> tuple[Fault | None, str]:
    """Return what is wrong with a cell: of the store a failure, of the measurement an error."""
    if cell.parity == "mismatch":
        return "failure", "parity: replicas differ from the leader"
    if cell.stamp != "ok":
        failed = any(row.stamp == "invalid" and has_failed(row) for row in rows)
        is_store = cell.stamp == "saturated" or failed
        return "failure" if is_store else "error", f"{cell.stamp}: {cell.reason}"
    if cell.parity == "error":
        return "error", "parity: not all replicas could be compared"
    return None, ""


def _figures(cell: Cell) -> str:
    rates = [
        f"{name} {rate:,.1f}/s"
        for name, rate in (("offered", cell.offered_rate), ("achieved", cell.achieved_rate))
        if rate is not None
    ]
    quoted = [
        f"{name} {ms(value)}"
        for name in tables.RESPONSE
        if (value := getattr(cell.response_ms, name)) is not None
    ]
    counted = f"{cell.trials} trials, {cell.writes:,} samples, errors: {tables.errors(cell)}"
    return "\n".join([counted, ", ".join([*rates, *quoted]), f"parity: {cell.parity}", *cell.notes])


def _of_unmeasured(run: Run, summary: Summary) -> Iterator[Case]:
    """Yield a case for each k that was planned and has no trial; one if nothing is known at all.

    A stopped run skipped it; one that failed owes an answer, and so does one without any cell.
    """
    scenario = run.manifest.scenario
    acks = scenario.get("acks") or []
    several = len(acks) > 1
    planned = [(k, ack) for ack in acks or [""] for k in scenario.get("quorums") or []]
    measured = {(cell.k, cell.ack if several else "") for cell in summary.cells}
    stopped = summary.status == "interrupted"
    fault: Fault = "skipped" if stopped else "error"
    message = (
        f"not measured: the run {'was stopped' if stopped else 'failed'} before its first trial"
    )
    for k, ack in planned:
        if (k, ack if several else "") not in measured:
            yield Case("cells", f"k={k}, {ack}" if several else f"k={k}", 0.0, fault, message)
    if not planned and not measured:
        yield Case("cells", "any", fault="error", message=f"not measured: {summary.sentence}")


def _of_threshold(outcome: Outcome) -> Case:
    case = Case("thresholds", outcome.text)
    if outcome.status == "passed":
        return case
    return case._replace(
        fault="failure" if outcome.status == "breached" else "error",
        message=f"{outcome.status}: {threshold_table.finding(outcome)}",
        text=threshold_table.details(outcome),
    )


def _append(suite: ET.Element, case: Case, summary: Summary) -> None:
    scenario = summary.run.partition("/")[0]
    element = ET.SubElement(
        suite,
        "testcase",
        classname=_clean(f"quorumeter.{scenario}.{case.group}"),
        name=_clean(case.name),
        time=f"{case.time_s:.3f}",
    )
    if case.fault == "skipped":
        ET.SubElement(element, "skipped", message=_clean(case.message))
    elif case.fault is not None:
        kind = case.message.partition(":")[0]
        fault = ET.SubElement(element, case.fault, type=_clean(kind), message=_clean(case.message))
        fault.text = _clean(case.text or case.message)


def _clean(text: str) -> str:
    """Return the text with a mark in place of each character that XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
