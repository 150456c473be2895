"""Nodes as plain processes that a campaign may kill, freeze, wipe and start again."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx
import psutil

from orchestration.clusters import processes
from orchestration.clusters.local import (
    HOST,
    NODE_VARIABLES,
    LocalSettings,
    free_ports,
    node_environments,
)
from tests.campaigns.campaign import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.campaigns.campaign import Stage

START_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 30.0
WAIT_TIMEOUT_S = 60.0
POLL_S = 0.02
LOG_LINES = 15


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_TIMEOUT_S) -> Any:
    """Returns the condition's first true value.

    Raises:
        Violation: There was none in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline_s:
            raise Violation(f"Not within {timeout_s:g} s: {what}.")
        time.sleep(POLL_S)
    return value


@dataclass(slots=True)
class Node:
    """One node, and the process that runs it, if one does.

    Attributes:
        folder: Holds its log, and its data unless it works in memory only.
    """

    name: str
    url: str
    environment: dict[str, str]
    folder: Path
    start_id: str = ""
    child: processes.Child | None = field(default=None, repr=False)

    @property
    def data(self) -> Path:
        """Where it keeps its data."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What it printed, over all its starts."""
        return self.folder / "node.log"

    @property
    def process(self) -> psutil.Process:
        """Its process; it must run."""
        if self.child is None:
            raise RuntimeError(f"{self.name} does not run")
        return psutil.Process(self.child.pid)

    def check_alive(self) -> None:
        """Checks that its process has not ended by itself.

        Raises:
            Violation: It has.
        """
        code = None if self.child is None else self.child.poll()
        if code is not None:
            raise Violation(
                f"{self.name} ended by itself with exit code {code}. Its last lines:",
                processes.tail(self.log).splitlines(),
            )

    def disk_bytes(self) -> int:
        """Size of its data on disk; a file that goes away meanwhile counts as nothing."""
        total = 0
        for path in self.data.rglob("*"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        return total


class Cluster:
    """A leader and its followers; the end of the block ends them all.

    Args:
        stage: The campaign's.
        name: Of the cluster's folder.
        followers: n.
        write_quorum: k.
        is_durable: Whether each node has a ``DATA_DIR``.
        program: What Python runs as a node.
        settings: Further settings of every node.
    """

    def __init__(
        self,
        stage: Stage,
        name: str,
        followers: int,
        write_quorum: int,
        *,
        is_durable: bool = True,
        program: Sequence[str] = ("-m", "kv_app"),
        **settings: str,
    ) -> None:
        self.client = httpx.Client(timeout=CALL_TIMEOUT_S, trust_env=False)
        self.write_quorum = write_quorum
        self._held = stage.held
        self._program = program
        self._leading = 0
        token = settings.get("CLUSTER_TOKEN")
        if token:
            self.client.headers["Authorization"] = f"Bearer {token}"
        room, ports = stage.room(name), free_ports(followers + 1)
        local = LocalSettings(followers, delay_seed=1, write_quorum=write_quorum)
        self.nodes: list[Node] = []
        for port, variables in zip(ports, node_environments(local, ports, ""), strict=True):
            folder = room / variables["NODE_ID"]
            folder.mkdir()
            data = {"DATA_DIR": str(folder / "data")} if is_durable else {}
            environment = {**variables, **data, **settings}
            node = Node(variables["NODE_ID"], f"http://{HOST}:{port}", environment, folder)
            self.nodes.append(node)

    def __enter__(self) -> Self:
        """Starts nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._held():
            self.kill(*self.nodes)
        self.client.close()

    @property
    def leader(self) -> Node:
        """The node that leads, as far as ``find_leader`` found last; the first one before."""
        return self.nodes[self._leading]

    @property
    def followers(self) -> list[Node]:
        """The others, in the order of their numbers."""
        return [node for node in self.nodes if node is not self.leader]

    def find_leader(self, timeout_s: float = WAIT_TIMEOUT_S) -> Node:
        """Waits until a node takes writes, and returns the one of the newest epoch.

        Raises:
            Violation: None does, in time.
        """
        wait_until(self._look_for_leader, "a node leads", timeout_s)
        return self.leader

    def _look_for_leader(self) -> bool:
        found = (0, -1)
        for number, node in enumerate(self.nodes):
            status = self.status(node)
            if status is not None and status["is_open"]:
                found = max(found, (status["epoch"], number))
        if found[1] < 0:
            return False
        self._leading = found[1]
        return True

    def status(self, node: Node) -> dict[str, Any] | None:
        """``GET /admin/status`` of a node; None if it does not answer."""
        if node.child is None:
            return None
        try:
            answer = self.client.get(f"{node.url}/admin/status", timeout=2)
        except httpx.HTTPError:
            return None
        return dict(answer.json()) if answer.is_success else None

    # --- processes ----------------------------------------------------------------------------

    def launch(self, *nodes: Node) -> None:
        """Starts the processes of nodes, and does not wait for them."""
        inherited = {k: v for k, v in os.environ.items() if k not in NODE_VARIABLES}
        inherited.pop("CLUSTER_TOKEN", None)
        for node in nodes:
            node.start_id = secrets.token_hex(8)
            environment = {**inherited, **node.environment, "START_ID": node.start_id}
            with self._held():
                node.child = processes.spawn(
                    [sys.executable, *self._program], environment, node.log
                )

    def wait_up(self, *nodes: Node) -> None:
        """Waits until each answers, in this start and no earlier one."""
        for node in nodes:
            wait_until(lambda node=node: self.is_up(node), f"{node.name} answers", START_TIMEOUT_S)

    def start(self, *nodes: Node) -> None:
        """Starts nodes side by side (all if none is named) and waits until each answers."""
        self.launch(*(nodes or self.nodes))
        self.wait_up(*(nodes or self.nodes))

    def kill(self, *nodes: Node) -> None:
        """Ends nodes at once and at the same time, as a crash does; those that do not run too."""
        running = [node for node in nodes if node.child is not None]
        for node in running:
            if node.child is not None:
                node.child.kill()
        for node in running:
            if node.child is not None:
                node.child.wait()
            node.child = None

    def wipe(self, node: Node) -> None:
        """Takes all data from a node that does not run."""
        if node.child is not None:
            raise RuntimeError(f"{node.name} runs")
        shutil.rmtree(node.data)

    def is_up(self, node: Node) -> bool:
        """Tells if a node's present start answers."""
        node.check_alive()
        try:
            health = self.client.get(f"{node.url}/health", timeout=2).json()
        except httpx.HTTPError:
            return False
        return (health["node_id"], health["start_id"]) == (node.name, node.start_id)

    def check_logs(self) -> None:
        """Checks that no node met a bug of its own.

        Raises:
            Violation: One did; the evidence is what it logged.
        """
        for node in self.nodes:
            if not node.log.exists():  # it never ran
                continue
            lines = node.log.read_text(encoding="utf-8", errors="replace").splitlines()
            bugs = [number for number, line in enumerate(lines) if line.startswith("Traceback")]
            if bugs:
                first = bugs[0]
                raise Violation(
                    f"{node.name} met {len(bugs)} bugs; see {node.log}. The first of them:",
                    lines[max(0, first - 1) :][:LOG_LINES],
                )

    # --- calls --------------------------------------------------------------------------------

    def get(self, node: Node, path: str) -> Any:
        """Returns the JSON of a call that must succeed.

        Raises:
            Violation: It did not.
        """
        try:
            response = self.client.get(node.url + path)
        except httpx.HTTPError as error:
            node.check_alive()
            raise Violation(f"{node.name} does not answer {path}: {error!r}.") from error
        if response.is_error:
            raise Violation(f"{node.name} answers {path} with {response.status_code}.")
        return response.json()

    def links(self) -> dict[str, Any]:
        """``GET /admin/links`` of the leader, with the followers by name."""
        answer = self.get(self.leader, "/admin/links")
        names = {node.url: node.name for node in self.followers}
        return {**answer, "links": {names[url]: link for url, link in answer["links"].items()}}

    def wait_counting(self, nodes: Sequence[Node] | None = None) -> None:
        """Waits until these followers (all if none is named) count for the quorum."""
        names = [node.name for node in (self.followers if nodes is None else nodes)]

        def is_counting() -> bool:
            links = self.links()["links"]
            return all(links[name]["connected"] and not links[name]["learner"] for name in names)

        wait_until(is_counting, f"{', '.join(names)} connected and no learner")

    def wait_converged(self) -> int:
        """Waits until all followers hold the whole log and all is committed; returns its end."""

        def is_converged() -> bool:
            status = self.links()
            last_seq = status["last_seq"]
            held = [link["contiguous"] for link in status["links"].values() if link["connected"]]
            return status["stable_seq"] == last_seq and held == [last_seq] * len(self.followers)

        wait_until(is_converged, "every follower holds the whole log, and all is committed")
        return int(self.links()["last_seq"])
