"""The writes of the bench: the same keys and values for every store, each in its own words."""

from __future__ import annotations

import base64
import json
import random
import string
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

KEYS = 1000
KEY_BYTES = 16
VALUE_BYTES = 100
BATCH_OPERATIONS = 16
# With so many batches each key has been written equally often.
BATCHES = KEYS


class Request(NamedTuple):
    """One HTTP request; an empty body means none."""

    method: str
    path: str
    body: str


def keys() -> list[str]:
    """All keys, in the order in which they are written."""
    return [f"key{number:0{KEY_BYTES - 3}}" for number in range(KEYS)]


def value() -> str:
    """The value that is written: text that looks random, and is the same every time."""
    return "".join(random.Random(VALUE_BYTES).choices(string.ascii_letters, k=VALUE_BYTES))


def puts() -> list[Request]:
    """A ``PUT`` of each key."""
    body = json.dumps({"value": value()})
    return [Request("PUT", f"/kv/{key}", body) for key in keys()]


def batches() -> list[Request]:
    """``POST /kv`` with the keys in turn, some in each batch."""
    all_keys, found = keys(), []
    for number in range(BATCHES):
        first = number * BATCH_OPERATIONS
        chosen = [all_keys[(first + index) % KEYS] for index in range(BATCH_OPERATIONS)]
        operations = [{"op": "put", "key": key, "value": value()} for key in chosen]
        found.append(Request("POST", "/kv", json.dumps({"operations": operations})))
    return found


def etcd_puts() -> list[Request]:
    """The same puts for etcd's JSON gateway, which wants keys and values in base64."""
    encoded = _base64(value())
    return [
        Request("POST", "/v3/kv/put", json.dumps({"key": _base64(key), "value": encoded}))
        for key in keys()
    ]


def get_one() -> list[Request]:
    """A ``GET`` of one key."""
    return [Request("GET", f"/kv/{keys()[0]}", "")]


def write_requests(path: Path, requests: list[Request]) -> Path:
    """Writes requests as ``requests.lua`` reads them: one a line, tabs between the parts."""
    lines = ["\t".join(request) for request in requests]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
