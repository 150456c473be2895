"""What docs/scenarios.md says of scenario files is what can be written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import pytest

from orchestration.load.plan import KEY_CHOICES, MIXES
from orchestration.load.workload import YCSB
from orchestration.scenario import WORKLOADS
from orchestration.scenario_file import _File, read_scenario, shipped_scenarios
from tests.docs.pages import ROOT, table_after

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "scenarios.md"


def settings_of(kind: type, prefix: str = "") -> set[str]:
    """All settings that a file may have, by their full names."""
    found: set[str] = set()
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= settings_of(field.type, f"{field.name}.")
        else:
            found.add(f"{prefix}{field.name}")
    return found


def test_settings_are_those_of_a_file() -> None:
    """Every setting is in the table, and none that is not there."""
    rows = table_after(PAGE, "Settings")
    assert {name.strip(" `") for row in rows for name in row[0].split(",")} == settings_of(_File)


def test_example_can_be_run(tmp_path: Path) -> None:
    """The file that the page shows is a scenario."""
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "my-experiment.toml"
    path.write_text(text, encoding="utf-8")
    assert read_scenario(str(path)).name == "checkout"


def test_shipped_scenarios_are_named() -> None:
    """Whoever reads the page knows what comes along."""
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"[`{name}`]" in text for name in shipped_scenarios())


@pytest.mark.parametrize("mix", MIXES)
def test_workloads_are_what_the_page_says(mix: str) -> None:
    """Each mix is one that can be chosen, and its keys are the ones named."""
    assert mix in WORKLOADS
    assert YCSB[mix].key_choice in KEY_CHOICES
    assert re.search(rf"\| `{mix}` \|.*\| {YCSB[mix].key_choice} \|", PAGE.read_text("utf-8"))
