"""Random messages are messages of the protocol, and damaged ones are other bytes."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from kv_app.messages import FollowerMessage, LeaderMessage
from tests.campaigns.random_messages import damaged, encode, random_message


@pytest.mark.parametrize("union", [LeaderMessage, FollowerMessage], ids=["leader", "follower"])
def test_every_type_of_message_is_made_within_its_bounds_and_beyond(union: object) -> None:
    """All types come up; who they are addressed to would decode most of them, and refuse some."""
    random, seen, refused = Random(1), set(), 0
    for _ in range(1000):
        message = random_message(random, union)
        try:
            arrived = msgspec.msgpack.decode(encode(message), type=union)
        except msgspec.ValidationError:
            refused += 1
        else:
            assert type(arrived) is type(message)
            seen.add(type(message))
    assert seen == set(union.__args__)
    assert 50 < refused < 600


def test_damage_changes_the_bytes() -> None:
    """A damaged message is never the message."""
    random = Random(1)
    for _ in range(200):
        payload = encode(random_message(random, LeaderMessage))
        assert damaged(random, payload) != payload
