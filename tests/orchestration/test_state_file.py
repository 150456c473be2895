"""What is remembered between `up` and `down`."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.clusters.processes import Place, ProcessMark
from orchestration.errors import ClusterError
from orchestration.state_file import KeptCluster, KeptNode, StateFile, state_folder

KEPT = KeptCluster(
    engine="local",
    nodes=(
        KeptNode("leader", "http://127.0.0.1:1", ProcessMark(11, 150)),
        KeptNode("follower1", "http://127.0.0.1:2", ProcessMark(12, 175)),
    ),
    known_urls=("http://inside:2",),
    start_id="0f",
    place=Place(host="h", boot="b", pids="pid:[1]"),
)


def test_a_cluster_survives_being_written_and_read(tmp_path: Path) -> None:
    """`down` sees exactly what `up` noted, in a folder that did not exist."""
    state = StateFile(tmp_path / "new")
    state.write(KEPT)
    assert state.read() == KEPT


def test_containers_have_no_process_here(tmp_path: Path) -> None:
    """A kept compose cluster has a project instead of processes."""
    nodes = tuple(replace(node, process=None) for node in KEPT.nodes)
    kept = replace(KEPT, engine="compose", nodes=nodes, project="p")
    state = StateFile(tmp_path)
    state.write(kept)
    assert state.read() == kept


def test_without_a_file_no_cluster_is_kept(tmp_path: Path) -> None:
    """Nothing was started, or `down` has forgotten it."""
    state = StateFile(tmp_path)
    assert state.read() is None
    state.write(KEPT)
    state.remove()
    state.remove()
    assert state.read() is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema": 9}',
        b'{"schema": 2, "nodes": []}',
        b"\xed\xa0\x80",
        b"[" * 100_000,
        b'{"schema": "2"}',
    ],
)
def test_a_damaged_file_is_told_by_its_name(tmp_path: Path, content: bytes) -> None:
    """Never a traceback, and never processes ended on a guess."""
    state = StateFile(tmp_path)
    state.path.write_bytes(content)
    with pytest.raises(ClusterError, match=r"cluster\.json is damaged"):
        state.read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("url", 5),
        ("process", {"pid": -1, "started": 1}),
        ("process", {"pid": 0, "started": 1}),
        ("process", {"pid": "1", "started": 1}),
        ("process", {"pid": 1, "started": None}),
        ("process", [1]),
        ("node_id", None),
    ],
)
def test_a_file_with_values_of_wrong_kinds_is_damaged(
    tmp_path: Path, name: str, value: object
) -> None:
    """No pid of a whole group of processes, and no URL that is a number, gets through."""
    state = StateFile(tmp_path)
    state.write(KEPT)
    body = json.loads(state.path.read_text())
    body["nodes"][0][name] = value
    state.path.write_text(json.dumps(body))
    with pytest.raises(ClusterError, match=r"cluster\.json is damaged"):
        state.read()


@pytest.mark.skipif(os.name == "nt", reason="links take rights on Windows")
def test_writing_follows_no_link(tmp_path: Path) -> None:
    """Whatever lies in the folder, a file elsewhere is not written to."""
    mine = tmp_path / "thesis.tex"
    mine.write_text("mine")
    for name in ("cluster.new", "cluster.json"):
        (tmp_path / name).symlink_to(mine)
    state = StateFile(tmp_path)
    state.write(KEPT)
    assert (mine.read_text(), state.read()) == ("mine", KEPT)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_the_folder_is_its_owners_only(tmp_path: Path) -> None:
    """What `down` ends stands there, so nobody else may write it."""
    state = StateFile(tmp_path / "new")
    state.write(KEPT)
    assert state.path.parent.stat().st_mode & 0o777 == 0o700


def test_one_command_at_a_time_changes_the_kept_cluster(tmp_path: Path) -> None:
    """The second of two `up` is told at once, and may go on when the first has ended."""
    first, second = StateFile(tmp_path), StateFile(tmp_path)
    with first.locked(), pytest.raises(ClusterError, match="is at work"), second.locked():
        pass
    with second.locked():
        pass


def test_a_file_with_too_few_urls_is_damaged(tmp_path: Path) -> None:
    """Every follower has one URL as its leader knows it."""
    state = StateFile(tmp_path)
    state.write(KEPT)
    body = json.loads(state.path.read_text()) | {"known_urls": []}
    state.path.write_text(json.dumps(body))
    with pytest.raises(ClusterError, match="damaged"):
        state.read()


def test_followers_are_reached_at_their_own_urls() -> None:
    """From the leader's name for a follower to the address that answers from here."""
    assert KEPT.leader_url == "http://127.0.0.1:1"
    assert KEPT.follower_urls == {"http://inside:2": "http://127.0.0.1:2"}


def test_the_folder_can_be_chosen(tmp_path: Path) -> None:
    """QUORUMETER_STATE_DIR wins over the user's own folder."""
    assert state_folder({"QUORUMETER_STATE_DIR": str(tmp_path)}) == tmp_path
    assert state_folder({}).name == "quorumeter"
