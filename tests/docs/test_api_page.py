"""docs/api.md: its table of errors is the error tree's."""

from __future__ import annotations

import re
from inspect import getdoc

from kv_app.errors import StoreError, all_store_errors
from kv_app.main import create_app
from kv_app.settings import Settings
from tests.docs.pages import ROOT, table_after

API = ROOT / "docs" / "api.md"


def error_table() -> str:
    """The Markdown table of every error that a client can see."""
    head = "| status | code | definite | meaning |\n| --: | :-- | :-- | :-- |"
    return "\n".join([head, *(_row(error) for error in all_store_errors())])


def _row(error: type[StoreError]) -> str:
    meaning = " ".join((getdoc(error) or "").split()).replace("``", "`")
    definite = "yes" if error.definite else "**no**"
    return f"| {error.http_status} | `{error.code}` | {definite} | {meaning} |"


def test_table_of_calls_has_every_call_that_a_node_answers() -> None:
    """A call that is not there is one that nobody finds, one too many is looked for in vain."""
    rows = table_after(API, "The HTTP API")
    shown = [call for row in rows for call in re.findall(r"`([A-Z]+ [^`]+)`", row[0])]
    paths = create_app(Settings()).openapi()["paths"]
    served = [f"{method.upper()} {path}" for path, calls in paths.items() for method in calls]
    assert sorted(shown) == sorted(served)


def test_error_table_is_that_of_the_error_tree() -> None:
    """Every code is there once, with its status, definiteness and meaning."""
    table = error_table()
    assert table in API.read_text(encoding="utf-8"), (
        f"docs/api.md differs from kv_app/errors.py; its table must be:\n\n{table}\n"
    )


def test_error_table_has_a_row_for_each_code() -> None:
    """The generator leaves none out and gives each its own meaning."""
    rows = error_table().splitlines()[2:]
    assert len(rows) == len(all_store_errors())
    assert len({row.split("|")[4] for row in rows}) == len(rows)
    assert any("`outcome_unknown` | **no**" in row for row in rows)
