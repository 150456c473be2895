"""What all unit tests of the store share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kv_app.disks import memory_folder
from tests.kv_app.fakes import FakeNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the disks of a test's nodes."""
    with memory_folder() as made:
        yield made


@pytest.fixture
def make_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], FakeNetwork]:
    """Makes a network of so many followers, through which all links connect from then on."""

    def make(followers: int) -> FakeNetwork:
        network = FakeNetwork(followers)
        monkeypatch.setattr("kv_app.channel.connect", network.connect)
        return network

    return make
