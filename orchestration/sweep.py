"""Measures every cell of a scenario on one cluster, and writes down each as it ends."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestration.cells import append_row, cell_row, empty_result
from orchestration.clusters.group import ClusterGroup
from orchestration.control import Control
from orchestration.errors import ClusterError, QuorumeterError
from orchestration.exit_codes import ExitCode
from orchestration.interrupt import Interrupted
from orchestration.load.results import TimelineRow, TrialResult
from orchestration.loadgen import LoadgenError
from orchestration.manifest import RunFolder, Status, timestamp, write_manifest
from orchestration.parity import check_parity
from orchestration.progress import Progress
from orchestration.scenario import Cell, Scenario, plan

# Drives the load of a cell against the leader at a URL, leaves its files in a folder, hands on
# each second's row, and returns what was measured; LoadgenError if nothing could be.
TrialRunner = Callable[[Cell, str, Path, Callable[[TimelineRow], None]], TrialResult]


# What trials of one run have in common, and a cluster that was attached may have changed since.
_CLUSTER_FACTS = ("ack", "delay_ms", "delay_model")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a sweep ended.

    Attributes:
        status: complete, interrupted, or failed.
        trials_done: rows in ``cells.jsonl``.
        exit_code: that of the command, or None if the verdict decides.
        message: one sentence for the user, or empty.
    """

    status: Status
    trials_done: int
    exit_code: int | None = None
    message: str = ""


class Sweep:
    """One sweep, from its cluster's start to its end.

    Args:
        scenario: what to measure.
        clusters: where; started and stopped here.
        run: where to write.
        manifest: what is known of the run so far; completed here.
        run_trial: the load generator.
        control: the client for control calls.
        progress: is told what happens.
        done: cells that an earlier part of the run has measured; they are left out.
        held: holds back a stop signal while the cluster is stopped.
        now: time of day.
    """

    def __init__(
        self,
        scenario: Scenario,
        clusters: ClusterGroup,
        run: RunFolder,
        manifest: dict[str, Any],
        *,
        run_trial: TrialRunner,
        control: Control,
        progress: Progress,
        done: Collection[Cell] = (),
        held: Callable[[], AbstractContextManager[None]] = nullcontext,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._scenario = scenario
        self._cluster = clusters
        self._run = run
        self._manifest = manifest
        self._run_trial = run_trial
        self._control = control
        self._progress = progress
        self._held = held
        self._now = now
        self._done = frozenset(done)
        self._trials_done = len(self._done)
        self._left = ""
        self._acks: dict[str, str] = {}
        self._delay_ms = scenario.delay_ms or (0.0, 0.0)
        self._delay_model: str = scenario.delay_model or "independent"

    def execute(self) -> Ending:
        """Run all cells; whatever happens, the cluster is stopped and the manifest is final."""
        write_manifest(self._run, self._manifest)
        ending = Ending(status="failed", trials_done=0, exit_code=ExitCode.INTERNAL)
        try:
            ending = self._measure()
        except Interrupted as interrupt:
            self._stop_cluster()  # again, in case the signal came just before the first
            ending = Ending(
                "interrupted",
                self._trials_done,
                interrupt.exit_code,
                f"The run was {interrupt}: {self._trials_done} trials of it are finished.",
            )
        except QuorumeterError as problem:
            ending = Ending("failed", self._trials_done, problem.exit_code, str(problem))
        finally:
            if self._left:
                ending = replace(ending, message=f"{ending.message} {self._left}".strip())
            with self._held():
                self._finish_manifest(ending)
        return ending

    def _measure(self) -> Ending:
        try:
            self._progress.say(f"Starting the cluster ({self._scenario.engine}).")
            self._cluster.start()
            self._note_cluster()
            self._run_cells()
        finally:
            self._stop_cluster()
        return Ending("complete", self._trials_done)

    def _stop_cluster(self) -> None:
        """Stop it, and note what is left of it: what was measured is not worse for that."""
        self._left = ""
        with self._held():
            try:
                self._cluster.stop()
            except ClusterError as problem:
                self._left = str(problem)

    def _run_cells(self) -> None:
        cells = plan(self._scenario)
        with self._progress.running(len(cells)):
            for index, cell in enumerate(cells):
                if cell in self._done:
                    continue
                row = self._measure_cell(cell, index)
                self._progress.trial_ended(cell, row)
                self._check_leader()

    def _measure_cell(self, cell: Cell, index: int) -> dict[str, Any]:
        """Run one trial and write its row down; a search for a rate does so, too."""
        self._cluster.use(cell.ack)
        self._progress.trial_started(cell, index)
        row = self._run_cell(cell)
        append_row(self._run.path / "cells.jsonl", row)
        self._trials_done += 1
        return row

    def _run_cell(self, cell: Cell) -> dict[str, Any]:
        leader_url = self._cluster.leader_url
        self._control.set_quorum(leader_url, cell.k)
        started_at = timestamp(self._now())
        folder = self._run.trial(cell)
        failure = ""
        try:
            result = self._run_trial(cell, leader_url, folder, self._progress.row)
        except LoadgenError as error:
            self._progress.say(str(error))
            result, failure = empty_result(), error.reason
        self._progress.comparing()
        parity = check_parity(
            self._control,
            leader_url,
            self._cluster.follower_urls,
            longest_delay_ms=self._delay_ms[1],
        )
        row = cell_row(
            self._scenario,
            cell,
            result,
            parity,
            ack=self._acks[cell.ack],
            delay_ms=self._delay_ms,
            delay_model=self._delay_model,
            started_at=started_at,
        )
        return row | {"reason": failure} if failure else row

    def _check_leader(self) -> None:
        try:
            self._control.health(self._cluster.leader_url)
        except ClusterError as problem:
            raise ClusterError(
                f"The leader is gone, so the sweep ends here ({problem}); "
                f"its log may say why: {self._run.node_logs}"
            ) from problem

    def _note_cluster(self) -> None:
        before = {name: self._manifest.get(name) for name in _CLUSTER_FACTS}
        for kind in self._cluster.kinds():
            self._cluster.use(kind)
            self._acks[kind] = self._control.ack(self._cluster.leader_url)
        delays = self._control.delays(self._cluster.leader_url)
        self._delay_ms = (delays.min_delay_ms, delays.max_delay_ms)
        self._delay_model = delays.delay_model
        self._manifest["ack"] = " and ".join(dict.fromkeys(self._acks.values()))
        self._manifest["leader_url"] = self._cluster.leader_url
        self._manifest["follower_urls"] = list(self._cluster.follower_urls.values())
        self._manifest["delay_ms"] = list(self._delay_ms)
        self._manifest["delay_model"] = self._delay_model
        if self._done:
            self._check_same_cluster(before)
        write_manifest(self._run, self._manifest)

    def _check_same_cluster(self, before: dict[str, Any]) -> None:
        """Refuses to go on with a cluster that is not what it was, as an attached one may be."""
        noted = {name: value for name, value in before.items() if value is not None}
        changed = [name for name, value in noted.items() if self._manifest[name] != value]
        followers = len(self._cluster.follower_urls)
        if changed or followers != self._scenario.followers:
            self._manifest |= noted
            raise ClusterError(
                "The cluster is not the one that the run began with (followers, acknowledgments or "
                "delays differ): make it so again, or begin a new run."
            )

    def _finish_manifest(self, ending: Ending) -> None:
        self._manifest["status"] = ending.status
        self._manifest["finished_at"] = timestamp(self._now())
        self._manifest["message"] = ending.message
        write_manifest(self._run, self._manifest)
