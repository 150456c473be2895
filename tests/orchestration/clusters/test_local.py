"""Local clusters: how nodes are set. Their processes are tested with the real store."""

import re
from pathlib import Path

from orchestration.clusters.local import NODE_VARIABLES, LocalSettings, node_environments


def test_nodes_get_their_own_settings_and_share_a_start_id() -> None:
    """The leader knows all followers and k; every node its name, its port and the delays."""
    settings = LocalSettings(followers=2, delay_ms=(0.5, 100.0), delay_seed=9, write_quorum=1)
    leader, *followers = node_environments(settings, [8000, 8001, 8002], "nonce")
    assert leader == {
        "ROLE": "leader",
        "NODE_ID": "leader",
        "FOLLOWER_URLS": "http://127.0.0.1:8001,http://127.0.0.1:8002",
        "MIN_DELAY_MS": "0.5",
        "MAX_DELAY_MS": "100",
        "DELAY_SEED": "9",
        "WRITE_QUORUM": "1",
        "HOST": "127.0.0.1",
        "PORT": "8000",
        "START_ID": "nonce",
    }
    assert [(node["NODE_ID"], node["PORT"]) for node in followers] == [
        ("follower1", "8001"),
        ("follower2", "8002"),
    ]
    assert {node["ROLE"] for node in followers} == {"follower"}
    assert {node["START_ID"] for node in followers} == {"nonce"}
    delays = {
        (node["MIN_DELAY_MS"], node["MAX_DELAY_MS"], node["DELAY_SEED"]) for node in followers
    }
    assert delays == {("0.5", "100", "9")}  # one that is promoted injects what the leader did


def test_a_leader_alone_has_no_followers() -> None:
    """n=0 is a cluster too."""
    [leader] = node_environments(LocalSettings(followers=0), [8000], "nonce")
    assert not leader["FOLLOWER_URLS"]


def test_every_variable_that_a_node_reads_is_kept_from_it() -> None:
    """The list holds all of the store's settings but the token, which both sides share."""
    source = Path(__file__).parents[3] / "kv_app" / "settings.py"
    calls = re.findall(
        r"reader\.(?:text|integer|real|choice|flag)\(\s*\"([A-Z_]+)\"", source.read_text()
    )
    assert len(calls) > 20
    assert set(calls) - {"CLUSTER_TOKEN"} <= NODE_VARIABLES


def test_nodes_with_a_disk_have_a_folder_each(tmp_path: Path) -> None:
    """Two nodes never share a folder, wherever the nodes are started."""
    settings = LocalSettings(followers=1, data_dir=tmp_path)
    folders = [node["DATA_DIR"] for node in node_environments(settings, [8000, 8001], "nonce")]
    assert folders == [str(tmp_path / "leader"), str(tmp_path / "follower1")]
