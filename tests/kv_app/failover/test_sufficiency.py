"""Whether the nodes that were sealed surely hold all that was acknowledged."""

from __future__ import annotations

from itertools import chain, combinations
from typing import TYPE_CHECKING

import msgspec
import pytest

from kv_app.failover.calls import Sealed
from kv_app.failover.electors import has_majority
from kv_app.failover.sufficiency import judge, next_config
from kv_app.meta import BaseRecord, Config, Member

if TYPE_CHECKING:
    from collections.abc import Iterable


def members(number: int) -> tuple[Member, ...]:
    """So many members; the first one led first."""
    return tuple(Member(f"n{one}", f"http://n{one}") for one in range(number))


def base_of(number: int, floor: int, epoch: int = 1, leader: int = 0) -> BaseRecord:
    """The base of a cluster of so many members."""
    config = Config(members(number), floor, floor, floor)
    return BaseRecord(epoch, f"n{leader}", f"life {leader}", config)


def sealed(
    number: int,
    base: BaseRecord | None,
    *,
    life: str | None = None,
    config: Config | None = None,
    config_seq: int = 0,
) -> Sealed:
    """What a member answers to a seal."""
    epoch = base.epoch if base is not None and config_seq else 0
    return Sealed(
        f"n{number}", life or f"life {number}", base, config, epoch, config_seq, 0, 0, 0, []
    )


def answers(base: BaseRecord, numbers: Iterable[int]) -> dict[str, Sealed]:
    """What some members answer that all hold a base."""
    return {f"http://n{number}": sealed(number, base) for number in numbers}


@pytest.mark.parametrize("followers", range(1, 6))
def test_who_is_enough_meets_every_set_that_may_have_acknowledged(followers: int) -> None:
    """Against the obvious model: every set of f followers, for every set of survivors."""
    number = followers + 1
    for floor in range(1, followers + 1):
        base = base_of(number, floor)
        quorums = [set(some) for some in combinations(range(1, number), floor)]
        for some in powerset(range(number)):
            found = judge(members(number), answers(base, some))
            meets_all = 0 in some or all(quorum & set(some) for quorum in quorums)
            is_majority = has_majority(members(number), [f"http://n{one}" for one in some])
            assert found.is_sufficient is (bool(some) and meets_all and is_majority), (floor, some)
            missing = {f"http://n{one}" for one in range(number) if one not in some}
            assert set(found.missing) == missing


def powerset(numbers: Iterable[int]) -> Iterable[tuple[int, ...]]:
    """All subsets."""
    some = list(numbers)
    return chain.from_iterable(combinations(some, size) for size in range(len(some) + 1))


def test_floor_of_0_needs_the_leader_itself() -> None:
    """Asynchronous replication: nobody else need have anything."""
    base = base_of(6, 0)
    found = judge(members(6), answers(base, range(1, 6)))
    assert "write quorum of 0" in found.reason
    assert judge(members(6), answers(base, range(6))).is_sufficient


def test_leader_that_lost_its_data_since_is_no_leader_and_no_follower() -> None:
    """It holds what it was given again, not what it took."""
    base = base_of(4, 1)
    some = answers(base, (1, 2))
    some["http://n0"] = sealed(0, base, life="another life")
    found = judge(members(4), some)
    assert not found.is_sufficient
    assert "3 of 3 followers" in found.reason


def test_learners_count_nowhere() -> None:
    """They have forgotten what they acknowledged, and what they promised."""
    base = base_of(4, 3)
    some = answers(base, (1,)) | {f"http://n{one}": sealed(one, None) for one in (2, 3)}
    found = judge(members(4), some)
    assert found.voters == ("http://n1",)
    assert not found.is_sufficient


def test_founder_without_its_base_is_a_voter_with_an_empty_log_until_it_loses_its_life() -> None:
    """It has acknowledged nothing, and keeps what it promised: else nobody could begin anew.

    The leader may be lost in the moment in which the cluster is made.
    """
    founders = {f"http://n{one}": f"life {one}" for one in (1, 2, 3)}
    base = msgspec.structs.replace(base_of(4, 3), founders=founders)
    some = answers(base, (1,)) | {f"http://n{one}": sealed(one, None) for one in (2, 3)}
    found = judge(members(4), some)
    assert set(found.voters) == {"http://n1", "http://n2", "http://n3"}
    assert (found.base, found.config) == (base, base.config)
    assert found.is_sufficient
    some["http://n3"] = sealed(3, None, life="another")
    assert set(judge(members(4), some).voters) == {"http://n1", "http://n2"}
    del some["http://n1"]  # nobody is left who knows of the founding
    assert judge(members(4), some).base is None


def test_strangers_count_nowhere() -> None:
    """Who is no member was not asked for its acknowledgment."""
    base = base_of(4, 3)
    some = answers(base, (1,)) | {f"http://x{one}": sealed(one, base) for one in (2, 3)}
    assert judge(members(4), some).voters == ("http://n1",)


def test_the_newest_base_decides_opened_or_not() -> None:
    """An epoch that never opened may have: nobody can tell from outside."""
    old, new = base_of(6, 5), base_of(6, 1, epoch=2, leader=1)
    some = answers(old, (2, 3, 4)) | {"http://n1": sealed(1, new)}
    found = judge(members(6), some)
    assert found.base == new
    assert found.is_sufficient  # n1 led epoch 2 and still has what it took
    without = answers(old, (3, 4)) | {"http://n2": sealed(2, new)}
    assert not judge(members(6), without).is_sufficient


def test_the_last_configuration_that_anybody_holds_decides() -> None:
    """Also one that was never committed: it may have been in force."""
    base = base_of(6, 3)
    lowered = Config(members(6), 1, 1, 1)
    some = answers(base, (1, 2))
    some["http://n3"] = sealed(3, base, config=lowered, config_seq=9)
    found = judge(members(6), some)
    assert found.config == lowered
    assert "5 of 5 followers" in found.reason


def test_configuration_of_an_older_epoch_does_not_count() -> None:
    """The base of the new one has its own."""
    base = base_of(4, 2, epoch=2, leader=1)
    older = base_of(4, 1)
    some = answers(base, (1, 2))
    some["http://n3"] = sealed(3, older, config=Config(members(4), 1, 1, 1), config_seq=9)
    assert judge(members(4), some).config == base.config


@pytest.mark.parametrize(
    ("wanted", "asked", "others", "begins"),
    [
        (3, None, 5, 3),
        (3, None, 2, 2),
        (3, 1, 5, 1),
        (3, 5, 4, 4),
        (0, None, 5, 0),
        (2, None, 0, 0),
    ],
)
def test_new_epoch_begins_with_no_more_than_who_was_sealed(
    wanted: int, asked: int | None, others: int, begins: int
) -> None:
    """Else the survivors could never write; what was wanted is not forgotten."""
    old = Config(members(6), 1, 1, wanted)
    new = next_config(old, others, asked)
    assert (new.write_quorum, new.floor) == (begins, begins)
    assert new.wanted == (wanted if asked is None else asked)
    assert new.members == old.members
