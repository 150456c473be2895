"""Locust as a user runs it, without the orchestrator."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cluster.nodes import clean_environment
from tests.cluster.tool import ROOT

if TYPE_CHECKING:
    from tests.cluster.nodes import Cluster


def locust(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Locust headless in the repository's root."""
    return subprocess.run(
        [sys.executable, "-m", "locust", "--headless", *arguments],
        env=clean_environment(**environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_folder_form_offers_all_scenarios() -> None:
    """`locust -f locustfiles` loads every file, and their options do not collide."""
    listed = locust("-f", "locustfiles", "--list")
    assert listed.returncode == 0, listed.stderr
    for scenario in ("Writes", "Mixed", "SeedWorkload"):
        assert scenario in listed.stdout + listed.stderr


@pytest.mark.parametrize("scenario", ["writes", "mixed"])
def test_open_loop_scenario_sends_what_was_asked(cluster: Cluster, scenario: str) -> None:
    """A single locustfile runs against a leader that is there, for as long as it was told."""
    before = cluster.links()["last_seq"]
    done = locust("-f", f"locustfiles/{scenario}.py", "--host", cluster.leader.url,
                  "--rate", "100", "--warmup", "0", "--duration", "1", "-u", "1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    cluster.wait_converged()
    written = cluster.links()["last_seq"] - before
    assert written == 100 if scenario == "writes" else 0 < written < 100


def test_seed_workload_writes_exactly_its_total(cluster: Cluster) -> None:
    """The original's workload ends after its number of writes."""
    before = cluster.links()["last_seq"]
    done = locust("-f", "locustfiles/seed_workload.py", "--host", cluster.leader.url,
                  TOTAL_WRITES="30", WRITE_CONCURRENCY="3", KEY_COUNT="2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert cluster.links()["last_seq"] - before == 30


def test_bad_option_is_one_sentence(cluster: Cluster) -> None:
    """A value that makes no sense starts nothing, and the message names the option."""
    before = cluster.links()["last_seq"]
    done = locust("-f", "locustfiles/writes.py", "--host", cluster.leader.url, "--rate", "-5")
    assert done.returncode != 0
    assert "rate" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    assert cluster.links()["last_seq"] == before
