"""Up to which rate of writes, and with how short a log, a follower without data catches up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.campaigns.beside import (
    COUNTS_AGAIN_LIMIT_S,
    SAMPLE_S,
    STEADY_S,
    TIMED,
    OwnWrites,
    counts_again,
    time_turns,
)
from tests.campaigns.nodes import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.campaigns.beside import Form
    from tests.campaigns.campaign import Stage

# Tried one after the other until a follower does not count again in time: first rates, of which the
# last ones are more than a leader can write, with the log of the default; then shorter logs.
RATES_PER_S = (5_000, 10_000, 15_000, 30_000)
LOG_RATE_PER_S, LOGS = 5_000, (50_000, 25_000, 12_500, 6_000, 3_000, 1_500, 750)


def find_limits(stage: Stage, form: Form, load: Callable[[str], None]) -> str:
    """Finds up to which rate a wiped follower counts again in time, and with how short a log."""
    stage.say(f"[bold]Up to which rate[/] a follower of {form.keys:,} keys catches up")
    highest = 0.0
    for rate_per_s in RATES_PER_S:
        written_per_s, is_back = catch_up_beside(stage, form, load, rate_per_s, {})
        if not is_back:
            break
        highest = max(highest, written_per_s)
    stage.say(f"[bold]With how short a log[/] at {LOG_RATE_PER_S:,} entries/s")
    shortest_s = 0.0
    for entries in LOGS:
        log = {"LOG_ENTRIES": str(entries), "MAX_IN_FLIGHT": str(entries)}
        written_per_s, is_back = catch_up_beside(stage, form, load, LOG_RATE_PER_S, log)
        if not is_back:
            break
        shortest_s = entries / written_per_s
    return f"up to {highest:,.0f} entries/s, or with a log that lasts for {shortest_s:.1f} s"


def catch_up_beside(
    stage: Stage, form: Form, load: Callable[[str], None], rate_per_s: int, log: dict[str, str]
) -> tuple[float, bool]:
    """Lets a follower lose all it has while the leader writes by itself.

    Returns:
        Entries per second that were written, and whether the follower counted again in time.
    """
    name = f"{rate_per_s} {log.get('LOG_ENTRIES', '')}"
    with Cluster(stage, name, 1, 0, program=TIMED, **log) as cluster:
        time_turns(cluster)
        OwnWrites.prepare(cluster.leader, form, rate_per_s)
        cluster.start()
        cluster.wait_counting()
        load(cluster.leader.url)
        cluster.wait_converged()
        (victim,) = cluster.followers
        writes = OwnWrites(cluster.leader)
        time.sleep(STEADY_S)
        cluster.kill(victim)
        began_s = time.monotonic()
        cluster.start(victim)
        while not (is_back := counts_again(cluster, victim)):
            if time.monotonic() - began_s > COUNTS_AGAIN_LIMIT_S:
                break
            time.sleep(SAMPLE_S)
        took_s = time.monotonic() - began_s
        told = writes.stop()
    lasts = f", a log of {log['LOG_ENTRIES']} entries" if log else ""
    stage.say(f"  {'after' if is_back else 'not within'} {took_s:.1f} s while {told}{lasts}")
    return writes.rate_per_s, is_back
