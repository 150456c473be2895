"""Who has to agree that an epoch begins."""

from __future__ import annotations

from itertools import combinations

import pytest

from kv_app.failover.electors import (
    confirmations_of,
    electors_of,
    has_majority,
    majority_of,
    own_url,
)
from kv_app.meta import Member

SIZES = range(1, 8)


def members(number: int) -> tuple[Member, ...]:
    """So many members; the first one led first."""
    return tuple(Member(f"n{one}", f"http://n{one}") for one in range(number))


@pytest.mark.parametrize("number", SIZES)
def test_electors_are_odd_in_number_and_only_the_first_leader_may_be_left_out(number: int) -> None:
    """An even number of members could be parted in two halves that both wait."""
    electors = electors_of(members(number))
    assert len(electors) % 2 == 1
    left_out = {member.url for member in members(number)} - set(electors)
    assert left_out <= {"http://n0"}


@pytest.mark.parametrize("number", SIZES)
def test_two_majorities_have_an_elector_in_common(number: int) -> None:
    """So two epochs that open have a node that was sealed for the later one."""
    everyone = members(number)
    urls = [member.url for member in everyone]
    for size in range(1, number + 1):
        for some in combinations(urls, size):
            others = set(urls) - set(some)
            assert not (has_majority(everyone, some) and has_majority(everyone, others))
    assert has_majority(everyone, urls)


@pytest.mark.parametrize("number", SIZES)
def test_majority_is_the_least_number_of_electors_that_is_enough(number: int) -> None:
    """One less is none."""
    electors = electors_of(members(number))
    enough = majority_of(members(number))
    assert has_majority(members(number), electors[:enough])
    assert not has_majority(members(number), electors[: enough - 1])


@pytest.mark.parametrize("number", SIZES[1:])
def test_every_promotion_seals_one_of_those_that_confirm(number: int) -> None:
    """Followers that confirm a leader, and those sealed without it, are never apart."""
    followers = number - 1
    for floor in range(1, followers + 1):
        sealed = max(followers - floor + 1, majority_of(members(number)))
        assert confirmations_of(floor, followers) + sealed > followers


def test_nobody_has_to_confirm_a_leader_alone() -> None:
    """And with a floor of 0 nobody can: whoever asks has to know that."""
    assert confirmations_of(0, 0) == confirmations_of(0, 5) == 0


def test_node_finds_itself_by_its_url_or_else_by_its_name() -> None:
    """The name comes first: several nodes may be told to advertise the same."""
    everyone = members(3)
    assert own_url(everyone, "other", "http://n2") == "http://n2"
    assert own_url(everyone, "n1", "http://elsewhere") == "http://n1"
    assert own_url(everyone, "other", "http://elsewhere") == "http://elsewhere"
