"""Keeps what a node held and the cluster went on without: the tail of a leader that was replaced.

Nothing reads it again. It is there for people who want to know what was lost, or to bring it back.
"""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from kv_app.errors import StorageError
from kv_app.folders import make_private_folder, sync_folder
from kv_app.messages import Entry, Operation

logger = logging.getLogger("kv_app.quarantine")

FOLDER: Final = "quarantine"
SHOWN: Final = 3


def quarantine(data_dir: Path | None, node_id: str, epoch: int, entries: Sequence[Entry]) -> None:
    """Writes entries to a file of their own, durably, before they are dropped.

    Args:
        data_dir: The node's; without one there is only a line in its log.
        node_id: Its name.
        epoch: That which begins without them.
        entries: Ascending.

    Raises:
        StorageError: The disk failed.
    """
    shown = ", ".join(f"{entry.epoch}.{entry.seq}" for entry in entries[:SHOWN])
    more = f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
    where = "they are gone, for DATA_DIR is not set"
    if data_dir is not None:
        where = f"they are kept in {_write(data_dir / FOLDER, epoch, entries)}"
    logger.warning(
        "%s drops what epoch %d began without: %s%s; %s", node_id, epoch, shown, more, where
    )


def _write(folder: Path, epoch: int, entries: Sequence[Entry]) -> Path:
    try:
        make_private_folder(folder)
        path = folder / f"{_next_number(folder):04d}-before-epoch-{epoch}.jsonl"
        with path.open("x", encoding="utf-8") as file:
            for entry in entries:
                record = msgspec.structs.asdict(entry)
                record["operation"] = Operation(entry.operation).name.lower()
                record["changes"] = [[change.key, change.value] for change in entry.changes]
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
    except OSError as error:
        raise StorageError(f"the disk failed to write {folder}: {error}") from error
    return path


def _next_number(folder: Path) -> int:
    """Returns a number above that of every file, whatever was moved away or put there."""
    numbers = (path.name.partition("-")[0] for path in folder.iterdir())
    return max((int(number) for number in numbers if number.isdecimal()), default=0) + 1
