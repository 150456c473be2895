"""What is written to stdout and stderr: by consoles that survive their reader, in any encoding.

A closed terminal or pipe must not break a clean-up, and nobody is left to complain to. A full disk
behind stdout is another matter: what was asked for is not there.
"""

import errno
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from orchestration.plain_text import visible

# As wide as any table gets.
_UNLIMITED = 100_000

# A terminal that was closed; a pipe without a reader is a BrokenPipeError, or EINVAL on Windows.
_GONE = {errno.EPIPE, errno.ESHUTDOWN, *({errno.EINVAL} if os.name == "nt" else ())}


def prepare_streams() -> None:
    """Make stdout and stderr take any text, and be there even if the caller has closed them.

    What an encoding does not have, such as ± in ASCII, is replaced by a question mark.
    """
    sys.stdin = sys.stdin or _opened("r")
    sys.stdout = sys.stdout or _opened("w")
    sys.stderr = sys.stderr or _opened("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _opened(mode: str) -> TextIO:
    # The lowest number that is free, which is that of the stream: no file of ours can get it.
    return cast("TextIO", open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123


def make_console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr that drops what nobody can read any more."""
    stream = sys.stderr if stderr else sys.stdout
    return PlainConsole(_Forgiving(stream, forgives_all=stderr))


class PlainConsole(Console):
    """Takes no text for a format.

    URLs and names hold what Rich would read as markup or as the name of an emoji, and those of a
    foreign node may hold what a terminal would obey. Styles come as `Text`, or as an argument.
    """

    def __init__(self, stream: io.TextIOBase, **settings: Any) -> None:
        file = cast("IO[str]", stream)
        super().__init__(file=file, highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """A string as it is; measured and wrapped as it will be seen."""
        return super().render_str(visible(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """All that is shown, also what came as `Text`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def print_whole(console: Console, table: Table) -> None:
    """Print a table of which nothing is cut off.

    In a file or pipe a row is one line, however long. On a terminal cells that may wrap do, and
    where the others do not fit, such as URLs, the terminal breaks the line.
    """
    wanted = console.measure(table, options=console.options.update(max_width=_UNLIMITED))
    width = console.width
    console.width = max(width, wanted.minimum if console.file.isatty() else wanted.maximum)
    try:
        console.print(table)
    finally:
        console.width = width


def tell(sentence: str) -> None:
    """Tell the user on stderr how a command ends that does not end with 0."""
    make_console(stderr=True).print(f"quorumeter: {sentence}", soft_wrap=True)


def print_json(text: str) -> None:
    """Print JSON on stdout; where the encoding lacks a character it is escaped, never replaced."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = f"{json.dumps(json.loads(text), indent=2)}\n"
    make_console().out(text, end="", highlight=False)


def is_reader_gone(problem: OSError, *, was_terminal: bool = False) -> bool:
    """Whether nobody reads a stream any more: a pipe's other end, or a terminal, was closed."""
    is_closed_terminal = was_terminal and problem.errno == errno.EIO
    return isinstance(problem, BrokenPipeError) or problem.errno in _GONE or is_closed_terminal


class _Forgiving(io.TextIOBase):
    """Passes text on to a stream, until the stream's other end is gone.

    Args:
        stream: where to.
        forgives_all: a full disk is no reason either to break off; for what is said besides.
    """

    def __init__(self, stream: TextIO, *, forgives_all: bool) -> None:
        self._stream = stream
        self._forgives_all = forgives_all
        self._was_terminal = stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override] # a plain attribute in the typeshed
        return self._stream.encoding or "utf-8"

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        with self._forgiving():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._forgiving():
            self._stream.flush()

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            is_gone = is_reader_gone(problem, was_terminal=self._was_terminal)
            if not (is_gone or self._forgives_all):
                raise
