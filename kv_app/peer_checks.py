"""What another node may say beyond the types of its messages. Pure.

What is out of these bounds is no message of a node that works: its channel, or its answer, is given
up, and nothing of it is used.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from kv_app.bounds import MAX_KEY_LIMIT_BYTES, MAX_SEQ
from kv_app.errors import ProtocolViolationError
from kv_app.failover.calls import Answer, Probed, Sealed
from kv_app.messages import Change, Entry, Operation, SeqRange, Welcome
from kv_app.meta import BaseRecord, Config

# Shorter keys cannot have too many bytes: a character has at most 4.
_SAFE_KEY_CHARS: Final = MAX_KEY_LIMIT_BYTES // 4

_decode_config: Final = msgspec.json.Decoder(Config).decode


def check_ranges(ranges: Iterable[SeqRange], *, above: int, upto: int) -> None:
    """Checks that ranges ascend, do not overlap, and lie above one position and up to another.

    Raises:
        ProtocolViolationError: They do not.
    """
    last = above
    for span in ranges:
        if not last < span.first <= span.last <= upto:
            raise ProtocolViolationError(
                f"positions {span.first} to {span.last} in ranges that have to ascend, from "
                f"{above + 1} to {upto}"
            )
        last = span.last


def check_welcome(welcome: Welcome) -> None:
    """Checks what a follower says that it holds.

    Raises:
        ProtocolViolationError: No node can hold that.
    """
    _check_held(welcome.contiguous, welcome.above)
    if welcome.settled > welcome.contiguous:
        raise ProtocolViolationError(
            f"it knows up to {welcome.settled} to be committed, and holds up to "
            f"{welcome.contiguous}"
        )


def check_answer(answer: Answer) -> None:
    """Checks the answer to a question of a node that wants to lead.

    Raises:
        ProtocolViolationError: It cannot be true.
    """
    match answer:
        case Probed():
            _check_probed(answer)
        case Sealed():
            _check_sealed(answer)
        case _:
            pass


def _check_probed(probed: Probed) -> None:
    _check_configs(probed)
    if not probed.contiguous <= probed.max_seq:
        raise ProtocolViolationError(f"up to {probed.contiguous} of {probed.max_seq} held")
    if not probed.cluster_id and (probed.promised or probed.base is not None):
        raise ProtocolViolationError(f"epoch {probed.promised} promised in no cluster")
    if probed.base is not None and probed.base.epoch > probed.promised:
        raise ProtocolViolationError(
            f"the base of epoch {probed.base.epoch} held, and only {probed.promised} promised"
        )


def _check_sealed(sealed: Sealed) -> None:
    _check_configs(sealed)
    _check_held(sealed.contiguous, sealed.above)
    if not sealed.start <= sealed.settled <= sealed.contiguous:
        raise ProtocolViolationError(
            f"a log above {sealed.start}, settled up to {sealed.settled}, of {sealed.contiguous}"
        )


def _check_configs(node: Probed | Sealed) -> None:
    if node.base is not None:
        check_base(node.base)
    if node.config is not None:
        check_config(node.config)


def _check_held(contiguous: int, above: Sequence[SeqRange]) -> None:
    check_ranges(above, above=contiguous + 1, upto=MAX_SEQ)


def check_base(base: BaseRecord) -> None:
    """Checks what an epoch began with.

    Raises:
        ProtocolViolationError: None can have begun so.
    """
    check_config(base.config)
    if base.forced > base.epoch:
        raise ProtocolViolationError(f"epoch {base.forced} forced in the base of {base.epoch}")


def check_config(config: Config) -> None:
    """Checks who belongs to a cluster, and how many must acknowledge.

    Raises:
        ProtocolViolationError: No cluster can have this configuration.
    """
    urls = {member.url for member in config.members}
    most = max(config.write_quorum, config.floor, config.wanted)
    if len(urls) < len(config.members) or not most < len(urls):
        raise ProtocolViolationError(
            f"a write quorum of {most} in a cluster of {len(urls)} different nodes"
        )


def is_sound(entry: Entry) -> bool:
    """Tells if an entry has the key, the value and the changes that its operation has."""
    key, value, changes = entry.key, entry.value, entry.changes
    match entry.operation:
        case Operation.PUT:
            return is_key(key) and value is not None and not changes
        case Operation.DELETE:
            return is_key(key) and value is None and not changes
        case Operation.BATCH:
            return not key and value is None and _are_sound(changes)
        case Operation.NOOP:
            return not key and value is None and not changes
        case Operation.CONFIG:
            return not key and not changes and is_config(value)
    return False


def is_key(key: str) -> bool:
    """Tells if a text can be a client's key: not empty, and no longer than one may ever be."""
    return bool(key) and (len(key) <= _SAFE_KEY_CHARS or len(key.encode()) <= MAX_KEY_LIMIT_BYTES)


def is_config(value: str | None) -> bool:
    """Tells if the value of a record in the log is a configuration."""
    try:
        check_config(_decode_config(value or ""))
    except (msgspec.MsgspecError, RecursionError, ProtocolViolationError):
        return False
    return True


def _are_sound(changes: Sequence[Change]) -> bool:
    keys = {change.key for change in changes}
    return 0 < len(keys) == len(changes) and all(map(is_key, keys))


def check_fetched(entries: Iterable[Entry], asked: Sequence[SeqRange], epoch: int) -> None:
    """Checks entries that another node hands over.

    Args:
        entries: At least one.
        asked: Which ones were asked for, ascending.
        epoch: Of whose log they are; older entries are in it too.

    Raises:
        ProtocolViolationError: One was not asked for, does not ascend, or cannot be of that log.
    """
    spans = iter(asked)
    span = next(spans)
    last = span.first - 1
    for entry in entries:
        while entry.seq > span.last and (following := next(spans, None)) is not None:
            span = following
        if (
            not last < entry.seq
            or not span.first <= entry.seq <= span.last
            or entry.epoch > epoch
            or not is_sound(entry)
        ):
            raise ProtocolViolationError(
                f"an entry of epoch {entry.epoch}, seq {entry.seq}, operation {entry.operation} "
                "that was not asked for, or cannot be"
            )
        last = entry.seq
