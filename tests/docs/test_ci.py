"""What decides whether a change lands needs nothing but the project and a package registry."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.bench.__main__ import make_parser as make_bench_parser
from tests.docs.pages import ROOT
from tests.docs.test_commands import sessions

SCRIPTS = sorted(path for path in (ROOT / ".ci").iterdir() if path.is_file())
RUN = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_ci_reaches_nothing_outside_the_project(script: object) -> None:
    """What it calls lies under .ci/, and it names no registry: those are the machine's settings."""
    text = (ROOT / ".ci" / getattr(script, "name", "")).read_text(encoding="utf-8")
    text = text.replace('cd "$(dirname "$0")/.."', "")
    assert not re.findall(r"\.\./\S*|/work\b\S*|https?://\S+", text)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_ci_is_a_valid_script(script: object) -> None:
    """The shell can read each script to its end."""
    name = str(ROOT / ".ci" / getattr(script, "name", ""))
    done = subprocess.run(["bash", "-n", name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_ci_calls_sessions_that_exist() -> None:
    """Each ``-s NAME``, and each campaign of the loop."""
    named = {
        name
        for names in re.findall(r"-s ([a-z ]+?)(?: --|$)", RUN, re.MULTILINE)
        for name in names.split()
    }
    looped = re.search(r"for campaign in ([a-z ]+);", RUN)
    assert looped
    named |= set(looped[1].split())
    assert {"tests", "sweep", "lint", "types", "bench", "compose"} <= named
    assert named <= sessions()


def test_ci_gives_the_bench_what_it_takes() -> None:
    """Values too: a bench that refuses its options turns everything red after half an hour."""
    calls = re.findall(r"-s bench -- (.+)$", RUN, re.MULTILINE)
    assert any("--against" in call for call in calls)
    for call in calls:
        make_bench_parser().parse_args(call.split())  # exits where it refuses one


def test_ci_leaves_nothing_out_where_something_is_missing() -> None:
    """No step hangs on whether a program is there: what is missing is installed, or a failure."""
    code = "\n".join(line for line in RUN.splitlines() if not line.lstrip().startswith("#"))
    assert not re.findall(r"\btype \S+|was not tested|\bskip\w*", code)
    for script in ("docker-engine.sh start", "base-image.sh", "docker-engine.sh plugin"):
        (line,) = [line for line in RUN.splitlines() if line.endswith(f".ci/{script}")]
        assert "||" not in line
