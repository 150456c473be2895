"""A sweep on a fake cluster: what is written, whatever happens."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestration.clusters.group import ClusterGroup
from orchestration.control import Control
from orchestration.errors import ClusterError, UsageError
from orchestration.interrupt import Interrupted
from orchestration.load.results import (
    QUANTITIES,
    OperationResult,
    TimelineRow,
    TrialResult,
    new_histogram,
)
from orchestration.loadgen import LoadgenError
from orchestration.manifest import RunFolder, create_run_folder, start_manifest, write_manifest
from orchestration.progress import Progress
from orchestration.report.records import read_run
from orchestration.resume import open_run
from orchestration.scenario import Cell, Scenario, plan
from orchestration.sweep import Ending, Sweep

LEADER, FOLLOWER = "http://leader", "http://follower"
LINK = {
    "node_id": "follower",
    "epoch": 1,
    "contiguous": 0,
    "max_seq": 0,
    "holes": 0,
    "connected": True,
    "learner": False,
    "detail": "",
}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SCENARIO = Scenario(
    workload="writes",
    engine="local",
    followers=1,
    quorums=(0, 1),
    trials=2,
    warmup_s=1.0,
    duration_s=4.0,
    rate_per_s=100.0,
    users=None,
    total_writes=None,
    keys=None,
    delay_ms=(0.0, 10.0),
    seed=1,
)


class FakeCluster:
    """A leader and a follower behind a transport, which notes what is done to it."""

    engine = "local"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.quorums: list[int] = []
        self.is_leader_alive = True
        self.durable = {"leader": True, "follower": True}

    @property
    def leader_url(self) -> str:
        """The leader."""
        return LEADER

    @property
    def follower_urls(self) -> dict[str, str]:
        """The follower."""
        return {FOLLOWER: FOLLOWER}

    def start(self) -> None:
        """Note it."""
        self.calls.append("start")

    def stop(self) -> None:
        """Note it."""
        self.calls.append("stop")

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What the node at the request's URL says."""
        path = request.url.path
        if not self.is_leader_alive and request.url.host == "leader":
            raise httpx.ConnectError("refused", request=request)
        if path == "/admin/quorum":
            self.quorums.append(json.loads(request.content)["write_quorum"])
        bodies: dict[str, dict[str, Any]] = {
            "/admin/delays": {
                "min_delay_ms": 0.0,
                "max_delay_ms": 10.0,
                "delay_model": "independent",
            },
            "/admin/links": {
                "epoch": 1,
                "last_seq": 0,
                "stable_seq": 0,
                "links": {FOLLOWER: LINK | {"durable": self.durable["follower"]}},
            },
            "/health": {"durable": self.durable["leader"]},
        }
        return httpx.Response(200, json=bodies.get(path, {}))


def good_result() -> TrialResult:
    """400 writes of 1 ms each."""
    histograms = {name: new_histogram() for name in QUANTITIES}
    for name, value_ns in zip(QUANTITIES, (1_000_000, 900_000, 100_000, 900_000), strict=True):
        histograms[name].record_value(value_ns, 400)
    return TrialResult(
        operations={"write": OperationResult(ok=400, errors={}, histograms=histograms)},
        offered=400,
        dropped=0,
        unfinished=0,
        measured_s=4.0,
        generator_cpu_share=0.1,
        ended_early=False,
        ok_in_window=400,
    )


def run_sweep(
    tmp_path: Path, cluster: FakeCluster, trial: Callable[[int], TrialResult]
) -> tuple[Ending, RunFolder]:
    """A sweep whose i-th trial gives ``trial(i)``."""
    run = create_run_folder(tmp_path, "writes", NOW)
    manifest = start_manifest(run, SCENARIO, command=["quorumeter"], planned_trials=4, now=NOW)
    return carry_on(run, manifest, cluster, trial), run


def carry_on(
    run: RunFolder,
    manifest: dict[str, Any],
    cluster: FakeCluster,
    trial: Callable[[int], TrialResult],
    done: tuple[Cell, ...] = (),
) -> Ending:
    """A sweep that leaves out what is done; its i-th trial gives ``trial(i)``."""
    count = iter(range(100))

    def run_trial(
        cell: Cell, leader_url: str, folder: Path, on_row: Callable[[TimelineRow], None]
    ) -> TrialResult:
        del cell, leader_url, folder, on_row
        return trial(next(count))

    with Control(transport=httpx.MockTransport(cluster.answer)) as control:
        return Sweep(
            SCENARIO,
            ClusterGroup({"memory": cluster}),
            run,
            manifest,
            run_trial=run_trial,
            control=control,
            progress=Progress(),
            done=done,
            now=lambda: NOW,
        ).execute()


def rows(run: RunFolder) -> list[dict[str, Any]]:
    """What is in cells.jsonl."""
    path = run.path / "cells.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def manifest(run: RunFolder) -> dict[str, Any]:
    """What is in manifest.json."""
    return json.loads((run.path / "manifest.json").read_text())


def test_a_sweep_measures_every_cell_in_the_order_of_its_plan(tmp_path: Path) -> None:
    """One row a cell, with k set before it, and the cluster stopped at the end."""
    cluster = FakeCluster()
    ending, run = run_sweep(tmp_path, cluster, lambda _: good_result())
    cells = plan(SCENARIO)
    assert ending == Ending("complete", 4)
    assert [(row["block"], row["k"]) for row in rows(run)] == [(c.block, c.k) for c in cells]
    assert cluster.quorums == [cell.k for cell in cells]
    assert cluster.calls == ["start", "stop"]


def test_a_row_holds_what_was_measured(tmp_path: Path) -> None:
    """Counts, rates, blocks in ms, parity and stamp."""
    _, run = run_sweep(tmp_path, FakeCluster(), lambda _: good_result())
    row = rows(run)[0]
    assert row["response_ms"]["p50"] == pytest.approx(1.0, rel=0.001)
    assert row["service_ms"]["mean"] == pytest.approx(0.9, rel=0.001)
    assert row["send_delay_ms"]["max"] == pytest.approx(0.1, rel=0.001)
    assert (row["samples"], row["offered_rate"], row["achieved_rate"]) == (400, 100.0, 100.0)
    assert (row["stamp"], row["reason"], row["errors"]) == ("ok", "", {})
    assert row["delay_ms"] == [0.0, 10.0]
    assert row["parity"] == {
        "status": "match",
        "replicas": [{"url": FOLLOWER, "status": "match"}],
    }


def test_a_complete_manifest_says_what_the_run_was(tmp_path: Path) -> None:
    """Run, seed, leader, times, machine and versions."""
    _, run = run_sweep(tmp_path, FakeCluster(), lambda _: good_result())
    found = manifest(run)
    assert found["run"] == "writes/20260102T030405Z"
    assert (found["status"], found["planned_trials"], found["seed"]) == ("complete", 4, 1)
    assert found["leader_url"] == LEADER
    assert found["finished_at"] == "2026-01-02T03:04:05.000Z"
    assert found["machine"]["cores"] >= 1
    assert "locust" in found["versions"]


@pytest.mark.parametrize(
    ("durable", "ack"),
    [
        ({"leader": True, "follower": True}, "fsync"),
        ({"leader": False, "follower": False}, "memory"),
        ({"leader": True, "follower": False}, "mixed"),
    ],
)
def test_a_manifest_says_what_an_acknowledgment_meant(
    tmp_path: Path, durable: dict[str, bool], ack: str
) -> None:
    """It is asked of the nodes, not assumed."""
    cluster = FakeCluster()
    cluster.durable = durable
    _, run = run_sweep(tmp_path, cluster, lambda _: good_result())
    assert manifest(run)["ack"] == ack


def test_an_interrupted_sweep_keeps_its_rows_and_stops_its_cluster(tmp_path: Path) -> None:
    """What was measured stays, and the manifest says that more was planned."""

    def trial(index: int) -> TrialResult:
        if index == 2:
            raise Interrupted(2)
        return good_result()

    cluster = FakeCluster()
    ending, run = run_sweep(tmp_path, cluster, trial)
    assert (ending.status, ending.exit_code, ending.trials_done) == ("interrupted", 130, 2)
    assert len(rows(run)) == 2
    assert manifest(run)["status"] == "interrupted"
    assert cluster.calls[-1] == "stop"


@pytest.mark.parametrize("cut", [b"", b'{"block": 1, "k"'])
def test_a_resumed_sweep_is_the_one_that_was_never_stopped(tmp_path: Path, cut: bytes) -> None:
    """The same cells in the same order, each once, whether or not a line was cut off."""

    def trial(index: int) -> TrialResult:
        if index == 2:
            raise Interrupted(2)
        return good_result()

    _, run = run_sweep(tmp_path, FakeCluster(), trial)
    with (run.path / "cells.jsonl").open("ab") as file:
        file.write(cut)
    job = open_run(run.path)
    assert job.scenario == SCENARIO
    assert job.done == plan(SCENARIO)[:2]
    assert (job.run.path, job.run.root) == (run.path, tmp_path)
    ending = carry_on(job.run, job.manifest, FakeCluster(), lambda _: good_result(), job.done)
    assert ending == Ending("complete", 4)
    assert [(row["block"], row["k"], row["seed"]) for row in rows(run)] == [
        (cell.block, cell.k, cell.seed) for cell in plan(SCENARIO)
    ]
    assert (manifest(run)["status"], len(manifest(run)["resumed_at"])) == ("complete", 1)


def test_a_last_line_without_its_end_is_kept_and_ended(tmp_path: Path) -> None:
    """A cut just before the end of a line must not make the next one run into it."""

    def trial(index: int) -> TrialResult:
        if index == 2:
            raise Interrupted(2)
        return good_result()

    _, run = run_sweep(tmp_path, FakeCluster(), trial)
    path = run.path / "cells.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    job = open_run(run.path)
    assert len(job.done) == 2
    carry_on(job.run, job.manifest, FakeCluster(), lambda _: good_result(), job.done)
    assert len(rows(run)) == 4


def test_a_cluster_that_has_changed_does_not_finish_a_run(tmp_path: Path) -> None:
    """Trials from memory and from disk in one cell would be averaged."""
    cluster = FakeCluster()

    def trial(index: int) -> TrialResult:
        if index == 1:
            raise Interrupted(2)
        return good_result()

    _, run = run_sweep(tmp_path, cluster, trial)
    job = open_run(run.path)
    cluster.durable = {"leader": False, "follower": False}
    ending = carry_on(job.run, job.manifest, cluster, lambda _: good_result(), job.done)
    assert ending.status == "failed"
    assert "not the one that the run began with" in ending.message
    assert manifest(run)["ack"] == "fsync"
    assert len(rows(run)) == 1


def test_what_a_run_did_not_note_of_its_cluster_has_not_changed(tmp_path: Path) -> None:
    """A run that began before the delay model was noted can be finished."""

    def trial(index: int) -> TrialResult:
        if index == 1:
            raise Interrupted(2)
        return good_result()

    _, run = run_sweep(tmp_path, FakeCluster(), trial)
    found = manifest(run)
    del found["delay_model"]
    (run.path / "manifest.json").write_text(json.dumps(found))
    job = open_run(run.path)
    ending = carry_on(job.run, job.manifest, FakeCluster(), lambda _: good_result(), job.done)
    assert ending.status == "complete"


@pytest.mark.parametrize("part", ["locust", "python"])
def test_a_run_of_other_versions_is_not_resumed(tmp_path: Path, part: str) -> None:
    """What measures has changed, and so may what it measures."""
    _, run = run_sweep(tmp_path, FakeCluster(), lambda _: good_result())
    found = manifest(run)
    found["machine" if part == "python" else "versions"][part] = "0"
    (run.path / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(UsageError, match=part):
        open_run(run.path)


def test_a_run_of_another_machine_is_not_resumed(tmp_path: Path) -> None:
    """Trials of two machines in one run would be compared as if they were of one."""
    _, run = run_sweep(tmp_path, FakeCluster(), lambda _: good_result())
    found = manifest(run)
    found["machine"]["cores"] += 1
    (run.path / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(UsageError, match="another machine"):
        open_run(run.path)


@pytest.mark.parametrize("damage", ["{", '{"run": "x"}', None])
def test_what_is_no_run_is_not_resumed(tmp_path: Path, damage: str | None) -> None:
    """A wrong folder is one sentence, and nothing in it changes."""
    if damage is not None:
        (tmp_path / "manifest.json").write_text(damage)
    with pytest.raises(UsageError, match="cannot be resumed"):
        open_run(tmp_path)


def test_a_trial_that_the_generator_could_not_run_is_invalid(tmp_path: Path) -> None:
    """Its row says why, and the sweep goes on."""

    def trial(index: int) -> TrialResult:
        if index == 0:
            raise LoadgenError("Locust ended with exit code 1", tmp_path / "locust.log")
        return good_result()

    ending, run = run_sweep(tmp_path, FakeCluster(), trial)
    first, second, *_ = rows(run)
    assert ending.status == "complete"
    assert (first["stamp"], first["reason"]) == ("invalid", "Locust ended with exit code 1")
    assert first["response_ms"]["p50"] is None
    assert second["stamp"] == "ok"


def test_a_leader_that_dies_ends_the_sweep_with_a_sentence(tmp_path: Path) -> None:
    """The trial in which it died is written down; the exit code is 2."""
    cluster = FakeCluster()

    def trial(index: int) -> TrialResult:
        cluster.is_leader_alive = index < 1
        return good_result()

    ending, run = run_sweep(tmp_path, cluster, trial)
    assert (ending.status, ending.exit_code) == ("failed", 2)
    assert "leader is gone" in ending.message
    assert [row["stamp"] for row in rows(run)] == ["ok", "invalid"]
    assert cluster.calls == ["start", "stop"]


def test_the_trial_in_which_the_leader_died_is_measured_again(tmp_path: Path) -> None:
    """Its row would keep its k from being quoted for ever; the others stay."""
    cluster = FakeCluster()

    def trial(index: int) -> TrialResult:
        cluster.is_leader_alive = index < 1
        return good_result()

    _, run = run_sweep(tmp_path, cluster, trial)
    job = open_run(run.path)
    assert job.done == plan(SCENARIO)[:1]
    ending = carry_on(job.run, job.manifest, FakeCluster(), lambda _: good_result(), job.done)
    assert ending.status == "complete"
    assert [(row["block"], row["k"], row["stamp"]) for row in rows(run)] == [
        (cell.block, cell.k, "ok") for cell in plan(SCENARIO)
    ]


def test_a_violation_is_not_measured_away(tmp_path: Path) -> None:
    """That replicas differed after a trial stays, even where the run broke off with it."""
    cluster = FakeCluster()

    def trial(index: int) -> TrialResult:
        cluster.is_leader_alive = index < 1
        return good_result()

    _, run = run_sweep(tmp_path, cluster, trial)
    first, last = rows(run)
    last["parity"]["status"] = "mismatch"
    (run.path / "cells.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(last)}\n")
    assert len(open_run(run.path).done) == 2


def test_an_invalid_trial_of_a_run_that_ended_well_stays(tmp_path: Path) -> None:
    """Only what broke a run off spoilt its last trial."""

    def trial(index: int) -> TrialResult:
        if index == 3:
            raise LoadgenError("Locust ended with exit code 1")
        return good_result()

    _, run = run_sweep(tmp_path, FakeCluster(), trial)
    assert len(open_run(run.path).done) == 4


@pytest.mark.parametrize("missing", ["machine", "versions", "scenario"])
def test_a_manifest_that_lacks_a_part_is_not_resumed(tmp_path: Path, missing: str) -> None:
    """A sentence, and nothing in the folder changes."""
    _, run = run_sweep(tmp_path, FakeCluster(), lambda _: good_result())
    found = manifest(run)
    del found[missing]
    (run.path / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(UsageError, match=f"cannot be resumed: .*{missing}"):
        open_run(run.path)


def test_a_folder_of_the_users_is_not_taken_for_the_nodes_data(tmp_path: Path) -> None:
    """What lies in the place of the nodes' data, and was not made here, is never removed."""
    run = create_run_folder(tmp_path, "writes", NOW)
    run.node_data.mkdir()
    (run.node_data / "analysis.csv").write_text("mine")
    run.remove_node_data()
    assert (run.node_data / "analysis.csv").read_text() == "mine"
    other = create_run_folder(tmp_path, "writes", NOW)
    (other.make_node_data() / "leader").mkdir()
    other.remove_node_data()
    assert not other.node_data.exists()


def test_a_cluster_that_does_not_start_is_stopped_all_the_same(tmp_path: Path) -> None:
    """Half a cluster is no reason to leave processes behind."""

    class Failing(FakeCluster):
        def start(self) -> None:
            super().start()
            raise ClusterError("no node came up")

    cluster = Failing()
    ending, run = run_sweep(tmp_path, cluster, lambda _: good_result())
    assert (ending.status, ending.message) == ("failed", "no node came up")
    assert manifest(run)["status"] == "failed"
    assert cluster.calls == ["start", "stop"]


def test_what_is_left_of_a_cluster_is_told_beside_how_the_sweep_ended(tmp_path: Path) -> None:
    """It spoils no measurement, and takes the place of no other message."""

    class Stuck(FakeCluster):
        def stop(self) -> None:
            super().stop()
            raise ClusterError("Containers are left.")

    ending, run = run_sweep(tmp_path, Stuck(), lambda _: good_result())
    assert (ending.status, ending.exit_code) == ("complete", None)
    assert ending.message == manifest(run)["message"] == "Containers are left."

    def interrupted(_: int) -> TrialResult:
        raise Interrupted(signal.SIGINT)

    ending, _ = run_sweep(tmp_path, Stuck(), interrupted)
    assert (ending.status, ending.exit_code) == ("interrupted", 130)
    assert ending.message == (
        "The run was stopped by SIGINT: 0 trials of it are finished. Containers are left."
    )


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    """No run overwrites another."""
    names = {create_run_folder(tmp_path, "writes", NOW).name for _ in range(3)}
    assert names == {f"writes/20260102T030405Z{suffix}" for suffix in ("", "-2", "-3")}


def test_a_command_that_is_no_text_leaves_a_manifest_that_can_be_read(tmp_path: Path) -> None:
    """A path of any bytes may be named; JSON holds text alone, and the run could not be drawn."""
    run = create_run_folder(tmp_path, "writes", NOW)
    command = ["quorumeter", "--out", os.fsdecode(b"r\xff")]
    found = start_manifest(run, SCENARIO, command=command, planned_trials=4, now=NOW)
    write_manifest(run, found)
    assert read_run(run.path).manifest.command == [
        "quorumeter",
        "--out",
        "r\N{REPLACEMENT CHARACTER}",
    ]


def test_a_closed_loop_has_users_and_no_rate(tmp_path: Path) -> None:
    """The manifest repeats the kind of load."""
    scenario = replace(SCENARIO, rate_per_s=None, users=4)
    run = create_run_folder(tmp_path, "writes", NOW)
    found = start_manifest(run, scenario, command=[], planned_trials=4, now=NOW)
    assert (found["scenario"]["rate_per_s"], found["scenario"]["users"]) == (None, 4)
