"""Consoles that survive their reader: a closed terminal or pipe must not break a clean-up."""

import io
import sys
from contextlib import suppress
from typing import IO, TextIO, cast

from rich.console import Console


def make_console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr that drops what nobody can read any more."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=cast("IO[str]", _Forgiving(stream)), highlight=False)


class _Forgiving(io.TextIOBase):
    """Passes text on to a stream, until the stream's other end is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override] # a plain attribute in the typeshed
        return self._stream.encoding or "utf-8"

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()
