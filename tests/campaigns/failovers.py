"""Takes leaders away under load, and looks whether anything was lost and writes go on.

Four parts. Restarts: one random node or all are killed by SIGKILL and started again on their disks;
nobody helps, writes go on by themselves. Promotions: the leader and as many followers as the rules
allow are killed, another node is promoted; one more dead, and it has to refuse. Duels: two nodes
are promoted at once, again and again; never may two leaders acknowledge. Quorums: the write quorum
goes up and down under load, with kills and promotions between.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, Any

import httpx

from tests.campaigns.campaign import Stage, Violation, conduct, parser_of, removed
from tests.campaigns.client import Background
from tests.campaigns.ledger import Ledger, Outcome
from tests.campaigns.nodes import Cluster, Node, wait_until
from tests.campaigns.views import check_equal, view_of
from tests.campaigns.writers import Manners, Writers

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = {"REQUEST_TIMEOUT": "1", "HEARTBEAT_TIMEOUT_S": "1", "RECONNECT_MAX_S": "0.2"}
DELAYED = {"MIN_DELAY_MS": "0", "MAX_DELAY_MS": "50"}
SHAPES = [(3, 1), (3, 2), (3, 3), (5, 1), (5, 2), (5, 3)]
RESTARTS, SHORT_RESTARTS = 200, 4
DUELS, SHORT_DUELS = 200, 10
QUORUM_ROUNDS, SHORT_QUORUM_ROUNDS = 60, 4
FOLLOWERS = 5
MIN_LOAD_S, MAX_LOAD_S = 0.1, 0.6
MAX_AWAY_S = 0.3
MAX_HEADSTART_S = 0.05
RESUME_TIMEOUT_S = 30.0
DUEL_TIMEOUT_S = 10.0
PROMOTE_TIMEOUT_S = 60.0
MANNERS = Manners(pause_s=0.01, may_move=True)


class Trial:
    """One cluster under load, from its start to its last check."""

    def __init__(self, cluster: Cluster, background: Background, random: Random) -> None:
        self.cluster = cluster
        self.random = random
        self.ledger = Ledger()
        self._background = background
        self._writers = Writers(cluster.leader.url, self.ledger, Random(random.random()), MANNERS)

    def under_load(self, act: Callable[[], None]) -> None:
        """Does something while clients write."""
        job = self._background.start(self._writers.run())
        try:
            time.sleep(self.random.uniform(MIN_LOAD_S, MAX_LOAD_S))
            act()
            time.sleep(self.random.uniform(MIN_LOAD_S, MAX_LOAD_S))
            job.check()
        finally:
            self._writers.stop()
            job.result()

    def follow(self) -> Node:
        """Waits until a node leads, and has clients write there."""
        leader = self.cluster.find_leader(RESUME_TIMEOUT_S)
        self._writers.url = leader.url
        return leader

    def settle(self) -> None:
        """Waits until all count again, and retries what is unknown until it is known."""
        self.follow()
        wait_until(self._is_whole, "all nodes follow the leader", RESUME_TIMEOUT_S)
        self._background.run(self._writers.settle())

    def _is_whole(self) -> bool:
        """Whether all followers count; looks for the leader anew, for it may have changed."""
        leader = self.cluster.find_leader(RESUME_TIMEOUT_S)
        self._writers.url = leader.url
        links = self.cluster.get(leader, "/admin/links")["links"].values()
        return all(link["connected"] and not link["learner"] for link in links)

    def check(self) -> None:
        """Holds all that is shown to what clients were told.

        Raises:
            Violation: Something was lost, shown though it failed, or differs between replicas.
        """
        cluster, ledger = self.cluster, self.ledger
        cluster.wait_converged()
        check_equal(cluster, cluster.nodes)
        view = view_of(cluster, cluster.leader)
        wrong = [*self._writers.surprises, *ledger.check_positions()]
        wrong += [*ledger.check_view(view), *ledger.check_batches(view)]
        if wrong:
            raise Violation("What the replicas show contradicts the answers.", wrong)


# --- restarts -----------------------------------------------------------------------------------


def restarts(stage: Stage, background: Background) -> str:
    """Kills one node or all, starts them again, and waits for writes to go on by themselves."""
    rounds = SHORT_RESTARTS if stage.options.short else RESTARTS
    shapes = [(3, 1), (5, 3)] if stage.options.short else SHAPES
    totals: Counter[str] = Counter()
    for number, (followers, k) in enumerate(shapes):
        share = rounds * (number + 1) // len(shapes) - rounds * number // len(shapes)
        name = f"restarts-n{followers}-k{k}"
        with (
            Cluster(stage, name, followers, k, **SETTINGS) as cluster,
            removed(stage.folder / name),
        ):
            cluster.start()
            cluster.wait_counting()
            trial = Trial(cluster, background, stage.random)
            slowest_s = 0.0
            for _ in range(share):
                slowest_s = max(slowest_s, restart(trial))
            trial.check()
            cluster.kill(*cluster.nodes)
            cluster.check_logs()
        acknowledged = trial.ledger.count(Outcome.ACKNOWLEDGED)
        totals += Counter(rounds=share, writes=acknowledged)
        stage.say(
            f"  restarts, n={followers} k={k}: {share} rounds, {acknowledged} acknowledged writes,"
            f" a leader again after at most {slowest_s:.1f} s"
        )
    return f"{totals['rounds']} restarts under load, {totals['writes']} acknowledged writes"


def restart(trial: Trial) -> float:
    """One round; returns how long no node led, in s."""
    cluster, random = trial.cluster, trial.random
    gone_s = 0.0

    def kill() -> None:
        nonlocal gone_s
        victims = cluster.nodes if random.random() < 1 / 3 else [random.choice(cluster.nodes)]
        for victim in victims:
            victim.check_alive()
        cluster.kill(*victims)
        began_s = time.monotonic()
        time.sleep(random.uniform(0, MAX_AWAY_S))
        cluster.launch(*victims)
        cluster.wait_up(*victims)
        trial.follow()
        gone_s = time.monotonic() - began_s

    trial.under_load(kill)
    trial.settle()
    return gone_s


# --- promotions ---------------------------------------------------------------------------------


def may_die(k: int) -> int:
    """How many followers may die beside the leader: min(k - 1, n - majority)."""
    return min(k - 1, FOLLOWERS - (FOLLOWERS // 2 + 1))


def promotions(stage: Stage, background: Background) -> str:
    """Kills the leader and followers, and promotes another one, at every write quorum."""
    lost = 0
    for k in range(FOLLOWERS + 1):
        name = f"promotions-k{k}"
        with (
            Cluster(stage, name, FOLLOWERS, k, **SETTINGS, **DELAYED) as cluster,
            removed(stage.folder / name),
        ):
            cluster.start()
            cluster.wait_counting()
            trial = Trial(cluster, background, stage.random)
            if k == 0:
                lost = promote_by_force(trial)
            else:
                promote_after_losses(trial, k)
            cluster.kill(*cluster.nodes)
        stage.say(f"  promotion, n={FOLLOWERS} k={k}: {trial.ledger.count(Outcome.ACKNOWLEDGED)}")
    return f"promotions at k=0 to {FOLLOWERS}, k=0 by force ({lost} acknowledged writes lost)"


def promote_after_losses(trial: Trial, k: int) -> None:
    """Kills the leader with one follower too many, then brings that back and promotes.

    Raises:
        Violation: It was promoted too early, or not in the end, or something was lost.
    """
    cluster, random = trial.cluster, trial.random
    old = cluster.leader
    survivors: list[Node] = []

    def kill() -> None:
        dead = random.sample(cluster.followers, may_die(k) + 1)
        survivors.extend(node for node in cluster.followers if node not in dead)
        cluster.kill(old, *dead)
        answer = promote(cluster, random.choice(survivors))
        error = answer.json().get("error", {})
        named = set(error.get("missing", []))
        if answer.status_code != 409 or named != {old.url, *(node.url for node in dead)}:
            raise Violation(f"One too many is dead, and: {answer.status_code} {answer.text}")
        back = random.choice(dead)
        cluster.launch(back)
        cluster.wait_up(back)
        survivors.append(back)
        answer = promote(cluster, random.choice(survivors))
        if answer.status_code != 200:
            raise Violation(f"Enough survive, and: {answer.status_code} {answer.text}")
        trial.follow()

    trial.under_load(kill)
    gone = [node for node in cluster.nodes if node.child is None]
    cluster.launch(*gone)
    cluster.wait_up(*gone)
    trial.settle()
    trial.check()


def promote_by_force(trial: Trial) -> int:
    """k=0: a promotion without the leader is refused; by force what only it had is lost.

    Returns how many acknowledged writes were lost.

    Raises:
        Violation: It was not refused, or does not say what may be lost.
    """
    cluster, random = trial.cluster, trial.random

    def kill() -> None:
        cluster.kill(cluster.leader)
        target = random.choice(cluster.followers)
        refused = promote(cluster, target)
        if refused.status_code != 409:
            raise Violation(f"k=0 without force: {refused.status_code} {refused.text}")
        answer = promote(cluster, target, force=True)
        if answer.status_code != 200 or not answer.json()["may_have_lost"]:
            raise Violation(f"k=0 by force: {answer.status_code} {answer.text}")
        trial.follow()

    trial.under_load(kill)
    view = view_of(cluster, cluster.find_leader())
    return len(trial.ledger.check_view(view))


def promote(cluster: Cluster, node: Node, *, force: bool = False) -> httpx.Response:
    """Asks a node to lead, again while another attempt goes on."""
    body = {"force": force}
    url = f"{node.url}/admin/promote"
    while True:
        answer = cluster.client.post(url, json=body, timeout=PROMOTE_TIMEOUT_S)
        if answer.json().get("error", {}).get("code") != "outbid":
            return answer


# --- duels --------------------------------------------------------------------------------------


def duels(stage: Stage, background: Background) -> str:
    """Promotes two nodes at once, and looks who acknowledges what."""
    del background
    rounds = SHORT_DUELS if stage.options.short else DUELS
    outcomes: Counter[str] = Counter()
    with (
        Cluster(stage, "duels", 3, 2, is_durable=False, **SETTINGS) as cluster,
        removed(stage.folder / "duels"),
        ThreadPoolExecutor(len(cluster.nodes)) as pool,
    ):
        cluster.start()
        cluster.wait_counting()
        for number in range(rounds):
            outcomes[duel(cluster, pool, stage.random, number)] += 1
    return f"{rounds} duels ({', '.join(f'{n} {what}' for what, n in sorted(outcomes.items()))})"


def duel(cluster: Cluster, pool: ThreadPoolExecutor, random: Random, number: int) -> str:
    """One duel; returns how it ended.

    Raises:
        Violation: Two leaders acknowledged a write of one epoch's time, or nobody leads in time.
    """
    cluster.find_leader()
    cluster.wait_counting()
    rivals = random.sample(cluster.followers, 2)

    def challenge(node: Node, pause_s: float) -> int:
        time.sleep(pause_s)
        body: dict[str, Any] = {}
        answer = cluster.client.post(
            f"{node.url}/admin/promote", json=body, timeout=PROMOTE_TIMEOUT_S
        )
        return answer.status_code

    pauses = [random.uniform(0, MAX_HEADSTART_S) for _ in rivals]
    began_s = time.monotonic()
    codes = list(pool.map(challenge, rivals, pauses))
    leader = cluster.find_leader(DUEL_TIMEOUT_S)
    if time.monotonic() - began_s > DUEL_TIMEOUT_S:
        raise Violation(f"No leader within {DUEL_TIMEOUT_S:g} s after a duel.")
    # All that believe to lead are asked to write; only one may say yes.
    answers = list(
        pool.map(lambda node: _put(cluster, node, f"duel {number}", node.name), cluster.nodes)
    )
    said_yes = [node for node, code in zip(cluster.nodes, answers, strict=True) if code == 200]
    if [node.name for node in said_yes] not in ([], [leader.name]):
        raise Violation(f"Duel {number}: {[node.name for node in said_yes]} acknowledged.")
    return f"won by {sum(code == 200 for code in codes)}"


def _put(cluster: Cluster, node: Node, key: str, value: str) -> int:
    try:
        return cluster.client.put(f"{node.url}/kv/{key}", json={"value": value}).status_code
    except httpx.HTTPError:
        return 0


# --- quorums ------------------------------------------------------------------------------------


def quorums(stage: Stage, background: Background) -> str:
    """Changes k under load, with kills and promotions between."""
    rounds = SHORT_QUORUM_ROUNDS if stage.options.short else QUORUM_ROUNDS
    done: Counter[str] = Counter()
    with (
        Cluster(stage, "quorums", FOLLOWERS, 2, **SETTINGS) as cluster,
        removed(stage.folder / "quorums"),
    ):
        cluster.start()
        cluster.wait_counting()
        trial = Trial(cluster, background, stage.random)
        for _ in range(rounds):
            change_quorums(trial, done)
            trial.settle()
        trial.check()
        cluster.kill(*cluster.nodes)
        cluster.check_logs()
    done["acknowledged writes"] = trial.ledger.count(Outcome.ACKNOWLEDGED)
    return f"{rounds} rounds of changes ({', '.join(f'{n} {what}' for what, n in done.items())})"


def change_quorums(trial: Trial, done: Counter[str]) -> None:
    """One round: some changes of k, a kill, perhaps a promotion."""
    cluster, random = trial.cluster, trial.random

    def act() -> None:
        for _ in range(random.randint(1, 4)):
            k = random.randint(1, FOLLOWERS)
            url = f"{cluster.leader.url}/admin/quorum"
            answer = cluster.client.post(url, json={"write_quorum": k})
            done[f"changes answered {answer.status_code}"] += 1
            time.sleep(random.uniform(0, MAX_AWAY_S))
        victim = random.choice(cluster.nodes)
        was_leader = victim is cluster.leader
        cluster.kill(victim)
        done["kills"] += 1
        if was_leader and random.random() < 0.5:
            answer = promote(cluster, random.choice(cluster.followers))
            done[f"promotions answered {answer.status_code}"] += 1
        cluster.launch(victim)
        cluster.wait_up(victim)
        trial.follow()

    trial.under_load(act)


# --- all of it ----------------------------------------------------------------------------------

PARTS = {"restarts": restarts, "promotions": promotions, "duels": duels, "quorums": quorums}


def campaign(stage: Stage) -> str:
    """Runs all parts, or the one that was asked for."""
    chosen = [stage.options.part] if stage.options.part else list(PARTS)
    with Background() as background:
        done = [PARTS[name](stage, background) for name in chosen]
    return f"{'; '.join(itertools.chain(done))}; nothing lost but by force."


def main() -> None:
    """Runs the campaign."""
    parser = parser_of("failovers", __doc__ or "")
    parser.add_argument("--part", choices=list(PARTS), help="one of them alone")
    conduct(parser, campaign)


if __name__ == "__main__":
    main()
