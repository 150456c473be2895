"""How the command line ends: whatever happens is a sentence on stderr and an exit code.

Nothing that is unforeseen may pass for something that was found out: Python's own code for it, 1,
would say that replicas differ.
"""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

import click

from orchestration.errors import QuorumeterError
from orchestration.exit_codes import ExitCode, of_signal
from orchestration.interrupt import Interrupted
from orchestration.terminal import is_reader_gone, prepare_streams, tell


def end(command: Callable[[], object], *, is_debug: Callable[[], bool] = lambda: False) -> int:
    """Run a command to its end, whatever that is; the exit code.

    Args:
        command: returns an exit code; anything else that it returns is 0.
        is_debug: whether a traceback is shown; asked after the end.
    """
    prepare_streams()
    try:
        found = command()
        code = found if isinstance(found, int) else ExitCode.OK
    except BaseException as problem:  # noqa: BLE001 - each has its code, and none is lost
        code = _code_of(problem, is_debug=is_debug())
    return _close_stdout(code)


def _code_of(problem: BaseException, *, is_debug: bool) -> int:
    """The exit code of an exception, once its sentence has been told."""
    if is_debug:
        traceback.print_exception(problem)
    if isinstance(problem, click.ClickException):
        tell(problem.format_message())
        return ExitCode.USAGE
    if isinstance(problem, (QuorumeterError, Interrupted)):
        tell(str(problem))
        return problem.exit_code
    if isinstance(problem, (KeyboardInterrupt, click.Abort)):  # click's name for the former
        tell("stopped by SIGINT")
        return of_signal(signal.SIGINT)
    if isinstance(problem, SystemExit):  # click's own, at a pipe whose reader has gone
        return ExitCode.OK
    if isinstance(problem, OSError):
        return _code_of_refusal(problem)
    where = "" if is_debug else f" {_keep_traceback(problem)}"
    what = "".join(traceback.format_exception_only(problem)).strip()
    tell(f"this should not have happened, and is a fault of the tool: {what}.{where}")
    return ExitCode.INTERNAL


def _code_of_refusal(problem: OSError) -> int:
    """What the system refused: a full disk, a file of someone else's, a reader that has gone."""
    # An error of a stream names no file; Windows has one number for that and for a bad name.
    if problem.filename is None and is_reader_gone(problem):
        return ExitCode.OK
    where = "" if problem.filename is None else f"{problem.filename}: "
    tell(f"{where}{problem.strerror or problem}.")
    return ExitCode.IO


def _keep_traceback(problem: BaseException) -> str:
    """Write the traceback to a file, and say where; to stderr where no file can be written."""
    text = "".join(traceback.format_exception(problem))
    try:
        handle, path = tempfile.mkstemp(prefix="quorumeter-", suffix=".traceback", text=True)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError:
        click.echo(text, err=True)
        return ""
    return f"Its traceback is in {path}."


def _close_stdout(code: int) -> int:
    """Write out what is left of stdout, which Python would complain about after the last word."""
    try:
        sys.stdout.flush()
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or _code_of_refusal(problem)
    return code
