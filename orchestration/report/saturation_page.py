"""A saturation run as a page: HTML and Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.report import conditions, html, saturation_chart, saturation_table
from orchestration.report.markdown import escaped, table
from orchestration.report.result import measurement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestration.report.records import Run
    from orchestration.report.saturation_summary import SaturationSummary


def to_html(run: Run, summary: SaturationSummary, charts: Mapping[str, str]) -> str:
    """Return the page, one file that needs nothing else.

    Args:
        run: What was read.
        summary: What was found.
        charts: SVG text by what it shows.
    """
    columns = saturation_table.columns(summary)
    return html.fill(
        "saturation.html.j2",
        run,
        charts,
        summary=summary,
        measurement=measurement(summary),
        columns=columns,
        caption=saturation_table.caption(summary, columns),
        notes=saturation_table.notes(summary),
        points=saturation_table.points(summary),
        ack=conditions.ack_meaning(summary.ack),
    )


def to_markdown(run: Run, summary: SaturationSummary, charts: Sequence[str]) -> str:
    """Return the facts in a page of Markdown.

    Args:
        run: What was read.
        summary: What was found.
        charts: Names of the charts beside the file, without their ending; none for a text that
            stands by itself.
    """
    columns = saturation_table.columns(summary)
    parts = [
        f"# {escaped(summary.sentence)}",
        f"Measurement: **{measurement(summary)}**. Run `{summary.run}`.",
        summary.missing or "",
        table(columns),
        escaped(saturation_table.caption(summary, columns)),
        "\n".join(f"- {escaped(line)}" for line in saturation_table.notes(summary)),
        *(f"![{name.replace('_', ' ')}]({name}.png)" for name in charts),
        "\n".join(f"> {line}  " for line in saturation_chart.footnote(run, summary).splitlines()),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"
