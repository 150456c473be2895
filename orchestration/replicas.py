"""What the replicas of a cluster hold, asked for directly, or through the leader.

In a network of containers the leader knows its followers by names that only it can look up.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TypeVar

from orchestration.control import Control, Digest
from orchestration.errors import ClusterError

_Answer = TypeVar("_Answer")


class Replicas:
    """A leader and its followers; what the leader tells is fetched once.

    All calls raise `ClusterError` if they get no answer. Nothing may be written meanwhile.

    Args:
        control: the client for the calls.
        leader_url: the leader.
        unreachable: URLs at which nobody answers, as is known already, with the reason.
    """

    def __init__(
        self,
        control: Control,
        leader_url: str,
        *,
        unreachable: Mapping[str, ClusterError] | None = None,
    ) -> None:
        self._control = control
        self._leader_digest = cache(partial(control.digest, leader_url))
        self._leader_contents = cache(partial(control.dump, leader_url))
        self._relayed_digests = cache(partial(control.relayed_digests, leader_url))
        self._relayed_contents = cache(partial(control.relayed_dumps, leader_url))
        # Kept, because a node that does not answer takes its time over it.
        self._unreachable = dict(unreachable or {})

    def leader_digest(self, bucket: int | None = None) -> Digest:
        """The leader's digest, with the versions in a bucket if one is named."""
        return self._leader_digest(bucket)

    def leader_contents(self) -> Mapping[str, str]:
        """The leader's live keys with their values."""
        return self._leader_contents()

    def digest(self, known_url: str, url: str, bucket: int | None = None) -> Digest:
        """A follower's digest, with the versions in a bucket if one is named.

        Args:
            known_url: the follower's URL as the leader knows it.
            url: where to ask it.
            bucket: number of a bucket.
        """
        return self._ask(
            known_url,
            url,
            lambda: self._control.digest(url, bucket),
            lambda: self._relayed_digests(bucket),
        )

    def contents(self, known_url: str, url: str) -> Mapping[str, str]:
        """A follower's live keys with their values; see `digest`."""
        return self._ask(known_url, url, lambda: self._control.dump(url), self._relayed_contents)

    def _ask(
        self,
        known_url: str,
        url: str,
        directly: Callable[[], _Answer],
        relayed: Callable[[], Mapping[str, _Answer]],
    ) -> _Answer:
        if url not in self._unreachable:
            try:
                return directly()
            except ClusterError as problem:
                self._unreachable[url] = problem
        answers = relayed()
        if known_url not in answers:
            raise self._unreachable[url]
        return answers[known_url]
