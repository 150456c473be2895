"""Control calls: what is known after one that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from orchestration.control import Control
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
