"""The cluster that ``up`` keeps between commands: start it, find it, tell of it, end it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from orchestration.clusters import processes
from orchestration.clusters.attached import AttachedCluster
from orchestration.clusters.compose import NODE_IDS, NODE_URLS, ComposeCluster
from orchestration.clusters.local import LocalCluster, LocalSettings
from orchestration.control import LOOK_TIMEOUT_S, Control, Health, Link
from orchestration.errors import ClusterError
from orchestration.interrupt import SignalGuard
from orchestration.scenario import DelayModel
from orchestration.state_file import KeptCluster, KeptNode, StateFile, state_folder

PROJECT = "quorumeter"


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster that runs, as commands address it.

    Attributes:
        leader_url: where the leader answers.
        follower_urls: from the URL by which the leader knows a follower to the one to ask.
        answers: what nodes said when the leader was looked for, by URL.
    """

    leader_url: str
    follower_urls: Mapping[str, str]
    answers: Mapping[str, Health | ClusterError] = field(default_factory=dict, compare=False)


def keep_local(settings: LocalSettings, control: Control, guard: SignalGuard) -> KeptCluster:
    """Start local nodes that outlive this process, and note them."""
    state = StateFile(state_folder())
    with state.locked():
        _check_free(state, control)
        logs = state.path.parent / "nodes"
        for log in logs.glob("*.log"):
            log.unlink()  # of a cluster that is gone

        def note() -> None:
            # Before they are ready: who is killed while it waits for that forgets none of them.
            state.write(_local_note(cluster))

        cluster = LocalCluster(settings, logs, control, held=guard.held, note=note, outlives=True)
        try:
            cluster.start()
        except BaseException:
            with guard.held():
                cluster.stop()
                state.remove()
            raise
        return _local_note(cluster)


def _local_note(cluster: LocalCluster) -> KeptCluster:
    return KeptCluster(
        engine="local",
        nodes=tuple(KeptNode(node.node_id, node.url, node.process) for node in cluster.nodes),
        known_urls=tuple(cluster.follower_urls),
        start_id=cluster.start_id,
        place=processes.here(),
    )


def keep_compose(
    control: Control,
    guard: SignalGuard,
    *,
    delay_ms: tuple[float, float],
    delay_model: DelayModel,
    quorum: int | None,
) -> KeptCluster:
    """Start containers, and note them."""
    state = StateFile(state_folder())
    with state.locked():
        _check_free(state, control)
        cluster = ComposeCluster(PROJECT, control, delay_ms=delay_ms, delay_model=delay_model)
        kept = KeptCluster(
            engine="compose",
            nodes=tuple(
                KeptNode(node_id=node_id, url=url, process=None)
                for node_id, url in zip(NODE_IDS, NODE_URLS, strict=True)
            ),
            # How the leader knows them turns out once it runs.
            known_urls=NODE_URLS[1:],
            project=PROJECT,
        )
        state.write(kept)
        try:
            cluster.start()
            if quorum is not None:
                control.set_quorum(cluster.leader_url, quorum)
            known = {reached: known for known, reached in cluster.follower_urls.items()}
            kept = replace(kept, known_urls=tuple(known[url] for url in NODE_URLS[1:]))
            state.write(kept)
        except BaseException:
            with guard.held():
                cluster.stop()
                state.remove()
            raise
        return kept


def end_kept(control: Control) -> str:
    """End exactly what ``up`` started; a sentence on what that was.

    Raises:
        ClusterError: something of it may still run; the cluster stays noted.
    """
    state = StateFile(state_folder())
    with state.locked():
        kept = state.read()
        if kept is None:
            return "No cluster is kept, so there is nothing to end."
        if kept.engine == "compose":
            ComposeCluster(kept.project, control).remove()
            state.remove()
            return f"Removed the containers of {kept.project}."
        running, doubts = _look(kept, control)
        left = processes.stop(list(running.values()))
        doubts |= {
            name: f"its process {mark.pid} does not end"
            for name, mark in running.items()
            if mark in left
        }
        ended = len(running) - len(left)
        told = f"Ended {ended} of {len(kept.nodes)} nodes"
        if doubts:
            raise ClusterError(_still_kept(told, state, doubts))
        state.remove()
        gone = len(kept.nodes) - ended
        return f"{told}; {gone} had ended before." if gone else f"{told}."


def _look(
    kept: KeptCluster, control: Control
) -> tuple[dict[str, processes.ProcessMark], dict[str, str]]:
    """The nodes that run, and why of others it cannot be told; those in neither have ended."""
    running: dict[str, processes.ProcessMark] = {}
    doubts: dict[str, str] = {}
    for node in kept.nodes:
        try:
            process = _find(node, kept)
        except psutil.AccessDenied:
            doubts[node.node_id] = "its process belongs to another user"
        except ClusterError as doubt:
            doubts[node.node_id] = str(doubt)
        else:
            if process is not None and node.process is not None:
                running[node.node_id] = node.process
    ended = [node for node in kept.nodes if node.node_id not in running | doubts]
    answers = control.healths([node.url for node in ended])
    for node in ended:
        health = answers[node.url]
        if isinstance(health, Health) and health.start_id == kept.start_id:
            doubts[node.node_id] = f"it answers at {node.url}"
    return running, doubts


def _find(node: KeptNode, kept: KeptCluster) -> psutil.Process | None:
    """The process of a node; None if it has surely ended.

    That it cannot be found is not enough: it may run elsewhere, or under another number.

    Raises:
        ClusterError: it cannot be told; says why.
        psutil.AccessDenied: neither, for it is another user's.
    """
    if node.process is None:
        return None
    process = processes.find(node.process)
    if process is not None and processes.has_variable(process, "START_ID", kept.start_id):
        return process
    now, then = processes.here(), kept.place
    if process is not None:
        raise ClusterError(f"process {node.process.pid} is not the node that was started")
    is_same_boot = bool(now.boot) and then is not None and now.boot == then.boot
    if then is None or (not is_same_boot and now.host != then.host):
        raise ClusterError(f"it was started on {then.host if then else 'an unknown machine'}")
    if is_same_boot and now.pids != then.pids:
        raise ClusterError(f"it was started in another container, {then.host}")
    return None


def _still_kept(ended: str, state: StateFile, doubts: Mapping[str, str]) -> str:
    of_whom = "; ".join(f"{name}: {why}" for name, why in doubts.items())
    return (
        f"{ended}, but not all have surely ended ({of_whom}). The cluster stays noted: run "
        f"quorumeter down where they run, or, once they are gone, delete {state.path}."
    )


def find_target(attach_url: str | None, control: Control) -> Target:
    """The cluster at ``attach_url``, or else the one that ``up`` keeps.

    Raises:
        ClusterError: neither is there; the message says how to get one.
    """
    if attach_url is not None:
        cluster = AttachedCluster(attach_url, control)
        cluster.find(timeout_s=LOOK_TIMEOUT_S)
        return Target(cluster.leader_url, cluster.follower_urls)
    kept = StateFile(state_folder()).read()
    if kept is None:
        raise ClusterError(
            "No cluster is kept: start one with quorumeter up, or name a leader with --attach."
        )
    answers = control.healths([node.url for node in kept.nodes])
    leading = _who_leads(answers)
    if leading is None or leading == kept.leader_url:
        return Target(kept.leader_url, kept.follower_urls, answers)
    others = [url for url in _answering(answers) if url != leading]
    cluster = AttachedCluster(leading, control, reached_urls=others)
    cluster.find(timeout_s=LOOK_TIMEOUT_S)
    return Target(cluster.leader_url, cluster.follower_urls, answers)


def _who_leads(answers: Mapping[str, Health | ClusterError]) -> str | None:
    """The node that leads the newest epoch: not the first one any more after a failover."""
    epochs = {
        url: health.epoch for url, health in _answering(answers).items() if health.role == "leader"
    }
    return max(epochs, key=lambda url: epochs[url], default=None)


def _answering(answers: Mapping[str, Health | ClusterError]) -> dict[str, Health]:
    """Those of the nodes that answer, by URL."""
    return {url: found for url, found in answers.items() if isinstance(found, Health)}


def describe_target(target: Target, control: Control) -> dict[str, Any]:
    """What a cluster is and how far its nodes are, as JSON values.

    All nodes are asked at the same time who they are, so that one that is frozen costs
    `LOOK_TIMEOUT_S`. A node that does not answer has an ``error`` instead of what it would have
    said. One that only its leader can reach, it seems, is ``unreachable``, with the reason, and the
    leader tells of it.
    """
    answers = dict(target.answers) or control.healths(
        [target.leader_url, *target.follower_urls.values()]
    )
    if isinstance(silent := answers.get(target.leader_url), ClusterError):
        raise silent
    positions = control.positions(target.leader_url)
    quorum, _ = control.quorum(target.leader_url)
    delays = control.delays(target.leader_url)
    leader = {"node_id": None, "position": positions.last_seq, "holes": 0, "connected": True}
    urls = {link.url: target.follower_urls.get(link.url, link.url) for link in positions.links}
    asked = [target.leader_url, *urls.values()]
    answers |= control.healths([url for url in asked if url not in answers])
    found = {link: _describe_node(urls[link.url], answers) for link in positions.links}
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
    nodes = [leader | _describe_node(target.leader_url, answers)]
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


def _describe_node(url: str, answers: Mapping[str, Health | ClusterError]) -> dict[str, Any]:
    health = answers[url]
    if isinstance(health, ClusterError):
        return {"url": url, "error": str(health)}
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
        "detail": link.detail,
    }


def _check_free(state: StateFile, control: Control) -> None:
    """Refuses to keep a second cluster; what is left of a dead one is forgotten."""
    kept = state.read()
    if kept is None:
        return
    running, doubts = _look(kept, control) if kept.engine == "local" else ({}, {})
    if running or kept.engine == "compose":
        raise ClusterError(
            f"A cluster runs already (leader {kept.leader_url}): use it, or end it with "
            "quorumeter down."
        )
    if doubts:
        raise ClusterError(_still_kept("A cluster is kept already", state, doubts))
    state.remove()
