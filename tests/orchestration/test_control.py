"""Control calls: what is known after one that failed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from orchestration.control import LOOK_TIMEOUT_S, Control, Health
from orchestration.errors import ClusterError, NotNowError, OutcomeUnknownError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable


def refusal(status: int, *, is_definite: bool) -> httpx.Response:
    """What a node of the store answers if it does not do what it was asked for."""
    error = {"code": "some", "message": "Not this.", "definite": is_definite}
    return httpx.Response(status, json={"error": error})


def of_a_put(answer: Callable[[], httpx.Response]) -> ClusterError:
    """The error of a write that is answered so."""
    control = Control(transport=httpx.MockTransport(lambda _: answer()))
    with pytest.raises(ClusterError) as told:
        control.put("http://n", "a", "1", timeout_s=1)
    return told.value


@pytest.mark.parametrize(
    ("status", "is_definite", "kind"),
    [
        (403, True, RefusedError),
        (413, True, RefusedError),
        (429, True, NotNowError),
        (503, True, NotNowError),
        (500, False, OutcomeUnknownError),
        (504, False, OutcomeUnknownError),
    ],
)
def test_error_of_a_write_says_whether_it_may_happen_yet(
    status: int, kind: type[ClusterError], *, is_definite: bool
) -> None:
    """And whether the same call may succeed in a moment."""
    error = of_a_put(lambda: refusal(status, is_definite=is_definite))
    assert type(error) is kind
    assert "http://n/kv/a answered" in str(error)


@pytest.mark.parametrize(("status", "kind"), [(404, RefusedError), (504, OutcomeUnknownError)])
def test_error_of_a_proxy_says_no_more_than_it_knows(status: int, kind: type[ClusterError]) -> None:
    """A gateway that gave up does not know what became of the write."""
    assert type(of_a_put(lambda: httpx.Response(status, text="<html>"))) is kind


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (httpx.ConnectError("refused"), ClusterError),
        (httpx.ConnectTimeout("late"), ClusterError),
        (httpx.ReadTimeout("late"), OutcomeUnknownError),
        (httpx.RemoteProtocolError("gone"), OutcomeUnknownError),
    ],
)
def test_write_that_was_sent_and_not_answered_may_happen_yet(
    failure: Exception, kind: type[ClusterError]
) -> None:
    """One that did not reach the node does not."""

    def fail() -> httpx.Response:
        raise failure

    assert type(of_a_put(fail)) is kind


def test_question_that_was_not_answered_leaves_nothing_behind() -> None:
    """It changes nothing, whether it was sent or not, whatever came back."""

    def fail(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("late")

    for answer in (fail, lambda _: refusal(500, is_definite=False)):
        control = Control(transport=httpx.MockTransport(answer))
        with pytest.raises(ClusterError) as told:
            control.status("http://n")
        assert not isinstance(told.value, OutcomeUnknownError)


@pytest.mark.parametrize("url", ["http://h:80a", "http://xn--a:80", "http://a..b:80"])
def test_what_cannot_be_asked_is_told_in_a_sentence(url: str) -> None:
    """A URL that a node has for another one may be such."""
    with Control() as control, pytest.raises(ClusterError, match="no URL that can be asked"):
        control.status(url)


@pytest.mark.parametrize("status", [500, 503])
def test_read_has_no_outcome_that_could_be_unknown(status: int) -> None:
    """A node that answers a question with an error has answered."""
    answer = refusal(status, is_definite=False)
    control = Control(transport=httpx.MockTransport(lambda _: answer))
    with pytest.raises(RefusedError):
        control.status("http://n")


def test_many_nodes_are_asked_at_the_same_time() -> None:
    """One that is frozen delays no other; each is answered for, and waited for shortly."""
    urls = [f"http://n{number}" for number in range(4)]
    together = threading.Barrier(len(urls), timeout=10)

    def answer(request: httpx.Request) -> httpx.Response:
        together.wait()
        assert request.extensions["timeout"]["read"] == LOOK_TIMEOUT_S
        if request.url.host == "n3":
            raise httpx.ReadTimeout("late", request=request)
        return httpx.Response(200, json={"node_id": request.url.host})

    found = Control(transport=httpx.MockTransport(answer)).healths(urls)
    assert list(found) == urls
    assert isinstance(found.pop(urls[3]), ClusterError)
    assert [one.node_id for one in found.values() if isinstance(one, Health)] == ["n0", "n1", "n2"]
    assert Control().healths([]) == {}


def test_names_and_messages_of_a_node_are_one_line_without_orders() -> None:
    """What a foreign node says cannot pass for a line of ours, or steer the terminal."""
    body = {"node_id": "n\n2026 CRITICAL \x1b[2J", "role": "leader\t"}
    control = Control(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=body)))
    health = control.health("http://n")
    assert (health.node_id, health.role) == ("n\\n2026 CRITICAL \\x1b[2J", "leader\\t")
    error = of_a_put(lambda: httpx.Response(409, json={"error": {"message": "No\r\n\x1b[31m"}}))
    assert str(error).endswith("answered 409: No\\r\\n\\x1b[31m")


def why_not(call: Callable[[str], object]) -> str:
    """What is told of a node that answers oddly; empty if its answer can be read all the same."""
    try:
        call("http://n")
    except ClusterError as problem:
        return str(problem)
    return ""


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"write_quorum": NaN, "followers": Infinity, "min_delay_ms": NaN, "max_delay_ms": 1}',
        '{"write_quorum": "many", "followers": [], "links": 5, "epoch": {}, "last_seq": 1e999}',
        '{"links": {"http://f": 5}, "min_delay_ms": 9, "max_delay_ms": 1, "epoch": "x"}',
        '{"followers": {"http://f": 5}, "http://f": 5, "epoch": NaN, "buckets": 5, "max_seq": 1}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "[]",
        "",
        '"text"',
    ],
    ids=range(10),
)
def test_answer_of_anybody_else_is_told_in_a_sentence(body: str) -> None:
    """Whatever listens at the URL: a number that is none, an object too deep, a list."""
    control = Control(transport=httpx.MockTransport(lambda _: httpx.Response(200, text=body)))
    calls = [
        control.quorum,
        control.delays,
        control.positions,
        control.ack,
        control.digest,
        control.relayed_digests,
        control.relayed_dumps,
    ]
    told = [why for call in calls if (why := why_not(call))]
    assert len(told) >= 4  # some read no more than what happens to be there
    assert all(why.startswith("http://n") for why in told)
