"""How the write quorum changes while writes go on. Pure.

k is how many followers a write waits for; the floor f is what a promotion may rely on: no
acknowledged write is on fewer followers. Hence f may rise only behind k, once all that was appended
before is on enough of them, and must have sunk on enough nodes before k does.
"""

from dataclasses import dataclass, replace

from kv_app.failover.electors import confirmations_of


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that waits for its record.

    Attributes:
        seq: The record's.
        write_quorum: The k that it is to become.
    """

    seq: int
    write_quorum: int


@dataclass(frozen=True, slots=True)
class Quorums:
    """The write quorum of an epoch, and what becomes of it.

    Attributes:
        write_quorum: k of the writes that begin now.
        floor: f.
        wanted: The k that was asked for last.
        lowering: k sinks to this, below f, once that is known to enough voters.
        raising: f rises to this once everything is on enough voters.
    """

    write_quorum: int
    floor: int
    wanted: int
    lowering: Pending | None = None
    raising: Pending | None = None

    @property
    def is_changing(self) -> bool:
        """True while something waits."""
        return self.lowering is not None or self.raising is not None


@dataclass(frozen=True, slots=True)
class Record:
    """What the log is to say from here on: k, f and the wanted k."""

    write_quorum: int
    floor: int
    wanted: int


def ask(now: Quorums, wanted: int, seq: int) -> tuple[Quorums, Record]:
    """Begins to change k; the record has to be appended.

    Args:
        now: Not lowering.
        wanted: The new k, from 0 to n.
        seq: The position that the record will have.
    """
    if wanted >= now.floor:
        rises = Pending(seq, wanted) if wanted > now.floor else None
        changed = Quorums(wanted, now.floor, wanted, raising=rises)
        return changed, Record(wanted, now.floor, wanted)
    changed = replace(now, wanted=wanted, lowering=Pending(seq, wanted), raising=None)
    return changed, Record(wanted, wanted, wanted)


def resume(now: Quorums, k: int, seq: int) -> tuple[Quorums, Record]:
    """Raises k towards what is wanted, as more followers count; the record has to be appended.

    Args:
        now: Not lowering, with a k below the wanted one.
        k: The new one, at most the wanted one.
        seq: The position that the record will have.
    """
    changed, record = ask(now, k, seq)
    return replace(changed, wanted=now.wanted), replace(record, wanted=now.wanted)


def is_lowered(now: Quorums, acks: int, followers: int) -> bool:
    """Tells if a lowering is known to enough voters to come into force.

    Args:
        now: The quorums.
        acks: How many voters hold the record of the lowering; the leader's own is durable.
        followers: n.
    """
    return now.lowering is not None and acks >= confirmations_of(now.floor, followers)


def lower(now: Quorums) -> tuple[Quorums, Record]:
    """Lets a lowering come into force; the record has to be appended."""
    k = now.lowering.write_quorum if now.lowering is not None else now.write_quorum
    return Quorums(k, k, now.wanted), Record(k, k, now.wanted)


def is_raised(now: Quorums, holders: int) -> bool:
    """Tells if the floor may rise.

    Args:
        now: The quorums.
        holders: How many voters hold the base, the record of the raise, and all before it.
    """
    return now.lowering is None and now.raising is not None and holders >= now.raising.write_quorum


def raise_floor(now: Quorums) -> tuple[Quorums, Record]:
    """Lets the floor rise; the record has to be appended."""
    f = now.raising.write_quorum if now.raising is not None else now.floor
    return replace(now, floor=f, raising=None), Record(now.write_quorum, f, now.wanted)
