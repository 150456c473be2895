"""Two checkouts of the project beside each other."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.bench import tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose first commit has no store, and whose second one has."""
    root = tmp_path / "project"
    for path in (*tree.NEEDED, tree.Path("kv_app/__init__.py"), tree.Path("notes.txt")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("print('committed')\n" if path.name == "__main__.py" else "")
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    for what in ("notes.txt", "."):
        subprocess.run([*git, "add", what], check=True)
        subprocess.run([*git, "commit", "-qm", what], check=True)
    monkeypatch.setattr(tree, "ROOT", root)
    return root


def test_revision_runs_its_own_code(checkout: Path, tmp_path: Path) -> None:
    """What is changed since then is this tree's only."""
    (checkout / "kv_app/__main__.py").write_text("print('changed')\n")
    (tmp_path / "old").mkdir()
    trees = tree.check_out("HEAD", tmp_path / "old"), tree.this_tree()
    said = [
        subprocess.run(
            [sys.executable, "-m", "kv_app"],
            env=each.environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout.strip()
        for each in trees
    ]
    assert said == ["committed", "changed"]
    assert trees[0].name.startswith("HEAD (")
    assert trees[1].name == "this tree, changed"


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("revision", ["nosuch", "--output=x", "HEAD~9", ""])
def test_revision_that_is_none_is_refused(revision: str) -> None:
    """In a sentence, before anything starts."""
    with pytest.raises(SystemExit, match="There is no commit"):
        tree.find_commit(revision)


@pytest.mark.usefixtures("checkout")
def test_revision_without_a_store_is_refused(tmp_path: Path) -> None:
    """It says what the revision lacks."""
    (tmp_path / "old").mkdir()
    with pytest.raises(SystemExit, match=r"has no kv_app/__main__\.py"):
        tree.check_out("HEAD~1", tmp_path / "old")
