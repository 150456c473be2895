"""The Docker engine, by its own command."""

from __future__ import annotations

import subprocess


def docker(*arguments: str) -> str:
    """What a docker command printed."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
