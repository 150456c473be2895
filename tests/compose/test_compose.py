"""The image and docker-compose.yml on a real engine. Run by ``nox -s compose``."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.cluster.nodes import wait_until
from tests.cluster.tool import ROOT, Tool, assert_told
from tests.compose.engine import docker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROJECT = "quorumeter-test"
URLS = [f"http://127.0.0.1:{8000 + index}" for index in range(6)]
SERVICES = ["leader", *(f"follower{index}" for index in range(1, 6))]


def compose_commands() -> list[list[str]]:
    """Each Compose that this machine has."""
    found = []
    if (
        subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
        == 0
    ):
        found.append(["docker", "compose"])
    if shutil.which("docker-compose"):
        found.append(["docker-compose"])
    assert found, "neither docker compose nor docker-compose answers"
    return found


def compose(command: list[str], *arguments: str) -> str:
    """What a Compose command printed, for the project of this test."""
    done = subprocess.run(
        [*command, "-p", PROJECT, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def left_of(project: str) -> str:
    """Containers, networks and volumes that bear a project's label."""
    label = f"label=com.docker.compose.project={project}"
    return (
        docker("ps", "-aq", "--filter", label)
        + docker("network", "ls", "-q", "--filter", label)
        + docker("volume", "ls", "-q", "--filter", label)
    )


def container(service: str) -> str:
    """The id of a service's container."""
    return docker(
        "ps", "-aq",
        "--filter", f"label=com.docker.compose.project={PROJECT}",
        "--filter", f"label=com.docker.compose.service={service}",
    ).strip()  # fmt: skip


def health(service: str) -> str:
    """What the engine's own health check says."""
    return docker("inspect", "-f", "{{.State.Health.Status}}", container(service)).strip()


def links() -> dict[str, Any]:
    """The leader's view of its followers, by name."""
    answer = httpx.get(f"{URLS[0]}/admin/links", timeout=10).json()
    return {link["node_id"]: link for link in answer["links"].values()}


def put(key: str) -> httpx.Response:
    """Writes through the leader."""
    return httpx.put(f"{URLS[0]}/kv/{key}", json={"value": key}, timeout=10)


@pytest.fixture(scope="module", params=compose_commands(), ids=" ".join)
def command(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """A deployment by each Compose: up --build, and down with nothing left."""
    command: list[str] = request.param
    compose(command, "up", "--build", "-d")
    try:
        yield command
    finally:
        compose(command, "down", "-v", "--remove-orphans", "-t", "5")
    assert left_of(PROJECT) == ""


def test_all_containers_become_healthy_and_take_writes(command: list[str]) -> None:
    """Six healthy nodes, k=3, delays 0:100, as docker-compose.yml says."""
    assert command
    for service in SERVICES:
        wait_until(lambda name=service: health(name) == "healthy", f"{service} is healthy", 60)
    for url, service in zip(URLS, SERVICES, strict=True):
        assert httpx.get(f"{url}/health").json()["node_id"] == service
    wait_until(lambda: httpx.get(f"{URLS[0]}/ready").status_code == 200, "the leader is ready")
    assert httpx.get(f"{URLS[0]}/admin/quorum").json() == {"write_quorum": 3, "followers": 5}
    delays = httpx.get(f"{URLS[0]}/admin/delays").json()
    assert (delays["min_delay_ms"], delays["max_delay_ms"]) == (0, 100)
    assert put("first").json()["follower_acks"] >= 3


def test_node_runs_as_a_user_without_the_tools(command: list[str]) -> None:
    """The image holds the node only, and does not run as root."""
    assert command
    node = container("follower1")
    assert docker("exec", node, "id", "-u").strip() != "0"
    modules = "locust", "matplotlib", "numpy", "pytest"
    script = f"import importlib.util as u; print([m for m in {modules} if u.find_spec(m)])"
    assert docker("exec", "-w", "/", node, "python", "-c", script).strip() == "[]"


def test_sweep_attaches_to_containers_that_run(command: list[str], tmp_path: Path) -> None:
    """From the host the followers' own names mean nothing; the leader relays what they hold."""
    assert command
    done = Tool(tmp_path).run("sweep", "--attach", URLS[0], "--k", "1", "--trials", "1",
                              "--duration", "1s", "--json", "--out", tmp_path / "out")  # fmt: skip
    assert_told(done.returncode, tmp_path / "out")
    cell = json.loads(done.stdout)["cells"][0]
    assert cell["samples"] > 0
    assert (cell["errors"], cell["parity"]) == ({}, "match")


def test_killed_and_paused_containers_come_back(command: list[str]) -> None:
    """With one follower killed and one paused k=3 still works; both converge once they are back."""
    assert command
    wait_until(lambda: all(link["connected"] for link in links().values()), "all are connected")
    docker("kill", container("follower1"))
    docker("pause", container("follower2"))
    try:
        answers = [put(f"without-{index}") for index in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["follower_acks"] for answer in answers} == {3}
    finally:
        docker("unpause", container("follower2"))
        docker("start", container("follower1"))

    def converged() -> bool:
        answer = httpx.get(f"{URLS[0]}/admin/links", timeout=10).json()
        return all(
            link["connected"] and link["contiguous"] == answer["last_seq"]
            for link in answer["links"].values()
        )

    wait_until(converged, "both have caught up", 30)
    dumps = [httpx.get(f"{url}/dump").json() for url in URLS]
    assert "without-19" in dumps[0]
    assert all(dump == dumps[0] for dump in dumps)


def test_failover_from_the_host_promotes_a_container(command: list[str], tmp_path: Path) -> None:
    """With every published port named; the new leader injects the delays of the first one."""
    assert command
    nodes = [word for url in URLS for word in ("--node", url)]
    docker("kill", container("leader"))
    wait_until(
        lambda: (
            not any(
                httpx.get(f"{url}/admin/status", timeout=10).json()["is_led"] for url in URLS[1:]
            )
        ),
        "the followers miss the leader",
        30,
    )
    alone = Tool(tmp_path).run("failover", "--node", URLS[1], "--yes")
    assert alone.returncode == 2, alone.stderr
    assert "http://follower2:8000" in alone.stdout
    assert "--force" not in alone.stdout
    done = Tool(tmp_path).run("failover", *nodes, "--to", "follower3", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["promotion"]["leader"], list(told["silent"])) == ("follower3", [URLS[0]])
    delays = httpx.get(f"{URLS[3]}/admin/delays", timeout=10).json()
    assert (delays["min_delay_ms"], delays["max_delay_ms"]) == (0, 100)
