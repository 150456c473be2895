"""The wire format of the replication channel: whole round trips, and its bytes pinned."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app.messages import (
    PROTOCOL_VERSION,
    Ack,
    Base,
    BaseHeld,
    CaughtUp,
    Change,
    Confirm,
    Confirmed,
    Entries,
    Entry,
    FollowerMessage,
    Heartbeat,
    Hello,
    LeaderMessage,
    Operation,
    RawEntries,
    Refusal,
    RememberedWrite,
    Replace,
    SeqRange,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotKeys,
    Version,
    Welcome,
)
from kv_app.meta import BaseRecord, Config, Member

encode = msgspec.msgpack.Encoder().encode
numbers = st.integers(min_value=0, max_value=2**63 - 1)
texts = st.text(max_size=8)
digests = st.binary(max_size=16)
changes = st.lists(st.builds(Change, texts, st.none() | texts), max_size=3).map(tuple)
entries = st.builds(
    Entry,
    numbers,
    numbers,
    st.sampled_from(Operation).map(int),
    texts,
    *[st.none() | texts] * 2,
    changes,
)
versions = st.builds(Version, st.none() | texts, numbers, numbers)
raw_versions = st.dictionaries(texts, versions, max_size=4).map(
    lambda some: msgspec.Raw(encode(some))
)
remembered = st.builds(RememberedWrite, texts, digests, numbers, numbers)
members = st.lists(st.builds(Member, texts, texts), max_size=3).map(tuple)
configs = st.builds(Config, members, numbers, numbers, numbers)
spans = st.lists(st.builds(SeqRange, numbers, numbers), max_size=4)

from_leader = st.one_of(
    st.builds(Hello, numbers, texts, numbers, texts, texts, numbers, texts, st.booleans()),
    st.builds(Entries, st.lists(entries, max_size=4), numbers),
    st.builds(Heartbeat, numbers, numbers),
    st.builds(SnapshotBegin, numbers),
    st.builds(SnapshotChunk, numbers, st.booleans(), raw_versions, digests),
    st.builds(SnapshotKeys, st.lists(remembered, max_size=3)),
    st.builds(SnapshotEnd, digests),
    st.builds(Base, st.builds(BaseRecord, numbers, texts, texts, configs, numbers), texts),
    st.builds(Replace, numbers),
    st.builds(Confirm, numbers),
)
from_follower = st.one_of(
    st.builds(
        Welcome,
        texts,
        texts,
        texts,
        numbers,
        numbers,
        spans,
        texts,
        numbers,
        st.booleans(),
        numbers,
    ),
    st.builds(Ack, spans),
    st.builds(CaughtUp, numbers),
    st.builds(Refusal, texts, numbers),
    st.builds(BaseHeld, numbers),
    st.builds(Confirmed, numbers),
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


@given(st.lists(entries, max_size=5), numbers)
def test_entries_encoded_one_by_one_arrive_as_a_batch(batch: list[Entry], stable: int) -> None:
    """An entry is encoded once for all links, and a batch of those is the same message."""
    raw = encode(RawEntries([msgspec.Raw(encode(entry)) for entry in batch], stable))
    assert raw == encode(Entries(batch, stable))
    assert msgspec.msgpack.decode(raw, type=LeaderMessage) == Entries(batch, stable)


ENTRY = Entry(1, 2, int(Operation.PUT), "k", "v", None)
BATCH = Entry(1, 3, int(Operation.BATCH), "", None, "i", (Change("a", "1"), Change("b", None)))
VERSIONS = {"k": Version(None, 1, 2)}
FROM_LEADER = [
    (
        Hello(2, "c", 2, "n", "u", 3, "a", is_formed=False),
        [1, 2, "c", 2, "n", "u", 3, "a", False],
    ),
    (
        Entries([ENTRY, BATCH], 1),
        [
            2,
            [
                [1, 2, 1, "k", "v", None, []],
                [1, 3, 4, "", None, "i", [["a", "1"], ["b", None]]],
            ],
            1,
        ],
    ),
    (Heartbeat(5, 4), [3, 5, 4]),
    (SnapshotBegin(9), [4, 9]),
    (
        SnapshotChunk(7, True, msgspec.Raw(encode(VERSIONS)), b"d"),  # noqa: FBT003  its field order
        [5, 7, True, {"k": [None, 1, 2]}, b"d"],
    ),
    (SnapshotKeys([RememberedWrite("i", b"f", 1, 2)]), [6, [["i", b"f", 1, 2]]]),
    (SnapshotEnd(b"d"), [7, b"d"]),
    (
        Base(
            BaseRecord(2, "a", "b", Config((Member("a", "http://a"),), 1, 1, 2), 7, 1, {"u": "i"}),
            "life",
        ),
        [
            8,
            {
                "epoch": 2,
                "leader_id": "a",
                "leader_incarnation": "b",
                "config": {
                    "members": [{"node_id": "a", "url": "http://a"}],
                    "write_quorum": 1,
                    "floor": 1,
                    "wanted": 2,
                },
                "position": 7,
                "forced": 1,
                "founders": {"u": "i"},
            },
            "life",
        ],
    ),
    (Replace(4), [9, 4]),
    (Confirm(3), [10, 3]),
]
FROM_FOLLOWER = [
    (
        Welcome("n", "s", "c", 1, 2, [SeqRange(4, 5)], "life", 1, is_durable=True, settled=2),
        [1, "n", "s", "c", 1, 2, [[4, 5]], "life", 1, True, 2],
    ),
    (Ack([SeqRange(1, 3)]), [2, [[1, 3]]]),
    (CaughtUp(7), [3, 7]),
    (Refusal("why", 3), [4, "why", 3]),
    (BaseHeld(2), [5, 2]),
    (Confirmed(3), [6, 3]),
]


def test_every_message_of_the_channel_has_its_bytes_pinned() -> None:
    """A message that is added is added here too."""
    assert {type(message) for message, _ in FROM_LEADER} == set(get_args(LeaderMessage))
    assert {type(message) for message, _ in FROM_FOLLOWER} == set(get_args(FollowerMessage))


@pytest.mark.parametrize(
    ("message", "plain"), FROM_LEADER + FROM_FOLLOWER, ids=lambda value: type(value).__name__
)
def test_message_on_the_wire_is_the_array_of_its_fields(message: Any, plain: list[object]) -> None:
    """Tag and field order are the format; a change of them needs a new protocol version."""
    assert PROTOCOL_VERSION == 3
    assert encode(message) == encode(plain)


def test_entry_on_the_wire_has_these_bytes() -> None:
    """One message to the byte, so that the encoding itself is pinned too."""
    assert encode(Entries([ENTRY], 1)).hex() == "930291970102 01 a16b a176 c0 90 01".replace(
        " ", ""
    )
    assert [int(operation) for operation in Operation] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("message", [message for message, _ in FROM_LEADER])
def test_message_of_the_leader_cut_short_is_refused(message: Any) -> None:
    """A field that is missing is never made up."""
    tag_and_fields = msgspec.msgpack.decode(encode(message))
    with pytest.raises(msgspec.MsgspecError):
        msgspec.msgpack.decode(encode(tag_and_fields[:-1]), type=LeaderMessage)


@pytest.mark.parametrize("message", [message for message, _ in FROM_FOLLOWER])
def test_message_of_the_follower_cut_short_is_refused(message: Any) -> None:
    """A field that is missing is never made up."""
    tag_and_fields = msgspec.msgpack.decode(encode(message))
    with pytest.raises(msgspec.MsgspecError):
        msgspec.msgpack.decode(encode(tag_and_fields[:-1]), type=FollowerMessage)
