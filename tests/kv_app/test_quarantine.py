"""What a node held and its cluster went on without is kept, whole and in order."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from kv_app import folders
from kv_app import quarantine as module
from kv_app.errors import StorageError
from kv_app.messages import Entry, Operation
from kv_app.quarantine import quarantine
from tests.kv_app.fake_leader import batch, put

if TYPE_CHECKING:
    from pathlib import Path

DELETION = Entry(1, 9, int(Operation.DELETE), "gone/\u00e9", None, "once")


def test_dropped_entries_are_in_a_file_of_their_own_a_line_each(tmp_path: Path) -> None:
    """With all that is needed to bring them back; an earlier file is never overwritten."""
    quarantine(tmp_path, "n1", 2, [put(7, "v7"), batch(8, {"a": "1", "b": None}), DELETION])
    quarantine(tmp_path, "n1", 2, [put(10)])
    first, second = sorted((tmp_path / "quarantine").iterdir())
    lines = [json.loads(line) for line in first.read_text(encoding="utf-8").splitlines()]
    assert [(one["epoch"], one["seq"], one["operation"]) for one in lines] == [
        (1, 7, "put"),
        (1, 8, "batch"),
        (1, 9, "delete"),
    ]
    assert (lines[0]["key"], lines[0]["value"]) == ("k7", "v7")
    assert lines[1]["changes"] == [["a", "1"], ["b", None]]
    assert (lines[2]["key"], lines[2]["idempotency_key"]) == ("gone/\u00e9", "once")
    assert "before-epoch-2" in first.name
    assert json.loads(second.read_text(encoding="utf-8"))["seq"] == 10


def test_node_without_a_disk_says_what_it_drops(caplog: pytest.LogCaptureFixture) -> None:
    """There is nowhere to keep it."""
    with caplog.at_level(logging.WARNING, logger="kv_app.quarantine"):
        quarantine(None, "n1", 2, [put(seq) for seq in range(1, 6)])
    assert "1.1, 1.2, 1.3 and 2 more" in caplog.text
    assert "DATA_DIR is not set" in caplog.text


def test_disk_that_fails_is_no_reason_to_drop_what_it_does_not_keep(tmp_path: Path) -> None:
    """The node ends instead."""
    (tmp_path / "quarantine").write_text("in the way")
    with pytest.raises(StorageError, match="quarantine"):
        quarantine(tmp_path, "n1", 2, [put(1)])


def test_name_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    """Of the files of a folder some may have been moved away, and others put there."""
    folder = tmp_path / "quarantine"
    folder.mkdir()
    for name in ("0002-before-epoch-5.jsonl", "notes.txt", "\u00b2-no-number"):
        (folder / name).write_text("kept")
    quarantine(tmp_path, "n1", 5, [put(1)])
    assert (folder / "0002-before-epoch-5.jsonl").read_text() == "kept"
    assert (folder / "0003-before-epoch-5.jsonl").exists()


def test_file_is_durable_with_its_name_and_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entries are dropped right afterwards: a power cut must not take both."""
    synced: list[Path] = []
    monkeypatch.setattr(module, "sync_folder", synced.append)
    monkeypatch.setattr(folders, "sync_folder", synced.append)
    quarantine(tmp_path, "n1", 2, [put(1)])
    assert synced == [tmp_path, tmp_path / "quarantine"]
