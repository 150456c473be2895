"""How a node that led leads again by itself, after a restart or when it was superseded."""

import asyncio
import logging
import random
from typing import Final, Protocol

from kv_app.candidacy import Candidacy
from kv_app.errors import StorageError, StoreError
from kv_app.leader import Leader
from kv_app.meta import Role
from kv_app.promoter import LedElsewhereError, NobodyHoldsDataError, Wish
from kv_app.replica import Replica

logger = logging.getLogger("kv_app")

# A leader that was superseded waits so long, up to twice, for the new one before it leads again.
SUPERSEDED_WAIT_S: Final = 3.0
# Between two attempts to lead again: longer and longer, and never the same on two nodes.
FIRST_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 2.0


class ComebackOwner(Protocol):
    """The node that is to lead again, as its comeback sees it."""

    replica: Replica
    leader: Leader | None
    candidacy: Candidacy
    is_draining: bool

    @property
    def is_led(self) -> bool:
        """True while a leader has a channel to it."""

    def form_if_blank(self) -> bool:
        """Makes a new cluster if it may; returns whether it does."""


class Comeback:
    """The attempts of one node to lead again, until it does or another one has given it its base.

    Attributes:
        obstacle: Why the last attempt failed; empty before the first one has.
    """

    def __init__(self, node: ComebackOwner) -> None:
        self.obstacle = ""
        self._node = node
        self._urls: tuple[str, ...] = ()
        self._pause_s = FIRST_PAUSE_S
        self._task: asyncio.Task[None] | None = None

    @property
    def is_under_way(self) -> bool:
        """True from its beginning to its end."""
        return self._task is not None and not self._task.done()

    def begin(self, after_s: float, urls: tuple[str, ...] = ()) -> None:
        """Begins to lead again, unless another node does meanwhile, or it has begun already.

        Args:
            after_s: How long that other node is waited for at least.
            urls: Whom to ask, if it does not know the members itself.
        """
        if not self.is_under_way:
            self._urls = urls
            self._task = asyncio.create_task(self._lead_again(after_s))

    def begin_anew(self) -> None:
        """Waits no longer, if it ever began: who it waits for does not come."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self.begin(0, self._urls)

    async def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _lead_again(self, after_s: float) -> None:
        if after_s:
            await asyncio.sleep(after_s * random.uniform(1.0, 2.0))  # noqa: S311  not a secret
        self.obstacle = ""
        node = self._node
        while not node.is_draining and node.leader is None and not self._has_followed():
            # Who leads it may be gone before it has brought the base: then this goes on.
            if not node.is_led and await self._try_to_lead():
                return
            await self._pause()
        self._pause_s = FIRST_PAUSE_S

    def _has_followed(self) -> bool:
        """True if another node has led meanwhile: it has given it its base, and more than that.

        What is above a base comes only once its epoch is open. This node is a follower then like
        any other, even if that leader is gone again.
        """
        replica = self._node.replica
        base = replica.meta.base
        # With another leader's base a node never begins this: it has come since.
        if base is None or base.leader_id == replica.settings.node_id:
            return False
        return replica.held.max_seq > base.position

    async def _try_to_lead(self) -> bool:
        """Tries once; returns True if there is nothing to be tried any more."""
        try:
            await self._node.candidacy.promote(Wish(self._urls, is_own=True))
        except NobodyHoldsDataError as error:
            self.obstacle = str(error)
            if self._node.replica.settings.role is Role.LEADER:
                # It may be heard again that a follower holds something, as a learner of a cluster
                # that is gone: then this comes round again, less and less often.
                await self._pause()
                return self._node.form_if_blank()
        except (StoreError, LedElsewhereError) as error:
            if str(error) != self.obstacle:
                logger.warning("does not lead yet: %s", error)
                self.obstacle = str(error)
        except StorageError:
            return True  # the process ends
        except Exception:
            # A cluster that waits for this node must not stay without a leader for good.
            logger.exception("does not lead yet: the attempt met a bug; it tries again")
            self.obstacle = "this node met a bug; see its log"
        return False

    async def _pause(self) -> None:
        """Waits before the next attempt: longer each time, and never as long as another node."""
        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))  # noqa: S311  not a secret
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)
