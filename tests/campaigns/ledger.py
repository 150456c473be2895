"""What clients asked for and what they were told, and whether a store may look as it does. Pure.

Every value is written once in a campaign, so that what a replica shows names the write that it
came from. A write has one or more attempts (retries bear its idempotency key); what these were
told decides what may be visible:

- *acknowledged*: one attempt was answered 200: it is visible, or a newer write of its key is;
- *failed*: every attempt failed definitely: it is never visible;
- *unknown*: all else: it may be visible, at one position.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Position(NamedTuple):
    """Where an entry is in the log; compares as the tuple."""

    epoch: int
    seq: int


class Outcome(StrEnum):
    """What is known of a write."""

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Held(NamedTuple):
    """What a replica shows of a key; a deletion has no value."""

    value: str | None
    position: Position


@dataclass(slots=True, eq=False)
class Write:
    """One write of a client: its changes, and what its attempts were told.

    Attributes:
        changes: Per key the value, None for a deletion; more than one key is a batch.
        idempotency_key: Goes with every attempt; None for a write that is never retried.
        outcome: What the attempts so far say together.
        positions: Those that answers named, more than one only if the store is broken.
    """

    changes: Mapping[str, str | None]
    idempotency_key: str | None = None
    outcome: Outcome | None = None
    positions: set[Position] = field(default_factory=set)

    @property
    def position(self) -> Position | None:
        """Its position, if an answer named it."""
        return min(self.positions, default=None)

    @property
    def may_be_visible(self) -> bool:
        """Whether a replica may show it."""
        return self.outcome is not Outcome.FAILED

    def note(self, outcome: Outcome, position: Position | None = None) -> None:
        """Takes what an attempt was told.

        A definite failure of a retry leaves an unknown write unknown: an earlier attempt may still
        be on its way.
        """
        if position is not None:
            self.positions.add(position)
        if outcome is Outcome.FAILED:
            self.outcome = self.outcome or outcome
        elif self.outcome is not Outcome.ACKNOWLEDGED:
            self.outcome = outcome


class Ledger:
    """All writes of a campaign, by key."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self._by_key: defaultdict[str, list[Write]] = defaultdict(list)

    def begin(self, write: Write) -> Write:
        """Notes a write before it is sent for the first time."""
        self.writes.append(write)
        for key in write.changes:
            self._by_key[key].append(write)
        return write

    def count(self, outcome: Outcome) -> int:
        """Tells how many writes ended so."""
        return sum(write.outcome is outcome for write in self.writes)

    # --- checks -------------------------------------------------------------------------------

    def check_positions(self) -> list[str]:
        """Returns what is wrong about positions alone.

        A write that has two was appended twice; two writes at one contradict each other.
        """
        wrong = [
            f"{_name(write)} was told two positions: {sorted(write.positions)}"
            for write in self.writes
            if len(write.positions) > 1
        ]
        owner: dict[Position, Write] = {}
        for write in self.writes:
            for position in write.positions:
                first = owner.setdefault(position, write)
                if first is not write:
                    wrong.append(f"{_name(first)} and {_name(write)} are both at {position}")
        return wrong

    def check_count(self, appended: int) -> list[str]:
        """Returns what is wrong if the log got so many entries from all of these writes.

        Every write must have its position by now, or have failed.
        """
        known = {position for write in self.writes for position in write.positions}
        nowhere = [w for w in self.writes if w.may_be_visible and not w.positions]
        wrong = [f"{_name(write)} is still without a position" for write in nowhere]
        if not nowhere and appended != len(known):
            wrong.append(f"the log got {appended} entries from {len(known)} writes")
        return wrong

    def check_view(self, view: Mapping[str, Held]) -> list[str]:
        """Returns what is wrong if a replica that holds all that is committed shows this.

        Args:
            view: Per key what it shows; keys without a version are left out.
        """
        lost = [line for key in self._by_key if (line := self._loss(key, view.get(key)))]
        return [*lost, *self.check_origins(view)]

    def check_origins(self, view: Mapping[str, Held]) -> list[str]:
        """Returns what is shown and cannot be, on any replica however far behind."""
        return [
            f"{key!r} shows {_shown(held)}: {reason}"
            for key, held in view.items()
            if (reason := _origin_problem(key, held, self._by_key.get(key, [])))
        ]

    def check_batches(self, view: Mapping[str, Held]) -> list[str]:
        """Returns which batches a replica shows in part: a batch is there whole or not at all."""
        wrong: list[str] = []
        for write in self.writes:
            own = [key for key in write.changes if self._by_key[key] == [write]]
            shown = [key for key in own if key in view]
            if shown and len(shown) != len(own):
                wrong.append(f"{_name(write)} is shown in part: {len(shown)} of {len(own)} keys")
        return wrong

    def holds(self, write: Write, view: Mapping[str, Held]) -> bool:
        """Tells if a replica that shows this has an acknowledged write, or newer ones."""
        return all(self._covers(key, view.get(key), write) for key in write.changes)

    def _loss(self, key: str, held: Held | None) -> str:
        """Tells if the newest acknowledged write of a key is not shown, nor one after it."""
        acknowledged = [w for w in self._by_key[key] if w.outcome is Outcome.ACKNOWLEDGED]
        newest = max(acknowledged, key=lambda w: w.position or Position(0, 0), default=None)
        if newest is None or self._covers(key, held, newest):
            return ""
        return f"{_name(newest)} is lost: {key!r} shows {_shown(held)}"

    def _covers(self, key: str, held: Held | None, write: Write) -> bool:
        """Whether what is shown of a key is an acknowledged write or one that may be newer."""
        position = write.position
        if position is None:
            return False  # an acknowledgment names its position
        if held is not None:
            if held.position == position:
                return held.value == write.changes[key]
            return held.position > position
        # Nothing is shown: a deletion at or after it, for replicas may forget deletions.
        return any(
            other.changes[key] is None
            and other.may_be_visible
            and (other.position is None or other.position >= position)
            for other in self._by_key[key]
        )


def _origin_problem(key: str, held: Held, writes: list[Write]) -> str:
    """Why what is shown cannot come from any of a key's writes; empty if it can."""
    origins = [write for write in writes if write.changes[key] == held.value]
    if not origins:
        return "nobody wrote that"
    for write in origins:
        if write.may_be_visible and (write.position is None or write.position == held.position):
            return ""
    if not any(write.may_be_visible for write in origins):
        return f"{_name(origins[0])} failed definitely"
    return f"{_name(origins[0])} is at {origins[0].position}"


def _name(write: Write) -> str:
    key, value = next(iter(write.changes.items()))
    what = f"deletion of {key!r}" if value is None else f"{value!r} at {key!r}"
    more = f" and {len(write.changes) - 1} more" if len(write.changes) > 1 else ""
    return f"the {write.outcome} write {what}{more} {tuple(write.position or ())}"


def _shown(held: Held | None) -> str:
    if held is None:
        return "nothing"
    return f"{held.value!r} of {tuple(held.position)}"
