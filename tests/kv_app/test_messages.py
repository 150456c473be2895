"""The wire format of the replication channel: whole round trips, and its bytes pinned."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from kv_app.messages import (
    CLOSE_REFUSED,
    MAX_CLOSE_REASON_BYTES,
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
    close_reason,
)
from kv_app.meta import BaseRecord, Config, Member

encode = msgspec.msgpack.Encoder().encode
numbers = st.integers(min_value=0, max_value=2**62)
places = st.integers(min_value=1, max_value=2**62)
quorums = st.integers(min_value=0, max_value=64)
texts = st.text(max_size=8)
labels = st.text(alphabet="ab é😀", max_size=8)
names = st.text(alphabet="ab é😀", min_size=1, max_size=8)
urls = st.sampled_from(["http://a:1", "http://[::1]:80", "http://leader.example"])
digests = st.binary(max_size=16)
changes = st.lists(st.builds(Change, texts, st.none() | texts), max_size=3).map(tuple)
entries = st.builds(
    Entry,
    places,
    places,
    st.sampled_from(Operation).map(int),
    texts,
    *[st.none() | texts] * 2,
    changes,
)
versions = st.builds(Version, st.none() | texts, numbers, numbers)
raw_versions = st.dictionaries(texts, versions, max_size=4).map(
    lambda some: msgspec.Raw(encode(some))
)
remembered = st.builds(RememberedWrite, texts, digests, places, places)
members = st.lists(st.builds(Member, labels, urls), max_size=3).map(tuple)
configs = st.builds(Config, members, quorums, quorums, quorums)
spans = st.lists(st.builds(SeqRange, places, places), max_size=4)

from_leader = st.one_of(
    st.builds(Hello, numbers, names, numbers, names, urls, numbers, labels, st.booleans()),
    st.builds(Entries, st.lists(entries, max_size=4), numbers),
    st.builds(Heartbeat, numbers, numbers),
    st.builds(SnapshotBegin, numbers, numbers),
    st.builds(SnapshotChunk, numbers, st.booleans(), raw_versions, digests),
    st.builds(SnapshotKeys, st.lists(remembered, max_size=3)),
    st.builds(SnapshotEnd, digests),
    st.builds(Base, st.builds(BaseRecord, numbers, names, labels, configs, numbers), labels),
    st.builds(Replace, numbers),
    st.builds(Confirm, numbers),
)
from_follower = st.one_of(
    st.builds(
        Welcome,
        names,
        labels,
        labels,
        numbers,
        numbers,
        spans,
        labels,
        numbers,
        st.booleans(),
        numbers,
    ),
    st.builds(Ack, spans),
    st.builds(CaughtUp, numbers),
    st.builds(Refusal, texts, numbers, labels),
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


CONFIG = Config((Member("a", "http://a"),), 1, 1, 2)
ENTRY = Entry(1, 2, int(Operation.PUT), "k", "v", None)
BATCH = Entry(1, 3, int(Operation.BATCH), "", None, "i", (Change("a", "1"), Change("b", None)))
VERSIONS = {"k": Version(None, 1, 2)}
FROM_LEADER = [
    (
        Hello(2, "c", 2, "n", "http://u:1", 3, "a", is_formed=False),
        [1, 2, "c", 2, "n", "http://u:1", 3, "a", False],
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
    (SnapshotBegin(9, 7), [4, 9, 7]),
    (
        SnapshotChunk(7, True, msgspec.Raw(encode(VERSIONS)), b"d"),  # noqa: FBT003  its field order
        [5, 7, True, {"k": [None, 1, 2]}, b"d"],
    ),
    (SnapshotKeys([RememberedWrite("i", b"f", 1, 2)]), [6, [["i", b"f", 1, 2]]]),
    (SnapshotEnd(b"d"), [7, b"d"]),
    (
        Base(
            BaseRecord(2, "a", "b", CONFIG, 7, 1, {"http://u:1": "i"}),
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
                "founders": {"http://u:1": "i"},
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
    (Refusal("why", 3, "c"), [4, "why", 3, "c"]),
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
    assert PROTOCOL_VERSION == 4
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


def test_refusal_of_a_node_of_an_earlier_version_says_why() -> None:
    """It sends no cluster; without its reason nobody would know that it has to be updated."""
    told = encode([4, "this node speaks version 3 of the protocol, not 4", 0])
    message = msgspec.msgpack.decode(told, type=FollowerMessage)
    assert message == Refusal("this node speaks version 3 of the protocol, not 4", 0, "")


@pytest.mark.parametrize(
    "message", [message for message, _ in FROM_FOLLOWER if not isinstance(message, Refusal)]
)
def test_message_of_the_follower_cut_short_is_refused(message: Any) -> None:
    """A field that is missing is never made up."""
    tag_and_fields = msgspec.msgpack.decode(encode(message))
    with pytest.raises(msgspec.MsgspecError):
        msgspec.msgpack.decode(encode(tag_and_fields[:-1]), type=FollowerMessage)


@given(st.text(max_size=200))
@example("\u00e9" * 128)
def test_reason_of_a_close_fits_into_its_frame(reason: str) -> None:
    """It is counted in bytes; where it has to be cut, no character is cut in two."""
    cut = close_reason(reason)
    assert reason.startswith(cut)
    Frame(Opcode.CLOSE, Close(CLOSE_REFUSED, cut).serialize()).check()
    if len(reason.encode()) <= MAX_CLOSE_REASON_BYTES:
        assert cut == reason
    else:
        assert len(cut.encode()) > MAX_CLOSE_REASON_BYTES - 4
