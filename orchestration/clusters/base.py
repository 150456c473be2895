"""What every cluster offers to a sweep."""

from collections.abc import Mapping
from typing import Protocol

from orchestration.scenario import Engine


class Cluster(Protocol):
    """One leader and n followers.

    ``start`` comes first and ``stop`` always comes last: it ends exactly what ``start`` began,
    also after a start that failed half-way, and is no error for a node that is gone already.
    """

    engine: Engine

    @property
    def leader_url(self) -> str:
        """Where the leader answers."""
        ...

    @property
    def follower_urls(self) -> Mapping[str, str]:
        """From the URL by which the leader knows a follower to the one that answers from here."""
        ...

    def start(self) -> None:
        """Bring the cluster up; returns once its leader is ready."""
        ...

    def stop(self) -> None:
        """End it, or leave it as it was found.

        Raises:
            ClusterError: what is left of it, or could not be put back, and what to do about it.
        """
        ...
