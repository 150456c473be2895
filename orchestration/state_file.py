"""Remembers, between commands, the cluster that ``up`` started and ``down`` will end."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import msgspec
import platformdirs

from orchestration.clusters.processes import Place, ProcessMark
from orchestration.errors import ClusterError
from orchestration.scenario import Engine

FOLDER_VARIABLE = "QUORUMETER_STATE_DIR"
_SCHEMA = 2


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
        start_id: what local nodes have as START_ID, and no other process has.
        place: where local nodes were started; None for containers.
    """

    engine: Engine
    nodes: tuple[KeptNode, ...]
    known_urls: tuple[str, ...]
    project: str = ""
    start_id: str = ""
    place: Place | None = None

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
    """Reads and writes the one state file in ``folder``, which only its owner may look into."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cluster.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Encloses what must not happen twice at once, such as starting the one kept cluster.

        Raises:
            ClusterError: another command is inside; it says so at once.
        """
        _make_folder(self.path.parent)
        lock = filelock.FileLock(self.path.with_suffix(".lock"), timeout=0)
        try:
            with lock:
                yield
        except filelock.Timeout:
            raise ClusterError(
                "Another quorumeter up or down is at work: wait until it has ended."
            ) from None

    def read(self) -> KeptCluster | None:
        """The kept cluster, or None if ``up`` keeps none.

        Raises:
            ClusterError: the file cannot be understood; the message names it.
        """
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return _from_json(text)
        except (ValueError, RecursionError) as error:
            raise ClusterError(
                f"{self.path} is damaged ({error}); end its nodes by hand, then delete the file."
            ) from error

    def write(self, cluster: KeptCluster) -> None:
        """Replace the file in one step, so that nobody ever reads half of it."""
        body = msgspec.json.encode({"schema": _SCHEMA, **asdict(cluster)})
        replace_file(self.path, msgspec.json.format(body, indent=2) + b"\n")

    def remove(self) -> None:
        """Forget the cluster."""
        self.path.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file of the state folder in one step."""
    _make_folder(path.parent)
    # A new file of a name that nobody can foresee: none that lies there is written through.
    handle, fresh = tempfile.mkstemp(prefix=f"{path.stem}-", dir=path.parent)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 - the handle is open already
            file.write(content)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def _make_folder(folder: Path) -> None:
    # What `down` ends stands in it.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _from_json(text: bytes) -> KeptCluster:
    schema = msgspec.json.decode(text, type=_Schema).schema
    if schema != _SCHEMA:
        raise ValueError(f"schema {schema} is of another version of quorumeter")
    kept = msgspec.json.decode(text, type=KeptCluster)
    if not kept.nodes or len(kept.known_urls) != len(kept.nodes) - 1:
        raise ValueError("its followers and their URLs differ in number")
    return kept


class _Schema(msgspec.Struct):
    schema: int
