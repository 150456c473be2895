"""What other nodes answer to who wants to lead: nothing of it is believed that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_app.addresses import base_url
from kv_app.bounds import MAX_SEQ, MAX_SHOWN_CHARS, MAX_URL_CHARS, shown
from kv_app.errors import NotEnoughSurvivorsError, OutbidError, ProtocolViolationError
from kv_app.failover.calls import Answer, Fetched, Probed, Question, Recall, Seal, Sealed
from kv_app.failover.merging import split
from kv_app.log import to_ranges
from kv_app.messages import Entry, Hello, LeaderMessage, Operation, SeqRange
from kv_app.meta import Config, Member, Promise
from kv_app.peer_checks import check_answer, check_fetched, check_ranges
from kv_app.promoter import Wish, promote
from tests.kv_app.fake_leader import hello, put
from tests.kv_app.fake_peers import base_of, make_cluster, url_of
from tests.kv_app.fakes import encode, run

if TYPE_CHECKING:
    from collections.abc import Callable


# --- ranges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ranges",
    [
        [SeqRange(5, 4)],
        [SeqRange(1, 2)],
        [SeqRange(3, 11)],
        [SeqRange(3, 4), SeqRange(4, 5)],
        [SeqRange(6, 7), SeqRange(3, 4)],
        [SeqRange(3, 10)] * 1_000,
    ],
    ids=["descending", "too low", "too high", "overlapping", "not ascending", "again and again"],
)
def test_ranges_that_do_not_ascend_within_their_bounds_are_refused(ranges: list[SeqRange]) -> None:
    """What walks over them would else do so for hours, or fill the memory."""
    with pytest.raises(ProtocolViolationError, match="ranges that have to ascend, from 3 to 10"):
        check_ranges(ranges, above=2, upto=10)


@given(st.sets(st.integers(3, 40)))
def test_ranges_of_any_positions_are_taken(seqs: set[int]) -> None:
    """All that a node that works can say."""
    check_ranges(to_ranges(sorted(seqs)), above=2, upto=40)


def seqs_of(ranges: list[SeqRange]) -> list[int]:
    """Returns all positions in some ranges, in their order."""
    return [seq for span in ranges for seq in range(span.first, span.last + 1)]


positions = st.sets(st.integers(1, 20))


@given(positions, positions)
def test_positions_are_split_into_those_that_are_held_and_the_others(
    wanted: set[int], held: set[int]
) -> None:
    """As ranges, whose number has nothing to do with how far apart their ends are."""
    found, missing = split(to_ranges(sorted(wanted)), to_ranges(sorted(held)))
    assert seqs_of(found) == sorted(wanted & held)
    assert seqs_of(missing) == sorted(wanted - held)


def test_ranges_without_end_are_split_at_once() -> None:
    """What a node says that it holds is never listed position by position."""
    found, missing = split([SeqRange(1, MAX_SEQ)], [SeqRange(5, 1 << 61)])
    assert found == [SeqRange(5, 1 << 61)]
    assert missing == [SeqRange(1, 4), SeqRange((1 << 61) + 1, MAX_SEQ)]


# --- texts --------------------------------------------------------------------------------------

HOSTILE = ["x\n2026-01-01 CRITICAL forged", "\x1b[2J", "\x9b2J", "a\u202eb", "\u2028", "n" * 129]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["cluster_id", "leader_id", "leader_url", "attempt"])
def test_hello_whose_texts_could_forge_lines_of_the_log_is_no_message(
    field: str, text: str
) -> None:
    """They are logged, and handed on to clients."""
    text = f"http://{text * 5}:1" if field == "leader_url" else text
    wrong: Hello = msgspec.structs.replace(hello(), **{field: text})
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encode(wrong), type=LeaderMessage)


@pytest.mark.parametrize(
    "url",
    ["", "u", "https://a:1", "http://", "http://a/b", "http://u@a", "http://a b", "ftp://a", "//a"],
)
def test_hello_with_a_url_that_is_none_is_no_message(url: str) -> None:
    """Clients are sent there."""
    wrong = msgspec.structs.replace(hello(), leader_url=url)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encode(wrong), type=LeaderMessage)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://[::1]:1", "http://bücher.example:80"]
)
def test_url_that_a_setting_may_have_is_taken_from_a_leader_too(url: str) -> None:
    """What a node is told at its start it must be able to tell others."""
    assert base_url(url) == url
    sent = msgspec.structs.replace(hello(), leader_url=url)
    assert msgspec.msgpack.decode(encode(sent), type=LeaderMessage) == sent


@pytest.mark.parametrize(
    "url", [f"http://{'a.' * MAX_URL_CHARS}", "http://a\u202eb:1", "http://a\x1b"]
)
def test_url_that_others_would_not_take_is_no_setting(url: str) -> None:
    """Else the node would start, and be refused by all others."""
    with pytest.raises(ValueError, match=r"http|idna"):
        base_url(url)


@given(st.text(max_size=2 * MAX_SHOWN_CHARS))
def test_text_of_another_node_is_shown_in_one_line_of_bounded_length(text: str) -> None:
    """Whatever it holds."""
    assert shown(text).isprintable()
    assert len(shown(text)) <= 12 * MAX_SHOWN_CHARS


# --- answers ------------------------------------------------------------------------------------

MEMBERS = tuple(Member(f"n{number}", url_of(number)) for number in range(3))
BASE = base_of(1, 3)
SEALED = Sealed("n1", "life", BASE, None, 0, 0, 2, 1, 3, [SeqRange(5, 6)])
PROBED = Probed("n1", "c1", 1, BASE, None, 0, 0, 3, 6, 1, False, None, "life")  # noqa: FBT003  as on the wire

WRONG_SEALED: list[dict[str, Any]] = [
    {"above": [SeqRange(4, 6)]},
    {"above": [SeqRange(6, 5)]},
    {"above": [SeqRange(5, 6)] * 2},
    {"above": [SeqRange(5, 1 << 63)]},
    {"contiguous": 1 << 63},
    {"contiguous": -1},
    {"contiguous": 1},
    {"settled": 4},
    {"settled": 0},
    {"start": 3},
    {"start": 1 << 61},
    {"node_id": ""},
    {"node_id": "x\n"},
    {"incarnation": "i" * 129},
    {"config": Config(MEMBERS, 3, 1, 1)},
    {"config": Config(MEMBERS, 1, 64, 1)},
    {"config": Config(MEMBERS * 2, 1, 1, 1)},
    {"config": Config((), 0, 0, 0)},
    {"config": Config((*MEMBERS, Member("x", "file:///etc")), 1, 1, 1)},
    {"config": Config(tuple(Member("x", url_of(n)) for n in range(66)), 1, 1, 1)},
    {"base": msgspec.structs.replace(BASE, forced=2)},
    {"base": msgspec.structs.replace(BASE, position=1 << 63)},
    {"base": msgspec.structs.replace(BASE, leader_id="")},
    {"base": msgspec.structs.replace(BASE, founders={url_of(n): "x" for n in range(65)})},
]
WRONG_PROBED: list[dict[str, Any]] = [
    {"contiguous": 7},
    {"promised": 0},
    {"promised": 1 << 63},
    {"cluster_id": ""},
    {"cluster_id": "", "base": None},
    {"holes": -1},
    {"leader_url": "javascript:alert(1)"},
    {"base": msgspec.structs.replace(BASE, epoch=2)},
    {"config": Config(MEMBERS, 1, 1, 3)},
]


@pytest.mark.parametrize(
    ("answer", "change"),
    [(SEALED, change) for change in WRONG_SEALED] + [(PROBED, change) for change in WRONG_PROBED],
    ids=lambda one: type(one).__name__ if isinstance(one, Answer) else str(one)[:60],
)
def test_answer_that_cannot_be_is_refused(answer: Any, change: dict[str, Any]) -> None:
    """By its types, or by what its fields say together; as it is, it is taken."""
    check_answer(arrived(answer))
    with pytest.raises((msgspec.ValidationError, ProtocolViolationError)):
        check_answer(arrived(msgspec.structs.replace(answer, **change)))


def arrived(answer: Any) -> Any:
    """Returns an answer as it comes out of the wire."""
    return msgspec.msgpack.decode(encode(answer), type=Answer)


@pytest.mark.parametrize(
    "question",
    [
        Seal("c1", Promise(1 << 63, "n1", "a")),
        Seal("c1", Promise(1, "x\n", "a")),
        Seal("c" * 129, Promise(1, "n1", "a")),
        Recall("c1", "n1", ("file:///etc/passwd",)),
        Recall("c1", "n1", tuple(url_of(number) for number in range(66))),
    ],
)
def test_question_that_cannot_be_is_no_message(question: Any) -> None:
    """What a node is asked is bounded like what it is answered."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encode(question), type=Question)


@pytest.mark.parametrize(
    "entries",
    [
        [put(1)],
        [put(3), put(3)],
        [put(3), put(2)],
        [put(6)],
        [put(3), put(12)],
        [put(3, epoch=2)],
        [Entry(1, 3, int(Operation.DELETE), "k", "v", None)],
    ],
    ids=["before", "twice", "descending", "between", "behind", "of a later epoch", "impossible"],
)
def test_entries_that_were_not_asked_for_are_refused(entries: list[Entry]) -> None:
    """A node that hands over others than it was asked for would be asked for ever."""
    asked = [SeqRange(2, 4), SeqRange(8, 9)]
    check_fetched([put(2), put(4), put(8), put(9)], asked, 1)
    with pytest.raises(ProtocolViolationError, match="not asked for"):
        check_fetched(entries, asked, 1)


# --- attempts to lead among nodes that tell nonsense ----------------------------------------------


def lying(kind: type, change: Callable[[Any], Answer]) -> Callable[[str, Answer], Answer]:
    """Returns a lie of the third member about one kind of answer."""
    return lambda url, answer: (
        change(answer) if url == url_of(3) and isinstance(answer, kind) else answer
    )


def replaced(**fields: Any) -> Callable[[Any], Answer]:
    """Returns a lie that changes some fields."""
    return lambda answer: msgspec.structs.replace(answer, **fields)


@pytest.mark.parametrize(
    "lie",
    [
        lying(Sealed, replaced(above=[SeqRange(10, MAX_SEQ), SeqRange(1, 2)])),
        lying(Sealed, replaced(settled=MAX_SEQ)),
        lying(Sealed, replaced(base=base_of(MAX_SEQ, 4))),
        lying(Probed, replaced(cluster_id="", promised=MAX_SEQ, base=None)),
        lying(Probed, replaced(contiguous=MAX_SEQ)),
    ],
    ids=["ranges", "settled", "base", "stranger's promise", "contiguous"],
)
def test_node_whose_answer_cannot_be_is_as_one_that_does_not_answer(
    lie: Callable[[str, Answer], Answer],
) -> None:
    """The others are enough, and the new epoch begins with what they hold."""

    async def check() -> None:
        members, peers = make_cluster(4)
        members[1].hold(put(1))
        members[2].hold(put(1), put(2))
        members[0].replica.save(incarnation="its life")
        peers.lie = lie
        done = await promote(members[1].respondent, peers, Wish())
        assert (done.base.epoch, done.base.position) == (2, 2)
        assert members[1].held == [(1, 1), (1, 2)]

    run(check)


def test_positions_that_nobody_holds_are_filled_up_only_as_many_as_a_log_may_have() -> None:
    """Each no-op takes memory, and one number of a node that lies stands for any number of them."""

    async def check() -> None:
        members, peers = make_cluster(4)
        members[1].hold(put(1))
        peers.lie = lying(Sealed, replaced(above=[SeqRange(1 << 40, 1 << 40)]))
        with pytest.raises(NotEnoughSurvivorsError, match="raise LOG_ENTRIES"):
            await promote(members[1].respondent, peers, Wish())

    run(check)


@pytest.mark.parametrize(
    "entries",
    [[put(1)], [put(2), put(2)], [put(3)], [put(2, epoch=9)]],
    ids=["below", "twice", "another", "of a later epoch"],
)
def test_attempt_ends_when_a_node_hands_over_what_it_was_not_asked_for(
    entries: list[Entry],
) -> None:
    """Instead of asking for ever, or taking what it does not know to be of the merged log."""

    async def check() -> None:
        members, peers = make_cluster(4)
        members[1].hold(put(1))
        members[3].hold(put(1), put(2))
        peers.lie = lying(Fetched, lambda _: Fetched(entries))
        with pytest.raises(OutbidError, match="not asked for"):
            await promote(members[1].respondent, peers, Wish())
        assert members[1].held == [(1, 1)]

    run(check)
