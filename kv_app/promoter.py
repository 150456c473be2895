"""One attempt to begin an epoch: probe, seal, check, merge, switch. Opening is the leader's.

What is decided on the way is in ``failover``; here it is asked, waited for and written.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from kv_app.bounds import shown
from kv_app.errors import (
    MalformedError,
    NotEnoughSurvivorsError,
    OutbidError,
    ProtocolViolationError,
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
from kv_app.failover.electors import named_url, own_url
from kv_app.failover.merging import MergePlan, plan
from kv_app.failover.sufficiency import Judgement, judge, next_config
from kv_app.messages import (
    UNREADABLE,
    Entry,
    LeaderMessage,
    Operation,
    SeqRange,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotKeys,
)
from kv_app.meta import BaseRecord, Member, Promise
from kv_app.peer_checks import check_answer, check_fetched
from kv_app.peers import PeerError, Peers
from kv_app.replica import Replica
from kv_app.snapshot import SnapshotReader
from kv_app.staged import Staged

logger = logging.getLogger("kv_app.promoter")

# How long all are waited for, not just enough of them: who answers late would be missing later.
PROBE_TIMEOUT_S: Final = 1.0
SEAL_TIMEOUT_S: Final = 2.0
FETCH_TIMEOUT_S: Final = 10.0
# How long a snapshot may take, however little of it comes at a time.
WHOLE_TIMEOUT_S: Final = 600.0

_decode_message: Final = msgspec.msgpack.Decoder(LeaderMessage).decode


class Agrees(Protocol):
    """The node that wants to lead, as its attempt sees it."""

    @property
    def replica(self) -> Replica:
        """What it holds."""

    def probed(self) -> Probed:
        """Returns where it stands."""

    async def seal(self, seal: Seal) -> Sealed | Denied:
        """Promises, and says what it holds."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a promotion.

    Attributes:
        urls: Whom to ask; all members if empty.
        write_quorum: The k that is wanted; what was wanted last if None.
        force: Go on with whatever answers.
        is_own: True if the node wants it by itself: then not while another one leads.
    """

    urls: tuple[str, ...] = ()
    write_quorum: int | None = None
    force: bool = False
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Promotion:
    """What an attempt has come to: the node holds the base of a new epoch, and has promised.

    Attributes:
        base: The base.
        promise: The promise.
        is_blank: True if the node was no voter before.
        sealed: The URLs of the voters that were sealed.
        missing: Those of all other members.
        required: How many followers have to be sealed without the old leader.
        noops: How many positions nobody held.
        may_have_lost: What may be missing, one sentence; empty if nothing is.
    """

    base: BaseRecord
    promise: Promise
    is_blank: bool
    sealed: tuple[str, ...]
    missing: tuple[str, ...]
    required: int
    noops: int
    may_have_lost: str


class NobodyHoldsDataError(NotEnoughSurvivorsError):
    """No node that answers holds the data of any cluster."""


class LedElsewhereError(Exception):
    """A node that would lead again by itself found that another one does, or did so later."""


async def promote(node: Agrees, peers: Peers, wish: Wish) -> Promotion:
    """Makes a node's log the base of a new epoch.

    Raises:
        NotEnoughSurvivorsError: Who answers need not hold all that was acknowledged.
        OutbidError: Another node has promised a newer epoch.
        LedElsewhereError: Another node leads, and that was asked for.
        StorageError: The disk failed.
    """
    attempt = _Attempt(node, peers, wish)
    await attempt.probe()
    await attempt.seal()
    await attempt.check()
    return await attempt.merge()


class _Attempt:
    """One attempt, step by step."""

    def __init__(self, node: Agrees, peers: Peers, wish: Wish) -> None:
        self._node = node
        self._peers = peers
        self._wish = wish
        self._replica = node.replica
        self._is_blank = node.replica.meta.base is None
        self._members: tuple[Member, ...] = ()
        self._own_url = node.replica.settings.advertise_url
        self._cluster_id = node.replica.meta.cluster_id
        self._promise = Promise(0, "")
        self._sealed: dict[str, Sealed] = {}
        self._judgement: Judgement

    # --- probe ----------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Asks who is there and how far they are, without any promise."""
        own = self._node.probed()
        settings = self._replica.settings
        config = own.config
        urls = [member.url for member in config.members] if config else [*settings.follower_urls]
        named = named_url(config.members, settings.node_id) if config else None
        others = [url for url in dict.fromkeys(self._wish.urls or urls) if url != named]
        answers = await self._ask(others, Probe(), PROBE_TIMEOUT_S)
        probed = {url: one for url, one in answers.items() if isinstance(one, Probed)}
        if self._is_blank:
            self._learn(probed)
            config = next((one.config for one in probed.values() if one.config), None)
        if config is None:
            raise NobodyHoldsDataError(
                "No node that answers knows who belongs to the cluster; bring one back that has "
                "data.",
                required=1,
                sealed=0,
                missing=list(urls),
            )
        self._members = config.members
        followers, wanted = len(config.members) - 1, self._wish.write_quorum
        if wanted is not None and not 0 <= wanted <= followers:
            raise MalformedError(
                f"write_quorum={wanted} must be from 0 to {followers}, the number of followers."
            )
        self._own_url = own_url(config.members, settings.node_id, settings.advertise_url)
        probed = self._without_itself(probed)
        # Who belongs to no cluster yet may be one of its founders.
        probed = {
            url: one for url, one in probed.items() if one.cluster_id in {"", self._cluster_id}
        } | {self._own_url: own}
        if self._wish.is_own:
            self._check_not_led(probed, own)
        heard = max(one.promised for one in probed.values())
        held = {url: _as_sealed(one) for url, one in probed.items()}
        self._require(judge(self._members, held), "Nobody has promised anything.")
        attempt = secrets.token_hex(8)
        self._promise = Promise(heard + 1, settings.node_id, attempt)

    def _without_itself(self, probed: Mapping[str, Probed]) -> dict[str, Probed]:
        """Leaves out what this node itself answered, at a URL that it did not know for its own."""
        node_id = self._replica.settings.node_id
        there = probed.get(self._own_url)
        if there is not None and there.node_id != node_id:
            raise OutbidError(
                f"At {self._own_url} answers {there.node_id!r}, and not this node; start it with "
                "an ADVERTISE_URL of its own, that which the others know it by."
            )
        return {url: one for url, one in probed.items() if one.node_id != node_id}

    def _learn(self, probed: Mapping[str, Probed]) -> None:
        """Takes over whose data it is, of a node that has none itself."""
        clusters = {one.cluster_id for one in probed.values() if one.base is not None}
        settings = self._replica.settings
        if not clusters:
            return
        if len(clusters) > 1:
            raise OutbidError(
                f"The nodes that answer hold the data of {len(clusters)} clusters; this one has "
                "no data and cannot tell which it belongs to."
            )
        [self._cluster_id] = clusters
        for one in probed.values():
            members = one.config.members if one.config is not None else ()
            if members and settings.advertise_url not in {member.url for member in members}:
                raise OutbidError(
                    f"{settings.advertise_url} is no member of the cluster whose data the others "
                    "hold; start this node with the ADVERTISE_URL of a member."
                )

    def _check_not_led(self, probed: Mapping[str, Probed], own: Probed) -> None:
        for url, one in probed.items():
            if one.is_leading and one.promised >= own.promised and url != self._own_url:
                raise LedElsewhereError(f"{url} leads epoch {one.promised}")
            if one.base is not None and own.base is not None and one.base.epoch > own.base.epoch:
                raise LedElsewhereError(f"{one.base.leader_id} began epoch {one.base.epoch}")

    # --- seal -----------------------------------------------------------------------------------

    async def seal(self) -> None:
        """Has all members promise, the old leader too, and hears what they hold."""
        seal = Seal(self._cluster_id, self._promise)
        replica = self._replica
        is_other = replica.meta.cluster_id != self._cluster_id
        if replica.meta.base is None and is_other and not replica.is_empty:
            replica.forget_all()  # what it learned of a cluster that is gone
        own = await self._node.seal(seal)
        if isinstance(own, Denied):
            raise self._outbid(own)
        urls = self._wish.urls or [member.url for member in self._members]
        others = [url for url in dict.fromkeys(urls) if url != self._own_url]
        answers = await self._ask(others, seal, SEAL_TIMEOUT_S)
        names = {own.node_id}
        self._sealed = {self._own_url: own}
        for url, answer in answers.items():
            if isinstance(answer, Denied) and answer.promised >= self._promise.epoch:
                raise self._outbid(answer)
            if (
                isinstance(answer, Sealed)
                and answer.node_id not in names
                and self._is_older(answer)
            ):
                names.add(answer.node_id)
                self._sealed[url] = answer
        self._judgement = judge(self._members, self._sealed)
        self._require(self._judgement, "Those that answered have promised, and wait for a leader.")

    def _is_older(self, sealed: Sealed) -> bool:
        """Tells if a node's base is of an epoch before the one that it has just promised."""
        return sealed.base is None or sealed.base.epoch < self._promise.epoch

    def _require(self, judgement: Judgement, so_far: str) -> None:
        if judgement.is_sufficient or (self._wish.force and judgement.base is not None):
            return
        raise NotEnoughSurvivorsError(
            f"The nodes that answer need not hold all that was acknowledged: {judgement.reason}. "
            f"{so_far} Bring back {', '.join(judgement.missing) or 'the data'}, or use force if "
            "they are gone for good.",
            required=judgement.required,
            sealed=len(judgement.voters),
            missing=list(judgement.missing),
        )

    def _outbid(self, denied: Denied) -> OutbidError:
        return OutbidError(
            f"Another attempt goes on: {shown(denied.reason)}; ask who leads, or try again.",
            promised=denied.promised,
        )

    # --- check ----------------------------------------------------------------------------------

    async def check(self) -> None:
        """Asks all that were sealed again: who has lost its data may have lost its promise."""
        voters = [url for url in self._judgement.voters if url != self._own_url]

        async def held(url: str) -> bool:
            question = Check(self._promise, self._sealed[url].incarnation)
            return isinstance(await self._call(url, question, SEAL_TIMEOUT_S), Held)

        answers = await asyncio.gather(*(held(url) for url in voters))
        lost = [url for url, holds in zip(voters, answers, strict=True) if not holds]
        if lost:
            raise OutbidError(f"{', '.join(lost)} did not keep the promise; try again.")
        self._check_own()

    def _check_own(self) -> None:
        if self._replica.meta.promise != self._promise:
            raise OutbidError("This node has promised itself to a newer epoch meanwhile.")

    # --- merge ----------------------------------------------------------------------------------

    async def merge(self) -> Promotion:
        """Takes over what the sealed nodes hold together, and makes it this node's log."""
        judgement, replica = self._judgement, self._replica
        if judgement.base is None or judgement.config is None:
            raise RuntimeError("judged to be enough")
        epoch = judgement.base.epoch
        sources = {
            url: one
            for url, one in self._sealed.items()
            if one.base is not None and one.base.epoch == epoch
        }
        staged = self._stage(judgement.base)
        merged = plan(sources, staged.held)
        self._check_holes(merged)
        await self._fetch(sources, merged, staged)
        self._check_own()
        staged.take(
            Entry(self._promise.epoch, seq, int(Operation.NOOP), "", None, None)
            for span in merged.noops
            for seq in range(span.first, span.last + 1)
        )
        if staged.held.contiguous < merged.position:
            # Who restarts meanwhile knows less of what is committed: its snapshot ends earlier.
            raise OutbidError(
                f"A node handed over less than it had when it was sealed: of {merged.position} "
                f"entries the first {staged.held.contiguous} are here; try again."
            )
        base = self._base(judgement, merged.position)
        # From here to the end nothing waits: the promise that was just looked at still holds.
        replica.switch(staged, base, self._promise, merged.stable, cluster_id=self._cluster_id)
        is_forced = not judgement.is_sufficient
        lost = _may_have_lost(judgement, merged) if is_forced else ""
        if lost:
            logger.warning("%s", lost)
        return Promotion(
            base,
            self._promise,
            self._own_url not in judgement.voters,
            judgement.voters,
            judgement.missing,
            judgement.required,
            merged.holes,
            lost,
        )

    def _check_holes(self, merged: MergePlan) -> None:
        """Checks that no more is filled up with no-ops than could be on its way when a leader died.

        Each takes memory, and a node that tells nonsense of its log may name any number of them.
        """
        most = self._replica.settings.log_entries
        if merged.holes > most:
            judgement = self._judgement
            raise NotEnoughSurvivorsError(
                f"Of the {merged.position} positions that the nodes name, {merged.holes} are in no "
                f"log; {most} at most may be. Bring back "
                f"{', '.join(judgement.missing) or 'the data'}, or raise LOG_ENTRIES.",
                required=judgement.required,
                sealed=len(judgement.voters),
                missing=list(judgement.missing),
            )

    def _stage(self, newest: BaseRecord) -> Staged:
        """Begins with what this node holds of the newest base's log."""
        replica = self._replica
        own = replica.meta.base
        if own is None or own.epoch < newest.forced:
            return replica.stage(0)
        staged = replica.stage(replica.settled_seq)
        if own.epoch == newest.epoch:
            staged.take(replica.log.above(replica.settled_seq))
        return staged

    def _base(self, judgement: Judgement, position: int) -> BaseRecord:
        old, config = judgement.base, judgement.config
        if old is None or config is None:
            raise RuntimeError("judged to be enough")
        others = sum(url != self._own_url for url in judgement.voters)
        epoch, meta = self._promise.epoch, self._replica.meta
        return BaseRecord(
            epoch,
            meta.node_id,
            meta.incarnation,
            next_config(config, others, self._wish.write_quorum),
            position,
            old.forced if judgement.is_sufficient else epoch,
            old.founders,
        )

    async def _fetch(
        self, sources: Mapping[str, Sealed], merged: MergePlan, staged: Staged
    ) -> None:
        if merged.whole_from is not None:
            await self._fetch_whole(merged.whole_from, sources[merged.whole_from], staged)
        for url, ranges in merged.fetches.items():
            await self._fetch_entries(url, sources[url], ranges, staged)

    async def _fetch_entries(
        self, url: str, source: Sealed, ranges: list[SeqRange], staged: Staged
    ) -> None:
        while ranges:
            question = Fetch(self._promise, source.incarnation, ranges)
            answer = await self._call(url, question, FETCH_TIMEOUT_S)
            if not isinstance(answer, Fetched) or not answer.entries:
                raise OutbidError(f"{url} did not hand over its entries; try again.")
            try:
                check_fetched(answer.entries, ranges, _epoch_of(source))
            except ProtocolViolationError as error:
                raise OutbidError(f"{url} handed over {error}; try again.") from error
            staged.take(answer.entries)
            last = answer.entries[-1].seq
            ranges = [
                SeqRange(max(span.first, last + 1), span.last)
                for span in ranges
                if span.last > last
            ]

    async def _fetch_whole(self, url: str, source: Sealed, staged: Staged) -> None:
        """Takes over all that is settled on another node, in place of what this one has of it."""
        question = FetchWhole(self._promise, source.incarnation)
        reader: SnapshotReader | None = None
        try:
            async with asyncio.timeout(WHOLE_TIMEOUT_S):
                async for frame in self._peers.whole(url, question):
                    self._check_own()  # else another leader may have begun to stage what it sends
                    message = _decode_message(frame)
                    if reader is None:
                        reader = _begun(message, source)
                        staged.begin_snapshot()
                    else:
                        _take_part(message, reader, staged)
        except TimeoutError as error:
            raise OutbidError(
                f"{url} did not hand over its data within {WHOLE_TIMEOUT_S:g} s; try again."
            ) from error
        except (PeerError, ProtocolViolationError, *UNREADABLE) as error:
            raise OutbidError(f"{url} did not hand over its data ({error}); try again.") from error
        if reader is None or not reader.has_ended:
            raise OutbidError(f"{url} did not hand over its data; try again.")

    # --- asking ---------------------------------------------------------------------------------

    async def _ask(
        self, urls: Sequence[str], question: Question, timeout_s: float
    ) -> dict[str, Answer]:
        """Asks some nodes at once; returns the answers of those that gave one in time."""
        asked: list[Awaitable[Answer | None]] = [
            self._call(url, question, timeout_s) for url in urls
        ]
        answers = await asyncio.gather(*asked)
        return {url: one for url, one in zip(urls, answers, strict=True) if one is not None}

    async def _call(self, url: str, question: Question, timeout_s: float) -> Answer | None:
        try:
            answer = await self._peers.call(url, question, timeout_s)
            check_answer(answer)
        except PeerError as error:
            logger.info("%s", shown(str(error)))
            return None
        except ProtocolViolationError as error:
            logger.warning("%s answered what cannot be: %s", url, error)
            return None
        return answer


def _epoch_of(source: Sealed) -> int:
    """Returns the epoch of whose log a node's positions are."""
    return source.base.epoch if source.base is not None else 0


def _begun(message: LeaderMessage, source: Sealed) -> SnapshotReader:
    """Begins to read the snapshot of a node that was sealed."""
    if not isinstance(message, SnapshotBegin) or message.stable_seq > source.settled:
        raise ProtocolViolationError("what is no beginning of its snapshot")
    return SnapshotReader(message, _epoch_of(source))


def _take_part(message: LeaderMessage, reader: SnapshotReader, staged: Staged) -> None:
    """Takes a part of a snapshot."""
    if reader.has_ended:
        raise ProtocolViolationError("more than its snapshot")
    match message:
        case SnapshotChunk():
            staged.install(reader.read(message))
            if message.ends_bucket:
                reader.end_bucket()
        case SnapshotKeys():
            reader.check_keys(message.writes)
            staged.restore(message.writes)
        case SnapshotEnd():
            reader.check_end(message)
            staged.finish_snapshot(reader.stable_seq)
        case _:
            raise ProtocolViolationError("what is no part of a snapshot")


def _as_sealed(probed: Probed) -> Sealed:
    return Sealed(
        probed.node_id,
        probed.incarnation,
        probed.base,
        probed.config,
        probed.config_epoch,
        probed.config_seq,
        0,
        0,
        probed.contiguous,
        [],
    )


def _may_have_lost(judgement: Judgement, merged: MergePlan) -> str:
    missing = ", ".join(judgement.missing) or "nobody"
    return (
        f"Begun by force without {missing}: what was acknowledged above seq {merged.stable} may be "
        f"lost ({merged.holes} positions below {merged.position} were found nowhere)."
    )
