"""The cluster that ``up`` keeps between commands: start it, find it, tell of it, end it."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestration.clusters import processes
from orchestration.clusters.attached import AttachedCluster
from orchestration.clusters.compose import NODE_IDS, NODE_URLS, ComposeCluster
from orchestration.clusters.local import LocalCluster, LocalSettings
from orchestration.control import Control, Health, Link
from orchestration.errors import ClusterError
from orchestration.interrupt import SignalGuard
from orchestration.state_file import KeptCluster, KeptNode, StateFile, state_folder

PROJECT = "quorumeter"


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster that runs, as commands address it.

    ``follower_urls`` leads from the URL by which the leader knows a follower to the one to ask.
    """

    leader_url: str
    follower_urls: Mapping[str, str]


def keep_local(settings: LocalSettings, control: Control, guard: SignalGuard) -> KeptCluster:
    """Start local nodes that outlive this process, and note them."""
    state = _free_state()
    cluster = LocalCluster(settings, state.path.parent / "nodes", control, held=guard.held)
    try:
        cluster.start()
        nodes = tuple(
            KeptNode(node_id=node.node_id, url=node.url, process=node.process)
            for node in cluster.nodes
        )
        kept = KeptCluster(engine="local", nodes=nodes, known_urls=tuple(cluster.follower_urls))
        state.write(kept)
    except BaseException:
        with guard.held():
            cluster.stop()
        raise
    return kept


def keep_compose(
    control: Control, guard: SignalGuard, *, delay_ms: tuple[float, float], quorum: int | None
) -> KeptCluster:
    """Start containers, and note them."""
    state = _free_state()
    cluster = ComposeCluster(PROJECT, control, delay_ms=delay_ms)
    try:
        cluster.start()
        if quorum is not None:
            control.set_quorum(cluster.leader_url, quorum)
        nodes = tuple(
            KeptNode(node_id=node_id, url=url, process=None)
            for node_id, url in zip(NODE_IDS, NODE_URLS, strict=True)
        )
        known = {reached: known for known, reached in cluster.follower_urls.items()}
        kept = KeptCluster(
            engine="compose",
            nodes=nodes,
            known_urls=tuple(known[url] for url in NODE_URLS[1:]),
            project=PROJECT,
        )
        state.write(kept)
    except BaseException:
        with guard.held():
            cluster.stop()
        raise
    return kept


def end_kept(control: Control) -> str:
    """End exactly what ``up`` started; a sentence on what that was."""
    state = StateFile(state_folder())
    kept = state.read()
    if kept is None:
        return "No cluster is kept, so there is nothing to end."
    if kept.engine == "compose":
        ComposeCluster(kept.project, control).remove()
        state.remove()
        return f"Removed the containers of {kept.project}."
    ended = processes.stop([node.process for node in kept.nodes if node.process is not None])
    state.remove()
    gone = len(kept.nodes) - ended
    remark = f"; {gone} had ended before" if gone else ""
    return f"Ended {ended} of {len(kept.nodes)} nodes{remark}."


def find_target(attach_url: str | None, control: Control) -> Target:
    """The cluster at ``attach_url``, or else the one that ``up`` keeps.

    Raises:
        ClusterError: neither is there; the message says how to get one.
    """
    if attach_url is not None:
        cluster = AttachedCluster(attach_url, control)
        cluster.find()
        return Target(cluster.leader_url, cluster.follower_urls)
    kept = StateFile(state_folder()).read()
    if kept is None:
        raise ClusterError(
            "No cluster is kept: start one with quorumeter up, or name a leader with --attach."
        )
    leading = _who_leads(kept, control)
    if leading is None or leading == kept.leader_url:
        return Target(kept.leader_url, kept.follower_urls)
    others = [url for url in _answering(kept, control) if url != leading]
    cluster = AttachedCluster(leading, control, reached_urls=others)
    cluster.find()
    return Target(cluster.leader_url, cluster.follower_urls)


def _who_leads(kept: KeptCluster, control: Control) -> str | None:
    """The node that leads the newest epoch: not the first one any more after a failover."""
    epochs = {
        url: health.epoch
        for url, health in _answering(kept, control).items()
        if health.role == "leader"
    }
    return max(epochs, key=lambda url: epochs[url], default=None)


def _answering(kept: KeptCluster, control: Control) -> dict[str, Health]:
    """Those of the kept nodes that answer, by URL."""
    found = {}
    for node in kept.nodes:
        with contextlib.suppress(ClusterError):
            found[node.url] = control.health(node.url)
    return found


def describe_target(target: Target, control: Control) -> dict[str, Any]:
    """What a cluster is and how far its nodes are, as JSON values.

    A node that does not answer has an ``error`` instead of what it would have said. One that only
    its leader can reach, it seems, is ``unreachable``, with the reason, and the leader tells of it.
    """
    positions = control.positions(target.leader_url)
    quorum, _ = control.quorum(target.leader_url)
    delays = control.delays(target.leader_url)
    leader = {"node_id": None, "position": positions.last_seq, "holes": 0, "connected": True}
    urls = {link.url: target.follower_urls.get(link.url, link.url) for link in positions.links}
    found = {link: _describe_node(urls[link.url], control) for link in positions.links}
    inner = [link for link in positions.links if urls[link.url] == link.url]
    is_unreached = inner and all("error" in found[link] for link in inner)
    if is_unreached and _is_known_elsewhere(target.leader_url, control):
        for link in inner:
            if link.is_connected:
                # Its channel is of the leader's epoch.
                found[link] = {
                    "url": link.url,
                    "role": "follower",
                    "epoch": positions.epoch,
                    "unreachable": found[link]["error"],
                }
    nodes = [leader | _describe_node(target.leader_url, control)]
    nodes += [_describe_link(link) | node for link, node in found.items()]
    return {
        "leader_url": target.leader_url,
        "write_quorum": quorum,
        "followers": len(positions.links),
        "delay_ms": [delays.min_delay_ms, delays.max_delay_ms],
        "delay_model": delays.delay_model,
        "last_seq": positions.last_seq,
        "stable_seq": positions.stable_seq,
        "nodes": nodes,
    }


def _describe_node(url: str, control: Control) -> dict[str, Any]:
    try:
        health = control.health(url)
    except ClusterError as problem:
        return {"url": url, "error": str(problem)}
    return {"url": url, "node_id": health.node_id, "role": health.role, "epoch": health.epoch}


def _is_known_elsewhere(url: str, control: Control) -> bool:
    """Tells if the other nodes reach the one at a URL at another, as in a network of their own."""
    return bool(control.status(url).get("url") != url)


def _describe_link(link: Link) -> dict[str, Any]:
    return {
        "node_id": link.node_id,
        "position": link.contiguous,
        "holes": link.holes,
        "connected": link.is_connected,
    }


def _free_state() -> StateFile:
    """The state file, if no cluster is kept; what is left of a dead one is forgotten."""
    state = StateFile(state_folder())
    kept = state.read()
    if kept is None:
        return state
    marks = [node.process for node in kept.nodes if node.process is not None]
    if kept.engine == "compose" or any(processes.find(wanted) for wanted in marks):
        raise ClusterError(
            f"A cluster runs already (leader {kept.leader_url}): use it, or end it with "
            "quorumeter down."
        )
    state.remove()
    return state
