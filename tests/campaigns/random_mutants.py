"""Breaks random places of the whole tree in a scratch copy, and looks which the tests notice.

The mutations of ``mutants`` are chosen: they hold the promises that somebody thought of. These are
drawn, and so tell how much of what nobody thought of is held. Each is one place of one file; the
tests that execute its line run, or those that execute its file, in this process only. A survivor is
a line to look at: it wants a test, or it changes nothing that anybody could see.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import coverage
from rich.table import Table

from tests.campaigns.campaign import Stage, Violation, conduct, parser_of
from tests.campaigns.mutant_sites import Site, sites_of
from tests.campaigns.scratch_trees import (
    GREEN,
    broken,
    make_trees,
    run_python,
    run_tests,
    try_each,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

PACKAGES = ("kv_app", "orchestration")
MUTATIONS, SHORT_MUTATIONS = 70, 8
# Of those that change behaviour.
LEAST_NOTICED = 0.95
# The tests whose lines are noted, in as many processes as there are groups.
SUITES = (
    ("tests/kv_app", "tests/simulation"),
    ("tests/orchestration", "tests/docs", "tests/campaigns"),
)
NOTING_TIMEOUT_S = 1_800.0
# A line that every test executes is noticed by some of them, or by none.
MAX_TESTS = 400
TESTS_TIMEOUT_S = 150.0
SHOWN_CHARACTERS = 60

Lines = dict[int, set[str]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A place of a file, and the tests that may notice."""

    path: str
    site: Site
    tests: tuple[str, ...]

    def __str__(self) -> str:
        old, new = (_short(text) for text in (self.site.old, self.site.new))
        return f"{self.path}:{self.site.line} {self.site.kind}: {old} -> {new}"


def campaign(stage: Stage) -> str:
    """Draws mutations, tries them, and lists those that nobody notices."""
    trees = make_trees(stage, stage.options.workers)
    stage.say("  notes which test executes which line")
    executed = note_lines(stage, trees[0])
    count = SHORT_MUTATIONS if stage.options.short else stage.options.mutations
    chosen = draw(stage, trees[0], executed, count)
    noticed: Counter[str] = Counter()
    survivors: list[str] = []
    tried: Counter[str] = Counter()
    attempt = partial(try_mutant, seed=stage.options.seed)
    for mutant, fate in zip(chosen, try_each(trees, chosen, attempt), strict=True):
        tried[mutant.site.kind] += 1
        noticed[mutant.site.kind] += fate != "survived"
        if fate == "survived":
            survivors.append(f"{mutant} ({len(mutant.tests)} tests)")
        stage.console.print(f"  {fate}: {mutant}", markup=False, highlight=False)
    table = Table("kind", "noticed", "of")
    for kind, number in sorted(tried.items()):
        table.add_row(kind, str(noticed[kind]), str(number))
    stage.console.print(table)
    share = 1 - len(survivors) / len(chosen)
    if share < LEAST_NOTICED:
        raise Violation(
            f"{share:.0%} of {len(chosen)} mutations are noticed; each of the others wants a test, "
            "or changes nothing.",
            survivors,
        )
    return "\n  ".join([f"{share:.0%} of {len(chosen)} mutations noticed.", *survivors])


def note_lines(stage: Stage, tree: Path) -> dict[str, Lines]:
    """Runs the suites once; gives, for each file and line, the tests that execute it.

    Raises:
        Violation: The tests are not green, so that red would mean nothing.
    """
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.campaigns.line_contexts"]

    def run(number: int) -> subprocess.CompletedProcess[str]:
        data = f"--data-file={stage.folder / f'lines{number}'}"
        command = ["-m", "coverage", "run", data, *pytest, "-m", "not alone", *SUITES[number]]
        return run_python(tree, command, NOTING_TIMEOUT_S)

    executed: dict[str, Lines] = {}
    with ThreadPoolExecutor(stage.options.workers) as pool:
        for number, done in enumerate(pool.map(run, range(len(SUITES)))):
            if done.returncode != GREEN:
                raise Violation(
                    "The tests are not green without a mutation.", done.stdout.splitlines()[-30:]
                )
            _add_lines(executed, stage.folder / f"lines{number}", tree)
    return executed


def _add_lines(executed: dict[str, Lines], path: Path, tree: Path) -> None:
    data = coverage.CoverageData(str(path))
    data.read()
    for file in data.measured_files():
        lines = executed.setdefault(Path(file).relative_to(tree.resolve()).as_posix(), {})
        for line, tests in data.contexts_by_lineno(file).items():
            lines.setdefault(line, set()).update(filter(None, tests))


def draw(stage: Stage, tree: Path, executed: Mapping[str, Lines], count: int) -> list[Mutant]:
    """Draws places, each as likely as any other, and their tests."""
    places = [
        (path.relative_to(tree).as_posix(), site)
        for package in PACKAGES
        for path in sorted((tree / package).rglob("*.py"))
        for site in sites_of(path.read_text(encoding="utf-8"))
    ]
    stage.say(f"  {len(places):,} places, of which {count} are drawn")
    chosen = stage.random.sample(places, count)
    return [
        Mutant(path, site, tests_for(stage, tree, path, site.line, executed.get(path, {})))
        for path, site in chosen
    ]


def tests_for(stage: Stage, tree: Path, path: str, line: int, executed: Lines) -> tuple[str, ...]:
    """The tests that execute a line; else its file; else those that its name suggests."""
    tests = executed.get(line) or set().union(*executed.values())
    if not tests:
        name = Path(path).stem
        tests = {
            found.relative_to(tree).as_posix()
            for found in (tree / "tests").rglob(f"test_{name}*.py")
        } or {"tests/orchestration/load" if "/load/" in path else "tests/cluster/test_sweep.py"}
    ordered = sorted(tests)
    if len(ordered) > MAX_TESTS:
        ordered = sorted(stage.random.sample(ordered, MAX_TESTS))
    return tuple(ordered)


def try_mutant(tree: Path, mutant: Mutant, seed: int) -> str:
    """Breaks one place, runs its tests, and takes it back; in words what came of it."""
    start_s = time.monotonic()
    chosen = tree / "chosen-tests.txt"
    chosen.write_text("\n".join(mutant.tests) + "\n", encoding="utf-8")
    with broken(tree / mutant.path, mutant.site.apply):
        done = run_tests(tree, [f"@{chosen}"], seed, TESTS_TIMEOUT_S)
    if done is None:
        return "noticed, it hangs"
    # What cannot even be collected is noticed as well.
    took_s = time.monotonic() - start_s
    return "survived" if done.returncode == GREEN else f"noticed in {took_s:.0f} s"


def _short(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= SHOWN_CHARACTERS else f"{one_line[:SHOWN_CHARACTERS]}…"


def main() -> None:
    """Runs the campaign."""
    parser = parser_of("random_mutants", __doc__ or "")
    parser.add_argument("--mutations", type=int, default=MUTATIONS, help="how many are drawn")
    parser.add_argument("--workers", type=int, default=2, help="scratch copies used at a time")
    conduct(parser, campaign)


if __name__ == "__main__":
    main()
