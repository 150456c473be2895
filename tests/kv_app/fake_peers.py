"""Members of a cluster that ask each other without a network, for tests of who wants to lead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kv_app.meta import BaseRecord, Config, Member, Promise
from kv_app.peers import PeerError
from kv_app.respondent import Respondent
from kv_app.settings import Settings
from tests.kv_app.roles import make_replica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from kv_app.failover.calls import Answer, FetchWhole, Question
    from kv_app.leader import Leader
    from kv_app.messages import Entry

CLUSTER_ID = "c1"


def url_of(number: int) -> str:
    """Where a member is."""
    return f"http://n{number}:1"


def base_of(epoch: int, members: int, position: int = 0) -> BaseRecord:
    """What an epoch began with that n0 led, in a cluster with k = f = 1."""
    some = tuple(Member(f"n{number}", url_of(number)) for number in range(members))
    return BaseRecord(epoch, "n0", "its life", Config(some, 1, 1, 1), position)


class FakeMember:
    """A node that nobody leads now: what it holds, and its answers."""

    def __init__(self, number: int, members: int) -> None:
        """Makes a voter of epoch 1 whose log is empty."""
        self.url = url_of(number)
        self.leader: Leader | None = None
        self.leader_url: str | None = None
        self.replica = make_replica(Settings(node_id=f"n{number}", advertise_url=self.url))
        self.respondent = Respondent(self)
        self.begin(base_of(1, members))

    def begin(self, base: BaseRecord) -> None:
        """Makes it a voter of an epoch that it followed."""
        promise = Promise(base.epoch, base.leader_id, "it led")
        self.replica.save(cluster_id=CLUSTER_ID, base=base, promise=promise)

    def hold(self, *entries: Entry) -> None:
        """Has it take entries of its epoch, which it does not know to be committed."""
        self.replica.take(entries)

    @property
    def held(self) -> list[tuple[int, int]]:
        """The epoch and the position of each entry of its log."""
        return [(entry.epoch, entry.seq) for entry in self.replica.log.above(0)]

    @property
    def promised(self) -> int:
        """The epoch that it has promised itself to."""
        return self.replica.promised

    def position(self) -> tuple[int, int, int]:
        """As a node's."""
        held = self.replica.held
        return self.promised, held.contiguous, held.max_seq

    def give_way(self, promised: int, cluster_id: str) -> None:
        """Nobody has a channel to it, and it leads nothing."""


class FakePeers:
    """All members, by URL; stands for ``HttpPeers``.

    Attributes:
        asked: Who was asked what so far.
        before: Is called before a question is answered; what it raises is the answer.
        lie: Returns what arrives instead of an answer.
    """

    def __init__(self, members: Iterable[FakeMember]) -> None:
        self.members = {member.url: member for member in members}
        self.asked: list[tuple[str, Question]] = []
        self.before: Callable[[str, Question], Awaitable[None]] | None = None
        self.lie: Callable[[str, Answer], Answer] = lambda _, answer: answer

    def asked_for(self, kind: type) -> list[str]:
        """Returns who was asked a kind of question."""
        return [url for url, question in self.asked if isinstance(question, kind)]

    async def call(self, url: str, question: Question, timeout_s: float) -> Answer:
        """Asks a member."""
        del timeout_s
        self.asked.append((url, question))
        if self.before is not None:
            await self.before(url, question)
        return self.lie(url, await self.members[url].respondent.answer(question))

    async def whole(self, url: str, question: FetchWhole) -> AsyncIterator[bytes]:
        """Yields the messages of a member's snapshot."""
        if url not in self.members:
            raise PeerError(f"there is no {url}")
        for frame in self.members[url].respondent.whole(question):
            yield frame


def make_cluster(members: int) -> tuple[list[FakeMember], FakePeers]:
    """Returns so many voters of epoch 1 with empty logs, and how they reach each other."""
    some = [FakeMember(number, members) for number in range(members)]
    return some, FakePeers(some)
