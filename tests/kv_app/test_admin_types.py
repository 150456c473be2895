"""Bodies of ``/admin``: a number is a number, and nothing that could be taken for one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from kv_app.main import create_app
from kv_app.settings import Settings
from tests.kv_app.fakes import run

DELAYS = {"min_delay_ms": 0, "max_delay_ms": 0}


def post(path: str, body: Any) -> httpx.Response:
    """Posts JSON to a leader that is alone."""
    answers: list[httpx.Response] = []

    async def main() -> None:
        app = create_app(Settings())
        app.node.start()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:8000"
        ) as client:
            headers = {"content-type": "application/json"}
            answers.append(await client.post(path, content=json.dumps(body), headers=headers))
        await app.node.stop()
        await asyncio.sleep(0)

    run(main)
    return answers[0]


@pytest.mark.parametrize("k", [False, "0", 0.0])
def test_write_quorum_of_another_type_is_malformed(k: object) -> None:
    """A flag, a text or a fraction is no count, even where it looks like one."""
    answer = post("/admin/quorum", {"write_quorum": k})
    assert answer.status_code == 400
    assert "write_quorum" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", DELAYS)
@pytest.mark.parametrize("delay_ms", [False, "0"])
def test_delay_of_another_type_is_malformed(name: str, delay_ms: object) -> None:
    """A flag or a text is no delay."""
    answer = post("/admin/delays", {**DELAYS, name: delay_ms})
    assert answer.status_code == 400
    assert name in answer.json()["error"]["message"]


def test_numbers_are_taken_as_json_writes_them() -> None:
    """A delay may be written with and without a fraction, a count without."""
    assert post("/admin/quorum", {"write_quorum": 0}).status_code == 200
    assert post("/admin/delays", {"min_delay_ms": 0, "max_delay_ms": 1.5}).status_code == 200
