"""docs/settings.md: its table is what the node's reader of the environment does."""

from __future__ import annotations

import dataclasses
import re

import pytest

from kv_app.errors import SettingsError
from kv_app.settings import Settings
from tests.docs.pages import ROOT, table_after

PAGE = ROOT / "docs" / "settings.md"
ROWS = {row[0].strip("`"): row for row in table_after(PAGE, "Variables")}
FOLLOWERS = "http://127.0.0.1:8001,http://127.0.0.1:8002"


class Recording(dict[str, str]):
    """An environment that notes which variables are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, key: str, default: str | None = None) -> str:  # type: ignore[override]
        """The variable's value, or the default."""
        self.asked.add(key)
        return super().get(key, default or "")


def settings(**variables: str) -> Settings:
    """What a node reads from these variables alone, without what is random."""
    return dataclasses.replace(Settings.from_environment(variables), start_id="", delay_seed=0)


def numbers(text: str) -> list[float]:
    """The numbers in a text, thousands separated or not."""
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def test_every_variable_that_a_node_reads_has_a_row() -> None:
    """And no row describes a variable that nobody reads."""
    environment = Recording()
    Settings.from_environment(environment)
    assert set(ROWS) == environment.asked


@pytest.mark.parametrize("name", ROWS)
def test_default_is_what_a_node_takes_without_the_variable(name: str) -> None:
    """Setting a variable to its documented default changes nothing."""
    literal = re.match(r"`([^`]+)`", ROWS[name][1])
    if literal is None:
        assert ROWS[name][1] in {"empty", "unset", "random"}
    else:
        assert settings(**{name: literal[1]}) == settings()


def test_defaults_that_follow_another_setting_do() -> None:
    """Three defaults depend on what else is set, as their rows say."""
    assert "else `1`" in ROWS["WRITE_QUORUM"][1]
    assert settings(FOLLOWER_URLS=FOLLOWERS).write_quorum == 1
    assert "`HOST` and `PORT`" in ROWS["ADVERTISE_URL"][3]
    assert settings(HOST="127.0.0.2", PORT="81").advertise_url == "http://127.0.0.2:81"
    assert "`MAX_IN_FLIGHT` if that is larger" in ROWS["LOG_ENTRIES"][1]
    assert settings(MAX_IN_FLIGHT="200000").log_entries == 200_000


@pytest.mark.parametrize("name", ROWS)
def test_bounds_are_those_that_a_refusal_names(name: str) -> None:
    """A bad value is refused with the very bounds or choices that the row gives."""
    bounds = ROWS[name][2]
    try:
        settings(**{name: "no such value"})
    except SettingsError as refusal:
        _, limited, allowed = str(refusal).partition("number from ")
        if limited:
            assert numbers(bounds) == numbers(allowed.rstrip("."))
        _, listed, choices = str(refusal).partition(" one of ")
        if listed:
            assert set(re.findall(r"\w+", choices)) == set(re.findall(r"`(\w+)`", bounds))
    else:
        assert name in {"NODE_ID", "START_ID", "HOST", "CLUSTER_TOKEN", "DATA_DIR"}
