"""Where a source file can be broken."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.campaigns.mutant_sites import sites_of

# Of the places of each file one in so many is tried.
EVERY = 50
ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for package in ("kv_app", "orchestration") for path in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", "x = (a <= b)"),
        ("x = a is None", "x = (a is not None)"),
        ("x = a and b", "x = (a or b)"),
        ("x = not a", "x = (a)"),
        ("x = a + b", "x = (a - b)"),
        ("x = 3", "x = 4"),
        ("x = True", "x = False"),
        ("def f():\n    return g(1.5)", "def f():\n    return None"),
        ("if a:\n    pass", "if (not (a)):\n    pass"),
        ("f()", "pass"),
        ("é = 1; x += y", "é = 1; pass"),
    ],
)
def test_each_kind_breaks_one_place(source: str, expected: str) -> None:
    """And leaves the rest of the file as it is, to the letter."""
    assert expected in [site.apply(source) for site in sites_of(source)]


@pytest.mark.parametrize(
    "source",
    [
        '"""Says 1 + 1."""',
        "def f(a: int = x) -> list[1]: ...",
        'x = f"{a + 1}"',
        'logger.info("x")',
    ],
)
def test_what_no_test_can_hold_is_no_place(source: str) -> None:
    """Words, types and log lines."""
    assert not sites_of(source)


def test_every_mutation_of_the_project_can_be_read() -> None:
    """Each is valid Python, and another tree than before."""
    broken = []
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        original = ast.dump(ast.parse(source))
        for site in sites_of(source)[::EVERY]:
            try:
                changed = ast.dump(ast.parse(site.apply(source)))
            except SyntaxError:
                changed = original
            if changed == original:
                broken.append(f"{path}:{site.line} {site.kind} {site.new}")
    assert not broken
