"""The commands that hold runs against each other: ``compare`` and ``calibrate``."""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs, as in cli.py.

import secrets
from pathlib import Path
from typing import Any

import click

from orchestration import limits
from orchestration.cli_options import (
    FOLLOWERS,
    Command,
    Parsed,
    delay_model_option,
    delay_option,
    json_option,
)
from orchestration.request import SweepRequest

# Past so many runs a day is over.
RUNS = limits.Whole(2, 100)


@click.command(cls=Command, example="quorumeter compare main/reports/latest reports/latest")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--noise",
    "noise_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The noise floor of calibrate (noise_floor.json in the root of the runs).",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the comparison there: JSON, Markdown and a chart.",
)
@click.option(
    "--fail-on-regression",
    "fails_on_regression",
    is_flag=True,
    help="Exit with 99 if anything got worse, with 2 if BASE or NEW cannot be judged.",
)
@json_option
def compare(
    base: Path,
    new: Path,
    *,
    noise_path: Path | None,
    out: Path | None,
    fails_on_regression: bool,
    is_json: bool,
) -> int:
    """Say what changed from the run in folder BASE to the one in NEW."""
    from orchestration import comparing

    return comparing.compare(
        base,
        new,
        noise_path=noise_path,
        out=out,
        fails_on_regression=fails_on_regression,
        is_json=is_json,
    )


@click.command(cls=Command, example="quorumeter calibrate --k 0,3")
@click.option("--runs", type=Parsed("N", RUNS.parse), help="Sweeps that are compared (5).")
@click.option("--trials", type=Parsed("N", limits.TRIALS.parse), help="Trials per k and run (3).")
@click.option("--k", "quorums", metavar="LIST", help="Write quorums (0 and a majority).")
@click.option(
    "--rate",
    "rate_per_s",
    type=Parsed("PER_S", limits.RATE.parse),
    help="Requests per second (100).",
)
@click.option(
    "--duration", "duration_s", type=Parsed("TIME", limits.DURATION.parse), help="Of a trial (4s)."
)
@click.option("--followers", type=FOLLOWERS, help="Number of followers (5).")
@delay_option
@delay_model_option
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Root of outputs (reports)."
)
@click.option("--seed", type=Parsed("N", limits.SEED.parse), help="Of all sweeps' seeds.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Print the plan and its duration.")
@click.option("--quiet", "is_quiet", is_flag=True, help="No progress on stderr.")
@json_option
def calibrate(
    runs: int | None,
    out: Path | None,
    *,
    is_dry_run: bool,
    is_quiet: bool,
    is_json: bool,
    **options: Any,
) -> int:
    """Measure this machine's noise: how much identical runs differ.

    Values in parentheses are the defaults.
    """
    from orchestration import calibrating

    fresh_seed = secrets.randbelow(limits.SEED.high + 1)
    calibration = calibrating.plan(
        SweepRequest(**options), runs=runs, fresh_seed=fresh_seed, out=out
    )
    if is_dry_run:
        return calibrating.dry_run(calibration, is_json=is_json)
    return calibrating.calibrate(calibration, is_quiet=is_quiet, is_json=is_json)
