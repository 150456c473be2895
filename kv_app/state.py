"""What a replica holds: per key its newest version. Pure.

Replicas apply last-writer-wins per key by position ``(epoch, seq)``, so entries may arrive in any
order and more than once, and all replicas that hold the same entries show the same.

A replica also keeps, per key, the newest settled version beneath unsettled ones. An entry is
settled on a replica once it and all before it are held there and committed. Only when an epoch
begins may versions fall, and only by entries that are not settled.

Keys live in a fixed number of buckets, the same on every replica, so that replicas can be compared
and copied bucket by bucket.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final
from zlib import crc32

from kv_app.messages import Entry, Operation, Version

# A power of two. Of 1,000,000 keys each holds about 4,000: small enough to be copied in one turn.
BUCKETS: Final = 256
_DIGEST_MASK: Final = (1 << 64) - 1
# The configuration is the version of a key that no client can have, so that it is settled, folded,
# sent and compared like all others.
CONFIG_KEY: Final = ""
_CHANGES_A_KEY: Final = frozenset(
    {int(Operation.PUT), int(Operation.DELETE), int(Operation.CONFIG)}
)

# Stands for "not taken" where None means that nothing was there.
_OLDER: Final = Version(None, 0, 0)


def changes_of(entry: Entry) -> Sequence[tuple[str, str | None]]:
    """Returns what an entry does: each key, with its value or None for a deletion."""
    if entry.operation in _CHANGES_A_KEY:
        return [(entry.key, entry.value)]
    return [(change.key, change.value) for change in entry.changes]


def bucket_of(key: str) -> int:
    """Returns the bucket of a key, the same in every process: CRC-32 of its UTF-8, modulo 256."""
    return crc32(key.encode()) % BUCKETS


class State:
    """Keys and their newest versions, deletions included.

    Attributes:
        forgotten_seq: The newest deletion that was forgotten here; 0 if none was.

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
        self.forgotten_seq = 0
        # Of each key whose newest version is not settled: the newest settled one, if there is one,
        # and that which covers it.
        self._beneath: dict[str, tuple[Version | None, Version]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets))

    @property
    def has_unsettled(self) -> bool:
        """True if versions may fall when an epoch begins."""
        return bool(self._beneath)

    @property
    def noted_deletions(self) -> int:
        """Number of the deletions that are still to be forgotten, those of no effect included."""
        return len(self._deletions)

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

    def apply_unsettled(self, entry: Entry) -> None:
        """Takes an entry that may have to be taken back: ``settle`` or ``revert`` follows."""
        if entry.operation in _CHANGES_A_KEY:
            self._cover(entry.key, Version(entry.value, entry.epoch, entry.seq))
        else:
            for change in entry.changes:
                self._cover(change.key, Version(change.value, entry.epoch, entry.seq))

    def _cover(self, key: str, version: Version) -> None:
        held = self._put(key, version)
        if held is _OLDER:
            return
        beneath = self._beneath
        covered = beneath.get(key)
        beneath[key] = (held if covered is None else covered[0], version)

    def settle(self, entries: Iterable[Entry]) -> None:
        """Notes that entries which were applied before are settled; they settle in their order."""
        beneath = self._beneath
        for entry in entries:
            if entry.operation not in _CHANGES_A_KEY:
                for change in entry.changes:
                    if change.key in beneath:
                        self._settle(change.key, Version(change.value, entry.epoch, entry.seq))
            elif (covered := beneath.get(entry.key)) is not None:
                if covered[1].seq == entry.seq and covered[1].epoch == entry.epoch:  # mostly
                    del beneath[entry.key]
                else:
                    self._settle(entry.key, Version(entry.value, entry.epoch, entry.seq))

    def install_settled(self, key: str, version: Version) -> None:
        """Takes a version of a key that is settled, as those of a snapshot are."""
        self._put(key, version)
        if key in self._beneath:
            self._settle(key, version)

    def _settle(self, key: str, version: Version) -> None:
        below, newest = self._beneath[key]
        position = version.epoch, version.seq
        if (newest.epoch, newest.seq) <= position:
            del self._beneath[key]
        elif below is None or (below.epoch, below.seq) < position:
            self._beneath[key] = (version, newest)

    def revert(self) -> None:
        """Takes back all that is not settled."""
        for key, (below, _) in self._beneath.items():
            self._remove(key)
            if below is not None:
                self._put(key, below)
        self._beneath.clear()

    def install(self, key: str, version: Version) -> bool:
        """Takes a version of a key, unless that or a newer one is there already.

        Returns:
            Whether it was taken.
        """
        return self._put(key, version) is not _OLDER

    def _put(self, key: str, version: Version) -> Version | None:
        """Takes a version; returns what was there before, or ``_OLDER`` if it was not taken."""
        checksum = crc32(key.encode())
        bucket = checksum % BUCKETS
        versions = self._buckets[bucket]
        held = versions.get(key)
        if held is None:
            self._sums[bucket] += _fingerprint(checksum, version)
        elif (version.epoch, version.seq) <= (held.epoch, held.seq):
            return _OLDER
        else:
            self._sums[bucket] += _fingerprint(checksum, version) - _fingerprint(checksum, held)
            self._tombstones -= held.value is None
        versions[key] = version
        if version.value is None:
            self._tombstones += 1
            self._deletions.append((key, version))
        return held

    def _remove(self, key: str) -> None:
        checksum = crc32(key.encode())
        bucket = checksum % BUCKETS
        version = self._buckets[bucket].pop(key)
        self._sums[bucket] -= _fingerprint(checksum, version)
        self._tombstones -= version.value is None

    def read(self, key: str) -> Version | None:
        """Returns the newest version of a key; its value is None after a deletion."""
        return self._buckets[bucket_of(key)].get(key)

    def values(self) -> dict[str, str]:
        """Returns all keys that have a value, with it."""
        return {
            key: version.value
            for versions in self._buckets
            for key, version in versions.items()
            if version.value is not None and key != CONFIG_KEY
        }

    def older(self, seq: int) -> Iterator[tuple[str, Version]]:
        """Yields the keys whose newest version is at or below a position, with that version."""
        for versions in self._buckets:
            for key, version in versions.items():
                if version.seq <= seq and key != CONFIG_KEY:
                    yield key, version

    @property
    def keys(self) -> int:
        """How many keys have a value."""
        return len(self) - self._tombstones - (self.read(CONFIG_KEY) is not None)

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
        versions = self._buckets[number].copy()
        versions.pop(CONFIG_KEY, None)
        return versions

    def settled_chunks(
        self, max_keys: int, max_chars: int, since: int = 0
    ) -> Iterator[tuple[int, dict[str, Version], bool]]:
        """Yields parts as ``bucket_chunks`` does, with settled versions, and the configuration.

        Args:
            max_keys: Keys per part at most.
            max_chars: Characters per part, which only a single larger key may exceed.
            since: Only versions above this position.
        """
        for bucket, part, ends_bucket in self._chunks(max_keys, max_chars, since):
            beneath = self._beneath
            settled = {
                key: beneath[key][0] if key in beneath else version for key, version in part.items()
            }
            kept = {
                key: version
                for key, version in settled.items()
                if version is not None and version.seq > since
            }
            yield bucket, kept, ends_bucket

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
        for bucket, part, ends_bucket in self._chunks(max_keys, max_chars):
            part.pop(CONFIG_KEY, None)
            yield bucket, part, ends_bucket

    def _chunks(
        self, max_keys: int, max_chars: int, since: int = 0
    ) -> Iterator[tuple[int, dict[str, Version], bool]]:
        for bucket, versions in enumerate(self._buckets):
            keys = [key for key, version in versions.items() if version.seq > since]
            start = 0
            while True:
                stop = _end_of_part(keys, start, versions, max_keys, max_chars)
                # Deletions may have been forgotten since the keys were listed.
                part = {key: versions[key] for key in keys[start:stop] if key in versions}
                yield bucket, part, stop == len(keys)
                if stop == len(keys):
                    break
                start = stop

    def drop_missing(self, bucket: int, present: set[str], seq: int) -> list[str]:
        """Removes from a bucket what a snapshot no longer holds.

        Args:
            bucket: Its number.
            present: The keys of that bucket in the snapshot.
            seq: The snapshot's position: versions above stay.

        Returns:
            The keys of which a committed version was removed. One that has a newer version, which
            is not settled, still shows that.
        """
        beneath = self._beneath
        gone: list[str] = []
        dropped: list[str] = []
        for key, version in self._buckets[bucket].items():
            if key in present:
                continue
            if version.seq <= seq:
                gone.append(key)
                continue
            below, _ = beneath.get(key, (None, version))
            if below is not None and below.seq <= seq:
                beneath[key] = (None, version)
                dropped.append(key)
        for key in gone:
            self._remove(key)
            beneath.pop(key, None)
        return gone + dropped

    def forget_deletions(self, seq: int) -> list[str]:
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
                if deletion.seq > seq:
                    break
                del versions[key]
                self._tombstones -= 1
                self.forgotten_seq = max(self.forgotten_seq, deletion.seq)
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
