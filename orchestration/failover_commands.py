"""What `quorumeter failover` and `quorumeter watch` do."""

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestration import terminal
from orchestration.control import Control
from orchestration.errors import ClusterError, NotNowError, OutcomeUnknownError, UsageError
from orchestration.exit_codes import ExitCode
from orchestration.failover import NodeStatus, Outlook, has_channel, look, named
from orchestration.interrupt import SignalGuard
from orchestration.plain_text import one_line
from orchestration.state_file import StateFile, state_folder
from orchestration.terminal import make_console, print_json, print_whole

# A key that no workload uses: its write shows that the new leader acknowledges.
PROBE_KEY = "quorumeter/failover"
WRITE_TIMEOUT_S = 10.0
WRITE_RETRY_S = 0.2
WATCH_POLL_S = 0.5
REFUSED = ExitCode.UNKNOWN


def failover(
    urls: Sequence[str],
    to: str | None,
    quorum: int | None,
    *,
    force: bool,
    is_agreed: bool,
    is_dry_run: bool,
    is_json: bool,
) -> int:
    """Promote a node; 0 once it has acknowledged a write, 2 if that may not or did not happen.

    Raises:
        OutcomeUnknownError: The node may lead yet.
        ClusterError: It does not lead.
    """
    console = make_console(stderr=is_json)
    with Control.from_environment() as control, SignalGuard():
        outlook = look(control, urls or kept_urls()).wishing(quorum)
        target = _target(outlook, to)
        explain(console, outlook, target)
        if target is not None and target is outlook.leader:
            console.print(f"{target.node_id} leads epoch {target.epoch}: there is nothing to do.")
            _print_json(is_json, outlook, None)
            return 0
        obstacle = _obstacle(outlook, target, is_chosen=to is not None, force=force)
        if obstacle or target is None:
            _print_json(is_json, outlook, None)
            terminal.tell(obstacle)
            return REFUSED
        if is_dry_run:
            _print_json(is_json, outlook, None)
            return 0
        if not is_agreed and (why := _disagreement(_question(outlook, target))):
            _print_json(is_json, outlook, None)
            terminal.tell(why)
            return REFUSED
        done = promote(control, target, quorum, force=force)
    tell(console, done)
    _print_json(is_json, outlook, done)
    if done["first_write_ms"] is None:
        terminal.tell(done["write_problem"])
        return REFUSED
    return ExitCode.OK


def watch(urls: Sequence[str], after_s: float, *, is_once: bool) -> int:
    """Promote whenever no leader was seen for `after_s`, until a stop signal."""
    news = _News(make_console())
    seen_s = time.monotonic()
    known = tuple(urls or kept_urls())
    # Who was asked to lead, and did not say whether it does.
    doubted: NodeStatus | None = None
    with Control.from_environment() as control, SignalGuard():
        while True:
            try:
                outlook = look(control, known)
            except ClusterError as error:
                news.say(str(error))
                time.sleep(WATCH_POLL_S)
                continue
            known = tuple(dict.fromkeys([*known, *outlook.nodes]))
            if outlook.leader is not None:
                seen_s = time.monotonic()
                leader = outlook.leader
                news.say(f"{leader.node_id} leads epoch {leader.epoch}.")
                if is_once and doubted is not None and leader.node_id == doubted.node_id:
                    return 0
            elif outlook.led is not None:
                seen_s = time.monotonic()
                news.say(f"{_who_leads(outlook, outlook.led)}.")
            elif time.monotonic() - seen_s >= after_s:
                doubted = outlook.candidate
                try:
                    if _promote_one(news, control, outlook) and is_once:
                        return 0
                except OutcomeUnknownError as error:
                    news.say(str(error))
                else:
                    doubted = None
                seen_s = time.monotonic()
            time.sleep(WATCH_POLL_S * random.uniform(0.5, 1.5))  # noqa: S311 - two watchers part


class _News:
    """Says what is new: what was said last is not said again."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._last = ""

    def say(self, text: str) -> None:
        if text != self._last:
            self.console.print(text, soft_wrap=True)
        self._last = text


def _promote_one(news: _News, control: Control, outlook: Outlook) -> bool:
    """Promote the node that would lead best, and tell what came of it; True if it leads.

    Raises:
        OutcomeUnknownError: It may lead yet.
    """
    target = outlook.candidate
    lack = "No leader" if outlook.cut_off is None else _how_cut_off(outlook, outlook.cut_off)
    if outlook.reason or target is None:
        unknown = f" {_unknown(outlook)}" if outlook.inside else ""
        news.say(f"{lack}, and a promotion would be refused: {outlook.reason}.{unknown}")
        return False
    try:
        done = promote(control, target, None, force=False)
    except OutcomeUnknownError:
        raise
    except ClusterError as error:
        news.say(f"{lack}, and {target.node_id} was not promoted: {error}")
        return False
    news.say(f"{lack}: {target.node_id} is promoted.")
    tell(news.console, done)
    return True


def promote(
    control: Control, target: NodeStatus, quorum: int | None, *, force: bool
) -> dict[str, Any]:
    """Promote a node and write once; its answer, with the times of both in ms.

    ``first_write_ms`` is None if it did not acknowledge; ``write_problem`` says why, or that the
    key of the write is left, and is empty otherwise.

    Raises:
        OutcomeUnknownError: it may lead yet.
        ClusterError: it does not lead.
    """
    began_s = time.monotonic()
    try:
        done = control.promote(target.url, write_quorum=quorum, force=force)
    except OutcomeUnknownError as error:
        raise OutcomeUnknownError(
            f"{_sentence(error)} {target.node_id} may still become the leader; look again with "
            f"quorumeter status --attach {target.url}"
        ) from error
    open_s = time.monotonic()
    written_s, problem = _write_once(control, target, str(done["epoch"]))
    return {
        **done,
        "open_ms": round(1000 * (open_s - began_s), 1),
        "first_write_ms": None if written_s is None else round(1000 * (written_s - began_s), 1),
        "write_problem": problem,
    }


def _write_once(control: Control, leader: NodeStatus, value: str) -> tuple[float | None, str]:
    """Write a key and delete it; when the write was acknowledged, if it was, and what failed."""
    url = leader.url
    try:
        _try(lambda left_s: control.put(url, PROBE_KEY, value, timeout_s=left_s))
    except ClusterError as error:
        is_definite = not isinstance(error, OutcomeUnknownError)
        left = "" if is_definite else f" The key {PROBE_KEY} may be left."
        return None, f"It leads, but did not acknowledge a write: {_sentence(error)}{left}"
    written_s = time.monotonic()
    try:
        _try(lambda left_s: control.delete(url, PROBE_KEY, timeout_s=left_s))
    except ClusterError as error:
        left = "may be" if isinstance(error, OutcomeUnknownError) else "is"
        return written_s, f"The key {PROBE_KEY} {left} left: {_sentence(error)}"
    return written_s, ""


def _try(write: Callable[[float], object]) -> None:
    """Write as soon as the node can, within `WRITE_TIMEOUT_S`.

    Just after a promotion too few followers may count yet.

    Args:
        write: takes the time that is left, in s.

    Raises:
        ClusterError: as the last attempt did.
    """
    ends_s = time.monotonic() + WRITE_TIMEOUT_S
    while True:
        try:
            write(max(ends_s - time.monotonic(), WRITE_RETRY_S))
        except NotNowError:
            if time.monotonic() + WRITE_RETRY_S >= ends_s:
                raise
            time.sleep(WRITE_RETRY_S)
        else:
            return


def _sentence(error: ClusterError) -> str:
    return f"{str(error).rstrip('.')}."


def kept_urls() -> tuple[str, ...]:
    """The nodes of the cluster that `up` keeps.

    Raises:
        ClusterError: none is kept.
    """
    kept = StateFile(state_folder()).read()
    if kept is None:
        raise ClusterError(
            "No cluster is kept: name its nodes with --node, or start one with quorumeter up."
        )
    return tuple(node.url for node in kept.nodes)


def _target(outlook: Outlook, to: str | None) -> NodeStatus | None:
    if to is None:
        return outlook.leader or outlook.candidate
    target = named(to, outlook.nodes)
    if target is None:
        known = ", ".join(f"{node.node_id} ({url})" for url, node in outlook.nodes.items())
        raise UsageError(f"--to {to}: no node that answers is called so; these are {known}.")
    return target


def _obstacle(outlook: Outlook, target: NodeStatus | None, *, is_chosen: bool, force: bool) -> str:
    """Why nothing is done, and what to do instead; empty if nothing speaks against it."""
    if outlook.led is not None and not is_chosen:
        # Not even by force: who replaces a leader that may be well has to say by whom.
        return (
            f"{_who_leads(outlook, outlook.led)}: nothing is done. To replace that one all the "
            "same, name with --to who is to lead."
        )
    if target is not None and target is outlook.cut_off and not force:
        # It would answer that it leads already.
        return f"To promote {target.node_id} mends nothing: name another node with --to."
    if outlook.candidate is None and not is_chosen:
        return "No node that answers holds data: bring one back, or start the cluster anew."
    if not outlook.reason or force:
        return ""
    if outlook.inside:
        return f"A promotion would be refused: {outlook.reason}. {_unknown(outlook)}"
    is_alive = outlook.leader is not None or outlook.led is not None
    or_force = "" if is_alive else ", or use --force if they are gone for good"
    return (
        f"A promotion would be refused: {outlook.reason}. Bring back "
        f"{', '.join(outlook.missing) or 'one that does'}{or_force}."
    )


def _unknown(outlook: Outlook) -> str:
    return (
        f"{', '.join(outlook.inside)} may be known to the nodes' own network only: name every node "
        "with --node by a URL that works from here, such as its published port, or POST "
        "/admin/promote to one that answers."
    )


def _who_leads(outlook: Outlook, led: NodeStatus) -> str:
    waiting = named(led.leader_url or "", outlook.nodes)
    if waiting is not None:
        return f"{waiting.node_id} is about to lead, and waits for other nodes to hold its base"
    leader = led.leader_url or "whose URL is not known"
    return f"A leader, {leader}, does not answer here but has a channel to {led.node_id}"


def _how_cut_off(outlook: Outlook, leader: NodeStatus) -> str:
    why = "no follower that answers has a channel to it"
    if has_channel(leader, outlook.nodes):
        why = "most nodes that answer have promised themselves to a newer epoch"
    return f"{leader.node_id} leads epoch {leader.epoch}, but {why}"


def _question(outlook: Outlook, target: NodeStatus) -> str:
    instead = ""
    if outlook.leader is not None:
        instead = f" in place of {outlook.leader.node_id}, which leads"
    elif outlook.led is not None:
        instead = f" in place of the leader that has a channel to {outlook.led.node_id}"
    elif outlook.cut_off is not None:
        instead = f" in place of {outlook.cut_off.node_id}, which is cut off"
    return f"Promote {target.node_id} ({target.url}){instead}?"


def _disagreement(question: str) -> str:
    """Ask; why nothing is done then, empty if the user agrees."""
    try:
        return "" if click.confirm(question, err=True) else "Nothing was changed."
    except (click.Abort, RuntimeError):  # stdin has ended, or is closed; Ctrl-C is `Interrupted`
        click.echo(err=True)  # ends the line of the question
        return "Nothing was changed, for nobody answered: say --yes to agree without being asked."


def explain(console: Console, outlook: Outlook, target: NodeStatus | None) -> None:
    """Show who answers, what is missing, and what would be promised afterwards."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("node", "url", "role", "epoch", "base", "holds", "newest", "holes"):
        is_number = heading not in {"node", "url", "role"}
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    for url, node in outlook.nodes.items():
        role = "leader" if node.is_open else "learner" if not node.base_epoch else node.role
        numbers = (node.epoch, node.base_epoch, node.contiguous, node.max_seq, node.holes)
        name = Text(node.node_id, style="bold" if node is target else "")
        table.add_row(name, url, role, *map(str, numbers))
    for url in outlook.silent:
        table.add_row("?", url, Text("silent", style="red"), *[""] * 5)
    print_whole(console, table)
    console.print()
    old = "answers" if outlook.is_old_leader_here else "does not answer with its data"
    console.print(
        f"{outlook.answering} of {outlook.electors} electors answer, {outlook.majority} are "
        f"needed. The last leader {old}; without it {outlook.required} of {outlook.followers} "
        f"followers are needed, {outlook.survivors} answer.",
        soft_wrap=True,
    )
    if outlook.cut_off is not None:
        console.print(
            f"{_how_cut_off(outlook, outlook.cut_off)}: it acknowledges no write.", soft_wrap=True
        )
    if not outlook.reason:
        console.print(
            f"Afterwards k={outlook.next_quorum}: data survive {_losses(outlook.data_survive)} "
            "beside the leader.",
            soft_wrap=True,
        )


def _losses(number: int) -> str:
    return "no further loss" if not number else f"{number} further loss{'es' * (number > 1)}"


def tell(console: Console, done: dict[str, Any]) -> None:
    """Show what a promotion came to."""
    filled, entries = done["holes_filled"], done["entries"]
    what = "entry" if entries == 1 else "entries"
    write = "no write acknowledged"
    if done["first_write_ms"] is not None:
        write = f"first write acknowledged after {done['first_write_ms']:g} ms"
    holes = f", {filled} holes closed" if filled else ""
    leads = f"{one_line(done['leader'])} leads epoch {done['epoch']}"
    console.print(
        Text.assemble(
            (leads, "bold green"),
            f" with k={done['write_quorum']}: {entries} {what}{holes}; open after "
            f"{done['open_ms']:g} ms, {write}.",
        ),
        soft_wrap=True,
    )
    if done["write_problem"]:
        console.print(Text(done["write_problem"], style="red"), soft_wrap=True)
    if done["may_have_lost"]:
        console.print(Text(one_line(done["may_have_lost"]), style="bold red"), soft_wrap=True)


def _print_json(is_json: bool, outlook: Outlook, done: dict[str, Any] | None) -> None:  # noqa: FBT001
    if is_json:
        found = {**asdict(outlook), "promotion": done}
        print_json(f"{json.dumps(found, indent=2)}\n")
