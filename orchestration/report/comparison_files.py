"""Writes a comparison: ``comparison.json``, ``.md``, and the chart as PNG and SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from orchestration.report import comparison_table, conditions
from orchestration.report.markdown import escaped, table
from orchestration.report.write import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from orchestration.report.comparison import Comparison
    from orchestration.report.records import Run

NAME = "comparison"


def write_comparison(comparison: Comparison, new: Run, folder: Path) -> None:
    """Write all files of a comparison into a folder, which is made if it is not there.

    Args:
        comparison: What was found.
        new: The run NEW, for its conditions.
        folder: What it holds of an earlier comparison is replaced.
    """
    # matplotlib takes half a second to import, which only those who draw should pay.
    from orchestration.report import drawing  # noqa: PLC0415

    # isort: split
    # Only after the drawing, which brings in matplotlib without the user's settings.
    from orchestration.report import comparison_chart  # noqa: PLC0415

    figure = comparison_chart.draw(comparison, new)
    replace_file(folder / f"{NAME}.json", to_json(comparison))
    replace_file(folder / f"{NAME}.md", to_markdown(comparison, new).encode())
    replace_file(folder / f"{NAME}.png", drawing.to_png(figure))
    replace_file(folder / f"{NAME}.svg", drawing.to_svg(figure))


def to_json(comparison: Comparison) -> bytes:
    """Return the text of ``comparison.json``."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n"


def to_markdown(comparison: Comparison, new: Run) -> str:
    """Return the page, for an issue or a pull request; the chart lies beside it."""
    parts = [f"# {escaped(comparison.sentence)}"]
    parts += [f"**{escaped(line)}**" for line in comparison_table.warnings(comparison)]
    parts.append(f"![what changed, with intervals and noise floors]({NAME}.png)")
    if comparison.cells:
        parts.append(table(comparison_table.columns(comparison)))
        parts.append(comparison_table.caption(comparison))
    notes = comparison_table.notes(comparison)
    parts.append("\n".join(f"- {escaped(line)}" for line in notes))
    parts.append("\n".join(f"> {line}  " for line in conditions.footnote(new).splitlines()))
    return "\n\n".join(filter(None, parts)) + "\n"
