"""Copies of the project that may be broken, and the runs of its tests in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.campaigns.campaign import Stage

ROOT = Path(__file__).parents[2]
# What pytest's exit codes say.
GREEN, RED = 0, 1

Item = TypeVar("Item")
Fate = TypeVar("Fate")


def make_trees(stage: Stage, count: int) -> list[Path]:
    """Copies the project so often, as it is now, with what is not committed."""
    trees = [stage.room(f"tree{number}") for number in range(count)]
    for tree in trees:
        _copy_to(tree)
    return trees


def _copy_to(target: Path) -> None:
    """Copies all but what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # else removed, and not committed yet
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def try_each(
    trees: Sequence[Path], items: Sequence[Item], attempt: Callable[[Path, Item], Fate]
) -> Iterator[Fate]:
    """Yields what attempts came to, in the order of their items; each has a tree for itself."""
    idle: Queue[Path] = Queue()
    for tree in trees:
        idle.put(tree)

    def attempt_one(item: Item) -> Fate:
        tree = idle.get()
        try:
            return attempt(tree, item)
        finally:
            idle.put(tree)

    pool = ThreadPoolExecutor(len(trees))
    try:
        yield from pool.map(attempt_one, items)
    finally:  # those that run are ended with all other processes of the campaign
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def broken(path: Path, break_it: Callable[[str], str]) -> Iterator[None]:
    """Lets a file have another text for the length of a block."""
    text = path.read_text(encoding="utf-8")
    path.write_text(break_it(text), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def run_tests(
    tree: Path, tests: Sequence[str], seed: int, timeout_s: float
) -> subprocess.CompletedProcess[str] | None:
    """Runs tests of a copy until the first fails; None if they did not end in time."""
    cache = f"cache_dir={tree / '.cache'}"
    command = ["-m", "pytest", "-x", "-q", "-o", cache, f"--hypothesis-seed={seed}"]
    try:
        return run_python(tree, [*command, *tests], timeout_s)
    except subprocess.TimeoutExpired:
        return None


def run_python(
    tree: Path,
    arguments: Sequence[str],
    timeout_s: float,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Runs Python in a copy.

    Raises:
        subprocess.TimeoutExpired: It did not end in time.
    """
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        # Processes that tests start are those of the copy too, wherever they run.
        env={
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(tree),
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
