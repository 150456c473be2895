"""Every job of the project, each with its own set-up: ``nox -l`` lists them.

The sessions use the interpreter that runs nox. Environments are built from the locked versions in
``requirements/``, one for all sessions of a lock, and reused until these change.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nox

if TYPE_CHECKING:
    from types import FrameType

ROOT = Path(__file__).parent
# nox waits this long for a session's process after Ctrl-C before it asks it to end, and then again
# before it kills it: enough for a sweep to end its nodes and to write the report of what it has.
INTERRUPT_TIMEOUT_S = 1.0
TERMINATE_TIMEOUT_S = 60.0

# Tests of real processes wait more than they compute: two at a time make use of two cores. More
# would keep nodes waiting for a core longer than some tests allow for.
TEST_WORKERS = 2

# What decides without I/O is covered to the last branch.
PURE_MODULES = (
    "kv_app/delays.py",
    "kv_app/entry_limits.py",
    "kv_app/errors.py",
    "kv_app/failover/electors.py",
    "kv_app/failover/merging.py",
    "kv_app/failover/promises.py",
    "kv_app/failover/quorum_change.py",
    "kv_app/failover/sufficiency.py",
    "kv_app/formation.py",
    "kv_app/log.py",
    "kv_app/outbox.py",
    "kv_app/position_waits.py",
    "kv_app/quorum.py",
    "kv_app/request_limits.py",
    "kv_app/settings.py",
    "kv_app/snapshot.py",
    "kv_app/state.py",
    "kv_app/waits.py",
    "orchestration/analysis/bands.py",
    "orchestration/analysis/comparison.py",
    "orchestration/analysis/fifo.py",
    "orchestration/analysis/histograms.py",
    "orchestration/analysis/noise.py",
    "orchestration/analysis/stats.py",
    "orchestration/analysis/theory.py",
    "orchestration/analysis/wait_model.py",
    "orchestration/audit.py",
    "orchestration/goal.py",
    "orchestration/limits.py",
    "orchestration/load/plan.py",
    "orchestration/load/schedule.py",
    "orchestration/load/waiting.py",
    "orchestration/load/workload.py",
    "orchestration/report/hgrm.py",
    "orchestration/saturation.py",
    "orchestration/scenario.py",
    "orchestration/thresholds.py",
)

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests"]
# Sessions get their environment from `install`, below.
nox.options.default_venv_backend = "none"
nox.options.error_on_missing_interpreters = True


def _stop_like_ctrl_c(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# A nox that is told to end would leave its session's process behind; one that is interrupted ends
# it first. The exit code is then that of an interrupt.
signal.signal(signal.SIGTERM, _stop_like_ctrl_c)


def install(session: nox.Session, extra: str) -> None:
    """Gives the session the environment of a lock; makes it unless it is there as wanted.

    nox would give each session one of its own, of the same 400 MB.
    """
    folder = environment(extra)
    lock = ROOT / "requirements" / f"{extra}.txt"
    made_of = lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + sys.version.encode()
    wanted = hashlib.sha256(made_of).hexdigest()
    stamp = folder / "installed.sha256"
    session.env.update(
        {
            "VIRTUAL_ENV": str(folder),
            "PATH": f"{programs_of(folder)}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }
    )
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    session.log(f"Makes {folder.relative_to(ROOT)} of {lock.name}: under a minute, and once.")
    stamp.unlink(missing_ok=True)
    # uv, where it is installed, makes an environment in seconds instead of half a minute.
    if uv := shutil.which("uv"):
        session.run(uv, "venv", "--clear", f"--python={sys.executable}", str(folder), external=True)
        # Named, since uv's own variables may name another one.
        pip = [uv, "pip", "install", f"--python={program(folder, 'python')}"]
    else:
        session.run(sys.executable, "-m", "venv", "--clear", str(folder), external=True)
        pip = [program(folder, "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    session.run(*pip, "--quiet", "--require-hashes", "-r", str(lock), external=True)
    # pip cannot check the hash of a folder, so the project itself comes in a step of its own.
    session.run(*pip, "--quiet", "--no-deps", "--editable", str(ROOT), external=True)
    stamp.write_text(wanted)


def environment(extra: str) -> Path:
    """Where the virtual environment of a lock is."""
    return ROOT / ".nox" / extra


def programs_of(folder: Path) -> Path:
    """Where a virtual environment keeps its programs."""
    return folder / ("Scripts" if sys.platform == "win32" else "bin")


def program(folder: Path, name: str) -> str:
    """The whole path of a program of a virtual environment."""
    return shutil.which(name, path=str(programs_of(folder))) or name


def run(session: nox.Session, *command: str) -> None:
    """Runs a command of the session's environment; gives it time to clean up when stopped."""
    name, *arguments = command
    session.run(
        program(Path(session.env["VIRTUAL_ENV"] or ""), name),
        *arguments,
        external=True,
        interrupt_timeout=INTERRUPT_TIMEOUT_S,
        terminate_timeout=TERMINATE_TIMEOUT_S,
    )


@nox.session
def sweep(session: nox.Session) -> None:
    """Measure every write quorum on a local cluster and write reports/."""
    install(session, "bench")
    run(session, "quorumeter", "sweep", *session.posargs)


@nox.session
def saturate(session: nox.Session) -> None:
    """Find the highest rate that each write quorum sustains and write reports/."""
    install(session, "bench")
    run(session, "quorumeter", "saturate", *session.posargs)


@nox.session
def web(session: nox.Session) -> None:
    """Start a local cluster and Locust's web UI."""
    install(session, "bench")
    run(session, "quorumeter", "web", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite; arguments are pytest's, and choose from it."""
    install(session, "dev")
    if session.posargs:
        run(session, "pytest", *session.posargs)
        return
    workers = (f"--numprocesses={TEST_WORKERS}", "--dist=worksteal")
    run(session, "pytest", *workers, "-m", "not alone")
    run(session, "pytest", "-m", "alone")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the store next to yardsticks, etcd and Redis, or --against a revision."""
    install(session, "dev")
    run(session, "python", "-m", "tests.bench", *session.posargs)


CAMPAIGNS = {
    "simulate": "Run whole clusters on a simulated clock, network and disk (20,000 runs; --short).",
    "kills": "Kill nodes at random under load and account for every write (20 minutes; --short).",
    "failovers": "Take leaders away under load, in four ways (an hour; --short).",
    "catchup": "Take a follower's data away under load and watch the leader (15 minutes; --short).",
    "soak": "Write for long and watch memory, disk and errors (60 minutes; --short).",
    "fuzz": "Send nonsense over HTTP and the replication channel (15 minutes; --short).",
    "mutants": "Break the store in a scratch copy and see the tests go red (--short).",
    "random_mutants": "Break random lines and see which the tests notice (40 minutes; --short).",
    "comparisons": "Compare real runs whose truth is known: A/A, a slower store (40 min; --short).",
}


def add_campaign(name: str, summary: str) -> None:
    """Makes a session of a program of tests/campaigns; arguments are its own options."""

    def campaign(session: nox.Session) -> None:
        install(session, "dev")
        run(session, "python", "-m", f"tests.campaigns.{name}", *session.posargs)

    campaign.__doc__ = summary
    nox.session(campaign, name=name)


for each, what in CAMPAIGNS.items():
    add_campaign(each, what)


@nox.session
def browser(session: nox.Session) -> None:
    """Show hostile pages in a real browser to real nodes (needs chromium)."""
    install(session, "dev")
    run(session, "pytest", "tests/browser", *session.posargs)


@nox.session
def compose(session: nox.Session) -> None:
    """Test the container image and the compose file (needs a Docker engine)."""
    install(session, "dev")
    run(session, "pytest", "tests/compose", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, import walls and formatting."""
    install(session, "dev")
    run(session, "ruff", "check", *session.posargs)
    run(session, "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    install(session, "dev")
    run(session, "mypy", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure branch coverage of what runs in-process."""
    install(session, "dev")
    unit = ("tests/kv_app", "tests/orchestration")
    run(session, "coverage", "run", "-m", "pytest", *(session.posargs or unit))
    run(session, "coverage", "report")
    pure = ",".join(PURE_MODULES)
    run(session, "coverage", "report", f"--include={pure}", "--fail-under=100")


@nox.session(venv_backend="virtualenv")
def lock(session: nox.Session) -> None:
    """Resolve requirements/*.txt anew from pyproject.toml."""
    session.install("uv")
    for name, extra in (("node", ()), ("bench", ("--extra", "bench")), ("dev", ("--extra", "dev"))):
        session.run(
            "uv",
            "pip",
            "compile",
            "--universal",
            "--generate-hashes",
            "--no-emit-index-url",
            "--no-emit-find-links",
            "--python-version=3.11",
            "--no-header",
            "--quiet",
            "pyproject.toml",
            *extra,
            *session.posargs,
            f"--output-file=requirements/{name}.txt",
        )


if sys.platform == "win32":  # pragma: no cover
    # Ctrl-Break is what a Windows console sends where POSIX has SIGTERM.
    signal.signal(signal.SIGBREAK, _stop_like_ctrl_c)
