"""docs/api.md: its table of errors is the error tree's."""

from __future__ import annotations

from inspect import getdoc

from kv_app.errors import StoreError, all_store_errors
from tests.docs.pages import ROOT

API = ROOT / "docs" / "api.md"


def error_table() -> str:
    """The Markdown table of every error that a client can see."""
    head = "| status | code | definite | meaning |\n| --: | :-- | :-- | :-- |"
    return "\n".join([head, *(_row(error) for error in all_store_errors())])


def _row(error: type[StoreError]) -> str:
    meaning = " ".join((getdoc(error) or "").split()).replace("``", "`")
    definite = "yes" if error.definite else "**no**"
    return f"| {error.http_status} | `{error.code}` | {definite} | {meaning} |"


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
