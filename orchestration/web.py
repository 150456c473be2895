"""Locust's web UI beside a cluster to load, until Ctrl-C."""

import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from orchestration.clusters import processes
from orchestration.clusters.attached import AttachedCluster
from orchestration.clusters.base import Cluster
from orchestration.clusters.journal import Journal
from orchestration.clusters.local import HOST, LocalCluster, LocalSettings, free_ports
from orchestration.control import Control
from orchestration.errors import ClusterError
from orchestration.interrupt import SignalGuard
from orchestration.loadgen import locust_environment, locustfile_path
from orchestration.request import DEFAULT_DELAY_MODEL, DEFAULT_DELAY_MS, DEFAULT_FOLLOWERS
from orchestration.scenario import DelayModel
from orchestration.state_file import state_folder
from orchestration.terminal import make_console

UI_TIMEOUT_S = 20.0
POLL_S = 0.1
ASK_TIMEOUT_S = 1.0


def serve(
    attach_url: str | None,
    *,
    followers: int | None,
    delay_ms: tuple[float, float] | None,
    delay_model: DelayModel | None,
    web_port: int | None,
) -> int:
    """Serve until Ctrl-C, then stop everything; it does not return otherwise than by an error.

    Raises:
        ClusterError: the cluster or Locust did not start, or Locust ended by itself.
        Interrupted: it was stopped, as it is meant to be.
    """
    with (
        tempfile.TemporaryDirectory(prefix="quorumeter-web-") as folder,
        SignalGuard(watch_parent=True) as guard,
        Control.from_environment() as control,
        processes.no_child_left(),
    ):
        cluster: Cluster
        if attach_url is not None:
            cluster = AttachedCluster(
                attach_url,
                control,
                delay_ms=delay_ms,
                journal=Journal(state_folder()),
                say=lambda text: make_console(stderr=True).print(text, soft_wrap=True),
            )
        else:
            settings = LocalSettings(
                followers=DEFAULT_FOLLOWERS if followers is None else followers,
                delay_ms=delay_ms or DEFAULT_DELAY_MS,
                delay_model=delay_model or DEFAULT_DELAY_MODEL,
                delay_seed=secrets.randbits(32),
            )
            cluster = LocalCluster(settings, Path(folder), control, held=guard.held)
        with _running(cluster, guard):
            _serve_ui(cluster.leader_url, web_port or free_ports(1)[0], Path(folder), guard)
    return 0


@contextmanager
def _running(cluster: Cluster, guard: SignalGuard) -> Iterator[None]:
    try:
        cluster.start()
        yield
    finally:
        with guard.held():
            cluster.stop()


def _serve_ui(leader_url: str, port: int, folder: Path, guard: SignalGuard) -> None:
    url = f"http://{HOST}:{port}"
    log_path = folder / "locust.log"
    command = [
        *(sys.executable, "-m", "locust", "-f", str(locustfile_path("writes"))),
        *("--host", leader_url, "--web-host", HOST, "--web-port", str(port)),
    ]
    with guard.held():
        child = processes.spawn(command, locust_environment(folder), log_path)
        locust = processes.mark(child.pid)
    try:
        _wait_for_ui(url, child, log_path)
        make_console().print(url, soft_wrap=True)
        make_console(stderr=True).print(
            f"Locust's web UI is at {url}, the leader at {leader_url}. Ctrl-C ends both.",
            soft_wrap=True,
        )
        child.wait()
    finally:
        with guard.held():
            processes.stop([locust])
            child.poll()
    raise ClusterError(f"Locust ended by itself. Its last lines:\n{processes.tail(log_path)}")


def _wait_for_ui(url: str, child: processes.Child, log_path: Path) -> None:
    deadline_s = time.monotonic() + UI_TIMEOUT_S
    with httpx.Client(trust_env=False, timeout=ASK_TIMEOUT_S) as client:
        while True:
            if child.poll() is not None or time.monotonic() > deadline_s:
                raise ClusterError(
                    f"Locust's web UI did not come up at {url}; is its port taken? "
                    f"Its last lines:\n{processes.tail(log_path)}"
                )
            try:
                if client.get(url).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(POLL_S)
