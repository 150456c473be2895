"""A node: what it holds, the role that it has, and how it changes that."""

import asyncio
import contextlib
import logging
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.types import Receive, Send

from kv_app.bodies import HealthAnswer
from kv_app.errors import (
    ChannelError,
    MalformedError,
    NotAttemptedError,
    NotLeaderError,
    NotReadyError,
    OutbidError,
    PositionNotReachedError,
    StorageError,
    StoreError,
    SupersededError,
    TooLargeError,
)
from kv_app.failover.calls import (
    Answer,
    Check,
    Denied,
    Fetch,
    Fetched,
    FetchWhole,
    Held,
    Probe,
    Probed,
    Question,
    Seal,
    Sealed,
)
from kv_app.failover.electors import own_url
from kv_app.failover.promises import allows
from kv_app.follower import Follower, check_hello, superseded
from kv_app.formation import Standing
from kv_app.leader import FIRST_EPOCH, Leader
from kv_app.log import memory_of
from kv_app.messages import MAX_SEQ, Entry, Hello, Version
from kv_app.meta import BaseRecord, Meta, Position, Promise, Role
from kv_app.peers import HttpPeers, Peers
from kv_app.promoter import LedElsewhereError, NobodyHoldsDataError, Promotion, Wish, promote
from kv_app.replica import Replica
from kv_app.session import Session
from kv_app.settings import Settings
from kv_app.snapshot import snapshot_frames
from kv_app.state import State
from kv_app.storage import Storage, open_storage

if TYPE_CHECKING:
    from kv_app.delays import DelayModel

logger = logging.getLogger("kv_app")

EXIT_STORAGE = 74  # EX_IOERR of sysexits.h
# The outcome of a write that is no error.
ACKNOWLEDGED = "acknowledged"
# A leader that was superseded waits so long, up to twice, for the new one before it leads again.
SUPERSEDED_WAIT_S: Final = 3.0
# Between two attempts to lead again: longer and longer, and never the same on two nodes.
FIRST_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 2.0
# How long a new epoch's base may take to come to a majority of the nodes.
OPEN_TIMEOUT_S: Final = 30.0
# And how long a promotion waits until enough followers count for a write.
COUNT_TIMEOUT_S: Final = 5.0
FETCH_BYTES: Final = 4 << 20


def end_process(error: StorageError) -> None:
    """Ends the process at once: what the disk holds is not known any more, so nothing may follow.

    Nobody is answered; for a client that waits the outcome is unknown.
    """
    logger.critical("%s; the node ends, and what it acknowledged is on the disk", error)
    sys.stderr.flush()
    os._exit(EXIT_STORAGE)


@dataclass(frozen=True, slots=True)
class Promoted:
    """What a promotion has done.

    Attributes:
        epoch: The epoch that this node leads now.
        sealed: The URLs of the voters that were sealed; none if it led already.
        write_quorum: k in force.
        required: How many followers had to be sealed without the old leader.
        holes_filled: How many positions nobody held.
        entries: The last position of the merged log.
        may_have_lost: What may be missing, one sentence; empty if nothing is.
    """

    epoch: int
    sealed: tuple[str, ...]
    write_quorum: int
    required: int
    holes_filled: int
    entries: int
    may_have_lost: str


class Node:
    """One process of the cluster.

    Attributes:
        settings: What it was told at its start.
        replica: What it holds.
        leader: Set while it leads, or forms a cluster.
        follower: Set while it does not.
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
        self.follower: Follower | None = None
        self.outcomes: Counter[str] = Counter()
        self.connections: set[Any] = set()
        self._peers = peers or HttpPeers(settings.cluster_token, settings.heartbeat_timeout_s)
        self._on_failure = on_failure or end_process
        self._executor = executor
        self._now_ns = now_ns
        self._delays: DelayModel | None = None
        self._candidate: Leader | None = None
        self._promotion: asyncio.Task[Promoted] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._obstacle, self._pause_s = "", FIRST_PAUSE_S
        self._is_draining = False

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
        base, promise = self.replica.meta.base, self.replica.meta.promise
        if base is None and promise is None and self._kept_role() is Role.LEADER:
            self._form()
            return
        self.follower = Follower(self.replica)
        if base is not None:
            self._check_members(base)
            if self._led(base):
                logger.warning("led epoch %d and was restarted: it begins a new one", base.epoch)
                self._recover(after_s=0)
        elif self._kept_role() is Role.LEADER:
            # It had lost its data, and was a learner of the cluster that it had led.
            self._recover(after_s=SUPERSEDED_WAIT_S)

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
        urls = self.settings.follower_urls
        if self.settings.role is not Role.LEADER:
            return
        members = base.config.members
        own = own_url(members, self.settings.node_id, self.settings.advertise_url)
        recorded = {member.url for member in members} - {own}
        if urls and set(urls) - {self.settings.advertise_url} != recorded:
            self._close_storage()
            raise StorageError(
                f"this node's cluster was made with {', '.join(sorted(recorded)) or 'no others'} "
                "beside it, which is fixed; start it with the same FOLLOWER_URLS, or without, or "
                "with another DATA_DIR"
            )

    def _form(self) -> None:
        """Becomes the leader of a cluster that is still to be made."""
        replica = self.replica
        if not replica.is_empty:
            replica.forget_all()
        replica.save(cluster_id=secrets.token_hex(8), promise=None)
        promise = Promise(FIRST_EPOCH, self.settings.node_id, secrets.token_hex(8))
        self.leader = Leader(
            replica,
            promise,
            on_superseded=self._on_superseded,
            on_recovering=self._on_recovering,
            now_ns=self._now_ns,
        )
        self.leader.start()

    def drain(self) -> None:
        """Refuses new writes from now on; those that wait go on."""
        self._is_draining = True
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
        for task in (self._recovery, self._promotion):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for role in (self._candidate, self.leader, self.follower):
            if role is not None:
                await role.stop()
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
        if hello.leader_id == self.settings.node_id:
            raise ChannelError(
                f"NODE_ID {hello.leader_id!r} is also that of its leader; give each node its own"
            )
        if self.leader is not None or self._candidate is not None:
            meta = self.replica.meta
            is_forming = self.leader is not None and self.leader.base is None
            if is_forming and hello.is_formed:  # there is a cluster already, and this belongs to it
                self._step_down(hello.epoch)
                return self._follower_side()
            if not hello.is_formed and meta.base is not None:
                raise SupersededError(
                    f"this node leads epoch {self.replica.promised} of a cluster that is there "
                    "already",
                    self.replica.promised,
                )
            if hello.cluster_id != meta.cluster_id or is_forming:
                raise ChannelError("this node is a leader, not a follower")
            if not allows(meta.promise, Promise(hello.epoch, hello.leader_id, hello.attempt)):
                raise superseded(hello, self.replica.promised)
            self._step_down(hello.epoch)
        return self._follower_side()

    def _follower_side(self) -> Follower:
        if self.follower is None:
            raise RuntimeError("a node has a role")
        return self.follower

    def _step_down(self, promised: int) -> None:
        """Leads no more, and wants to lead no epoch below a newer one."""
        candidate, self._candidate = self._candidate, None
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
            self._recover(after_s=SUPERSEDED_WAIT_S)

    def _on_superseded(self, promised: int) -> None:
        """A follower has promised itself to a newer epoch: this node follows that, or ends it."""
        leads = self.leader or self._candidate
        if leads is None or promised < leads.epoch:
            return
        is_shared = promised == leads.epoch  # another attempt at the same epoch, which failed
        self._step_down(promised)
        if is_shared and self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
            self._recover(after_s=0)

    def _on_recovering(self) -> None:
        """This node has lost what others still hold: it brings that back, and leads again."""
        leader, self.leader = self.leader, None
        if leader is None:
            return
        for task in leader.abdicate(0):
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        self.replica.save(cluster_id="")
        self.follower = Follower(self.replica)
        self._recover(after_s=0)

    def _recover(self, after_s: float) -> None:
        """Begins to lead again by itself, unless another node does meanwhile."""
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._lead_again(after_s))

    async def _lead_again(self, after_s: float) -> None:
        if after_s:
            await asyncio.sleep(after_s * random.uniform(1.0, 2.0))  # noqa: S311  not a secret
        self._obstacle = ""
        while not self._is_draining and self.leader is None and not self._has_followed():
            # Who leads it may be gone before it has brought the base: then this goes on.
            if not self.is_led and await self._try_to_lead():
                return
            await self._pause()
        self._pause_s = FIRST_PAUSE_S

    def _has_followed(self) -> bool:
        """True if a leader has a channel to it, and has given it the base of its epoch."""
        return self.is_led and self.replica.base_epoch == self.replica.promised

    async def _try_to_lead(self) -> bool:
        """Tries once; returns True if there is nothing to be tried any more."""
        try:
            await self.promote(Wish(is_own=True))
        except NobodyHoldsDataError as error:
            self._obstacle = str(error)
            if self.settings.role is Role.LEADER:
                # It may be heard again that a follower holds something, as a learner of a cluster
                # that is gone: then this comes round again, less and less often.
                await self._pause()
                if self._is_blank() and not self._is_draining:
                    self.follower = None
                    self._form()
                    return True
        except (StoreError, LedElsewhereError) as error:
            if str(error) != self._obstacle:
                logger.warning("does not lead yet: %s", error)
                self._obstacle = str(error)
        except StorageError:
            return True  # the process ends
        return False

    def _is_blank(self) -> bool:
        """True if it holds nothing, follows nobody and wants nothing, so that it may form."""
        is_idle = self._promotion is None or self._promotion.done()
        roles = (self.leader, self._candidate, self.replica.meta.base)
        return is_idle and roles == (None, None, None) and not self.is_led

    async def _pause(self) -> None:
        """Waits before the next attempt: longer each time, and never as long as another node."""
        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))  # noqa: S311  not a secret
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)

    @property
    def is_led(self) -> bool:
        """True while a leader has a channel to it."""
        return self.follower is not None and self.follower.is_led

    async def promote(self, wish: Wish) -> Promoted:
        """Makes this node the leader of a new epoch; joins an attempt that is under way.

        Raises:
            NotEnoughSurvivorsError: Who answers need not hold all that was acknowledged.
            OutbidError: Another node has promised a newer epoch, or the base came to too few nodes.
            LedElsewhereError: Another node leads, and this one wants to lead by itself.
            NotAttemptedError: It forms a cluster, or stops.
        """
        while True:
            if self._is_draining:
                raise NotAttemptedError(
                    "The node is stopping; promote another one.", reason="draining"
                )
            if self.leader is not None and not (wish.force and self.leader.base is not None):
                return self._leads_already(self.leader)
            if self._promotion is None or self._promotion.done():
                self._promotion = asyncio.create_task(self._promote(wish))
            try:
                return await asyncio.shield(self._promotion)
            except LedElsewhereError:
                if wish.is_own:
                    raise
                # It had joined an attempt of this node's own, which yields where another one leads.

    def _leads_already(self, leader: Leader) -> Promoted:
        if not leader.is_open or leader.base is None:
            raise NotAttemptedError(
                "This node forms a new cluster and holds nothing yet; promote a node with data.",
                reason="forming",
            )
        return Promoted(leader.epoch, (), leader.write_quorum, 0, 0, leader.log.last_seq, "")

    async def _promote(self, wish: Wish) -> Promoted:
        try:
            promotion = await promote(self, self._peers, wish)
        except StorageError as error:
            self._on_failure(error)
            raise
        candidate = self._stand(promotion)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await candidate.opened.wait()
        except TimeoutError:
            if self._candidate is candidate:
                self._candidate = None
                await asyncio.gather(*candidate.abdicate(0), return_exceptions=True)
            raise OutbidError(
                f"The base of epoch {candidate.epoch} did not come to a majority of the nodes in "
                "time; try again."
            ) from None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                await candidate.counted.wait()
        if self.leader is not candidate:
            raise OutbidError(f"Epoch {candidate.epoch} was over before it began; try again.")
        return Promoted(
            candidate.epoch,
            promotion.sealed,
            candidate.write_quorum,
            promotion.required,
            promotion.noops,
            promotion.base.position,
            promotion.may_have_lost,
        )

    def _stand(self, promotion: Promotion) -> Leader:
        """Begins to lead an epoch whose base this node holds; it opens once others do too."""
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
        self._candidate = candidate
        candidate.start()
        return candidate

    def _on_open(self) -> None:
        self.leader, self._candidate = self._candidate, None
        follower, self.follower = self.follower, None
        if follower is not None:
            follower.reads.check_all()
            follower.reads.end()

    # --- what other nodes ask -----------------------------------------------------------------

    def probed(self) -> Probed:
        """Returns where this node stands."""
        replica, leader = self.replica, self.leader
        config, (config_epoch, config_seq) = replica.config()
        epoch, contiguous, max_seq = self.position()
        del epoch
        held = replica.held
        return Probed(
            self.settings.node_id,
            replica.meta.cluster_id,
            replica.promised,
            replica.meta.base,
            config,
            config_epoch,
            config_seq,
            contiguous,
            max_seq,
            0 if leader is not None else held.holes,
            leader is not None and leader.is_open,
            self.leader_url,
            replica.meta.incarnation,
        )

    async def seal(self, seal: Seal) -> Sealed | Denied:
        """Promises, if it may, and says what it holds; all of it is durable then."""
        replica = self.replica
        meta = replica.meta
        if meta.base is not None and meta.cluster_id != seal.cluster_id:
            return Denied("it holds the data of another cluster", promised=0)
        is_sound = 1 <= seal.promise.epoch <= MAX_SEQ
        if not is_sound or not allows(meta.promise, seal.promise):
            return Denied(f"it is in epoch {replica.promised}", replica.promised)
        if meta.promise != seal.promise:
            # From here on nothing of older epochs is taken, though the answer is still to come.
            self._step_down(seal.promise.epoch)
            if self.follower is not None:
                self.follower.release(seal.promise.epoch)
            replica.save(promise=seal.promise)
        if replica.commits is not None:
            await replica.commits.flush()
        if replica.meta.promise != seal.promise:
            return Denied(f"it is in epoch {replica.promised}", replica.promised)
        config, (config_epoch, config_seq) = replica.config()
        return Sealed(
            self.settings.node_id,
            meta.incarnation,
            replica.meta.base,
            config,
            config_epoch,
            config_seq,
            replica.settled_seq,
            replica.log.start,
            replica.held.contiguous,
            replica.held.ranges_above(),
        )

    async def answer(self, question: Question) -> Answer:
        """Answers what another node asks."""
        match question:
            case Probe():
                return self.probed()
            case Seal():
                return await self.seal(question)
            case Check():
                return self._denial(question) or Held()
            case Fetch():
                return self._denial(question) or self._fetched(question)

    def _denial(self, question: Check | Fetch | FetchWhole) -> Denied | None:
        meta = self.replica.meta
        if meta.incarnation != question.incarnation:
            return Denied("it has lost its data since", self.replica.promised)
        if meta.promise != question.promise:
            return Denied(f"it is in epoch {self.replica.promised}", self.replica.promised)
        return None

    def _fetched(self, question: Fetch) -> Fetched:
        entries: list[Entry] = []
        size = 0
        for span in question.ranges:
            for seq in range(span.first, span.last + 1):
                entry = self.replica.log.get(seq)
                if entry is None or size > FETCH_BYTES:
                    return Fetched(entries)
                entries.append(entry)
                size += memory_of(entry)
        return Fetched(entries)

    def whole(self, question: FetchWhole) -> Iterator[bytes]:
        """Yields the messages of a snapshot of all that is settled; ends early if it is denied."""
        replica = self.replica
        if self._denial(question) is not None:
            return
        position = replica.settled_seq
        remembered = replica.idempotency.remembered(position)
        for frame in snapshot_frames(replica.state, remembered, position):
            if self._denial(question) is not None:
                return
            yield frame

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
            if self._recovery is not None and not self._recovery.done() and not self.is_led:
                why = self._obstacle or "the others are asked what they hold"
                raise NotAttemptedError(
                    f"This node is to lead a new epoch, and does not yet: {why}",
                    reason=str(Standing.RECOVERING),
                )
            url = self.leader_url
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
