"""Several clusters side by side, of which one is measured at a time."""

from collections.abc import Mapping

from orchestration.clusters.base import Cluster
from orchestration.errors import ClusterError


class ClusterGroup:
    """One cluster for each meaning that an acknowledgment has in a sweep.

    All run at the same time, so that their trials can take turns; those that are not measured do
    nothing but exchange heartbeats.

    Args:
        clusters: by what an acknowledgment of theirs means, at least one.
    """

    def __init__(self, clusters: Mapping[str, Cluster]) -> None:
        self._clusters = dict(clusters)
        self._used = next(iter(self._clusters.values()))

    @property
    def leader_url(self) -> str:
        """Where the leader of the cluster in use answers."""
        return self._used.leader_url

    @property
    def follower_urls(self) -> Mapping[str, str]:
        """The followers of the cluster in use."""
        return self._used.follower_urls

    def use(self, ack: str) -> None:
        """Makes the cluster of this kind the one in use."""
        self._used = self._clusters[ack]

    def start(self) -> None:
        """Bring all of them up."""
        for cluster in self._clusters.values():
            cluster.start()

    def stop(self) -> None:
        """End all of them, also those that come after one that cannot be ended.

        Raises:
            ClusterError: what is left of them.
        """
        problems = []
        for cluster in self._clusters.values():
            try:
                cluster.stop()
            except ClusterError as problem:
                problems.append(str(problem))
        if problems:
            raise ClusterError(" ".join(problems))

    def kinds(self) -> tuple[str, ...]:
        """What acknowledgments mean, in the order given."""
        return tuple(self._clusters)
