"""Breaks random places of the whole tree in a scratch copy, and looks which the tests notice.

The mutations of ``mutants`` are chosen: they hold the promises that somebody thought of. These are
drawn, and so tell how much of what nobody thought of is held. Each is one place of one file; the
tests that execute its line run, or those that execute its file; then, if none of them notices, some
of those on real processes. A survivor is a line to look at: it wants a test, or it changes nothing
that anybody could see.
"""

from __future__ import annotations

import re
import threading
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
from tests.campaigns.line_contexts import TEST_VARIABLE
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
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

PACKAGES = ("kv_app", "orchestration")
MUTATIONS, SHORT_MUTATIONS = 70, 8
# Of those that change behaviour.
LEAST_NOTICED = 0.95
# The tests whose lines are noted: two groups beside each other, then those on real clusters.
SUITES = (
    ("tests/kv_app", "tests/simulation"),
    ("tests/orchestration", "tests/docs", "tests/campaigns"),
)
CLUSTER_SUITE = "tests/cluster"
NOTING_TIMEOUT_S = 1_800.0
# Each process leaves a file of its own, with the lines of the test that has started it.
COVERAGE_SETTINGS = """[run]
source = kv_app, orchestration
concurrency = thread
parallel = true
data_file = {data_file}
context = ${{{variable}-}}
"""
# A line that every test executes is noticed by some of them, or by none.
MAX_TESTS = 400
TESTS_TIMEOUT_S = 300.0
# Those on real clusters take seconds each, and spoil each other's times.
MAX_CLUSTER_TESTS = 12
CLUSTER_TESTS_TIMEOUT_S = 300.0
HANGS = "they hang"
ONE_CLUSTER_AT_A_TIME = threading.Lock()
SHOWN_CHARACTERS = 60
# What coverage calls all that runs in no test: lines outside of functions, mostly.
AT_IMPORT = ""

Lines = dict[int, set[str]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A place of a file, and the tests that may notice: those of this process go first."""

    path: str
    site: Site
    tests: tuple[str, ...]
    cluster_tests: tuple[str, ...]

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

    A test on a real cluster that is too slow with its lines noted is left out.

    Raises:
        Violation: The others are not green, so that red would mean nothing.
    """
    settings, data = stage.folder / "coverage.ini", stage.room("lines")
    text = COVERAGE_SETTINGS.format(data_file=data / "lines", variable=TEST_VARIABLE)
    settings.write_text(text, encoding="utf-8")

    def run(suite: Sequence[str]) -> subprocess.CompletedProcess[str]:
        cache = f"cache_dir={stage.folder / suite[0].replace('/', '-')}"
        plugin = ["-p", "tests.campaigns.line_contexts", "-o", cache, "-m", "not alone"]
        command = ["-m", "pytest", "-q", *plugin, *suite]
        variables = {"COVERAGE_PROCESS_START": str(settings)}
        return run_python(tree, command, NOTING_TIMEOUT_S, variables)

    with ThreadPoolExecutor(stage.options.workers) as pool:
        for done in pool.map(run, SUITES):
            if done.returncode != GREEN:
                raise Violation(
                    "The tests are not green without a mutation.", done.stdout.splitlines()[-30:]
                )
    red = set(
        re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", run([CLUSTER_SUITE]).stdout, re.MULTILINE)
    )
    if red:
        stage.say(f"  too slow with their lines noted: {', '.join(sorted(red))}")
    return _lines_in(data, tree, red)


def _lines_in(folder: Path, tree: Path, without: AbstractSet[str]) -> dict[str, Lines]:
    """All processes' lines together."""
    executed: dict[str, Lines] = {}
    for path in folder.iterdir():
        data = coverage.CoverageData(str(path))
        data.read()
        for file in data.measured_files():
            lines = executed.setdefault(Path(file).relative_to(tree.resolve()).as_posix(), {})
            for line, tests in data.contexts_by_lineno(file).items():
                lines.setdefault(line, set()).update({*tests} - without)
    return executed


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
    return [mutant_at(stage, tree, path, site, executed.get(path, {})) for path, site in chosen]


def mutant_at(stage: Stage, tree: Path, path: str, site: Site, executed: Lines) -> Mutant:
    """A place with the tests that execute its line, or its file; else what its name suggests."""
    here = executed.get(site.line, set())
    if not here or AT_IMPORT in here:  # whoever uses the file
        here = set().union(*executed.values())
    own = {test for test in here if test != AT_IMPORT and not is_cluster_test(test)}
    named = {
        found.relative_to(tree).as_posix()
        for found in (tree / "tests").rglob(f"test_{Path(path).stem}*.py")
        if not is_cluster_test(found.relative_to(tree).as_posix())
    }
    clusters = {test for test in here if is_cluster_test(test)}
    return Mutant(
        path,
        site,
        some_of(stage, own or named, MAX_TESTS, path),
        some_of(stage, clusters, MAX_CLUSTER_TESTS, path),
    )


def is_cluster_test(test: str) -> bool:
    """Tells if a test runs on a real cluster."""
    return test.startswith(CLUSTER_SUITE)


def some_of(stage: Stage, tests: AbstractSet[str], at_most: int, path: str) -> tuple[str, ...]:
    """At most so many tests; those of the file's own name before others."""
    drawn = stage.random.sample(sorted(tests), len(tests))
    drawn.sort(key=lambda test: f"/test_{Path(path).stem}" not in test)
    return tuple(sorted(drawn[:at_most]))


def try_mutant(tree: Path, mutant: Mutant, seed: int) -> str:
    """Breaks one place, runs its tests, and takes it back; in words what came of it."""
    start_s = time.monotonic()
    by = _noticed(tree, mutant, mutant.tests, seed, TESTS_TIMEOUT_S)
    if by is None:
        with ONE_CLUSTER_AT_A_TIME:
            by = _noticed(tree, mutant, mutant.cluster_tests, seed, CLUSTER_TESTS_TIMEOUT_S)
    took_s = time.monotonic() - start_s
    return "survived" if by is None else f"noticed in {took_s:.0f} s: {_short(by)}"


def _noticed(
    tree: Path, mutant: Mutant, tests: Sequence[str], seed: int, timeout_s: float
) -> str | None:
    """The test that notices; None if none does, or if it is red or too slow in any case."""
    if not tests:
        return None
    with broken(tree / mutant.path, mutant.site.apply):
        by = _red_one(tree, tests, seed, timeout_s)
    depends_on_time = by == HANGS or (by is not None and is_cluster_test(by))
    if depends_on_time and _red_one(tree, tests, seed, timeout_s):
        return None
    return by


def _red_one(tree: Path, tests: Sequence[str], seed: int, timeout_s: float) -> str | None:
    """What is red now: a test, or that they hang, or cannot even be collected; None if nothing."""
    chosen = tree / "chosen-tests.txt"
    chosen.write_text("\n".join(tests) + "\n", encoding="utf-8")
    done = run_tests(tree, [f"@{chosen}"], seed, timeout_s)
    if done is None:
        return HANGS
    if done.returncode == GREEN:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else "it cannot be collected"


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
