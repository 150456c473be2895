"""Folders that hold a node's data: nobody else may look into them, and a power cut keeps them."""

import contextlib
import os
from pathlib import Path
from typing import Final

# The data is as secret as the token that ``/dump`` wants.
PRIVATE: Final = 0o700
USUAL: Final = 0o777  # less what the process's mask takes away


def make_private_folder(folder: Path) -> None:
    """Makes a folder that only its owner may look into, durably, with those above that are missing.

    One that is there stays as it is: whoever made it decided who may.

    Raises:
        OSError: It cannot be made, or is no folder.
    """
    _make(folder, PRIVATE)


def _make(folder: Path, mode: int) -> None:
    if folder.is_dir():
        return
    _make(folder.parent, USUAL)
    folder.mkdir(mode)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, where folders can be synced (not on Windows).

    Raises:
        OSError: The disk failed.
    """
    with contextlib.suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
