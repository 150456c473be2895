"""A cluster of containers, by the project's docker-compose.yml."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orchestration.clusters.attached import AttachedCluster
from orchestration.control import Control
from orchestration.errors import ClusterError, PortTakenError
from orchestration.scenario import DelayModel, Engine

COMPOSE_FILE = Path(__file__).resolve().parents[2] / "docker-compose.yml"
# What docker-compose.yml declares: its followers, and the host's ports from the leader's on.
FOLLOWERS = 5
FIRST_PORT = 8000
NODE_URLS = tuple(f"http://127.0.0.1:{FIRST_PORT + index}" for index in range(FOLLOWERS + 1))
NODE_IDS = ("leader", *(f"follower{index}" for index in range(1, FOLLOWERS + 1)))

ANSWER_TIMEOUT_S = 20.0
BUILD_TIMEOUT_S = 900.0
READY_TIMEOUT_S = 60.0
DOWN_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5
POLL_S = 0.2
TAIL_LINES = 15
DELAY_VARIABLES = ("MIN_DELAY_MS", "MAX_DELAY_MS", "DELAY_MODEL")
PORT_TAKEN_WORDS = ("port is already allocated", "address already in use")


class ComposeCluster:
    """Builds and starts the containers, and removes them with all that belongs to them.

    Args:
        project: Compose's project name: what `stop` removes.
        control: the client for health checks.
        delay_ms: link delays of every node, so that one that is promoted has them too; None leaves
            those of docker-compose.yml.
        delay_model: whether entries may overtake each other on a link; None leaves that of
            docker-compose.yml.
        log_dir: receives the containers' logs when they are stopped; None keeps none.
    """

    engine: Engine = "compose"

    def __init__(
        self,
        project: str,
        control: Control,
        *,
        delay_ms: tuple[float, float] | None = None,
        delay_model: DelayModel | None = None,
        log_dir: Path | None = None,
    ) -> None:
        self.project = project
        self._control = control
        self._log_dir = log_dir
        self._environment = _environment(delay_ms, delay_model)
        self._nodes = AttachedCluster(NODE_URLS[0], control, reached_urls=NODE_URLS[1:])
        self._command: list[str] | None = None

    @property
    def leader_url(self) -> str:
        """Where the leader answers."""
        return self._nodes.leader_url

    @property
    def follower_urls(self) -> Mapping[str, str]:
        """From the URL inside the containers' network to the port published here."""
        return self._nodes.follower_urls

    def start(self) -> None:
        """Build the image, start the containers; returns once the leader is ready.

        Raises:
            ClusterError: there is no Docker engine, or it could not do this; says what it said.
        """
        if not COMPOSE_FILE.is_file():
            raise ClusterError(
                f"{COMPOSE_FILE} is not there: --engine compose works from a clone of the project."
            )
        self._command = find_compose()
        self._compose("up", "--build", "-d", timeout_s=BUILD_TIMEOUT_S)
        self._wait_until_ready()
        self._nodes.start()

    def stop(self) -> None:
        """Remove containers, network and volumes of the project; keep the logs.

        Raises:
            ClusterError: Docker did not remove them; the message has the command that does.
        """
        if self._command is None:
            return
        if self._log_dir is not None:
            with suppress(OSError):  # on a full disk the containers are to go all the same
                self._keep_logs(self._log_dir)
        down = ("down", "-v", "--remove-orphans")
        done = self._run(*down, "-t", str(STOP_TIMEOUT_S), timeout_s=DOWN_TIMEOUT_S)
        if done.returncode:
            command = shlex.join([*self._command, *self._file, *down])
            raise ClusterError(
                f"The containers of {self.project} could not be removed and may still run: remove "
                f"them with {command}. Docker's last lines:\n{_tail(done.stdout + done.stderr)}"
            )
        self._command = None

    def remove(self) -> None:
        """End containers that an earlier process started under the same project name."""
        self._command = find_compose()
        self.stop()

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        waiting = dict(zip(NODE_URLS, NODE_IDS, strict=True))
        while True:
            reasons = [reason for url, name in waiting.items() if (reason := self._why(url, name))]
            if not reasons:
                return
            if time.monotonic() > deadline_s:
                logs = self._run("logs", "--no-color", timeout_s=DOWN_TIMEOUT_S).stdout
                raise ClusterError(
                    f"The containers were not ready within {READY_TIMEOUT_S:g} s: {reasons[0]}. "
                    f"Their last lines:\n{_tail(logs)}"
                )
            time.sleep(POLL_S)

    def _why(self, url: str, node_id: str) -> str:
        """Why this node is not ready; empty once it is."""
        try:
            health = self._control.health(url)
            self._control.check_ready(url)
        except ClusterError as problem:
            return str(problem)
        if health.node_id != node_id:
            return f"{health.node_id} answers at {url} where {node_id} should"
        return ""

    def _compose(self, *arguments: str, timeout_s: float) -> None:
        done = self._run(*arguments, timeout_s=timeout_s)
        said = done.stdout + done.stderr
        if done.returncode and any(words in said for words in PORT_TAKEN_WORDS):
            raise PortTakenError(
                f"Docker cannot publish the nodes at {NODE_URLS[0]} to {NODE_URLS[-1]}, another "
                f"program or cluster listens there: end it. Docker's last line:\n{_tail(said, 1)}"
            )
        if done.returncode:
            raise ClusterError(
                f"{' '.join(self._command or [])} {arguments[0]} failed with exit code "
                f"{done.returncode}. Its last lines:\n{_tail(said)}"
            )

    def _keep_logs(self, folder: Path) -> None:
        logs = self._run("logs", "--no-color", timeout_s=DOWN_TIMEOUT_S)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "compose.log").write_text(logs.stdout, encoding="utf-8")

    @property
    def _file(self) -> tuple[str, ...]:
        return ("-p", self.project, "-f", str(COMPOSE_FILE))

    def _run(self, *arguments: str, timeout_s: float) -> "subprocess.CompletedProcess[str]":
        return _run([*(self._command or []), *self._file, *arguments], timeout_s, self._environment)


def find_compose() -> list[str]:
    """The command of Docker Compose that answers here: today's plugin, else the old program.

    Raises:
        ClusterError: no engine answers, or there is no Compose; the message says which.
    """
    if shutil.which("docker") is None:
        raise ClusterError(
            "There is no docker command here: install Docker, or use --engine local."
        )
    if _run(["docker", "version"], ANSWER_TIMEOUT_S).returncode:
        raise ClusterError(
            "No Docker engine answers (docker version failed): start it, or use --engine local."
        )
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and not _run([*command, "version"], ANSWER_TIMEOUT_S).returncode
        ):
            return command
    raise ClusterError(
        "Docker Compose is missing (neither docker compose nor docker-compose answers): "
        "install it, or use --engine local."
    )


def _environment(
    delay_ms: tuple[float, float] | None, delay_model: DelayModel | None
) -> dict[str, str]:
    """What Compose inherits; the user's delays and k are meant for other nodes."""
    others = {*DELAY_VARIABLES, "WRITE_QUORUM"}
    inherited = {name: value for name, value in os.environ.items() if name not in others}
    asked = (*(delay_ms or (None, None)), delay_model)
    delays = zip(DELAY_VARIABLES, asked, strict=True)
    return inherited | {name: str(value) for name, value in delays if value is not None}


def _run(
    command: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    # A session of its own: a terminal's Ctrl-C must not end a clean-up half-way.
    try:
        return subprocess.run(  # noqa: S603 - docker, by name, with the project's own arguments
            list(command),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            start_new_session=sys.platform != "win32",
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(
            list(command), 124, "", f"no answer within {timeout_s:g} s"
        )


def _tail(text: str, lines: int = TAIL_LINES) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
