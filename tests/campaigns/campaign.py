"""What all campaigns share: options, a folder, stop signals, and a verdict with its exit code."""

from __future__ import annotations

import argparse
import random
import secrets
import shutil
import sys
import tempfile
import time
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from orchestration.clusters import processes
from orchestration.interrupt import Interrupted, SignalGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_SHOWN_EVIDENCE = 40


class Violation(Exception):  # noqa: N818  it is what a campaign looks for, not a failure of its own
    """The store broke a promise.

    Args:
        sentence: Which one.
        evidence: What shows it, one line each.
    """

    def __init__(self, sentence: str, evidence: list[str] | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.evidence = evidence or []


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a campaign runs.

    Attributes:
        options: What the command line said; ``short`` and ``seed`` are always there.
        random: All random choices, from the seed.
        folder: Empty at first; removed at the end unless a promise was broken.
        held: Holds back a stop signal while a process is started and noted.
        console: Where it tells what it does.
    """

    options: argparse.Namespace
    random: random.Random
    folder: Path
    held: Callable[[], AbstractContextManager[None]]
    console: Console

    def say(self, text: str) -> None:
        """Prints a line, unless the user reads none."""
        self.console.print(text, highlight=False)

    def room(self, name: str) -> Path:
        """Returns a new folder of this name below the campaign's."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path


@contextmanager
def removed(folder: Path) -> Iterator[None]:
    """Removes a folder at the end of a block that went well, for disks are small."""
    yield
    shutil.rmtree(folder)


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that every campaign has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.campaigns.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="the form for every day: a minute")
    parser.add_argument("--seed", type=int, help="repeats the random choices of an earlier run")
    return parser


def conduct(parser: argparse.ArgumentParser, campaign: Callable[[Stage], str]) -> None:
    """Runs a campaign and ends the process: with 0, or with 1 if it found a violation.

    Args:
        parser: From ``parser_of``.
        campaign: Returns the sentence of its verdict, or raises ``Violation``.
    """
    options = parser.parse_args()
    if options.seed is None:
        options.seed = secrets.randbits(32)
    console = Console(width=100, soft_wrap=True)
    name = parser.prog.rpartition(".")[2]
    folder = Path(tempfile.mkdtemp(prefix=f"quorumeter-{name}-"))
    form = "short form" if options.short else "full form"
    console.print(f"[bold]{name}[/], {form}, --seed {options.seed}", highlight=False)
    with SignalGuard(watch_parent=True) as guard:
        stage = Stage(options, random.Random(options.seed), folder, guard.held, console)
        sys.exit(_judge(stage, campaign))


def _judge(stage: Stage, campaign: Callable[[Stage], str]) -> int:
    started_s = time.monotonic()
    try:
        with processes.no_child_left():
            sentence = campaign(stage)
    except Violation as found:
        stage.say(f"[bold red]VIOLATED[/] after {time.monotonic() - started_s:.0f} s")
        stage.console.print(found.sentence, markup=False)
        for line in found.evidence[:MAX_SHOWN_EVIDENCE]:
            stage.console.print(f"  {line}", markup=False)
        if len(found.evidence) > MAX_SHOWN_EVIDENCE:
            stage.say(f"  and {len(found.evidence) - MAX_SHOWN_EVIDENCE} more")
        stage.say(f"Data and logs of the nodes are in {stage.folder}.")
        return 1
    except Interrupted as stop:
        stage.say(f"[yellow]{stop}[/]: no verdict.")
        shutil.rmtree(stage.folder, ignore_errors=True)  # a thread may still be at work there
        return stop.exit_code
    stage.say(f"[bold green]HELD[/] after {time.monotonic() - started_s:.0f} s: {sentence}")
    shutil.rmtree(stage.folder)
    return 0
