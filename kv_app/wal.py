"""Tells a torn end of the engine's log from damage in its middle. Pure, but for reading files.

A crash may leave the last write unfinished, and that may be cut off: nobody was told that it was
done. A damaged record with an intact one behind it was acknowledged, and must not be dropped. The
engine cannot tell: with `absolute_consistency` it refuses both, with `tolerate_corrupted_tail_
records` it takes a damaged length for a torn end and drops what follows.

The format (RocksDB's `db/log_format.h`): blocks of 32 KiB; in each, records of a checksum (4 bytes,
masked CRC-32C of type and payload), a length (2 bytes), a type (1 byte), and the payload. A record
never spans two blocks, and what is too short for a header is zeros.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 32 * 1024
MAX_TYPE: Final = 4  # full, first, middle, last; we switch on nothing that writes others

_HEADER: Final = struct.Struct("<IHB")
_MASK: Final = 0xA282EAD8
_POLYNOMIAL: Final = 0x82F63B78


def torn_bytes(folder: Path) -> int | None:
    """Returns how many bytes of an unfinished write the log ends with; None if it is damaged.

    Args:
        folder: The database's.
    """
    files = sorted(folder.glob("*.log"), key=lambda path: int(path.stem))
    if not files:
        return None
    *older, newest = (path.read_bytes() for path in files)
    if any(first_bad(data) is not None for data in older):
        return None
    bad = first_bad(newest)
    if bad is None or has_intact_after(newest, bad + 1):
        return None
    return len(newest) - bad


def first_bad(data: bytes) -> int | None:
    """Returns where the first record begins that is not intact; None if all are."""
    at = 0
    while at < len(data):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < _HEADER.size:
            at += left
            continue
        end = _intact_end(data, at)
        if end is None:
            # Zeros from here on are room that was set aside and never written.
            return at if any(data[at:]) else None
        at = end
    return None


def has_intact_after(data: bytes, start: int) -> bool:
    """Tells if an intact record begins anywhere at or after a place."""
    return any(_intact_end(data, at) is not None for at in _candidates(data, start))


def _candidates(data: bytes, start: int) -> Iterator[int]:
    """Yields where a header may begin: what has a possible type, and fits into its block."""
    for at in range(start, len(data) - _HEADER.size + 1):
        if 1 <= data[at + 6] <= MAX_TYPE:
            yield at


def _intact_end(data: bytes, at: int) -> int | None:
    """Returns where the record at a place ends, or None if it is not intact."""
    block_end = at - at % BLOCK_BYTES + BLOCK_BYTES
    if at + _HEADER.size > min(block_end, len(data)):
        return None
    checksum, length, kind = _HEADER.unpack_from(data, at)
    end = at + _HEADER.size + length
    if not 1 <= kind <= MAX_TYPE or end > min(block_end, len(data)):
        return None
    return end if masked(crc32c(data[at + 6 : end])) == checksum else None


def masked(checksum: int) -> int:
    """Returns a checksum as the log stores it (RocksDB's `util/crc32c.h`)."""
    return (((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF


def _make_table() -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = value >> 1 ^ _POLYNOMIAL if value & 1 else value >> 1
        return value

    return tuple(entry(value) for value in range(256))


_TABLE: Final = _make_table()


def crc32c(data: bytes) -> int:
    """Returns the CRC-32C (Castagnoli, RFC 3720) of some bytes."""
    table, checksum = _TABLE, 0xFFFFFFFF
    for byte in data:
        checksum = table[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    return checksum ^ 0xFFFFFFFF
