"""Remembers, between commands, the cluster that ``up`` started and ``down`` will end."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from orchestration.clusters.processes import ProcessMark
from orchestration.errors import ClusterError
from orchestration.scenario import Engine

FOLDER_VARIABLE = "QUORUMETER_STATE_DIR"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class KeptNode:
    """A node of the kept cluster; ``process`` is None where this machine has no process of it."""

    node_id: str
    url: str
    process: ProcessMark | None


@dataclass(frozen=True, slots=True)
class KeptCluster:
    """The cluster that ``up`` started.

    Attributes:
        engine: local or compose.
        nodes: the leader, then the followers.
        known_urls: the followers' URLs as the leader knows them, in the order of ``nodes``.
        project: Docker Compose's project name; empty for local processes.
    """

    engine: Engine
    nodes: tuple[KeptNode, ...]
    known_urls: tuple[str, ...]
    project: str = ""

    @property
    def leader_url(self) -> str:
        """Where the leader answers."""
        return self.nodes[0].url

    @property
    def follower_urls(self) -> dict[str, str]:
        """From the URL by which the leader knows a follower to the one that answers from here."""
        reached = [node.url for node in self.nodes[1:]]
        return dict(zip(self.known_urls, reached, strict=True))


def state_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where the state file and the kept nodes' logs lie."""
    found = os.environ if environment is None else environment
    named = found.get(FOLDER_VARIABLE)
    return Path(named) if named else platformdirs.user_state_path("quorumeter", appauthor=False)


class StateFile:
    """Reads and writes the one state file in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cluster.json"

    def read(self) -> KeptCluster | None:
        """The kept cluster, or None if ``up`` keeps none.

        Raises:
            ClusterError: the file cannot be understood; the message names it.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return _from_json(json.loads(text))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ClusterError(
                f"{self.path} is damaged ({error}); end its nodes by hand, then delete the file."
            ) from error

    def write(self, cluster: KeptCluster) -> None:
        """Replace the file in one step, so that nobody ever reads half of it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"schema": _SCHEMA, **asdict(cluster)}, indent=2) + "\n")
        fresh.replace(self.path)

    def remove(self) -> None:
        """Forget the cluster."""
        self.path.unlink(missing_ok=True)


def _from_json(body: Mapping[str, Any]) -> KeptCluster:
    if body["schema"] != _SCHEMA:
        raise ValueError(f"schema {body['schema']} is not {_SCHEMA}")
    nodes = tuple(
        KeptNode(
            node_id=node["node_id"],
            url=node["url"],
            process=ProcessMark(**node["process"]) if node["process"] else None,
        )
        for node in body["nodes"]
    )
    known_urls = tuple(body["known_urls"])
    if len(known_urls) != len(nodes) - 1:
        raise ValueError("its followers and their URLs differ in number")
    return KeptCluster(
        engine=body["engine"], nodes=nodes, known_urls=known_urls, project=body["project"]
    )
