"""The import walls of the ruff.toml files name every module that there is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules_of(package: str) -> set[str]:
    """The modules and packages directly below a package, by their full names."""
    folder = ROOT / package
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    return {f"{package.replace('/', '.')}.{name}" for name in files | packages}


def banned_in(folder: str) -> set[str]:
    """What the wall of a folder bans."""
    config = tomllib.loads((ROOT / folder / "ruff.toml").read_text(encoding="utf-8"))
    return set(config["lint"]["flake8-tidy-imports"]["banned-api"])


@pytest.mark.parametrize("folder", ["orchestration/load", "locustfiles"])
def test_load_side_may_import_nothing_else_of_the_orchestrator(folder: str) -> None:
    """What runs inside Locust's process sees orchestration.load and no other part."""
    assert modules_of("orchestration") - {"orchestration.load"} <= banned_in(folder)
    assert "kv_app" in banned_in(folder)


def test_orchestrator_may_import_only_the_pure_part_of_the_load_side() -> None:
    """Plans, schedules and results are plain Python; everything else brings gevent along."""
    names = ("plan", "results", "schedule", "workload")
    pure = {f"orchestration.load.{name}" for name in names}
    assert modules_of("orchestration/load") - pure <= banned_in("orchestration")
    assert {"locust", "gevent", "locustfiles", "kv_app"} <= banned_in("orchestration")


def test_store_may_import_nothing_of_the_tool() -> None:
    """kv_app knows nothing of benchmarks."""
    assert {"locust", "locustfiles", "orchestration"} <= banned_in("kv_app")
