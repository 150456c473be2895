"""Trials for real: Locust as a process, a leader to load, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from orchestration.load.plan import LoadPlan
from orchestration.load.results import TimelineRow, read_trial
from orchestration.loadgen import LoadGenerator, LoadgenError, Trial, run_trial

if TYPE_CHECKING:
    from pathlib import Path

SHORT = LoadPlan(rate_per_s=300, warmup_s=0.2, duration_s=1, keys=50, seed=5)


def trial_of(url: str, folder: Path, **changes: Any) -> Trial:
    """A short open-loop trial of writes."""
    return Trial(**{"scenario": "writes", "url": url, "folder": folder, "plan": SHORT} | changes)


def locust_request_count(folder: Path) -> int:
    """What Locust itself has counted."""
    entries = json.loads((folder / "locust_stats.json").read_bytes())
    return sum(entry["num_requests"] for entry in entries)


def test_open_loop_trial_offers_its_rate_and_reports_live(leader_url: str, tmp_path: Path) -> None:
    """Every planned write is sent, answered and counted, by the recorder as by Locust."""
    rows: list[TimelineRow] = []
    result = run_trial(trial_of(leader_url, tmp_path), on_progress=rows.append)
    write = result.operations["write"]
    assert (result.offered, result.dropped, result.unfinished) == (300, 0, 0)
    assert (write.ok, write.errors) == (300, {})
    assert result.measured_s == 1
    assert result.offered_rate_per_s == 300
    assert 0 < result.generator_cpu_share < 1
    assert not result.ended_early
    counts = {name: each.get_total_count() for name, each in write.histograms.items()}
    # A client that waits does not send while it does: where a machine is in use, it sends less.
    assert 0 < counts.pop("uncorrected") <= 300
    assert set(counts.values()) == {300}
    # Rows show the warm-up too, each request once.
    assert sum(row.ok for row in rows) == locust_request_count(tmp_path) == result.recorded == 360
    assert not (tmp_path / "locust.html").exists()
    assert (tmp_path / "locust_stats.csv").is_file()


@pytest.mark.skipif(os.name == "nt", reason="Locust cannot fork on Windows")
def test_processes_share_the_rate(leader_url: str, tmp_path: Path) -> None:
    """Two processes together offer what one would."""
    result = run_trial(trial_of(leader_url, tmp_path, processes=2))
    parts = [path.name for path in sorted(tmp_path.glob("process-*.json"))]
    assert parts == ["process-0.json", "process-1.json"]
    assert (result.offered, result.operations["write"].ok) == (300, 300)
    assert result.offered_rate_per_s == 300


def test_seed_workload_writes_exactly_as_often_as_asked(leader_url: str, tmp_path: Path) -> None:
    """A closed loop that ends by count, with its rate from the time that it took."""
    plan = LoadPlan(rate_per_s=0, warmup_s=0, total_writes=100, keys=10)
    result = run_trial(
        trial_of(leader_url, tmp_path, scenario="seed_workload", plan=plan, users=10)
    )
    assert (result.offered, result.operations["write"].ok) == (100, 100)
    assert 0 < result.measured_s < 10
    assert locust_request_count(tmp_path) == 100


def test_mixed_reads_and_writes_at_the_share(leader_url: str, tmp_path: Path) -> None:
    """Reads of keys that are not there yet are answers, too."""
    plan = LoadPlan(rate_per_s=1000, warmup_s=0, duration_s=0.4, read_share=0.8, seed=2)
    result = run_trial(trial_of(leader_url, tmp_path, scenario="mixed", plan=plan))
    read, write = (result.operations[name] for name in ("read", "write"))
    assert (read.errors, write.errors) == ({}, {})
    # Five standard deviations of a binomial.
    assert read.ok == pytest.approx(320, abs=40)
    assert read.ok + write.ok == 400


def test_an_absent_store_is_an_error_with_locusts_own_words(tmp_path: Path) -> None:
    """The message says what happened, and where the log is."""
    with pytest.raises(LoadgenError, match="connection_refused") as caught:
        run_trial(trial_of("http://127.0.0.1:1", tmp_path))
    assert "is the leader running there?" in str(caught.value)
    assert str(tmp_path / "locust.log") in str(caught.value)


def test_a_quorum_out_of_range_starts_nothing(leader_url: str, tmp_path: Path) -> None:
    """The store's own words reach the user."""
    plan = LoadPlan(duration_s=1, write_quorum=4)
    with pytest.raises(LoadgenError, match="0, the number of followers"):
        run_trial(trial_of(leader_url, tmp_path, plan=plan))
    assert not list(tmp_path.glob("process-*.json"))


def test_results_of_an_earlier_run_are_not_taken_for_new(tmp_path: Path) -> None:
    """A Locust that failed has no result, whatever lies in its folder."""
    (tmp_path / "process-0.json").write_text("{}", encoding="utf-8")
    with pytest.raises(LoadgenError):
        run_trial(trial_of("http://127.0.0.1:1", tmp_path))
    assert not (tmp_path / "process-0.json").exists()


LONG = LoadPlan(rate_per_s=500, warmup_s=0, duration_s=600)


def last_seq(client: httpx.Client) -> int:
    """How many writes a leader has taken."""
    found: int = client.get("/admin/links").json()["last_seq"]
    return found


class Underway:
    """A long trial in a thread, of which the store has seen 50 writes and more."""

    def __init__(self, trial: Trial) -> None:
        self.generator = LoadGenerator(trial)
        self.outcome: Any = None
        self._thread = threading.Thread(target=self._run)
        with httpx.Client(base_url=trial.url, trust_env=False) as client:
            goal = last_seq(client) + 50
            self._thread.start()
            deadline_s = time.monotonic() + 15
            while last_seq(client) < goal:
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
        self.locust = self._locust(trial.folder)

    def end(self) -> None:
        """Waits for the trial's end, and for its process's."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        assert not self.locust.is_running()

    def _run(self) -> None:
        try:
            self.outcome = self.generator.run()
        except LoadgenError as error:
            self.outcome = error

    def _locust(self, folder: Path) -> psutil.Process:
        children = psutil.Process().children()
        (locust,) = [
            child for child in children if any(str(folder) in part for part in child.cmdline())
        ]
        return locust


def test_a_stopped_trial_keeps_what_it_has_and_leaves_no_process(
    leader_url: str, tmp_path: Path
) -> None:
    """Stopping is not failing: the part that was measured is returned and says so."""
    underway = Underway(trial_of(leader_url, tmp_path, plan=LONG))
    underway.generator.stop()
    underway.end()
    assert underway.outcome.ended_early
    assert underway.outcome.operations["write"].ok >= 25
    assert underway.outcome.measured_s < 60


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_locust_ended_by_a_signal_writes_its_results(
    leader_url: str, tmp_path: Path, signum: int
) -> None:
    """Ctrl-C in Locust's own terminal loses nothing that was measured."""
    underway = Underway(trial_of(leader_url, tmp_path, plan=LONG))
    underway.locust.send_signal(signum)
    underway.end()
    result = read_trial(tmp_path, 1)
    assert result.ended_early
    assert result.operations["write"].ok >= 25


def test_a_killed_locust_is_an_error(leader_url: str, tmp_path: Path) -> None:
    """A process that died left no result, and the message says how it ended."""
    underway = Underway(trial_of(leader_url, tmp_path, plan=LONG))
    underway.locust.kill()
    underway.end()
    assert isinstance(underway.outcome, LoadgenError)
    assert "left no result" in str(underway.outcome)
    assert f"(process {underway.locust.pid}) was ended by SIGKILL" in str(underway.outcome)


@pytest.mark.skipif(os.name == "nt", reason="Locust cannot fork on Windows")
def test_a_killed_load_process_ends_the_trial_at_once(leader_url: str, tmp_path: Path) -> None:
    """Locust would wait for its share until the trial's deadline, and then nobody knew why."""
    underway = Underway(trial_of(leader_url, tmp_path, plan=LONG, processes=2))
    worker = underway.locust.children()[0]
    deadline_s = time.monotonic() + 10
    while not (tmp_path / "timeline-1.csv").exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    worker.kill()
    underway.end()
    assert isinstance(underway.outcome, LoadgenError)
    assert str(worker.pid) in str(underway.outcome)
    assert "left no result" in underway.outcome.reason
