"""The commands that make another node the leader: by hand, and by watching."""
# ruff: noqa: PLC0415 - as in cli: a command imports what it needs when it runs.

import click

from orchestration import limits
from orchestration.cli_options import URL, Command, Parsed, json_option

node_option = click.option(
    "--node",
    "urls",
    type=URL,
    multiple=True,
    metavar="URL",
    help="A node of the cluster, may be repeated; it names the others. (What `up` keeps.)",
)


@click.command(cls=Command, example="quorumeter failover --dry-run")
@node_option
@click.option(
    "--to", metavar="NODE", help="Who is to lead, by NODE_ID or URL (the one that holds most)."
)
@click.option(
    "--k", "quorum", type=Parsed("K", limits.FOLLOWERS.parse), help="Write quorum from then on."
)
@click.option(
    "--force",
    is_flag=True,
    help="Go on with whoever answers, for when the others are gone for good: what only they have "
    "is lost.",
)
@click.option("--yes", "is_agreed", is_flag=True, help="Do not ask.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Explain, and change nothing.")
@json_option
def failover(
    urls: tuple[str, ...],
    to: str | None,
    quorum: int | None,
    *,
    force: bool,
    is_agreed: bool,
    is_dry_run: bool,
    is_json: bool,
) -> int:
    """Make another node the leader: look, explain, ask, promote, write once."""
    from orchestration import failover_commands

    return failover_commands.failover(
        urls,
        to,
        quorum,
        force=force,
        is_agreed=is_agreed,
        is_dry_run=is_dry_run,
        is_json=is_json,
    )


@click.command(cls=Command, example="quorumeter watch --once")
@node_option
@click.option(
    "--after",
    "after_s",
    type=Parsed("TIME", limits.WATCH_AFTER.parse),
    default="3s",
    show_default=True,
    help="How long no leader may be seen before another node is promoted.",
)
@click.option("--once", "is_once", is_flag=True, help="End after the first promotion.")
def watch(urls: tuple[str, ...], after_s: float, *, is_once: bool) -> int:
    """Promote another node whenever the leader has been gone for a while, until Ctrl-C.

    Several may watch the same cluster: an epoch belongs to one attempt, so that two promotions
    never make two leaders that acknowledge writes.
    """
    from orchestration import failover_commands

    return failover_commands.watch(urls, after_s, is_once=is_once)
