"""The main job as a user runs it: sweeps that end well, are disturbed, or are stopped."""

from __future__ import annotations

import json
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from orchestration.analysis.fifo import FifoQuorumWait
from orchestration.analysis.theory import QuorumWait
from tests.cluster.nodes import wait_until
from tests.cluster.tool import Tool, assert_told, calmly, rows_of, run_folder, wait_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.nodes import MakeCluster

# macOS cannot give a process cores of its own.
PIN = () if sys.platform == "darwin" else ("--pin",)
SHORT = ("--trials", "1", "--warmup", "100ms", "--duration", "500ms")


@pytest.fixture
def tool(tmp_path: Path) -> Iterator[Tool]:
    """The command; whatever a test did, none of its processes may be left."""
    tool = Tool(tmp_path)
    yield tool
    left = tool.processes()
    for process in left:
        process.kill()
    assert not left


def assert_no_external_reference(page: str) -> None:
    """A page loads nothing from elsewhere."""
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)


@pytest.mark.alone
def test_sweep_to_its_end_leaves_a_complete_report(tool: Tool, tmp_path: Path) -> None:
    """A sweep writes every output that is promised, and says what it found."""
    arguments = ("sweep", "--k", "0,2", "--followers", "3", "--delay", "30:40", "--trials", "2",
                 "--warmup", "200ms", "--duration", "600ms", "--rate", "200", "--seed", "5",
                 "--locust-html", "--out")  # fmt: skip
    done, out = calmly(lambda out: tool.run(*arguments, out), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "k=2 costs +" in done.stdout
    run = run_folder(out)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["verdict"] == "valid"
    assert summary["status"] == "complete"
    assert (summary["seed"], summary["followers"], summary["ack"]) == (5, 3, "memory")
    assert [cell["k"] for cell in summary["cells"]] == [0, 2]
    theory_ms = {0: 0, 2: 35}  # the second of three in 30:40
    for cell in summary["cells"]:
        assert cell["stamp"] == "ok", cell
        assert cell["parity"] == "match"
        assert cell["errors"] == {}
        assert cell["trials"] == 2
        assert cell["samples"] == 240
        assert cell["theory_ms"]["mean"] == pytest.approx(theory_ms[cell["k"]])
        assert abs(cell["response_ms"]["mean"] - cell["theory_ms"]["mean"]) < 20
        assert cell["response_ms"]["ci95"]["p50"] is not None
    for name in (
        "manifest.json", "cells.jsonl", "timeline.csv", "report.html", "report.md",
        "quorum_vs_latency.png", "quorum_vs_latency.svg", "response_k0.hgrm", "response_k2.hgrm",
        "nodes/leader.log", "nodes/follower3.log", "trials/block0-k0-memory/locust.html",
        "trials/block1-k2-memory/locust_stats.csv",
    ):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    assert_no_external_reference((run / "report.html").read_text())
    assert (out / "latest").resolve() == run.resolve()
    assert (out / "quorum_vs_latency.png").read_bytes()[:4] == b"\x89PNG"
    perf = json.loads((out / "perf_summary.json").read_text())
    assert [result["quorum"] for result in perf["results"]] == [0, 2]
    for result, cell in zip(perf["results"], summary["cells"], strict=True):
        assert result["avg_latency_ms"] == pytest.approx(cell["response_ms"]["mean"], rel=0.01)
    assert [entry["status"] for entry in perf["parity"]] == ["match"] * 3
    tool.assert_nothing_left()

    before = (run / "summary.json").read_bytes()
    (run / "report.html").unlink()
    assert tool.run("report", run).returncode == 0
    assert (run / "report.html").is_file()
    assert (run / "summary.json").read_bytes() == before


@pytest.mark.parametrize("model", ["independent", "fifo"])
def test_sweep_of_a_delay_model_lies_beside_its_own_theory(
    tool: Tool, tmp_path: Path, model: str
) -> None:
    """K=1 of 5 waits 33 ms where entries overtake each other, and 95 ms in order; each its own.

    The median lies nearer to the theory of its own model than to that of the other one, which
    holds on a busy machine too.
    """
    out = tmp_path / "out"
    done = tool.run("sweep", "--k", "1", "--delay", "0:200", "--delay-model", model, "--rate", "50",
                    "--trials", "1", "--warmup", "300ms", "--duration", "3",
                    "--out", out)  # fmt: skip
    assert_told(done.returncode, out)
    [row] = rows_of(out)
    assert (row["delay_model"], row["delay_ms"]) == (model, [0, 200])
    waits = {
        "independent": QuorumWait(5, 1, 0.0, 200.0),
        "fifo": FifoQuorumWait(5, 1, 0.0, 200.0, spacing_ms=1_000 / 50),
    }
    [cell] = json.loads((run_folder(out) / "summary.json").read_text())["cells"]
    assert cell["theory_ms"]["mean"] == pytest.approx(waits[model].mean_ms)
    medians_ms = {name: wait.percentiles_ms([50])[0] for name, wait in waits.items()}
    measured_ms = row["response_ms"]["p50"]
    nearest = min(medians_ms, key=lambda name: abs(medians_ms[name] - measured_ms))
    assert nearest == model, (measured_ms, medians_ms)
    manifest = json.loads((run_folder(out) / "manifest.json").read_text())
    assert manifest["scenario"]["delay_model"] == manifest["delay_model"] == model
    assert f"uniform, {model}" in (run_folder(out) / "report.md").read_text()


def test_sweep_with_json_prints_the_summary_and_nothing_else(tool: Tool, tmp_path: Path) -> None:
    """Data goes to stdout; stderr has a line only if the exit code is not 0."""
    done = tool.run("sweep", "--k", "1", "--followers", "1", "--delay", "0:1", *SHORT,
                    "--json", "--quiet", "--out", tmp_path / "out")  # fmt: skip
    assert_told(done.returncode, tmp_path / "out")
    assert json.loads(done.stdout)["cells"][0]["k"] == 1
    assert done.stderr.count("\n") == (done.returncode != 0)


@pytest.mark.parametrize(
    ("stop", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_sweep_stopped_half_way_leaves_a_report_and_no_process(
    tool: Tool, tmp_path: Path, stop: signal.Signals, exit_code: int
) -> None:
    """Stopped in mid-trial, a sweep ends its nodes and load, and reports what it has."""
    out = tmp_path / "out"
    arguments = ("sweep", "--k", "0-3", "--followers", "3", *SHORT, "--out", out)
    with tool.started(*arguments) as process:
        wait_rows(out, 1)
        wait_until(lambda: tool.processes("locust"), "the next trial is under way")
        process.send_signal(stop)
        process.send_signal(stop)  # an impatient user, or nox
        output, _ = process.communicate(timeout=30)
    assert process.returncode == exit_code, output
    assert f"quorumeter sweep --resume {run_folder(out)}" in output
    tool.assert_nothing_left()
    run = run_folder(out)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert 1 <= summary["trials_done"] == len(rows_of(out)) < summary["planned_trials"] == 4
    assert "interrupted" in (run / "report.html").read_text().lower()


def test_sweep_that_was_stopped_is_finished_by_resume(tool: Tool, tmp_path: Path) -> None:
    """Only what is missing is measured, in the order and with the seeds of the first plan."""
    out = tmp_path / "out"
    arguments = ("sweep", "--k", "0-1", "--followers", "2", *SHORT, *PIN, "--out", out)
    with tool.started(*arguments) as process:
        wait_rows(out, 1)
        locust = wait_until(lambda: tool.processes("locust"), "the next trial is under way")
        if PIN:
            cores = [set(each.cpu_affinity()) for each in (tool.node("leader"), locust[0])]
            assert not set.intersection(*cores)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    first = rows_of(out)
    done = tool.run("sweep", "--resume", run_folder(out))
    assert_told(done.returncode, out)
    rows = rows_of(out)
    assert rows[: len(first)] == first
    assert sorted(row["k"] for row in rows) == [0, 1]
    assert len({row["seed"] for row in rows}) == 1
    summary = json.loads((run_folder(out) / "summary.json").read_text())
    assert (summary["status"], summary["missing"]) == ("complete", None)
    assert tool.run("sweep", "--resume", run_folder(out), "--trials", "2").returncode == 64
    tool.assert_nothing_left()


def test_sweep_whose_parent_is_killed_ends_by_itself(tool: Tool, tmp_path: Path) -> None:
    """When the shell or nox that runs a sweep is killed, nothing stays behind."""
    out = tmp_path / "out"
    sweep = tool.command("sweep", "--k", "0-2", "--followers", "2", *SHORT, "--out", out)
    parent = Tool(tmp_path, tool.mark)
    script = f"import subprocess, sys; sys.exit(subprocess.call({sweep!r}))"
    parent.command = lambda *_: [sweep[0], "-c", script]  # type: ignore[method-assign]
    with parent.started() as process:
        wait_rows(out, 1)
        process.kill()
        process.wait(timeout=10)
        wait_until(lambda: not tool.processes(), "all has ended", 20)
    assert json.loads((run_folder(out) / "summary.json").read_text())["status"] == "interrupted"


def test_follower_killed_and_restarted_in_mid_sweep_does_not_end_it(
    tool: Tool, tmp_path: Path, make_cluster: MakeCluster
) -> None:
    """A sweep on a cluster that loses a follower for a while goes on, and parity holds at last."""
    cluster = make_cluster(3, 2)
    cluster.wait_connected()
    out = tmp_path / "out"
    arguments = ("sweep", "--attach", cluster.leader.url, "--k", "1", "--trials", "3",
                 "--warmup", "200ms", "--duration", "1.3s", "--out", out)  # fmt: skip
    with tool.started(*arguments) as process:
        wait_rows(out, 1)
        wait_until(lambda: tool.processes("locust"), "the second trial is under way")
        cluster.followers[0].kill()
        cluster.start("follower1")
        output, _ = process.communicate(timeout=60)
    assert_told(process.returncode, out)
    rows = rows_of(out)
    assert len(rows) == 3, output
    assert [row["parity"]["status"] for row in rows] == ["match"] * 3
    assert rows[0]["errors"] == rows[2]["errors"] == {}


@pytest.mark.alone
def test_leader_frozen_for_a_second_shows_in_response_time(tool: Tool, tmp_path: Path) -> None:
    """A stall of the store is in the response-time p99, and the cell stays ok."""
    arguments = ("sweep", "--k", "1", "--followers", "2", "--delay", "0:1", "--trials", "1",
                 "--warmup", "500ms", "--duration", "3s", "--rate", "200", "--out")  # fmt: skip

    def measure(out: Path) -> tuple[int, str]:
        with tool.started(*arguments, out) as process:
            leader = tool.node("leader")
            timeline = wait_until(lambda: list(out.glob("*/*/trials/*/timeline-0.csv")), "load")
            wait_until(lambda: len(timeline[0].read_text().splitlines()) > 1, "it is warm")
            leader.suspend()
            with pytest.raises(Exception, match="timed out"):
                process.wait(timeout=1.0)  # a second of frozen time, while the sweep runs on
            leader.resume()
            output, _ = process.communicate(timeout=60)
            return process.returncode, output

    (exit_code, output), out = calmly(measure, tmp_path)
    assert exit_code == 0, output
    row = rows_of(out)[0]
    assert row["stamp"] == "ok"
    assert row["response_ms"]["p99"] > 700
    assert row["response_ms"]["max"] > 950
    assert row["samples"] == row["offered"] == 600
    # What clients who wait for their answers would have told: one slow write each, of some hundred.
    assert row["uncorrected_ms"]["p99"] < 0.5 * row["response_ms"]["p99"]
    assert "p99 uncorrected" in (run_folder(out) / "report.html").read_text()


def test_leader_killed_in_mid_sweep_ends_it_with_a_report(tool: Tool, tmp_path: Path) -> None:
    """Without its leader a sweep cannot go on: it says so, reports, and leaves nothing."""
    out = tmp_path / "out"
    with tool.started("sweep", "--k", "0-2", "--followers", "2", *SHORT, "--out", out) as process:
        wait_rows(out, 1)
        wait_until(lambda: tool.processes("locust"), "the next trial is under way")
        tool.node("leader").kill()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert "leader is gone" in output
    tool.assert_nothing_left()
    assert json.loads((run_folder(out) / "summary.json").read_text())["status"] == "failed"


def test_attached_sweep_leaves_quorum_and_delays_as_they_were(
    tool: Tool, tmp_path: Path, make_cluster: MakeCluster
) -> None:
    """A cluster that was there before is used, and left as it was found."""
    cluster = make_cluster(2, 2, MAX_DELAY_MS="7")
    cluster.wait_connected()
    for extra in ((), ("--delay", "0:3")):
        out = tmp_path / f"out{len(extra)}"
        done = tool.run("sweep", "--attach", cluster.leader.url, "--k", "1", *SHORT, *extra,
                        "--out", out)  # fmt: skip
        assert_told(done.returncode, out)
        url = cluster.leader.url
        assert cluster.client.get(f"{url}/admin/quorum").json()["write_quorum"] == 2
        assert cluster.client.get(f"{url}/admin/delays").json()["max_delay_ms"] == 7
    assert rows_of(tmp_path / "out0")[0]["delay_ms"] == [0, 7]
    assert rows_of(tmp_path / "out2")[0]["delay_ms"] == [0, 3]


def test_mixed_workload_reports_reads_beside_writes(tool: Tool, tmp_path: Path) -> None:
    """Reads and writes are counted apart; the headline is the writes'."""
    out = tmp_path / "out"
    done = tool.run("sweep", "--workload", "mixed", "--k", "1", "--followers", "2", "--delay",
                    "0:1", *SHORT, "--rate", "200", "--out", out)  # fmt: skip
    assert_told(done.returncode, out)
    operations = rows_of(out)[0]["operations"]
    assert operations["read"]["ok"] > 0
    assert operations["write"]["ok"] > 0
    assert operations["read"]["ok"] + operations["write"]["ok"] == 100


def test_original_workload_honours_its_variables(
    tool: Tool, tmp_path: Path, make_cluster: MakeCluster
) -> None:
    """The original's environment variables drive the seed workload, against a running cluster."""
    cluster = make_cluster(3, 1, MAX_DELAY_MS="20")
    cluster.wait_connected()
    done = tool.run(
        "sweep",
        "--workload",
        "seed",
        SPAWN_CLUSTER="false",
        LEADER_URL=cluster.leader.url,
        FOLLOWER_URLS=",".join(node.url for node in cluster.followers),
        QUORUM_VALUES="1,3",
        TOTAL_WRITES="50",
        WRITE_CONCURRENCY="5",
        KEY_COUNT="4",
        REPORT_DIR=str(tmp_path / "seed"),
    )
    assert_told(done.returncode, tmp_path / "seed")
    rows = rows_of(tmp_path / "seed")
    assert sorted(row["k"] for row in rows) == [1, 3]
    assert [row["samples"] for row in rows] == [50, 50]
    # And the records of the changes of k.
    assert 100 < cluster.links()["last_seq"] <= 100 + 2 * 3
    assert len(cluster.client.get(f"{cluster.leader.url}/dump").json()) == 4
    perf = json.loads((tmp_path / "seed" / "perf_summary.json").read_text())
    assert perf["leader_url"] == cluster.leader.url
    assert [result["quorum"] for result in perf["results"]] == [1, 3]
    assert {entry["status"] for entry in perf["parity"]} == {"match"}
