"""Compares what the replicas hold, at a position that all of them have reached."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from orchestration.control import Control, Positions
from orchestration.errors import ClusterError

Status = Literal["match", "mismatch", "error"]

# How long followers may take to reach the leader's position once writes have stopped; the longest
# link delay comes on top.
SETTLE_TIMEOUT_S = 10.0
POLL_S = 0.05
# Keys named per replica; more would not help who reads them.
MAX_NAMED_KEYS = 20


@dataclass(frozen=True, slots=True)
class ReplicaParity:
    """One follower against its leader.

    Attributes:
        url: where the follower was asked.
        status: ``error`` says that nothing could be compared; ``detail`` has the reason.
        mismatch_keys: keys of the leader that it lacks or holds with another value.
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


def compare(url: str, leader: Mapping[str, str], follower: Mapping[str, str]) -> ReplicaParity:
    """What differs between the contents of a leader and those of the follower at ``url``."""
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
        clock: seconds, monotonic.
        sleep: waits that many seconds.
    """
    deadline_s = clock() + SETTLE_TIMEOUT_S + longest_delay_ms / 1_000
    try:
        positions = control.positions(leader_url)
        while not _is_settled(positions) and clock() < deadline_s:
            sleep(POLL_S)
            positions = control.positions(leader_url)
        if positions.stable_seq < positions.last_seq:
            return _all_errors(follower_urls, _uncommitted(positions))
        leader = control.dump(leader_url)
    except ClusterError as problem:
        return _all_errors(follower_urls, f"nothing to compare with: {problem}")
    reasons = lagging(positions)
    dumps = _Dumps(control, leader_url)
    return Parity(
        tuple(
            _compare_one(dumps, leader, known_url, url, reasons.get(known_url, ""))
            for known_url, url in follower_urls.items()
        )
    )


class _Dumps:
    """What followers hold: asked directly, or through the leader where they are out of reach.

    In a network of containers the leader knows its followers by names that only it can look up.
    """

    def __init__(self, control: Control, leader_url: str) -> None:
        self._control = control
        self._leader_url = leader_url
        self._relayed: dict[str, dict[str, str]] | None = None

    def of(self, known_url: str, url: str) -> Mapping[str, str]:
        """The contents of one follower.

        Raises:
            ClusterError: neither this machine nor the leader gets an answer.
        """
        try:
            return self._control.dump(url)
        except ClusterError:
            if self._relayed is None:
                self._relayed = self._control.relayed_dumps(self._leader_url)
            if known_url not in self._relayed:
                raise
            return self._relayed[known_url]


def _is_settled(positions: Positions) -> bool:
    behind = [
        link
        for link in positions.links
        if link.is_connected and (link.is_learner or link.contiguous < positions.last_seq)
    ]
    return not behind and positions.stable_seq >= positions.last_seq


def _compare_one(
    dumps: _Dumps, leader: Mapping[str, str], known_url: str, url: str, reason: str
) -> ReplicaParity:
    if reason:
        return ReplicaParity(url=url, status="error", detail=reason)
    try:
        return compare(url, leader, dumps.of(known_url, url))
    except ClusterError as problem:
        return ReplicaParity(url=url, status="error", detail=str(problem))


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
        "so its contents are not final; bring the missing followers back or lower k"
    )


def _because(detail: str) -> str:
    return f": {detail}" if detail else ""
