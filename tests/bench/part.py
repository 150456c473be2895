"""What every part of the bench is given, and what it needs of the machine."""

from __future__ import annotations

import contextlib
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

# Programs that are not Python's, and the Debian package of each.
PACKAGES = {
    "etcd": "etcd-server",
    "git": "git",
    "redis-server": "redis-server",
    "strace": "strace",
    "wrk": "wrk",
}
# Figures above are shown without decimals.
LARGE = 100
IN_MEMORY = {"ramfs", "tmpfs"}


@dataclass(frozen=True, slots=True)
class Bench:
    """How a part runs.

    Attributes:
        console: where tables go.
        folder: an empty folder on a disk; the parts' data lie in folders of their own below it.
        rounds: turns of each candidate; at least 3, for a median.
        seconds: length of a turn.
    """

    console: Console
    folder: Path
    rounds: int
    seconds: int

    @contextlib.contextmanager
    def fresh_folder(self) -> Iterator[Path]:
        """An empty folder on the disk that all candidates share, removed at the end."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)

    def print_target(self, what: str, figure: float, least: float) -> None:
        """Prints whether a ratio or a rate has reached what is asked of it."""
        verdict = "[green]reached[/]" if figure >= least else "[red]missed[/]"
        shown = f"{figure:.2f}" if least < LARGE else f"{figure:,.0f}"
        self.console.print(f"{what}: {shown}, at least {least:,g} wanted: {verdict}.")


def require(programs: Iterable[str]) -> None:
    """Ends the bench with a sentence unless all programs are installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = " ".join(PACKAGES[program] for program in missing)
        raise SystemExit(
            f"The bench needs {', '.join(missing)}: on Debian apt-get install {packages}, "
            "or leave out the parts that use it with --parts."
        )


@contextlib.contextmanager
def disk_folder() -> Iterator[Path]:
    """A temporary folder that a sync has to write to a disk.

    Raises:
        SystemExit: Temporary files are kept in memory here; a sync would cost nothing.
    """
    with tempfile.TemporaryDirectory(prefix="quorumeter-bench-") as name:
        folder = Path(name).resolve()
        kind = file_system(folder)
        if kind in IN_MEMORY:
            raise SystemExit(
                f"{folder} is kept in memory ({kind}), where a sync costs nothing: "
                "let TMPDIR name a folder on a disk."
            )
        yield folder


def file_system(folder: Path) -> str:
    """The kind of file system that holds a folder, as the system names it."""
    mounts = psutil.disk_partitions(all=True)
    holding = [mount for mount in mounts if folder.is_relative_to(mount.mountpoint)]
    return max(holding, key=lambda mount: len(mount.mountpoint)).fstype


def describe_machine(folder: Path) -> str:
    """One line about what the figures below it are of."""
    memory_gib = psutil.virtual_memory().total / 2**30
    return (
        f"{psutil.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, "
        f"data on {file_system(folder)}."
    )
