"""A leader and its followers as processes of this machine."""

import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestration.clusters import processes
from orchestration.control import Control
from orchestration.errors import ClusterError, PortTakenError
from orchestration.scenario import DelayModel, Engine

HOST = "127.0.0.1"
START_TIMEOUT_S = 20.0
START_ATTEMPTS = 3
POLL_S = 0.02
HEALTH_TIMEOUT_S = 1.0
# How a node says that its port is taken: on Linux and macOS, on Windows.
PORT_TAKEN = re.compile(r"Cannot listen on \S+: (Address already in use|Only one usage)")
# What the nodes read; a value that the user's environment holds for another purpose must not
# reach them. CLUSTER_TOKEN stays: control calls and the load generator use the same one.
NODE_VARIABLES = frozenset({
    "ADVERTISE_URL", "ALLOWED_HOSTS", "ALLOW_INSECURE_BIND", "DATA_DIR", "DELAY_MODEL",
    "DELAY_SEED", "FOLLOWER_URLS", "HEARTBEAT_TIMEOUT_S", "HOST", "IDEMPOTENCY_KEYS", "LOG_BYTES",
    "LOG_ENTRIES", "LOG_LEVEL", "MAX_BATCH_OPERATIONS", "MAX_BODY_BYTES", "MAX_CONNECTIONS",
    "MAX_DELAY_MS", "MAX_IN_FLIGHT", "MAX_KEY_BYTES", "MAX_VALUE_BYTES", "MIN_DELAY_MS", "NODE_ID",
    "PORT", "RECONNECT_MAX_S", "REQUEST_READ_TIMEOUT_S", "REQUEST_TIMEOUT", "ROLE", "START_ID",
    "WRITE_QUORUM",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class LocalNode:
    """One node of a local cluster.

    ``process`` is what ends it, ``log_start`` the byte at which this start's part of its log
    begins: an earlier start has written there too.
    """

    node_id: str
    role: str
    url: str
    process: processes.ProcessMark
    log_path: Path
    log_start: int

    @property
    def last_lines(self) -> str:
        """What it printed last."""
        return processes.tail(self.log_path, self.log_start)


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """How the nodes of a local cluster are set.

    Attributes:
        followers: n.
        delay_ms: range of the injected link delays.
        delay_model: whether an entry may overtake another one on its link.
        delay_seed: their seed; None lets the leader draw one.
        write_quorum: k at the start; None leaves it to the leader.
        port: the leader listens here and the followers on the next n; None takes free ports.
        data_dir: each node keeps its data in a folder of its own below; None: in memory only.
        cores: where the nodes may run; anywhere, if none are given.
    """

    followers: int
    delay_ms: tuple[float, float] = (0.0, 0.0)
    delay_model: DelayModel = "independent"
    delay_seed: int | None = None
    write_quorum: int | None = None
    port: int | None = None
    data_dir: Path | None = None
    cores: tuple[int, ...] = ()


class LocalCluster:
    """Starts the nodes all at once, and stops each of them.

    Args:
        settings: how the nodes are set.
        log_dir: receives one log per node; created if missing.
        control: the client for health checks.
        held: holds back a stop signal while a process is started and its pid noted.
        outlives: whether the nodes are to go on when this process is killed.
        note: is called as soon as all processes run, before any of them is ready.
        environment: what the nodes inherit; that of this process if not given.
    """

    engine: Engine = "local"

    def __init__(
        self,
        settings: LocalSettings,
        log_dir: Path,
        control: Control,
        *,
        held: Callable[[], AbstractContextManager[None]] = nullcontext,
        note: Callable[[], None] = lambda: None,
        outlives: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._log_dir = log_dir
        self._control = control
        self._held = held
        self._note = note
        self._outlives = outlives
        self.start_id = ""
        self._environment = dict(os.environ if environment is None else environment)
        self._children: list[tuple[processes.Child, LocalNode]] = []

    @property
    def nodes(self) -> tuple[LocalNode, ...]:
        """The leader, then the followers."""
        return tuple(node for _, node in self._children)

    @property
    def leader_url(self) -> str:
        """Where the leader answers."""
        return self.nodes[0].url

    @property
    def follower_urls(self) -> Mapping[str, str]:
        """Each follower's URL; from here it is the same as from the leader."""
        return {node.url: node.url for node in self.nodes[1:]}

    def start(self) -> None:
        """Start all nodes; returns once the leader is ready.

        Raises:
            ClusterError: a node ended or did not answer; the message has its last log lines.
        """
        self._log_dir.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_once()
            except PortTakenError:
                self.stop()
                if self._settings.port is not None or attempt == START_ATTEMPTS:
                    raise
            else:
                return

    def stop(self) -> None:
        """End all nodes: at once for those that comply, by force for the others.

        Raises:
            ClusterError: some run all the same; the message names them.
        """
        children, self._children = self._children, []
        left = processes.stop([node.process for _, node in children])
        for child, _ in children:
            child.poll()  # collects the exit status
        if left:
            raise ClusterError(
                f"Processes {', '.join(str(one.pid) for one in left)} do not end: they are nodes, "
                "end them by hand."
            )

    def _start_once(self) -> None:
        self.start_id = secrets.token_hex(8)
        ports = self._ports()
        environments = node_environments(self._settings, ports, self.start_id)
        for index, environment in enumerate(environments):
            with self._held():
                self._spawn(index, ports[index], environment)
        with self._held():
            self._note()
        deadline_s = time.monotonic() + START_TIMEOUT_S
        for child, node in self._children:
            self._wait_until(child, node, deadline_s, partial(self._is_up, node))
        leader, node = self._children[0]
        self._wait_until(leader, node, deadline_s, partial(self._is_ready, node))

    def _ports(self) -> list[int]:
        count = self._settings.followers + 1
        if self._settings.port is not None:
            return list(range(self._settings.port, self._settings.port + count))
        return free_ports(count)

    def _spawn(self, index: int, port: int, environment: Mapping[str, str]) -> None:
        node_id = environment["NODE_ID"]
        log_path = self._log_dir / f"{node_id}.log"
        log_start = log_path.stat().st_size if log_path.exists() else 0
        inherited = {k: v for k, v in self._environment.items() if k not in NODE_VARIABLES}
        child = processes.spawn(
            [sys.executable, "-m", "kv_app"],
            {**inherited, **environment},
            log_path,
            self._settings.cores,
            outlives=self._outlives,
        )
        node = LocalNode(
            node_id=node_id,
            role="follower" if index else "leader",
            url=f"http://{HOST}:{port}",
            process=processes.mark(child.pid),
            log_path=log_path,
            log_start=log_start,
        )
        self._children.append((child, node))

    def _wait_until(
        self,
        child: processes.Child,
        node: LocalNode,
        deadline_s: float,
        is_done: Callable[[], bool],
    ) -> None:
        while not is_done():
            self._check_alive()
            if time.monotonic() > deadline_s:
                raise ClusterError(
                    f"{node.node_id} (process {child.pid}) was not ready at {node.url} within "
                    f"{START_TIMEOUT_S:g} s. Its last lines, from {node.log_path}:\n"
                    + node.last_lines
                )
            time.sleep(POLL_S)

    def _is_up(self, node: LocalNode) -> bool:
        try:
            health = self._control.health(node.url, timeout_s=HEALTH_TIMEOUT_S)
        except ClusterError:
            return False
        if (health.node_id, health.start_id) != (node.node_id, self.start_id):
            raise PortTakenError(
                f"Another program answers at {node.url}: end it, or choose another --port."
            )
        return True

    def _is_ready(self, node: LocalNode) -> bool:
        try:
            self._control.check_ready(node.url, timeout_s=HEALTH_TIMEOUT_S)
        except ClusterError:
            return False
        return True

    def _check_alive(self) -> None:
        for child, node in self._children:
            code = child.poll()
            if code is None:
                continue
            lines = node.last_lines
            if PORT_TAKEN.search(lines):
                raise PortTakenError(
                    f"{node.node_id} cannot listen at {node.url}, another program does: end it, "
                    "or choose another --port."
                )
            raise ClusterError(
                f"{node.node_id} ended with exit code {code} while it started. Its last lines, "
                f"from {node.log_path}:\n{lines}"
            )


def node_environments(
    settings: LocalSettings, ports: Sequence[int], start_id: str
) -> list[dict[str, str]]:
    """The variables of the leader and of each follower, in the order of ``ports``."""
    low, high = settings.delay_ms
    # A follower that is promoted delays its links as the first leader did.
    delays = {
        "MIN_DELAY_MS": f"{low:g}",
        "MAX_DELAY_MS": f"{high:g}",
        "DELAY_MODEL": settings.delay_model,
    }
    if settings.delay_seed is not None:
        delays["DELAY_SEED"] = str(settings.delay_seed)
    leader = {
        "ROLE": "leader",
        "NODE_ID": "leader",
        "FOLLOWER_URLS": ",".join(f"http://{HOST}:{port}" for port in ports[1:]),
    }
    if settings.write_quorum is not None:
        leader["WRITE_QUORUM"] = str(settings.write_quorum)
    followers = [
        {"ROLE": "follower", "NODE_ID": f"follower{index}"} for index in range(1, len(ports))
    ]
    nodes = [leader, *followers]
    if settings.data_dir is not None:
        for node in nodes:
            node["DATA_DIR"] = str(settings.data_dir.absolute() / node["NODE_ID"])
    return [
        {**node, **delays, "HOST": HOST, "PORT": str(port), "START_ID": start_id}
        for node, port in zip(nodes, ports, strict=True)
    ]


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, each once."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
