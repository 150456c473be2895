"""A node: what it holds, the role that it has, and how it changes that."""

import asyncio
import logging
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Send

from kv_app.bodies import HealthAnswer
from kv_app.candidacy import Candidacy
from kv_app.comeback import SUPERSEDED_WAIT_S, Comeback
from kv_app.errors import (
    ChannelError,
    NotAttemptedError,
    NotLeaderError,
    NotReadyError,
    PositionNotReachedError,
    StorageError,
    SupersededError,
)
from kv_app.failover.electors import own_url
from kv_app.failover.promises import allows
from kv_app.follower import Follower, check_hello, superseded
from kv_app.formation import Standing
from kv_app.leader import FIRST_EPOCH, Leader
from kv_app.messages import Hello, Version
from kv_app.meta import BaseRecord, Meta, Position, Promise, Role
from kv_app.peers import HttpPeers, Peers
from kv_app.promoter import Promotion
from kv_app.recall import Recalls
from kv_app.replica import Replica
from kv_app.respondent import Respondent
from kv_app.session import Session
from kv_app.settings import Settings
from kv_app.state import State
from kv_app.storage import Storage, open_storage

if TYPE_CHECKING:
    from kv_app.delays import DelayModel

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
        replica: What it holds.
        leader: Set while it leads, or forms a cluster.
        candidate: Set while it holds the base of a new epoch that is not open yet.
        follower: Set while it does not lead.
        is_draining: Set once it is to stop: it leads no new epoch.
        respondent: Answers what other nodes ask it.
        candidacy: Makes it the leader of a new epoch.
        outcomes: How many writes ended how: acknowledged, or with the code of an error.
        connections: All that are open, as the server keeps them.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        peers: Peers | None = None,
        on_failure: Callable[[StorageError], None] | None = None,
        executor: Executor | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Makes a node that ``start`` starts.

        Args:
            settings: What it is told.
            peers: How it reaches other nodes; over HTTP if not given.
            on_failure: Called when the disk fails; must end the process, as ``end_process`` does.
            executor: Where large commits are synced; a thread of its own if not given.
            now_ns: A monotonic clock.
        """
        self.settings = settings
        self.replica: Replica
        self.leader: Leader | None = None
        self.candidate: Leader | None = None
        self.follower: Follower | None = None
        self.is_draining = False
        self.outcomes: Counter[str] = Counter()
        self.connections: set[Any] = set()
        self._on_failure = on_failure or end_process
        peers = peers or HttpPeers(settings.cluster_token, settings.heartbeat_timeout_s)
        self.respondent = Respondent(self)
        self.candidacy = Candidacy(self, peers, self._on_failure)
        self._comeback = Comeback(self)
        self._recalls = Recalls(self, peers)
        self._executor = executor
        self._now_ns = now_ns
        self._delays: DelayModel | None = None
        self._ending: set[asyncio.Task[None]] = set()

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins its role's work, in the running event loop.

        Raises:
            StorageError: What is in ``DATA_DIR`` cannot be used; the message says what to do.
        """
        settings, storage = self.settings, None
        meta = Meta(settings.node_id, settings.role, secrets.token_hex(8))
        if settings.data_dir is not None:
            storage = open_storage(settings.data_dir, settings.node_id, settings.role)
            if storage.notice:
                logger.warning("%s", storage.notice)
        self.replica = Replica(settings, meta, storage, self._on_failure, self._executor)
        self._take_up_role()
        self._recalls.start()

    def _take_up_role(self) -> None:
        base, promise = self.replica.meta.base, self.replica.meta.promise
        if base is None and promise is None and self._kept_role() is Role.LEADER:
            self._form()
            return
        self.follower = Follower(self.replica)
        if base is not None:
            self._check_members(base)
            if self._led(base):
                logger.warning("led epoch %d and was restarted: it begins a new one", base.epoch)
                self._comeback.begin(after_s=0)
        elif self._kept_role() is Role.LEADER:
            # It had lost its data, and was a learner of the cluster that it had led.
            self._comeback.begin(after_s=SUPERSEDED_WAIT_S)

    def _kept_role(self) -> Role:
        role = self.replica.meta.role
        if role is not self.settings.role:
            logger.warning("ROLE=%s is ignored: DATA_DIR is a %s's", self.settings.role, role)
        return role

    def _led(self, base: BaseRecord) -> bool:
        meta = self.replica.meta
        return (base.leader_id, base.leader_incarnation) == (meta.node_id, meta.incarnation)

    def _check_members(self, base: BaseRecord) -> None:
        """Checks that the settings do not name other followers than the cluster was made with."""
        recorded = self._unlike_settings(base)
        if recorded:
            self._close_storage()
            raise StorageError(
                f"{recorded}; start it with the same FOLLOWER_URLS, or without, or with another "
                "DATA_DIR"
            )

    def _unlike_settings(self, base: BaseRecord) -> str:
        """Returns with whom the cluster was made, if the settings name others; else nothing."""
        settings = self.settings
        if settings.role is not Role.LEADER or not settings.follower_urls:
            return ""
        members = base.config.members
        own = own_url(members, settings.node_id, settings.advertise_url)
        recorded = {member.url for member in members} - {own}
        if set(settings.follower_urls) - {settings.advertise_url} == recorded:
            return ""
        others = ", ".join(sorted(recorded)) or "no others"
        return f"this node's cluster was made with {others} beside it, which is fixed"

    def _form(self) -> None:
        """Becomes the leader of a cluster that is still to be made."""
        replica = self.replica
        if not replica.is_empty:
            replica.forget_all()
        replica.leave()
        replica.save(cluster_id=secrets.token_hex(8))
        promise = Promise(FIRST_EPOCH, self.settings.node_id, secrets.token_hex(8))
        self.leader = Leader(
            replica,
            promise,
            on_superseded=self._on_superseded,
            on_recovering=self._on_recovering,
            now_ns=self._now_ns,
        )
        self.leader.start()

    def form_if_blank(self) -> bool:
        """Makes a new cluster if it holds nothing, follows nobody and wants nothing.

        Returns:
            Whether it does.
        """
        roles = (self.leader, self.candidate, self.replica.meta.base)
        is_idle = not (self.is_led or self.is_draining or self.candidacy.is_under_way)
        is_blank = is_idle and roles == (None, None, None)
        if is_blank:
            self.follower = None
            self._form()
        return is_blank

    def drain(self) -> None:
        """Refuses new writes from now on, and opens no epoch; writes that wait go on."""
        self.is_draining = True
        for one in (self.leader, self.candidate):
            if one is not None:
                one.drain()

    def end_waits(self) -> None:
        """Ends all that waits: writes and changes of k are unknown, reads refused.

        An attempt to lead is given up; who asked for it is told by the server that it was cut off.
        """
        if self.leader is not None:
            self.leader.end_waits()
        for replica in (self.leader, self.follower):
            if replica is not None:
                replica.reads.end()
        ending = asyncio.create_task(self.candidacy.stop())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def stop(self) -> None:
        """Ends its role's work."""
        await self._recalls.stop()
        await self._comeback.stop()
        await self.candidacy.stop()
        for role in (self.candidate, self.leader, self.follower):
            if role is not None:
                await role.stop()
        await asyncio.gather(*self._ending, return_exceptions=True)
        self._close_storage()

    def _close_storage(self) -> None:
        storage, self.replica.storage = self.replica.storage, None
        if storage is not None:
            storage.close()

    async def serve_channel(self, receive: Receive, send: Send) -> None:
        """Serves one replication channel (an accepted ASGI WebSocket) until it ends."""
        session = Session(self.accept, receive, send, self.settings.heartbeat_timeout_s)
        await session.serve()

    # --- changing its role --------------------------------------------------------------------

    def accept(self, hello: Hello) -> Follower:
        """Returns who takes what a leader sends; a leader whose epoch is over follows it.

        Raises:
            ChannelError: This node will not follow it.
        """
        check_hello(hello)
        self._check_is_another(hello)
        if self.leader is not None or self.candidate is not None:
            meta = self.replica.meta
            is_forming = self.leader is not None and self.leader.base is None
            if is_forming and hello.is_formed:
                # There is a cluster already; this node belongs to it if it knows who leads it.
                if hello.leader_url not in self.settings.follower_urls:
                    raise ChannelError(
                        f"this node forms a cluster, and {hello.leader_url} is none of its "
                        "FOLLOWER_URLS"
                    )
                self._step_down(hello.epoch)
                return self._follower_side()
            if not hello.is_formed and meta.base is not None:
                raise SupersededError(
                    f"this node leads epoch {self.replica.promised} of a cluster that is there "
                    "already",
                    self.replica.promised,
                    meta.cluster_id,
                )
            if hello.cluster_id != meta.cluster_id or is_forming:
                raise ChannelError("this node is a leader, not a follower")
            if not allows(meta.promise, Promise(hello.epoch, hello.leader_id, hello.attempt)):
                raise superseded(hello, self.replica.promised)
            self._step_down(hello.epoch)
        return self._follower_side()

    def _check_is_another(self, hello: Hello) -> None:
        """Refuses a leader that this node could not be told apart from."""
        shared = ""
        if hello.leader_id == self.settings.node_id:
            shared = f"NODE_ID {hello.leader_id!r}"
        elif hello.leader_url == self.settings.advertise_url:
            shared = f"ADVERTISE_URL {hello.leader_url}"
        if shared:
            raise ChannelError(f"{shared} is also that of its leader; give each node its own")

    def _follower_side(self) -> Follower:
        if self.follower is None:
            raise RuntimeError("a node has a role")
        return self.follower

    def give_way(self, promised: int, cluster_id: str) -> None:
        """Leads no more, and takes nothing of the epochs before a newer one of a cluster."""
        self._step_down(promised)
        if self.follower is not None:
            self.follower.release(promised, cluster_id)

    def lead_again(self, urls: tuple[str, ...]) -> None:
        """Begins to lead again, unless it has a role or another node leads it."""
        if self.misses_leader and not self.is_draining:
            logger.warning("led the cluster of %s, and lost its data", ", ".join(urls))
            self._comeback.begin(0, urls)

    def _step_down(self, promised: int) -> None:
        """Leads no more, and wants to lead no epoch below a newer one."""
        candidate, self.candidate = self.candidate, None
        leader, self.leader = self.leader, None
        for one in (candidate, leader):
            if one is None:
                continue
            self._delays = one.delays
            for task in one.abdicate(promised):
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
            logger.warning("leads epoch %d no more: epoch %d is promised", one.epoch, promised)
        if self.follower is None:
            self.follower = Follower(self.replica)
        if leader is not None:
            self._comeback.begin(after_s=SUPERSEDED_WAIT_S)

    def _on_superseded(self, promised: int) -> None:
        """A follower has promised itself to a newer epoch: this node follows that, or ends it."""
        leads = self.leader or self.candidate
        if leads is None or promised < leads.epoch:
            return
        is_shared = promised == leads.epoch  # another attempt at the same epoch, which failed
        self._step_down(promised)
        if is_shared:
            self._comeback.begin_anew()

    def _on_recovering(self) -> None:
        """This node has lost what others still hold: it brings that back, and leads again."""
        leader, self.leader = self.leader, None
        if leader is None:
            return
        for task in leader.abdicate(0):
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        self.replica.leave()
        self.follower = Follower(self.replica)
        self._comeback.begin(after_s=0)

    @property
    def is_led(self) -> bool:
        """True while a leader has a channel to it."""
        return self.follower is not None and self.follower.is_led

    @property
    def misses_leader(self) -> bool:
        """True while it follows nobody, and neither leads nor wants to."""
        is_busy = self._comeback.is_under_way or self.candidacy.is_under_way
        return not (self.is_led or is_busy or self.leader or self.candidate)

    def stand(self, promotion: Promotion) -> Leader:
        """Begins to lead an epoch whose base this node holds; it opens once others do too."""
        recorded = self._unlike_settings(promotion.base)
        if recorded:  # it had lost its data, else its start would have been refused
            logger.warning("FOLLOWER_URLS is ignored: %s", recorded)
        candidate = Leader(
            self.replica,
            promotion.promise,
            base=promotion.base,
            is_blank=promotion.is_blank,
            needed=promotion.sealed if promotion.may_have_lost else None,
            delays=self._delays,
            on_open=self._on_open,
            on_superseded=self._on_superseded,
            now_ns=self._now_ns,
        )
        self.candidate = candidate
        candidate.start()
        return candidate

    def _on_open(self) -> None:
        self.leader, self.candidate = self.candidate, None
        follower, self.follower = self.follower, None
        if follower is not None:
            follower.reads.check_all()
            follower.reads.end()

    # --- what every role answers alike --------------------------------------------------------

    @property
    def role(self) -> Role:
        """What the node is in its cluster now."""
        return Role.LEADER if self.leader is not None else Role.FOLLOWER

    @property
    def storage(self) -> Storage | None:
        """Its database, if it has one."""
        return self.replica.storage

    @property
    def epoch(self) -> int:
        """The epoch that it leads or follows; 0 for a follower without a leader so far."""
        return self.leader.epoch if self.leader is not None else self.replica.promised

    @property
    def leader_url(self) -> str | None:
        """Where the leader is, as far as this node knows."""
        if self.leader is not None:
            return self.settings.advertise_url
        return self.follower.leader_url if self.follower is not None else None

    def position(self) -> tuple[int, int, int]:
        """Returns the epoch, the contiguous position and the highest one of what it holds.

        A leader's contiguous position is that up to which all is committed, since it shows no more.
        """
        if self.leader is not None:
            return self.epoch, self.leader.stable_seq, self.leader.log.last_seq
        held = self.replica.held
        return self.epoch, held.contiguous, held.max_seq

    @property
    def state(self) -> State:
        """What it shows: on the leader committed versions only."""
        return self.replica.state

    def _role(self) -> Leader | Follower:
        role = self.leader or self.follower
        if role is None:
            raise RuntimeError("a node has a role")
        return role

    def require_leader(self) -> Leader:
        """Returns the leader's side of this node.

        Raises:
            NotLeaderError: It is a follower; the error names the leader if it is known.
            NotAttemptedError: It led, and is about to lead again.
        """
        if self.leader is None:
            if self._comeback.is_under_way and not self.is_led:
                why = self._comeback.obstacle or "the others are asked what they hold"
                raise NotAttemptedError(
                    f"This node is to lead a new epoch, and does not yet: {why}",
                    reason=str(Standing.RECOVERING),
                )
            url = self.leader_url
            where = f"send it to {url}" if url else "its leader is not known yet"
            raise NotLeaderError(f"This node is a follower; {where}.", leader_url=url)
        return self.leader

    def read(self, key: str) -> Version | None:
        """Returns what this replica shows of a key; a deletion has the value None."""
        return self.state.read(key)

    async def wait_reached(self, key: str, position: Position) -> None:
        """Waits until a read of a key can show the write at a position, or a newer one.

        Raises:
            PositionNotReachedError: It could not within ``REQUEST_TIMEOUT``.
            TooManyInFlightError: Too many reads wait already.
        """
        if await self._role().reads.wait(key, *position):
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
        decision = self._role().readiness()
        if decision.standing is not Standing.OPEN:
            raise NotReadyError(
                f"The {self.role} is not ready: {decision.reason}.", reason=str(decision.standing)
            )
