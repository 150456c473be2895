"""Every job of the project, each with its own set-up: ``nox -l`` lists them.

The sessions use the interpreter that runs nox. Environments are built from the locked versions in
``requirements/`` and reused until these change.
"""

from __future__ import annotations

import hashlib
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
# uv, where it is installed, makes an environment in seconds instead of half a minute.
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True


def _stop_like_ctrl_c(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# A nox that is told to end would leave its session's process behind; one that is interrupted ends
# it first. The exit code is then that of an interrupt.
signal.signal(signal.SIGTERM, _stop_like_ctrl_c)


def install(session: nox.Session, extra: str) -> None:
    """Installs the locked versions and the project, unless just these are there already."""
    lock = ROOT / "requirements" / f"{extra}.txt"
    wanted = hashlib.sha256(lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = Path(session.virtualenv.location) / "installed.sha256"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    session.install("--require-hashes", "-r", str(lock))
    # pip cannot check the hash of a folder, so the project itself comes in a step of its own.
    session.install("--no-deps", "--editable", str(ROOT))
    stamp.write_text(wanted)


def run(session: nox.Session, *command: str) -> None:
    """Runs a command of the environment, and gives it time to clean up when it is stopped."""
    session.run(
        *command,
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
    """Measure the store next to yardsticks, etcd and Redis (needs wrk, strace and both)."""
    install(session, "dev")
    run(session, "python", "-m", "tests.bench", *session.posargs)


def campaign(session: nox.Session, name: str) -> None:
    """Runs one of tests/campaigns with its own options."""
    install(session, "dev")
    run(session, "python", "-m", f"tests.campaigns.{name}", *session.posargs)


@nox.session
def kills(session: nox.Session) -> None:
    """Kill nodes at random under load and account for every write (20 minutes; --short)."""
    campaign(session, "kills")


@nox.session
def catchup(session: nox.Session) -> None:
    """Take a follower's data away under load and watch the leader (15 minutes; --short)."""
    campaign(session, "catchup")


@nox.session
def soak(session: nox.Session) -> None:
    """Write for long and watch memory, disk and errors (60 minutes; --short)."""
    campaign(session, "soak")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Send nonsense over HTTP and the replication channel (15 minutes; --short)."""
    campaign(session, "fuzz")


@nox.session
def failovers(session: nox.Session) -> None:
    """Take leaders away under load, in four ways (an hour; --short)."""
    campaign(session, "failovers")


@nox.session
def simulate(session: nox.Session) -> None:
    """Run whole clusters on a simulated clock, network and disk (20,000 runs; --short)."""
    campaign(session, "simulate")


@nox.session
def comparisons(session: nox.Session) -> None:
    """Compare real runs whose truth is known: A/A, and a slower store (40 minutes; --short)."""
    campaign(session, "comparisons")


@nox.session
def mutants(session: nox.Session) -> None:
    """Break the store in a scratch copy and see the tests go red (--short)."""
    campaign(session, "mutants")


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


@nox.session
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
