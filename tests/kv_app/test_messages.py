"""The wire format of the replication channel: whole round trips, and its bytes pinned."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app.messages import (
    PROTOCOL_VERSION,
    Ack,
    CaughtUp,
    Entries,
    Entry,
    FollowerMessage,
    Heartbeat,
    Hello,
    LeaderMessage,
    Operation,
    RawEntries,
    Refusal,
    SeqRange,
    SnapshotChunk,
    SnapshotEnd,
    Version,
    Welcome,
)

encode = msgspec.msgpack.Encoder().encode
numbers = st.integers(min_value=0, max_value=2**63 - 1)
texts = st.text(max_size=8)
entries = st.builds(
    Entry, numbers, numbers, st.sampled_from(Operation).map(int), texts, *[st.none() | texts] * 2
)
versions = st.builds(Version, st.none() | texts, numbers, numbers)
spans = st.lists(st.builds(SeqRange, numbers, numbers), max_size=4)

from_leader = st.one_of(
    st.builds(Hello, numbers, texts, numbers, texts, texts, numbers),
    st.builds(Entries, st.lists(entries, max_size=4)),
    st.builds(Heartbeat, numbers, numbers),
    st.builds(SnapshotChunk, st.dictionaries(texts, versions, max_size=4)),
    st.builds(SnapshotEnd, numbers, numbers),
)
from_follower = st.one_of(
    st.builds(Welcome, texts, texts, texts, numbers, numbers, spans),
    st.builds(Ack, spans),
    st.builds(CaughtUp, numbers),
    st.builds(Refusal, texts),
)


@given(from_leader)
def test_message_of_the_leader_arrives_as_it_was_sent(message: Any) -> None:
    """Type and every field survive the wire."""
    arrived = msgspec.msgpack.decode(encode(message), type=LeaderMessage)
    assert type(arrived) is type(message)
    assert arrived == message


@given(from_follower)
def test_message_of_the_follower_arrives_as_it_was_sent(message: Any) -> None:
    """Type and every field survive the wire."""
    arrived = msgspec.msgpack.decode(encode(message), type=FollowerMessage)
    assert type(arrived) is type(message)
    assert arrived == message


@given(st.lists(entries, max_size=5))
def test_entries_encoded_one_by_one_arrive_as_a_batch(batch: list[Entry]) -> None:
    """An entry is encoded once for all links, and a batch of those is the same message."""
    raw = encode(RawEntries([msgspec.Raw(encode(entry)) for entry in batch]))
    assert raw == encode(Entries(batch))
    assert msgspec.msgpack.decode(raw, type=LeaderMessage) == Entries(batch)


ENTRY = Entry(1, 2, int(Operation.PUT), "k", "v", None)
GOLDEN = [
    (Hello(1, "c", 2, "n", "u", 3), [1, 1, "c", 2, "n", "u", 3]),
    (Entries([ENTRY]), [2, [[1, 2, 1, "k", "v", None]]]),
    (Heartbeat(5, 4), [3, 5, 4]),
    (SnapshotChunk({"k": Version(None, 1, 2)}), [4, {"k": [None, 1, 2]}]),
    (SnapshotEnd(9, 1), [5, 9, 1]),
    (
        Welcome("n", "s", "c", 1, 2, [SeqRange(4, 5)]),
        [1, "n", "s", "c", 1, 2, [[4, 5]]],
    ),
    (Ack([SeqRange(1, 3)]), [2, [[1, 3]]]),
    (CaughtUp(7), [3, 7]),
    (Refusal("why"), [4, "why"]),
]


@pytest.mark.parametrize(("message", "plain"), GOLDEN, ids=lambda value: type(value).__name__)
def test_message_on_the_wire_is_the_array_of_its_fields(message: Any, plain: list[object]) -> None:
    """Tag and field order are the format; a change of them needs a new protocol version."""
    assert PROTOCOL_VERSION == 1
    assert encode(message) == encode(plain)


def test_entry_on_the_wire_has_these_bytes() -> None:
    """One message to the byte, so that the encoding itself is pinned too."""
    assert encode(Entries([ENTRY])).hex() == "9202919601 02 01 a16b a176 c0".replace(" ", "")
    assert [int(operation) for operation in Operation] == [0, 1, 2, 3]


@pytest.mark.parametrize("message", [pair[0] for pair in GOLDEN[:5]])
def test_message_of_the_leader_cut_short_is_refused(message: Any) -> None:
    """A field that is missing is never made up."""
    tag_and_fields = msgspec.msgpack.decode(encode(message))
    with pytest.raises(msgspec.MsgspecError):
        msgspec.msgpack.decode(encode(tag_and_fields[:-1]), type=LeaderMessage)
