"""What all unit tests of the store share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.kv_app.fakes import FakeNetwork

if TYPE_CHECKING:
    from collections.abc import Callable

# A deadline per example fails on a machine that is busy with something else.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@pytest.fixture
def make_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], FakeNetwork]:
    """Makes a network of so many followers, through which all links connect from then on."""

    def make(followers: int) -> FakeNetwork:
        network = FakeNetwork(followers)
        monkeypatch.setattr("kv_app.channel.connect", network.connect)
        return network

    return make
