"""``quorumeter saturate`` on the command line."""
# ruff: noqa: PLC0415 - as in cli: --help does not wait for what only a run needs.

import secrets
from pathlib import Path
from typing import Any

import click

from orchestration import limits
from orchestration.cli_options import (
    FOLLOWERS,
    LOAD_URL,
    Command,
    Parsed,
    delay_model_option,
    delay_option,
    engine_option,
    json_option,
    locust_html_option,
)
from orchestration.request import SweepRequest
from orchestration.scenario import WORKLOADS, Ack

PRECISION_PERCENT = limits.Real(1.0, 50.0, "%")
CONFIRM = limits.Whole(1, 20)


def parse_precision(text: str, name: str) -> float:
    """The share that ``text`` says in percent, with or without the sign."""
    return PRECISION_PERCENT.parse(text.strip().removesuffix("%"), name) / 100


@click.command(cls=Command, example="quorumeter saturate --k 0,3 --slo 'p99 < 200ms'")
@click.option(
    "--slo",
    "objective",
    default="p99 < 200ms",
    show_default=True,
    metavar="TEXT",
    help="What a rate has to meet: mean, p50, p95, p99 or max of the response time, bounded.",
)
@click.option("--k", "quorums", metavar="LIST", help="Write quorums: 0-5, 1,3 or 0-2,5 (0-n).")
@click.option(
    "--precision",
    type=Parsed("PERCENT", parse_precision),
    default="5%",
    show_default=True,
    help="How much neighbouring rates differ at most.",
)
@click.option(
    "--confirm",
    type=Parsed("N", CONFIRM.parse),
    default="3",
    show_default=True,
    help="Further trials at the found rate, of which most must meet the objective.",
)
@click.option(
    "--start",
    "rate_per_s",
    type=Parsed("PER_S", limits.RATE.parse),
    help="The first rate; it is doubled until one is not met (100).",
)
@click.option(
    "--warmup",
    "warmup_s",
    type=Parsed("TIME", limits.WARMUP.parse),
    help="Warm-up per trial, not measured (1s).",
)
@click.option(
    "--duration", "duration_s", type=Parsed("TIME", limits.DURATION.parse), help="Measured (4s)."
)
@click.option(
    "--workload",
    type=click.Choice([name for name in WORKLOADS if name != "seed"]),
    help="What drives the store (writes).",
)
@click.option("--followers", type=FOLLOWERS, help="Number of followers (5).")
@delay_option
@delay_model_option
@engine_option
@click.option(
    "--ack",
    type=click.Choice(["memory", "fsync"]),
    help="From where nodes acknowledge: memory (default), or fsync (their disks).",
)
@click.option("--processes", type=Parsed("N", limits.PROCESSES.parse), help="Load processes (1).")
@click.option(
    "--pin", "is_pinned", is_flag=True, help="Give nodes and generator cores of their own."
)
@click.option(
    "--attach",
    "attach_url",
    type=LOAD_URL,
    help="Use the cluster of this leader; its k, and delays that --delay changed, are restored.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Root of outputs (reports)."
)
@click.option("--seed", type=Parsed("N", limits.SEED.parse), help="Of order, keys, delays.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Print the plan and its bounds.")
@locust_html_option
@click.option("--quiet", "is_quiet", is_flag=True, help="No progress on stderr.")
@json_option
def saturate(
    objective: str,
    precision: float,
    confirm: int,
    *,
    ack: Ack | None,
    is_pinned: bool,
    is_dry_run: bool,
    has_locust_html: bool,
    is_quiet: bool,
    is_json: bool,
    **options: Any,
) -> int:
    """Find the highest rate that each write quorum sustains, and report.

    Values in parentheses are the defaults.
    """
    from orchestration import saturate as command
    from orchestration.conduct import Manners

    request = command.SaturateRequest(
        sweep=SweepRequest(
            name="saturate",
            trials=1,  # as many as the search asks for
            acks=(ack,) if ack else None,
            is_pinned=is_pinned or None,
            **options,
        ),
        objective=objective,
        precision=precision,
        confirm=confirm,
    )
    fresh_seed = secrets.randbelow(limits.SEED.high + 1)
    if is_dry_run:
        return command.dry_run(request, fresh_seed=fresh_seed, is_json=is_json)
    manners = Manners(is_quiet=is_quiet, is_json=is_json, has_locust_html=has_locust_html)
    return command.saturate(request, manners, fresh_seed=fresh_seed)
