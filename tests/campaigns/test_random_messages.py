"""Random messages are messages of the protocol, and damaged ones are other bytes."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from kv_app.messages import FollowerMessage, LeaderMessage
from tests.campaigns.random_messages import damaged, encode, random_message


@pytest.mark.parametrize("union", [LeaderMessage, FollowerMessage], ids=["leader", "follower"])
def test_every_type_of_message_is_made_and_can_be_read(union: object) -> None:
    """All types come up, and who they are addressed to would decode them."""
    random, seen = Random(1), set()
    for _ in range(500):
        message = random_message(random, union)
        assert type(msgspec.msgpack.decode(encode(message), type=union)) is type(message)
        seen.add(type(message))
    assert seen == set(union.__args__)


def test_damage_changes_the_bytes() -> None:
    """A damaged message is never the message."""
    random = Random(1)
    for _ in range(200):
        payload = encode(random_message(random, LeaderMessage))
        assert damaged(random, payload) != payload
