"""Rounds in which a fresh cluster loses its leader, and maybe followers, under load.

All start again on their disks, and the leader leads a new epoch by itself.
"""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING

from tests.campaigns.campaign import Violation, removed
from tests.campaigns.ledger import Ledger, Outcome
from tests.campaigns.nodes import Cluster
from tests.campaigns.views import check_equal, view_of
from tests.campaigns.writers import Manners, Writers

if TYPE_CHECKING:
    from tests.campaigns.campaign import Stage
    from tests.campaigns.client import Background

FOLLOWERS = 2
MIN_LOAD_S, MAX_LOAD_S = 0.05, 1.0
FROZEN_SHARE, MAX_FROZEN_S = 0.3, 0.2
ALSO_SHARE = 0.5
AGAIN_SHARE, MAX_AGAIN_S = 0.3, 0.6
SETTINGS = {"REQUEST_TIMEOUT": "1", "RECONNECT_MAX_S": "0.2"}


def kill_leaders(stage: Stage, background: Background, rounds: int) -> str:
    """Runs rounds, each on a fresh cluster; returns what was done."""
    acknowledged = unknown = 0
    for number in range(rounds):
        k = 1 + number % FOLLOWERS
        name = f"leader-{number}"
        with (
            Cluster(stage, name, FOLLOWERS, k, **SETTINGS) as cluster,
            removed(stage.folder / name),
        ):
            cluster.start()
            cluster.wait_counting()
            ledger = write_and_kill(cluster, background, stage.random)
            start_again(cluster, stage.random)
            check_all(cluster, ledger)
            cluster.kill(*cluster.nodes)
            cluster.check_logs()
        acknowledged += ledger.count(Outcome.ACKNOWLEDGED)
        unknown += ledger.count(Outcome.UNKNOWN)
    stage.say(
        f"  leader killed, n={FOLLOWERS}: {rounds} rounds, {acknowledged} acknowledged writes, "
        f"{unknown} unknown"
    )
    return f"{rounds} leaders killed"


def write_and_kill(cluster: Cluster, background: Background, random: Random) -> Ledger:
    """Writes for a moment, then kills the leader, maybe with followers, in the midst of it."""
    ledger = Ledger()
    writers = Writers(cluster.leader.url, ledger, Random(random.random()), Manners(pause_s=0.005))
    job = background.start(writers.run())
    try:
        time.sleep(random.uniform(MIN_LOAD_S, MAX_LOAD_S))
        # Frozen ones acknowledge nothing: what is acknowledged meanwhile, others have to hold.
        frozen = [node for node in cluster.followers if random.random() < FROZEN_SHARE]
        for node in frozen:
            node.process.suspend()
        time.sleep(random.uniform(0, MAX_FROZEN_S))
        victims = [cluster.leader, *frozen]
        victims += [
            node
            for node in cluster.followers
            if node not in frozen and random.random() < ALSO_SHARE
        ]
        random.shuffle(victims)
        cluster.kill(*victims)
    finally:
        writers.stop()
        job.result()
    wrong = [*writers.surprises, *ledger.check_positions()]
    if wrong:
        raise Violation("Answers contradict each other.", wrong)
    return ledger


def start_again(cluster: Cluster, random: Random) -> None:
    """Starts all that was killed; now and then the leader is killed again meanwhile."""
    cluster.launch(*(node for node in cluster.nodes if node.child is None))
    while random.random() < AGAIN_SHARE:
        time.sleep(random.uniform(0, MAX_AGAIN_S))
        cluster.leader.check_alive()
        cluster.kill(cluster.leader)
        cluster.launch(cluster.leader)
    cluster.wait_up(*cluster.nodes)


def check_all(cluster: Cluster, ledger: Ledger) -> None:
    """Waits until the leader leads again, and checks what came back against what clients were told.

    Raises:
        Violation: It does not lead again, something acknowledged is lost, a replica shows what it
            must not, or replicas differ.
    """
    cluster.find_leader()
    cluster.wait_counting()
    cluster.wait_converged()
    check_equal(cluster, cluster.nodes)
    view = view_of(cluster, cluster.leader)
    wrong = [*ledger.check_view(view), *ledger.check_batches(view)]
    if wrong:
        raise Violation("The leader came back with less, or more, than it may.", wrong)
