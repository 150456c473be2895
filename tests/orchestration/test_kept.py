"""The cluster that `up` keeps: found, told of, forgotten."""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import httpx
import psutil
import pytest

from orchestration import commands, kept
from orchestration.clusters import processes
from orchestration.clusters.processes import Place, ProcessMark
from orchestration.control import LOOK_TIMEOUT_S, Control
from orchestration.errors import ClusterError
from orchestration.plain_text import one_line
from orchestration.state_file import KeptCluster, KeptNode, StateFile

LEADER, FOLLOWER, DEAD = "http://leader", "http://reached", "http://dead"
# No process has this pid: it is beyond what any system gives out.
NOBODY = ProcessMark(pid=2**30, started=1)
START_ID = "of this test"
HERE = processes.here()
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFile:
    """A state file of the test's own."""
    monkeypatch.setenv("QUORUMETER_STATE_DIR", str(tmp_path))
    return StateFile(tmp_path)


def keep(
    state: StateFile,
    process: ProcessMark | None,
    *,
    place: Place = HERE,
    engine: Literal["local", "compose"] = "local",
) -> None:
    """Note a cluster whose nodes have this process, started at a place."""
    nodes = tuple(KeptNode(n, u, process) for n, u in (("leader", LEADER), ("f1", FOLLOWER)))
    state.write(
        KeptCluster(
            engine=engine,
            nodes=nodes,
            known_urls=("http://known",),
            project="p",
            start_id=START_ID,
            place=place,
        )
    )


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ProcessMark]:
    """A process that was started as a node is, though it is none."""
    environment = {**os.environ, "START_ID": START_ID}
    child = processes.spawn(SLEEP, environment, tmp_path / "node.log")
    while not psutil.Process(child.pid).environ():
        time.sleep(0.001)  # for an instant, while it is loaded, a program has none
    yield processes.mark(child.pid)
    child.kill()
    child.wait()


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
    told = capsys.readouterr()
    assert "k=1 of 2 followers" in told.out
    assert "no answer" in told.out
    assert "The leader's link to f2 (http://dead) is down." in told.err


@pytest.mark.parametrize("name", ["rack[a1]", "db:key:1", "n[/b]", "\x1b[2J", "a\nb"])
def test_status_shows_names_and_urls_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Rich would read some of them as markup or emoji, a terminal others as orders."""
    far = f"http://[fd00::{'9' * 4}]:9203"

    def named(request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host="leader")
        body = answer(request).json()
        if "node_id" in body:
            body["node_id"] = name
        if "links" in body:
            link = body["links"]["http://known"] | {"node_id": name}
            body["links"] = {far: link}
        return httpx.Response(200, json=body)

    def control() -> Control:
        return Control(transport=httpx.MockTransport(named))

    monkeypatch.setattr(commands.Control, "from_environment", control)
    assert commands.status(LEADER, is_json=False) == 0
    told = capsys.readouterr().out
    assert told.count(one_line(name)) == 2
    assert far in told
    assert "\x1b" not in told


def test_status_with_every_link_down_is_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All nodes answer, but no write can be acknowledged: the leader knows why, and it is told."""

    def apart(request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host="leader")
        body = answer(request).json()
        for link in body.get("links", {}).values():
            link |= {"connected": False, "detail": "it has the name of another"}
        return httpx.Response(200, json=body)

    def control() -> Control:
        return Control(transport=httpx.MockTransport(apart))

    monkeypatch.setattr(commands.Control, "from_environment", control)
    assert commands.status(LEADER, is_json=True) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["nodes"][1]["detail"] == "it has the name of another"
    assert "link to leader (http://known) is down (it has the name of another)" in told.err


def test_a_frozen_node_is_waited_for_once_and_shortly(
    monkeypatch: pytest.MonkeyPatch, state: StateFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status and parity ask all nodes at once, and none again that did not answer."""
    waited_s: list[float] = []

    def frozen(request: httpx.Request) -> httpx.Response:
        if request.url.host == "reached":
            waited_s.append(request.extensions["timeout"]["read"])
            raise httpx.ReadTimeout("late", request=request)
        if request.url.path == "/digest":
            return httpx.Response(200, json={"max_seq": 5, "buckets": [], "versions": {}})
        if request.url.path == "/admin/digests":
            return httpx.Response(200, json={})
        body = answer(request).json()
        if "links" in body:
            del body["links"][DEAD]
            body["links"]["http://known"]["contiguous"] = 5
            body["stable_seq"] = 5
        return httpx.Response(200, json=body)

    def control() -> Control:
        return Control(transport=httpx.MockTransport(frozen))

    keep(state, None)
    monkeypatch.setattr(commands.Control, "from_environment", control)
    assert commands.status(None, is_json=False) == 2
    assert commands.parity(None, is_json=False) == 2
    assert waited_s == [LOOK_TIMEOUT_S] * 2
    told = capsys.readouterr().err
    assert "No answer from http://reached: asking the leader" in told
    assert "http://reached could not be compared" in told


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


def test_a_second_up_says_that_one_runs(state: StateFile, node: ProcessMark) -> None:
    """A kept cluster whose processes live is not replaced."""
    keep(state, node)
    with pytest.raises(ClusterError, match="quorumeter down"):
        kept._check_free(state, control())


def test_what_is_left_of_a_dead_cluster_is_forgotten(state: StateFile) -> None:
    """After a reboot `up` works at once."""
    keep(state, NOBODY)
    kept._check_free(state, control())
    assert state.read() is None


@pytest.mark.parametrize("place", [HERE, replace(HERE, boot="an earlier one", pids="pid:[0]")])
def test_down_tolerates_nodes_that_ended_before(state: StateFile, place: Place) -> None:
    """By themselves, or with the machine: it says so, and forgets the cluster."""
    keep(state, NOBODY, place=place)
    with control() as client:
        assert kept.end_kept(client) == "Ended 0 of 2 nodes; 2 had ended before."
    assert state.read() is None


def test_down_ends_the_processes_that_up_started(state: StateFile, node: ProcessMark) -> None:
    """And forgets the cluster then."""
    keep(state, node)
    assert kept.end_kept(control()) == "Ended 2 of 2 nodes."
    assert (processes.find(node), state.read()) == (None, None)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (replace(HERE, host="another", boot="another"), "started on another"),
        (replace(HERE, pids="pid:[0]"), "started in another container"),
    ],
)
def test_nodes_that_may_run_elsewhere_are_not_forgotten(
    state: StateFile, place: Place, words: str
) -> None:
    """A process that cannot be found here has not ended for that: a folder may be shared."""
    keep(state, NOBODY, place=place)
    for act in (lambda: kept.end_kept(control()), lambda: kept._check_free(state, control())):
        with pytest.raises(ClusterError, match=words) as told:
            act()
        assert str(state.path) in str(told.value)
        assert state.read() is not None


def test_a_node_that_still_answers_is_not_forgotten(state: StateFile) -> None:
    """Whatever the note says of its process: who answers with the id of the start is alive."""
    keep(state, NOBODY)

    def alive(_: httpx.Request) -> httpx.Response:
        body = {"node_id": "n", "role": "leader", "epoch": 1, "start_id": START_ID}
        return httpx.Response(200, json=body)

    client = Control(transport=httpx.MockTransport(alive))
    with pytest.raises(ClusterError, match="it answers at http://leader"):
        kept.end_kept(client)
    assert state.read() is not None


def test_down_ends_no_process_that_up_did_not_start(state: StateFile, tmp_path: Path) -> None:
    """A note may be forged, or older than the machine's numbering: the process itself decides."""
    child = processes.spawn(SLEEP, os.environ, tmp_path / "log")
    while not psutil.Process(child.pid).environ():
        time.sleep(0.001)
    keep(state, processes.mark(child.pid))
    with pytest.raises(ClusterError, match="is not the node that was started"):
        kept.end_kept(control())
    assert child.poll() is None
    assert state.read() is not None
    child.kill()
    child.wait()


def test_nodes_of_another_user_are_not_forgotten(
    state: StateFile, node: ProcessMark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `sudo quorumeter up` a plain `down` says whose they are."""

    def refuse(*_: object) -> bool:
        raise psutil.AccessDenied(node.pid)

    keep(state, node)
    monkeypatch.setattr(processes, "has_variable", refuse)
    with pytest.raises(ClusterError, match="belongs to another user"):
        kept.end_kept(control())
    assert state.read() is not None


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
