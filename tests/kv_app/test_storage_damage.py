"""A node's files, cut short and with flipped bits: what is opened is right, or it is refused.

The folders are opened in a process of its own, since an engine that reads damage may take its
process with it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kv_app.meta import Role
from kv_app.storage import open_storage
from kv_app.wal import BLOCK_BYTES, whole_records
from tests.kv_app.disks import NODE_ID, append, crash, flush, memory_folder
from tests.kv_app.fake_leader import put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPENING_LIMIT_S = 20.0
HEADER_BYTES = 7
FOLDED = 20
IN_FILES = 30
# What goes on behind the last file: three writes, the last one of two entries.
WRITES = [(31,), (32,), (33, 34)]


@dataclass
class Sample:
    """A store that was killed, and a process that opens damaged copies of it."""

    folder: Path
    work: Path
    process: subprocess.Popen[str]
    opened: int = 0

    def file(self, pattern: str) -> Path:
        """Returns the newest of its files with such a name."""
        return max((self.folder / "store").glob(pattern))

    def open(self, damage: Callable[[Path], None]) -> dict[str, Any]:
        """Opens a damaged copy; fails if that ends the process."""
        self.opened += 1
        copy = self.work / str(self.opened)
        shutil.copytree(self.folder, copy)
        damage(copy / "store")
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{copy}\n")
        self.process.stdin.flush()
        watchdog = threading.Timer(OPENING_LIMIT_S, self.process.kill)
        watchdog.start()
        answer = self.process.stdout.readline()
        watchdog.cancel()
        assert answer, f"the process died of it, or read for ever: {self.process.wait()}"
        shutil.rmtree(copy)
        return dict(json.loads(answer))

    def cut(self, name: str, size: int) -> dict[str, Any]:
        """Opens it with a file cut short."""

        def damage(store: Path) -> None:
            with (store / name).open("r+b") as file:
                file.truncate(size)

        return self.open(damage)

    def flip(self, name: str, at: int, bit: int) -> dict[str, Any]:
        """Opens it with one bit of a file flipped."""

        def damage(store: Path) -> None:
            data = bytearray((store / name).read_bytes())
            data[at] ^= 1 << bit
            (store / name).write_bytes(data)

        return self.open(damage)

    def record_bounds(self) -> list[int]:
        """Returns where the log's records begin, and where the last one ends."""
        return [0, *(end for end, _ in whole_records(self.file("*.log").read_bytes()))]


def value_of(seq: int) -> str:
    """Returns a value that tells where it was written."""
    return f"value {seq}"


def expected(last_seq: int) -> dict[str, Any]:
    """Returns what a store shows that holds all up to a position."""
    return {
        "notice": "",
        "held": [last_seq, last_seq],
        "values": {f"k{seq % 12}": value_of(seq) for seq in range(1, last_seq + 1)},
        "keys": [f"i{seq}" for seq in range(1, last_seq + 1) if seq % 5 == 0],
        "cluster_id": "c",
    }


def write_sample(folder: Path) -> None:
    """Writes versions, entries and keys to files, and some entries to the log."""

    def entry(seq: int) -> Any:
        key = f"i{seq}" if seq % 5 == 0 else None
        return put(seq, value_of(seq), key=f"k{seq % 12}", idempotency_key=key)

    storage = open_storage(folder / "live", NODE_ID, Role.FOLLOWER)
    storage.save(msgspec.structs.replace(storage.meta, cluster_id="c"))
    append(storage, *(entry(seq) for seq in range(1, IN_FILES + 1)))
    storage.fold((1, FOLDED), (1, FOLDED), FOLDED)
    flush(storage)
    for seqs in WRITES:
        append(storage, *(entry(seq) for seq in seqs))
        storage.sync()
    crash(storage, folder / "live", folder / "killed")


@pytest.fixture(scope="module")
def sample() -> Iterator[Sample]:
    """The store, and the process, for all tests of this module."""
    command = [sys.executable, "-m", "tests.kv_app.opener"]
    root = Path(__file__).parents[2]
    with (
        memory_folder() as folder,
        subprocess.Popen(
            command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        try:
            write_sample(folder)
            yield Sample(folder / "killed", folder, process)
        finally:
            process.kill()


def test_store_that_was_killed_opens_whole(sample: Sample) -> None:
    """The undamaged copy, without which the other tests would say nothing."""
    assert sample.open(lambda _: None) == expected(34)
    assert len(sample.record_bounds()) == 1 + len(WRITES)


# --- the log ----------------------------------------------------------------------------------


def test_last_write_cut_at_any_byte_leaves_all_before_it_and_a_notice(sample: Sample) -> None:
    """It was never finished; both of its entries go, and the sizes are told."""
    name = sample.file("*.log").name
    *_, start, end = sample.record_bounds()
    assert sample.cut(name, start) == expected(32)
    for size in range(start + 1, end):
        found = sample.cut(name, size)
        assert f"{name}: cut off {size - start} bytes" in found["notice"], size
        assert {**found, "notice": ""} == expected(32), size


def test_last_write_with_any_flipped_bit_is_refused_or_gone_with_a_notice(sample: Sample) -> None:
    """Only a length that leads beyond the file looks like a write that was never finished."""
    name = sample.file("*.log").name
    *_, start, end = sample.record_bounds()
    cut = 0
    for at in range(start, end):
        bits = range(8) if at < start + HEADER_BYTES else [at % 8]
        for bit in bits:
            found = sample.flip(name, at, bit)
            if "refusal" in found:
                assert "is damaged" in found["refusal"]
                continue
            cut += 1
            assert start + 4 <= at < start + 6, (at, bit)
            assert f"cut off {end - start} bytes" in found["notice"]
            assert {**found, "notice": ""} == expected(32), (at, bit)
    assert cut > 0


def test_write_in_the_middle_with_any_flipped_bit_is_refused(sample: Sample) -> None:
    """What stands behind it was acknowledged: a length that leads beyond the file is no end."""
    name = sample.file("*.log").name
    _, start, end, _ = sample.record_bounds()
    for at in range(start, end):
        bits = range(8) if at < start + HEADER_BYTES else [at % 8]
        for bit in bits:
            assert "is damaged" in sample.flip(name, at, bit).get("refusal", ""), (at, bit)


def test_last_write_whose_pages_never_came_is_gone_with_a_notice(sample: Sample) -> None:
    """The power went when the file had grown already."""
    log = sample.file("*.log")
    *_, start, end = sample.record_bounds()

    def damage(store: Path) -> None:
        data = log.read_bytes()
        (store / log.name).write_bytes(data[: start + 12] + bytes(end - start - 12 + 4000))

    found = sample.open(damage)
    assert "cut off" in found["notice"]
    assert {**found, "notice": ""} == expected(32)


def test_last_write_of_many_blocks_cut_where_a_block_ends_is_gone_with_a_notice(
    sample: Sample,
) -> None:
    """Its first blocks are intact, but it is not whole: one value, or all of a batch, goes."""
    folder = sample.work / "large"
    storage = open_storage(folder / "live", NODE_ID, Role.FOLLOWER)
    append(storage, put(1))
    start = next((folder / "live" / "store").glob("*.log")).stat().st_size
    append(storage, put(2, "x" * 3 * BLOCK_BYTES), put(3))
    large = replace(sample, folder=crash(storage, folder / "live", folder / "killed"))
    assert large.open(lambda _: None)["held"] == [3, 3]
    for size in (start + 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 3, 3 * BLOCK_BYTES):
        found = large.cut(large.file("*.log").name, size)
        assert f"cut off {size - start} bytes" in found["notice"], size
        assert (found["held"], found["values"]) == ([1, 1], {"k1": "v"}), size
    sample.opened = large.opened


# --- all other files --------------------------------------------------------------------------

FILES = ["*.sst", "MANIFEST-*", "CURRENT", "OPTIONS-*", "rocksdict-config.json", "IDENTITY"]
PLACES = 25


def places(size: int) -> list[int]:
    """Returns places all over a file, its first and last byte among them."""
    count = min(size, PLACES)
    return [index * (size - 1) // max(1, count - 1) for index in range(count)]


def check_same_or_refused(found: dict[str, Any], where: object) -> bool:
    """Holds a damaged copy to the promise; returns whether it was refused."""
    if "refusal" in found:
        assert "damaged" in found["refusal"] or "cannot be opened" in found["refusal"]
        return True
    assert found == expected(34), where
    return False


@pytest.mark.parametrize("pattern", FILES)
def test_file_with_a_flipped_bit_is_refused_or_changes_nothing(
    pattern: str, sample: Sample
) -> None:
    """Data is checked wherever it is; what is no data may be damaged without harm."""
    file = sample.file(pattern)
    found = [
        check_same_or_refused(sample.flip(file.name, at, at % 8), at)
        for at in places(file.stat().st_size)
    ]
    is_data = pattern in {"*.sst", "MANIFEST-*", "CURRENT"}
    assert any(found) == is_data


@pytest.mark.parametrize("pattern", FILES)
def test_file_that_is_cut_short_or_missing_is_refused_or_changes_nothing(
    pattern: str, sample: Sample
) -> None:
    """Least of all does a store begin anew where there was data."""
    file = sample.file(pattern)
    if pattern == "MANIFEST-*":  # cut where one of its records ends it is whole, as the log is
        ends = {end for end, _ in whole_records(file.read_bytes())}
    else:
        ends = set()
    found = [
        check_same_or_refused(sample.cut(file.name, size), size)
        for size in places(file.stat().st_size)
        if size not in ends
    ]
    found.append(
        check_same_or_refused(sample.open(lambda store: (store / file.name).unlink()), "missing")
    )
    is_data = pattern in {"*.sst", "MANIFEST-*", "CURRENT"}
    assert any(found) == is_data


def test_store_without_its_log_is_refused(sample: Sample) -> None:
    """There always is one, so that a missing one is not an empty one."""
    name = sample.file("*.log").name
    found = sample.open(lambda store: (store / name).unlink())
    assert "the log does not go on" in found["refusal"]
