"""A few random runs of whole simulated clusters; `nox -s simulate` makes many."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.simulation.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 200


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Nodes log what happens to them, and here that is much."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", range(40))
def test_random_run_breaks_no_promise(seed: int) -> None:
    """Each seed is another cluster, with other faults."""
    Cluster(seed).run(STEPS)


def test_run_repeats_itself() -> None:
    """Else the seed of a find would be worth nothing."""
    traces = []
    for _ in range(2):
        cluster = Cluster(3)
        cluster.run(STEPS)
        traces.append((cluster.trace, cluster.counts))
    assert traces[0] == traces[1]
    assert len(traces[0][0]) > STEPS / 10
