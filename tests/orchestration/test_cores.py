"""Cores for the nodes, and others for the generator."""

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cores import Cores, divide_cores
from orchestration.errors import UsageError


@given(st.sets(st.integers(0, 127), min_size=2, max_size=20), st.integers(1, 30))
def test_cores_are_divided_without_overlap(available: set[int], processes: int) -> None:
    """Each load process has its own core as long as the nodes keep one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil.Process, "cpu_affinity", lambda _: sorted(available), raising=False)
        cores = divide_cores(processes)
    assert sorted(cores.store + cores.generator) == sorted(available)
    assert len(cores.generator) == min(processes, len(available) - 1)


def test_one_core_cannot_be_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says what to do."""
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: [0], raising=False)
    with pytest.raises(UsageError, match="leave it out"):
        divide_cores(1)


def test_a_system_that_cannot_pin_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """MacOS has no such call."""
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    with pytest.raises(UsageError, match="this system"):
        divide_cores(1)


def test_nothing_is_pinned_unless_asked_for() -> None:
    """No cores are named by default."""
    assert Cores() == Cores((), ())
