"""What the commands do, once their options have been read; each returns its exit code."""

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Column, Table

from orchestration import conduct, kept, limits, saturate
from orchestration.clusters.compose import FOLLOWERS as COMPOSE_FOLLOWERS
from orchestration.clusters.local import LocalSettings
from orchestration.control import Control
from orchestration.errors import UsageError
from orchestration.interrupt import SignalGuard
from orchestration.parity import Parity, check_parity
from orchestration.report.console import print_report
from orchestration.report.records import UnreadableRunError
from orchestration.report.saturation_write import is_saturation
from orchestration.report.summary import to_json
from orchestration.report.write import write_report
from orchestration.request import DEFAULT_DELAY_MS, DEFAULT_FOLLOWERS, SweepRequest
from orchestration.resume import open_run, request_of
from orchestration.scenario import Scenario, expected_duration_s, plan
from orchestration.sweep import Ending
from orchestration.terminal import make_console

PARITY_EXIT_CODES = {"match": 0, "mismatch": 1, "error": 2}


def up(
    *,
    engine: str,
    followers: int | None,
    delay_ms: tuple[float, float] | None,
    quorum: int | None,
    port: int | None,
    data_dir: Path | None,
    is_json: bool,
) -> int:
    """Start a cluster that outlives the command, and tell where it is."""
    settings = LocalSettings(
        followers=DEFAULT_FOLLOWERS if followers is None else followers,
        delay_ms=delay_ms or DEFAULT_DELAY_MS,
        write_quorum=quorum,
        port=port,
        data_dir=data_dir,
    )
    if quorum is not None:
        limits.Whole(0, settings.followers).check(quorum, "--k")
    with SignalGuard(watch_parent=True) as guard, Control.from_environment() as control:
        if engine == "compose":
            if (port, data_dir) != (None, None) or settings.followers != COMPOSE_FOLLOWERS:
                raise UsageError(
                    "--port, --data-dir and --followers cannot be chosen with --engine compose: "
                    "docker-compose.yml has them."
                )
            cluster = kept.keep_compose(control, guard, delay_ms=settings.delay_ms, quorum=quorum)
        else:
            cluster = kept.keep_local(settings, control, guard)
    urls = list(cluster.follower_urls.values())
    if is_json:
        _print_json({"leader_url": cluster.leader_url, "follower_urls": urls})
    else:
        stdout = make_console()
        stdout.print(f"Leader    {cluster.leader_url}", soft_wrap=True)
        stdout.print(f"Followers {' '.join(urls) or 'none'}", soft_wrap=True)
        stdout.print("End it with: quorumeter down")
    return 0


def down() -> int:
    """End the kept cluster, and say what that was."""
    with SignalGuard() as guard, Control.from_environment() as control, guard.held():
        message = kept.end_kept(control)
    make_console().print(message, soft_wrap=True)
    return 0


def status(attach_url: str | None, *, is_json: bool) -> int:
    """Print what a cluster is; 2 if a node does not answer that should from here."""
    with Control.from_environment() as control:
        found = kept.describe_target(kept.find_target(attach_url, control), control)
    if is_json:
        _print_json(found)
    else:
        stdout = make_console()
        stdout.print(_status_table(found))
        inner = [node["url"] for node in found["nodes"] if "unreachable" in node]
        if inner:
            stdout.print(
                f"{', '.join(inner)} cannot be reached from here: the leader tells of them, and "
                "its links to them are up.",
                soft_wrap=True,
            )
    return 2 if any("error" in node for node in found["nodes"]) else 0


def parity(attach_url: str | None, *, is_json: bool) -> int:
    """Compare the replicas of a cluster; 1 if they differ, 2 if one could not be compared."""
    with Control.from_environment() as control:
        target = kept.find_target(attach_url, control)
        delays = control.delays(target.leader_url)
        found = check_parity(
            control,
            target.leader_url,
            target.follower_urls,
            longest_delay_ms=delays.max_delay_ms,
        )
    if is_json:
        _print_json(found.as_dict())
    else:
        make_console().print(_parity_table(found))
    return PARITY_EXIT_CODES[found.status]


def report(run_dir: Path, *, is_json: bool) -> int:
    """Draw the run in ``run_dir`` again, and print it; the exit code is its verdict's."""
    if is_saturation(run_dir):
        return saturate.report(run_dir, is_json=is_json)
    try:
        summary = write_report(run_dir)
    except UnreadableRunError as problem:
        raise UsageError(str(problem)) from problem
    if is_json:
        make_console().out(to_json(summary).decode(), end="", highlight=False)
    else:
        print_report(make_console(), summary)
        make_console(stderr=True).print(f"Report: {run_dir / 'report.html'}", soft_wrap=True)
    return conduct.exit_code(summary, Ending("complete", summary.trials_done))


def dry_run(request: SweepRequest, *, fresh_seed: int, is_json: bool) -> int:
    """Print the plan of a sweep and how long it will take; start nothing."""
    with Control.from_environment() as control:
        scenario = conduct.resolve(request, control, fresh_seed=fresh_seed)
    if is_json:
        _print_json(
            {
                "scenario": scenario.as_dict(),
                "cells": [
                    {"block": cell.block, "k": cell.k, "ack": cell.ack} for cell in plan(scenario)
                ],
                "expected_duration_s": round(expected_duration_s(scenario), 1),
            }
        )
    else:
        _print_plan(scenario)
    return 0


def sweep(request: SweepRequest, manners: conduct.Manners, *, fresh_seed: int) -> int:
    """Run a sweep; the exit code is its verdict's, unless it was stopped."""
    with SignalGuard(watch_parent=True) as guard, Control.from_environment() as control:
        scenario = conduct.resolve(request, control, fresh_seed=fresh_seed)
        return conduct.conduct(request, scenario, control, guard, manners)


def resume(run_dir: Path, manners: conduct.Manners) -> int:
    """Measure what is missing of a run; the exit code is its verdict's, unless it was stopped."""
    run, scenario, manifest, done = open_run(run_dir)
    job = conduct.Job(request_of(manifest), scenario, run, manifest, done)
    with SignalGuard(watch_parent=True) as guard, Control.from_environment() as control:
        return conduct.carry_out(job, control, guard, manners)


def _print_plan(scenario: Scenario) -> None:
    stdout = make_console()
    load = (
        f"{scenario.rate_per_s:g} requests/s"
        if scenario.rate_per_s is not None
        else f"{scenario.users} clients back to back"
    )
    stdout.print(
        f"{scenario.name} on {scenario.engine}, {scenario.followers} followers, {load}, "
        f"seed {scenario.seed}",
        soft_wrap=True,
    )
    table = Table("block", "order of k", box=box.SIMPLE_HEAD)
    for block in range(scenario.trials):
        cells = [cell for cell in plan(scenario) if cell.block == block]
        if len(scenario.acks) == 1:
            order = " ".join(str(cell.k) for cell in cells)
        else:
            order = ", ".join(f"{cell.k} {cell.ack}" for cell in cells)
        table.add_row(str(block + 1), order)
    stdout.print(table)
    stdout.print(
        f"{len(plan(scenario))} trials, about {expected_duration_s(scenario):.0f} s in all"
    )


def _status_table(found: dict[str, Any]) -> Table:
    low, high = found["delay_ms"]
    table = Table(
        "node",
        "role",
        Column("url", no_wrap=True),
        "epoch",
        "position",
        "holes",
        "link",
        title=f"k={found['write_quorum']} of {found['followers']} followers, "
        f"link delays {low:g} to {high:g} ms ({found['delay_model']})",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for node in found["nodes"]:
        table.add_row(
            node["node_id"] or "?",
            node.get("role", "no answer"),
            node["url"],
            str(node.get("epoch", "")),
            str(node["position"]),
            str(node["holes"]),
            "up" if node["connected"] else "down",
        )
    return table


def _parity_table(found: Parity) -> Table:
    table = Table("replica", "status", "differs", "extra", "detail", box=box.SIMPLE_HEAD)
    for replica in found.replicas:
        table.add_row(
            replica.url,
            replica.status,
            " ".join(replica.mismatch_keys),
            " ".join(replica.extra_keys),
            replica.detail,
        )
    return table


def _print_json(value: object) -> None:
    make_console().out(json.dumps(value, indent=2), highlight=False)
