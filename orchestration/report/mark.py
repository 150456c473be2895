"""The mark in files that were made here: what lacks it is somebody's, and stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MADE_BY = "quorumeter"


def may_replace(path: Path) -> bool:
    """Tells if nothing stands at a path, or a file with the mark in it.

    Raises:
        OSError: What stands there is no file, or may not be read.
    """
    if not path.exists():
        return not path.is_symlink()
    return MADE_BY.encode() in path.read_bytes()
