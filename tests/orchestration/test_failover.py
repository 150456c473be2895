"""What a promotion would come to, as it looks from outside."""

from __future__ import annotations

import dataclasses
import threading

import httpx
import pytest

from orchestration.control import Control
from orchestration.errors import ClusterError
from orchestration.failover import NodeStatus, judge, look, read_status
from tests.orchestration.members import MEMBERS, NAMELESS, outside, published, status


def answering(*numbers: int, floor: int = 3) -> dict[str, NodeStatus]:
    """Some nodes that answer."""
    return {f"http://n{number}": status(number, floor=floor) for number in numbers}


@pytest.mark.parametrize(
    ("numbers", "floor", "reason"),
    [
        ((3, 4, 5), 3, ""),
        ((4, 5), 3, "3 of 5 electors have to answer, 2 do"),
        ((3, 4, 5), 2, "4 of 5 followers have to answer, 3 do"),
        ((0, 1, 2, 3), 1, ""),
        ((1, 2, 3, 4, 5), 0, "the write quorum was 0"),
        ((0, 1, 2, 3), 0, ""),
    ],
)
def test_outlook_says_what_the_nodes_would(
    numbers: tuple[int, ...], floor: int, reason: str
) -> None:
    """The same rule, so that nobody is asked in vain."""
    outlook = judge(answering(*numbers, floor=floor), {})
    assert outlook.reason.startswith(reason)
    assert bool(outlook.reason) is bool(reason)
    assert set(outlook.missing) == {f"n{n}" for n in range(6) if n not in numbers}


def test_candidate_is_the_voter_of_the_newest_base_that_holds_most() -> None:
    """It has the least to fetch; a learner, or a node of an older epoch, is not asked."""
    nodes = answering(1, 2, 3)
    nodes["http://n3"] = status(3, base_epoch=0, contiguous=99)
    nodes["http://n2"] = status(2, base_epoch=1, contiguous=50)
    nodes["http://n1"] = status(1, base_epoch=2, base_leader="n4")
    outlook = judge(nodes, {})
    assert outlook.candidate is not None
    assert outlook.candidate.node_id == "n1"


def test_leader_is_the_open_one_of_the_newest_epoch() -> None:
    """A superseded one that does not know it may still say that it leads."""
    nodes = answering(1, 2, 3)
    nodes["http://n0"] = status(0, role="leader", is_open=True, epoch=1)
    nodes["http://n1"] = status(1, role="leader", is_open=True, epoch=2, base_epoch=2)
    nodes["http://n2"] = status(2, is_led=True, epoch=2)
    outlook = judge(nodes, {})
    assert outlook.leader is not None
    assert outlook.leader.node_id == "n1"


def test_nodes_count_as_led_in_the_newest_epoch_only() -> None:
    """A leader of an older one is replaced as soon as it hears of that."""
    nodes = answering(1, 2, 3)
    nodes["http://n1"] = status(1, is_led=True)
    nodes["http://n3"] = status(3, is_led=True)
    outlook = judge(nodes, {})
    assert outlook.led is not None
    assert outlook.led.node_id == "n1"
    nodes["http://n2"] = status(2, epoch=2)
    assert judge(nodes, {}).led is None


def test_leader_that_most_have_left_is_none() -> None:
    """It does not know yet, and may say that it leads for as long as nobody reaches it."""
    nodes = answering(1, 2, 3)
    nodes["http://n0"] = status(0, role="leader", is_open=True)
    nodes["http://n1"] = status(1, epoch=2)
    nodes["http://n2"] = status(2, epoch=2)
    nodes["http://n3"] = status(3, is_led=True)
    assert judge(nodes, {}).leader is nodes["http://n0"]  # half have: it may go on with the rest
    nodes["http://n4"] = status(4, epoch=2)
    outlook = judge(nodes, {})
    assert outlook.leader is None
    assert outlook.cut_off is nodes["http://n0"]


def open_leader(**changes: object) -> NodeStatus:
    """The first leader, which takes itself for one, with the newest data."""
    return status(0, role="leader", is_open=True, contiguous=30, **changes)  # type: ignore[arg-type]


def test_leader_that_needs_followers_and_has_a_channel_to_none_is_none() -> None:
    """It acknowledges nothing, and is not who is to lead, though it holds most."""
    nodes = {"http://n0": open_leader(), **answering(1, 2, 3)}
    nodes["http://n1"] = status(1, is_led=True, epoch=0)  # by another one, of before
    outlook = judge(nodes, {})
    assert (outlook.leader, outlook.cut_off) == (None, nodes["http://n0"])
    assert outlook.candidate is nodes["http://n3"]
    assert (outlook.reason, outlook.is_old_leader_here) == ("", True)


def test_leader_that_has_a_channel_to_one_that_answers_is_one() -> None:
    """It may have more to those that do not answer here."""
    nodes = {"http://n0": open_leader(), **answering(1, 2, 3)}
    nodes["http://n2"] = status(2, is_led=True)
    outlook = judge(nodes, {})
    assert (outlook.leader, outlook.cut_off) == (nodes["http://n0"], None)


@pytest.mark.parametrize(
    "nodes",
    [
        {"http://n0": open_leader(floor=0), **answering(1, 2, 3, floor=0)},
        {"http://n0": open_leader()},
        {"http://n0": open_leader(), "http://n1": status(1, base_epoch=0)},
    ],
    ids=["k is 0", "nobody else answers", "a learner answers"],
)
def test_leader_of_which_no_channel_can_be_expected_here_is_one(
    nodes: dict[str, NodeStatus],
) -> None:
    """With k=0 it needs nobody; and followers that do not answer here may answer it."""
    outlook = judge(nodes, {})
    assert (outlook.leader, outlook.cut_off) == (nodes["http://n0"], None)


def test_founders_count_as_the_nodes_count_them() -> None:
    """One that is still in that life has lost nothing, though it holds no base."""
    founders = {f"http://n{number}": f"i{number}" for number in (1, 2, 3)}
    nodes = answering(1)
    nodes["http://n1"] = status(1, founders=founders)
    nodes["http://n2"] = status(2, base_epoch=0, base_leader=None, members=())
    nodes["http://n3"] = status(3, base_epoch=0, base_leader=None, members=())
    outlook = judge(nodes, {})
    assert (outlook.reason, outlook.answering, outlook.survivors) == ("", 3, 3)
    assert outlook.candidate is nodes["http://n1"]
    nodes["http://n3"] = status(3, base_epoch=0, incarnation="another")
    assert judge(nodes, {}).answering == 2


def test_leader_that_is_cut_off_from_most_is_none() -> None:
    """Who cannot be seen, and reaches fewer than half of those that can, is not waited for."""
    nodes = answering(1, 2, 3)
    nodes["http://n1"] = status(1, is_led=True)
    assert judge(nodes, {}).led is None
    del nodes["http://n3"]
    assert judge(nodes, {}).led is nodes["http://n1"]


def test_next_quorum_is_what_the_survivors_can_meet() -> None:
    """And what is promised afterwards follows from it."""
    outlook = judge(answering(1, 2, 3, floor=3), {})
    assert (outlook.next_quorum, outlook.data_survive) == (2, 1)


@pytest.mark.parametrize(("wish", "quorum"), [(None, 1), (0, 0), (2, 2), (3, 3), (4, 3)])
def test_next_quorum_is_what_is_asked_for_now(wish: int | None, quorum: int) -> None:
    """Not held down by what was wanted before, but by who is there to meet it."""
    outlook = judge(answering(0, 1, 2, 3, floor=1), {}).wishing(wish)
    assert outlook.next_quorum == quorum


@pytest.mark.parametrize(("newer", "older"), [(3, 1), (1, 3)])
def test_floor_and_wanted_k_are_those_of_the_newest_record(newer: int, older: int) -> None:
    """As the nodes have it: one that lags does not know better, and other epochs say nothing."""
    nodes = answering(3, 4, 5, floor=older)
    nodes["http://n3"] = status(3, floor=newer, config_epoch=1, config_seq=12)
    nodes["http://n4"] = status(4, floor=older, config_epoch=1, config_seq=9)
    nodes["http://n5"] = status(5, floor=older, config_epoch=2, config_seq=15)
    outlook = judge(nodes, {})
    assert outlook.required == 5 - newer + 1
    assert bool(outlook.reason) is (newer == 1)
    assert outlook.next_quorum == min(newer, 2)


def test_look_finds_the_others_by_what_one_says() -> None:
    """One address is enough; those that do not answer are named."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        url = f"http://{request.url.host}"
        asked.append(url)
        if url in {"http://n0", "http://n5"}:
            raise httpx.ConnectError("refused")
        body = dataclasses.asdict(status(int(url[-1])))
        return httpx.Response(200, json=body)

    control = Control(transport=httpx.MockTransport(answer))
    outlook = look(control, ["http://n2"])
    assert sorted(asked) == [f"http://n{number}" for number in range(6)]
    assert set(outlook.silent) == {"http://n0", "http://n5"}
    assert set(outlook.nodes) == {f"http://n{number}" for number in (1, 2, 3, 4)}


def test_node_that_is_asked_at_another_address_tells_its_own() -> None:
    """A published port. Those that were not heard when the cluster was made have no name in it."""
    urls = published(1, 2, 3, 4, 5)
    outlook = look(outside(0, 1, 2, 3, 4, 5, members=NAMELESS), [*urls, *published(0)])
    assert set(outlook.nodes) == {*urls, *published(0)}
    assert outlook.answering == 5
    assert outlook.missing == ()
    assert not outlook.silent


def test_node_that_tells_an_address_of_no_member_is_known_by_its_name() -> None:
    """A learner does not know the members yet, and its own idea of its URL may be another one."""
    nodes = answering(1, 2, 3)
    nodes["http://elsewhere"] = status(4, url="http://elsewhere", member_url="http://0.0.0.0:8000")
    outlook = judge(nodes, {})
    assert outlook.answering == 4
    assert set(outlook.missing) == {"n0", "n5"}


def test_dead_node_is_silent_once() -> None:
    """As many published ports are silent as members are not heard: these are they."""
    urls = published(0, 1, 2, 3, 4, 5)
    outlook = look(outside(1, 2, 3, 5, members=NAMELESS), urls)
    assert set(outlook.silent) == set(published(0, 4))
    assert outlook.reason == ""


def test_silent_node_whose_other_address_nobody_gave_is_named_by_the_others() -> None:
    """It cannot be told which of the two that are not heard the silent port is."""
    outlook = look(outside(1, 2, 3, 5, members=NAMELESS), published(1, 2, 3, 4, 5))
    assert set(outlook.silent) == {*published(4), "http://n0", "http://n4"}


def test_node_that_is_reached_in_two_ways_counts_once() -> None:
    """By a name and by a number, say: it holds no more for that."""

    def answer(request: httpx.Request) -> httpx.Response:
        host = request.url.host
        number = 1 if host == "alias" else int(host[-1])
        if number > 2:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=dataclasses.asdict(status(number, members=NAMELESS)))

    control = Control(transport=httpx.MockTransport(answer))
    outlook = look(control, ["http://alias", "http://n1", "http://n2"])
    assert {node.node_id for node in outlook.nodes.values()} == {"n0", "n1", "n2"}
    assert (outlook.answering, outlook.survivors) == (2, 2)
    assert "http://n1" not in outlook.silent


def test_nodes_that_want_the_token_are_not_told_to_be_silent() -> None:
    """They run, and the way in is named, though another one does not answer."""

    def refuse(request: httpx.Request) -> httpx.Response:
        if request.url.host == "n0":
            raise httpx.ConnectError("refused")
        return httpx.Response(401, json={"error": {"message": "needs a token"}})

    control = Control(transport=httpx.MockTransport(refuse))
    with pytest.raises(ClusterError, match=r"^http://n1/admin/status .* CLUSTER_TOKEN") as told:
        look(control, ["http://n0", "http://n1"])
    assert "No node answers" not in str(told.value)


def test_nobody_answers() -> None:
    """What to do, and the reason."""

    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    control = Control(transport=httpx.MockTransport(refuse))
    with pytest.raises(ClusterError, match=r"No node answers at http://n1; .*refused"):
        look(control, ["http://n1"])


def test_leader_that_is_cut_off_and_holds_all_data_alone_has_no_successor() -> None:
    """Whoever else answers, though it has promised newer, could begin with nothing."""
    alone = status(0, is_open=True, write_quorum=0, members=MEMBERS[:1])
    others = [status(number, epoch=2, base_epoch=0, members=()) for number in (1, 2)]
    found = judge({node.url: node for node in (alone, *others)}, {})
    assert (found.cut_off, found.candidate) == (alone, None)
    assert found.reason == "no other node that answers holds data"


def test_a_cluster_is_looked_at_in_the_time_of_one_node() -> None:
    """Those that do not answer are waited for together, not in turn."""
    urls = [f"http://n{number}" for number in range(4)]
    together = threading.Barrier(len(urls), timeout=10)

    def silence(request: httpx.Request) -> httpx.Response:
        together.wait()
        raise httpx.ReadTimeout("late", request=request)

    with pytest.raises(ClusterError, match="No node answers"):
        look(Control(transport=httpx.MockTransport(silence)), urls)


def test_names_of_a_foreign_node_are_one_line_and_stay_equal() -> None:
    """The last leader is known by its name, whatever that holds, so each is escaped alike."""
    node = status(0, node_id="a\x1b[2J\n", base_leader="a\x1b[2J\n")
    body = dataclasses.asdict(node)
    read = read_status("http://n0", body)
    assert read.node_id == read.base_leader == "a\\x1b[2J\\n"
