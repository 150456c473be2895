"""Tells on stderr what a sweep is doing: live on a terminal, in lines elsewhere, or not at all."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from orchestration.control import Positions
from orchestration.errors import ClusterError
from orchestration.load.results import TimelineRow
from orchestration.scenario import Cell

REFRESH_PER_S = 4


class Progress:
    """Hears what happens and says nothing; the others build on it."""

    def say(self, message: str) -> None:
        """Something that the user should know, in a sentence."""

    @contextmanager
    def running(self, total: int) -> Iterator[None]:
        """Encloses the ``total`` trials of a sweep."""
        del total
        yield

    def trial_started(self, cell: Cell, index: int) -> None:
        """The trial of ``cell`` begins, the ``index``-th of the sweep, counted from 0."""

    def row(self, row: TimelineRow) -> None:
        """What happened in the trial's last second."""

    def comparing(self) -> None:
        """The load has ended, the replicas are being compared."""

    def trial_ended(self, cell: Cell, row: Mapping[str, Any]) -> None:
        """The trial of ``cell`` is over; ``row`` is what was written down of it."""


class LineProgress(Progress):
    """A line for each trial, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0
        self._index = 0

    def say(self, message: str) -> None:
        """Print the message."""
        self._console.print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)

    @contextmanager
    def running(self, total: int) -> Iterator[None]:
        """Note how many trials there are."""
        self._total = total
        yield

    def trial_started(self, cell: Cell, index: int) -> None:
        """Note which trial it is; its line comes at its end."""
        del cell
        self._index = index

    def trial_ended(self, cell: Cell, row: Mapping[str, Any]) -> None:
        """Print the trial's line."""
        self.say(f"[{self._index + 1}/{self._total}] {describe_trial(cell, row)}")


class LiveProgress(LineProgress):
    """Lines for the trials that are over, and below them the one that runs.

    Args:
        console: a terminal on stderr.
        ask_positions: where the replicas stand; asked about once a second while a trial runs.
    """

    def __init__(self, console: Console, ask_positions: Callable[[], Positions]) -> None:
        super().__init__(console)
        self._ask_positions = ask_positions
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=None)
        self._load = Text("")
        self._replicas = Text("")

    @contextmanager
    def running(self, total: int) -> Iterator[None]:
        """Show the live view while the trials run."""
        self._bar.update(self._task, total=total)
        with super().running(total), self._live():
            yield

    def trial_started(self, cell: Cell, index: int) -> None:
        """Show which trial runs."""
        super().trial_started(cell, index)
        self._bar.update(
            self._task,
            description=f"block {cell.block + 1}, k={cell.k} {cell.ack}".rstrip(),
            completed=index,
        )
        self._load = Text("warming up", style="dim")

    def row(self, row: TimelineRow) -> None:
        """Show the second, and where the replicas stand."""
        self._load = Text(describe_row(row))
        try:
            self._replicas = Text(describe_positions(self._ask_positions()), style="dim")
        except ClusterError as problem:
            self._replicas = Text(str(problem), style="red")

    def comparing(self) -> None:
        """Show that the load has ended."""
        self._load = Text("comparing replicas", style="dim")

    def trial_ended(self, cell: Cell, row: Mapping[str, Any]) -> None:
        """Print the trial's line above the live view."""
        super().trial_ended(cell, row)
        self._bar.advance(self._task)

    def _live(self) -> Live:
        return Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
        )

    def _render(self) -> RenderableType:
        return Group(self._bar, self._load, self._replicas)


def describe_trial(cell: Cell, row: Mapping[str, Any]) -> str:
    """One trial in one line."""
    response_ms = row["response_ms"]
    errors = sum(row["errors"].values())
    parts = [
        f"block {cell.block + 1} k={cell.k}{' fsync' if cell.ack == 'fsync' else ''}",
        f"{row['achieved_rate']:.1f}/s",
        f"p50 {_ms(response_ms['p50'])}",
        f"p99 {_ms(response_ms['p99'])}",
        f"errors {errors}",
        f"replicas {row['parity']['status']}",
    ]
    if row["stamp"] != "ok":
        parts.append(f"{row['stamp']}: {row['reason']}")
    return "  ".join(parts)


def describe_row(row: TimelineRow) -> str:
    """The last second of a trial in one line."""
    return (
        f"{row.t_s:5.1f} s   {row.ok} ok   p50 {_ms(row.response_p50_ms)}   "
        f"p99 {_ms(row.response_p99_ms)}   errors {row.errors}   in flight {row.in_flight}"
    )


def describe_positions(positions: Positions) -> str:
    """Where the leader stands, and how far behind each follower is, in entries."""
    followers = [
        f"{link.node_id or link.url} "
        + (f"-{positions.last_seq - link.contiguous}" if link.is_connected else "away")
        for link in positions.links
    ]
    return "   ".join([f"leader {positions.last_seq}", *followers])


def make_progress(
    console: Console, ask_positions: Callable[[], Positions], *, is_quiet: bool
) -> Progress:
    """The fitting one: none if quiet, live on a terminal, lines elsewhere."""
    if is_quiet:
        return Progress()
    # The stream itself is asked: FORCE_COLOR in a CI is for colors, and no terminal.
    is_live = console.is_terminal and console.file.isatty()
    return LiveProgress(console, ask_positions) if is_live else LineProgress(console)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
