"""The ``quorumeter`` command as a user runs it, and what it must not leave behind."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from tests.cluster.nodes import clean_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
MARK = "QUORUMETER_TEST_MARK"
Measured = TypeVar("Measured")


@dataclass
class Tool:
    """Runs the command with a home of its own; its processes bear a mark that children inherit."""

    home: Path
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def environment(self) -> dict[str, str]:
        """What the command inherits."""
        state = str(self.home / "state")
        return clean_environment(
            **{MARK: self.mark}, QUORUMETER_STATE_DIR=state, NO_COLOR="1", COLUMNS="100"
        )

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "orchestration", *map(str, arguments)]

    def run(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs the command to its end."""
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment, **environment},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @contextlib.contextmanager
    def started(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """Starts the command; at the end of the block it is ended if it still runs."""
        with subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    process.communicate(timeout=30)

    def processes(self, *words: str) -> list[psutil.Process]:
        """All living processes that the command started, with these words in their command."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get(MARK) != self.mark:
                    continue
                if all(word in process.cmdline() for word in words):
                    found.append(process)
        return found

    def node(self, node_id: str) -> psutil.Process:
        """The process of one node, once it runs."""

        def find() -> psutil.Process | None:
            for process in self.processes("kv_app"):
                with contextlib.suppress(psutil.Error):
                    if process.environ().get("NODE_ID") == node_id:
                        return process
            return None

        process: psutil.Process = wait_until(find, f"{node_id} runs")
        return process

    def assert_nothing_left(self) -> None:
        """No process of the command lives any more."""
        wait_until(lambda: not self.processes(), f"gone: {self.processes()}", 5)


def run_folder(out: Path) -> Path:
    """The folder of the only run below a root."""
    manifests = list(out.glob("*/*/manifest.json"))
    assert len(manifests) == 1, manifests
    return manifests[0].parent


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The trials that a run has written down so far."""
    cells = list(out.glob("*/*/cells.jsonl"))
    if not cells:
        return []
    return [json.loads(line) for line in cells[0].read_text().splitlines() if line.endswith("}")]


def assert_told(exit_code: int | None, out: Path) -> None:
    """The exit code is that of the verdict, and the run is complete.

    Whether the figures may be quoted depends on how calm the machine is: that is for the tests that
    run alone.
    """
    summary = json.loads((run_folder(out) / "summary.json").read_text())
    assert summary["status"] == "complete"
    assert exit_code == {"valid": 0, "unknown": 2}[summary["verdict"]]


def calmly(measure: Callable[[Path], Measured], root: Path) -> tuple[Measured, Path]:
    """What a sweep returned whose figures may be quoted, and the root of its run.

    One that the tool itself does not quote, because the machine was in use, is measured again; the
    third is the last, whatever it says.
    """
    for number in range(1, 4):
        out = root / f"out{number}"
        measured = measure(out)
        if not any(row["stamp"] in {"generator-bound", "saturated"} for row in rows_of(out)):
            break
    return measured, out


def wait_rows(out: Path, count: int, timeout_s: float = 40) -> list[dict[str, Any]]:
    """Waits until a run has written down so many trials."""
    rows: list[dict[str, Any]] = wait_until(
        lambda: len(rows := rows_of(out)) >= count and rows, f"{count} trials are done", timeout_s
    )
    return rows
