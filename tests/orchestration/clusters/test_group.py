"""Clusters side by side, of which one is measured at a time."""

import pytest

from orchestration.clusters.group import ClusterGroup
from orchestration.errors import ClusterError


class Fake:
    """A cluster that notes what is done to it."""

    engine = "local"

    def __init__(self, name: str) -> None:
        self.leader_url = f"http://{name}"
        self.follower_urls = {f"http://{name}-f": f"http://{name}-f"}
        self.calls: list[str] = []

    def start(self) -> None:
        """Note it."""
        self.calls.append("start")

    def stop(self) -> None:
        """Note it."""
        self.calls.append("stop")


def test_a_group_stands_for_the_cluster_in_use() -> None:
    """Whoever asks for the leader gets that of the kind that is measured now."""
    memory, disk = Fake("memory"), Fake("disk")
    group = ClusterGroup({"memory": memory, "fsync": disk})
    assert group.leader_url == memory.leader_url
    group.use("fsync")
    assert (group.leader_url, group.follower_urls) == (disk.leader_url, disk.follower_urls)
    assert group.kinds() == ("memory", "fsync")


def test_all_clusters_of_a_group_start_and_stop_together() -> None:
    """None is left behind, whichever is in use."""
    clusters = [Fake("memory"), Fake("disk")]
    group = ClusterGroup(dict(zip(("memory", "fsync"), clusters, strict=True)))
    group.start()
    group.use("fsync")
    group.stop()
    assert [cluster.calls for cluster in clusters] == [["start", "stop"]] * 2


def test_a_cluster_that_cannot_be_stopped_keeps_no_other_running() -> None:
    """All are stopped, and then it is told what is left of each."""

    class Stuck(Fake):
        def stop(self) -> None:
            super().stop()
            raise ClusterError(f"{self.leader_url} is left.")

    clusters = [Stuck("memory"), Stuck("disk"), Fake("other")]
    group = ClusterGroup(dict(zip("abc", clusters, strict=True)))
    with pytest.raises(ClusterError, match=r"http://memory is left\. http://disk is left\."):
        group.stop()
    assert [cluster.calls for cluster in clusters] == [["stop"]] * 3
