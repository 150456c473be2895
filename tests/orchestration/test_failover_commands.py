"""What ``failover`` and ``watch`` say and do where only some URLs of the nodes work from here."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from orchestration import failover_commands
from orchestration.errors import ClusterError, OutcomeUnknownError, UsageError
from tests.orchestration.members import NAMELESS, outside, published

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.control import Control

    Answers = Callable[[httpx.Request], httpx.Response]


# What a leader says that no follower is led by.
CUT_OFF = {"role": "leader", "is_open": True, "contiguous": 20, "holes": 0}


# What a node answers that leads now.
PROMOTED = {
    "epoch": 2,
    "leader": "n5",
    "entries": 9,
    "holes_filled": 0,
    "write_quorum": 2,
    "may_have_lost": "What only n0 had is lost.",
}


def all_told(capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says: where things stand on stdout, why it does nothing on stderr."""
    told = capsys.readouterr()
    return told.out + told.err


class Stopped(Exception):  # noqa: N818 - no error: it ends a watch
    """The test has watched for long enough."""


@pytest.fixture
def calls() -> list[httpx.Request]:
    """What was asked of the nodes, beside where they stand."""
    return []


def failover(
    monkeypatch: pytest.MonkeyPatch,
    control: Control,
    *urls: str,
    to: str | None = None,
    force: bool = False,
    is_agreed: bool = True,
    is_json: bool = False,
) -> int:
    """Runs the command as somebody who agrees to all."""
    monkeypatch.setattr(failover_commands.Control, "from_environment", lambda: control)
    return failover_commands.failover(
        urls, to, None, force=force, is_agreed=is_agreed, is_dry_run=False, is_json=is_json
    )


def take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes waiting free, for a minute."""
    now_s = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        if now_s > 60:
            raise Stopped

    clock = SimpleNamespace(monotonic=lambda: now_s, sleep=sleep)
    monkeypatch.setattr(failover_commands, "time", clock)


def watch(
    monkeypatch: pytest.MonkeyPatch, control: Control, *urls: str, after_s: float = 3.0
) -> None:
    """Watches for a minute, which takes no time."""
    take_no_time(monkeypatch)
    monkeypatch.setattr(failover_commands.Control, "from_environment", lambda: control)
    with pytest.raises(Stopped):
        failover_commands.watch(urls, after_s, is_once=False)


def test_refusal_by_who_sees_one_node_only_does_not_advise_force(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody knows from here if the others are gone; it takes URLs that work."""
    assert failover(monkeypatch, outside(2), *published(2)) == 2
    told = all_told(capsys)
    assert "A promotion would be refused: 3 of 5 electors have to answer, 1 do." in told
    assert "http://n0, http://n1, http://n3, http://n4, http://n5 may be known to" in told
    assert "--node" in told
    assert "/admin/promote" in told
    assert "--force" not in told


def test_refusal_by_who_sees_all_that_there_are_advises_force(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every published port was asked: who is silent is gone."""
    assert failover(monkeypatch, outside(1, 2), *published(0, 1, 2, 3, 4, 5)) == 2
    assert "use --force if they are gone for good" in all_told(capsys)


@pytest.mark.parametrize("force", [True, False])
def test_leader_that_a_node_is_led_by_is_not_replaced_unasked(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[httpx.Request],
    *,
    force: bool,
) -> None:
    """Not by force either, unless who is to lead is named."""
    control = outside(2, calls=calls, is_led=True)
    assert failover(monkeypatch, control, *published(2), force=force) == 2
    told = all_told(capsys)
    assert "A leader, http://n0, does not answer here but has a channel to n2" in told
    assert "--to" in told
    assert "--force" not in told
    assert not calls


def test_node_that_is_about_to_lead_is_not_said_to_be_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers, and waits for a majority: who promotes another one now ends that attempt."""
    assert failover(monkeypatch, outside(0, 1, 2, is_led=True), *published(0, 1, 2)) == 2
    told = all_told(capsys)
    assert "n0 is about to lead, and waits for other nodes to hold its base" in told
    assert "does not answer" not in told.split("nothing is done")[0].split("n0 is about")[1]


def test_leader_that_a_node_is_led_by_is_replaced_by_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, calls: list[httpx.Request]
) -> None:
    """It may be frozen: followers take some seconds to notice."""
    control = outside(1, 2, 3, 4, 5, calls=calls, is_led=True)
    urls = published(1, 2, 3, 4, 5)
    with pytest.raises(ClusterError, match="Not you"):
        failover(monkeypatch, control, *urls, to=urls[2])
    assert [call.url.path for call in calls] == ["/admin/promote"]


@pytest.mark.parametrize("name", ["n3", "http://n3", "http://n3/", published(3)[0]])
def test_node_that_is_to_lead_is_named_by_any_of_its_names(
    monkeypatch: pytest.MonkeyPatch, calls: list[httpx.Request], name: str
) -> None:
    """It is asked where it answers."""
    control = outside(1, 2, 3, 4, calls=calls, members=NAMELESS)
    with pytest.raises(ClusterError, match="Not you"):
        failover(monkeypatch, control, *published(1, 2, 3, 4), to=name)
    assert [str(call.url) for call in calls] == [f"{published(3)[0]}/admin/promote"]


@pytest.mark.parametrize("name", ["n5", "http://n5", "http://stranger", "n", ""])
def test_node_that_is_to_lead_and_is_not_heard_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With those that may be named."""
    control = outside(1, 2, members=NAMELESS)
    with pytest.raises(UsageError, match=r"--to .*n1 \(http://published:8001\), n2 \("):
        failover(monkeypatch, control, *published(1, 2), to=name)


def test_refusal_beside_a_leader_does_not_advise_force(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would take the leader's writes away."""
    urls = published(0, 1, 2, 3, 4, 5)
    assert failover(monkeypatch, outside(1, 2, is_led=True), *urls, to=urls[1]) == 2
    told = all_told(capsys)
    assert "Bring back n0, n3, n4, n5." in told
    assert "--force" not in told


def test_leader_that_is_open_is_told_before_any_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody else is seen, but nothing is to be done."""
    control = outside(0, is_open=True, role="leader")
    assert failover(monkeypatch, control, *published(0)) == 0
    told = all_told(capsys)
    assert "n0 leads epoch 1: there is nothing to do." in told
    assert "refused" not in told


def test_leader_that_is_cut_off_from_all_is_replaced_and_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[httpx.Request]
) -> None:
    """It takes itself for the leader, but acknowledges nothing."""
    control = outside(0, 1, 2, 3, calls=calls, each={0: CUT_OFF})
    with pytest.raises(ClusterError, match="Not you"):
        failover(monkeypatch, control, *published(0, 1, 2, 3))
    assert [str(call.url) for call in calls] == [f"{published(3)[0]}/admin/promote"]
    told = all_told(capsys)
    assert "n0 leads epoch 1, but no follower that answers has a channel to it" in told
    assert "nothing to do" not in told


def test_who_is_asked_is_told_that_the_leader_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, calls: list[httpx.Request]
) -> None:
    """It is there, and the user may want to mend its links instead."""
    asked: list[str] = []
    monkeypatch.setattr(failover_commands.click, "confirm", lambda text, **_: asked.append(text))
    control = outside(0, 1, 2, 3, calls=calls, each={0: CUT_OFF})
    assert failover(monkeypatch, control, *published(0, 1, 2, 3), is_agreed=False) == 2
    assert [text.partition(" in ")[2] for text in asked] == ["place of n0, which is cut off?"]
    assert not calls


@pytest.mark.parametrize("force", [True, False])
def test_leader_that_is_cut_off_is_promoted_by_force_only(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[httpx.Request],
    *,
    force: bool,
) -> None:
    """It would answer that it leads already; by force it begins a new epoch."""
    control = outside(0, 1, 2, 3, calls=calls, each={0: CUT_OFF})
    urls = published(0, 1, 2, 3)
    if force:
        with pytest.raises(ClusterError, match="Not you"):
            failover(monkeypatch, control, *urls, to="n0", force=True)
    else:
        assert failover(monkeypatch, control, *urls, to="n0") == 2
        assert "To promote n0 mends nothing" in all_told(capsys)
    assert len(calls) == force


def test_watch_replaces_a_leader_that_is_cut_off_for_as_long_as_it_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[httpx.Request]
) -> None:
    """A moment without a channel is none: followers come back to who was paused or restarted."""
    control = outside(0, 1, 2, 3, calls=calls, each={0: CUT_OFF})
    watch(monkeypatch, control, *published(0, 1, 2, 3), after_s=50)
    assert [str(call.url) for call in calls] == [f"{published(3)[0]}/admin/promote"]
    assert not json.loads(calls[0].content).get("force")  # nobody is there to agree to a loss
    told = capsys.readouterr().out
    assert "n0 leads epoch 1, but no follower that answers has a channel to it, and n3 was" in told


@pytest.mark.parametrize("is_once", [False, True])
def test_watch_goes_on_while_the_leader_is_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, is_once: bool
) -> None:
    """To promote once is not to look once: it waits for a leader to be lost."""
    leader = {**CUT_OFF, "epoch": 1}
    control = outside(0, 1, 2, 3, each={0: leader, 1: {"is_led": True}})
    take_no_time(monkeypatch)
    monkeypatch.setattr(failover_commands.Control, "from_environment", lambda: control)
    with pytest.raises(Stopped):
        failover_commands.watch(published(0, 1, 2, 3), 3.0, is_once=is_once)
    assert capsys.readouterr().out.strip() == "n0 leads epoch 1."


def test_k_that_is_asked_for_is_told_before_and_in_the_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cluster may have wanted less until now."""
    monkeypatch.setattr(
        failover_commands.Control, "from_environment", lambda: outside(1, 2, 3, 4, 5, floor=1)
    )
    urls = published(1, 2, 3, 4, 5)
    code = failover_commands.failover(
        urls, None, 4, force=False, is_agreed=True, is_dry_run=True, is_json=True
    )
    told = capsys.readouterr()
    assert code == 0
    assert "Afterwards k=4: data survive 3 further losses beside the leader." in told.err
    assert json.loads(told.out)["next_quorum"] == 4


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        (io.StringIO(""), "say --yes"),
        (None, "say --yes"),
        (io.StringIO("n\n"), "Nothing was changed."),
        (io.StringIO("\n"), "Nothing was changed."),
    ],
    ids=["ended", "closed", "no", "nothing"],
)
def test_who_does_not_agree_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[httpx.Request],
    stdin: io.StringIO | None,
    words: str,
) -> None:
    """A script, whose stdin has ended, is told what to say; it is no Ctrl-C."""
    monkeypatch.setattr(sys, "stdin", stdin)
    control = outside(1, 2, 3, 4, calls=calls)
    urls = published(1, 2, 3, 4)
    assert failover(monkeypatch, control, *urls, is_agreed=False, is_json=True) == 2
    told = capsys.readouterr()
    assert words in told.err.splitlines()[-1]
    assert json.loads(told.out)["promotion"] is None
    assert not calls


def test_watch_does_not_promote_while_a_node_is_led_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[httpx.Request],
) -> None:
    """A leader that is not seen from here leads all the same."""
    urls = published(1, 2, 3, 4, 5)
    watch(monkeypatch, outside(1, 2, 3, 4, 5, calls=calls, is_led=True), *urls)
    assert not calls
    told = capsys.readouterr().out
    assert told.count("has a channel to n1") == 1
    assert "No leader" not in told


def test_watch_says_once_why_it_does_not_promote(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what to do, where nobody but one node is seen."""
    watch(monkeypatch, outside(2), *published(2))
    told = capsys.readouterr().out
    assert told.count("No leader, and a promotion would be refused: 3 of 5 electors") == 1
    assert "--node" in told


def test_watch_that_fails_tries_again_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[httpx.Request],
) -> None:
    """A node may refuse for a while."""
    watch(monkeypatch, outside(1, 2, 3, 4, calls=calls), *published(1, 2, 3, 4))
    assert len(calls) > 5
    assert capsys.readouterr().out.count("n4 was not promoted: ") == 1


# --- the write after a promotion --------------------------------------------------------------


def refusal(status: int) -> httpx.Response:
    """What a node answers that does not do what it was asked for."""
    error = {"message": "Not this.", "definite": status not in {500, 504}}
    return httpx.Response(status, json={"error": error})


def leading(*answers: httpx.Response | Exception, last: int = 200) -> Answers:
    """A node that can be promoted, and answers the writes after that so.

    Args:
        answers: the first ones, in their order.
        last: the status of all others.
    """
    waiting = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, json=PROMOTED)
        found = waiting.pop(0) if waiting else None
        if isinstance(found, Exception):
            raise found
        return found or (httpx.Response(200, json={}) if last == 200 else refusal(last))

    return answer


def promote_json(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    control: Control,
) -> tuple[int, dict[str, Any], str]:
    """The exit code of a promotion, what it prints as JSON of it, and what it tells."""
    take_no_time(monkeypatch)
    code = failover(monkeypatch, control, *published(1, 2, 3, 4, 5), is_json=True)
    told = capsys.readouterr()
    return code, json.loads(told.out)["promotion"], told.err


@pytest.mark.parametrize(
    ("answer", "is_key_left"),
    [
        (refusal(413), False),
        (refusal(403), False),
        (httpx.ConnectError("refused"), False),
        (refusal(504), True),
        (httpx.ReadTimeout("late"), True),
    ],
)
def test_promotion_is_told_though_the_write_after_it_fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[httpx.Request],
    answer: httpx.Response | Exception,
    *,
    is_key_left: bool,
) -> None:
    """It has happened, and what it lost too; but the exit code promises a write."""
    control = outside(1, 2, 3, 4, 5, calls=calls, answer_call=leading(answer))
    code, promotion, told = promote_json(monkeypatch, capsys, control)
    assert code == 2
    assert promotion["first_write_ms"] is None
    assert promotion["write_problem"].startswith("It leads, but did not acknowledge a write: ")
    assert promotion["may_have_lost"] == PROMOTED["may_have_lost"]
    assert "n5 leads epoch 2" in told
    assert promotion["write_problem"] in told
    assert PROMOTED["may_have_lost"] in told
    assert ("may be left" in told) is is_key_left
    assert [call.method for call in calls] == ["POST", "PUT"]


def test_write_after_a_promotion_is_tried_again_until_enough_followers_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[httpx.Request]
) -> None:
    """The time until the first write is one that a client would have waited too."""
    answers = leading(refusal(503), refusal(429))
    control = outside(1, 2, 3, 4, 5, calls=calls, answer_call=answers)
    code, promotion, _ = promote_json(monkeypatch, capsys, control)
    assert (code, promotion["write_problem"]) == (0, "")
    assert (promotion["open_ms"], promotion["first_write_ms"]) == (0, 400)
    assert [call.method for call in calls] == ["POST", "PUT", "PUT", "PUT", "DELETE"]


def test_write_after_a_promotion_is_not_tried_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[httpx.Request]
) -> None:
    """Too few may be alive for k."""
    control = outside(1, 2, 3, 4, 5, calls=calls, answer_call=leading(last=503))
    code, promotion, _ = promote_json(monkeypatch, capsys, control)
    assert (code, promotion["first_write_ms"]) == (2, None)
    assert "answered 503" in promotion["write_problem"]
    assert "left" not in promotion["write_problem"]
    attempts = failover_commands.WRITE_TIMEOUT_S / failover_commands.WRITE_RETRY_S
    assert attempts <= sum(call.method == "PUT" for call in calls) <= attempts + 1


@pytest.mark.parametrize(("status", "words"), [(413, "is left"), (504, "may be left")])
def test_key_that_could_not_be_deleted_is_named_and_the_promotion_is_done(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[httpx.Request],
    status: int,
    words: str,
) -> None:
    """A write was acknowledged: that is what was wanted."""
    answers = leading(httpx.Response(200, json={}), last=status)
    control = outside(1, 2, 3, 4, 5, calls=calls, answer_call=answers)
    code, promotion, told = promote_json(monkeypatch, capsys, control)
    assert (code, promotion["first_write_ms"]) == (0, 0)
    assert f"The key quorumeter/failover {words}" in promotion["write_problem"]
    assert promotion["write_problem"] in told


def test_watch_that_is_to_promote_once_ends_though_the_write_after_it_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[httpx.Request]
) -> None:
    """There is a leader, and nobody is told that there is none."""
    control = outside(1, 2, 3, 4, 5, calls=calls, answer_call=leading(last=504))
    take_no_time(monkeypatch)
    monkeypatch.setattr(failover_commands.Control, "from_environment", lambda: control)
    assert failover_commands.watch(published(1, 2, 3, 4, 5), 3.0, is_once=True) == 0
    told = capsys.readouterr().out
    assert "No leader: n5 is promoted." in told
    assert "It leads, but did not acknowledge a write: " in told
    assert PROMOTED["may_have_lost"] in told
    assert "was not promoted" not in told


# --- a promotion of which nothing is heard ----------------------------------------------------


def be_late(_: httpx.Request) -> httpx.Response:
    """Answers too late."""
    raise httpx.ReadTimeout("timed out")


@pytest.mark.parametrize("answer", [be_late, lambda _: refusal(500)])
def test_node_that_does_not_say_whether_it_leads_may_yet(
    monkeypatch: pytest.MonkeyPatch, calls: list[httpx.Request], answer: Answers
) -> None:
    """It may wait for its base to come to a majority for longer than the tool waits for it."""
    control = outside(1, 2, 3, 4, 5, calls=calls, answer_call=answer)
    urls = published(1, 2, 3, 4, 5)
    with pytest.raises(OutcomeUnknownError, match="n5 may still become the leader; look") as told:
        failover(monkeypatch, control, *urls)
    assert f"quorumeter status --attach {urls[4]}" in str(told.value)
    assert [call.method for call in calls] == ["POST"]


def test_watch_does_not_say_that_who_may_lead_yet_was_not_promoted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[httpx.Request]
) -> None:
    """That is not known; it asks again, which joins the attempt that is under way."""
    control = outside(1, 2, 3, 4, 5, calls=calls, answer_call=be_late)
    watch(monkeypatch, control, *published(1, 2, 3, 4, 5))
    told = capsys.readouterr().out
    assert told.count("n5 may still become the leader") == 1
    assert "was not promoted" not in told
    assert len(calls) > 5


def test_watch_that_is_to_promote_once_ends_when_who_did_not_say_so_leads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], calls: list[httpx.Request]
) -> None:
    """That was its promotion."""
    each: dict[int, dict[str, object]] = {}

    def lead_late(request: httpx.Request) -> httpx.Response:
        each[4] = {"is_led": True, "epoch": 2}
        each[5] = {"role": "leader", "is_open": True, "epoch": 2}
        return be_late(request)

    control = outside(1, 2, 3, 4, 5, calls=calls, answer_call=lead_late, each=each)
    take_no_time(monkeypatch)
    monkeypatch.setattr(failover_commands.Control, "from_environment", lambda: control)
    assert failover_commands.watch(published(1, 2, 3, 4, 5), 3.0, is_once=True) == 0
    assert capsys.readouterr().out.endswith("n5 leads epoch 2.\n")
    assert [call.method for call in calls] == ["POST"]
