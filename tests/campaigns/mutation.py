"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """A promise taken out of the code.

    Attributes:
        name: What is broken.
        path: The file, from the root of the project.
        old: Text that it holds exactly once.
        new: What stands there instead.
        tests: What has to go red, as arguments of pytest.
    """

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]
