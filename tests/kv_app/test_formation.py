"""Whether a leader that started without data may take writes."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from kv_app.formation import Decision, Standing, decide, electors_majority

if TYPE_CHECKING:
    from collections.abc import Iterable


def reports_of(answers: Iterable[bool | None]) -> dict[str, bool | None]:
    """Returns reports by URL, of f1, f2 and so on."""
    return {f"http://f{number}": answer for number, answer in enumerate(answers, start=1)}


@pytest.mark.parametrize(
    ("followers", "majority"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)]
)
def test_electors_majority_of_a_new_cluster(followers: int, majority: int) -> None:
    """More than half of the electors; the leader is one only if that makes their number odd."""
    assert electors_majority(followers) == majority


@pytest.mark.parametrize("followers", range(1, 12))
def test_electors_majority_meets_every_majority_that_could_have_held_data(followers: int) -> None:
    """Among that many followers there is one of every majority that a lost leader had.

    Of the electors a majority may include the leader, which is the one that is lost: so the
    followers in it are one fewer where the leader is an elector, at least one in any case.
    """
    members = followers + 1
    is_elector = members % 2 == 1
    electors = members if is_elector else followers
    smallest = electors // 2 + 1 - is_elector
    assert electors_majority(followers) + max(1, smallest) > followers


def expected(answers: tuple[bool | None, ...], k: int) -> Standing:
    """Returns what the rule says, in the order in which it says it."""
    if k > len(answers):
        return Standing.FORMING
    if True in answers:
        return Standing.RECOVERING
    empty = answers.count(False)
    return Standing.OPEN if empty >= max(k, electors_majority(len(answers))) else Standing.FORMING


@pytest.mark.parametrize("followers", range(5))
def test_decision_for_all_reports_follows_the_rule(followers: int) -> None:
    """Open only if nobody holds data and enough said so; every refusal gives its reason."""
    for answers in product([True, False, None], repeat=followers):
        for k in range(followers + 2):
            decision = decide(reports_of(answers), k)
            assert decision.standing is expected(answers, k)
            assert bool(decision.reason) == (decision.standing is not Standing.OPEN)


def test_leader_alone_is_open_at_once() -> None:
    """Without followers there is nobody to ask."""
    assert decide({}, 0) == Decision(Standing.OPEN)


def test_quorum_beyond_the_followers_is_never_open_and_says_how_to_mend_it() -> None:
    """A k above n can not be met: the reason names both and the call that lowers it."""
    decision = decide(reports_of([False, False]), 3)
    assert decision.standing is Standing.FORMING
    for part in ("3", "2 followers", "POST /admin/quorum"):
        assert part in decision.reason


def test_one_follower_with_data_outweighs_all_that_are_empty() -> None:
    """What survived is not wiped; the reason names who holds it, and nobody else."""
    decision = decide(reports_of([False, False, True, False, True]), 1)
    assert decision.standing is Standing.RECOVERING
    assert "http://f3, http://f5" in decision.reason
    assert "http://f1" not in decision.reason


def test_forming_cluster_counts_those_who_answered() -> None:
    """The reason says how many are needed and how many there are."""
    decision = decide(reports_of([False, False, None, None, None]), 1)
    assert decision.standing is Standing.FORMING
    assert "needs 3 of its 5 followers" in decision.reason
    assert decision.reason.endswith("2 have")
