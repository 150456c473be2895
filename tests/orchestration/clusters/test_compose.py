"""The compose engine: what it says of docker-compose.yml, and what it says without Docker."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from orchestration import kept
from orchestration.clusters import compose
from orchestration.control import Control
from orchestration.errors import ClusterError
from orchestration.state_file import KeptCluster, KeptNode, StateFile


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
        assert service["environment"]["DELAY_MODEL"] == "${DELAY_MODEL:-independent}"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"delay_ms": (0.5, 10.0)}, {"MIN_DELAY_MS": "0.5", "MAX_DELAY_MS": "10.0"}),
        ({"delay_model": "fifo"}, {"DELAY_MODEL": "fifo"}),
        ({}, {}),
    ],
)
def test_delays_that_are_asked_for_reach_every_node(
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
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
    monkeypatch.setenv("DELAY_MODEL", "fifo")
    monkeypatch.setenv("WRITE_QUORUM", "9")
    monkeypatch.setenv("CLUSTER_TOKEN", "secret")
    monkeypatch.setattr(compose, "find_compose", lambda: ["docker", "compose"])
    monkeypatch.setattr(compose, "_run", run)
    cluster = compose.ComposeCluster("p", compose.Control(), **asked)
    with pytest.raises(ClusterError, match="no engine"):
        cluster.start()
    delays = {name: value for name, value in seen[0].items() if name in compose.DELAY_VARIABLES}
    assert delays == expected
    assert "WRITE_QUORUM" not in seen[0]
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


@pytest.mark.parametrize("code", [1, 124])
def test_containers_that_docker_did_not_remove_are_not_called_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    """The sentence says that they may run, and by which command they go; the note of them stays."""
    asked: list[str] = []

    def run(
        command: Sequence[str], timeout_s: float, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        del timeout_s, environment
        asked.append(" ".join(command))
        return subprocess.CompletedProcess(list(command), code, "", "no answer from the engine")

    monkeypatch.setattr(compose, "find_compose", lambda: ["docker", "compose"])
    monkeypatch.setattr(compose, "_run", run)
    monkeypatch.setenv("QUORUMETER_STATE_DIR", str(tmp_path))
    nodes = tuple(
        KeptNode(node_id, url, None)
        for node_id, url in zip(compose.NODE_IDS, compose.NODE_URLS, strict=True)
    )
    state = StateFile(tmp_path)
    state.write(KeptCluster("compose", nodes, known_urls=compose.NODE_URLS[1:], project="p"))
    with pytest.raises(ClusterError, match="may still run") as told:
        kept.end_kept(compose.Control())
    assert "no answer from the engine" in str(told.value)
    assert "docker compose -p p -f" in str(told.value)
    assert state.read() is not None
    assert "down -v --remove-orphans" in asked[-1]


def test_containers_are_removed_though_their_logs_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A full disk, or whatever else is wrong with the folder, leaves no container behind."""
    asked: list[Sequence[str]] = []

    def run(
        command: Sequence[str], timeout_s: float, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        del timeout_s, environment
        asked.append(command)
        return subprocess.CompletedProcess(list(command), 0, "a line", "")

    (tmp_path / "logs").write_text("a file where the folder should be")
    monkeypatch.setattr(compose, "find_compose", lambda: ["docker", "compose"])
    monkeypatch.setattr(compose, "_run", run)
    compose.ComposeCluster("p", compose.Control(), log_dir=tmp_path / "logs").remove()
    assert "down" in asked[-1]


def test_containers_are_waited_for_until_each_answers_by_its_name_and_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A healthy leader that takes no writes yet, or another node at the port, is none."""
    polls = 0

    def answer(request: httpx.Request) -> httpx.Response:
        node = compose.NODE_IDS[compose.NODE_URLS.index(f"http://{request.url.netloc.decode()}")]
        if request.url.path == "/ready" and polls < 2:
            error = {"code": "not_ready", "message": "0 of 2 count."}
            return httpx.Response(503, json={"error": error})
        name = "stranger" if node == compose.NODE_IDS[1] and polls < 4 else node
        role = "leader" if node == compose.NODE_IDS[0] else "follower"
        body = {"node_id": name, "role": role, "epoch": 1, "start_id": "s"}
        return httpx.Response(200, json=body)

    def sleep(_seconds: float) -> None:
        nonlocal polls
        polls += 1

    monkeypatch.setattr(compose.time, "sleep", sleep)
    control = Control(transport=httpx.MockTransport(answer))
    compose.ComposeCluster("p", control)._wait_until_ready()
    assert polls == 4


def test_containers_that_are_never_ready_are_told_with_their_reason_and_last_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else nobody would know where to look."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/ready":
            error = {"code": "not_ready", "message": "0 of 2 count."}
            return httpx.Response(503, json={"error": error})
        node = compose.NODE_IDS[compose.NODE_URLS.index(f"http://{request.url.netloc.decode()}")]
        body = {"node_id": node, "role": "follower", "epoch": 1, "start_id": "s"}
        return httpx.Response(200, json=body)

    def run(
        command: Sequence[str], timeout_s: float, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        del timeout_s, environment
        return subprocess.CompletedProcess(list(command), 0, f"line of {command[-2]}", "")

    now_s = [0.0]
    monkeypatch.setattr(compose, "_run", run)
    monkeypatch.setattr(compose.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(compose.time, "sleep", lambda _: now_s.__setitem__(0, now_s[0] + 1))
    cluster = compose.ComposeCluster("p", Control(transport=httpx.MockTransport(answer)))
    cluster._command = ["docker", "compose"]
    with pytest.raises(ClusterError, match=r"(?s)0 of 2 count.*line of logs") as told:
        cluster._wait_until_ready()
    assert f"within {compose.READY_TIMEOUT_S:g} s" in str(told.value)
    assert compose.READY_TIMEOUT_S < now_s[0] <= compose.READY_TIMEOUT_S + 2
