"""Runs that never happened: the rows a sweep would write if only link delays took time.

Each write's wait is the k-th smallest of n drawn delays plus a small cost of the system, so that
what a report should say is known beforehand.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.analysis import histograms
from orchestration.load.results import new_histogram

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hdrh.histogram import HdrHistogram

COST_MS = 0.6
LEADER_URL = "http://127.0.0.1:8000"


def waits_ms(
    rng: np.random.Generator, writes: int, n: int, k: int, delay_ms: tuple[float, float]
) -> np.ndarray:
    """Return so many waits for the k-th of n uniform delays, by sorting."""
    if k == 0:
        return np.zeros(writes)
    return np.sort(rng.uniform(*delay_ms, (writes, n)), axis=1)[:, k - 1]


def histogram_of(values_ms: Iterable[float]) -> HdrHistogram:
    """Return the recorder's histogram of these latencies."""
    histogram = new_histogram()
    for value in values_ms:
        histogram.record_value(max(1, round(value * 1e6)))
    return histogram


@functools.cache  # most tests take the same few trials, and each takes 10 ms
def measured(
    k: int,
    block: int,
    *,
    writes: int,
    n: int,
    delay_ms: tuple[float, float],
    seed: int,
    cost_ms: float,
) -> tuple[tuple[str, dict[str, float | None], str], ...]:
    """Return (name, figures in ms, encoded histogram) of what one trial would have recorded."""
    rng = np.random.default_rng([seed, block, k])
    service = waits_ms(rng, writes, n, k, delay_ms)
    service = service + cost_ms * rng.lognormal(0, 0.3, writes)
    late = rng.exponential(0.05, writes)
    parts = {
        "response": histogram_of(service + late),
        "service": histogram_of(service),
        "send_delay": histogram_of(late),
    }
    return tuple(
        (name, histograms.describe_ms(part), histograms.encode(part))
        for name, part in parts.items()
    )


def trial(
    k: int,
    block: int = 0,
    *,
    writes: int = 400,
    n: int = 5,
    delay_ms: tuple[float, float] | None = (0.0, 100.0),
    seed: int = 1,
    cost_ms: float = COST_MS,
    **changes: Any,
) -> dict[str, Any]:
    """Return one row of ``cells.jsonl``; `changes` replace its fields."""
    parts = measured(
        k, block, writes=writes, n=n, delay_ms=delay_ms or (0, 0), seed=seed, cost_ms=cost_ms
    )
    row = {
        "scenario": "writes",
        "engine": "local",
        "block": block,
        "k": k,
        "rate": 100.0,
        "users": None,
        "seed": seed,
        "warmup_s": 1.0,
        "duration_s": 4.0,
        "delay_ms": delay_ms and list(delay_ms),
        "delay_model": "independent",
        "followers": n,
        "started_at": "2025-06-01T12:00:00Z",
        "offered": writes,
        "dropped": 0,
        "samples": writes,
        "errors": {},
        "measured_s": 4.0,
        "offered_rate": writes / 4,
        "achieved_rate": writes / 4 - 0.2,
        "generator_cpu_share": 0.2,
        **{f"{name}_ms": dict(figures) for name, figures, _ in parts},
        "operations": {
            "write": {
                "ok": writes,
                "errors": {},
                "histograms": {name: text for name, _, text in parts},
            }
        },
        "parity": {
            "status": "match",
            "replicas": [
                {"url": f"http://127.0.0.1:{8001 + i}", "status": "match"} for i in range(n)
            ],
        },
        "stamp": "ok",
        "reason": "",
    }
    return row | changes


def sweep(ks: Iterable[int] = range(6), trials: int = 3, **options: Any) -> list[dict[str, Any]]:
    """Return the rows of a complete sweep, block by block."""
    return [trial(k, block, **options) for block in range(trials) for k in ks]


def manifest(**changes: Any) -> dict[str, Any]:
    """Return the manifest of a complete run of six k and three trials."""
    return {
        "schema": 1,
        "run": "writes/2025-06-01T12-00-00Z",
        "command": ["quorumeter", "sweep", "--k", "0-5"],
        "scenario": {"workload": "writes", "k": [0, 1, 2, 3, 4, 5], "trials": 3, "rate": 100.0},
        "seed": 42,
        "engine": "local",
        "followers": 5,
        "ack": "memory",
        "leader_url": LEADER_URL,
        "versions": {"quorumeter": "0.1.0", "python": "3.11.9"},
        "machine": {
            "cpu": "Simulated CPU @ 2.0 GHz",
            "cores": 2,
            "kernel": "Linux 6.1",
            "memory_gib": 8.0,
            "python": "3.11.9",
        },
        "started_at": "2025-06-01T12:00:00Z",
        "finished_at": "2025-06-01T12:01:40Z",
        "status": "complete",
        "planned_trials": 18,
    } | changes


def write_run(folder: Path, rows: Iterable[dict[str, Any]], **changes: Any) -> Path:
    """Write a run's two files and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest(**changes)), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "cells.jsonl").write_text(lines, encoding="utf-8")
    return folder
