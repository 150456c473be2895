"""The store under test: a leader and its followers, and whether they hold what was counted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from orchestration.clusters.local import LocalCluster, LocalSettings
from orchestration.control import Control
from orchestration.parity import check_parity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rich.console import Console


@contextlib.contextmanager
def run_store(
    folder: Path,
    *,
    followers: int,
    write_quorum: int,
    is_durable: bool,
    environment: Mapping[str, str] | None = None,
) -> Iterator[LocalCluster]:
    """A cluster that takes writes, for as long as the block lasts.

    Logs lie in ``folder``; the data of a durable one too. The nodes inherit ``environment``, or
    that of this process.
    """
    settings = LocalSettings(
        followers=followers, write_quorum=write_quorum, data_dir=folder if is_durable else None
    )
    with Control() as control:
        cluster = LocalCluster(settings, folder, control, environment=environment)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def check_replicas(console: Console, cluster: LocalCluster, counted: int) -> None:
    """Says how many writes were counted, and how many the log holds.

    Raises:
        SystemExit: One is missing somewhere: no figure of this cluster means anything.
    """
    appended = require_replicas(cluster, counted)
    console.print(f"Counted {counted:,} writes, the log holds {appended:,}; replicas: match.")


def require_replicas(cluster: LocalCluster, counted: int) -> int:
    """Every write that was counted as answered is in the log, and all replicas are equal.

    Returns:
        How many entries the log has had.

    Raises:
        SystemExit: One is missing somewhere: no figure of this cluster means anything.
    """
    with Control() as control:
        parity = check_parity(control, cluster.leader_url, cluster.follower_urls)
        appended = control.positions(cluster.leader_url).last_seq
    if appended < counted or parity.status != "match":
        raise SystemExit(
            f"Counted {counted:,} writes, the log holds {appended:,}; replicas: {parity.status}. "
            "A write that was counted is not on all replicas."
        )
    return appended
