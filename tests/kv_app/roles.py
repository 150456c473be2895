"""Replicas and leaders as a node makes them, for tests of one side alone."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from kv_app.leader import FIRST_EPOCH, Leader
from kv_app.meta import Meta, Promise
from kv_app.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Callable

    from kv_app.errors import StorageError
    from kv_app.settings import Settings
    from kv_app.storage import Storage


def make_replica(
    settings: Settings,
    storage: Storage | None = None,
    on_failure: Callable[[StorageError], None] | None = None,
) -> Replica:
    """Returns what a node holds: what its disk does, or nothing."""
    meta = Meta(settings.node_id, settings.role, secrets.token_hex(8))
    return Replica(settings, meta, storage, on_failure)


def forming_leader(
    settings: Settings,
    storage: Storage | None = None,
    on_failure: Callable[[StorageError], None] | None = None,
    now_ns: Callable[[], int] = time.monotonic_ns,
) -> Leader:
    """Returns the leader of a cluster that is still to be made; it has not connected yet."""
    replica = make_replica(settings, storage, on_failure)
    if not replica.meta.cluster_id:
        replica.save(cluster_id=secrets.token_hex(8))
    return Leader(replica, Promise(FIRST_EPOCH, settings.node_id, "first"), now_ns=now_ns)
