"""What a replica tells of its data: everything, or a few numbers to compare it by."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from kv_app.api.ops import DUMP_KEYS_PER_CHUNK, digest_json, dump_json
from kv_app.bodies import DigestAnswer
from kv_app.messages import Version
from kv_app.meta import Role
from kv_app.state import State, bucket_of

if TYPE_CHECKING:
    from kv_app.node import Node

BUCKET = bucket_of("0")
# More than one part of the stream, all in one bucket; the name is a key too.
NEIGHBOURS = [key for key in map(str, range(800_000)) if bucket_of(key) == BUCKET][
    : 2 * DUMP_KEYS_PER_CHUNK + 1
]


@pytest.fixture
def state() -> State:
    """A bucket of many keys, one of them deleted, and a key elsewhere."""
    state = State()
    for seq, key in enumerate(NEIGHBOURS, start=1):
        state.install(key, Version(f"é {key}", 2, seq))
    state.install(NEIGHBOURS[3], Version(None, 2, 9_000))
    state.install("versions", Version("", 2, 9_001))
    return state


def follower_with(state: State) -> Node:
    """Returns a follower that shows a state, as far as a digest looks at it."""
    settings = SimpleNamespace(node_id="f1")
    node = SimpleNamespace(
        settings=settings, role=Role.FOLLOWER, state=state, position=lambda: (2, 9_000, 9_001)
    )
    return cast("Node", node)


def digest_of(state: State, bucket: int | None = None) -> DigestAnswer:
    """Returns what a follower with a state answers."""
    return DigestAnswer.model_validate_json(b"".join(digest_json(follower_with(state), bucket)))


def test_dump_is_the_keys_that_have_a_value(state: State) -> None:
    """However many parts it takes."""
    assert json.loads(b"".join(dump_json(state))) == state.values()
    assert b"".join(dump_json(State())) == b"{}"


def test_digest_tells_who_where_and_how_much(state: State) -> None:
    """A number per bucket, at one position, and nothing of the data."""
    answer = digest_of(state)
    assert answer == DigestAnswer(
        node_id="f1",
        role=Role.FOLLOWER,
        epoch=2,
        contiguous=9_000,
        max_seq=9_001,
        keys=len(NEIGHBOURS),
        buckets=[f"{digest:016x}" for digest in state.digests()],
    )
    assert all(len(digits) == 16 for digits in answer.buckets)


def test_digest_of_a_bucket_has_the_versions_of_its_keys(state: State) -> None:
    """Those that have a value, however many parts it takes; an empty bucket has none."""
    live = {
        key: (version.epoch, version.seq)
        for key, version in state.bucket(BUCKET).items()
        if version.value is not None
    }
    assert digest_of(state, BUCKET).versions == live
    assert NEIGHBOURS[3] not in live
    assert digest_of(State(), BUCKET).versions == {}


def test_digest_that_takes_many_turns_is_of_one_moment(state: State) -> None:
    """Writes between two parts of the answer are not in it."""
    before = digest_of(state, BUCKET)
    parts = digest_json(follower_with(state), BUCKET)
    head = next(parts)
    for key in NEIGHBOURS:
        state.install(key, Version("later", 3, 1))
    assert DigestAnswer.model_validate_json(head + b"".join(parts)) == before
