"""A trial's row in ``cells.jsonl``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestration.analysis.histograms import FIGURES, describe_ms
from orchestration.audit import Evidence, audit
from orchestration.load.results import QUANTITIES, OperationResult, TrialResult, new_histogram
from orchestration.load.workload import YCSB
from orchestration.parity import Parity
from orchestration.scenario import Cell, Scenario

# What a quorum costs is the latency of writes; of a workload without them, that of what it has.
HEADLINES = ("write", "read_modify_write", "read")


def cell_row(
    scenario: Scenario,
    cell: Cell,
    result: TrialResult,
    parity: Parity,
    *,
    ack: str,
    delay_ms: tuple[float, float],
    delay_model: str,
    started_at: str,
) -> dict[str, Any]:
    """Everything that a report needs of one trial, as JSON values.

    The blocks ``response_ms``, ``service_ms``, ``send_delay_ms`` and ``uncorrected_ms`` are of one
    operation, the headline; counts and rates are of all.
    """
    samples = sum(operation.ok for operation in result.operations.values())
    headline = headline_of(scenario)
    shown = result.operations.get(headline)
    blocks = {
        f"{name}_ms": describe_ms(shown.histograms[name]) if shown else dict.fromkeys(FIGURES)
        for name in QUANTITIES
    }
    stamp, reason = audit(_evidence(result, parity, samples, blocks["response_ms"]["p50"]))
    return {
        "scenario": scenario.name,
        "workload": scenario.workload,
        "ack": ack,
        "kind": cell.ack,
        "operation": headline,
        "engine": scenario.engine,
        "block": cell.block,
        "k": cell.k,
        "arrivals": scenario.arrivals,
        "rate": cell.rate_per_s or scenario.rate_per_s,
        "users": scenario.users,
        "processes": scenario.processes,
        "seed": cell.seed,
        "warmup_s": scenario.warmup_s,
        "duration_s": scenario.duration_s or 0.0,
        "delay_ms": list(delay_ms),
        "delay_model": delay_model,
        "followers": scenario.followers,
        "started_at": started_at,
        "offered": result.offered,
        "dropped": result.dropped,
        "unfinished": result.unfinished,
        "open_at_start": result.open_at_start,
        "open_at_end": result.open_at_end,
        "seen": shown.histograms["uncorrected"].get_total_count() if shown else 0,
        "samples": samples,
        "errors": _merged_errors(result.operations),
        "measured_s": result.measured_s,
        "offered_rate": result.offered_rate_per_s,
        "achieved_rate": result.ok_rate_per_s,
        "generator_cpu_share": result.generator_cpu_share,
        "generator_lag_ms": result.generator_lag_ms,
        **blocks,
        "operations": {name: part.to_json() for name, part in result.operations.items()},
        "parity": parity.as_dict(),
        "stamp": stamp,
        "reason": reason,
    }


def headline_of(scenario: Scenario) -> str:
    """The operation whose latencies a workload is reported by."""
    if scenario.workload in YCSB:
        # An insert is a write of a new key, and recorded as one.
        shares = YCSB[scenario.workload].shares
        present = {"write" if name == "insert" else name for name in shares}
    else:
        only_reads = scenario.workload == "mixed" and scenario.read_share == 1
        present = {"read"} if only_reads else {"write"}
    return next(name for name in HEADLINES if name in present)


def empty_result() -> TrialResult:
    """The result of a trial whose load process left none."""
    return TrialResult(
        operations={},
        offered=0,
        dropped=0,
        unfinished=0,
        measured_s=0.0,
        generator_cpu_share=0.0,
        ended_early=True,
    )


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append ``row``; it is in the file when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def _evidence(
    result: TrialResult, parity: Parity, samples: int, response_p50_ms: float | None
) -> Evidence:
    lateness, responses = new_histogram(), new_histogram()
    for operation in result.operations.values():
        lateness.add(operation.histograms["send_delay"])
        responses.add(operation.histograms["response"])
    mean_s = (describe_ms(responses)["mean"] or 0.0) / 1_000
    return Evidence(
        offered=result.offered,
        completed=result.completed,
        dropped=result.dropped,
        samples=samples,
        send_delay_p99_ms=describe_ms(lateness)["p99"],
        response_p50_ms=response_p50_ms,
        generator_cpu_share=result.generator_cpu_share,
        generator_lag_ms=result.generator_lag_ms,
        open_at_start=result.open_at_start,
        open_at_end=result.open_at_end,
        usually_open=result.ok_rate_per_s * mean_s,
        has_ended_early=result.ended_early,
        parity=parity.status,
    )


def _merged_errors(operations: Mapping[str, OperationResult]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for operation in operations.values():
        for code, count in operation.errors.items():
            merged[code] = merged.get(code, 0) + count
    return merged
