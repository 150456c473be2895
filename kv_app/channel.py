"""One link from the leader to one follower: its channel, acknowledgments, catch-up.

A link keeps trying for ever. While its channel is open it sends what is due, and reports what comes
back. It knows nothing of quorums.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from kv_app.bounds import shown
from kv_app.catch_up import CatchUp, Source
from kv_app.errors import ChannelError, ProtocolViolationError
from kv_app.log import HeldPositions, LogRecord
from kv_app.messages import (
    CLOSE_NORMAL,
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    CLOSE_SILENT,
    CLOSE_TOO_SLOW,
    PROTOCOL_VERSION,
    UNREADABLE,
    Ack,
    Base,
    BaseHeld,
    CaughtUp,
    Confirm,
    Confirmed,
    FollowerMessage,
    Heartbeat,
    Hello,
    Refusal,
    Replace,
    SeqRange,
    Welcome,
)
from kv_app.meta import BaseRecord
from kv_app.outbox import Outbox
from kv_app.peer_checks import check_ranges, check_welcome
from kv_app.silence import Silence
from kv_app.websocket_client import WebSocketClient, connect

logger = logging.getLogger("kv_app.channel")

MAX_ACK_BYTES = 16 << 20
CONNECT_TIMEOUT_S = 5.0
FIRST_RETRY_S = 0.05
CUT = "cut on purpose, by POST /admin/links"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FollowerMessage).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """What all links of a leader share.

    Attributes:
        leader_id: The leader's node id.
        leader_url: Where clients reach it.
        cluster_id: The cluster whose log it leads.
        epoch: The epoch that it leads.
        attempt: That of its promise.
        token: The cluster's token, if there is one.
        heartbeat_timeout_s: Silence after which a link is down.
        reconnect_max_s: Longest pause between two tries.
    """

    leader_id: str
    leader_url: str
    cluster_id: str
    epoch: int
    attempt: str
    token: str | None
    heartbeat_timeout_s: float
    reconnect_max_s: float


class LinkOwner(Source, Protocol):
    """The leader, as its links see it."""

    now_ns: Callable[[], int]

    @property
    def base(self) -> BaseRecord | None:
        """What its epoch began with; None before the cluster is formed."""

    def on_base_held(self, link: "Link") -> None:
        """A follower is a voter: it has become one, or has come back as one."""

    def on_acknowledged(self, link: "Link", ranges: Sequence[SeqRange]) -> None:
        """A follower holds further entries."""

    def on_superseded(self, link: "Link", promised: int) -> None:
        """A follower has promised itself to a newer epoch, or to another attempt at this one."""

    def on_tried(self) -> None:
        """A follower was tried for the first time, in vain or not."""


class LinkVoters(Protocol):
    """Which followers the leader lets in, as its links see it."""

    def may_admit(self, link: "Link") -> bool:
        """Tells if a learner that holds all that it had missed may be given the base."""

    def on_welcome(self, link: "Link", welcome: Welcome) -> None:
        """A follower said what it holds.

        Raises:
            ChannelError: It may not follow; the reason is shown.
        """

    def on_connected(self, link: "Link") -> None:
        """A follower takes entries from now on."""

    def on_confirmed(self, link: "Link", number: int) -> None:
        """A follower still follows, as it was asked."""


class Link:
    """The leader's view of one follower, and the channel to it.

    Attributes:
        index: The follower's number, from 0; its bit in the quorum's masks.
        url: Where it is.
        node_id: Its name, None before it has answered once.
        held: What it has acknowledged.
        is_connected: The channel is open and the follower was welcome.
        is_tried: It was heard, or could not be reached, at least once.
        is_learner: It does not hold the base of this epoch yet, and counts for nothing.
        is_older_voter: It holds the base of an older epoch instead.
        incarnation: That which it had when it was welcome.
        is_durable: Whether what it acknowledges is on its disk; None before it was heard.
        is_cut: Its channel is kept down on purpose (fault injection).
        has_data: What it last said: True if it holds entries that this leader lacks, False if it
            holds none of its own; None before it was heard, and once it is gone again before there
            is a cluster.
        detail: Why it is not connected.
        parts: How many parts of what it had missed it was sent.
    """

    def __init__(
        self, index: int, url: str, config: LinkConfig, owner: LinkOwner, voters: LinkVoters
    ) -> None:
        self.index = index
        self.url = url
        self.node_id: str | None = None
        self.held = HeldPositions()
        self.is_connected = False
        self.is_tried = False
        self.is_learner = False
        self.is_older_voter = False
        self.incarnation = ""
        self.is_durable: bool | None = None
        self.is_cut = False
        self.has_data: bool | None = None
        self.detail = "not connected yet"
        self.parts = 0
        self._config = config
        self._owner = owner
        self._voters = voters
        self._loop = asyncio.get_running_loop()
        self._client: WebSocketClient | None = None
        self._welcomed: asyncio.Future[None] | None = None
        self._outbox: Outbox | None = None
        self._catch_up: CatchUp | None = None
        self._learns_until = 0
        self._keeps: int | None = None
        self._is_visit = False
        self._is_base_sent = False
        # The newest round of questions that this channel was asked.
        self._asked = 0
        self._last_sent_s = 0.0
        self._writable = asyncio.Event()
        self._may_connect = asyncio.Event()
        self._may_connect.set()

    @property
    def counts(self) -> bool:
        """True while the follower's acknowledgments count for the quorum."""
        return self.is_connected and not self.is_learner and not self.gets_state

    @property
    def gets_state(self) -> bool:
        """True while it is sent the state, and no entries: it counts for nothing meanwhile."""
        return self._catch_up is not None and self._catch_up.gets_state

    @property
    def needs_deletions_above(self) -> int | None:
        """Deletions above are still to be sent to the follower; None if there are none."""
        return self._catch_up.needs_deletions_above if self._catch_up is not None else None

    @property
    def is_welcome(self) -> bool:
        """True from the follower's welcome to the end of its channel."""
        return self._client is not None and self._welcomed is not None and self._welcomed.done()

    # --- sending ------------------------------------------------------------------------------

    def offer(self, records: Sequence[LogRecord], frames: Sequence[bytes]) -> None:
        """Sends new records, each when it is due; not before those that the follower had missed.

        Args:
            records: New records, ascending.
            frames: The same records as encoded batches; empty if one of them has a delay.
        """
        outbox, catch_up = self._outbox, self._catch_up
        if outbox is None or catch_up is None or not catch_up.is_live:
            return  # it is in the log
        if frames and outbox.send_at_once(frames):
            return
        for record in records:
            outbox.push(record)
        log = self._owner.log
        if len(outbox) > log.capacity or outbox.size_bytes > log.max_bytes:
            self._disconnect(CLOSE_TOO_SLOW, "too slow: more waits for it than the log holds")
            return
        outbox.send_due()

    @property
    def waiting(self) -> int:
        """How many entries wait for their delay, or for the follower to read."""
        return len(self._outbox) if self._outbox is not None else 0

    def _send(self, payload: bytes) -> None:
        if self._client is not None:
            self._last_sent_s = self._loop.time()
            self._client.send(payload)

    # --- receiving ----------------------------------------------------------------------------

    def on_message(self, payload: bytes) -> None:
        """Takes a message of the follower; one that breaks the protocol ends the channel."""
        try:
            self._on(_decode(payload))
        except (*UNREADABLE, ProtocolViolationError) as error:
            self._disconnect(CLOSE_PROTOCOL, f"the follower broke the protocol: {error}")
        except ChannelError as error:
            self._disconnect(CLOSE_REFUSED, str(error))

    def on_writable(self) -> None:
        """Goes on sending after the follower was slow."""
        self._writable.set()
        if self._outbox is not None:
            self._outbox.send_due()

    def _on(self, message: FollowerMessage) -> None:
        match message:
            case Ack():
                self._on_ack(message.ranges)
            case CaughtUp():
                self._on_caught_up(message)
            case Welcome():
                self._on_welcome(message)
            case BaseHeld():
                self._on_base_held(message)
            case Confirmed():
                self._on_confirmed(message.round)
            case Refusal():
                self._on_refusal(message)

    def _on_refusal(self, refusal: Refusal) -> None:
        """Believes that its epoch is over only who is of its cluster, or before there is one."""
        is_its_own = refusal.cluster_id == self._config.cluster_id
        if refusal.promised and (is_its_own or self._owner.base is None):
            self._owner.on_superseded(self, refusal.promised)
        raise ChannelError(f"the follower refused: {refusal.reason}")

    def _on_ack(self, ranges: Sequence[SeqRange]) -> None:
        if not self.is_connected:
            raise ProtocolViolationError("an acknowledgment before the welcome")
        self._hold(ranges)
        if self.is_learner:
            self.teach()
        elif ranges:
            self._owner.on_acknowledged(self, ranges)

    def _on_caught_up(self, message: CaughtUp) -> None:
        if not self.is_connected:
            raise ProtocolViolationError("a snapshot's end before the welcome")
        self._hold([SeqRange(1, message.contiguous)] if message.contiguous else [])
        if self.is_learner:
            self.teach()
        else:
            self._credit()

    def _hold(self, ranges: Sequence[SeqRange]) -> None:
        check_ranges(ranges, above=0, upto=self._owner.log.last_seq)
        for span in ranges:
            self.held.add_range(span.first, span.last)

    def teach(self) -> None:
        """Gives a follower the base once it holds all that it had missed; it counts from then on.

        A voter of an older epoch and a founder may have it before the epoch opens, other learners
        only afterwards.
        """
        base = self._owner.base
        if (
            base is not None
            and self.is_connected
            and self.is_learner
            and not self.gets_state
            and not self._is_base_sent
            and self.held.contiguous >= self._learns_until
            and (self.is_older_voter or self._voters.may_admit(self))
        ):
            self._is_base_sent = True
            self._send(_encode(Base(base, self.incarnation)))

    def ask(self, number: int) -> None:
        """Asks the follower whether it still follows."""
        if self.is_connected:
            self._asked = number
            self._send(_encode(Confirm(number)))

    def _on_confirmed(self, number: int) -> None:
        if number > self._asked:
            raise ProtocolViolationError(f"it confirms round {number} of {self._asked}")
        self._voters.on_confirmed(self, number)

    def _on_base_held(self, message: BaseHeld) -> None:
        if not self._is_base_sent or message.epoch != self._config.epoch:
            raise ProtocolViolationError(f"it holds a base of epoch {message.epoch} unasked")
        self.is_learner = self.is_older_voter = False
        logger.info("follower %s at %s has caught up and counts", self.node_id, self.url)
        self._owner.on_base_held(self)
        self._credit()

    def _credit(self) -> None:
        """Reports all that the follower holds, which it may have acknowledged on a lost channel.

        What is committed needs no further acknowledgment, and may be a whole log.
        """
        first = self._owner.stable_seq + 1
        held = [SeqRange(1, self.held.contiguous), *self.held.ranges_above()]
        counted = [SeqRange(max(first, one.first), one.last) for one in held if one.last >= first]
        self._owner.on_acknowledged(self, counted)

    def _on_welcome(self, welcome: Welcome) -> None:
        if self._welcomed is None or self._welcomed.done():
            raise ProtocolViolationError("a second welcome")
        check_welcome(welcome)
        self.node_id, self.is_tried = welcome.node_id, True
        if self._is_visit and self._owner.base is not None:
            raise ChannelError("the cluster was made meanwhile, and has to be told of")
        self.incarnation, self._is_base_sent = welcome.incarnation, False
        self._asked = 0
        self._voters.on_welcome(self, welcome)
        epoch, base = self._config.epoch, self._owner.base
        if max(welcome.epoch, welcome.base_epoch) > epoch:
            raise ProtocolViolationError(f"it follows epoch {epoch}, and holds a later one's log")
        self.held, self._keeps = HeldPositions(), None
        if welcome.epoch == epoch or not welcome.epoch:
            contiguous = [SeqRange(1, welcome.contiguous)] if welcome.contiguous else []
            self._hold([*contiguous, *welcome.above])
        elif base is not None:
            self._keeps = kept_of(welcome, base)
            self.held = HeldPositions(self._keeps)
        self.is_durable = welcome.is_durable
        self.is_learner = welcome.base_epoch != epoch
        self.is_older_voter = self.is_learner and welcome.base_epoch > 0
        if self.is_older_voter and self._keeps is None:  # it holds nothing but a base
            self._keeps = 0
        self._learns_until = self._owner.log.last_seq
        if self.is_older_voter and base is not None:
            self._learns_until = base.position
        self._welcomed.set_result(None)

    # --- connecting ---------------------------------------------------------------------------

    def cut(self) -> None:
        """Ends the channel and keeps it down, until ``mend``: fault injection."""
        self.is_cut = True
        self._may_connect.clear()
        self._disconnect(CLOSE_NORMAL, CUT)
        self._down()  # at once: from here on it neither counts nor sends

    def mend(self) -> None:
        """Lets a link that was cut connect again."""
        if self.is_cut:
            self.is_cut = False
            self.detail = "not connected yet"
            self._may_connect.set()

    async def run(self) -> None:
        """Keeps the link up until it is cancelled."""
        failures = 0
        while True:
            await self._may_connect.wait()
            try:
                await self._connect()
                failures = 0
                await self._serve()
            except TimeoutError:
                self._note(f"no answer within {CONNECT_TIMEOUT_S:g} s")
            except (ChannelError, OSError) as error:
                self._note(str(error))
            except Exception:
                # Whatever a peer makes us stumble over, the link must not end for good.
                logger.exception("the link to %s met a bug of the leader", self.url)
                self._note("the leader met a bug; see its log")
            finally:
                self._down()
                if not self.is_tried:
                    self.is_tried = True
                    self._owner.on_tried()
            pause_s = min(self._config.reconnect_max_s, FIRST_RETRY_S * 2 ** min(failures, 16))
            failures += 1
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  jitter

    async def _connect(self) -> None:
        """Opens the channel, says hello, and waits for the welcome."""
        config, log = self._config, self._owner.log
        headers = [("Authorization", f"Bearer {config.token}")] if config.token else []
        address = f"ws{self.url.removeprefix('http')}/replication"
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            self._welcomed = self._loop.create_future()
            client = await connect(address, headers, self, max_bytes=MAX_ACK_BYTES)
            self._client = client
            self._is_visit = self._owner.base is None
            hello = Hello(
                PROTOCOL_VERSION,
                config.cluster_id,
                config.epoch,
                config.leader_id,
                config.leader_url,
                log.last_seq,
                config.attempt,
                not self._is_visit,
            )
            self._send(_encode(hello))
            waits: list[asyncio.Future[Any]] = [self._welcomed, client.closed]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if self.is_cut:  # while it was being connected
            raise ChannelError(CUT)
        if not self._welcomed.done():
            raise ChannelError(client.closed.result())

    async def _serve(self) -> None:
        """Sends what the follower lacks, then keeps the channel alive until it ends."""
        client = self._client
        if client is None:
            raise ChannelError("the channel ended")
        catching_up = self._begin(client)
        if catching_up is not None:
            catching_up.add_done_callback(self._on_caught_up_end)
        try:
            silence, heard_s = Silence(self._config.heartbeat_timeout_s), client.last_received_s
            while not client.closed.done():
                await asyncio.wait([client.closed], timeout=silence.interval_s)
                if heard_s != client.last_received_s:
                    heard_s = client.last_received_s
                    silence.heard()
                self._keep_alive(client, silence)
            self._note(client.closed.result())
        finally:
            if catching_up is not None:
                catching_up.cancel()

    def _begin(self, client: WebSocketClient) -> asyncio.Task[None] | None:
        """Starts to replicate; returns the task that goes on with it if there is much to send."""
        owner = self._owner
        outbox = Outbox(
            self.node_id or "",
            self._send,
            lambda: client.is_congested,
            lambda: owner.stable_seq,
            owner.now_ns,
        )
        self._outbox = outbox
        catch_up = CatchUp(
            owner,
            self.held,
            outbox,
            self._send,
            lambda: self._give_way(client),
            self._on_state_sent,
            str(self.node_id),
        )
        self._catch_up = catch_up
        self.is_connected = True
        self.detail = ""
        logger.info("follower %s at %s is connected", self.node_id, self.url)
        if self._keeps is not None:
            self._send(_encode(Replace(self._keeps)))
        self._voters.on_connected(self)
        if not self.is_learner:
            self._owner.on_base_held(self)
            self._credit()
        is_live = catch_up.go_on()
        # Behind what it needs for it, on the same channel.
        self.teach()
        return None if is_live else asyncio.create_task(catch_up.run())

    def _on_state_sent(self) -> None:
        """Goes on as with a follower that has just connected: entries follow from now on."""
        self.teach()
        if not self.is_learner:
            self._owner.on_base_held(self)
            self._credit()

    def _on_caught_up_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s could not be caught up", self.url, exc_info=error)
            self._disconnect(CLOSE_NORMAL, "the leader met a bug; see its log")

    async def _give_way(self, client: WebSocketClient) -> None:
        """Lets the writes of clients go first, and waits while the follower does not read."""
        self.parts += 1
        self._writable.clear()
        if client.is_congested:
            await self._writable.wait()
        else:
            await asyncio.sleep(0)

    def _keep_alive(self, client: WebSocketClient, silence: Silence) -> None:
        now_s = self._loop.time()
        if silence.look():
            self._disconnect(CLOSE_SILENT, f"silent for {self._config.heartbeat_timeout_s:g} s")
        # Parts of a snapshot are not answered, so that what was sent does not keep a channel alive.
        elif now_s - min(self._last_sent_s, client.last_received_s) > silence.interval_s / 2:
            self._send(_encode(Heartbeat(self._owner.log.last_seq, self._owner.stable_seq)))

    def _disconnect(self, code: int, reason: str) -> None:
        self._note(reason)
        if self._client is not None:
            self._client.close(code, reason)

    def _down(self) -> None:
        """Forgets the channel; what was not acknowledged is found again in the log."""
        was_connected, self.is_connected = self.is_connected, False
        if self._client is not None:
            self._client.close(CLOSE_NORMAL, "the leader ends the channel")
        self._client = None
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = self._catch_up = None
        if self._owner.base is None and self.has_data is False:
            self.has_data = None  # it may come back as another one: no cluster is made of it
        if was_connected:
            why = self.detail or "this node ends the channel"
            logger.warning("follower %s at %s is gone: %s", self.node_id, self.url, why)

    def _note(self, reason: str) -> None:
        """Keeps the first reason for which the link is down; it may be in the follower's words."""
        reason = shown(reason)
        if self.is_connected or self.detail != reason:
            self.detail = reason
            logger.debug("follower at %s: %s", self.url, reason)


def kept_of(welcome: Welcome, base: BaseRecord) -> int:
    """Returns up to where a follower that holds another epoch's log holds the same as a base.

    What a voter knows to be committed is in every later base, unless one began by force since.

    Args:
        welcome: What the follower holds.
        base: That which it is to hold.
    """
    if welcome.base_epoch == 0 or base.forced > welcome.base_epoch:
        return 0
    return max(0, min(welcome.settled, base.position))
