"""Writes all outputs of a run: the one way from a run's folder to what a person reads.

Every file is replaced as a whole, so that a reader, or a report that is interrupted, never leaves
half a file behind.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from orchestration.report.hgrm import to_hgrm
from orchestration.report.mark import MADE_BY
from orchestration.report.records import ParityStatus, ReplicaParity, Run, read_run
from orchestration.report.summary import PARITIES, Cell, Summary, summarise, to_json

if TYPE_CHECKING:
    from pathlib import Path

CHART_NAME = "quorum_vs_latency"
SPECTRUM_NAME = "percentile_spectrum"
PERF_SUMMARY_NAME = "perf_summary"


def write_report(run_dir: Path) -> Summary:
    """Draw a run from its ``manifest.json`` and ``cells.jsonl``, and return its summary.

    Args:
        run_dir: Receives ``summary.json``, charts, ``*.hgrm``, ``report.html``, ``report.md``,
            ``summary.md``, ``junit.xml`` and ``perf_summary.json``.

    Raises:
        UnreadableRunError: The folder holds no run; nothing has been written.
    """
    run = read_run(run_dir)
    summary = summarise(run)
    files = _files(run, summary)
    for name, content in files.items():
        replace_file(run_dir / name, content)
    # What an earlier drawing, of fewer trials, could still quote.
    for stale in run_dir.glob("response_*.hgrm"):
        if stale.name not in files:
            stale.unlink()
    return summary


def _files(run: Run, summary: Summary) -> dict[str, bytes]:
    """Return the content of each file of the run's folder by its name."""
    # matplotlib takes half a second to import, which only those who draw should pay.
    from orchestration.report import (  # noqa: PLC0415
        drawing,
        html,
        junit,
        markdown,
        quorum_chart,
        spectrum_chart,
    )

    files = {"summary.json": to_json(summary)}
    figures = {
        CHART_NAME: quorum_chart.draw(run, summary),
        SPECTRUM_NAME: spectrum_chart.draw(run, summary),
    }
    for name, figure in figures.items():
        files[f"{name}.png"] = drawing.to_png(figure)
        files[f"{name}.svg"] = drawing.to_svg(figure)
    for cell in summary.cells:
        if cell.is_quotable:
            histogram = spectrum_chart.response_histogram(run.rows, cell)
            files[f"response_{_file_name(cell, summary)}.hgrm"] = to_hgrm(histogram)
    charts = [files[f"{name}.svg"].decode() for name in figures]
    files["report.html"] = html.render(run, summary, charts).encode()
    files["report.md"] = markdown.render(run, summary, list(figures)).encode()
    files["summary.md"] = markdown.render(run, summary, []).encode()
    files["junit.xml"] = junit.render(run, summary)
    files[f"{PERF_SUMMARY_NAME}.json"] = _pretty(perf_summary(run, summary))
    return files


def _file_name(cell: Cell, summary: Summary) -> str:
    """Return "k3", with what tells the cell from others of the same k: "fsync_k3"."""
    same_k = [other for other in summary.cells if other.k == cell.k]
    parts = [
        cell.ack if len({other.ack for other in same_k}) > 1 else "",
        f"{cell.rate:g}" if cell.rate and len({other.rate for other in same_k}) > 1 else "",
        f"k{cell.k}",
    ]
    return "_".join(filter(None, parts))


def perf_summary(run: Run, summary: Summary) -> dict[str, Any]:
    """Return ``perf_summary.json`` of the original workload; a mean not to be quoted is null."""
    return {
        "leader_url": run.manifest.leader_url,
        "results": [
            {"quorum": cell.k, "avg_latency_ms": cell.response_ms.mean} for cell in summary.cells
        ],
        "parity": [msgspec.to_builtins(replica) for replica in _worst_parity(run)],
        "plot": f"{CHART_NAME}.png",
        "made_by": MADE_BY,
    }


def _worst_parity(run: Run) -> list[ReplicaParity]:
    """Return each replica's worst comparison of all trials."""

    def badness(status: ParityStatus) -> int:
        return PARITIES.index(status)

    worst: dict[str, ReplicaParity] = {}
    for replica in (replica for row in run.rows for replica in row.parity.replicas):
        known = worst.get(replica.url)
        if known is None or badness(replica.status) > badness(known.status):
            worst[replica.url] = replica
    return list(worst.values())


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def replace_file(path: Path, content: bytes) -> None:
    """Write a file as a whole, in place of the one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile, whose files only their owner may read: the user's umask decides.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
