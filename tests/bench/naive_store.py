"""The obvious replicated store: the leader POSTs each write to each follower with httpx.

A yardstick of the bench, not part of the product. Run by uvicorn; the environment has
``FOLLOWERS`` (URLs with commas between; empty on a follower) and ``QUORUM``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import httpx
from fastapi import FastAPI
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FOLLOWERS = [url for url in os.environ.get("FOLLOWERS", "").split(",") if url]
QUORUM = int(os.environ.get("QUORUM", "0"))

data: dict[str, str] = {}
background: set[asyncio.Task[None]] = set()


class Value(BaseModel):
    """A value."""

    value: str


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keeps one client for all requests to followers."""
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/replicate/{key}")
async def replicate(key: str, body: Value) -> dict[str, bool]:
    """Takes a write from the leader."""
    data[key] = body.value
    return {"ok": True}


@app.put("/kv/{key}")
async def put(key: str, body: Value) -> dict[str, int]:
    """Writes, and answers once ``QUORUM`` followers have the write; the rest goes on."""
    data[key] = body.value
    client: httpx.AsyncClient = app.state.client

    async def send(url: str) -> None:
        (await client.post(f"{url}/replicate/{key}", json=body.model_dump())).raise_for_status()

    tasks = [asyncio.create_task(send(url)) for url in FOLLOWERS]
    background.update(tasks)
    for task in tasks:
        task.add_done_callback(background.discard)
    acks = 0
    for done in asyncio.as_completed(tasks):
        await done
        acks += 1
        if acks >= QUORUM:
            break
    return {"acks": acks}
