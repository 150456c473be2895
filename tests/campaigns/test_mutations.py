"""The mutations of the campaign fit the code and the tests that there are."""

from __future__ import annotations

import pytest

from tests.campaigns.mutants import problems_of
from tests.campaigns.mutation import Mutation
from tests.campaigns.mutations import MUTATIONS
from tests.campaigns.scratch_trees import ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_fits_the_code(mutation: Mutation) -> None:
    """Who changes what a mutation breaks, or the tests named for it, changes the mutation too."""
    assert problems_of(ROOT, mutation) == []


def test_mutation_that_fits_no_more_is_found() -> None:
    """Text that is gone, or there twice, and tests that are gone."""
    fits = MUTATIONS[0]
    wrong = Mutation("wrong", fits.path, "no such text", "", ("tests/no_such_test.py::test",))
    assert len(problems_of(ROOT, wrong)) == 2
    assert problems_of(ROOT, Mutation("twice", fits.path, "def ", "", fits.tests))


def test_mutation_that_is_no_python_is_found() -> None:
    """Nothing could be learnt from it."""
    fits = MUTATIONS[0]
    assert problems_of(ROOT, Mutation("no Python", fits.path, fits.old, "(", fits.tests))
