"""The search for the highest rate, with real nodes and a real load."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.tool import Tool, rows_of, run_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tool(tmp_path: Path) -> Iterator[Tool]:
    """The command; whatever a test did, none of its processes is left."""
    tool = Tool(tmp_path)
    yield tool
    tool.assert_nothing_left()


def test_search_for_what_no_store_can_do_ends_at_the_lowest_rate(
    tool: Tool, tmp_path: Path
) -> None:
    """No answer takes less than a microsecond: two rates, two trials each, a report, and 0."""
    out = tmp_path / "out"
    done = tool.run("saturate", "--slo", "p99 < 1us", "--k", "1", "--followers", "1",
                    "--delay", "0:1", "--start", "400", "--warmup", "100ms",
                    "--duration", "300ms", "--seed", "3", "--out", out)  # fmt: skip
    run = run_folder(out)
    found = json.loads((run / "saturation.json").read_text())
    rows = rows_of(out)
    assert found["status"] == "complete"
    assert found["trials_done"] == len(rows)
    assert {row["rate"] for row in rows} <= {364.7, 400.0}
    assert {row["parity"]["status"] for row in rows} == {"match"}
    assert [row["block"] for row in rows] == list(range(len(rows)))
    (result,) = found["results"]
    # A machine without a core to spare makes it unknown, which is told as well.
    assert result["found"] in {"none", "unknown"}
    assert done.returncode == {"none": 0, "unknown": 2}[result["found"]], done.stderr
    assert found["sentence"] in " ".join(done.stdout.split())
    for name in ("manifest.json", "timeline.csv", "report.html", "summary.md",
                 "throughput_vs_latency.png", "nodes/leader.log"):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    assert (run / "trials" / "block0-k1-memory-rate400" / "locust_stats.csv").is_file()
    assert (out / "latest").resolve() == run.resolve()
