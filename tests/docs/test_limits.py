"""docs/api.md: the limits that it names are those of the code."""

from __future__ import annotations

from kv_app import channel_protocol, connections, request_limits
from tests.docs.pages import ROOT


def test_limits_of_connections_are_those_of_the_code() -> None:
    """A limit that changes in the code has to change on the page."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("## Limits")[2]
    text = " ".join(page.split())
    sentences = [
        f"`MAX_HEAD_BYTES`, {request_limits.MAX_HEAD_BYTES >> 10} KiB |",
        f"all clients together | {connections.UNFINISHED_REQUESTS} times `MAX_BODY_BYTES` and",
        f"answers to earlier ones | {request_limits.MAX_PIPELINED_REQUESTS} |",
        f"on one connection | {connections.KEEP_ALIVE_S:g} s |",
        f"nothing of its answer | {connections.ANSWER_STALL_TIMEOUT_S:g} s |",
        f"may go on sending for {connections.LINGER_S:g} s",
        f"room for {connections.MAX_CHANNELS} replication channels",
        f"for {connections.MAX_GUESTS} connections that may still become one",
        f"the {connections.MAX_NEW_CHANNELS} channels whose hello was not accepted yet, each",
        f"each of which may bring {channel_protocol.MAX_HELLO_BYTES >> 10} KiB.",
    ]
    assert [sentence for sentence in sentences if sentence not in text] == []
