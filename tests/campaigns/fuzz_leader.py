"""A hostile follower: what a live leader gets over a replication channel that it opened."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from kv_app.messages import (
    Ack,
    BaseHeld,
    Confirmed,
    FollowerMessage,
    Hello,
    LeaderMessage,
    Refusal,
    SeqRange,
    Welcome,
)
from tests.campaigns.fuzz_follower import QUIET
from tests.campaigns.random_messages import NUMBERS, damaged, encode, random_message, random_noise

if TYPE_CHECKING:
    from random import Random
    from types import TracebackType

ANSWER_TIMEOUT_S = 5.0
QUIET_S = 0.2
MAX_MESSAGES = 6
ENDLESS_FRAME = struct.pack(">BBQ", 0x82, 127, 1 << 62)

_decode = msgspec.msgpack.Decoder(LeaderMessage).decode


class HostileFollower:
    """Listens where the leader expects a follower, for as long as the block lasts.

    Attributes:
        hello: The leader's first message; None before it came.
        sessions: How many channels it had, by what it did there.
        reasons: Why the leader ended channels, in short.
        kept: What the leader did not end a channel for, though it had to.
    """

    def __init__(self, url: str, node_id: str, random: Random) -> None:
        self.hello: Hello | None = None
        self.sessions: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.kept: list[str] = []
        self._address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._node_id = node_id
        self._random = random
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begins to listen."""
        self._server = serve(
            self._serve, *self._address, compression=None, ping_interval=None, logger=QUIET
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()

    def _serve(self, channel: ServerConnection) -> None:
        """One channel: takes the hello, misbehaves, and notes how the leader ends it."""
        with contextlib.suppress(TimeoutError, OSError), self._lock:  # one channel at a time
            try:
                hello = _decode(channel.recv(ANSWER_TIMEOUT_S, decode=False))
                if isinstance(hello, Hello):
                    self.hello = hello
                    self._misbehave(channel, hello)
            except ConnectionClosed as closed:
                if closed.rcvd is not None:
                    self.reasons[closed.rcvd.reason.partition(":")[0]] += 1

    def _misbehave(self, channel: ServerConnection, hello: Hello) -> None:
        deeds = (
            self._say_noise,
            self._welcome_strangely,
            self._promise_an_endless_frame,
            self._acknowledge_nonsense,
            self._acknowledge_nonsense,
            self._refuse_for_another_cluster,
        )
        deed = self._random.choice(deeds)
        name = deed.__name__.strip("_").replace("_", " ")
        self.sessions[name] += 1
        must_end = deed(channel, hello)
        deadline_s = time.monotonic() + (ANSWER_TIMEOUT_S if must_end else QUIET_S)
        while (left_s := deadline_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                channel.recv(left_s)
        if must_end:
            self.kept.append(name)

    # --- deeds: each tells if the leader must end the channel for it ------------------------------

    def _say_noise(self, channel: ServerConnection, _hello: Hello) -> bool:
        """No welcome at all."""
        random = self._random
        message = encode(self._message())
        payload = random.choice([random_noise(random), message, damaged(random, message)])
        channel.send(random.choice([payload, payload.hex()]))
        return False

    def _promise_an_endless_frame(self, channel: ServerConnection, _hello: Hello) -> bool:
        """A frame that claims to be longer than memory."""
        channel.socket.sendall(ENDLESS_FRAME)
        return True

    def _welcome_strangely(self, channel: ServerConnection, hello: Hello) -> bool:
        """A welcome that cannot be true, or names another node."""
        random = self._random
        many = [SeqRange(*random.sample(NUMBERS, 2)) for _ in range(random.randrange(1000))]
        change: dict[str, Any] = random.choice(
            [
                {"node_id": random.choice(["follower1", "", hello.leader_id, "x" * 10_000])},
                {"contiguous": random.choice([n for n in NUMBERS if n > 255 or n < 0])},
                {"above": many},
                {"cluster_id": "another", "contiguous": 3},
                {"epoch": random.choice(NUMBERS), "base_epoch": random.choice(NUMBERS)},
            ]
        )
        channel.send(encode(msgspec.structs.replace(self._welcome(hello), **change)))
        channel.send(encode(self._message()))
        return False

    def _acknowledge_nonsense(self, channel: ServerConnection, hello: Hello) -> bool:
        """A true welcome of an empty follower, then messages that cannot be true."""
        random = self._random
        channel.send(encode(self._welcome(hello)))
        for _ in range(random.randrange(MAX_MESSAGES)):
            message = self._message()
            channel.send(random.choice([encode(message), damaged(random, encode(message))]))
        last = (
            Ack([SeqRange(3, 2)]),
            Ack([SeqRange(1, 1)] * 20_000),
            Ack([SeqRange(2, 2), SeqRange(1, 1)]),
            Ack([SeqRange(1, 1 << 62)]),
            Confirmed(1 << 61),
            BaseHeld(hello.epoch + 1),
            self._welcome(hello),
        )
        channel.send(encode(random.choice(last)))
        return True

    def _refuse_for_another_cluster(self, channel: ServerConnection, _hello: Hello) -> bool:
        """Tells of a newer epoch of a cluster that is not the leader's: it must not step down."""
        cluster_id = self._random.choice(["", "another"])
        channel.send(encode(Refusal("in a newer epoch", 1 << 61, cluster_id)))
        return True

    def _message(self) -> Any:
        """A random message that tells of no newer epoch, which a leader would believe."""
        message = random_message(self._random, FollowerMessage)
        if isinstance(message, Refusal):
            return msgspec.structs.replace(message, promised=0)
        return message

    def _welcome(self, hello: Hello) -> Welcome:
        return Welcome(
            node_id=self._node_id,
            start_id="hostile",
            cluster_id="",
            epoch=0,
            contiguous=0,
            above=[],
            incarnation="hostile",
            base_epoch=self._random.choice([0, hello.epoch]),
            is_durable=True,
            settled=0,
        )
