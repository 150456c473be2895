"""What reports of some simulated runs show, as somebody approved it who had looked at it.

``python -m tests.orchestration.report.approved`` writes the folder ``approved`` anew. Look at what
``git diff`` shows then, and at the files themselves in a browser, before they are committed.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console

from orchestration.analysis import histograms
from orchestration.report.comparison import FIGURES, compare
from orchestration.report.comparison_console import print_comparison
from orchestration.report.comparison_files import write_comparison
from orchestration.report.console import print_report
from orchestration.report.noise_floor import NoiseFloor
from orchestration.report.records import read_run
from orchestration.report.saturation_write import print_saturation, write_saturation
from orchestration.report.write import write_report
from tests.orchestration.report import simulated, simulated_search

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path(__file__).parent / "approved"
WIDTHS = (50, 80, 140)
# Long lines of a drawing are told by their ends and their extent.
LONG_PATH = 24
SUFFIXES = {".html", ".md", ".svg", ".json", ".xml", ".hgrm"}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def outputs() -> dict[str, str]:
    """Returns the text of everything that is approved, by the name of its file."""
    with TemporaryDirectory() as room:
        root = Path(room)
        found: dict[str, str] = {}
        for name, write in RUNS.items():
            for file, text in write(root / name / "run").items():
                found[f"{name}.{file}"] = text.replace(room, "")
        return found


def numbers(text: str) -> tuple[list[str], list[float]]:
    """Returns what stands between the numbers of a text, and the numbers."""
    return _NUMBER.split(text), [float(number) for number in _NUMBER.findall(text)]


# --- the runs ---------------------------------------------------------------------------------


def _clean(folder: Path) -> dict[str, str]:
    """All k, all well."""
    return _sweep(folder, simulated.sweep())


def _troubled(folder: Path) -> dict[str, str]:
    """Both kinds of nodes, objectives, and of everything that can go wrong one."""
    rows = [
        row | {"ack": ack, "offered_rate": 99.5 + row["k"]}
        for ack, cost_ms in (("memory", 0.6), ("fsync", 4.0))
        for row in simulated.sweep([0, 1, 2, 3, 5], cost_ms=cost_ms, seed=7)
    ]
    wrong: dict[tuple[str, int, int], dict[str, Any]] = {
        ("memory", 2, 1): {"stamp": "saturated", "reason": "31 of 400 arrivals were dropped"},
        ("memory", 5, 0): {"stamp": "generator-bound", "reason": "late by 30 ms"},
        ("memory", 5, 1): {"stamp": "generator-bound", "reason": "late by 31 ms"},
        ("memory", 5, 2): {"stamp": "generator-bound", "reason": "late by 32 ms"},
        ("fsync", 0, 2): {"stamp": "invalid", "reason": "12 of 400 requests failed"},
        ("fsync", 3, 0): {"generator_cpu_share": None, "errors": {"503 quorum_timeout": 2}},
    }
    changed = [row | wrong.get((row["ack"], row["k"], row["block"]), {}) for row in rows]
    left = [row for row in changed if (row["ack"], row["k"]) != ("fsync", 5)]
    settings = {
        "workload": "writes",
        "k": [0, 1, 2, 3, 5],
        "trials": 3,
        "rate": 100.0,
        "ack": ["memory", "fsync"],
        "thresholds": ["p99<90ms", "mean < 1ms at k=3"],
    }
    return _sweep(
        folder,
        left,
        ack="memory and fsync",
        status="interrupted",
        planned_trials=30,
        scenario=settings,
    )


def _single(folder: Path) -> dict[str, str]:
    """One trial of one k without delays: nothing to compare, no interval, no theory."""
    return _sweep(
        folder,
        [simulated.trial(1, n=1, delay_ms=None, writes=20, followers=1)],
        followers=1,
        planned_trials=1,
        scenario={"workload": "writes", "k": [1], "trials": 1, "rate": 100.0},
    )


def _fifo(folder: Path) -> dict[str, str]:
    """Links that keep the order, beside their own theory, on a short trial of many followers."""
    rows = simulated.sweep(range(8), n=7, delay_ms=(5.0, 20.0), delay_model="fifo", followers=7)
    return _sweep(folder, rows, followers=7, planned_trials=24)


def _empty(folder: Path) -> dict[str, str]:
    """A run that was ended before its first trial."""
    return _sweep(folder, [], status="interrupted")


def _sweep(folder: Path, rows: list[dict[str, Any]], **manifest: Any) -> dict[str, str]:
    simulated.write_run(folder, rows, **manifest)
    summary = write_report(folder)
    shown = {f"{width}.txt": _printed(print_report, width, summary) for width in WIDTHS}
    return {**_written(folder), **shown}


def _saturate(folder: Path) -> dict[str, str]:
    """A rate that is sustained, one that the generator ends, and a k that was not begun."""
    found = simulated_search.goal((0, 2, 3))
    stores = {
        0: simulated_search.limited(4_000, 2_500),
        3: simulated_search.queue(1_000),
    }
    simulated_search.write_run(folder, found, simulated_search.rows(found, stores))
    summary = write_saturation(folder)
    shown = {f"{width}.txt": _printed(print_saturation, width, summary) for width in WIDTHS}
    return {**_written(folder), **shown}


def _compare(folder: Path) -> dict[str, str]:
    """One that is slower, some alike, one saturated, one missing."""
    base = simulated.sweep([0, 1, 3, 4, 5], trials=5)
    new = [
        *simulated.sweep([0, 1], trials=5, seed=2),
        *simulated.sweep([3, 4], trials=5, delay_ms=(0.0, 130.0), seed=2),
    ]
    new = [
        row | ({"stamp": "saturated", "reason": "9 dropped"} if row["k"] == 4 else {})
        for row in new
    ]
    return _compared(folder, base, new)


def _mixed(folder: Path) -> dict[str, str]:
    """Reads beside writes in a closed loop on containers, where replicas differ from the leader."""
    lost = {
        "status": "mismatch",
        "replicas": [
            {"url": "http://follower1:8000", "status": "mismatch", "mismatch_keys": _keys(7)},
            {"url": "http://follower2:8000", "status": "mismatch", "extra_keys": _keys(12)},
            {"url": "http://follower3:8000", "status": "error", "detail": "no answer"},
            {"url": "http://follower4:8000", "status": "error"},
        ],
    }
    rows = []
    for row in simulated.sweep([1, 4], trials=2, delay_ms=(0.0, 0.0)):
        reads = 400 - row["block"]
        operations = row["operations"] | {
            "read": {"ok": reads, "errors": {"timeout": 600}, "histograms": _histograms(reads, 2)},
            "scan": {"ok": 19, "errors": {"404": 1}, "histograms": _histograms(19, 8)},
        }
        changes = {"users": 1_000, "rate": None, "operations": operations, "seen": 400}
        changes["uncorrected_ms"] = row["response_ms"]
        if (row["k"], row["block"]) == (4, 1):
            changes["parity"] = lost
        rows.append(row | changes)
    machine = simulated.manifest()["machine"] | {"cpu_quota": 1.5}
    settings = {"workload": "ycsb", "is_pinned": True, "thresholds": ["p50<0.5ms at k=1"]}
    return _sweep(
        folder, rows, engine="compose", machine=machine, scenario=settings, planned_trials=None
    )


def _reads(folder: Path) -> dict[str, str]:
    """Reads alone on a cluster that was there, of which little is known, at two rates."""
    rows = []
    for row in simulated.sweep([2], trials=2, delay_ms=None, followers=3, warmup_s=0.0):
        for rate in (50.0, 1_200.0):
            operations = {"read": row["operations"]["write"]}
            rows.append(row | {"rate": rate, "operation": "read", "operations": operations})
    return _sweep(
        folder,
        rows,
        engine="attached",
        followers=3,
        ack="mixed",
        machine={},
        scenario={"workload": "reads"},
        status="failed",
    )


def _short(folder: Path) -> dict[str, str]:
    """Trials too short for a p99, from disk alone; the larger k is quicker."""
    rows = [
        row | {"ack": "fsync"}
        for k, cost_ms in ((1, 900.0), (3, 700.0))
        for row in simulated.sweep([k], trials=3, writes=20, cost_ms=cost_ms)
    ]
    return _sweep(folder, rows, ack="fsync", planned_trials=6)


def _quicker(folder: Path) -> dict[str, str]:
    """More cells than there is room for, quicker by a little to a lot, beside a calibration."""
    base, new = [], []
    for ack, share in (("memory", 0.9), ("fsync", 0.3)):
        for k in range(7):
            cost_ms = 200.0 * (k + 1)
            base += simulated.sweep([k], trials=2, n=7, cost_ms=cost_ms, ack=ack)
            new += simulated.sweep([k], trials=2, n=7, cost_ms=share * cost_ms, seed=2, ack=ack)
    base += simulated.sweep([7], trials=2, n=7, rate=2_500.0)
    new += simulated.sweep([7], trials=2, n=7, users=3, rate=None)
    new = [row | {"achieved_rate": row["achieved_rate"] * 1.5} for row in new]
    floor = NoiseFloor(
        created_at="2025-06-01T11:00:00Z",
        machine=simulated.manifest()["machine"],
        seed=1,
        runs=["writes/a", "writes/b"],
        conditions={"trials": 3, "acks": ["memory"]},
        percent={1: dict.fromkeys(FIGURES, 4.0), 2: dict.fromkeys(FIGURES, 16.0)},
    )
    return _compared(folder, base, new, floor)


def _same(folder: Path) -> dict[str, str]:
    """A run beside itself."""
    rows = simulated.sweep([0, 3], trials=3)
    return _compared(folder, rows, rows, names=("base", "base"))


def _unlike(folder: Path) -> dict[str, str]:
    """Runs without a cell in common, of other settings."""
    new = simulated.sweep([1], rate=200.0, delay_ms=(0.0, 5.0), delay_model="fifo")
    return _compared(folder, simulated.sweep([1]), new)


def _compared(
    folder: Path,
    base: list[dict[str, Any]],
    new: list[dict[str, Any]],
    floor: NoiseFloor | None = None,
    names: tuple[str, str] = ("base", "new"),
) -> dict[str, str]:
    runs = [
        read_run(simulated.write_run(folder.parent / name, rows, run=f"writes/{name}"))
        for name, rows in zip(names, (base, new), strict=True)
    ]
    comparison = compare(*runs, floor)
    folder.mkdir()
    write_comparison(comparison, runs[1], folder)
    shown = {f"{width}.txt": _printed(print_comparison, width, comparison) for width in WIDTHS}
    return {**_written(folder), **shown}


def _keys(count: int) -> list[str]:
    return [f"key{number}" for number in range(count)]


def _histograms(count: int, least_ms: float) -> dict[str, str]:
    values = [least_ms * (1 + number / count) for number in range(count)]
    return {"response": histograms.encode(simulated.histogram_of(values))}


RUNS: Mapping[str, Callable[[Path], dict[str, str]]] = {
    "clean": _clean,
    "troubled": _troubled,
    "single": _single,
    "fifo": _fifo,
    "empty": _empty,
    "saturate": _saturate,
    "compare": _compare,
    "mixed": _mixed,
    "reads": _reads,
    "short": _short,
    "quicker": _quicker,
    "same": _same,
    "unlike": _unlike,
}


# --- their text -------------------------------------------------------------------------------


def _printed(show: Callable[[Console, Any], None], width: int, what: Any) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console, what)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _written(folder: Path) -> dict[str, str]:
    """Returns the files of a folder that are text and were drawn, less what is in others too."""
    inputs = {"manifest.json", "cells.jsonl"}
    return {
        path.name: _plain(path.name, path.read_text(encoding="utf-8"))
        for path in sorted(folder.iterdir())
        if path.suffix in SUFFIXES and path.name not in inputs
    }


def _plain(name: str, text: str) -> str:
    """Returns a file without what is no work of the report: metadata, styles, shapes of letters."""
    if name.endswith(".html"):
        text = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
        text = re.sub(r"<svg.*?</svg>", _labels, text, flags=re.DOTALL)
    if name.endswith(".svg"):
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r' d="([^"]*)"', _extent, text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines() if line.strip())


def _labels(drawing: re.Match[str]) -> str:
    """Returns a drawing within a page by what is said of it: it has a file of its own."""
    return re.sub(r">.*", ">", drawing[0], count=1, flags=re.DOTALL)


def _extent(path: re.Match[str]) -> str:
    values = [float(number) for number in _NUMBER.findall(path[1])]
    if len(values) <= LONG_PATH:
        return path[0].replace("\n", " ")
    xs, ys = values[::2], values[1::2]
    told = (len(xs), xs[0], ys[0], xs[-1], ys[-1], min(xs), max(xs), min(ys), max(ys))
    return f' d="{" ".join(f"{number:g}" for number in told)}"'


def main() -> None:
    """Writes the approved files."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name, text in outputs().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
