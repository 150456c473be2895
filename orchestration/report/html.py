"""``report.html``: one file that needs nothing else, for a browser, a phone, and paper."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestration.report import (
    conditions,
    effect_table,
    operation_table,
    result,
    tables,
    threshold_table,
)
from orchestration.report.numbers import ABSENT, fixed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestration.report.records import Run
    from orchestration.report.summary import Summary

CHART_NAMES = (
    "Response time against the write quorum, measured and theory",
    "Percentile spectrum of the response time for each write quorum",
)


def render(run: Run, summary: Summary, charts: Sequence[str]) -> str:
    """Return the page.

    Args:
        run: What was read.
        summary: What was found.
        charts: The SVG text of the quorum chart and of the spectrum; they are trusted, as all
            else is escaped.
    """
    # What the caption says in words takes no room from the numbers.
    shown = [column for column in tables.columns(summary.cells) if not column.plain]
    return fill(
        "report.html.j2",
        run,
        dict(zip(CHART_NAMES, charts, strict=True)),
        summary=summary,
        result=result.result_line(summary.thresholds),
        measurement=result.measurement(summary),
        columns=shown,
        caption=tables.caption(summary.cells, shown),
        notes=tables.notes(summary.cells),
        effects=effect_table.columns(summary.cells),
        effects_caption=effect_table.CAPTION,
        operations=operation_table.columns(summary.cells),
        thresholds=threshold_table.columns(summary.thresholds),
        ack=conditions.ack_meaning(summary.ack),
        delay_model=run.rows[0].delay_model if run.rows else "",
    )


def fill(template: str, run: Run, charts: Mapping[str, str], **values: object) -> str:
    """Return a page from one of the templates, with the run's settings and trials at its end.

    Args:
        template: Its file's name.
        run: What was read.
        charts: SVG text by what it shows; they are trusted, as all else is escaped.
        values: What the template names besides.
    """
    environment = Environment(
        loader=PackageLoader("orchestration.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        run=run,
        figures=[
            # Our own drawing, whose texts matplotlib has escaped.
            Markup(inline(svg, name, prefix=f"chart{index}-"))  # noqa: S704
            for index, (name, svg) in enumerate(charts.items())
        ],
        audit=_audit(run),
        settings=dict(_flat(run)),
        machine=conditions.machine(run.manifest),
        cores=conditions.cores(run.manifest),
        delays=conditions.injection(run.manifest),
        **values,
    )


def inline(svg: str, name: str, *, prefix: str) -> str:
    """Return an SVG document as an element of a page, with a name for those who cannot see it.

    The metadata goes, since it names sites. Two drawings on one page would share ids, so that each
    gets a prefix of its own.
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)


def _audit(run: Run) -> list[list[str]]:
    """Return a row of text for each trial: what the tool thinks of its own measurement."""
    return [
        [
            str(row.block),
            row.ack or run.manifest.ack,
            str(row.k),
            fixed(row.offered_rate, 1),
            fixed(row.achieved_rate, 1),
            f"{row.dropped:,}",
            fixed(row.send_delay_ms.p99 if row.stamp == "ok" else None, 3),
            fixed(row.generator_lag_ms, 3),
            ABSENT if (cpu := row.generator_cpu_share) is None else f"{cpu:.0%}",
            row.stamp,
            row.reason,
        ]
        for row in run.rows
    ]


def _flat(run: Run) -> Iterator[tuple[str, str]]:
    """Yield each setting of the run with its value as text."""
    manifest = run.manifest
    yield "command", shlex.join(manifest.command)
    settings: dict[str, Any] = {
        **manifest.scenario,
        "engine": manifest.engine,
        "followers": manifest.followers,
        "leader": manifest.leader_url,
        "seed": manifest.seed,
        "started": manifest.started_at,
        "finished": manifest.finished_at,
        **{f"version of {name}": text for name, text in manifest.versions.items()},
    }
    for name, value in settings.items():
        yield name, value if isinstance(value, str) else json.dumps(value)
