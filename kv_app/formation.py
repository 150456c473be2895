"""Decides whether a leader that started without data may take writes. Pure.

A leader without data is either new, or it lost what its followers still hold. It may only go on
when enough followers have said that they hold nothing, and none has said that it holds something:
otherwise it would give positions a second meaning, and wipe what survived.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """Whether a node can do its role's work, or else why not: the ``reason`` of an error."""

    OPEN = "open"
    FORMING = "forming"
    RECOVERING = "recovering"
    SUPERSEDED = "superseded"
    DRAINING = "draining"
    TOO_FEW_FOLLOWERS = "too_few_followers"
    NO_LEADER = "no_leader"
    CATCHING_UP = "catching_up"


@dataclass(frozen=True, slots=True)
class Decision:
    """A standing, and the sentence that tells a user why.

    Attributes:
        standing: What holds.
        reason: Empty if open.
    """

    standing: Standing
    reason: str = ""


def electors_majority(followers: int) -> int:
    """Returns how many followers are a majority of the electors of a new cluster.

    Electors are all members if their number is odd, else all but the first leader; more than half
    of them make a majority. A new cluster counts its followers only, so that the data of a lost
    leader is found wherever a majority could have held it.
    """
    members = followers + 1
    electors = members if members % 2 else members - 1
    return min(electors // 2 + 1, followers)


def decide(reports: Mapping[str, bool | None], write_quorum: int, *, untried: int = 0) -> Decision:
    """Decides what a leader without data may do.

    Args:
        reports: Per follower: True if it last said that it holds entries which this leader lacks,
            False if it holds none, None if it was not heard yet.
        write_quorum: k, which the first write will need.
        untried: How many followers were not even tried yet: one that is there and holds data is
            heard before a cluster is made without it.
    """
    if write_quorum > len(reports):
        return Decision(
            Standing.FORMING,
            f"the write quorum is {write_quorum} but there are only {len(reports)} followers; "
            "lower it with POST /admin/quorum",
        )
    holders = sorted(url for url, has_data in reports.items() if has_data)
    if holders:
        return Decision(
            Standing.RECOVERING,
            "this leader started without data, and entries of an earlier leader are still on "
            f"{', '.join(holders)}; restart the followers too if that data may be lost",
        )
    empty = sum(has_data is False for has_data in reports.values())
    needed = max(write_quorum, electors_majority(len(reports)))
    if empty < needed:
        return Decision(
            Standing.FORMING,
            f"a new cluster needs {needed} of its {len(reports)} followers to say that they hold "
            f"no data, {empty} have",
        )
    if untried:
        return Decision(Standing.FORMING, f"{untried} followers were not tried yet")
    return Decision(Standing.OPEN)
