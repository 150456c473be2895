"""What a manifest says of the machine."""

from pathlib import Path

import pytest

from orchestration import manifest
from orchestration.cores import usable_cores


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file system of its own for what the kernel and the distribution tell."""
    monkeypatch.setattr(manifest, "MACHINE_ID", tmp_path / "machine-id")
    monkeypatch.setattr(manifest, "CPU_LIMIT", tmp_path / "cpu.max")
    return tmp_path


def test_machines_of_one_type_are_told_apart_without_their_ids(system: Path) -> None:
    """Two virtual machines of one type are two; the id itself, a secret to some, stays here."""
    found = []
    for text in ("1f2e3d4c\n", "5a6b7c8d\n"):
        (system / "machine-id").write_text(text)
        found.append(manifest.machine()["machine_id"])
    assert found[0] != found[1]
    assert all(len(name) == 12 and "1f2e" not in name for name in found)
    (system / "machine-id").write_text("1f2e3d4c")
    assert manifest.machine()["machine_id"] == found[0]


@pytest.mark.parametrize("text", [None, "", "uninitialized\n"])
def test_machine_without_an_id_has_none(system: Path, text: str | None) -> None:
    """Images of containers have no id, or an empty one: that makes no two machines the same."""
    if text is not None:
        (system / "machine-id").write_text(text)
    assert manifest.machine()["machine_id"] is None


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5), (None, None), ("?", None)]
)
def test_limit_of_a_container_is_part_of_the_machine(
    system: Path, text: str | None, quota: float | None
) -> None:
    """Half a core of the same processor is another machine."""
    if text is not None:
        (system / "cpu.max").write_text(text)
    assert manifest.machine()["cpu_quota"] == quota


def test_cores_are_those_that_may_be_used() -> None:
    """Cores that taskset or a cpuset keeps from the tool measured nothing."""
    assert manifest.machine()["cores"] == len(usable_cores())
