"""docs/operations.md: its metrics and exit codes are those of the code."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from kv_app.api.metrics import PREFIX, NodeCollector
from kv_app.follower import MAX_UNSYNCED_BYTES
from kv_app.main import EXIT_USAGE
from kv_app.meta import Role
from kv_app.node import EXIT_STORAGE, Node
from kv_app.settings import Settings
from tests.docs.pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
ROLES = {"both", "leader", "follower", "with `DATA_DIR`"}


def metrics_of(role: Role, data_dir: Path | None) -> set[str]:
    """Returns the names of all that a node in a role tells."""

    async def collect() -> set[str]:
        urls = ("http://f1:1",) if role is Role.LEADER else ()
        node = Node(Settings(role=role, data_dir=data_dir, follower_urls=urls))
        node.start()
        families = list(NodeCollector(node).collect())
        await node.stop()
        return {family.name + "_total" * (family.type == "counter") for family in families}

    return asyncio.run(collect())


def test_metrics_on_the_page_are_those_that_each_role_has(tmp_path: Path) -> None:
    """None is missing, none is invented, and each is said to be where it is."""
    rows = re.findall(r"^\| `(quorumeter_\w+)` \| ([^|]+) \| ", PAGE, re.MULTILINE)
    shown = dict(rows)
    assert len(shown) == len(rows)
    assert set(shown.values()) <= ROLES
    leads, follows = (metrics_of(role, None) for role in (Role.LEADER, Role.FOLLOWER))
    on_disk = metrics_of(Role.LEADER, tmp_path / "l") - leads
    assert metrics_of(Role.FOLLOWER, tmp_path / "f") - follows == on_disk
    told = dict.fromkeys(on_disk, "with `DATA_DIR`")
    told |= dict.fromkeys(leads & follows, "both")
    told |= dict.fromkeys(leads - follows, "leader") | dict.fromkeys(follows - leads, "follower")
    assert shown == told


def test_queries_and_alerts_ask_for_metrics_that_there_are(tmp_path: Path) -> None:
    """A name that is mistyped would never raise an alarm."""
    known = metrics_of(Role.LEADER, tmp_path / "l") | metrics_of(Role.FOLLOWER, None)
    used = set(re.findall(rf"\b{PREFIX}\w+", PAGE))
    parts = {f"{name}{part}" for name in known for part in ("_bucket", "_sum", "_count")}
    assert used - known - parts == set()


@pytest.mark.parametrize("code", [EXIT_USAGE, EXIT_STORAGE])
def test_exit_codes_are_on_the_page(code: int) -> None:
    """A supervisor is told what each means."""
    assert re.search(rf"^\| {code} \| ", PAGE, re.MULTILINE)


def test_limit_in_a_sentence_is_that_of_the_code() -> None:
    """Where a follower stops to read."""
    assert f"Past {MAX_UNSYNCED_BYTES >> 20} MiB" in PAGE
