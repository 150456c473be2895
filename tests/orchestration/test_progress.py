"""What is told while a sweep runs, and to whom."""

import io

import pytest
from rich.console import Console

from orchestration.control import Link, Positions
from orchestration.errors import ClusterError
from orchestration.load.results import TimelineRow
from orchestration.progress import LineProgress, LiveProgress, Progress, make_progress
from orchestration.scenario import Cell
from orchestration.terminal import _Forgiving

CELL = Cell(block=0, k=3, seed=1)
ROW = {
    "response_ms": {"p50": 50.0, "p99": 99.0},
    "achieved_rate": 99.75,
    "errors": {"outcome_unknown": 1},
    "parity": {"status": "match"},
    "stamp": "ok",
    "reason": "",
}
SECOND = TimelineRow(2.0, 100, 99, 98, 1, 0, 5, 50.0, 99.0, 100.0)
LINK = Link("http://f", "follower1", 1, 7, 0, is_connected=True, is_learner=False, detail="")
POSITIONS = Positions(epoch=1, last_seq=9, stable_seq=8, links=(LINK,))


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        """It is."""
        return True


def console(*, is_terminal: bool = False) -> tuple[Console, io.StringIO]:
    """A console that writes into a string."""
    text = Terminal() if is_terminal else io.StringIO()
    return Console(file=text, force_terminal=is_terminal, width=100, color_system=None), text


def tell(progress: Progress) -> None:
    """A sweep of one trial."""
    progress.say("[starting]")
    with progress.running(1):
        progress.trial_started(CELL, 0)
        progress.row(SECOND)
        progress.comparing()
        progress.trial_ended(CELL, ROW)


def test_lines_have_one_for_each_trial() -> None:
    """A log gets the message as it is and a line that says how the trial went."""
    out, text = console()
    tell(LineProgress(out))
    assert text.getvalue().splitlines() == [
        "[starting]",
        "[1/1] block 1 k=3  99.8/s  p50 50.0 ms  p99 99.0 ms  errors 1  replicas match",
    ]


def test_a_trial_that_is_not_ok_says_why() -> None:
    """The stamp and its reason end the line."""
    out, text = console()
    LineProgress(out).trial_ended(
        CELL, ROW | {"stamp": "invalid", "reason": "no request succeeded"}
    )
    assert text.getvalue().endswith("invalid: no request succeeded\n")


def test_a_terminal_sees_the_running_trial_and_the_replicas() -> None:
    """Which cell, its last second, and how far each follower is behind."""
    out, text = console(is_terminal=True)
    progress = LiveProgress(out, lambda: POSITIONS)
    with progress.running(2):
        progress.trial_started(CELL, 1)
        progress.row(SECOND)
        out.print(progress._render())
    shown = text.getvalue()
    for words in ("block 1, k=3", "1/2", "p50 50.0 ms", "errors 1", "leader 9", "follower1 -2"):
        assert words in shown


def test_replicas_that_do_not_answer_do_not_end_the_view() -> None:
    """The view says what the leader's silence looked like, and goes on."""

    def refuse() -> Positions:
        raise ClusterError("http://leader does not answer")

    out, text = console(is_terminal=True)
    progress = LiveProgress(out, refuse)
    with progress.running(1):
        progress.row(SECOND)
        out.print(progress._render())
    assert "does not answer" in text.getvalue()


@pytest.mark.parametrize(
    ("is_terminal", "is_quiet", "kind"),
    [(True, False, LiveProgress), (False, False, LineProgress), (True, True, Progress)],
)
def test_the_fitting_progress_is_taken(
    *, is_terminal: bool, is_quiet: bool, kind: type[Progress]
) -> None:
    """Live on a terminal, lines elsewhere, nothing if quiet."""
    out, text = console(is_terminal=is_terminal)
    progress = make_progress(out, lambda: POSITIONS, is_quiet=is_quiet)
    assert type(progress) is kind
    tell(progress)
    assert bool(text.getvalue()) is not is_quiet


def test_a_log_is_no_terminal_for_being_coloured() -> None:
    """FORCE_COLOR in a CI asks for colors; a live view would fill the log."""
    text = io.StringIO()
    out = Console(file=text, force_terminal=True)
    assert type(make_progress(out, lambda: POSITIONS, is_quiet=False)) is LineProgress


def test_a_terminal_that_was_closed_does_not_break_what_writes_to_it() -> None:
    """Clean-up goes on when nobody reads any more."""

    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    tell(LineProgress(Console(file=_Forgiving(Closed(), forgives_all=True))))  # type: ignore[arg-type]
