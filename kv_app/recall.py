"""How a follower calls back a leader that has lost everything, its role too."""

import asyncio
import logging
import random
from typing import Final, Protocol

from kv_app.failover.calls import Recall
from kv_app.peers import PeerError, Peers
from kv_app.replica import Replica

logger = logging.getLogger("kv_app.recall")

RECALL_PERIOD_S: Final = 2.0
RECALL_TIMEOUT_S: Final = 1.0


class RecallOwner(Protocol):
    """The node that misses its leader, as its recalls see it."""

    replica: Replica

    @property
    def misses_leader(self) -> bool:
        """True while it follows nobody, and neither leads nor wants to."""


class Recalls:
    """Tells whoever answers in its leader's place that it led: a node without data cannot know.

    The node that a cluster began with has the others' URLs and asks them; one that was promoted
    since has none, and would wait for a leader for ever, as all the others do.
    """

    def __init__(self, node: RecallOwner, peers: Peers) -> None:
        self._node = node
        self._peers = peers
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Looks from time to time whether its leader is missing."""
        self._task = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        """Ends that."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(RECALL_PERIOD_S * random.uniform(0.5, 1.5))  # noqa: S311  not a secret
            try:
                await self._recall()
            except Exception:
                # Nobody else calls its leader back.
                logger.exception("the call to the leader that is missing met a bug; it goes on")

    async def _recall(self) -> None:
        """Tells whoever may be its leader, if that is missing."""
        base = self._node.replica.meta.base
        if base is None or not self._node.misses_leader:
            return
        urls = tuple(member.url for member in base.config.members)
        recall = Recall(self._node.replica.meta.cluster_id, base.leader_id, urls)
        for member in base.config.members:
            # Of a member that was not heard when the cluster was made the name is not known.
            if member.node_id in {"", base.leader_id}:
                await self._tell(member.url, recall)

    async def _tell(self, url: str, recall: Recall) -> None:
        try:
            await self._peers.call(url, recall, RECALL_TIMEOUT_S)
        except PeerError as error:
            logger.debug("%s", error)
