"""What a node's disk keeps, and what it refuses to open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from kv_app.errors import StorageError
from kv_app.messages import Version
from kv_app.meta import FORMAT, BaseRecord, Config, Member, Meta, Promise, Role
from kv_app.storage import MAX_FOLD, MIN_FOLD, Storage, open_storage
from tests.kv_app.disks import NODE_ID, append, crash, flush, opened
from tests.kv_app.fake_leader import batch, put

if TYPE_CHECKING:
    from pathlib import Path

MANY = 1000


def refusal(folder: Path, node_id: str = NODE_ID) -> str:
    """Returns why a folder is not opened."""
    with pytest.raises(StorageError) as refused:
        open_storage(folder, node_id, Role.FOLLOWER)
    return str(refused.value)


def test_new_disk_holds_a_node_of_its_name_that_knows_nothing(folder: Path) -> None:
    """Each has an incarnation of its own, which it keeps."""
    with opened(folder / "a" / "deep", Role.LEADER) as one, opened(folder / "b") as other:
        assert one.meta == Meta(NODE_ID, Role.LEADER, one.meta.incarnation)
        assert one.meta.format == FORMAT
        assert len(one.meta.incarnation) == 16
        assert one.meta.incarnation != other.meta.incarnation
        first = one.meta
    with opened(folder / "a" / "deep", Role.FOLLOWER) as again:
        assert again.meta == first
        assert again.notice == ""


def test_record_of_a_node_comes_back_as_it_was_saved(folder: Path) -> None:
    """Promise, base, members, k and floor: all that later epochs rest on."""
    config = Config((Member("a", "http://a:1"), Member("", "http://b:1")), 1, 1, 2)
    with opened(folder) as storage:
        saved = msgspec.structs.replace(
            storage.meta,
            cluster_id="c",
            promise=Promise(3, "a", "attempt"),
            base=BaseRecord(2, "a", "life", config, 7, 1),
            folded=(1, 5),
            stable=(1, 6),
        )
        storage.save(saved)
    with opened(folder) as storage:
        assert storage.meta == saved


def test_half_made_disk_is_made_anew(folder: Path) -> None:
    """A crash while the first database is made leaves nothing that is taken for one."""
    (folder / "store.new").mkdir()
    (folder / "store.new" / "CURRENT").write_text("MANIFEST-000099\n")
    with opened(folder):
        assert sorted(path.name for path in folder.iterdir()) == ["store"]


def test_disk_that_a_killed_node_was_making_is_made_anew_whatever_files_it_has(
    folder: Path,
) -> None:
    """All that the engine makes is known for its own, after writes, folds and starts too."""
    live = folder / "live"
    for seq in (1, 2):  # a second start has logs and options of the first
        with opened(live) as storage:
            append(storage, put(seq))
            storage._database.flush()
    storage = open_storage(live, NODE_ID, Role.FOLLOWER)
    append(storage, put(3))
    killed = crash(storage, live, folder / "killed")
    (killed / "store").rename(killed / "store.new")
    with opened(killed) as found:
        assert list(found.entries()) == []
    assert [path.name for path in killed.iterdir()] == ["store"]


def test_disk_of_another_node_is_refused_by_both_names(folder: Path) -> None:
    """One node's data never becomes another's; it is closed again, for its owner."""
    with opened(folder):
        pass
    message = refusal(folder, "other")
    assert f"holds the data of node {NODE_ID!r}" in message
    assert "NODE_ID=" in message
    with opened(folder):
        pass


def test_disk_that_is_in_use_is_refused_and_left_alone(folder: Path) -> None:
    """Two nodes on one folder would each write over the other."""
    with opened(folder) as storage:
        append(storage, put(1))
        assert "is used by another process" in refusal(folder)
        append(storage, put(2))
        storage.sync()
    with opened(folder) as storage:
        assert [entry.seq for entry in storage.entries()] == [1, 2]


def test_disk_of_another_format_is_refused_with_both(folder: Path) -> None:
    """A version that would misread it says so, and does not lock it."""
    with opened(folder) as storage:
        storage.save(msgspec.structs.replace(storage.meta, format=FORMAT + 1))
    for _ in range(2):
        assert f"format {FORMAT + 1}, this version reads format {FORMAT}" in refusal(folder)


@pytest.mark.parametrize(
    ("record", "part"), [(None, "no record of a node"), (b"\xc1", "cannot be read")]
)
def test_disk_without_a_readable_record_of_its_node_is_refused(
    record: bytes | None, part: str, folder: Path
) -> None:
    """Data without its owner is nobody's, and is not overwritten."""
    with opened(folder) as storage:
        if record is None:
            storage._database.delete(b"M")
        else:
            storage._database.put(b"M", record)
    for _ in range(2):
        assert part in refusal(folder)


def test_folder_that_cannot_be_used_is_refused_with_its_name(folder: Path) -> None:
    """A file in its place, as a mistyped DATA_DIR has it."""
    (folder / "file").write_text("")
    assert f"DATA_DIR={folder / 'file'} cannot be used" in refusal(folder / "file")


def test_record_that_cannot_be_read_is_refused_when_it_is(folder: Path) -> None:
    """Bytes that are no entry are damage, not an end."""
    with opened(folder) as storage:
        storage.append([(1, 1, b"\xc1")])
        with pytest.raises(StorageError, match=r"is damaged .*a record cannot be read"):
            list(storage.entries())


def test_use_after_the_end_is_an_error_of_the_disk(folder: Path) -> None:
    """Whatever the engine raises, its callers meet one error."""
    with opened(folder) as storage:
        pass
    for use in (storage.sync, lambda: append(storage, put(1)), lambda: list(storage.entries())):
        with pytest.raises(StorageError, match="the disk failed to"):
            use()


def test_fold_that_moves_little_goes_on_to_its_least_number(folder: Path) -> None:
    """A fold costs some writes of its own, so it never moves one entry at a time; batches count."""
    with opened(folder) as storage:
        append(storage, *(put(seq) for seq in range(1, 201)))
        assert storage.fold((1, 200), (1, 200), 1) == (1, MIN_FOLD)
        assert storage.fold((1, 70), (1, 200), 1) == (1, 70)
        assert storage.fold((1, 200), (1, 200), 100) == (1, 170)
        assert storage.meta.stable == (1, 200)
        assert storage.fold((1, 170), (1, 200), 1) == (1, 170)  # nothing to move


def test_fold_ends_after_so_many_operations_whatever_it_was_asked_for(folder: Path) -> None:
    """Requests wait meanwhile; the changes of a batch count each, and it is moved whole."""
    with opened(folder) as storage:
        changes = {f"k{number}": "v" for number in range(MAX_FOLD - 1)}
        append(storage, batch(1, changes), batch(2, changes), *(put(n) for n in range(3, 2000)))
        assert storage.fold((1, 1999), (1, 1999), 5000) == (1, 2)
        assert storage.fold((1, 1999), (1, 1999), 5000) == (1, 2 + MAX_FOLD)


def test_fold_stops_where_an_entry_is_missing(folder: Path) -> None:
    """It may be on its way to the disk; what is folded is never looked for in the log again."""
    with opened(folder) as storage:
        append(storage, put(1), put(2), put(4))
        assert storage.fold((1, 4), (1, 4), MANY) == (1, 2)
        assert storage.fold((1, 4), (1, 4), MANY) == (1, 2)
        append(storage, put(3))
        assert storage.fold((2, 4), (2, 4), MANY) == (1, 4)
        append(storage, put(5, epoch=2))
        assert storage.fold((2, 5), (2, 5), MANY) == (2, 5)


def test_snapshot_under_way_keeps_older_entries_from_its_versions(folder: Path) -> None:
    """What a fold would move is older than what has come, and is dropped at the end."""
    with opened(folder) as storage:
        append(storage, put(1, "old", key="a"), put(2, "old", key="b"))
        storage.install([("a", Version("new", 1, 9))], ["b"])
        assert storage.fold((1, 2), (1, 2), MANY) == (0, 0)
        storage.finish_snapshot((1, 9))
        append(storage, put(10, key="c"))
        assert storage.fold((1, 10), (1, 10), MANY) == (1, 10)
        assert dict(storage.versions()) == {
            "a": Version("new", 1, 9),
            "c": Version("v", 1, 10),
        }


def entries_on_disk(storage: Storage) -> list[int]:
    """Returns the positions of all entries that take room, also of those that are read no more."""
    keys = [bytes(key) for key in storage._database.keys()]  # noqa: SIM118  it is no dict
    return [int.from_bytes(key[1:]) for key in keys if key.startswith(b"L")]


def test_entries_that_were_folded_or_replaced_by_a_snapshot_take_no_room(folder: Path) -> None:
    """The disk does not grow with the number of writes."""
    with opened(folder) as storage:
        append(storage, *(put(seq) for seq in range(1, 101)))
        storage.fold((1, 70), (1, 70), MANY)
        assert entries_on_disk(storage) == list(range(71, 101))
        storage.install([], [])
        storage.finish_snapshot((1, 95))
        assert entries_on_disk(storage) == list(range(96, 101))


def log_of(folder: Path) -> Path:
    """Returns the file that holds a store's newest writes."""
    return max((folder / "store").glob("*.log"))


def test_unfinished_write_is_cut_off_with_a_notice_once(folder: Path) -> None:
    """What was whole stays; the next start finds nothing to repair."""
    storage = open_storage(folder / "live", NODE_ID, Role.FOLLOWER)
    append(storage, put(1))
    whole = log_of(folder / "live").stat().st_size
    append(storage, put(2))
    log = log_of(crash(storage, folder / "live", folder / "killed"))
    with log.open("r+b") as file:
        file.truncate(whole + 5)
    with opened(folder / "killed") as found:
        assert found.notice == f"{log}: cut off 5 bytes of a write that never finished"
        assert [entry.seq for entry in found.entries()] == [1]
    with opened(folder / "killed") as found:
        assert found.notice == ""


@pytest.mark.parametrize("at", [10, 50, -10])
def test_damaged_log_is_refused_and_left_as_it_is(at: int, folder: Path) -> None:
    """A second look finds the same damage: nothing was made of it, whatever the folder's name."""
    storage = open_storage(folder / "live", NODE_ID, Role.FOLLOWER)
    for seq in (1, 2, 3):
        append(storage, put(seq))
    killed = folder / "block"  # is no lock
    log = log_of(crash(storage, folder / "live", killed))
    data = bytearray(log.read_bytes())
    data[at] ^= 1
    log.write_bytes(data)
    for _ in range(2):
        assert "the data on disk is damaged" in refusal(killed)
    assert log.read_bytes() == data


def test_store_without_its_files_is_refused_and_not_begun_anew(folder: Path) -> None:
    """The folder alone says that there was data."""
    with opened(folder):
        pass
    (folder / "store" / "CURRENT").unlink()
    for _ in range(2):
        assert "cannot be opened" in refusal(folder)


@pytest.mark.parametrize("name", ["store", "store.new"])
@pytest.mark.parametrize("current", [None, b"mine", b"MANIFEST-000007\n"])
def test_folder_of_somebody_else_stays_as_it_is(
    name: str, current: bytes | None, folder: Path
) -> None:
    """Their names are plain: whoever has such folders already must not lose what is in them."""
    theirs = folder / name
    theirs.mkdir(parents=True)
    for file in ("thesis.tex", "LOG", "LOG.old", "000009.log"):
        (theirs / file).write_bytes(b"mine")
    if current is not None:
        (theirs / "CURRENT").write_bytes(current)
    before = {path: path.read_bytes() for path in theirs.iterdir()}
    assert f"{theirs} " in refusal(folder)
    assert {path: path.read_bytes() for path in theirs.iterdir()} == before


def test_file_of_versions_that_is_damaged_is_refused_when_it_is_read(folder: Path) -> None:
    """The engine checks each block that it reads, and all are read at the start."""
    with opened(folder) as storage:
        append(storage, *(put(seq) for seq in range(1, 40)))
        storage.fold((1, 39), (1, 39), 100)
        flush(storage)
    file = max((folder / "store").glob("*.sst"))
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    file.write_bytes(data)
    with (
        pytest.raises(StorageError, match="the data on disk is damaged"),
        opened(folder) as storage,
    ):
        list(storage.versions())
