"""Reports show what they showed when somebody looked at them; ``approved.py`` has the way to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.orchestration.report import approved

if TYPE_CHECKING:
    from pathlib import Path

# A point of a drawing, for other versions of what measures letters; nothing elsewhere.
POINTS = 0.6


@pytest.fixture(scope="module")
def outputs() -> dict[str, str]:
    """All that is approved, as it would be written now."""
    return approved.outputs()


def test_every_output_is_approved(outputs: dict[str, str]) -> None:
    """None is left over, none is missing."""
    assert set(outputs) == {path.name for path in approved.FOLDER.iterdir()}


@pytest.mark.parametrize("path", sorted(approved.FOLDER.iterdir()), ids=lambda path: path.name)
def test_output_is_what_was_approved(outputs: dict[str, str], path: Path) -> None:
    """Words are the same to the letter, figures to the last digit, drawings to half a point."""
    words, numbers = approved.numbers(outputs[path.name])
    old_words, old_numbers = approved.numbers(path.read_text(encoding="utf-8"))
    assert words == old_words
    room = {"abs": POINTS} if path.suffix == ".svg" else {"rel": 1e-9, "abs": 1e-9}
    assert numbers == pytest.approx(old_numbers, **room)
