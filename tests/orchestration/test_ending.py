"""How the command line ends, whatever happens: a sentence on stderr, and a code that is true."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
import pytest

from orchestration import commands
from orchestration.cli import run
from orchestration.ending import end
from orchestration.errors import ClusterError, UsageError
from orchestration.exit_codes import ExitCode
from orchestration.interrupt import Interrupted
from tests.orchestration.report import simulated

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is full")


def raising(problem: BaseException) -> object:
    """A command that fails so."""

    def command() -> int:
        raise problem

    return command


@contextmanager
def writing_to(file: TextIO) -> Iterator[TextIO]:
    """A stream into something that may refuse what is left in it at its end, too."""
    try:
        yield file
    finally:
        with suppress(OSError):
            file.close()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The folder of a complete simulated run."""
    return simulated.write_run(tmp_path / "reports" / "writes" / "now", simulated.sweep())


@pytest.mark.parametrize(
    ("problem", "code", "told"),
    [
        (UsageError("Give one."), 64, "Give one."),
        (click.UsageError("No such option: --x"), 64, "No such option: --x"),
        (ClusterError("It is gone."), 2, "It is gone."),
        (Interrupted(signal.SIGTERM), 143, "stopped by SIGTERM"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT"),
        (click.Abort(), 130, "stopped by SIGINT"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/f"),
            74,
            "/f: No space left on device.",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 74, "Disk quota exceeded."),
        (PermissionError(errno.EACCES, "Permission denied", "/f"), 74, "/f: Permission denied."),
        # A file of that name is no stream whose reader has gone, whatever the error is called.
        (BrokenPipeError(errno.EPIPE, "Broken pipe", "/fifo"), 74, "/fifo: Broken pipe."),
    ],
)
def test_what_is_foreseen_ends_with_its_sentence_and_code(
    problem: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr, and no traceback."""
    assert end(raising(problem)) == code  # type: ignore[arg-type]
    assert capsys.readouterr().err == f"quorumeter: {told}\n"


@pytest.mark.parametrize(
    "problem", [ValueError("no [b]such[/b] thing"), RecursionError(), KeyError("k")]
)
def test_what_is_unforeseen_never_ends_with_the_code_of_a_violation(
    problem: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Code 70, a sentence with the error as it is, and the traceback in the file that it names."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert end(raising(problem)) == 70  # type: ignore[arg-type]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(problem) in told
    named = re.search(r"traceback is in (\S+)\.\n", told)
    assert named is not None
    assert "raise problem" in Path(named[1]).read_text(encoding="utf-8")


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the sentence, and then no file is left."""
    monkeypatch.setattr(commands, "down", raising(ValueError("odd")))
    assert run(["--debug", "down"]) == 70
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert "ValueError: odd" in told
    assert "traceback is in" not in told


def test_no_code_but_that_of_a_violation_is_pythons_own_for_a_crash() -> None:
    """1 is what Python ends with by itself: it is taken, and nothing else may share it."""
    assert [code.name for code in ExitCode if code == 1] == ["VIOLATED"]


@needs_full
@pytest.mark.parametrize("arguments", [["--help"], ["sweep", "--dry-run", "--json"], ["down"]])
def test_a_full_disk_behind_stdout_is_told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cut text must not pass for a whole one: code 74 and a sentence."""
    with writing_to(FULL.open("w", encoding="utf-8")) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run(arguments) == 74
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert told.count("\n") == 1


@needs_full
def test_a_report_on_a_full_disk_is_told(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON that is cut is not 0."""
    with writing_to(FULL.open("w", encoding="utf-8")) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run(["report", str(run_dir), "--json"]) == 74
    assert capsys.readouterr().err.count("\n") == 1


@needs_full
def test_progress_on_a_full_disk_breaks_nothing_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is said beside the data may be lost: a sweep of an hour does not end for it."""
    with writing_to(FULL.open("w", encoding="utf-8")) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert run(["sweep", "--dry-run", "--k", "9"]) == 64
    assert not capsys.readouterr().out


def test_a_reader_that_has_read_enough_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """``quorumeter sweep --dry-run | head -1`` ends with 0."""
    for arguments in (["--help"], ["sweep", "--dry-run"]):
        reading, writing = os.pipe()
        os.close(reading)
        with writing_to(os.fdopen(writing, "w", encoding="utf-8")) as pipe:
            monkeypatch.setattr(sys, "stdout", pipe)
            assert run(arguments) == 0


@pytest.mark.parametrize("closed", [["stdout"], ["stderr"], ["stdin", "stdout", "stderr"]])
def test_streams_that_are_closed_change_no_exit_code(
    closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not want the text does not get it; what was found is told by the code."""
    for arguments, code in ((["sweep", "--dry-run"], 0), (["sweep", "--dry-run", "--k", "9"], 64)):
        for name in closed:
            monkeypatch.setattr(sys, name, None)
        assert run(arguments) == code
        for name in closed:
            getattr(sys, name).close()


def test_no_file_takes_the_place_of_a_closed_stream() -> None:
    """A shell's ``>&-`` frees a number that the next file would get, and be printed into."""
    command = 'exec <&- >&- 2>&-; "$@" down'
    ended = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-m", "orchestration"], check=False
    )
    assert ended.returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16", "latin-1"])
def test_a_text_is_told_in_any_encoding(
    encoding: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question mark stands for what the encoding does not have; JSON is escaped, and whole."""
    for arguments in (["report", str(run_dir)], ["report", str(run_dir), "--json"]):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        assert run(arguments) == 0
        stream.seek(0)
        text = stream.read()
    assert json.loads(text) == json.loads((run_dir / "summary.json").read_bytes())


def test_report_tells_on_stderr_where_its_page_is(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stdout are the tables only, or the JSON, whose readers need no path."""
    assert run(["report", str(run_dir)]) == 0
    captured = capsys.readouterr()
    assert f"Report: {run_dir / 'report.html'}" in captured.err.replace("\n", "")
    assert "report.html" not in captured.out
    assert run(["report", str(run_dir), "--json"]) == 0
    assert "report.html" not in capsys.readouterr().err
