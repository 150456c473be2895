"""The compose engine: what it says of docker-compose.yml, and what it says without Docker."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from orchestration.clusters import compose
from orchestration.errors import ClusterError


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The commands that answer here; none does at first."""
    answering: set[str] = set()

    def which(name: str) -> str | None:
        known = {command.split()[0] for command in answering}
        return f"/usr/bin/{name}" if name in known else None

    def run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        del timeout_s
        code = 0 if " ".join(command) in answering else 1
        return subprocess.CompletedProcess(list(command), code, "", "")

    monkeypatch.setattr(compose.shutil, "which", which)
    monkeypatch.setattr(compose, "_run", run)
    return answering


def test_the_nodes_are_those_of_the_compose_file() -> None:
    """Services, ids, published ports and the followers' URLs agree with the module's own."""
    services = yaml.safe_load(compose.COMPOSE_FILE.read_text())["services"]
    assert tuple(services) == compose.NODE_IDS
    assert tuple(service["environment"]["NODE_ID"] for service in services.values()) == tuple(
        services
    )
    published = [port.split(":") for node in services.values() for port in node["ports"]]
    assert [f"http://{host}:{port}" for host, port, _ in published] == list(compose.NODE_URLS)
    followers = services["leader"]["environment"]["FOLLOWER_URLS"].split(",")
    assert followers == [f"http://{name}:8000" for name in compose.NODE_IDS[1:]]


def test_nodes_are_published_on_the_loopback_only() -> None:
    """Without a token nobody else may reach them."""
    assert all(url.startswith("http://127.0.0.1:") for url in compose.NODE_URLS)


@pytest.mark.parametrize(
    ("answering", "expected"),
    [
        (["docker version", "docker compose version"], ["docker", "compose"]),
        (["docker version", "docker-compose version"], ["docker-compose"]),
        (
            ["docker version", "docker compose version", "docker-compose version"],
            ["docker", "compose"],
        ),
    ],
)
def test_the_compose_that_answers_is_taken(
    docker: set[str], answering: list[str], expected: list[str]
) -> None:
    """Today's plugin if it is there, else the old program."""
    docker.update(answering)
    assert compose.find_compose() == expected


@pytest.mark.parametrize(
    ("answering", "words"),
    [
        ([], "no docker command"),
        (["docker other"], "No Docker engine answers"),
        (["docker version"], "Docker Compose is missing"),
    ],
)
def test_what_is_missing_is_told_with_a_way_out(
    docker: set[str], answering: list[str], words: str
) -> None:
    """Docker, its engine or Compose: the sentence says which, and what works instead."""
    docker.update(answering)
    with pytest.raises(ClusterError, match=words) as refused:
        compose.find_compose()
    assert "--engine local" in str(refused.value)


def test_every_node_has_the_link_delays() -> None:
    """A follower that is promoted injects what the first leader did."""
    services = yaml.safe_load(compose.COMPOSE_FILE.read_text())["services"]
    for service in services.values():
        assert service["environment"]["MIN_DELAY_MS"] == "${MIN_DELAY_MS:-0}"
        assert service["environment"]["MAX_DELAY_MS"] == "${MAX_DELAY_MS:-100}"


@pytest.mark.parametrize(
    ("delay_ms", "expected"),
    [((0.5, 10.0), {"MIN_DELAY_MS": "0.5", "MAX_DELAY_MS": "10.0"}), (None, {})],
)
def test_delays_that_are_asked_for_reach_every_node(
    monkeypatch: pytest.MonkeyPatch,
    delay_ms: tuple[float, float] | None,
    expected: dict[str, str],
) -> None:
    """By the variables that docker-compose.yml hands on; those of the user's shell do not."""
    seen: list[dict[str, str]] = []

    def run(
        command: Sequence[str], timeout_s: float, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        del timeout_s
        seen.append(environment)
        return subprocess.CompletedProcess(list(command), 1, "", "no engine")

    monkeypatch.setenv("MAX_DELAY_MS", "77")
    monkeypatch.setenv("CLUSTER_TOKEN", "secret")
    monkeypatch.setattr(compose, "find_compose", lambda: ["docker", "compose"])
    monkeypatch.setattr(compose, "_run", run)
    cluster = compose.ComposeCluster("p", compose.Control(), delay_ms=delay_ms)
    with pytest.raises(ClusterError, match="no engine"):
        cluster.start()
    delays = {name: value for name, value in seen[0].items() if name in compose.DELAY_VARIABLES}
    assert delays == expected
    assert seen[0]["CLUSTER_TOKEN"] == "secret"


def test_an_installation_without_the_compose_file_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Containers are built from a clone."""
    monkeypatch.setattr(compose, "COMPOSE_FILE", tmp_path / "docker-compose.yml")
    cluster = compose.ComposeCluster("p", compose.Control())
    with pytest.raises(ClusterError, match="clone of the project"):
        cluster.start()
    cluster.stop()
