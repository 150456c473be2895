"""Decides what a new epoch begins with, and where it comes from. Pure.

The log of the newest base, as all sealed nodes hold it together: what is settled on the one that is
ahead, and the union of the entries above. A position that nobody holds becomes a no-op: nothing
that was acknowledged can have been there. Only logs of one base are united, since a seq may mean
another entry in another one's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kv_app.failover.calls import Sealed
from kv_app.log import HeldPositions, to_ranges
from kv_app.messages import SeqRange


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What the promoter lacks.

    Attributes:
        position: The last seq of the merged log.
        stable: Everything at or below is committed.
        whole_from: The URL of the node whose settled state has to be taken first, if one has to.
        whole_upto: Up to where that goes.
        fetches: Which entries to take from which node, by URL.
        noops: The positions that nobody holds.
    """

    position: int
    stable: int
    whole_from: str | None = None
    whole_upto: int = 0
    fetches: dict[str, list[SeqRange]] = field(default_factory=dict)
    noops: tuple[int, ...] = ()


def plan(sources: Mapping[str, Sealed], held: HeldPositions) -> MergePlan:
    """Plans how the promoter comes to hold the merged log.

    Args:
        sources: The sealed nodes that hold the newest base, by URL.
        held: What the promoter holds of that log already.
    """
    positions = {url: positions_of(one) for url, one in sources.items()}
    position = max([held.max_seq, *(one.max_seq for one in positions.values())])
    stable = max((one.settled for one in sources.values()), default=0)
    oldest = max((one.start for one in sources.values()), default=0)
    # Only logs are listed position by position, never the history that all have dropped.
    if _is_in_logs(sources, positions, held, oldest):
        chosen, nobody = _choose(sources, positions, _lacking(held, held.contiguous, position))
        return MergePlan(position, stable, None, 0, _ranges(chosen), tuple(nobody))
    # What is nobody's entry any more is in the versions of who dropped it last.
    ahead = max(sources, key=lambda url: sources[url].settled)
    upto = sources[ahead].settled
    chosen, nobody = _choose(sources, positions, _lacking(held, upto, position))
    return MergePlan(position, stable, ahead, upto, _ranges(chosen), tuple(nobody))


def _is_in_logs(
    sources: Mapping[str, Sealed],
    positions: Mapping[str, HeldPositions],
    held: HeldPositions,
    upto: int,
) -> bool:
    """Tells if of every position up to one that is not held somebody still has the entry."""
    spans = [(span.first, span.last) for span in held.ranges_above()]
    for url, one in sources.items():
        spans.append((one.start + 1, positions[url].contiguous))
        spans += [(span.first, span.last) for span in positions[url].ranges_above()]
    reached = held.contiguous
    for first, last in sorted(spans):
        if first > reached + 1:
            break
        reached = max(reached, last)
    return reached >= upto


def _lacking(held: HeldPositions, above: int, position: int) -> list[int]:
    """Returns the positions above one, up to another, that are not held."""
    return [seq for seq in range(above + 1, position + 1) if not held.holds(seq)]


def positions_of(node: Sealed) -> HeldPositions:
    """Returns which positions a sealed node holds."""
    positions = HeldPositions(node.contiguous)
    for span in node.above:
        positions.add_range(span.first, span.last)
    return positions


def _choose(
    sources: Mapping[str, Sealed], positions: Mapping[str, HeldPositions], seqs: list[int]
) -> tuple[dict[str, list[int]], list[int]]:
    """Returns whom to ask for which entries, and those that nobody has."""
    chosen: dict[str, list[int]] = {}
    nobody: list[int] = []
    for seq in seqs:
        for url, one in sources.items():
            if one.start < seq and positions[url].holds(seq):
                chosen.setdefault(url, []).append(seq)
                break
        else:
            nobody.append(seq)
    return chosen, nobody


def _ranges(chosen: dict[str, list[int]]) -> dict[str, list[SeqRange]]:
    return {url: to_ranges(seqs) for url, seqs in chosen.items()}
