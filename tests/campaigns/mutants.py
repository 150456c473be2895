"""Breaks the store in a scratch copy, one promise at a time, and runs the tests named for it.

A test suite that stays green over a broken store is worth nothing: every mutation has to turn its
tests red. The copy without a mutation has to be green for the same tests first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING

from rich.table import Table

from tests.campaigns.campaign import Stage, Violation, conduct, parser_of
from tests.campaigns.mutations import MUTATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.campaigns.mutation import Mutation

ROOT = Path(__file__).parents[2]
TESTS_TIMEOUT_S = 120.0
WORKERS = 2
SHORT_MUTATIONS = 12
SHOWN_LINES = 15
# What pytest's exit codes say.
GREEN, RED = 0, 1


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    BROKEN = "could not be tried"


def campaign(stage: Stage) -> str:
    """Tries all mutations, or those whose names hold the text that was given."""
    chosen = [mutation for mutation in MUTATIONS if stage.options.only in mutation.name]
    if stage.options.short:  # some of them, others each time
        chosen = stage.random.sample(chosen, min(SHORT_MUTATIONS, len(chosen)))
    trees = [stage.room(f"tree{number}") for number in range(WORKERS)]
    for tree in trees:
        copy_tree(tree)
    check_applicable(trees[0], chosen)
    stage.say(f"  {len(chosen)} mutations; first their tests without any")
    check_green(trees[0], chosen, stage.options.seed)
    table = Table("mutation", "file", "fate", "s")
    survivors: list[str] = []
    for mutation, (fate, took_s) in zip(
        chosen, try_all(trees, chosen, stage.options.seed), strict=True
    ):
        colour = "green" if fate is Fate.KILLED else "bold red"
        table.add_row(mutation.name, mutation.path, f"[{colour}]{fate}[/]", f"{took_s:.1f}")
        if fate is not Fate.KILLED:
            survivors.append(f"{mutation.name}: {fate} by {' '.join(mutation.tests)}")
    stage.console.print(table)
    if survivors:
        raise Violation("The tests do not notice that the store is broken.", survivors)
    return f"{len(chosen)} ways to break the store, each noticed."


def copy_tree(target: Path) -> None:
    """Copies the project as it is now, with what is not committed, without what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # else removed, and not committed yet
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def check_applicable(tree: Path, mutations: Sequence[Mutation]) -> None:
    """Checks that each mutation's text occurs once, and that its tests exist.

    Raises:
        Violation: One does not: the code has changed since it was written.
    """
    wrong = [line for mutation in mutations for line in problems_of(tree, mutation)]
    if wrong:
        raise Violation("Mutations do not fit the code any more; mend mutations.py.", wrong)


def problems_of(tree: Path, mutation: Mutation) -> list[str]:
    """Returns why a mutation cannot be tried in a tree; nothing if it can."""
    count = (tree / mutation.path).read_text(encoding="utf-8").count(mutation.old)
    wrong = [f"{mutation.name}: there is no {test}" for test in _missing(tree, mutation.tests)]
    if count != 1:
        wrong.append(f"{mutation.name}: {mutation.path} has {count} times {mutation.old!r}")
    return wrong


def _missing(tree: Path, tests: Sequence[str]) -> list[str]:
    return [test for test in tests if not (tree / test.partition("::")[0]).exists()]


def check_green(tree: Path, mutations: Sequence[Mutation], seed: int) -> None:
    """Checks that the tests are green without a mutation.

    Raises:
        Violation: They are not, so that red would mean nothing.
    """
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    done = run_tests(tree, tests, seed)
    if done is None or done.returncode != GREEN:
        lines = done.stdout.splitlines()[-SHOWN_LINES:] if done else ["they did not end in time"]
        raise Violation("The tests are not green without a mutation.", lines)


def try_all(
    trees: Sequence[Path], mutations: Sequence[Mutation], seed: int
) -> Iterator[tuple[Fate, float]]:
    """Yields what became of each mutant, in their order, and how many seconds that took."""
    idle: Queue[Path] = Queue()
    for tree in trees:
        idle.put(tree)

    def attempt(mutation: Mutation) -> tuple[Fate, float]:
        tree, start_s = idle.get(), time.monotonic()
        try:
            return try_mutation(tree, mutation, seed), time.monotonic() - start_s
        finally:
            idle.put(tree)

    pool = ThreadPoolExecutor(len(trees))
    try:
        yield from pool.map(attempt, mutations)
    finally:  # those that run are ended with all other processes of the campaign
        pool.shutdown(wait=False, cancel_futures=True)


def try_mutation(tree: Path, mutation: Mutation, seed: int) -> Fate:
    """Applies one mutation, runs its tests, and takes it back."""
    path = tree / mutation.path
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        done = run_tests(tree, mutation.tests, seed)
    finally:
        path.write_text(text, encoding="utf-8")
    if done is None or done.returncode not in {GREEN, RED}:
        return Fate.BROKEN
    return Fate.KILLED if done.returncode == RED else Fate.SURVIVED


def run_tests(
    tree: Path, tests: Sequence[str], seed: int
) -> subprocess.CompletedProcess[str] | None:
    """Runs tests of the scratch copy until the first fails; None if they did not end in time."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += [f"--hypothesis-seed={seed}", *tests]
    try:
        return subprocess.run(
            command,
            cwd=tree,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=TESTS_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None


def main() -> None:
    """Runs the campaign."""
    parser = parser_of("mutants", __doc__ or "")
    parser.add_argument("--only", default="", help="only mutations whose names hold this text")
    conduct(parser, campaign)


if __name__ == "__main__":
    main()
