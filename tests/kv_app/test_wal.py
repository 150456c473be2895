"""What ends the engine's files: whole records, unfinished writes, damage, against a slow model."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kv_app import wal
from kv_app.wal import FIRST, FULL, LAST, SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIDDLE = 3
HEADER_BYTES = 7
SMALL_BLOCK = 64


def crc32c_bit_by_bit(data: bytes) -> int:
    """Computes the checksum as its definition has it."""
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (0x82F63B78 if checksum & 1 else 0)
    return checksum ^ 0xFFFFFFFF


def piece(kind: int, payload: bytes) -> bytes:
    """Returns a piece as the engine writes it."""
    checksum = wal.masked(wal.crc32c(bytes([kind]) + payload))
    return struct.pack("<IHB", checksum, len(payload), kind) + payload


@pytest.fixture
def small_blocks() -> Iterator[None]:
    """Small blocks, so that short records are cut into pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wal, "BLOCK_BYTES", SMALL_BLOCK)
        yield


def write_log(records: list[bytes]) -> bytes:
    """Writes records as the engine's ``log_writer`` does."""
    out = bytearray()
    for record in records:
        rest, is_first = record, True
        while is_first or rest:
            left = wal.BLOCK_BYTES - len(out) % wal.BLOCK_BYTES
            if left < HEADER_BYTES:
                out += bytes(left)
                left = wal.BLOCK_BYTES
            part, rest = rest[: left - HEADER_BYTES], rest[left - HEADER_BYTES :]
            kinds = {(True, True): FULL, (True, False): FIRST, (False, False): MIDDLE}
            out += piece(kinds.get((is_first, not rest), LAST), part)
            is_first = False
    return bytes(out)


@given(st.binary(max_size=64))
def test_checksum_is_castagnolis(data: bytes) -> None:
    """The table gives what the definition gives."""
    assert wal.crc32c(data) == crc32c_bit_by_bit(data)


def test_checksum_of_the_standards_example() -> None:
    """RFC 3720, B.4: 32 bytes of zeros, and of ones."""
    assert wal.crc32c(bytes(32)) == 0x8A9136AA
    assert wal.crc32c(b"\xff" * 32) == 0x62A8AB43


sizes = st.integers(min_value=0, max_value=200)
records = st.lists(sizes, min_size=1, max_size=5).map(
    lambda some: [bytes([65 + i]) * size for i, size in enumerate(some)]
)


@pytest.mark.usefixtures("small_blocks")
@example([b"x" * (SMALL_BLOCK - 2 * HEADER_BYTES), b"y" * 10])  # room for an empty first piece
@example([b"x" * (SMALL_BLOCK - HEADER_BYTES - 3), b"y" * 10])  # room for no header
@given(records)
def test_records_of_a_whole_file_are_read_as_they_were_written(some: list[bytes]) -> None:
    """Whatever their length, wherever blocks end."""
    data = write_log(some)
    assert [payload for _, payload in wal.whole_records(data)] == some
    assert wal.whole_end(data) == len(data)
    assert wal.torn_start(data) is None


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=30)
@given(records)
def test_file_cut_anywhere_holds_its_whole_records_and_the_rest_is_unfinished(
    some: list[bytes],
) -> None:
    """Exactly the records before the cut are read, and all behind them may be cut off."""
    whole = write_log(some)
    ends = [0, *(end for end, _ in wal.whole_records(whole))]
    for cut in range(len(whole)):
        end = max(end for end in ends if end <= cut)
        assert wal.whole_end(whole[:cut]) == end
        assert wal.torn_start(whole[:cut]) == (None if end == cut else end)


@pytest.mark.usefixtures("small_blocks")
@given(records, st.data())
def test_record_with_a_flipped_bit_is_never_read(some: list[bytes], data: st.DataObject) -> None:
    """All before it are read, and nothing of it or behind it."""
    whole = bytearray(write_log(some))
    at = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))
    ends = [end for end, _ in wal.whole_records(bytes(whole))]
    whole[at] ^= 1 << data.draw(st.integers(min_value=0, max_value=7))
    read = [payload for _, payload in wal.whole_records(bytes(whole))]
    intact = sum(end <= at for end in ends)
    is_padding = read == some  # what fills a block up has no checksum
    assert read == some[:intact] or is_padding


def test_record_of_the_largest_blocks_is_read_too() -> None:
    """The real size of a block, and a record of several."""
    some = [b"a" * (wal.BLOCK_BYTES - 9), b"b" * 3 * wal.BLOCK_BYTES, b"c"]
    data = write_log(some)
    assert [payload for _, payload in wal.whole_records(data)] == some


def test_damaged_record_with_another_one_behind_it_is_no_unfinished_end() -> None:
    """It was acknowledged, whatever its length says now."""
    whole = write_log([b"a" * 30, b"b" * 30, b"c" * 30])
    ends = [end for end, _ in wal.whole_records(whole)]
    for at in range(ends[0], ends[1]):
        for bit in range(8):
            data = bytearray(whole)
            data[at] ^= 1 << bit
            assert wal.torn_start(bytes(data)) is None


def test_damaged_last_record_is_unfinished_only_if_its_length_leads_beyond_the_file() -> None:
    """A flipped bit elsewhere leaves the length and the pages of a write that was finished."""
    whole = write_log([b"a" * 30, b"b" * 30])
    start = next(end for end, _ in wal.whole_records(whole))
    for at in range(start, len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[at] ^= 1 << bit
            length = struct.unpack_from("<H", data, start + 4)[0]
            expected = start if 30 < length < wal.BLOCK_BYTES - start - HEADER_BYTES else None
            assert wal.torn_start(bytes(data)) == expected, (at - start, bit)


@pytest.mark.parametrize("size", [2000, 100_000])
def test_record_with_a_sector_of_zeros_is_unfinished(size: int) -> None:
    """The file had grown already when the power went, but the pages had not come yet."""
    whole = bytearray(write_log([b"a" * 100, b"b" * size]))
    sector = len(whole) // SECTOR_BYTES // 2 * SECTOR_BYTES
    whole[sector : sector + SECTOR_BYTES] = bytes(SECTOR_BYTES)
    assert wal.torn_start(bytes(whole)) == 100 + HEADER_BYTES
    whole[sector + 5] = 1
    assert wal.torn_start(bytes(whole)) is None


def test_zeros_behind_the_last_record_are_an_unfinished_end() -> None:
    """Room that was set aside, and never written."""
    whole = write_log([b"a" * 10])
    assert wal.torn_start(whole + bytes(5000)) == len(whole)


@pytest.mark.parametrize(
    "pieces",
    [
        [(MIDDLE, b"x")],
        [(LAST, b"x")],
        [(FULL, b"a"), (LAST, b"x")],
        [(FULL, b"a"), (FIRST, b"x"), (FULL, b"b")],
        [(FULL, b"a"), (FIRST, b"x"), (FIRST, b"y")],
    ],
)
def test_pieces_that_do_not_make_records_are_not_read(pieces: list[tuple[int, bytes]]) -> None:
    """Neither an end without a beginning nor a beginning within a record is whole."""
    data = b"".join(piece(*one) for one in pieces)
    expected = [payload for kind, payload in pieces[:1] if kind == FULL]
    assert [payload for _, payload in wal.whole_records(data)] == expected


# --- files -------------------------------------------------------------------------------------


def write_files(folder: Path, **files: bytes) -> None:
    """Writes log files; ``_7`` is 000007.log."""
    for name, data in files.items():
        (folder / f"{int(name[1:]):06}.log").write_bytes(data)


def test_torn_end_is_found_and_cut_in_the_newest_file_only(tmp_path: Path) -> None:
    """It goes as a whole, and what was whole stays."""
    whole = write_log([b"a" * 40, b"b" * 40])
    write_files(tmp_path, _9=whole, _10=whole + whole[:20])
    (tmp_path / "notes.log").write_text("of somebody else")
    found = wal.find_torn_end(tmp_path)
    assert found == wal.TornEnd(tmp_path / "000010.log", len(whole), 20)
    found.cut()
    assert (tmp_path / "000010.log").read_bytes() == whole
    assert wal.find_torn_end(tmp_path) is None


def test_torn_end_of_an_older_file_is_damage(tmp_path: Path) -> None:
    """A newer file was begun only when the older one was complete."""
    whole = write_log([b"a" * 40])
    write_files(tmp_path, _9=whole[:-1], _10=whole[:-1])
    assert wal.find_torn_end(tmp_path) is None


def test_torn_end_of_no_file_is_none(tmp_path: Path) -> None:
    """A folder without a log has nothing to cut."""
    assert wal.find_torn_end(tmp_path) is None


# --- the manifest ------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Encodes a number as the manifest does."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def edit(log_number: int | None, last_sequence: int) -> bytes:
    """Returns a record of the manifest, with fields before and behind those that count."""
    log = b"" if log_number is None else varint(2) + varint(log_number)
    name = b"leveldb.BytewiseComparator"
    start = varint(1) + varint(len(name)) + name
    numbers = varint(9) + varint(0) + varint(3) + varint(300)
    files = varint(103) + b"\x02\xff\x04\x01"
    return start + log + numbers + varint(4) + varint(last_sequence) + files


def write_manifest(folder: Path, *edits: bytes) -> bytes:
    """Writes a manifest, and returns it."""
    data = write_log(list(edits))
    (folder / "CURRENT").write_text("MANIFEST-000005\n")
    (folder / "MANIFEST-000005").write_bytes(data)
    return data


def log_from(sequence: int) -> bytes:
    """Returns a log whose first write has this sequence number."""
    return write_log([struct.pack("<Q", sequence) + bytes(8)])


@pytest.mark.parametrize(
    ("logs", "has_gap"),
    [
        ({"_8": 501}, False),
        ({"_8": 300}, False),
        ({"_8": 502}, True),
        ({"_7": 900, "_8": 501}, False),  # an older log is in use no more
        ({"_8": None, "_9": 501}, False),
        ({"_8": None, "_9": 502}, True),
        ({"_9": None}, True),  # nothing shows that nothing is missing
        ({"_7": 501}, True),  # no log in use is there
        ({}, True),
    ],
)
def test_log_that_does_not_go_on_where_a_broken_manifest_ends_is_a_gap(
    logs: dict[str, int | None], tmp_path: Path, *, has_gap: bool
) -> None:
    """The first write in use must be no later than the one that follows what the files hold."""
    data = write_manifest(tmp_path, edit(3, 100), edit(8, 400), edit(None, 500), edit(9, 600))
    (tmp_path / "MANIFEST-000005").write_bytes(data[:-1])
    write_files(
        tmp_path, **{name: b"" if seq is None else log_from(seq) for name, seq in logs.items()}
    )
    assert (wal.find_damage(tmp_path) is not None) is has_gap


@pytest.mark.parametrize(("name", "has_gap"), [("_8", False), ("_9", False), ("_7", True)])
def test_manifest_that_is_whole_needs_a_log_and_no_more(
    name: str, tmp_path: Path, *, has_gap: bool
) -> None:
    """An empty log is one; one that is in use no more is none."""
    write_manifest(tmp_path, edit(3, 100), edit(8, 400))
    write_files(tmp_path, **{name: b""})
    assert (wal.find_damage(tmp_path) is not None) is has_gap


def test_manifest_cut_anywhere_is_a_gap_unless_the_log_has_all_that_came_after_it(
    tmp_path: Path,
) -> None:
    """What a crash left unfinished is no harm; a lost end is found at every byte of its record."""
    edits = [edit(3, 100), edit(8, 400)]
    data = write_manifest(tmp_path, *edits)
    for first, harmless in ((401, False), (101, True)):
        write_files(tmp_path, _8=log_from(first))
        for cut in range(len(write_log(edits[:1])) + 1, len(data)):
            (tmp_path / "MANIFEST-000005").write_bytes(data[:cut])
            assert (wal.find_damage(tmp_path) is None) is harmless


@pytest.mark.parametrize("current", [None, b"MANIFEST-000009\n", b"nonsense\n", b"\xff\n"])
def test_manifest_that_cannot_be_found_is_left_to_the_engine(
    current: bytes | None, tmp_path: Path
) -> None:
    """It says so itself, and opens nothing."""
    write_files(tmp_path, _8=log_from(900))
    if current is not None:
        (tmp_path / "CURRENT").write_bytes(current)
    assert wal.find_damage(tmp_path) is None


@pytest.mark.parametrize("kind", [5, 9, 130, 255])
@pytest.mark.parametrize("name", ["000008.log", "MANIFEST-000005"])
def test_record_of_an_unknown_type_is_damage_wherever_it_is(
    kind: int, name: str, tmp_path: Path
) -> None:
    """The engine would read some of them for ever."""
    write_manifest(tmp_path, edit(8, 400), edit(8, 500))
    write_files(tmp_path, _8=log_from(501) + log_from(502))
    assert wal.find_damage(tmp_path) is None
    data = bytearray((tmp_path / name).read_bytes())
    start = next(end for end, _ in wal.whole_records(bytes(data)))
    data[start + 6] = kind
    (tmp_path / name).write_bytes(data)
    assert wal.find_damage(tmp_path) == f"{tmp_path / name} has a record of an unknown type"


def test_start_sums_each_byte_of_the_engines_list_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a MiB of it at every start: a tenth of a second."""
    manifest = write_manifest(tmp_path, edit(5, 10), edit(None, 20))
    write_files(tmp_path, _5=log_from(21))
    summed: list[int] = []
    crc32c = wal.crc32c

    def counted(data: bytes) -> int:
        summed.append(len(data))
        return crc32c(data)

    monkeypatch.setattr(wal, "crc32c", counted)
    assert wal.find_damage(tmp_path) is None
    assert 0 < sum(summed) <= len(manifest)
