"""Fuzzes the replication channel of live clusters from both ends, one with a token, one without.

One of the followers that the leader knows is a fake at first. It misbehaves towards the leader, and
learns from its hello what a hostile leader needs to look real to the other followers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.campaigns.campaign import Violation
from tests.campaigns.fuzz_follower import HostileLeader
from tests.campaigns.fuzz_leader import HostileFollower
from tests.campaigns.nodes import Cluster, Node, wait_until
from tests.campaigns.views import check_equal, view_of

if TYPE_CHECKING:
    from kv_app.messages import Hello
    from tests.campaigns.campaign import Stage

TOKEN = "a token for the fuzz"
FOLLOWERS, WRITE_QUORUM = 3, 2
SETTINGS = {"RECONNECT_MAX_S": "0.02", "HEARTBEAT_TIMEOUT_S": "2"}
KEYS = 300
CHANNELS, SHORT_CHANNELS = 3000, 150
# After so many hostile channels it is looked whether the follower is as it was.
LOOK_EVERY = 50


def fuzz_channel(stage: Stage) -> str:
    """Fuzzes leaders, then followers; returns what was done.

    Raises:
        Violation: A node died, took something, kept a hostile channel, or did not recover.
    """
    channels = SHORT_CHANNELS if stage.options.short else CHANNELS
    for token in (TOKEN, ""):
        stage.say(f"  channels {'with' if token else 'without'} a token")
        fuzz_cluster(stage, token, channels)
    return f"{channels} hostile channels to a leader and to a follower, with a token and without"


def fuzz_cluster(stage: Stage, token: str, channels: int) -> None:
    """Fuzzes the leader of one cluster, then a follower."""
    settings = {**SETTINGS, **({"CLUSTER_TOKEN": token} if token else {})}
    name = f"channel-{'with' if token else 'without'}"
    with Cluster(stage, name, FOLLOWERS, WRITE_QUORUM, **settings) as cluster:
        *honest, late = cluster.followers
        cluster.start(cluster.leader, *honest)
        cluster.wait_counting(honest)
        write(cluster, 0, KEYS)
        hello = fuzz_leader(stage, cluster, late, channels)
        cluster.start(late)
        write(cluster, KEYS, 2 * KEYS)
        settle(cluster)
        fuzz_follower(
            stage, cluster, HostileLeader(honest[0], token, hello, stage.random), channels
        )
        write(cluster, 2 * KEYS, 3 * KEYS)
        settle(cluster)
        cluster.check_logs()


def fuzz_leader(stage: Stage, cluster: Cluster, late: Node, channels: int) -> Hello:
    """Lets the leader talk to a hostile follower while clients write; returns its hello."""
    before = view_of(cluster, cluster.leader)
    with HostileFollower(late.url, late.name, stage.random) as hostile:
        while hostile.sessions.total() < channels:
            seen = hostile.sessions.total()
            wait_until(lambda seen=seen: hostile.sessions.total() > seen, "the leader connects", 15)
            check_lives(cluster, cluster.leader)
    if view_of(cluster, cluster.leader) != before:
        raise Violation("The leader shows something else after a hostile follower.")
    if hostile.kept:
        raise Violation("The leader kept a hostile channel.", hostile.kept)
    report(stage, "hostile followers", hostile.sessions)
    report(stage, "the leader's reasons", hostile.reasons)
    if hostile.hello is None:
        raise Violation("The leader never said hello.")
    return hostile.hello


def fuzz_follower(stage: Stage, cluster: Cluster, hostile: HostileLeader, channels: int) -> None:
    """Lets a hostile leader open channels to the follower of another one."""
    victim = hostile.follower
    before = view_of(cluster, victim)
    for number in range(1, channels + 1):
        hostile.attack()
        check_lives(cluster, victim)
        if number % LOOK_EVERY == 0 and view_of(cluster, victim) != before:
            raise Violation("A follower took something from a hostile leader.")
    settle(cluster)
    if view_of(cluster, victim) != before:
        raise Violation("A follower took something from a hostile leader.")
    report(stage, "hostile leaders", hostile.done)


def check_lives(cluster: Cluster, node: Node) -> None:
    """Checks that a node answers, and is still the same process.

    Raises:
        Violation: It is not.
    """
    if not cluster.is_up(node):
        raise Violation(f"{node.name} does not answer, or is another process now.")


def write(cluster: Cluster, first: int, end: int) -> None:
    """Writes some keys; each must be committed."""
    wait_until(lambda: cluster.client.get(f"{cluster.leader.url}/ready").is_success, "ready")
    for number in range(first, end):
        url = f"{cluster.leader.url}/kv/key{number}"
        answer = cluster.client.put(url, json={"value": f"value {number} at {time.time()}"})
        if answer.status_code != 200:
            raise Violation("A proper write failed.", [answer.text])


def settle(cluster: Cluster) -> None:
    """Waits until all followers count and hold everything; all must be equal then."""
    cluster.wait_counting()
    cluster.wait_converged()
    check_equal(cluster, cluster.nodes)


def report(stage: Stage, what: str, counts: dict[str, int]) -> None:
    """Prints how often what happened."""
    parts = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    stage.console.print(f"  {what}: {parts}", markup=False, highlight=False)
