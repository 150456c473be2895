"""Hostile leaders: what a live follower gets over its replication channel, and must not take."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from kv_app.messages import (
    PROTOCOL_VERSION,
    UNREADABLE,
    Base,
    Entries,
    Heartbeat,
    Hello,
    LeaderMessage,
)
from tests.campaigns.campaign import Violation
from tests.campaigns.random_messages import NUMBERS, damaged, encode, random_message, random_noise

_decode = msgspec.msgpack.Decoder(LeaderMessage).decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from websockets.sync.client import ClientConnection

    from tests.campaigns.nodes import Node

ANSWER_TIMEOUT_S = 5.0
# The library's threads log what they meet, and here they meet all sorts of things.
QUIET = logging.getLogger("quorumeter.fuzz")
QUIET.setLevel(logging.CRITICAL + 1)
MAX_MESSAGES = 6
MAX_TRIES = 20
# A frame's head that promises more than any node may hold: 2^62 bytes, masked with zeros.
LARGE_FRAME = struct.pack(">BBQ4x", 0x82, 0x80 | 127, 120 << 20)
FIRST_PART = struct.pack(">BB4x", 0x02, 0x80)
EMPTY_PART = struct.pack(">BB4x", 0x00, 0x80)
MANY_PARTS = 20_000
SILENT_CHANNELS = 70
ENDLESS_FRAME = struct.pack(">BBQ4x", 0x82, 0x80 | 127, 1 << 62)


class HostileLeader:
    """Opens channels to one follower, and breaks the rules in each.

    Args:
        follower: Whom; another leader, the real one, has a channel to it.
        token: The cluster's; empty if it has none.
        hello: The real leader's, whose cluster it pretends to be in half of its channels.
        random: All choices.
    """

    def __init__(self, follower: Node, token: str, hello: Hello, random: Random) -> None:
        self.follower = follower
        self.done: Counter[str] = Counter()
        self._url = f"ws{follower.url.removeprefix('http')}/replication"
        self._address = (urlsplit(follower.url).hostname or "", urlsplit(follower.url).port or 0)
        self._token = token
        self._hello = hello
        self._random = random
        self._attacks: list[Callable[[], None]] = [
            self.send_bytes,
            self.open_as_a_stranger,
            self.say_hello_wrongly,
            self.promise_an_endless_frame,
            self.promise_a_large_frame_before_the_hello,
            self.send_a_message_in_endless_parts,
            self.open_many_channels_in_silence,
            self.leave_in_the_middle,
            self.break_the_protocol,
            self.break_the_protocol,
        ]

    def attack(self) -> None:
        """Opens one channel, or none, and misbehaves.

        Raises:
            Violation: The follower did not end the channel, or gave no reason.
        """
        attack = self._random.choice(self._attacks)
        attack()
        self.done[attack.__name__.replace("_", " ")] += 1

    def send_bytes(self) -> None:
        """Bytes that are not even HTTP, on a plain connection."""
        with socket.create_connection(self._address, ANSWER_TIMEOUT_S) as plain:
            plain.sendall(random_noise(self._random) + b"\r\n\r\n")

    def open_as_a_stranger(self) -> None:
        """A channel of who does not know the token, or, without one, of a web page."""
        port, own = self._address[1], self._address[0]
        strangers: list[tuple[str, dict[str, str]]] = (
            [(own, {}), (own, {"Authorization": f"Bearer {self._token}x"})]
            if self._token
            else [
                (own, {"Origin": "http://evil.example"}),
                (own, {"Origin": f"http://localhost:{port + 1}"}),
                (own, {"Origin": "null"}),
                ("evil.example", {}),  # a name that was made to point here
            ]
        )
        name, header = self._random.choice(strangers)
        with contextlib.suppress(InvalidStatus):
            plain = socket.create_connection(self._address, ANSWER_TIMEOUT_S)
            with connect(
                f"ws://{name}:{port}/replication",
                sock=plain,
                additional_headers=header,
                proxy=None,
                logger=QUIET,
            ):
                pass
            raise Violation("A stranger opened a channel.", [name, repr(header)])

    def say_hello_wrongly(self) -> None:
        """A first message that opens no channel: noise, another message, or a hello of others."""
        random = self._random
        payload = random.choice(
            [
                random_noise(random),
                encode(random_message(random, LeaderMessage)),
                self._damaged_hello(),
                encode(self._strange_hello()),
            ]
        )
        with self._open() as channel:
            channel.send(random.choice([payload, payload.hex()]))
            self._expect_end(channel, payload)

    def promise_an_endless_frame(self) -> None:
        """A frame that claims to be longer than memory."""
        with self._open() as channel:
            channel.socket.sendall(ENDLESS_FRAME)
            self._expect_end(channel, ENDLESS_FRAME)

    def promise_a_large_frame_before_the_hello(self) -> None:
        """A frame of a size that a leader's may have, from who has not said that it is one."""
        with self._open() as channel:
            channel.socket.sendall(LARGE_FRAME)
            self._expect_end(channel, LARGE_FRAME)

    def send_a_message_in_endless_parts(self) -> None:
        """Each part is empty, so that no limit of bytes is ever reached."""
        with self._open() as channel:
            with contextlib.suppress(OSError):  # it may be ended in the middle
                channel.socket.sendall(FIRST_PART + EMPTY_PART * MANY_PARTS)
            self._expect_end(channel, FIRST_PART)

    def open_many_channels_in_silence(self) -> None:
        """More than may be open; the leader keeps its own, and the next is let in."""
        with contextlib.ExitStack() as stack:
            for _ in range(SILENT_CHANNELS):
                stack.enter_context(self._open())
            with self._open() as channel:
                channel.send(b"\xc1")
                self._expect_end(channel, b"\xc1")

    def leave_in_the_middle(self) -> None:
        """A channel that was opened well, and ends within a frame."""
        with self._open() as channel:
            channel.send(encode(self._hello))
            payload = encode(random_message(self._random, LeaderMessage))
            head = struct.pack(">BB4x", 0x82, 0x80 | min(125, len(payload) + 1))
            channel.socket.sendall(head + payload[:100])
            channel.socket.shutdown(socket.SHUT_RDWR)

    def break_the_protocol(self) -> None:
        """A channel that was opened well, then messages none of which may be applied."""
        sent: list[Any] = []
        with self._open() as channel:
            channel.send(encode(self._hello))
            for _ in range(self._random.randrange(MAX_MESSAGES)):
                message = self._harmless_message()
                sent.append(message)
                with contextlib.suppress(ConnectionClosed):
                    channel.send(encode(message))
            last = self._random.choice([encode(self._hello), random_noise(self._random), b"\xc1"])
            with contextlib.suppress(ConnectionClosed):
                channel.send(last)
            self._expect_end(channel, sent, last)

    # --- inside -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self) -> Iterator[ClientConnection]:
        header = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        with connect(
            self._url,
            additional_headers=header,
            proxy=None,
            compression=None,
            ping_interval=None,
            logger=QUIET,
        ) as channel:
            yield channel
            channel.socket.close()  # no polite end

    def _damaged_hello(self) -> bytes:
        """Bytes of a hello that are not one of a newer epoch: that a follower believes."""
        while True:
            payload = damaged(self._random, encode(self._hello))
            try:
                found = _decode(payload)
            except UNREADABLE:
                return payload
            if not isinstance(found, Hello) or found.epoch < self._hello.epoch:
                return payload

    def _strange_hello(self) -> Hello:
        """A hello of another protocol, another cluster, or an epoch that is over."""
        random = self._random
        past = min(random.choice(NUMBERS), self._hello.epoch - 1)
        change = random.choice(
            [
                {"protocol": random.choice([0, PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1])},
                {"cluster_id": "another", "epoch": random.choice(NUMBERS)},
                {"epoch": past},
            ]
        )
        return msgspec.structs.replace(self._hello, **change)

    def _harmless_message(self) -> Any:
        """A random message of the channel that says nothing which a follower may believe."""
        for _ in range(MAX_TRIES):
            message = random_message(self._random, LeaderMessage)
            if not self._is_credible(message):
                return message
        return Heartbeat(0, 0)

    def _is_credible(self, message: Any) -> bool:
        """Whether a follower may act on it: it comes from who leads its cluster, in its epoch."""
        match message:
            case Entries():
                return all(entry.epoch == self._hello.epoch for entry in message.entries)
            case Base():
                return message.record.epoch == self._hello.epoch
            case Heartbeat():
                return message.stable_seq > 0
            case Hello():
                return False
        return False

    def _expect_end(self, channel: ClientConnection, *sent: Any) -> None:
        """Waits until the follower ends the channel.

        Raises:
            Violation: It did not, or did not say why.
        """
        try:
            while True:
                channel.recv(ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise Violation("A follower kept a hostile channel.", [repr(sent)]) from None
        except ConnectionClosed as closed:
            if closed.rcvd is None or not closed.rcvd.reason:
                raise Violation(
                    "A follower ended a hostile channel without a reason.",
                    [repr(sent), str(closed)],
                ) from None
