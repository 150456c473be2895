"""The locustfiles as a user runs them: by file, by folder, headless and in the web form."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from orchestration.load.results import read_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCUSTFILES = Path(__file__).parents[3] / "locustfiles"
LIMIT_S = 20.0


def locust(
    *arguments: str, folder: Path, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs Locust to its end, in a folder that is not the project's."""
    return subprocess.run(
        [sys.executable, "-m", "locust", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**os.environ, **(variables or {})},
    )


def test_folder_offers_every_scenario(tmp_path: Path) -> None:
    """All files of the folder load together."""
    done = locust("-f", str(LOCUSTFILES), "--list", folder=tmp_path)
    assert {"Writes", "Mixed", "SeedWorkload", "Ycsb"} <= set(done.stdout.split())
    assert done.returncode == 0


# All operations and key choices of the six are in these.
MIX_OPERATIONS = {
    "ycsb-d": {"read", "write"},
    "ycsb-e": {"scan", "write"},
    "ycsb-f": {"read", "read_modify_write"},
}


@pytest.mark.parametrize("mix", MIX_OPERATIONS)
def test_ycsb_writes_its_records_and_sends_its_mix(
    mix: str, leader_url: str, tmp_path: Path
) -> None:
    """Every key is there before the load begins, and only the mix's operations are sent."""
    done = locust(
        *("-f", str(LOCUSTFILES / "ycsb.py"), "--headless", "--host", leader_url, "--mix", mix),
        *("--rate", "200", "--warmup", "0", "--duration", "0.5", "--results-dir", "out"),
        *("--keys", "300"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    result = read_trial(tmp_path / "out", 1)
    assert {name for name, operation in result.operations.items() if operation.ok} == (
        MIX_OPERATIONS[mix]
    )
    assert sum(operation.ok for operation in result.operations.values()) == 100
    present = httpx.get(f"{leader_url}/dump").text
    assert all(f'"key-{number}"' in present for number in range(300))


def test_folder_runs_the_scenario_that_is_named(leader_url: str, tmp_path: Path) -> None:
    """`locust -f locustfiles Writes` runs writes alone; all files register the options once."""
    done = locust(
        *("-f", str(LOCUSTFILES), "--headless", "--host", leader_url, "Writes"),
        *("--rate", "100", "--warmup", "0", "--duration", "0.5", "--results-dir", "out"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Uncaught exception" not in done.stderr
    result = read_trial(tmp_path / "out", 1)
    assert {name: operation.ok for name, operation in result.operations.items()} == {"write": 50}


def test_seed_workload_alone_needs_no_options(leader_url: str, tmp_path: Path) -> None:
    """Its numbers come from the environment."""
    variables = {"TOTAL_WRITES": "30", "WRITE_CONCURRENCY": "3", "KEY_COUNT": "2"}
    done = locust(
        *("-f", str(LOCUSTFILES / "seed_workload.py"), "--headless"),
        *("--host", leader_url, "--results-dir", "out"),
        folder=tmp_path,
        variables=variables,
    )
    assert done.returncode == 0, done.stderr
    assert '"SeedWorkload": 3' in done.stderr
    assert read_trial(tmp_path / "out", 1).operations["write"].ok == 30


def test_seed_workload_refuses_a_bad_number_in_the_environment(tmp_path: Path) -> None:
    """The environment is checked like the command line."""
    done = locust(
        *("-f", str(LOCUSTFILES / "seed_workload.py"), "--headless", "--host", "http://x"),
        folder=tmp_path,
        variables={"TOTAL_WRITES": "many"},
    )
    assert done.returncode == 2
    assert "--total-writes must be a whole number, not 'many'" in done.stderr
    assert "Traceback" not in done.stderr


def test_users_beyond_the_first_add_no_load_and_are_told(leader_url: str, tmp_path: Path) -> None:
    """In an open loop the rate is the rate."""
    done = locust(
        *("-f", str(LOCUSTFILES / "writes.py"), "--headless", "--host", leader_url),
        *("--users", "3", "--spawn-rate", "3", "--rate", "100", "--warmup", "0"),
        *("--duration", "0.5", "--results-dir", "out"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("further ones add no load") == 1
    assert read_trial(tmp_path / "out", 1).offered == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate=-1"], "--rate must be between 0 and"),
        (["--keys=many"], "--keys must be a whole number, not 'many'"),
        (["--arrivals=bursty"], "--arrivals must be constant or poisson, not 'bursty'"),
        (["--read-share=2"], "--read-share must be between 0 and 1"),
        (["--write-quorum=all"], "--write-quorum must be a whole number, not 'all'"),
        (["--host=ftp://x"], "'ftp://x' is not a node's address"),
        ([], "give its leader's address"),
    ],
)
def test_a_bad_option_is_refused_in_a_sentence(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    """Nothing starts, no traceback, and the message names the option."""
    done = locust("-f", str(LOCUSTFILES / "writes.py"), "--headless", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "All users spawned" not in done.stderr


@pytest.fixture(scope="module")
def web_url(leader_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Locust's web UI on the folder, with results kept in `out`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url, folder = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("web")
    with (folder / "locust.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILES), "--host", leader_url),
                *("--class-picker", "--web-host", "127.0.0.1", "--web-port", str(port)),
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for(lambda: _answers(url))
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds."""
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


FORM = {"user_count": "1", "spawn_rate": "1", "user_classes": "Writes", "warmup": "0"}


def start(web_url: str, **fields: str) -> dict[str, object]:
    """Presses the form's button."""
    answer: dict[str, object] = httpx.post(f"{web_url}/swarm", data=FORM | fields).json()
    return answer


def test_web_form_shows_the_options(web_url: str) -> None:
    """The parameters are fields of Locust's own form; where files go is not."""
    page = httpx.get(web_url).text
    for name in ("rate", "arrivals", "value_bytes", "write_quorum"):
        assert f'"{name}"' in page
    assert '"results_dir"' not in page


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": "-5"}, "--rate must be between"),
        ({"keys": ""}, "--keys must be a whole number"),
        ({"duration": "soon"}, "--duration must be a number"),
        ({"write_quorum": "3"}, "0, the number of followers"),
        ({"host": "http://127.0.0.1:1"}, "is the leader running there?"),
    ],
)
def test_web_form_refuses_a_bad_value_in_a_sentence(
    web_url: str, fields: dict[str, str], message: str
) -> None:
    """The form gets the message, and nothing starts."""
    answer = start(web_url, **fields)
    assert answer["success"] is False
    assert message in str(answer["message"])
    assert httpx.get(f"{web_url}/stats/requests").json()["state"] == "ready"


def test_web_form_runs_a_plan_to_its_end_twice(web_url: str) -> None:
    """The test stops when the plan is done, the UI stays, and another run starts."""
    for writes in (50, 100):
        answer = start(web_url, rate=str(4 * writes), duration="0.25")
        assert answer["success"] is True
        wait_for(partial(_finished, web_url, writes))


def _finished(web_url: str, requests: int) -> bool:
    """Whether the test has stopped by itself, after so many successes."""
    report = httpx.get(f"{web_url}/stats/requests").json()
    total = report["stats"][-1]
    counts = (total["num_requests"], total["num_failures"])
    return report["state"] == "stopped" and counts == (requests, 0)
