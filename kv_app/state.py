"""What a replica holds: per key its newest version. Pure.

Replicas apply last-writer-wins per key by position ``(epoch, seq)``, so entries may arrive in any
order and more than once, and all replicas that hold the same entries show the same.
"""

from collections.abc import Iterator

from kv_app.messages import Entry, Operation, Version

_CHANGES_A_KEY = frozenset({int(Operation.PUT), int(Operation.DELETE)})


class State:
    """Keys and their newest versions, deletions included.

    Invariant: within an epoch the version of a key never decreases.
    """

    def __init__(self) -> None:
        self._versions: dict[str, Version] = {}

    def __len__(self) -> int:
        return len(self._versions)

    def apply(self, entry: Entry) -> None:
        """Takes an entry; it is ignored if a newer one of its key is there already."""
        if entry.operation in _CHANGES_A_KEY:
            self.install(entry.key, Version(entry.value, entry.epoch, entry.seq))

    def install(self, key: str, version: Version) -> None:
        """Takes a version of a key, unless a newer one is there already."""
        held = self._versions.get(key)
        if held is None or (version.epoch, version.seq) > (held.epoch, held.seq):
            self._versions[key] = version

    def read(self, key: str) -> Version | None:
        """Returns the newest version of a key; its value is None after a deletion."""
        return self._versions.get(key)

    def chunks(self, max_keys: int, max_chars: int) -> Iterator[dict[str, Version]]:
        """Yields the whole state in parts, deletions included.

        The state may change between two parts: each part holds the versions of its own moment, and
        keys that came after the first part are left out.

        Args:
            max_keys: Keys per part at most.
            max_chars: Characters per part, which only a single larger key may exceed.
        """
        part: dict[str, Version] = {}
        chars = 0
        for key in list(self._versions):
            version = self._versions[key]
            size = len(key) + len(version.value or "")
            if part and (len(part) == max_keys or chars + size > max_chars):
                yield part
                part, chars = {}, 0
            part[key] = version
            chars += size
        if part:
            yield part

    def values(self) -> dict[str, str]:
        """Returns all keys that have a value, with it."""
        return {
            key: version.value
            for key, version in self._versions.items()
            if version.value is not None
        }
