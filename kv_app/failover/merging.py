"""Decides what a new epoch begins with, and where it comes from. Pure.

The log of the newest base, as all sealed nodes hold it together: what is settled on the one that is
ahead, and the union of the entries above. A position that nobody holds becomes a no-op: nothing
that was acknowledged can have been there. Only logs of one base are united, since a seq may mean
another entry in another one's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kv_app.failover.calls import Sealed
from kv_app.log import HeldPositions
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
        noops: The positions that nobody holds, ascending.
    """

    position: int
    stable: int
    whole_from: str | None = None
    whole_upto: int = 0
    fetches: dict[str, list[SeqRange]] = field(default_factory=dict)
    noops: tuple[SeqRange, ...] = ()

    @property
    def holes(self) -> int:
        """How many positions nobody holds."""
        return sum(span.last - span.first + 1 for span in self.noops)


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
    if _is_in_logs(sources, positions, held, oldest):
        chosen, nobody = _choose(sources, positions, _lacking(held, held.contiguous, position))
        return MergePlan(position, stable, None, 0, chosen, tuple(nobody))
    # What is nobody's entry any more is in the versions of who dropped it last.
    ahead = max(sources, key=lambda url: sources[url].settled)
    upto = sources[ahead].settled
    chosen, nobody = _choose(sources, positions, _lacking(held, upto, position))
    return MergePlan(position, stable, ahead, upto, chosen, tuple(nobody))


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


def _lacking(held: HeldPositions, above: int, position: int) -> list[SeqRange]:
    """Returns the positions above one, up to another, that are not held."""
    wanted = [SeqRange(above + 1, position)] if above < position else []
    return split(wanted, _spans(held, 0))[1]


def _spans(held: HeldPositions, above: int) -> list[SeqRange]:
    """Returns all held positions above one, as ascending ranges."""
    reached = held.contiguous
    first = [SeqRange(above + 1, reached)] if above < reached else []
    return [*first, *(span for span in held.ranges_above() if span.first > above)]


def split(
    wanted: Sequence[SeqRange], held: Sequence[SeqRange]
) -> tuple[list[SeqRange], list[SeqRange]]:
    """Splits positions into those that are among some held ones, and those that are not.

    Args:
        wanted: Ascending.
        held: Ascending too.
    """
    found: list[SeqRange] = []
    missing: list[SeqRange] = []
    at = 0
    for span in wanted:
        first = span.first
        while first <= span.last:
            while at < len(held) and held[at].last < first:
                at += 1
            if at == len(held) or held[at].first > span.last:
                missing.append(SeqRange(first, span.last))
                break
            one = held[at]
            if one.first > first:
                missing.append(SeqRange(first, one.first - 1))
                first = one.first
            last = min(one.last, span.last)
            found.append(SeqRange(first, last))
            first = last + 1
    return found, missing


def positions_of(node: Sealed) -> HeldPositions:
    """Returns which positions a sealed node holds."""
    positions = HeldPositions(node.contiguous)
    for span in node.above:
        positions.add_range(span.first, span.last)
    return positions


def _choose(
    sources: Mapping[str, Sealed],
    positions: Mapping[str, HeldPositions],
    lacking: list[SeqRange],
) -> tuple[dict[str, list[SeqRange]], list[SeqRange]]:
    """Returns whom to ask for which entries, and those that nobody has."""
    chosen: dict[str, list[SeqRange]] = {}
    for url, one in sources.items():
        found, lacking = split(lacking, _spans(positions[url], one.start))
        if found:
            chosen[url] = found
    return chosen, lacking
