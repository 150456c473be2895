"""What a snapshot costs while writes go on as fast as they can: memory, turns of the loop, time."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.wrk import SCRIPT, parse
from tests.campaigns import timed_node
from tests.campaigns.campaign import Violation
from tests.campaigns.memory import MIB, MemorySampler
from tests.campaigns.nodes import Cluster, Node, wait_until
from tests.campaigns.scripted_channel import ScriptedFollower, ScriptedLeader, key_of, state_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tests.campaigns.campaign import Stage

VALUE_BYTES = 100
RATE_PER_S = 20_000
SPARE_MIB = 100
TURN_LIMIT_MS = 50.0
COUNTS_AGAIN_LIMIT_S = 120.0
WAIT_S = 2 * COUNTS_AGAIN_LIMIT_S  # late is told apart from never
CONNECTIONS = 64
STEADY_S = 2.0
SAMPLE_S = 0.05
TIMED = (str(Path(timed_node.__file__)),)


@dataclass(frozen=True, slots=True)
class Form:
    """How much.

    Attributes:
        keys: Of the store.
        log_mib: What the log may take.
        state_s: How long a slow follower takes to read a state.
    """

    keys: int
    log_mib: int
    state_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a node paid.

    Attributes:
        peak_mib: Resident memory at most.
        turns: From ``timed_node``; empty if it was an ordinary node.
        where: What the longest of them was at.
    """

    peak_mib: float
    turns: dict[str, float]
    where: str = ""

    def __str__(self) -> str:
        text = f"{self.peak_mib:.0f} MiB at most"
        if self.turns:
            told = self.turns
            text += (
                f"; {told['turns']:,.0f} turns, of which none used more than "
                f"{told['cpu_max_ms']:.1f} ms ({self.where}); wall p99.9 "
                f"{told['wall_p999_ms']:.1f} and at most {told['wall_max_ms']:.1f} ms"
            )
        return text


class Watch:
    """Looks what a node pays from now on, until it is asked."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sampler = MemorySampler([node], SAMPLE_S)
        self._sampler.__enter__()
        self._start_s = time.monotonic()
        self._turns()

    def cost(self) -> Cost:
        """Ends the watch."""
        turns = self._turns()
        where = str(turns.pop("where", ""))
        self._sampler.__exit__(None, None, None)
        return Cost(self._sampler.peak_bytes(self._node, self._start_s) / MIB, turns, where)

    def _turns(self) -> dict[str, Any]:
        """Returns what a timed node tells of its turns since it was asked last."""
        path = self._node.environment.get("TURNS_FILE")
        if path is None:
            return {}
        told = _lines(path)
        self._node.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: len(_lines(path)) > len(told), f"{self._node.name} tells of its turns")
        return dict(json.loads(_lines(path)[-1]))


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def time_turns(cluster: Cluster) -> None:
    """Lets each node of a cluster tell of its turns; they have to be started as ``TIMED``."""
    for node in cluster.nodes:
        node.environment["TURNS_FILE"] = str(node.folder / "turns.jsonl")


def check(who: str, form: Form, alone: Cost, beside: Cost) -> list[str]:
    """Returns what was too much."""
    wrong = []
    limit_mib = alone.peak_mib + 2 * form.log_mib + SPARE_MIB
    if beside.peak_mib > limit_mib:
        wrong.append(f"{who}: {beside.peak_mib:.0f} MiB of memory, {limit_mib:.0f} at most")
    if beside.turns and beside.turns["cpu_max_ms"] > TURN_LIMIT_MS:
        wrong.append(f"{who}: a turn of {beside.turns['cpu_max_ms']:.1f} ms of processor time")
    return wrong


def judge(
    stage: Stage, form: Form, took_s: float, who: str, alone: Cost, beside: Cost
) -> list[str]:
    """Tells what was seen; returns what was too much."""
    stage.say(f"  {who}: with the state alone {alone}")
    stage.say(f"  {who}: with writes beside it {beside}")
    wrong = check(who, form, alone, beside)
    if took_s > COUNTS_AGAIN_LIMIT_S:
        wrong.append(f"counted after {took_s:.1f} s, {COUNTS_AGAIN_LIMIT_S:g} s at most")
    return wrong


# --- a real follower --------------------------------------------------------------------------


def follower_alone(stage: Stage, form: Form) -> list[str]:
    """A scripted leader sends a real follower the state, then again with entries beside it."""
    stage.say(f"[bold]A scripted leader[/] sends {form.keys:,} keys, and {RATE_PER_S:,} entries/s")
    value = "v" * VALUE_BYTES
    state = state_of(form.keys, value)
    costs: list[Cost] = []
    took_s = 0.0
    for name, rate_per_s in (("alone", 0), ("beside", RATE_PER_S)):
        with Cluster(
            stage, f"follower-{name}", 1, 0, program=TIMED, LOG_BYTES=str(form.log_mib * MIB)
        ) as cluster:
            time_turns(cluster)
            (node,) = cluster.followers
            cluster.start(node)
            watch = Watch(node)
            leader = ScriptedLeader(node.url, state, form.keys, value)
            took_s = leader.teach(rate_per_s)
            costs.append(watch.cost())
            cluster.check_logs()
        stage.say(f"  counted after {took_s:.1f} s; {leader.beside:,} entries beside the state")
        if leader.acknowledged:
            raise Violation(f"{leader.acknowledged} entries beside a snapshot were acknowledged.")
    return judge(stage, form, took_s, "follower", *costs)


# --- a real leader ----------------------------------------------------------------------------


class Wrk:
    """Writes to keys that are there, as fast as it can, until it is stopped."""

    def __init__(self, stage: Stage, leader: Node, keys: int) -> None:
        path = leader.folder / "requests"
        with path.open("w", encoding="utf-8") as file:
            for number in stage.random.sample(range(keys), min(keys, 200_000)):
                body = json.dumps({"value": f"{number:0{VALUE_BYTES}}"})
                file.write(f"PUT\t/kv/{key_of(number).replace(' ', '%20')}\t{body}\n")
        command = ["wrk", "--latency", "-t1", f"-c{CONNECTIONS}", f"-d{2 * WAIT_S:.0f}s"]
        with stage.held():
            self._process = subprocess.Popen(
                [*command, "-s", str(SCRIPT), leader.url, "--", str(path)],
                stdout=subprocess.PIPE,
                text=True,
            )

    def stop(self) -> str:
        """Ends it, and tells what it has written.

        Raises:
            Violation: Not all that it sent.
        """
        self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate(timeout=30)
        load = parse(output, 0.0)
        if load.failed:
            raise Violation(f"Writes failed though none needs a follower: {load}.")
        return f"wrk wrote {load.rate_per_s:,.0f}/s, p99 {load.p99_ms:.0f} ms"

    def kill(self) -> None:
        """Ends it in any case."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class OwnWrites:
    """Those of a timed leader into its own log: no client writes so many.

    Attributes:
        rate_per_s: How many there were, once they are stopped; fewer than wanted if it is busy.
    """

    def __init__(self, leader: Node) -> None:
        self._leader, self._path = leader, leader.environment["WRITES_FILE"]
        self._told = len(_lines(self._path))
        self.rate_per_s = 0.0
        leader.process.send_signal(signal.SIGUSR2)

    @staticmethod
    def prepare(leader: Node, form: Form, rate_per_s: int = RATE_PER_S) -> None:
        """Lets a node write when it is told to; it has to be started as ``TIMED`` after this."""
        leader.environment |= {
            "WRITES_FILE": str(leader.folder / "writes.jsonl"),
            "WRITES_PER_S": str(rate_per_s),
            "WRITES_KEYS": str(form.keys),
            "WRITES_BYTES": str(VALUE_BYTES),
        }

    def stop(self) -> str:
        """Ends them, and tells how many there were.

        Raises:
            Violation: The leader refused some.
        """
        self._leader.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: len(_lines(self._path)) > self._told, "the leader tells of its writes")
        told = json.loads(_lines(self._path)[-1])
        if told["refused"]:
            raise Violation(f"{told['refused']} writes failed though none needs a follower.")
        self.rate_per_s = told["written"] / told["seconds"]
        return f"the leader wrote {self.rate_per_s:,.0f} entries/s"

    def kill(self) -> None:
        """They end with the leader."""


def beside_writes(
    stage: Stage,
    cluster: Cluster,
    form: Form,
    start_writes: Callable[[], Wrk | OwnWrites],
    lose: Callable[[], None],
    is_back: Callable[[], bool],
    watched: Callable[[], list[Node]],
) -> list[str]:
    """Lets the follower of a leader lose its data, alone, then beside all writes there may be.

    Args:
        stage: The campaign's.
        cluster: It has the keys.
        form: How many, and how long the log is.
        start_writes: Begins those beside it.
        lose: Lets the follower lose its data and come back.
        is_back: Whether it counts again.
        watched: The nodes whose costs are to be seen.
    """
    costs: list[list[Cost]] = []
    took_s = 0.0
    for is_beside in (False, True):
        writes = start_writes() if is_beside else None
        try:
            time.sleep(STEADY_S)
            leader_watch = Watch(cluster.leader)
            lose()
            began_s = time.monotonic()
            watches = [leader_watch, *(Watch(node) for node in watched())]
            wait_until(is_back, "the follower counts again", WAIT_S)
            took_s = time.monotonic() - began_s
            time.sleep(STEADY_S)
            costs.append([watch.cost() for watch in watches])
            told = f"; {writes.stop()}" if writes is not None else ""
        finally:
            if writes is not None:
                writes.kill()
        stage.say(f"  counted again after {took_s:.1f} s{told}")
    names = ["leader", "follower"]
    wrong: list[str] = []
    for who, alone, beside in zip(names, *costs, strict=False):
        wrong += judge(stage, form, took_s, who, alone, beside)
    return wrong


def leader_with_a_slow_follower(stage: Stage, form: Form, load: Callable[[str], None]) -> list[str]:
    """A scripted follower takes its time for the state of a real leader, entries beside it."""
    stage.say(f"[bold]A scripted follower[/] reads {form.keys:,} keys within {form.state_s:g} s")
    with Cluster(
        stage, "leader", 1, 0, program=TIMED, LOG_BYTES=str(form.log_mib * MIB)
    ) as cluster:
        time_turns(cluster)
        OwnWrites.prepare(cluster.leader, form)
        (victim,) = cluster.followers
        with ScriptedFollower(victim.url, victim.name) as follower:
            cluster.start(cluster.leader)
            wait_until(follower.counts.is_set, "the cluster is formed")
            load(cluster.leader.url)
            wrong = beside_writes(
                stage,
                cluster,
                form,
                lambda: OwnWrites(cluster.leader),
                lambda: follower.lose_all(form.state_s),
                follower.counts.is_set,
                list,
            )
            if follower.wrong is not None:
                raise Violation(f"The scripted follower met a bug: {follower.wrong!r}.")
            seen = follower.seen
        cluster.check_logs()
    stage.say(f"  snapshots {seen.snapshots}; {seen.entries:,} entries, {seen.beside:,} beside")
    if seen.beside:
        wrong.append(f"{seen.beside} entries were sent beside a snapshot")
    return wrong


def leader_and_follower(
    stage: Stage, form: Form, load: Callable[[str], None], *, is_timed: bool, is_durable: bool
) -> list[str]:
    """A real follower of a real leader loses its data, beside all writes."""
    kind = f"{'timed' if is_timed else 'ordinary'} {'durable' if is_durable else 'memory'}"
    stage.say(f"[bold]A leader and a follower[/], {kind} nodes, {form.keys:,} keys")
    program = TIMED if is_timed else ("-m", "kv_app")
    with Cluster(
        stage,
        f"both {kind}",
        1,
        0,
        is_durable=is_durable,
        program=program,
        LOG_BYTES=str(form.log_mib * MIB),
    ) as cluster:
        if is_timed:
            time_turns(cluster)
        cluster.start()
        cluster.wait_counting()
        load(cluster.leader.url)
        cluster.wait_converged()
        (victim,) = cluster.followers

        def lose() -> None:
            cluster.kill(victim)
            if is_durable:
                cluster.wipe(victim)
            cluster.start(victim)

        def is_back() -> bool:
            return counts_again(cluster, victim)

        def start_writes() -> Wrk:
            return Wrk(stage, cluster.leader, form.keys)

        wrong = beside_writes(stage, cluster, form, start_writes, lose, is_back, lambda: [victim])
        cluster.wait_converged()
        cluster.check_logs()
    return wrong


def counts_again(cluster: Cluster, follower: Node) -> bool:
    """Whether a follower, which must be alive, is a voter once more."""
    link = cluster.links()["links"][follower.name]
    follower.check_alive()
    return bool(link["connected"] and not link["learner"])
