"""Opens nodes' folders, one named on each line, in a process that may die of them.

Run as a program. Answers each line with what it found, as JSON: the refusal, or what a node would
show and hold.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kv_app.errors import StorageError
from kv_app.meta import Role
from kv_app.recovery import recover
from kv_app.storage import open_storage


def open_one(folder: Path) -> dict[str, object]:
    """Opens a folder as a node does when it starts."""
    try:
        storage = open_storage(folder, "n", Role.FOLLOWER)
        found = recover(storage, 1000)
        storage.close()
    except StorageError as error:
        return {"refusal": str(error)}
    remembered = list(found.idempotency.remembered(1 << 62))
    return {
        "notice": storage.notice,
        "held": [found.held.contiguous, found.held.max_seq],
        "values": found.state.values(),
        "keys": [write.idempotency_key for write in remembered],
        "cluster_id": storage.meta.cluster_id,
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(open_one(Path(line.strip()))), flush=True)  # noqa: T201  its answer
