"""Tells an unfinished end of the engine's files from damage. Pure, but for reading files.

A crash may leave the last write unfinished, and that may be cut off: nobody was told that it was
done. A damaged record may have been acknowledged, and must not be dropped. The engine cannot tell:
it takes a damaged length for an unfinished end and drops what follows, and it refuses an end whose
pages never reached the disk.

An unfinished write ends where the file ends, or has a sector (512 bytes) of nothing but zeros, and
no other record begins behind it; flipped bits do not look like that.

The format of the log and of the manifest (RocksDB's `db/log_format.h`): blocks of 32 KiB; in each,
pieces of a checksum (4 bytes, masked CRC-32C of type and payload), a length (2 bytes), a type (1
byte), and the payload. A piece never spans two blocks, and what is too short for a header is zeros.
A record is one piece, or several that follow each other.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import google_crc32c

BLOCK_BYTES: Final = 32 * 1024
SECTOR_BYTES: Final = 512
FULL: Final = 1
FIRST: Final = 2
LAST: Final = 4  # the highest type; we switch on nothing that writes others

_HEADER: Final = struct.Struct("<IHB")
_SEQUENCE: Final = struct.Struct("<Q")
_MASK: Final = 0xA282EAD8
# Fields of a manifest's record that come before all others (RocksDB's `db/version_edit.h`).
_COMPARATOR: Final = 1
_LOG_NUMBER: Final = 2
_LAST_SEQUENCE: Final = 4
_OTHER_NUMBERS: Final = frozenset({3, 9, 10})
_MORE: Final = 0x80  # set in all bytes of a number but the last


class Piece(NamedTuple):
    """A part of a record that is intact."""

    kind: int
    payload: bytes
    end: int


@dataclass(frozen=True, slots=True)
class TornEnd:
    """A write that was never finished, at the end of the log.

    Attributes:
        path: The file.
        at: Where it begins.
        size_bytes: How much of it is there.
    """

    path: Path
    at: int
    size_bytes: int

    def cut(self) -> None:
        """Removes it from the file, durably."""
        with self.path.open("r+b") as file:
            file.truncate(self.at)
            os.fsync(file.fileno())


# --- the log -----------------------------------------------------------------------------------


def find_torn_end(folder: Path) -> TornEnd | None:
    """Returns the unfinished write with which a database's log ends.

    Returns:
        None if there is none: the log is whole, or damaged.
    """
    paths = _log_files(folder)
    if not paths:
        return None
    *older, newest = (path.read_bytes() for path in paths)
    if any(whole_end(data) != len(data) for data in older):
        return None
    at = torn_start(newest)
    return None if at is None else TornEnd(paths[-1], at, len(newest) - at)


def torn_start(data: bytes) -> int | None:
    """Returns where the unfinished write begins with which a file ends, None if there is none."""
    at = whole_end(data)
    if at == len(data) or not _is_unfinished(data, at):
        return None
    return None if _has_record_after(data, _skip_padding(at) + 1) else at


def whole_records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the records from the beginning to the first that is not whole: end, and payload."""
    at, parts = 0, list[bytes]()
    while (piece := _piece_at(data, _skip_padding(at))) is not None:
        begins = piece.kind in {FULL, FIRST}
        if begins == bool(parts):
            return  # a part without a beginning, or a beginning within a record
        at = piece.end
        parts.append(piece.payload)
        if piece.kind in {FULL, LAST}:
            yield at, b"".join(parts)
            parts = []


def whole_end(data: bytes) -> int:
    """Returns where the last record ends before which all are whole."""
    return max((end for end, _ in whole_records(data)), default=0)


def _has_record_after(data: bytes, start: int) -> bool:
    """Tells if a record begins with an intact piece anywhere at or after a place."""
    for at in range(start, len(data) - _HEADER.size + 1):
        if data[at + 6] in {FULL, FIRST} and _piece_at(data, at) is not None:
            return True
    return False


def _is_unfinished(data: bytes, at: int) -> bool:
    """Tells if the record at a place lacks its end, or pages that never reached the disk."""
    while (piece := _piece_at(data, _skip_padding(at))) is not None:
        at = piece.end
    at = _skip_padding(at)
    if at + _HEADER.size > len(data):
        return True
    end = at + _HEADER.size + _HEADER.unpack_from(data, at)[1]
    if len(data) < end <= _block_end(at):
        return True
    next_sector = at - at % SECTOR_BYTES + SECTOR_BYTES
    bounds = [at, *range(next_sector, len(data), SECTOR_BYTES), len(data)]
    return any(not any(data[first:last]) for first, last in pairwise(bounds))


# --- before the engine opens -------------------------------------------------------------------


def find_damage(folder: Path) -> str | None:
    """Returns what damage a database has that the engine would not see, None if there is none.

    It takes a list of its files (the manifest) whose end is lost for an older one, deletes the
    files that it does not know, and says nothing; and it reads for ever what has a type of its own
    that we do not use.
    """
    manifest = manifest_of(folder)
    for path in [*_log_files(folder), *([] if manifest is None else [manifest])]:
        if _has_strange_type(path.read_bytes()):
            return f"{path} has a record of an unknown type"
    if manifest is not None and _has_gap(manifest.read_bytes(), _log_files(folder)):
        return f"the log does not go on where {manifest} ends"
    return None


def manifest_of(folder: Path) -> Path | None:
    """Returns a database's manifest; None if the engine will refuse what stands for it."""
    try:
        name = (folder / "CURRENT").read_text("ascii").removesuffix("\n")
    except (OSError, ValueError):
        return None
    path = folder / name
    return path if name.startswith("MANIFEST-") and path.is_file() else None


def _has_strange_type(data: bytes) -> bool:
    """Tells if a header has a type above those that are written; lengths are taken as they are."""
    at = 0
    while (at := _skip_padding(at)) + _HEADER.size <= len(data):
        _, length, kind = _HEADER.unpack_from(data, at)
        if kind > LAST:
            return True
        at += _HEADER.size + length
    return False


def _has_gap(manifest: bytes, paths: list[Path]) -> bool:
    """Tells if data is missing between a manifest and the log.

    A manifest that a crash left unfinished is no harm if the log still has all that came after it.
    """
    log_number = last_sequence = 0
    records = list(whole_records(manifest))
    for _, record in records:
        log_number, last_sequence = _read_edit(record, log_number, last_sequence)
    # A new log is made before an old one is given up, so there always is one.
    logs = [path for path in paths if int(path.stem) >= log_number]
    end = records[-1][0] if records else 0
    if logs and end == len(manifest):
        return False
    firsts = (_first_sequence(path) for path in logs)
    first = next((sequence for sequence in firsts if sequence is not None), None)
    return first is None or first > last_sequence + 1


def _read_edit(record: bytes, log_number: int, last_sequence: int) -> tuple[int, int]:
    """Returns the number of the oldest log in use and the last sequence, as a record has them."""
    at = 0
    while at < len(record):
        tag, at = _read_varint(record, at)
        if tag == _COMPARATOR:
            length, at = _read_varint(record, at)
            at += length
        elif tag == _LOG_NUMBER:
            log_number, at = _read_varint(record, at)
        elif tag == _LAST_SEQUENCE:
            last_sequence, at = _read_varint(record, at)
        elif tag in _OTHER_NUMBERS:
            _, at = _read_varint(record, at)
        else:
            break
    return log_number, last_sequence


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while data[at] & _MORE:
        number |= (data[at] ^ _MORE) << shift
        at, shift = at + 1, shift + 7
    return number | data[at] << shift, at + 1


def _first_sequence(path: Path) -> int | None:
    """Returns the sequence number of a log's first write, None if it has none."""
    with path.open("rb") as file:
        start = file.read(_HEADER.size + _SEQUENCE.size)
    if len(start) < _HEADER.size + _SEQUENCE.size:
        return None
    return int(_SEQUENCE.unpack_from(start, _HEADER.size)[0])


# --- both --------------------------------------------------------------------------------------


def _log_files(folder: Path) -> list[Path]:
    paths = [path for path in folder.glob("*.log") if path.stem.isdigit()]
    return sorted(paths, key=lambda path: int(path.stem))


def _block_end(at: int) -> int:
    return at - at % BLOCK_BYTES + BLOCK_BYTES


def _skip_padding(at: int) -> int:
    """Returns where the next header is at the earliest."""
    return _block_end(at) if _block_end(at) - at < _HEADER.size else at


def _piece_at(data: bytes, at: int) -> Piece | None:
    """Returns the piece at a place, or None if none is intact there."""
    limit = min(_block_end(at), len(data))
    if at + _HEADER.size > limit:
        return None
    checksum, length, kind = _HEADER.unpack_from(data, at)
    end = at + _HEADER.size + length
    if not FULL <= kind <= LAST or end > limit:
        return None
    if masked(crc32c(data[at + 6 : end])) != checksum:
        return None
    return Piece(kind, data[at + _HEADER.size : end], end)


def masked(checksum: int) -> int:
    """Returns a checksum as the files store it (RocksDB's `util/crc32c.h`)."""
    return (((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Returns the CRC-32C (Castagnoli, RFC 3720) of some bytes."""
    return int(google_crc32c.value(data))
