"""Finds out where the nodes of a cluster stand, and what a promotion would come to. Reads only."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

from orchestration.control import Control
from orchestration.errors import ClusterError, RefusedError
from orchestration.plain_text import one_line

PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the cluster's configuration names it.

    Attributes:
        node_id: its name; empty if it was not known when the cluster was made.
        url: where the other nodes reach it, which need not be where it was asked.
    """

    node_id: str
    url: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Where one node stands.

    Attributes:
        url: Where it was asked.
        member_url: where the other nodes reach it.
        node_id: its name.
        incarnation: tells it from all others, and is new whenever it starts without its data.
        role: leader or follower.
        epoch: the epoch that it leads, or has promised itself to.
        base_epoch: the epoch whose base it holds; 0 for a learner.
        base_leader: who led that.
        founders: the incarnations of the followers of which the cluster was made, by URL.
        leader_url: where it believes the leader to be.
        is_led: True while a leader has a channel to it.
        is_open: True if it takes writes.
        contiguous: highest seq below which it has no hole.
        max_seq: the newest entry that it holds.
        holes: how many below that are missing.
        write_quorum: k, as far as it knows.
        floor: f.
        wanted: the k that was asked for last.
        config_epoch: with ``config_seq`` the position of the record that says k, f and the wanted
            k; (0, 0) if they are those with which its epoch began.
        config_seq: see ``config_epoch``.
        members: all nodes of the cluster, the first leader first.
    """

    url: str
    member_url: str
    node_id: str
    incarnation: str
    role: str
    epoch: int
    base_epoch: int
    base_leader: str | None
    founders: Mapping[str, str]
    leader_url: str | None
    is_led: bool
    is_open: bool
    contiguous: int
    max_seq: int
    holes: int
    write_quorum: int | None
    floor: int | None
    wanted: int | None
    config_epoch: int
    config_seq: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a cluster looks like from outside, and what may be done.

    Attributes:
        nodes: Those that answer, by URL.
        silent: Those that do not, with the reason.
        inside: Those of the silent that are URLs of the nodes' own network, it seems. Of these
            nodes nothing is known.
        leader: The open leader of the newest epoch, if one answers and can acknowledge, as far as
            can be seen.
        cut_off: That one, if it cannot: most of those that answer have promised themselves to a
            newer epoch, or none of the others has a channel to it although k wants one.
        led: If none does: a node of the newest epoch to which a leader has a channel all the same,
            if that has one to at least half of those that answer.
        candidate: Which node would lead best: the voter of the newest base that holds most, other
            than one that is cut off.
        followers: n.
        electors: How many nodes vote.
        majority: How many of those have to answer.
        answering: How many of those do, with data.
        required: How many followers have to answer if the old leader does not.
        survivors: How many followers do, with data.
        is_old_leader_here: Whether the newest base's leader answers as one of its voters.
        missing: Names of the nodes that do not answer, or have no data.
        reason: Why a promotion would be refused; empty if it would not.
        others: How many voters that answer would follow the new leader.
        next_quorum: The k with which a new epoch would begin: what is wanted, if ``others`` can
            meet it.
    """

    nodes: Mapping[str, NodeStatus]
    silent: Mapping[str, str]
    inside: tuple[str, ...]
    leader: NodeStatus | None
    cut_off: NodeStatus | None
    led: NodeStatus | None
    candidate: NodeStatus | None
    followers: int
    electors: int
    majority: int
    answering: int
    required: int
    survivors: int
    is_old_leader_here: bool
    missing: tuple[str, ...]
    reason: str
    others: int
    next_quorum: int

    @property
    def data_survive(self) -> int:
        """How many nodes may be lost after a promotion before data are: k - 1 beside the leader."""
        return max(0, self.next_quorum - 1)

    def wishing(self, quorum: int | None) -> Self:
        """The same, if a promotion is to ask for a k; None asks for none."""
        return self if quorum is None else replace(self, next_quorum=min(quorum, self.others))


def look(control: Control, urls: Sequence[str]) -> Outlook:
    """Asks all nodes that are known of a cluster, those that the others name too.

    Each is in the answer once, though it may have two URLs: one for the other nodes, and one from
    here.

    Raises:
        ClusterError: None of them answers.
    """
    nodes: dict[str, NodeStatus] = {}
    silent: dict[str, str] = {}
    refused = ""
    given = tuple(dict.fromkeys(url.rstrip("/") for url in urls))
    waiting = list(given)
    while waiting:
        asked = [
            url for url in dict.fromkeys(waiting) if url not in silent and not _is_heard(url, nodes)
        ]
        waiting = []
        for url, answer in _ask(control, asked).items():
            if isinstance(answer, ClusterError):
                silent[url] = str(answer)
                if isinstance(answer, RefusedError):
                    refused = refused or str(answer)
            elif all(answer.incarnation != other.incarnation for other in nodes.values()):
                nodes[url] = answer
                waiting += [member.url for member in answer.members]
    if not nodes:
        raise ClusterError(
            refused
            or f"No node answers at {', '.join(silent)}; start one, or name a node that runs. "
            f"({next(iter(silent.values()))})"
        )
    silent = {url: why for url, why in silent.items() if not _is_heard(url, nodes)}
    members = {member.url for node in nodes.values() for member in node.members}
    strangers = [url for url in silent if url not in members]
    unheard = [url for url in silent if url in members and url not in given]
    if len(strangers) == len(unheard):
        # They are the same nodes, by their URLs from here and by those from inside.
        silent = {url: why for url, why in silent.items() if url not in unheard}
        unheard = []
    is_inside_reached = not members.isdisjoint(nodes)
    return judge(nodes, silent, () if is_inside_reached else unheard)


def _ask(control: Control, urls: Sequence[str]) -> dict[str, NodeStatus | ClusterError]:
    """Where each node stands, or why it does not say; all are asked at the same time."""

    def ask(url: str) -> NodeStatus | ClusterError:
        try:
            return read_status(url, control.status(url, timeout_s=PROBE_TIMEOUT_S))
        except ClusterError as problem:
            return problem

    with ThreadPoolExecutor(max_workers=max(1, len(urls))) as pool:
        return dict(zip(urls, pool.map(ask, urls), strict=True))


def _is_heard(url: str, nodes: Mapping[str, NodeStatus]) -> bool:
    """Tells if the node at a URL has answered, at this one or at another."""
    members = [one for node in nodes.values() for one in node.members if one.url == url]
    return any(find(member, nodes) is not None for member in (Member("", url), *members))


def judge(
    nodes: Mapping[str, NodeStatus], silent: Mapping[str, str], inside: Sequence[str] = ()
) -> Outlook:
    """Says what a promotion would come to; the nodes themselves decide it anew when it is asked.

    The rule is that of ``docs/failover.md``: a majority of the electors, and either the old leader
    or n - f + 1 followers.

    Args:
        nodes: Those that answer, by URL.
        silent: Those that do not, with the reason.
        inside: URLs that the nodes have for each other, of which none answers from here.
    """
    newest = max((node.base_epoch for node in nodes.values()), default=0)
    ahead = [node for node in nodes.values() if node.base_epoch == newest > 0]
    # Who is still in the life in which the cluster was made of it has promised and lost nothing.
    founders = ahead[0].founders if ahead else {}
    voters = {
        url: node
        for url, node in nodes.items()
        if node.base_epoch > 0 or founders.get(node.member_url) == node.incarnation
    }
    opened = max((n for n in nodes.values() if n.is_open), key=lambda n: n.epoch, default=None)
    cut_off = opened if opened is not None and _is_cut_off(opened, nodes, voters) else None
    leader = opened if cut_off is None else None
    epoch = max((node.epoch for node in nodes.values()), default=0)
    led = [n for n in nodes.values() if n.is_led and n.epoch == epoch]
    is_led = 2 * len(led) >= len(nodes)  # else it is cut off from most, and leads no more
    best = max(ahead, key=lambda node: (node.contiguous, node.max_seq), default=None)
    # Who is open already would answer a promotion with that, and be cut off still.
    able = [node for node in voters.values() if node is not cut_off]
    candidate = max(
        able, key=lambda node: (node.base_epoch, node.contiguous, node.max_seq), default=None
    )
    members = best.members if best is not None else ()
    floor, wanted = _newest_config(ahead)
    followers = max(0, len(members) - 1)
    electors = members if len(members) % 2 else members[1:]
    majority = len(electors) // 2 + 1
    answering = sum(find(one, voters) is not None for one in electors)
    old_leader = best.base_leader if best is not None else None
    is_here = any(node.node_id == old_leader for node in ahead)
    survivors = sum(node.node_id != old_leader for node in voters.values())
    required = followers - floor + 1
    missing = tuple(one.node_id or one.url for one in members if find(one, voters) is None)
    reason = ""
    if best is None:
        reason = "no node that answers holds data"
    elif candidate is None:
        reason = "no other node that answers holds data"
    elif answering < majority:
        reason = f"{majority} of {len(electors)} electors have to answer, {answering} do"
    elif not is_here and floor == 0:
        reason = "the write quorum was 0: only the old leader surely holds what was acknowledged"
    elif not is_here and survivors < required:
        reason = f"{required} of {followers} followers have to answer, {survivors} do"
    others = max(0, len(voters) - 1)
    return Outlook(
        nodes,
        silent,
        tuple(inside),
        leader,
        cut_off,
        led[0] if led and is_led and leader is None else None,
        candidate,
        followers,
        len(electors),
        majority,
        answering,
        required,
        survivors,
        is_here,
        missing,
        reason,
        others,
        min(wanted, others),
    )


def _is_cut_off(
    leader: NodeStatus, nodes: Mapping[str, NodeStatus], voters: Mapping[str, NodeStatus]
) -> bool:
    """Tells if an open leader cannot acknowledge; it may not know of it.

    Followers that do not answer here may have a channel to it. One that does not see any other
    voter from here is given the benefit of that doubt.
    """
    if 2 * sum(node.epoch > leader.epoch for node in nodes.values()) > len(nodes):
        return True  # it cannot have acknowledged anything since they promised
    is_alone = all(node is leader for node in voters.values())
    return bool(leader.write_quorum) and not is_alone and not has_channel(leader, nodes)


def has_channel(leader: NodeStatus, nodes: Mapping[str, NodeStatus]) -> bool:
    """Tells if a leader has a channel to any of those that answer."""
    return any(node.is_led and node.epoch == leader.epoch for node in nodes.values())


def _newest_config(ahead: Sequence[NodeStatus]) -> tuple[int, int]:
    """The floor and the wanted k on which the nodes would go on: those of the newest record.

    Args:
        ahead: Those of the newest base that answer.
    """

    def seq(node: NodeStatus) -> int:
        return node.config_seq if node.config_epoch == node.base_epoch else 0

    newest = max(ahead, key=seq, default=None)
    return (newest.floor or 0, newest.wanted or 0) if newest is not None else (0, 0)


def find(member: Member, nodes: Mapping[str, NodeStatus]) -> NodeStatus | None:
    """The node that a member is, among those that were asked; None if it is not.

    A node may be asked at another URL than that at which the others reach it: that of a published
    port, say. Then it tells the other one itself, or its name does.
    """
    if member.url in nodes:
        return nodes[member.url]
    at_url = [node for node in nodes.values() if node.member_url == member.url]
    named = [node for node in nodes.values() if member.node_id and node.node_id == member.node_id]
    for found in (at_url, named):
        if len(found) == 1:
            return found[0]
    return None


def named(name: str, nodes: Mapping[str, NodeStatus]) -> NodeStatus | None:
    """The node that a user means, among those that were asked; None if it is none of them.

    Args:
        name: its NODE_ID, its URL among the nodes, or that at which it was asked.
        nodes: those that answer, by URL.
    """
    name = name.rstrip("/")
    return find(Member(node_id=name, url=name), nodes)


def read_status(url: str, body: Mapping[str, Any]) -> NodeStatus:
    """A node's own account of where it stands.

    Raises:
        ClusterError: It is none.
    """
    try:
        return NodeStatus(
            url=url,
            member_url=one_line(body["url"]),
            node_id=one_line(body["node_id"]),
            incarnation=str(body["incarnation"]),
            role=one_line(body["role"]),
            epoch=int(body["epoch"]),
            base_epoch=int(body["base_epoch"]),
            base_leader=None if body["base_leader"] is None else one_line(body["base_leader"]),
            founders=dict(body["founders"]),
            leader_url=None if body["leader_url"] is None else one_line(body["leader_url"]),
            is_led=bool(body["is_led"]),
            is_open=bool(body["is_open"]),
            contiguous=int(body["contiguous"]),
            max_seq=int(body["max_seq"]),
            holes=int(body["holes"]),
            write_quorum=body["write_quorum"],
            floor=body["floor"],
            wanted=body["wanted"],
            config_epoch=int(body["config_epoch"]),
            config_seq=int(body["config_seq"]),
            members=tuple(
                Member(one_line(one["node_id"]), str(one["url"])) for one in body["members"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError(f"{url} answered what is no status of a node") from error
