"""docs/comparing.md: its fields, limits and verdicts are those of the code."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from orchestration import calibrating
from orchestration.analysis import noise
from orchestration.exit_codes import ExitCode
from orchestration.report import comparison, comparison_words
from orchestration.report.noise_floor import NoiseFloor
from tests.docs.pages import ROOT, table_after

PAGE = ROOT / "docs" / "comparing.md"
TEXT = " ".join(PAGE.read_text(encoding="utf-8").split())


def names_below(heading: str) -> list[str]:
    """The names in the first column of a table."""
    return [name.strip(" `") for row in table_after(PAGE, heading) for name in row[0].split(",")]


@pytest.mark.parametrize(
    ("heading", "structure"),
    [
        ("Top level of comparison.json", comparison.Comparison),
        ("A compared cell", comparison.CellComparison),
        ("A compared figure", comparison.FigureChange),
        ("noise_floor.json", NoiseFloor),
    ],
)
def test_fields_are_those_of_the_schema(heading: str, structure: type[msgspec.Struct]) -> None:
    """Each field of the files is explained, and no other."""
    fields = [field.name for field in msgspec.structs.fields(structure)]
    assert sorted(names_below(heading)) == sorted(fields)


def test_verdicts_are_all_explained() -> None:
    """Each word that a table may hold stands in the page's table."""
    assert sorted(names_below("Verdicts")) == sorted(get_args(comparison_words.Verdict))


def test_floor_sources_and_exit_codes_are_those_of_the_code() -> None:
    """What a script reads."""
    rows = {row[0].strip("`"): row[1] for row in table_after(PAGE, "A compared figure")}
    assert all(f"`{source}`" in rows["floor_source"] for source in get_args(noise.FloorSource))
    codes = {int(row[0]) for row in table_after(PAGE, "In a pipeline")}
    assert codes == {ExitCode.OK, ExitCode.UNKNOWN, ExitCode.USAGE, ExitCode.BREACHED}


def test_limits_in_sentences_are_those_of_the_code() -> None:
    """A limit that changes in the code has to change on the page."""
    sentences = [
        f"- {noise.LEAST_PERCENT:g}%: less is noise",
        f"if the run has {noise.BLOCKS_NEEDED} blocks or more",
        f"{noise.QUANTILE:.0%} of {noise.HALVINGS:,} random ways",
        f"without a calibration {noise.ASSUMED_PERCENT:g}% is *assumed*",
        f"{calibrating.DEFAULT_RUNS} runs, 3 trials of 4 s",
        f"below `{calibrating.FOLDER}` in the root",
    ]
    assert [sentence for sentence in sentences if sentence not in TEXT] == []
