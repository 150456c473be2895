"""Kills nodes at random moments under load, and looks whether anything was lost.

Two parts. Followers: in each round some or all are killed by SIGKILL, also while they start or
catch up; then writes stop, unknown ones are retried with their idempotency key, and all is
checked: no acknowledged write is lost, no definite failure is visible, no write was appended
twice, all digests are equal. Leader: in each round a fresh cluster loses its leader, and maybe
followers; all start again on their disks, the leader leads a new epoch by itself, and every
acknowledged write is there.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.campaigns.campaign import Stage, Violation, conduct, parser_of, removed
from tests.campaigns.client import Background
from tests.campaigns.leader_kills import kill_leaders
from tests.campaigns.ledger import Ledger, Outcome
from tests.campaigns.nodes import Cluster, Node
from tests.campaigns.views import check_equal, view_of
from tests.campaigns.writers import Manners, Writers

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS, SHORT_ROUNDS = 200, 9
LEADER_ROUNDS, SHORT_LEADER_ROUNDS = 50, 4
# Two kinds of memory: one that reaches back to the start, and one so short that a follower which
# was away for a moment needs a snapshot.
LOGS = ({}, {"LOG_ENTRIES": "300", "MAX_IN_FLIGHT": "300", "IDEMPOTENCY_KEYS": "5000"})
SETTINGS = {"REQUEST_TIMEOUT": "1", "HEARTBEAT_TIMEOUT_S": "2", "RECONNECT_MAX_S": "0.2"}
MAX_AWAY_S = 0.5
MAX_AGAIN_S = 0.8
AGAIN_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Shape:
    """A cluster to torment: its followers, its write quorum, how far its log reaches."""

    followers: int
    write_quorum: int
    log: dict[str, str]


SHAPES = [Shape(n, k, log) for k in (1, 2, 3) for n, log in zip((3, 5), LOGS, strict=True)] + [
    Shape(3, 2, LOGS[1]),
    Shape(5, 3, LOGS[0]),
]
SHORT_SHAPES = [Shape(3, 1, LOGS[0]), Shape(3, 3, LOGS[1]), Shape(5, 2, LOGS[1])]


class Torment:
    """Rounds of kills on the followers of one cluster.

    Attributes:
        kills: How many processes were killed.
    """

    def __init__(self, cluster: Cluster, background: Background, random: Random) -> None:
        self.kills = 0
        self.ledger = Ledger()
        self._cluster = cluster
        self._background = background
        self._random = random
        self._writers = Writers(cluster.leader.url, self.ledger, Random(random.random()), Manners())
        self._first_seq = cluster.wait_converged()

    def round(self) -> None:
        """Writes, kills, starts again, settles and checks.

        Raises:
            Violation: A promise was broken.
        """
        begun = len(self.ledger.writes)
        job = self._background.start(self._writers.run())
        try:
            time.sleep(self._random.uniform(0, MAX_AWAY_S))
            self._kill_some()
            job.check()
        finally:
            self._writers.stop()
            job.result()
        self._cluster.wait_counting()
        self._background.run(self._writers.settle())
        self._check(begun)

    def _kill_some(self) -> None:
        """Kills followers, some of them again before they are back."""
        cluster, random = self._cluster, self._random
        victims = random.sample(cluster.followers, random.randint(1, len(cluster.followers)))
        self._kill(victims)
        time.sleep(random.uniform(0, MAX_AWAY_S))
        cluster.launch(*victims)
        while random.random() < AGAIN_SHARE:
            time.sleep(random.uniform(0, MAX_AGAIN_S))
            again = random.sample(cluster.followers, random.randint(1, len(victims)))
            self._kill(again)
            cluster.launch(*again)
        cluster.wait_up(*cluster.followers)
        time.sleep(random.uniform(0, MAX_AWAY_S))

    def _kill(self, victims: Sequence[Node]) -> None:
        for victim in victims:
            victim.check_alive()
        self._cluster.kill(*victims)
        self.kills += len(victims)

    def _check(self, begun: int) -> None:
        """The cheap checks of every round."""
        last_seq = self._cluster.wait_converged()
        check_equal(self._cluster, self._cluster.nodes)
        wrong = [*self._writers.surprises, *self.ledger.check_positions()]
        wrong += self.ledger.check_count(last_seq - self._first_seq)
        if wrong:
            raise Violation("Answers and log contradict each other.", wrong)
        if not any(w.outcome is Outcome.ACKNOWLEDGED for w in self.ledger.writes[begun:]):
            raise Violation("No write of a whole round was acknowledged.")

    def check_contents(self) -> int:
        """Checks all that the leader shows against the ledger; returns how many keys that is."""
        view = view_of(self._cluster, self._cluster.leader)
        wrong = [*self.ledger.check_view(view), *self.ledger.check_batches(view)]
        if wrong:
            raise Violation("What the replicas show contradicts the answers.", wrong)
        return len(view)


def kill_followers(stage: Stage, background: Background, rounds: int) -> str:
    """Runs the rounds on followers; returns what was done."""
    totals: Counter[str] = Counter()
    shapes = SHORT_SHAPES if stage.options.short else SHAPES
    for number, shape in enumerate(shapes):
        name = f"n{shape.followers}-k{shape.write_quorum}-{number}"
        share = rounds * (number + 1) // len(shapes) - rounds * number // len(shapes)
        settings = {**SETTINGS, **shape.log}
        with (
            Cluster(stage, name, shape.followers, shape.write_quorum, **settings) as cluster,
            removed(stage.folder / name),
        ):
            cluster.start()
            cluster.wait_counting()
            torment = Torment(cluster, background, stage.random)
            for _ in range(share):
                torment.round()
            keys = torment.check_contents()
            cluster.kill(*cluster.nodes)
            cluster.check_logs()
        ledger = torment.ledger
        totals += Counter(rounds=share, kills=torment.kills, writes=len(ledger.writes))
        retried = sum(write.idempotency_key is not None for write in ledger.writes)
        stage.say(
            f"  n={shape.followers} k={shape.write_quorum} "
            f"log of {shape.log.get('LOG_ENTRIES', '100000')}: {share} rounds, "
            f"{torment.kills} kills, {len(ledger.writes)} writes ({retried} with a key): "
            f"{ledger.count(Outcome.ACKNOWLEDGED)} acknowledged, "
            f"{ledger.count(Outcome.FAILED)} failed; {keys} keys shown"
        )
    return (
        f"{totals['rounds']} rounds, {totals['kills']} followers killed, {totals['writes']} writes"
    )


def campaign(stage: Stage) -> str:
    """Runs both parts, or the one that was asked for."""
    done: list[str] = []
    is_short, only = stage.options.short, stage.options.only
    with Background() as background:
        if only != "leader":
            done.append(kill_followers(stage, background, SHORT_ROUNDS if is_short else ROUNDS))
        if only != "followers":
            rounds = SHORT_LEADER_ROUNDS if is_short else LEADER_ROUNDS
            done.append(kill_leaders(stage, background, rounds))
    return f"{'; '.join(done)}; nothing lost, nothing twice, no failed write visible."


def main() -> None:
    """Runs the campaign."""
    parser = parser_of("kills", __doc__ or "")
    parts = parser.add_mutually_exclusive_group()
    for part in ("leader", "followers"):
        parts.add_argument(
            f"--{part}", dest="only", action="store_const", const=part, help="only this part"
        )
    conduct(parser, campaign)


if __name__ == "__main__":
    main()
