"""Decides whether the nodes that were sealed surely hold all that was acknowledged. Pure.

They do if they meet every set of followers that may have acknowledged anything: each of at least f,
so that n - f + 1 followers meet them all. Or if the leader itself is among them, which has all that
it took. And they have to be a majority of the electors, so that no two promotions go on side by
side without a node in common.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kv_app.failover.calls import Sealed
from kv_app.failover.electors import electors_of, majority_of
from kv_app.meta import BaseRecord, Config, Member


@dataclass(frozen=True, slots=True)
class Judgement:
    """What may be done with the nodes that were sealed.

    Attributes:
        base: The newest base among them; None if no voter is.
        config: The newest configuration of that base's epoch among them.
        voters: The URLs of those that hold a base, and of its founders; the others count nowhere.
        missing: The URLs of all other members.
        required: How many voters other than the old leader have to be sealed, if it is not.
        reason: Why they are not enough; empty if they are.
    """

    base: BaseRecord | None
    config: Config | None
    voters: tuple[str, ...]
    missing: tuple[str, ...]
    required: int
    reason: str

    @property
    def is_sufficient(self) -> bool:
        """True if what they hold together is all that was acknowledged."""
        return not self.reason


def judge(members: Sequence[Member], sealed: Mapping[str, Sealed]) -> Judgement:
    """Judges some sealed nodes.

    Args:
        members: All of the cluster, as it was made.
        sealed: The answers, by URL; one per node.
    """
    urls = [member.url for member in members]
    followers = len(members) - 1
    bases = [one.base for url, one in sealed.items() if one.base is not None and url in urls]
    if not bases:
        reason = "no node that answers holds the cluster's data"
        return Judgement(None, None, (), tuple(urls), followers, reason)
    base = max(bases, key=lambda one: one.epoch)
    voters = {
        url: one
        for url, one in sealed.items()
        if url in urls and (one.base is not None or is_founder(base, url, one.incarnation))
    }
    missing = tuple(url for url in urls if url not in voters)
    config = newest_config(base, voters)
    floor = config.floor
    is_leader_in = any(is_leader_of(base, one) for one in voters.values())
    others = sum(one.node_id != base.leader_id for one in voters.values())
    required = followers - floor + 1
    majority, electors = majority_of(members), electors_of(members)
    counted = sum(url in voters for url in electors)
    reason = ""
    if counted < majority:
        reason = f"{majority} of {len(electors)} electors have to answer, {counted} do"
    elif is_leader_in:
        pass
    elif floor == 0:
        reason = (
            "with a write quorum of 0 only the leader itself surely holds what was acknowledged, "
            "and it does not answer with its data"
        )
    elif others < required:
        reason = (
            f"with a floor of {floor}, {required} of {followers} followers surely hold all that "
            f"was acknowledged, {others} answer"
        )
    return Judgement(base, config, tuple(voters), missing, required, reason)


def is_founder(base: BaseRecord, url: str, incarnation: str) -> bool:
    """Tells if a node is still in the life in which it was empty when the cluster was made.

    Until it is given a base it has acknowledged nothing that counts, and it keeps what it promised:
    it is a voter whose log is empty.
    """
    return base.founders.get(url) == incarnation


def is_leader_of(base: BaseRecord, node: Sealed) -> bool:
    """Tells if a node led a base's epoch and still has what it took then."""
    return node.node_id == base.leader_id and node.incarnation == base.leader_incarnation


def newest_config(base: BaseRecord, voters: Mapping[str, Sealed]) -> Config:
    """Returns the last configuration of a base's epoch that some nodes hold, committed or not."""
    found, position = base.config, 0
    for one in voters.values():
        if one.base is None or one.base.epoch != base.epoch or one.config is None:
            continue
        if one.config_epoch == base.epoch and one.config_seq > position:
            found, position = one.config, one.config_seq
    return found


def next_config(config: Config, others: int, wanted: int | None) -> Config:
    """Returns the configuration with which a new epoch begins.

    Its k is what was wanted, but no more than the voters that were sealed beside the new leader:
    else the survivors could never write.

    Args:
        config: The newest of the old epoch.
        others: Voters beside the new leader.
        wanted: The k that is asked for now, if any.
    """
    k = config.wanted if wanted is None else wanted
    begins = min(k, others)
    return Config(config.members, begins, begins, k)
