"""Breaks the store in a scratch copy, one promise at a time, and runs the tests named for it.

A test suite that stays green over a broken store is worth nothing: every mutation has to turn its
tests red. The copy without a mutation has to be green for the same tests first.
"""

from __future__ import annotations

import time
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from rich.table import Table

from tests.campaigns.campaign import Stage, Violation, conduct, parser_of
from tests.campaigns.mutations import MUTATIONS
from tests.campaigns.scratch_trees import GREEN, RED, broken, make_trees, run_tests, try_each

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.campaigns.mutation import Mutation

TESTS_TIMEOUT_S = 120.0
WORKERS = 2
SHORT_MUTATIONS = 12
SHOWN_LINES = 15


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
    trees = make_trees(stage, WORKERS)
    check_applicable(trees[0], chosen)
    stage.say(f"  {len(chosen)} mutations; first their tests without any")
    check_green(trees[0], chosen, stage.options.seed)
    table = Table("mutation", "file", "fate", "s")
    survivors: list[str] = []
    attempt = partial(try_mutation, seed=stage.options.seed)
    for mutation, (fate, took_s) in zip(chosen, try_each(trees, chosen, attempt), strict=True):
        colour = "green" if fate is Fate.KILLED else "bold red"
        table.add_row(mutation.name, mutation.path, f"[{colour}]{fate}[/]", f"{took_s:.1f}")
        if fate is not Fate.KILLED:
            survivors.append(f"{mutation.name}: {fate} by {' '.join(mutation.tests)}")
    stage.console.print(table)
    if survivors:
        raise Violation("The tests do not notice that the store is broken.", survivors)
    return f"{len(chosen)} ways to break the store, each noticed."


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
    code = (tree / mutation.path).read_text(encoding="utf-8")
    wrong = [f"{mutation.name}: there is no {test}" for test in _missing(tree, mutation.tests)]
    if (count := code.count(mutation.old)) != 1:
        return [*wrong, f"{mutation.name}: {mutation.path} has {count} times {mutation.old!r}"]
    try:
        compile(code.replace(mutation.old, mutation.new), mutation.path, "exec")
    except SyntaxError as error:  # which no test has to notice
        wrong.append(f"{mutation.name}: {mutation.path}, line {error.lineno}: {error.msg}")
    return wrong


def _missing(tree: Path, tests: Sequence[str]) -> list[str]:
    return [test for test in tests if not (tree / test.partition("::")[0]).exists()]


def check_green(tree: Path, mutations: Sequence[Mutation], seed: int) -> None:
    """Checks that the tests are green without a mutation.

    Raises:
        Violation: They are not, so that red would mean nothing.
    """
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    done = run_tests(tree, tests, seed, TESTS_TIMEOUT_S)
    if done is None or done.returncode != GREEN:
        lines = done.stdout.splitlines()[-SHOWN_LINES:] if done else ["they did not end in time"]
        raise Violation("The tests are not green without a mutation.", lines)


def try_mutation(tree: Path, mutation: Mutation, seed: int) -> tuple[Fate, float]:
    """Applies one mutation, runs its tests, takes it back; tells what came of it, in how long."""
    start_s = time.monotonic()
    with broken(tree / mutation.path, lambda text: text.replace(mutation.old, mutation.new)):
        done = run_tests(tree, mutation.tests, seed, TESTS_TIMEOUT_S)
    took_s = time.monotonic() - start_s
    if done is None or done.returncode not in {GREEN, RED}:
        return Fate.BROKEN, took_s
    return Fate.KILLED if done.returncode == RED else Fate.SURVIVED, took_s


def main() -> None:
    """Runs the campaign."""
    parser = parser_of("mutants", __doc__ or "")
    parser.add_argument("--only", default="", help="only mutations whose names hold this text")
    conduct(parser, campaign)


if __name__ == "__main__":
    main()
