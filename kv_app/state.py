"""What a replica holds: per key its newest version. Pure.

Replicas apply last-writer-wins per key by position ``(epoch, seq)``, so entries may arrive in any
order and more than once, and all replicas that hold the same entries show the same.

Keys live in a fixed number of buckets, the same on every replica, so that replicas can be compared
and copied bucket by bucket.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final
from zlib import crc32

from kv_app.messages import Entry, Operation, Version

# A power of two. Of 1,000,000 keys each holds about 4,000: small enough to be copied in one turn.
BUCKETS: Final = 256
_DIGEST_MASK: Final = (1 << 64) - 1
_CHANGES_A_KEY: Final = frozenset({int(Operation.PUT), int(Operation.DELETE)})


def bucket_of(key: str) -> int:
    """Returns the bucket of a key, the same in every process: CRC-32 of its UTF-8, modulo 256."""
    return crc32(key.encode()) % BUCKETS


class State:
    """Keys and their newest versions, deletions included.

    Invariants: within an epoch the version of a key never decreases; the digest of a bucket is
    always the sum over the keys with a value that it holds.
    """

    def __init__(self) -> None:
        self._buckets: list[dict[str, Version]] = [{} for _ in range(BUCKETS)]
        # Plain sums; they are cut to 64 bits where they are read.
        self._sums = [0] * BUCKETS
        self._tombstones = 0
        # In order of arrival; those that something newer replaced stay until they are in front.
        self._deletions: deque[tuple[str, Version]] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._buckets))

    @property
    def tombstones(self) -> int:
        """Number of deleted keys whose deletion is remembered; ``len`` counts them too."""
        return self._tombstones

    def apply(self, entry: Entry) -> None:
        """Takes an entry; it is ignored for keys that have a newer version already."""
        if entry.operation in _CHANGES_A_KEY:
            self.install(entry.key, Version(entry.value, entry.epoch, entry.seq))
        else:
            for change in entry.changes:
                self.install(change.key, Version(change.value, entry.epoch, entry.seq))

    def install(self, key: str, version: Version) -> bool:
        """Takes a version of a key, unless that or a newer one is there already.

        Returns:
            Whether it was taken.
        """
        checksum = crc32(key.encode())
        bucket = checksum % BUCKETS
        versions = self._buckets[bucket]
        held = versions.get(key)
        if held is None:
            self._sums[bucket] += _fingerprint(checksum, version)
        elif (version.epoch, version.seq) <= (held.epoch, held.seq):
            return False
        else:
            self._sums[bucket] += _fingerprint(checksum, version) - _fingerprint(checksum, held)
            self._tombstones -= held.value is None
        versions[key] = version
        if version.value is None:
            self._tombstones += 1
            self._deletions.append((key, version))
        return True

    def read(self, key: str) -> Version | None:
        """Returns the newest version of a key; its value is None after a deletion."""
        return self._buckets[bucket_of(key)].get(key)

    def values(self) -> dict[str, str]:
        """Returns all keys that have a value, with it."""
        return {
            key: version.value
            for versions in self._buckets
            for key, version in versions.items()
            if version.value is not None
        }

    def digests(self) -> list[int]:
        """Returns a digest of 64 bits per bucket, over the keys with a value and their versions.

        Replicas that show the same have the same digests, however they came to it. Deletions do not
        count, since replicas forget them at different times.
        """
        return [total & _DIGEST_MASK for total in self._sums]

    def bucket(self, number: int) -> dict[str, Version]:
        """Returns a copy of one bucket, deletions included.

        Args:
            number: From 0 to ``BUCKETS - 1``.
        """
        return self._buckets[number].copy()

    def bucket_chunks(
        self, max_keys: int, max_chars: int
    ) -> Iterator[tuple[int, dict[str, Version], bool]]:
        """Yields the whole state in parts, deletions included: bucket, versions, ends the bucket.

        The buckets come in ascending order, and each is ended once, an empty one by an empty part.
        The state may change between two parts: each holds the versions of its own moment, and what
        came into a bucket after its first part may be left out.

        Args:
            max_keys: Keys per part at most.
            max_chars: Characters per part, which only a single larger key may exceed.
        """
        for bucket, versions in enumerate(self._buckets):
            keys = list(versions)
            start = 0
            while True:
                stop = _end_of_part(keys, start, versions, max_keys, max_chars)
                # Deletions may have been forgotten since the keys were listed.
                part = {key: versions[key] for key in keys[start:stop] if key in versions}
                yield bucket, part, stop == len(keys)
                if stop == len(keys):
                    break
                start = stop

    def drop_missing(self, bucket: int, present: set[str], epoch: int, seq: int) -> list[str]:
        """Removes from a bucket what a snapshot of position ``(epoch, seq)`` no longer holds.

        Args:
            bucket: Its number.
            present: The keys of that bucket in the snapshot.
            epoch: With ``seq``: versions above this position stay.
            seq: See ``epoch``.

        Returns:
            The removed keys.
        """
        versions = self._buckets[bucket]
        missing = [
            key
            for key, version in versions.items()
            if key not in present and (version.epoch, version.seq) <= (epoch, seq)
        ]
        for key in missing:
            version = versions.pop(key)
            self._sums[bucket] -= _fingerprint(crc32(key.encode()), version)
            self._tombstones -= version.value is None
        return missing

    def forget_deletions(self, epoch: int, seq: int) -> list[str]:
        """Drops the deletions at or below a position.

        The caller knows that no older version of their keys can come any more. They go in the order
        in which they came: one above the position keeps those behind it for a later call.

        Returns:
            The keys of which nothing is held any more.
        """
        forgotten: list[str] = []
        deletions = self._deletions
        while deletions:
            key, deletion = deletions[0]
            versions = self._buckets[bucket_of(key)]
            if versions.get(key) is deletion:
                if (deletion.epoch, deletion.seq) > (epoch, seq):
                    break
                del versions[key]
                self._tombstones -= 1
                forgotten.append(key)
            deletions.popleft()
        return forgotten


def _end_of_part(
    keys: list[str], start: int, versions: dict[str, Version], max_keys: int, max_chars: int
) -> int:
    chars = 0
    for index, key in enumerate(islice(keys, start, start + max_keys), start):
        version = versions.get(key)
        chars += len(key) + (len(version.value or "") if version else 0)
        if chars > max_chars and index > start:
            return index
    return min(start + max_keys, len(keys))


def _fingerprint(checksum: int, version: Version) -> int:
    """Returns 61 bits of a version and the CRC-32 of its key, or 0 for a deletion.

    The same in every process: CPython salts the hashes of text, not those of numbers. The hash of a
    number is its remainder by ``2**61 - 1``, that of a tuple is xxHash's without the last mixing.
    Hence the cube: in a sum of the tuple's hashes 9% of all swaps of two values cancelled out. Two
    values at one position are taken for the same once in ``2**32``; there is no protection against
    values made to collide. It takes a third of the time of a BLAKE2b.
    """
    if version.value is None:
        return 0
    number = hash((checksum, crc32(version.value.encode()), version.epoch, version.seq))
    return hash(number * number * number)
