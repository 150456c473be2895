"""The command line: reads options, hands them on, maps errors to exit codes.

Progress and logs go to stderr, data to stdout. The exit codes are those of `exit_codes`; a command
that does not end with 0 says why, in a sentence on stderr.
"""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs: httpx, scipy and matplotlib
# would make even --help wait for a second.

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from orchestration import limits
from orchestration.cli_compare import calibrate, compare
from orchestration.cli_failover import failover, watch
from orchestration.cli_options import (
    EXIT_CODES,
    FOLLOWERS,
    LOAD_URL,
    Command,
    Parsed,
    attach_option,
    delay_model_option,
    delay_option,
    engine_option,
    json_option,
    locust_html_option,
)
from orchestration.cli_saturate import saturate
from orchestration.ending import end
from orchestration.errors import UsageError
from orchestration.request import (
    DELAY_MODEL_IS_ATTACHED,
    SweepRequest,
    parse_acks,
    with_environment,
)
from orchestration.scenario import WORKLOADS, DelayModel

INTRODUCTION = """\
Quorumeter measures what a write quorum costs and what it buys, on its own replicated store.

Try first:
  quorumeter sweep           start a cluster, measure every write quorum, draw a report
  quorumeter up              start a cluster and keep it; quorumeter down ends it
  quorumeter failover        make another node of it the leader
  quorumeter sweep --help    what can be chosen
"""


# What may be chosen with --resume: how the command speaks, and what it leaves of Locust.
BESIDE_RESUME = {"resume_dir", "is_strict", "is_quiet", "is_json", "has_locust_html"}


@dataclass(slots=True)
class Manner:
    """How a command that fails speaks; known once the options before its name are read."""

    is_debug: bool = False


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@click.version_option(package_name="quorumeter", prog_name="quorumeter")
@click.option("--debug", "is_debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, *, is_debug: bool) -> None:
    """Measure what a write quorum costs and what it buys."""
    ctx.ensure_object(Manner).is_debug = is_debug
    if ctx.invoked_subcommand is None:
        click.echo(INTRODUCTION, nl=False)


cli.add_command(compare)
cli.add_command(calibrate)
cli.add_command(saturate)
cli.add_command(failover)
cli.add_command(watch)


@cli.command(cls=Command, example="quorumeter up --followers 2 --delay 0:100")
@engine_option
@click.option("--followers", type=FOLLOWERS, help="Number of followers (5).")
@delay_option
@delay_model_option
@click.option("--k", "quorum", type=Parsed("K", limits.FOLLOWERS.parse), help="Write quorum.")
@click.option(
    "--port",
    type=Parsed("PORT", limits.PORT.parse),
    help="The leader's port; followers take the next ones (free ports).",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the nodes' data there, each in a folder of its own (memory only).",
)
@json_option
def up(
    engine: str | None,
    followers: int | None,
    delay_ms: tuple[float, float] | None,
    delay_model: DelayModel | None,
    quorum: int | None,
    port: int | None,
    data_dir: Path | None,
    *,
    is_json: bool,
) -> int:
    """Start a cluster and keep it running; `down` ends it."""
    from orchestration import commands

    return commands.up(
        engine=engine or "local",
        followers=followers,
        delay_ms=delay_ms,
        delay_model=delay_model,
        quorum=quorum,
        port=port,
        data_dir=data_dir,
        is_json=is_json,
    )


@cli.command(cls=Command, example="quorumeter down")
def down() -> int:
    """End exactly what `up` started."""
    from orchestration import commands

    return commands.down()


@cli.command(cls=Command, example="quorumeter status --attach http://127.0.0.1:8000")
@attach_option
@json_option
def status(attach_url: str | None, *, is_json: bool) -> int:
    """Show a cluster's nodes: roles, epochs, positions, write quorum, delays."""
    from orchestration import commands

    return commands.status(attach_url, is_json=is_json)


@cli.command(cls=Command, example="quorumeter parity --attach http://127.0.0.1:8000")
@attach_option
@json_option
def parity(attach_url: str | None, *, is_json: bool) -> int:
    """Compare what the replicas of a cluster hold; exit code 1 if they differ."""
    from orchestration import commands

    return commands.parity(attach_url, is_json=is_json)


@cli.command(cls=Command, example="quorumeter report reports/latest")
@click.argument("run_dir", type=click.Path(path_type=Path))
@json_option
def report(run_dir: Path, *, is_json: bool) -> int:
    """Draw a run again from its files."""
    from orchestration import commands

    return commands.report(run_dir, is_json=is_json)


@cli.command(cls=Command, example="quorumeter web --followers 3 --delay 0:100")
@click.option("--attach", "attach_url", type=LOAD_URL, help="Leader of a cluster.")
@click.option("--followers", type=FOLLOWERS, help="Number of followers (5).")
@delay_option
@delay_model_option
@click.option(
    "--web-port", type=Parsed("PORT", limits.PORT.parse), help="Locust's port (a free one)."
)
def web(
    attach_url: str | None,
    followers: int | None,
    delay_ms: tuple[float, float] | None,
    delay_model: DelayModel | None,
    web_port: int | None,
) -> int:
    """Serve Locust's web UI with a cluster to load, until Ctrl-C."""
    from orchestration.web import serve

    if attach_url is not None and followers is not None:
        raise UsageError("--followers cannot be chosen with --attach: it has those it has.")
    if attach_url is not None and delay_model is not None:
        raise UsageError(DELAY_MODEL_IS_ATTACHED)
    return serve(
        attach_url,
        followers=followers,
        delay_ms=delay_ms,
        delay_model=delay_model,
        web_port=web_port,
    )


@cli.command(cls=Command, example="quorumeter sweep --k 0,3 --threshold 'p99 < 150ms at k=3'")
@click.option(
    "--scenario",
    "scenario_name",
    metavar="FILE",
    help="A TOML file, or a name: wan, disks, sessions. Other options win over what it says.",
)
@click.option(
    "--resume",
    "resume_dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Measure what is missing of a run that was stopped; nothing else may be chosen.",
)
@click.option(
    "--workload",
    type=click.Choice(WORKLOADS),
    help="What drives the store (writes); seed: 100 writes, 10 at a time, 10 keys.",
)
@click.option("--k", "quorums", metavar="LIST", help="Write quorums: 0-5, 1,3 or 0-2,5 (0-n).")
@click.option("--trials", type=Parsed("N", limits.TRIALS.parse), help="Trials per k (3).")
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
    "--rate",
    "rate_per_s",
    type=Parsed("PER_S", limits.RATE.parse),
    help="Open loop: requests per second (100).",
)
@click.option(
    "--users", type=Parsed("N", limits.USERS.parse), help="Closed loop: clients, back to back."
)
@click.option(
    "--arrivals",
    type=click.Choice(["constant", "poisson"]),
    help="Spacing of requests in an open loop (constant).",
)
@click.option("--keys", type=Parsed("N", limits.KEYS.parse), help="Number of keys (1000).")
@click.option(
    "--key-choice",
    type=click.Choice(["uniform", "zipfian", "latest", "hotset"]),
    help="Which keys are asked for (the workload's own).",
)
@click.option(
    "--value-bytes",
    type=Parsed("BYTES", limits.VALUE_BYTES.parse),
    help="Size of a value, or a range such as 64:1024 (64; of ycsb 1000).",
)
@click.option(
    "--read-share",
    type=Parsed("SHARE", limits.READ_SHARE.parse),
    help="Share of reads in the mixed workload (0.5).",
)
@click.option(
    "--read-from", type=click.Choice(["leader", "followers"]), help="Who serves reads (leader)."
)
@click.option("--followers", type=FOLLOWERS, help="Number of followers (5).")
@delay_option
@delay_model_option
@engine_option
@click.option(
    "--ack",
    "acks",
    type=Parsed("LIST", parse_acks),
    help="From where nodes acknowledge: memory, fsync (their disks), or both (memory).",
)
@click.option(
    "--durable",
    is_flag=True,
    help="Measure twice, side by side: --ack memory,fsync.",
)
@click.option("--processes", type=Parsed("N", limits.PROCESSES.parse), help="Load processes (1).")
@click.option(
    "--pin", "is_pinned", is_flag=True, help="Give nodes and generator cores of their own."
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="TEXT",
    help="Exit with 99 if it is breached, such as 'p99 < 50ms at k=3'; may be repeated.",
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
@click.option(
    "--seed",
    type=Parsed("N", limits.SEED.parse),
    help="Random seed of trial order, arrivals, keys and delays.",
)
@click.option("--strict", "is_strict", is_flag=True, help="Exit with 2 if any cell is not ok.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Print the plan and its duration.")
@locust_html_option
@click.option("--quiet", "is_quiet", is_flag=True, help="No progress on stderr.")
@json_option
def sweep(
    scenario_name: str | None,
    resume_dir: Path | None,
    *,
    is_strict: bool,
    is_dry_run: bool,
    has_locust_html: bool,
    is_quiet: bool,
    is_json: bool,
    **options: Any,
) -> int:
    """Measure a workload at every write quorum, and report.

    Values in parentheses are the defaults.
    """
    from orchestration import commands
    from orchestration.conduct import Manners

    manners = Manners(
        is_quiet=is_quiet,
        is_json=is_json,
        is_strict=is_strict,
        has_locust_html=has_locust_html,
    )
    if resume_dir is not None:
        _refuse_what_resume_knows()
        return commands.resume(resume_dir, manners)
    request = _request(scenario_name, options)
    fresh_seed = secrets.randbelow(limits.SEED.high + 1)
    if is_dry_run:
        return commands.dry_run(request, fresh_seed=fresh_seed, is_json=is_json)
    return commands.sweep(request, manners, fresh_seed=fresh_seed)


def _refuse_what_resume_knows() -> None:
    """Refuse whatever was chosen beside --resume that the run itself says, a 0 as well."""
    context = click.get_current_context()
    chosen = [
        param.opts[0]
        for param in context.command.params
        if param.name not in BESIDE_RESUME
        and context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    ]
    if chosen:
        raise UsageError(f"--resume takes all from the run itself: leave out {', '.join(chosen)}.")


def _request(scenario_name: str | None, options: dict[str, Any]) -> SweepRequest:
    """What options, a scenario file and the environment ask for, the first before the last."""
    if options.pop("durable"):
        if options["acks"] is not None:
            raise UsageError("--durable stands for --ack memory,fsync: give one of the two.")
        options["acks"] = ("memory", "fsync")
    options["is_pinned"] = options["is_pinned"] or None
    request = SweepRequest(**options)
    if scenario_name is not None:
        from orchestration.scenario_file import read_scenario

        request = request.over(read_scenario(scenario_name))
    return with_environment(request, os.environ)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code. Errors are told on stderr, in one sentence."""
    manner = Manner()
    return end(
        lambda: cli.main(
            list(arguments), prog_name="quorumeter", standalone_mode=False, obj=manner
        ),
        is_debug=lambda: manner.is_debug,
    )
