"""Clients of the engines: one operation in, one outcome out, no timing."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Outcome(NamedTuple):
    """A committed write: how many followers acknowledged it, and its position."""

    acks: int
    epoch: int
    seq: int


class DriverError(Exception):
    """An operation that did not succeed.

    Attributes:
        code: a short name to count it by.
        definite: whether it certainly did not happen; a client's timeout or reset never is.
        detail: what the engine said, for a person; may be empty.
    """

    def __init__(self, code: str, *, definite: bool, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.definite = definite
        self.detail = detail


class Driver(Protocol):
    """A client that any number of greenlets share; failures raise DriverError."""

    def write(self, key: str, value: str, idempotency_key: str | None = None) -> Outcome:
        """Puts a value and waits until it is committed."""

    def read(self, key: str) -> str | None:
        """The key's value, or None if there is none."""

    def delete(self, key: str) -> Outcome:
        """Removes a key, present or not, and waits until that is committed."""

    def close(self) -> None:
        """Closes idle connections; those in use close when their request ends."""
