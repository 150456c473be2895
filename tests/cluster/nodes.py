"""Real nodes, run by pytest-xprocess, and what a test asks of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import psutil
import pytest
from xprocess import ProcessStarter

from orchestration.clusters.local import NODE_VARIABLES

if TYPE_CHECKING:
    import subprocess

START_TIMEOUT_S = 20.0
WAIT_TIMEOUT_S = 15.0
POLL_S = 0.02
# A node that was away is looked for so often: tests wait for it, users may take the default.
RECONNECT_MAX_S = 0.1
STORE_VARIABLES = NODE_VARIABLES | {"CLUSTER_TOKEN"}


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment of this process without settings of the store, and with the given ones."""
    inherited = {name: value for name, value in os.environ.items() if name not in STORE_VARIABLES}
    return {**inherited, **variables}


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_TIMEOUT_S) -> Any:
    """Returns the condition's first true value; fails with ``what`` if there is none in time."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline_s:
            pytest.fail(f"not within {timeout_s:g} s: {what}")
        time.sleep(POLL_S)


def http_client(timeout_s: float) -> httpx.Client:
    """A client for nodes; it loads no certificates, which takes longer than a node's answer."""
    return httpx.Client(
        timeout=timeout_s,
        trust_env=False,
        limits=httpx.Limits(max_connections=200),
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )


@dataclass
class Node:
    """One node of a test's cluster, and the process that runs it, if it does."""

    name: str
    url: str
    environment: dict[str, str]
    start_id: str = ""
    process: subprocess.Popen[bytes] | None = None
    info: Any = None

    @property
    def pid(self) -> int:
        """The pid of its process."""
        assert self.process is not None, f"{self.name} does not run"
        return self.process.pid

    def kill(self) -> None:
        """Ends it at once, as a crash does."""
        psutil.Process(self.pid).kill()
        self.reap()

    def stop(self) -> int:
        """Asks it to end, and returns its exit code."""
        psutil.Process(self.pid).terminate()
        return self.reap()

    def reap(self) -> int:
        """Waits for its end, and returns its exit code."""
        assert self.process is not None
        code = self.process.wait(timeout=10)
        self.process = None
        return code

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Freezes it for as long as the block lasts."""
        process = psutil.Process(self.pid)
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def is_up(self, client: httpx.Client) -> bool:
        """True once this start of the node answers, not an earlier one or a stranger's."""
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}"
        with contextlib.suppress(httpx.HTTPError):
            health = client.get(f"{self.url}/health", timeout=2).json()
            return (health["node_id"], health["start_id"]) == (self.name, self.start_id)
        return False


@dataclass
class Cluster:
    """A leader and its followers; every call that fails to answer in time raises."""

    xprocess: Any
    nodes: dict[str, Node]
    client: httpx.Client = field(default_factory=lambda: http_client(timeout_s=20))

    @property
    def leader(self) -> Node:
        """The node that leads."""
        return self.nodes["leader"]

    @property
    def followers(self) -> list[Node]:
        """The others, in the order of their numbers."""
        return [node for name, node in self.nodes.items() if name != "leader"]

    def start(self, *names: str) -> None:
        """Starts nodes side by side and waits until each answers."""
        for name in names:
            self._launch(self.nodes[name])
        for node in (self.nodes[name] for name in names):
            wait_until(partial(node.is_up, self.client), f"{node.name} answers", START_TIMEOUT_S)

    def _launch(self, node: Node) -> None:
        node.start_id = secrets.token_hex(8)
        environment = clean_environment(**node.environment, START_ID=node.start_id)

        class Starter(ProcessStarter):
            args = (sys.executable, "-m", "kv_app")
            env = environment
            timeout = START_TIMEOUT_S
            terminate_on_interrupt = True
            popen_kwargs: ClassVar[dict[str, Any]] = {"cwd": str(Path(__file__).parents[2])}

            def wait(self, log_file: Any) -> bool:
                """All are started before the first is waited for; xprocess waits 0.1 s for each."""
                del log_file
                return True

        # The start id keeps the name, and so the file with the pid, this session's own.
        self.xprocess.ensure(f"{node.name}-{node.start_id}", Starter, restart=True)
        resource = self.xprocess.resources[-1]
        node.process, node.info = resource.popen, resource.info[0]

    def stop(self) -> None:
        """Ends every node that runs, paused ones too."""
        running = [node for node in self.nodes.values() if node.process is not None]
        for node in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(node.pid).resume()
                psutil.Process(node.pid).kill()
        for node in running:
            node.reap()
        self.client.close()

    # --- what a client does -------------------------------------------------------------------

    def put(self, key: str, value: str, **headers: str) -> httpx.Response:
        """Writes a value through the leader."""
        return self.client.put(
            f"{self.leader.url}/kv/{key}", json={"value": value}, headers=headers
        )

    def get(self, key: str, node: Node | None = None) -> httpx.Response:
        """Reads a key from a node, the leader if none is named."""
        return self.client.get(f"{(node or self.leader).url}/kv/{key}")

    def put_many(self, writes: list[tuple[str, str]], workers: int = 16) -> list[httpx.Response]:
        """Writes with some clients side by side; the answers come in the order of the writes."""
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda write: self.put(*write), writes))

    def admin(self, path: str, **body: Any) -> httpx.Response:
        """Posts to a path under ``/admin``."""
        return self.client.post(f"{self.leader.url}/admin/{path}", json=body)

    def links(self) -> dict[str, Any]:
        """How far each follower is, by the follower's name."""
        answer = self.client.get(f"{self.leader.url}/admin/links").json()
        by_url = {node.url: node.name for node in self.followers}
        answer["links"] = {by_url[url]: link for url, link in answer["links"].items()}
        return answer

    def wait_ready(self) -> None:
        """Waits until the leader takes writes."""
        wait_until(
            lambda: self.client.get(f"{self.leader.url}/ready").status_code == 200,
            "the leader is ready",
        )

    def wait_connected(self) -> None:
        """Waits until every follower counts."""
        wait_until(
            lambda: all(
                link["connected"] and not link["learner"] for link in self.links()["links"].values()
            ),
            "every follower counts",
        )

    def wait_converged(self) -> None:
        """Waits until every follower holds the whole log."""

        def converged() -> bool:
            status = self.links()
            return all(
                link["contiguous"] == status["last_seq"] for link in status["links"].values()
            )

        wait_until(converged, "every follower holds the whole log")

    def versions(self, node: Node, keys: list[str]) -> dict[str, tuple[Any, ...]]:
        """What a node shows of some keys, versions and deletions included."""
        shown = {}
        for key in keys:
            body = self.get(key, node).json()
            held = body.get("error", body)
            shown[key] = (body.get("value"), held.get("epoch"), held.get("seq"))
        return shown


MakeCluster = Callable[..., Cluster]


def build_cluster(xprocess: Any, followers: int, write_quorum: int, **settings: str) -> Cluster:
    """Makes and starts a cluster; ``settings`` go to every node."""
    common = {"RECONNECT_MAX_S": str(RECONNECT_MAX_S), **settings}
    ports = free_ports(followers + 1)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    nodes = {
        name: Node(name, url, {"NODE_ID": name, "PORT": str(port), "ROLE": "follower", **common})
        for name, url, port in zip(
            ["leader", *(f"follower{i}" for i in range(1, followers + 1))], urls, ports, strict=True
        )
    }
    nodes["leader"].environment.update(
        ROLE="leader", FOLLOWER_URLS=",".join(urls[1:]), WRITE_QUORUM=str(write_quorum)
    )
    cluster = Cluster(xprocess, nodes)
    try:
        cluster.start(*nodes)
    except BaseException:
        cluster.stop()
        raise
    return cluster
