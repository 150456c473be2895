"""What is remembered between `up` and `down`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.clusters.processes import ProcessMark
from orchestration.errors import ClusterError
from orchestration.state_file import KeptCluster, KeptNode, StateFile, state_folder

KEPT = KeptCluster(
    engine="local",
    nodes=(
        KeptNode("leader", "http://127.0.0.1:1", ProcessMark(11, 1.5)),
        KeptNode("follower1", "http://127.0.0.1:2", ProcessMark(12, 1.75)),
    ),
    known_urls=("http://inside:2",),
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


@pytest.mark.parametrize("change", ["", "{", "[]", '{"schema": 9}', '{"schema": 1, "nodes": []}'])
def test_a_damaged_file_is_told_by_its_name(tmp_path: Path, change: str) -> None:
    """Never a traceback, and never processes ended on a guess."""
    state = StateFile(tmp_path)
    state.path.write_text(change)
    with pytest.raises(ClusterError, match=r"cluster\.json is damaged"):
        state.read()


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
