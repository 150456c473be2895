"""Clients that write side by side, give up now and then, retry, and note all that they are told."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from tests.campaigns.client import Answer, Connection, key_path
from tests.campaigns.ledger import Ledger, Outcome, Position, Write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

HOT_KEYS = 20
BATCH_OPERATIONS = 5
# Of all writes: so many are batches, go to keys that all clients share, delete one of these.
BATCH_SHARE, HOT_SHARE, DELETE_SHARE = 0.1, 0.3, 0.3
# So many clients give up before the answer, and after this long at most.
IMPATIENT_SHARE, PATIENCE_S = 0.03, 0.01
RETRY_SHARE, READ_SHARE = 0.5, 0.1
SETTLE_TIMEOUT_S = 60.0
BACK_OFF_S = 0.02
# Answers of a store that refuses for a while; each is definite.
REFUSALS = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Manners:
    """How clients write.

    Attributes:
        clients: How many, each on a connection of its own.
        pause_s: A client's mean pause between two writes.
        may_move: Whether nodes may answer that they do not lead: the leader changes.
    """

    clients: int = 16
    pause_s: float = 0.02
    may_move: bool = False


class Writers:
    """Clients of one leader; all but ``stop`` belongs to the background's loop.

    Attributes:
        url: Where they write; may be changed at any time.
        surprises: Answers that no client should get, one line each.
    """

    def __init__(self, url: str, ledger: Ledger, random: Random, manners: Manners) -> None:
        self.surprises: list[str] = []
        self.url = url
        self._ledger = ledger
        self._random = random
        self._manners = manners
        self._is_stopping = False
        self._number = len(ledger.writes)

    def stop(self) -> None:
        """Lets each client end after the write that it is at."""
        self._is_stopping = True

    async def run(self) -> None:
        """Writes until ``stop``."""
        self._is_stopping = False
        async with asyncio.TaskGroup() as group:
            for _ in range(self._manners.clients):
                group.create_task(self._work())

    async def settle(self) -> None:
        """Retries every write whose outcome is unknown, until it is acknowledged.

        Raises:
            TimeoutError: One was not, in time.
        """
        writes = [w for w in self._ledger.writes if w.outcome is Outcome.UNKNOWN]
        retried = [write for write in writes if write.idempotency_key is not None]
        share = max(1, len(retried) // self._manners.clients)
        async with asyncio.timeout(SETTLE_TIMEOUT_S), asyncio.TaskGroup() as group:
            for first in range(0, len(retried), share):
                group.create_task(self._settle(retried[first : first + share]))

    async def _settle(self, writes: Sequence[Write]) -> None:
        connection = Connection(self.url)
        try:
            for write in writes:
                while write.outcome is not Outcome.ACKNOWLEDGED:
                    connection = self._moved(connection)
                    await self._attempt(connection, write)
        finally:
            connection.close()

    async def _work(self) -> None:
        connection, random = Connection(self.url), self._random
        try:
            while not self._is_stopping:
                connection = self._moved(connection)
                write = self._ledger.begin(self._next_write())
                is_impatient = random.random() < IMPATIENT_SHARE
                if is_impatient and write.idempotency_key is not None:
                    await self._give_up(connection, write)
                else:
                    await self._attempt(connection, write)
                if write.outcome is Outcome.ACKNOWLEDGED:
                    if random.random() < READ_SHARE:
                        await self._read_back(connection, write)
                elif write.idempotency_key is not None and random.random() < RETRY_SHARE:
                    await self._attempt(connection, write)
                await asyncio.sleep(random.uniform(0, 2 * self._manners.pause_s))
        finally:
            connection.close()

    def _moved(self, connection: Connection) -> Connection:
        """Returns a connection to where the leader is now."""
        if connection.url == self.url:
            return connection
        connection.close()
        return Connection(self.url)

    def _next_write(self) -> Write:
        random = self._random
        self._number += 1
        name = f"{self._number}"
        idempotency_key = f"once-{name}" if random.random() > HOT_SHARE else None
        if random.random() < BATCH_SHARE:
            keys = [f"own/{name}/{place}" for place in range(BATCH_OPERATIONS - 1)]
            keys.append(self._hot_key())
            return Write({key: f"{name}@{key}" for key in keys}, idempotency_key)
        if random.random() < HOT_SHARE:
            value = None if random.random() < DELETE_SHARE else name
            return Write({self._hot_key(): value}, idempotency_key)
        return Write({f"own/{name}": name}, idempotency_key)

    def _hot_key(self) -> str:
        return f"hot {self._random.randrange(HOT_KEYS)}"

    async def _give_up(self, connection: Connection, write: Write) -> None:
        """Sends a write and closes the connection before its answer, most of the time."""
        try:
            async with asyncio.timeout(self._random.uniform(0, PATIENCE_S)):
                await self._attempt(connection, write)
        except TimeoutError:
            write.note(Outcome.UNKNOWN)

    async def _attempt(self, connection: Connection, write: Write) -> None:
        """Sends a write and notes what it was told."""
        method, path, body = request_of(write)
        try:
            answer = await connection.request(method, path, body, write.idempotency_key)
        except ConnectionRefusedError:  # nothing was sent
            write.note(Outcome.FAILED)
            await asyncio.sleep(BACK_OFF_S)
        except OSError:
            write.note(Outcome.UNKNOWN)
            await asyncio.sleep(BACK_OFF_S)
        else:
            self._note(write, answer)
            if answer.status != HTTPStatus.OK:
                await asyncio.sleep(BACK_OFF_S)

    def _note(self, write: Write, answer: Answer) -> None:
        error = answer.body.get("error", {})
        if answer.status == HTTPStatus.OK:
            told = {position_of(result) for result in answer.body.get("results", [answer.body])}
            if len(told) > 1:
                self.surprises.append(f"a batch was answered with positions {sorted(told)}")
            for position in told:
                write.note(Outcome.ACKNOWLEDGED, position)
        elif answer.status == HTTPStatus.GATEWAY_TIMEOUT:
            write.note(Outcome.UNKNOWN, position_of(error))
        elif self._is_refusal(answer.status) and error.get("definite") is True:
            write.note(Outcome.FAILED)
        else:
            write.note(Outcome.UNKNOWN)
            self.surprises.append(f"a write was answered {answer.status} {answer.body}")

    def _is_refusal(self, status: int) -> bool:
        is_elsewhere = self._manners.may_move and status == HTTPStatus.FORBIDDEN
        return status in REFUSALS or is_elsewhere

    async def _read_back(self, connection: Connection, write: Write) -> None:
        """What a client was told is committed, it reads."""
        key, value = next(iter(write.changes.items()))
        try:
            answer = await connection.request("GET", key_path(key))
        except OSError:
            return  # the leader was killed
        shown = answer.body.get("error", answer.body)
        newest = position_of(shown) if "seq" in shown else None
        least = write.position or Position(0, 0)
        is_sound = (newest is None and value is None) or (newest is not None and newest >= least)
        if not is_sound or (newest == least and answer.body.get("value") != value):
            self.surprises.append(f"{key!r} read {answer} after {write.changes} at {least}")


def request_of(write: Write) -> tuple[str, str, bytes]:
    """Returns method, path and body of a write."""
    if len(write.changes) > 1:
        operations = [
            {"op": "delete", "key": key}
            if value is None
            else {"op": "put", "key": key, "value": value}
            for key, value in write.changes.items()
        ]
        return "POST", "/kv", json.dumps({"operations": operations}).encode()
    ((key, value),) = write.changes.items()
    if value is None:
        return "DELETE", key_path(key), b""
    return "PUT", key_path(key), json.dumps({"value": value}).encode()


def position_of(body: dict[str, int]) -> Position:
    """Returns the position that an answer names."""
    return Position(body["epoch"], body["seq"])
