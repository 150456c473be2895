"""Folders of a node's data: private, and durable with their names."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from kv_app import folders
from kv_app.folders import make_private_folder
from kv_app.quarantine import quarantine
from tests.kv_app.disks import opened
from tests.kv_app.fake_leader import put

if TYPE_CHECKING:
    from pathlib import Path

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")


def mode_of(path: Path) -> int:
    """Returns who may do what with a folder."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def _usual_mask() -> object:
    """What most systems let others read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@on_posix
@pytest.mark.usefixtures("_usual_mask")
def test_only_the_owner_of_a_node_may_look_into_its_data(tmp_path: Path) -> None:
    """The files hold all values, and ``/dump`` wants a token for them."""
    data_dir = tmp_path / "nodes" / "n1"
    with opened(data_dir):
        quarantine(data_dir, "n1", 2, [put(1)])
    assert mode_of(data_dir) == mode_of(data_dir / "store") == 0o700
    assert mode_of(data_dir / "quarantine") == 0o700
    assert mode_of(tmp_path / "nodes") == 0o755  # other nodes' users have theirs beside


@on_posix
@pytest.mark.usefixtures("_usual_mask")
def test_folder_that_was_there_stays_as_it_is_but_not_what_is_made_in_it(tmp_path: Path) -> None:
    """A volume that is mounted, or that a group shares."""
    tmp_path.chmod(0o755)
    with opened(tmp_path):
        pass
    assert mode_of(tmp_path) == 0o755
    assert mode_of(tmp_path / "store") == 0o700


def test_folder_is_durable_with_all_that_were_missing_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that was acknowledged is lost with the name of any of them."""
    synced: list[Path] = []
    monkeypatch.setattr(folders, "sync_folder", synced.append)
    make_private_folder(tmp_path / "a" / "b")
    make_private_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]


def test_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    """Nothing of it is touched."""
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(OSError, match="exists"):
        make_private_folder(tmp_path / "a")


@on_posix
def test_folder_is_synced_itself_and_a_disk_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is only in the system's memory is lost with the power."""
    synced: list[int] = []
    monkeypatch.setattr(folders.os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    folders.sync_folder(tmp_path)
    assert synced == [tmp_path.stat().st_ino]

    def fail(_file: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(folders.os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        folders.sync_folder(tmp_path)
