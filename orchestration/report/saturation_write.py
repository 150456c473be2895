"""Writes and prints what a saturation run found: the one way from its folder to a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

from orchestration.goal import Goal
from orchestration.report import console, saturation_table
from orchestration.report.records import UnreadableRunError, read_run
from orchestration.report.saturation_summary import (
    SaturationSummary,
    summarise_saturation,
    to_json,
)
from orchestration.report.saturation_trace import counted
from orchestration.report.write import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from orchestration.report.records import Run

CHART_NAME = "throughput_vs_latency"
CHART_TITLE = "Response time against the achieved rate, a curve for each write quorum"


def is_saturation(run_dir: Path) -> bool:
    """Whether the folder holds a saturation run; False as well if it holds none at all."""
    try:
        return _read_goal(run_dir) is not None
    except (OSError, msgspec.MsgspecError):
        return False


def write_saturation(run_dir: Path) -> SaturationSummary:
    """Draw a run from its ``manifest.json`` and ``cells.jsonl``, and return its summary.

    Args:
        run_dir: Receives ``saturation.json``, the chart, ``report.html``, ``report.md`` and
            ``summary.md``.

    Raises:
        UnreadableRunError: The folder holds no saturation run; nothing has been written.
    """
    run = read_run(run_dir)
    try:
        goal = _read_goal(run_dir)
    except msgspec.MsgspecError as error:
        raise UnreadableRunError(f"{run_dir / 'manifest.json'} is damaged: {error}") from error
    if goal is None:
        raise UnreadableRunError(f"{run_dir} is no saturation run: its manifest names no goal")
    summary = summarise_saturation(run, goal)
    for name, content in _files(run, counted(run, goal), summary).items():
        replace_file(run_dir / name, content)
    return summary


def print_saturation(target: Console, summary: SaturationSummary) -> None:
    """Print the table, what is missing, and last the sentence, as wide as the console allows."""
    columns = saturation_table.columns(summary)
    choices = [[column for column in columns if column.rank <= rank] for rank in (4, 3, 2, 1, 0)]
    fitting = [each for each in choices if console.width_of(target, each) <= target.width]
    shown = fitting[0] if fitting else choices[-1]
    target.print(console.table(shown))
    target.print(Text(saturation_table.caption(summary, shown), style="dim"))
    for line in [*saturation_table.notes(summary), *filter(None, [summary.missing])]:
        target.print(Text(line, style="yellow"))
    target.print()
    target.print(Text(summary.sentence, style="bold"))
    console.print_measurement(target, summary)


def _read_goal(run_dir: Path) -> Goal | None:
    manifest = msgspec.json.decode((run_dir / "manifest.json").read_bytes(), type=dict)
    found = manifest.get("saturation")
    return None if found is None else msgspec.convert(found, Goal)


def _files(run: Run, shown: Run, summary: SaturationSummary) -> dict[str, bytes]:
    """Return the content of each file of the run's folder by its name.

    Args:
        run: What was read.
        shown: The same with only those trials that are drawn.
        summary: What was found.
    """
    # matplotlib takes half a second to import, which only those who draw should pay.
    from orchestration.report import drawing, saturation_chart, saturation_page  # noqa: PLC0415

    figure = saturation_chart.draw(shown, summary)
    svg = drawing.to_svg(figure)
    return {
        "saturation.json": to_json(summary),
        f"{CHART_NAME}.png": drawing.to_png(figure),
        f"{CHART_NAME}.svg": svg,
        "report.html": saturation_page.to_html(run, summary, {CHART_TITLE: svg.decode()}).encode(),
        "report.md": saturation_page.to_markdown(run, summary, [CHART_NAME]).encode(),
        "summary.md": saturation_page.to_markdown(run, summary, []).encode(),
    }
