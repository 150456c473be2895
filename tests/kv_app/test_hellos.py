"""Whose hello a whole node follows, and what the hello may look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from kv_app.errors import ChannelError
from kv_app.meta import Role
from kv_app.node import Node
from kv_app.settings import Settings
from tests.kv_app.fake_leader import LEADER_URL, hello, run

if TYPE_CHECKING:
    from kv_app.messages import Hello


async def forming_node() -> Node:
    """Returns a leader that waits for its followers, of which none answers."""
    node = Node(Settings(node_id="n1", follower_urls=(LEADER_URL, "http://other:1")))
    node.start()
    return node


def test_leader_without_data_follows_one_of_the_nodes_that_it_was_told_of() -> None:
    """It has lost its data, and one of its followers leads meanwhile."""

    async def check() -> None:
        node = await forming_node()
        assert node.accept(hello("c1")) is node.follower
        assert node.leader is None
        await node.stop()

    run(check)


def test_leader_without_data_is_not_captured_by_the_leader_of_another_cluster() -> None:
    """A cluster of which it knows no member is not its own, whatever it says of itself."""

    async def check() -> None:
        node = await forming_node()
        stranger: Hello = msgspec.structs.replace(hello("c1"), leader_url="http://stranger:1")
        with pytest.raises(ChannelError, match="none of its FOLLOWER_URLS"):
            node.accept(stranger)
        assert node.leader is not None
        assert node.follower is None
        await node.stop()

    run(check)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (Settings(role=Role.FOLLOWER, node_id="leader"), "NODE_ID 'leader'"),
        (Settings(role=Role.FOLLOWER, advertise_url=LEADER_URL), f"ADVERTISE_URL {LEADER_URL}"),
    ],
)
def test_follower_with_its_leaders_name_or_url_follows_nobody(
    settings: Settings, name: str
) -> None:
    """The two could not be told apart: not by clients, nor by whoever is promoted."""

    async def check() -> None:
        node = Node(settings)
        node.start()
        with pytest.raises(ChannelError, match=f"^{name} is also that of its leader; give each"):
            node.accept(hello())
        await node.stop()

    run(check)
