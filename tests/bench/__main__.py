"""``nox -s bench``: the store's speed, next to yardsticks, to etcd and to Redis.

With ``--against REV`` this tree next to one of its revisions instead.

Absolute rates are those of one machine on one day: what travels is the ratios, of medians over
rounds in which the candidates take turns.
"""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from rich.console import Console

from orchestration.clusters.processes import no_child_left
from tests.bench.against import measure_against
from tests.bench.damage import measure_damage
from tests.bench.durability import measure_durability
from tests.bench.etcd import measure_etcd
from tests.bench.failover import measure_failover
from tests.bench.generator import measure_generator
from tests.bench.part import Bench, describe_machine, disk_folder, require
from tests.bench.reads import measure_reads
from tests.bench.recorder import measure_recorder
from tests.bench.redis import measure_redis
from tests.bench.speed import measure_speed, measure_start
from tests.bench.storage import measure_storage
from tests.bench.theory import measure_theory
from tests.bench.tree import find_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

LEAST_ROUNDS = 3
# Turns of each candidate, and their length in seconds. A turn against a revision has five loads in
# it, and an interval over pairs wants more of them than a median does.
ROUNDS, SECONDS = 5, 4
ROUNDS_AGAINST, SECONDS_AGAINST = 10, 2
AGAINST_PROGRAMS = ("git", "wrk")
# What a shell makes of a program that Ctrl-C ended.
EXIT_STOPPED = 130


class Part(NamedTuple):
    """One part of the bench, and the programs that it starts."""

    measure: Callable[[Bench], None]
    programs: tuple[str, ...] = ()


PARTS = {
    "start": Part(measure_start),
    "speed": Part(measure_speed, ("wrk",)),
    "durability": Part(measure_durability, ("strace",)),
    "etcd": Part(measure_etcd, ("etcd", "wrk")),
    "redis": Part(measure_redis, ("redis-server", "wrk")),
    "reads": Part(measure_reads, ("wrk",)),
    "failover": Part(measure_failover),
    "storage": Part(measure_storage),
    "damage": Part(measure_damage),
    "theory": Part(measure_theory),
    "generator": Part(measure_generator),
    "recorder": Part(measure_recorder),
}


def main() -> None:
    """Runs the chosen parts one after the other; each prints its tables."""
    options = parse_options()
    parts = {name: PARTS[name] for name in options.parts}
    programs = {program: None for part in parts.values() for program in part.programs}
    require(AGAINST_PROGRAMS if options.against else programs)
    if options.against:
        find_commit(options.against)
    signal.signal(signal.SIGTERM, _stop_like_ctrl_c)
    console = Console(width=100)
    try:
        with disk_folder() as folder, no_child_left():
            bench = Bench(console, folder, options.rounds, options.seconds)
            describe(bench)
            if options.against:
                measure_against(bench, options.against)
            else:
                run_parts(parts, bench)
    except KeyboardInterrupt:
        console.print("Stopped; what was started has ended.")
        raise SystemExit(EXIT_STOPPED) from None


def describe(bench: Bench) -> None:
    """Says what is measured and on what."""
    bench.console.print(describe_machine(bench.folder))
    bench.console.print(f"Medians of {bench.rounds} turns of {bench.seconds} s each.")


def run_parts(parts: Mapping[str, Part], bench: Bench) -> None:
    """Measures the parts one after the other."""
    for name, part in parts.items():
        bench.console.rule(name)
        part.measure(bench)


def make_parser() -> argparse.ArgumentParser:
    """All options of the bench."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument(
        "--rounds", type=_rounds, help=f"turns of each candidate ({ROUNDS}; {ROUNDS_AGAINST})"
    )
    parser.add_argument(
        "--seconds", type=_seconds, help=f"length of a turn ({SECONDS}; {SECONDS_AGAINST})"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--against",
        metavar="REV",
        help="compare this tree with a revision of it, figure by figure (second defaults)",
    )
    what.add_argument(
        "--parts",
        type=_part_names,
        default=list(PARTS),
        help=f"which to run, with commas between: {', '.join(PARTS)}",
    )
    return parser


def parse_options() -> argparse.Namespace:
    """What the command line asks for."""
    options = make_parser().parse_args()
    is_against = options.against is not None
    options.rounds = options.rounds or (ROUNDS_AGAINST if is_against else ROUNDS)
    options.seconds = options.seconds or (SECONDS_AGAINST if is_against else SECONDS)
    return options


def _part_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(
            f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}"
        )
    return names


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < LEAST_ROUNDS:
        raise argparse.ArgumentTypeError(f"a median wants {LEAST_ROUNDS} rounds at least")
    return rounds


def _seconds(text: str) -> int:
    seconds = int(text)
    if seconds < 1:
        raise argparse.ArgumentTypeError("a turn takes 1 s at least")
    return seconds


def _stop_like_ctrl_c(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
