"""docs/protocol.md: its rules name tests and code that there are."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.docs.pages import ROOT, table_after

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "protocol.md"
RULES = 32
# Where a module may be that the page names without its folder.
FOLDERS = (ROOT / "kv_app", ROOT / "kv_app" / "failover")

_CODE = re.compile(r"`([^`]+)`")
_INVARIANT = re.compile(r"\bI\d+\b")


class Rule(NamedTuple):
    """A row of the table of rules."""

    number: str
    text: str
    where: str
    guarded_by: str


def rules() -> list[Rule]:
    """All rows."""
    return [Rule(*row) for row in table_after(PAGE, "The protocol, rule by rule")]


def names_in(path: Path) -> set[str]:
    """What a file defines: functions, classes, and all that it assigns to, attributes too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case _:
                pass
    return names


def all_tests() -> set[str]:
    """The names of all test functions of the project."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in names_in(file) if name.startswith("test_")}


def problem_of(place: str) -> str | None:
    """What is wrong with a place in the code: a file, a module, or a name in a module."""
    if place.endswith(".py"):
        return None if (ROOT / "kv_app" / place).is_file() else f"there is no kv_app/{place}"
    module, _, name = place.partition(".")
    files = [folder / f"{module}.py" for folder in FOLDERS]
    there = [file for file in files if file.is_file()]
    if not there:
        return f"there is no module {module}"
    if name and not any(name in names_in(file) for file in there):
        return f"{module} has no {name}"
    return None


def test_rules_are_each_there_once_and_in_order() -> None:
    """Code and tests refer to them by their numbers."""
    assert [rule.number for rule in rules()] == [str(number) for number in range(1, RULES + 1)]


def test_rules_name_code_that_there_is() -> None:
    """What is moved or renamed has to be so on the page too."""
    places = [(rule.number, place) for rule in rules() for place in _CODE.findall(rule.where)]
    assert {number for number, _ in places} == {rule.number for rule in rules()}
    problems = [f"rule {number}: {problem_of(place)}" for number, place in places]
    assert [line for line in problems if not line.endswith(": None")] == []


def test_rules_name_tests_that_there_are() -> None:
    """A rule without a test is a hope; a test that was renamed is looked for in vain."""
    known = all_tests()
    named = {rule.number: _CODE.findall(rule.guarded_by) for rule in rules()}
    assert [number for number, names in named.items() if not names] == []
    unknown = [
        f"rule {number}: there is no {name}"
        for number, names in named.items()
        for name in names
        if name not in known
    ]
    assert unknown == []


def test_rules_name_invariants_that_the_page_explains() -> None:
    """Those that the search holds a run to."""
    explained = {row[0].split()[0] for row in table_after(PAGE, "How it is checked")}
    named = {name for rule in rules() for name in _INVARIANT.findall(rule.guarded_by)}
    assert named <= explained


@pytest.mark.parametrize(
    "place", ["failover/nowhere.py", "nowhere", "nowhere.may_open", "voters.nowhere"]
)
def test_place_that_there_is_not_is_a_problem(place: str) -> None:
    """Else the page could name anything."""
    assert problem_of(place) is not None
