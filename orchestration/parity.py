"""Compares what the replicas hold, at a position that all of them have reached.

By their digests, so that no data moves for replicas that are equal. Of one that differs come the
versions in the buckets whose digests differ, and its values only if those say nothing.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from orchestration.control import Control, Positions
from orchestration.errors import ClusterError
from orchestration.replicas import Replicas

Status = Literal["match", "mismatch", "error"]

# How long followers may take to reach the leader's position once writes have stopped; the longest
# link delay comes on top.
SETTLE_TIMEOUT_S = 10.0
POLL_S = 0.05
# Who waits for longer is told for whom.
PATIENCE_S = 1.0
# Keys named per replica; more would not help who reads them.
MAX_NAMED_KEYS = 20


@dataclass(frozen=True, slots=True)
class ReplicaParity:
    """One follower against its leader.

    Attributes:
        url: where the follower was asked.
        status: ``error`` says that nothing could be compared; ``detail`` has the reason.
        mismatch_keys: keys of the leader that it lacks or holds with another version or value.
        extra_keys: keys that only it holds. Both lists are sorted and end at `MAX_NAMED_KEYS`.
        detail: one sentence, or empty.
    """

    url: str
    status: Status
    mismatch_keys: tuple[str, ...] = ()
    extra_keys: tuple[str, ...] = ()
    detail: str = ""

    def as_dict(self) -> dict[str, object]:
        """The JSON form: what does not apply is left out."""
        row: dict[str, object] = {"url": self.url, "status": self.status}
        if self.status == "mismatch":
            row |= {"mismatch_keys": list(self.mismatch_keys), "extra_keys": list(self.extra_keys)}
        if self.detail:
            row["detail"] = self.detail
        return row


@dataclass(frozen=True, slots=True)
class Parity:
    """All followers against their leader."""

    replicas: tuple[ReplicaParity, ...]

    @property
    def status(self) -> Status:
        """The worst of all replicas; a difference weighs more than one that did not answer."""
        found = {replica.status for replica in self.replicas}
        if "mismatch" in found:
            return "mismatch"
        return "error" if "error" in found else "match"

    def as_dict(self) -> dict[str, object]:
        """The JSON form, as the rows of ``cells.jsonl`` hold it."""
        return {
            "status": self.status,
            "replicas": [replica.as_dict() for replica in self.replicas],
        }


def compare(
    url: str, leader: Mapping[str, object], follower: Mapping[str, object]
) -> ReplicaParity:
    """What differs between what a leader and the follower at ``url`` hold per key."""
    mismatch = sorted(key for key, value in leader.items() if follower.get(key) != value)
    extra = sorted(follower.keys() - leader.keys())
    if not mismatch and not extra:
        return ReplicaParity(url=url, status="match")
    return ReplicaParity(
        url=url,
        status="mismatch",
        mismatch_keys=tuple(mismatch[:MAX_NAMED_KEYS]),
        extra_keys=tuple(extra[:MAX_NAMED_KEYS]),
        detail=f"{len(mismatch)} keys differ from the leader's, {len(extra)} are extra",
    )


def lagging(positions: Positions) -> dict[str, str]:
    """Followers that are not at the leader's position, by their URL as the leader knows it.

    The values say why, in one sentence each.
    """
    found: dict[str, str] = {}
    for link in positions.links:
        if not link.is_connected:
            found[link.url] = f"not connected to the leader{_because(link.detail)}"
        elif link.is_learner or link.contiguous < positions.last_seq:
            found[link.url] = (
                f"stands at {link.contiguous} of the leader's {positions.last_seq} entries"
            )
    return found


def check_parity(
    control: Control,
    leader_url: str,
    follower_urls: Mapping[str, str],
    *,
    longest_delay_ms: float = 0.0,
    unreachable: Mapping[str, ClusterError] | None = None,
    say: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Parity:
    """Wait until the connected followers have what the leader has, then compare contents.

    Writes must have stopped. A follower that does not answer, or does not arrive in time, is an
    ``error`` of its own and never an exception; nor is a leader that is gone.

    Args:
        control: the client for the calls.
        leader_url: the leader.
        follower_urls: from the URL by which the leader knows a follower to the one to ask.
        longest_delay_ms: upper end of the injected link delays, waited for on top.
        unreachable: followers' URLs at which nobody answers, as is known already; only their
            leader is asked about these.
        say: is told for whom this waits, if it does for long.
        clock: seconds, monotonic.
        sleep: waits that many seconds.
    """
    began_s, longest_s = clock(), SETTLE_TIMEOUT_S + longest_delay_ms / 1_000
    is_told = False
    try:
        positions = control.positions(leader_url)
        while not _is_settled(positions) and clock() < began_s + longest_s:
            if not is_told and clock() >= began_s + PATIENCE_S:
                say(_waiting_for(positions, longest_s))
                is_told = True
            sleep(POLL_S)
            positions = control.positions(leader_url)
        if positions.stable_seq < positions.last_seq:
            return _all_errors(follower_urls, _uncommitted(positions))
        if unreachable:
            say(f"No answer from {', '.join(unreachable)}: asking the leader what it knows.")
        replicas = Replicas(control, leader_url, unreachable=unreachable)
        has_digests = _has_digests(replicas)
    except ClusterError as problem:
        return _all_errors(follower_urls, f"nothing to compare with: {problem}")
    reasons = lagging(positions)
    compare_one = _compare_digests if has_digests else _compare_contents

    def result(known_url: str, url: str) -> ReplicaParity:
        if known_url in reasons:
            return ReplicaParity(url=url, status="error", detail=reasons[known_url])
        try:
            return compare_one(replicas, known_url, url)
        except ClusterError as problem:
            return ReplicaParity(url=url, status="error", detail=str(problem))

    return Parity(tuple(result(known_url, url) for known_url, url in follower_urls.items()))


def _is_settled(positions: Positions) -> bool:
    behind = [
        link
        for link in positions.links
        if link.is_connected and (link.is_learner or link.contiguous < positions.last_seq)
    ]
    return not behind and positions.stable_seq >= positions.last_seq


def _has_digests(replicas: Replicas) -> bool:
    """Whether the leader has digests; another store may have its contents only.

    Raises:
        ClusterError: it tells neither.
    """
    try:
        replicas.leader_digest()
    except ClusterError:
        replicas.leader_contents()
        return False
    return True


def _compare_contents(replicas: Replicas, known_url: str, url: str) -> ReplicaParity:
    return compare(url, replicas.leader_contents(), replicas.contents(known_url, url))


def _compare_digests(replicas: Replicas, known_url: str, url: str) -> ReplicaParity:
    leader, follower = replicas.leader_digest(), replicas.digest(known_url, url)
    pairs = enumerate(zip_longest(leader.buckets, follower.buckets))
    differing = [bucket for bucket, (one, other) in pairs if one != other]
    if not differing:
        return ReplicaParity(url=url, status="match")
    if leader.max_seq != follower.max_seq:
        raise ClusterError(
            f"stands at {follower.max_seq}, the leader at {leader.max_seq}: let nobody write, and "
            "compare again"
        )
    return _find_keys(replicas, known_url, url, differing)


def _find_keys(
    replicas: Replicas, known_url: str, url: str, buckets: Iterable[int]
) -> ReplicaParity:
    """Names the keys that make the digests of some buckets differ.

    A wrong value at the right version is named only if its bucket has no other difference.
    """
    leader: dict[str, object] = {}
    follower: dict[str, object] = {}
    need_values = False
    for bucket in buckets:
        expected = replicas.leader_digest(bucket).versions
        found = replicas.digest(known_url, url, bucket).versions
        need_values |= expected == found
        leader |= expected
        follower |= found
    if need_values:
        leader = _with_values(leader, replicas.leader_contents())
        follower = _with_values(follower, replicas.contents(known_url, url))
    return compare(url, leader, follower)


def _with_values(versions: Mapping[str, object], contents: Mapping[str, str]) -> dict[str, object]:
    return {key: (value, versions.get(key)) for key, value in contents.items()}


def _all_errors(follower_urls: Mapping[str, str], detail: str) -> Parity:
    return Parity(
        tuple(
            ReplicaParity(url=url, status="error", detail=detail) for url in follower_urls.values()
        )
    )


def _uncommitted(positions: Positions) -> str:
    waiting = positions.last_seq - positions.stable_seq
    return (
        f"{waiting} entries of the leader still wait for their write quorum, "
        "so its contents are not final; bring the missing followers back"
    )


def _waiting_for(positions: Positions, longest_s: float) -> str:
    behind = "; ".join(f"{url} {why}" for url, why in lagging(positions).items())
    return f"Waiting up to {longest_s:g} s for followers: {behind or 'none is behind'}."


def _because(detail: str) -> str:
    return f": {detail}" if detail else ""
