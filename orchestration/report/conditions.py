"""The conditions of a run in words: settings, machine, what an acknowledgment means."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from orchestration.report.numbers import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.report.records import Manifest, Run, TrialRow
    from orchestration.scenario import Scenario

ACK_MEANINGS = {
    "memory": "the follower holds the write in memory; a power loss takes it",
    "fsync": "the follower has the write on disk (fsync), and so has the leader",
    "memory and fsync": "either that the follower has it in memory, or on disk; both were measured",
    "mixed": "some nodes have the write on disk (fsync), others in memory",
    "unknown": "not known, the cluster did not start",
}


def ack_meaning(ack: str) -> str:
    """Return what an acknowledgment says about a follower, as a clause."""
    return ACK_MEANINGS.get(ack, f"as the engine defines it ({ack})")


def load(row: TrialRow) -> str:
    """Return how the load was offered: "100 writes/s, open loop"."""
    if row.rate is not None:
        return f"{row.rate:g} operations/s, open loop"
    if row.users is not None:
        return f"{count(row.users, 'client')} back to back, closed loop"
    return "closed loop"


def delays(of: TrialRow | Scenario) -> str:
    """Return the links' delays: "link delays 0 to 100 ms, uniform, independent"."""
    if of.delay_ms is None:
        return "link delays as the cluster has them"
    low, high = of.delay_ms
    if high == 0:
        return "no link delays"
    model = f", {of.delay_model}" if of.delay_model else ""
    return f"link delays {low:g} to {high:g} ms, uniform{model}"


def injection(manifest: Manifest) -> str:
    """Return where the link delays came from, as a clause: as much of it as is known."""
    between = {"local": " between processes of one machine", "compose": " between containers"}
    return f"Link delays are injected{between.get(manifest.engine, ' by the leader')}"


def cores(manifest: Manifest) -> str:
    """Return a sentence on who shared cores with whom."""
    if manifest.scenario.get("is_pinned"):
        return "Nodes and load generator had cores of their own, of the same machine."
    if manifest.engine == "attached":
        return "The load generator ran on this machine; where the nodes ran is not known."
    return (
        "Nodes and load generator shared the cores of one machine: each may have slowed the other. "
        "Local nodes can have cores of their own (--pin)."
    )


def trials(rows: Sequence[TrialRow]) -> str:
    """Return how many trials of which length each k had: "3 trials of 4 s per k".

    A trial that is a number of writes, not a time, has a duration of 0.
    """
    per_cell = Counter(row.key for row in rows).values()
    fewest, most = min(per_cell), max(per_cell)
    number = count(most, "trial") if fewest == most else f"{fewest} to {most} trials"
    length = f" of {duration_s:g} s" if (duration_s := rows[0].duration_s) else ""
    return f"{number}{length} per k"


def machine(manifest: Manifest) -> str:
    """Return the machine in a line: processor, cores, memory, kernel; empty if unknown."""
    known = manifest.machine
    cores = known.get("cores")
    memory = known.get("memory_gib")
    parts = [
        str(known.get("cpu") or ""),
        count(int(cores), "core") if cores else "",
        f"of which {quota:g} may be used" if (quota := known.get("cpu_quota")) else "",
        f"{memory:.0f} GiB" if memory else "",
        str(known.get("kernel") or ""),
    ]
    return ", ".join(part for part in parts if part)


def footnote(run: Run) -> str:
    """Return the lines that belong under every chart: what was done, what an ack is, on what."""
    manifest = run.manifest
    done = []
    if manifest.status != "complete":
        planned = f" of {manifest.planned_trials}" if manifest.planned_trials else ""
        done.append(f"The run is {manifest.status}: {len(run.rows)}{planned} trials.")
    if run.rows:
        first = run.rows[0]
        done.append(
            f"{count(first.followers, 'follower')} ({manifest.engine}), {delays(first)}. "
            f"{load(first)}, {trials(run.rows)}."
        )
    where = " · ".join(part for part in (machine(manifest), manifest.run) if part)
    ack = f"An ack means: {ack_meaning(manifest.ack)}."
    return "\n".join(line for line in (" ".join(done), ack, where) if line)
