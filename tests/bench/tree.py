"""Two checkouts of the project: this tree, and one of a revision in a temporary folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What the store and the load generator of a tree run with.
LOCK = Path("requirements/bench.txt")
# What a tree has to have for the bench to start it.
NEEDED = (Path("kv_app/__main__.py"), Path("orchestration/__main__.py"), LOCK)


@dataclass(frozen=True, slots=True)
class Tree:
    """Code that can be run.

    Attributes:
        name: how tables call it.
        python_path: where Python finds it, and its libraries if they are others than this tree's.
    """

    name: str
    python_path: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """The variables of a process that is to run this tree's code."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, self.python_path))}


def this_tree() -> Tree:
    """The working tree as it is, with what is not committed."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return Tree("this tree" + (", changed" if changed else ""), (ROOT,))


def check_out(revision: str, folder: Path) -> Tree:
    """Lays a revision's files into ``folder``, and its libraries if it has others locked.

    Raises:
        SystemExit: There is no such commit, or it is too old to be compared with; in a sentence.
    """
    commit = find_commit(revision)
    archive = folder / "tree.tar"
    _git("archive", f"--output={archive}", commit)
    code = folder / "tree"
    with tarfile.open(archive) as tar:
        tar.extractall(code, filter="data")
    archive.unlink()
    if missing := [str(path) for path in NEEDED if not (code / path).is_file()]:
        raise SystemExit(
            f"{revision} cannot be compared with: it has no {', '.join(missing)}. "
            "Name a later commit."
        )
    return Tree(f"{revision} ({commit[:9]})", (code, *_libraries(code, folder)))


def find_commit(revision: str) -> str:
    """The full name of a revision's commit.

    Raises:
        SystemExit: There is none; in a sentence.
    """
    try:
        return _git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
        )
    except subprocess.CalledProcessError:
        raise SystemExit(
            f"There is no commit {revision!r} here: name a commit, a branch or a tag of this "
            "checkout, such as HEAD~1."
        ) from None


def _libraries(code: Path, folder: Path) -> tuple[Path, ...]:
    if (code / LOCK).read_bytes() == (ROOT / LOCK).read_bytes():
        return ()
    site, environment = folder / "site", folder / "venv"
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes"]
    subprocess.run([*install, "--target", str(site), "-r", str(code / LOCK)], check=True)
    return (site,)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise SystemExit("--against needs git, and a checkout that has the revision.") from None
    return done.stdout.strip()
