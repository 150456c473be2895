"""Fixtures that run real nodes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.nodes import Cluster, MakeCluster, build_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def make_cluster(xprocess: Any) -> Iterator[MakeCluster]:
    """Makes clusters that end with the test: ``make_cluster(followers, write_quorum, NAME=…)``."""
    with contextlib.ExitStack() as stack:

        def make(followers: int, write_quorum: int, **settings: str) -> Cluster:
            cluster = build_cluster(xprocess, followers, write_quorum, **settings)
            stack.callback(cluster.stop)
            return cluster

        yield make


@pytest.fixture(scope="session")
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Five followers, k=3, for all tests that leave it as they found it."""
    cluster = build_cluster(
        request.getfixturevalue("xprocess"), 5, 3, DELAY_SEED="7", REQUEST_TIMEOUT="3"
    )
    try:
        cluster.wait_connected()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The shared cluster with k=3 and no delay; both are restored after the test."""
    yield shared_cluster
    shared_cluster.admin("quorum", write_quorum=3).raise_for_status()
    shared_cluster.admin("delays", min_delay_ms=0, max_delay_ms=0).raise_for_status()
    shared_cluster.wait_connected()  # whoever broke it is named, not the next test
