"""The store under test: a leader and followers with a folder of data each, and what they hold."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from orchestration.clusters.local import LocalCluster, LocalSettings
from orchestration.control import Control
from orchestration.parity import check_parity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rich.console import Console


class DurableCluster(LocalCluster):
    """A local cluster whose nodes keep their data below the folder of their logs."""

    def _spawn(self, index: int, port: int, environment: Mapping[str, str]) -> None:
        data = self._log_dir / f"{environment['NODE_ID']}.data"
        # A start on ports that were taken may have left some.
        shutil.rmtree(data, ignore_errors=True)
        super()._spawn(index, port, {**environment, "DATA_DIR": str(data)})


@contextlib.contextmanager
def run_store(
    folder: Path, *, followers: int, write_quorum: int, is_durable: bool
) -> Iterator[LocalCluster]:
    """A cluster that takes writes, for as long as the block lasts."""
    settings = LocalSettings(followers=followers, write_quorum=write_quorum)
    kind = DurableCluster if is_durable else LocalCluster
    with Control() as control:
        cluster = kind(settings, folder, control)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def check_replicas(console: Console, cluster: LocalCluster, counted: int) -> None:
    """Every write that was counted as answered is in the log, and all replicas are equal.

    Raises:
        SystemExit: One is missing somewhere: no figure of this cluster means anything.
    """
    with Control() as control:
        parity = check_parity(control, cluster.leader_url, cluster.follower_urls)
        appended = control.positions(cluster.leader_url).last_seq
    console.print(
        f"Counted {counted:,} writes, the log holds {appended:,}; replicas: {parity.status}."
    )
    if appended < counted or parity.status != "match":
        raise SystemExit("A write that was counted is not on all replicas.")
