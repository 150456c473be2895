"""Notes what an attached cluster was like, until that is put back: also over a killed process."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from orchestration.clusters import processes
from orchestration.clusters.processes import ProcessMark
from orchestration.state_file import replace_file


class Before(NamedTuple):
    """What a cluster was like before it was used.

    Attributes:
        quorum: its k.
        changed_url: whose link delays were changed, the leader of then; empty if nobody's were.
        start_id: of that node: after a restart its delays are those of its settings again.
        delay_ms: that node's delays.
    """

    quorum: int
    changed_url: str = ""
    start_id: str = ""
    delay_ms: tuple[float, float] = (0.0, 0.0)


class _Entry(msgspec.Struct):
    before: Before
    writer: ProcessMark


class Journal:
    """The notes in ``folder``, one for each cluster in use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, cluster: str) -> Before | None:
        """What a process that was killed has left to be put back; None if there is nothing.

        Args:
            cluster: tells it from others.

        Raises:
            BusyError: the process that uses the cluster still runs.
        """
        try:
            entry = msgspec.json.decode(self._path(cluster).read_bytes(), type=_Entry)
        except (OSError, ValueError, RecursionError):
            return None
        try:
            is_busy = processes.find(entry.writer) is not None
        except psutil.AccessDenied:
            is_busy = True
        if is_busy and entry.writer.pid != os.getpid():
            raise BusyError(entry.writer.pid)
        return entry.before

    def write(self, cluster: str, before: Before) -> None:
        """Note it, before anything is changed."""
        entry = _Entry(before, processes.mark(os.getpid()))
        replace_file(self._path(cluster), msgspec.json.encode(entry))

    def remove(self, cluster: str) -> None:
        """Forget the note, if there is one: all is as it was."""
        with suppress(OSError):
            self._path(cluster).unlink()

    def _path(self, cluster: str) -> Path:
        name = hashlib.sha256(cluster.encode(errors="replace")).hexdigest()[:16]
        return self._folder / f"attached-{name}.json"


class BusyError(Exception):
    """Another process uses the cluster; the argument is its pid."""
