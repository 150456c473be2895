"""Answers in one piece are the answers that uvicorn would have given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kv_app import whole_answer

BODY = b'{"key":"k"}'


class Cycle:
    """Stands for uvicorn's side of one request and its answer."""

    def __init__(self, **attributes: Any) -> None:
        self.scope: dict[str, Any] = {}
        self.response_started = self.response_complete = self.disconnected = False
        self.waiting_for_100_continue = True
        self.keep_alive = True
        self.flow = SimpleNamespace(write_paused=False)
        self.default_headers = [(b"date", b"now")]
        self.writes: list[bytes] = []
        self.transport = SimpleNamespace(write=self.writes.append)
        self.message_event = SimpleNamespace(set=lambda: None)
        self.responses = 0
        self.__dict__.update(attributes)

    def on_response(self) -> None:
        """Counts the answer."""
        self.responses += 1


def send(cycle: Cycle, *, is_newest: bool = True) -> bool:
    """Sends the body as the answer to a cycle's request."""
    connection: Any = SimpleNamespace(cycle=cycle if is_newest else Cycle())
    whole_answer.offer(connection, cycle.scope)
    return whole_answer.send(cycle.scope, BODY)


def test_answer_leaves_in_one_piece_and_completes_its_request() -> None:
    """One write holds the head and the body, and the next request may come."""
    cycle = Cycle()
    assert send(cycle)
    assert cycle.writes == [
        b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-type: application/json\r\n"
        b"content-length: 11\r\n\r\n" + BODY
    ]
    assert cycle.response_started
    assert cycle.response_complete
    assert cycle.responses == 1


@pytest.mark.parametrize(
    "attributes",
    [
        {"response_started": True},
        {"disconnected": True},
        {"keep_alive": False},
        {"flow": SimpleNamespace(write_paused=True)},
    ],
)
def test_answer_that_cannot_leave_in_one_piece_now_is_left_to_the_server(
    attributes: dict[str, Any],
) -> None:
    """Nothing is sent and nothing changes, so that the ordinary way can go on."""
    cycle = Cycle(**attributes)
    assert not send(cycle)
    assert cycle.writes == []
    assert not cycle.response_complete


def test_answer_with_requests_behind_it_is_left_to_the_server() -> None:
    """Only the newest request of a connection is its last: others are answered in their turn."""
    cycle = Cycle()
    assert not send(cycle, is_newest=False)
    assert cycle.writes == []


def test_answer_over_another_server_is_left_to_it() -> None:
    """A server that offers nothing gets the ordinary messages."""
    assert not whole_answer.send({}, BODY)
