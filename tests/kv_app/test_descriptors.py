"""The limit of open files: raised where it can be, lived with where it cannot."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from kv_app import descriptors
from kv_app.descriptors import MIN_CONNECTIONS, OWN_DESCRIPTORS, fit_connections

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeSystem = Callable[..., "FakeSystem"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
UNLIMITED = -1


class FakeSystem:
    """Stands for the module ``resource``; grants no more than ``granted`` without saying so."""

    RLIMIT_NOFILE = 7
    RLIM_INFINITY = UNLIMITED

    def __init__(self, soft: int, hard: int, granted: int) -> None:
        self.soft, self.hard, self.granted = soft, hard, granted

    def getrlimit(self, kind: int) -> tuple[int, int]:
        """As the system's."""
        assert kind == self.RLIMIT_NOFILE
        return self.soft, self.hard

    def setrlimit(self, kind: int, limits: tuple[int, int]) -> None:
        """As the system's."""
        assert kind == self.RLIMIT_NOFILE
        assert limits[1] == self.hard
        if limits[0] > self.granted:
            raise ValueError("current limit exceeds maximum limit")
        self.soft = limits[0]


@pytest.fixture
def make_system(monkeypatch: pytest.MonkeyPatch) -> MakeSystem:
    """Makes a system with these limits, which is asked from then on."""

    def make(soft: int, hard: int, granted: int = 1 << 20) -> FakeSystem:
        system = FakeSystem(soft, hard, granted)
        monkeypatch.setattr(descriptors, "resource", system)
        return system

    return make


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 4096, 1000 + 100 + OWN_DESCRIPTORS),
        (1024, UNLIMITED, 1000 + 100 + OWN_DESCRIPTORS),
        (4096, 4096, 4096),
        (UNLIMITED, UNLIMITED, UNLIMITED),
    ],
)
def test_limit_is_raised_to_what_is_needed_and_never_lowered(
    make_system: MakeSystem,
    caplog: pytest.LogCaptureFixture,
    soft: int,
    hard: int,
    raised: int,
) -> None:
    """Where the system allows it, all connections that were asked for fit, silently."""
    system = make_system(soft, hard)
    assert fit_connections(1000, 100) == 1000
    assert system.soft == raised
    assert caplog.records == []


@pytest.mark.parametrize(
    ("soft", "hard", "granted", "fitting"),
    [
        (256, 1024, 1024, 1024 - 100 - OWN_DESCRIPTORS),
        (256, 256, 256, MIN_CONNECTIONS),
        (256, UNLIMITED, 900, (10_000 + 100 + OWN_DESCRIPTORS) // 16 - 100 - OWN_DESCRIPTORS),
    ],
    ids=["hard limit", "less than the node's own", "hidden limit"],
)
def test_connections_are_fewer_where_the_system_does_not_allow_more(
    make_system: MakeSystem,
    caplog: pytest.LogCaptureFixture,
    soft: int,
    hard: int,
    granted: int,
    fitting: int,
) -> None:
    """The store's own files come first; one sentence names the setting and what to do."""
    make_system(soft, hard, granted)
    assert fit_connections(10_000, 100) == max(MIN_CONNECTIONS, fitting)
    assert len(caplog.records) == 1
    assert "MAX_CONNECTIONS=10000" in caplog.text
    assert "ulimit -n" in caplog.text


def test_connections_are_never_more_than_asked_for(make_system: MakeSystem) -> None:
    """A small setting stays as it is, however little the system allows."""
    make_system(256, 256)
    assert fit_connections(3, 100) == 3
