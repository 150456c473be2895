"""What the root of all runs shows of the last one: ``latest``, and the original workload's files.

What has one of these names there and was not made here is somebody's: it stays, whatever it is.
"""

from __future__ import annotations

import os
import secrets
import shutil
from typing import TYPE_CHECKING

from orchestration.report.mark import may_replace
from orchestration.report.write import CHART_NAME, PERF_SUMMARY_NAME, replace_file

if TYPE_CHECKING:
    from pathlib import Path

# What also lies in the root, where the original workload had it.
COPIED = (f"{CHART_NAME}.png", f"{PERF_SUMMARY_NAME}.json")
LATEST_NAME = "latest"
# Says of a copy of a run that it was made here, and may be replaced.
COPY_MARK = ".quorumeter-copy"
# A run's folder is <scenario>/<timestamp> below the root.
_RUN_PARTS = 2


def publish(root: Path, run_dir: Path) -> list[str]:
    """Make a run the one that the root shows: as ``latest``, and by its ``COPIED`` files.

    Returns:
        Of each that is not this run's, why: a sentence.
    """
    refusals = [_publish_file(root / name, run_dir / name) for name in COPIED]
    return [refusal for refusal in [*refusals, point_latest(root, run_dir)] if refusal]


def _publish_file(target: Path, source: Path) -> str:
    if not source.exists():
        return ""
    try:
        if not may_replace(target):
            return _refusal(target, source)
        replace_file(target, source.read_bytes())
    except OSError as problem:
        return f"{target} could not be made this run's ({problem.strerror}), which is {source}."
    return ""


def _refusal(target: Path, source: Path) -> str:
    return f"{target} is not one of quorumeter's, and stays as it is; this run's is {source}."


def point_latest(root: Path, run_dir: Path) -> str:
    """Make ``root/latest`` the run: a relative link, or a marked copy where links are refused.

    Returns:
        Why ``latest`` is not this run, a sentence; empty if it is.
    """
    latest = root / LATEST_NAME
    if not _is_own(latest):
        return _refusal(latest, run_dir)
    try:
        _replace_latest(latest, run_dir)
    except OSError as problem:
        return f"{latest} could not be made this run ({problem.strerror}), which is {run_dir}."
    return ""


def _is_own(latest: Path) -> bool:
    """Whether it is free, a link to a run below the same root, or a copy with our mark."""
    if latest.is_symlink():
        target = latest.readlink()
        is_below = len(target.parts) == _RUN_PARTS and not target.is_absolute()
        return is_below and (not latest.exists() or (latest / "manifest.json").is_file())
    return not latest.exists() or (latest / COPY_MARK).is_file()


def _replace_latest(latest: Path, run_dir: Path) -> None:
    # A name of its own: one that a killed run left behind must not be in the way.
    temporary = latest.with_name(f".{LATEST_NAME}.{secrets.token_hex(4)}")
    try:
        target = os.path.relpath(run_dir.resolve(), latest.parent.resolve())
        temporary.symlink_to(target, target_is_directory=True)
    except (OSError, NotImplementedError):
        shutil.copytree(run_dir, temporary)
        (temporary / COPY_MARK).touch()
    try:
        # A link replaces a link at once; a folder that an earlier copy left has to go first.
        if latest.is_dir() and not latest.is_symlink():
            shutil.rmtree(latest)
        elif not temporary.is_symlink():
            latest.unlink(missing_ok=True)
        temporary.replace(latest)
    except OSError:
        if temporary.is_symlink():
            temporary.unlink()
        else:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
