"""A node: one role at a time, and what every role answers alike."""

import logging
import os
import sys
from collections import Counter
from typing import Any

from kv_app.bodies import HealthAnswer
from kv_app.errors import (
    MalformedError,
    NotLeaderError,
    NotReadyError,
    PositionNotReachedError,
    StorageError,
    TooLargeError,
)
from kv_app.follower import Follower
from kv_app.formation import Standing
from kv_app.leader import Leader
from kv_app.messages import Role, Version
from kv_app.meta import Position
from kv_app.settings import Settings
from kv_app.state import State
from kv_app.storage import Storage, open_storage

logger = logging.getLogger("kv_app")

EXIT_STORAGE = 74  # EX_IOERR of sysexits.h
# The outcome of a write that is no error.
ACKNOWLEDGED = "acknowledged"


def end_process(error: StorageError) -> None:
    """Ends the process at once: what the disk holds is not known any more, so nothing may follow.

    Nobody is answered; for a client that waits the outcome is unknown.
    """
    logger.critical("%s; the node ends, and what it acknowledged is on the disk", error)
    sys.stderr.flush()
    os._exit(EXIT_STORAGE)


class Node:
    """One process of the cluster.

    Attributes:
        settings: What it was told at its start.
        leader: Set while it leads.
        follower: Set while it follows.
        outcomes: How many writes ended how: acknowledged, or with the code of an error.
        connections: All that are open, as the server keeps them.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.storage: Storage | None = None
        self.leader: Leader | None = None
        self.follower: Follower | None = None
        self.outcomes: Counter[str] = Counter()
        self.connections: set[Any] = set()

    def start(self) -> None:
        """Begins its role's work, in the running event loop.

        Raises:
            StorageError: What is in ``DATA_DIR`` cannot be used; the message says what to do.
        """
        settings, role = self.settings, self.settings.role
        if settings.data_dir is not None:
            self.storage = open_storage(settings.data_dir, settings.node_id, role)
            role = self._kept_role(self.storage)
        if role is Role.LEADER:
            self.leader = Leader(settings, self.storage, on_failure=end_process)
            self.leader.start()
        else:
            self.follower = Follower(settings, self.storage, on_failure=end_process)

    def _kept_role(self, storage: Storage) -> Role:
        if storage.notice:
            logger.warning("%s", storage.notice)
        role = storage.meta.role
        if role is not self.settings.role:
            logger.warning("ROLE=%s is ignored: DATA_DIR is a %s's", self.settings.role, role)
        return role

    def drain(self) -> None:
        """Refuses new writes from now on; those that wait go on."""
        if self.leader is not None:
            self.leader.drain()

    def end_waits(self) -> None:
        """Answers the writes that still wait as unknown, and the reads that do."""
        if self.leader is not None:
            self.leader.end_waits()
        for replica in (self.leader, self.follower):
            if replica is not None:
                replica.reads.end()

    async def stop(self) -> None:
        """Ends its role's work."""
        if self.leader is not None:
            await self.leader.stop()
        if self.follower is not None:
            await self.follower.stop()
        if self.storage is not None:
            self.storage.close()
            self.storage = None

    @property
    def role(self) -> Role:
        """What the node is in its cluster now."""
        return Role.LEADER if self.leader is not None else Role.FOLLOWER

    @property
    def epoch(self) -> int:
        """The epoch that it leads or follows; 0 for a follower without a leader so far."""
        if self.leader is not None:
            return self.leader.epoch
        return self.follower.epoch if self.follower is not None else 0

    def position(self) -> tuple[int, int, int]:
        """Returns the epoch, the contiguous position and the highest one of what it holds.

        A leader's contiguous position is that up to which all is committed, since it shows no more.
        """
        if self.leader is not None:
            return self.epoch, self.leader.stable_seq, self.leader.log.last_seq
        if self.follower is None:
            raise RuntimeError("a node has a role")
        held = self.follower.held
        return self.epoch, held.contiguous, held.max_seq

    @property
    def state(self) -> State:
        """What it shows: on the leader committed versions only."""
        replica = self.leader or self.follower
        if replica is None:
            raise RuntimeError("a node has a role")
        return replica.state

    def _replica(self) -> Leader | Follower:
        replica = self.leader or self.follower
        if replica is None:
            raise RuntimeError("a node has a role")
        return replica

    def require_leader(self) -> Leader:
        """Returns the leader's side of this node.

        Raises:
            NotLeaderError: It is a follower; the error names the leader if it is known.
        """
        if self.leader is None:
            url = self.follower.leader_url if self.follower is not None else None
            where = f"send it to {url}" if url else "its leader is not known yet"
            raise NotLeaderError(f"This node is a follower; {where}.", leader_url=url)
        return self.leader

    def check_key(self, key: str) -> None:
        """Checks a key against its limits.

        Raises:
            MalformedError: It is empty.
            TooLargeError: It exceeds ``MAX_KEY_BYTES``.
        """
        if not key:
            raise MalformedError("A key must not be empty; it has one character at least.")
        self._check_size("key", key, "MAX_KEY_BYTES", self.settings.max_key_bytes)

    def check_value(self, value: str) -> None:
        """Checks a value against its limit.

        Raises:
            TooLargeError: It exceeds ``MAX_VALUE_BYTES``.
        """
        self._check_size("value", value, "MAX_VALUE_BYTES", self.settings.max_value_bytes)

    @staticmethod
    def _check_size(what: str, text: str, limit: str, max_bytes: int) -> None:
        # A character has at most 4 bytes in UTF-8, so most texts need not be encoded to be counted.
        if len(text) * 4 > max_bytes and len(text.encode()) > max_bytes:
            raise TooLargeError(
                f"The {what} has {len(text.encode())} bytes, {max_bytes} at most; "
                f"shorten it or raise {limit}.",
                limit=limit,
            )

    def read(self, key: str) -> Version | None:
        """Returns what this replica shows of a key; a deletion has the value None."""
        return self.state.read(key)

    async def wait_reached(self, key: str, position: Position) -> None:
        """Waits until a read of a key can show the write at a position, or a newer one.

        Raises:
            PositionNotReachedError: It could not within ``REQUEST_TIMEOUT``.
            TooManyInFlightError: Too many reads wait already.
        """
        if await self._replica().reads.wait(key, *position):
            return
        (asked_epoch, asked_seq), (epoch, contiguous, _) = position, self.position()
        elsewhere = "" if self.leader is not None else " or read from the leader"
        raise PositionNotReachedError(
            f"This {self.role} cannot show {asked_epoch}.{asked_seq} yet: of epoch {epoch} it "
            f"holds everything up to {contiguous}; try again later{elsewhere}.",
            epoch=asked_epoch,
            seq=asked_seq,
            contiguous=contiguous,
        )

    def health(self) -> HealthAnswer:
        """Returns who it is."""
        return HealthAnswer(
            role=self.role,
            node_id=self.settings.node_id,
            epoch=self.epoch,
            start_id=self.settings.start_id,
            durable=self.storage is not None,
        )

    def check_ready(self) -> None:
        """Checks that the node can do its role's work now.

        Raises:
            NotReadyError: It cannot, and why.
        """
        decision = self._replica().readiness()
        if decision.standing is not Standing.OPEN:
            raise NotReadyError(
                f"The {self.role} is not ready: {decision.reason}.", reason=str(decision.standing)
            )
