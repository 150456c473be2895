"""The cluster that `up` keeps: found, told of, forgotten."""

import json
import os
from pathlib import Path

import httpx
import pytest

from orchestration import commands, kept
from orchestration.clusters.processes import ProcessMark, mark
from orchestration.control import Control
from orchestration.errors import ClusterError
from orchestration.state_file import KeptCluster, KeptNode, StateFile

LEADER, FOLLOWER, DEAD = "http://leader", "http://reached", "http://dead"
# No process has this pid: it is beyond what any system gives out.
NOBODY = ProcessMark(pid=2**30, create_time=1.0)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFile:
    """A state file of the test's own."""
    monkeypatch.setenv("QUORUMETER_STATE_DIR", str(tmp_path))
    return StateFile(tmp_path)


def keep(state: StateFile, process: ProcessMark | None, *, engine: str = "local") -> None:
    """Note a cluster whose nodes have this process."""
    nodes = tuple(KeptNode(n, u, process) for n, u in (("leader", LEADER), ("f1", FOLLOWER)))
    state.write(KeptCluster(engine=engine, nodes=nodes, known_urls=("http://known",)))  # type: ignore[arg-type]


def answer(request: httpx.Request) -> httpx.Response:
    """A leader with one follower that answers elsewhere and one that is dead."""
    if request.url.host == "dead":
        raise httpx.ConnectError("refused", request=request)
    link = {"epoch": 0, "contiguous": 4, "holes": 1, "learner": False}
    bodies: dict[str, dict[str, object]] = {
        "/health": {"node_id": request.url.host, "role": "leader", "epoch": 1, "start_id": "s"},
        "/admin/quorum": {"write_quorum": 1, "followers": 2},
        "/admin/status": {"url": LEADER},
        "/admin/delays": {"min_delay_ms": 0, "max_delay_ms": 9, "delay_model": "fifo"},
        "/admin/links": {
            "epoch": 1,
            "last_seq": 5,
            "stable_seq": 4,
            "links": {
                "http://known": {"node_id": "f1", "connected": True, **link},
                DEAD: {"node_id": "f2", "connected": False, **link},
            },
        },
    }
    return httpx.Response(200, json=bodies[request.url.path])


def control() -> Control:
    """A client that reaches those nodes."""
    return Control(transport=httpx.MockTransport(answer))


def test_the_kept_cluster_is_found_with_its_own_urls(state: StateFile) -> None:
    """Commands address it by the URLs that `up` noted."""
    keep(state, NOBODY)
    target = kept.find_target(None, control())
    assert target == kept.Target(LEADER, {"http://known": FOLLOWER})


def test_a_description_tells_of_every_node_also_of_a_dead_one() -> None:
    """Write quorum, delays, positions; a node that is silent has an error and its name."""
    found = kept.describe_target(kept.Target(LEADER, {"http://known": FOLLOWER}), control())
    assert (found["write_quorum"], found["followers"], found["last_seq"]) == (1, 2, 5)
    assert (found["delay_ms"], found["delay_model"]) == ([0.0, 9.0], "fifo")
    leader, alive, dead = found["nodes"]
    assert (leader["url"], leader["position"], leader["connected"]) == (LEADER, 5, True)
    assert (alive["url"], alive["position"], alive["holes"]) == (FOLLOWER, 4, 1)
    assert (dead["node_id"], dead["connected"]) == ("f2", False)
    assert "does not answer" in dead["error"]


def test_status_with_a_dead_node_is_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and the JSON says which node it is."""
    monkeypatch.setattr(commands.Control, "from_environment", control)
    assert commands.status(LEADER, is_json=True) == 2
    assert json.loads(capsys.readouterr().out)["nodes"][2]["node_id"] == "f2"
    assert commands.status(LEADER, is_json=False) == 2
    table = capsys.readouterr().out
    assert "k=1 of 2 followers" in table
    assert "no answer" in table


@pytest.mark.parametrize(
    ("inner_url", "is_connected", "code"),
    [("http://inner", True, 0), ("http://inner", False, 2), (LEADER, True, 2)],
)
def test_status_at_a_published_port_tells_what_the_leader_knows(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    inner_url: str,
    is_connected: bool,
    code: int,
) -> None:
    """A follower whose link is up is well, unless its URL should work from here as the leader's."""

    def leader_only(request: httpx.Request) -> httpx.Response:
        if request.url.host != "leader":
            raise httpx.ConnectError("no such host", request=request)
        body = answer(request).json()
        if request.url.path == "/admin/status":
            body["url"] = inner_url
        if "links" in body:
            body["links"]["http://known"]["connected"] = is_connected
            del body["links"][DEAD]
        return httpx.Response(200, json=body)

    def control() -> Control:
        return Control(transport=httpx.MockTransport(leader_only))

    monkeypatch.setattr(commands.Control, "from_environment", control)
    assert commands.status(LEADER, is_json=False) == code
    told = capsys.readouterr().out
    assert ("no answer" in told) is (code == 2)
    assert ("http://known cannot be reached from here" in told) is (code == 0)
    assert commands.status(LEADER, is_json=True) == code
    follower = json.loads(capsys.readouterr().out)["nodes"][1]
    assert (follower["node_id"], follower["position"]) == ("f1", 4)
    assert follower.get("epoch") == (None if code else 1)
    assert ("error" in follower) is (code == 2)


def test_a_second_up_says_that_one_runs(state: StateFile) -> None:
    """A kept cluster whose processes live is not replaced."""
    keep(state, mark(os.getpid()))
    with pytest.raises(ClusterError, match="quorumeter down"):
        kept._free_state()


def test_what_is_left_of_a_dead_cluster_is_forgotten(state: StateFile) -> None:
    """After a reboot `up` works at once."""
    keep(state, NOBODY)
    kept._free_state()
    assert state.read() is None


def test_down_tolerates_nodes_that_ended_before(state: StateFile) -> None:
    """It says so, and forgets the cluster."""
    keep(state, NOBODY)
    with control() as client:
        assert kept.end_kept(client) == "Ended 0 of 2 nodes; 2 had ended before."
    assert state.read() is None


def test_kept_cluster_is_found_at_its_new_leader_after_a_failover(state: StateFile) -> None:
    """The first node may be gone, or believe that it still leads an older epoch."""
    keep(state, None)

    def after(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            epoch = 2 if request.url.host == "reached" else 1
            name = "f1" if request.url.host == "reached" else "leader"
            body = {"node_id": name, "role": "leader", "epoch": epoch, "start_id": "s"}
            return httpx.Response(200, json=body)
        link = {"node_id": "leader", "epoch": 2, "contiguous": 1, "holes": 0}
        links = {"http://inside:1": {**link, "connected": True, "learner": False}}
        body = {"epoch": 2, "last_seq": 1, "stable_seq": 1, "links": links}
        return httpx.Response(200, json=body)

    target = kept.find_target(None, Control(transport=httpx.MockTransport(after)))
    assert target.leader_url == FOLLOWER
    assert target.follower_urls == {"http://inside:1": LEADER}
