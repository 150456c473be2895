"""A stream of writes at a fixed rate that does not wait for the store."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from random import Random

from tests.campaigns.client import Connection, key_path

# What goes wrong is kept by its text; one run cannot fill the memory with it.
MAX_FAILURES_KEPT = 20


@dataclass(frozen=True, slots=True)
class Stream:
    """What is written.

    Attributes:
        rate_per_s: Writes begun per second, whatever the answers.
        keys: Names of keys that are written, each with the same chance; they bear ``prefix``.
        value_bytes: Length of each value.
        clients: Writes under way at a time; when all wait, the next ones begin late.
    """

    rate_per_s: float
    keys: int
    value_bytes: int = 100
    clients: int = 64
    prefix: str = "stream/"


class OpenLoop:
    """Writes a stream, each write with an idempotency key of its own.

    Attributes:
        stream: What it writes.
        acknowledged: How many writes were answered 200.
        failures: All other answers and lost connections, with their numbers.
        latest_s: The most by which a write began late.
    """

    def __init__(self, url: str, stream: Stream, seed: int) -> None:
        self.acknowledged = 0
        self.failures: Counter[str] = Counter()
        self.latest_s = 0.0
        self._url = url
        self.stream = stream
        self._random = Random(seed)
        self._seed = seed
        self._begun = 0
        self._is_stopping = False

    def stop(self) -> None:
        """Begins no further write."""
        self._is_stopping = True

    async def run(self) -> None:
        """Writes until ``stop``."""
        start_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(self.stream.clients):
                group.create_task(self._work(start_s))

    async def _work(self, start_s: float) -> None:
        connection = Connection(self._url)
        try:
            while not self._is_stopping:
                number, self._begun = self._begun, self._begun + 1
                due_s = start_s + number / self.stream.rate_per_s
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                self.latest_s = max(self.latest_s, time.monotonic() - due_s)
                await self._write(connection, number)
        finally:
            connection.close()

    async def _write(self, connection: Connection, number: int) -> None:
        stream, random = self.stream, self._random
        key = f"{stream.prefix}{random.randrange(stream.keys)}"
        value = random_text(random, stream.value_bytes)
        body = json.dumps({"value": value}).encode()
        try:
            answer = await connection.request("PUT", key_path(key), body, f"{self._seed}-{number}")
        except OSError as error:
            self._fail(repr(error))
        else:
            if answer.status == HTTPStatus.OK:
                self.acknowledged += 1
            else:
                self._fail(f"{answer.status} {answer.body}")

    def _fail(self, text: str) -> None:
        if text in self.failures or len(self.failures) < MAX_FAILURES_KEPT:
            self.failures[text] += 1
        else:
            self.failures["others"] += 1


def random_text(random: Random, length: int) -> str:
    """Returns hexadecimal digits, which a disk cannot store as one, nor in much less."""
    return random.randbytes(length // 2 + 1).hex()[:length]
