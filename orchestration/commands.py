"""What the commands do, once their options have been read; each returns its exit code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Column, Table

from orchestration import conduct, kept, limits, saturate
from orchestration.clusters.compose import FOLLOWERS as COMPOSE_FOLLOWERS
from orchestration.clusters.local import LocalSettings
from orchestration.control import Control
from orchestration.errors import ClusterError, UsageError
from orchestration.exit_codes import OF_PARITY, ExitCode
from orchestration.interrupt import SignalGuard
from orchestration.parity import Parity, check_parity
from orchestration.plain_text import one_line
from orchestration.report import conditions
from orchestration.report.console import print_report
from orchestration.report.result import why_not_good
from orchestration.report.saturation_write import is_saturation
from orchestration.report.summary import to_json
from orchestration.report.write import write_report
from orchestration.request import (
    DEFAULT_DELAY_MODEL,
    DEFAULT_DELAY_MS,
    DEFAULT_FOLLOWERS,
    SweepRequest,
)
from orchestration.resume import open_run
from orchestration.scenario import (
    DelayModel,
    Scenario,
    expected_duration_s,
    expected_loading_s,
    plan,
    records_bytes,
    records_of,
)
from orchestration.sweep import Ending
from orchestration.terminal import make_console, print_json, print_whole, tell


def up(
    *,
    engine: str,
    followers: int | None,
    delay_ms: tuple[float, float] | None,
    delay_model: DelayModel | None,
    quorum: int | None,
    port: int | None,
    data_dir: Path | None,
    is_json: bool,
) -> int:
    """Start a cluster that outlives the command, and tell where it is."""
    settings = LocalSettings(
        followers=DEFAULT_FOLLOWERS if followers is None else followers,
        delay_ms=delay_ms or DEFAULT_DELAY_MS,
        delay_model=delay_model or DEFAULT_DELAY_MODEL,
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
            cluster = kept.keep_compose(
                control,
                guard,
                delay_ms=settings.delay_ms,
                delay_model=settings.delay_model,
                quorum=quorum,
            )
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
    """Print what a cluster is; 2 if a node does not answer that should, or a link is down."""
    with Control.from_environment() as control:
        found = kept.describe_target(kept.find_target(attach_url, control), control)
    if is_json:
        _print_json(found)
    else:
        stdout = make_console()
        print_whole(stdout, _status_table(found))
        inner = [node["url"] for node in found["nodes"] if "unreachable" in node]
        if inner:
            stdout.print(
                f"{', '.join(inner)} cannot be reached from here: the leader tells of them, and "
                "its links to them are up.",
                soft_wrap=True,
            )
    troubles = [trouble for node in found["nodes"] if (trouble := _trouble(node))]
    if troubles:
        tell(" ".join(troubles))
    return ExitCode.UNKNOWN if troubles else ExitCode.OK


def _trouble(node: Mapping[str, Any]) -> str:
    """What keeps a node from its work, in a sentence; empty if nothing is seen that does."""
    name = node["node_id"] or "?"
    told = [f"{name}: {node['error'].rstrip('.')}."] if "error" in node else []
    if not node["connected"]:
        why = f" ({node['detail']})" if node.get("detail") else ""
        told.append(f"The leader's link to {name} ({node['url']}) is down{why}.")
    return " ".join(told)


def parity(attach_url: str | None, *, is_json: bool) -> int:
    """Compare the replicas of a cluster; 1 if they differ, 2 if one could not be compared."""
    with Control.from_environment() as control:
        target = kept.find_target(attach_url, control)
        delays = control.delays(target.leader_url)
        followers = target.follower_urls.values()
        answers = target.answers or control.healths(followers)
        silent = {
            url: problem
            for url, problem in answers.items()
            if isinstance(problem, ClusterError) and url in followers
        }
        found = check_parity(
            control,
            target.leader_url,
            target.follower_urls,
            longest_delay_ms=delays.max_delay_ms,
            unreachable=silent,
            say=lambda text: make_console(stderr=True).print(text, soft_wrap=True),
        )
    if is_json:
        _print_json(found.as_dict())
    else:
        print_whole(make_console(), _parity_table(found))
    code = OF_PARITY[found.status]
    if code != ExitCode.OK:
        named = [replica.url for replica in found.replicas if replica.status == found.status]
        what = "differ from the leader" if code is ExitCode.VIOLATED else "could not be compared"
        tell(f"Of the replicas {', '.join(named)} {what}.")
    return code


def report(run_dir: Path, *, is_json: bool) -> int:
    """Draw the run in ``run_dir`` again, and print it; the exit code is its verdict's."""
    if is_saturation(run_dir):
        return saturate.report(run_dir, is_json=is_json)
    summary = write_report(run_dir)
    if is_json:
        print_json(to_json(summary).decode())
    else:
        print_report(make_console(), summary)
        make_console(stderr=True).print(
            f"Report: {run_dir / 'report.html'}", markup=False, emoji=False, soft_wrap=True
        )
    ending = Ending("complete", summary.trials_done)
    code = conduct.exit_code(summary, ending)
    found = why_not_good(summary) if code != ExitCode.OK else ""
    conduct.tell_end(ending, found, run_dir / "report.html")
    return code


def dry_run(request: SweepRequest, *, fresh_seed: int, is_json: bool) -> int:
    """Print the plan of a sweep and how long it will take; start nothing."""
    with Control.from_environment() as control:
        scenario = conduct.resolve(request, control, fresh_seed=fresh_seed)
    conduct.check_machine(scenario)
    if is_json:
        _print_json(
            {
                "scenario": scenario.as_dict(),
                "records_bytes": records_bytes(scenario),
                "expected_loading_s": round(expected_loading_s(scenario), 1),
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
        job = conduct.begin(request, scenario)
        return conduct.carry_out(job, control, guard, manners)


def resume(run_dir: Path, manners: conduct.Manners) -> int:
    """Measure what is missing of a run; the exit code is its verdict's, unless it was stopped."""
    job = open_run(run_dir)
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
        f"{scenario.name} on {scenario.engine}, {scenario.followers} followers, "
        f"{conditions.delays(scenario)}, {load}, seed {scenario.seed}",
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
    if records_bytes(scenario):
        stdout.print(
            f"Before the first trial {records_of(scenario)[0]:,} records are written: about "
            f"{expected_loading_s(scenario):.0f} s, and {conduct.in_gib(records_bytes(scenario))} "
            "of memory in all nodes.",
            soft_wrap=True,
        )
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
    url = Column("replica", no_wrap=True)
    table = Table(url, "status", "differs", "extra", "detail", box=box.SIMPLE_HEAD)
    for replica in found.replicas:
        table.add_row(
            replica.url,
            replica.status,
            " ".join(map(one_line, replica.mismatch_keys)),
            " ".join(map(one_line, replica.extra_keys)),
            replica.detail,
        )
    return table


def _print_json(value: object) -> None:
    print_json(f"{json.dumps(value, indent=2)}\n")
