"""One attempt to begin an epoch: whom it asks, in which order, and when it ends in vain."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from typing import TYPE_CHECKING

import msgspec
import pytest

from kv_app import promoter
from kv_app.errors import NotEnoughSurvivorsError, OutbidError
from kv_app.failover.calls import Check, Denied, Fetch, Probe, Question, Seal, Sealed
from kv_app.messages import Operation, SnapshotBegin, SnapshotChunk
from kv_app.meta import Member, Promise
from kv_app.peers import PeerError
from kv_app.promoter import Wish, promote
from kv_app.snapshot import _chain
from tests.kv_app.fake_leader import put
from tests.kv_app.fake_peers import CLUSTER_ID, FakeMember, base_of, make_cluster, url_of
from tests.kv_app.fakes import encode, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def outbid(member: FakeMember, epoch: int = 9) -> None:
    """Has a member promise a newer epoch to another attempt."""
    seal = Seal(CLUSTER_ID, Promise(epoch, "another", "attempt"))
    assert isinstance(await member.respondent.seal(seal), Sealed)


def test_all_that_the_sealed_hold_is_the_log_of_the_next_epoch() -> None:
    """The highest epoch that was heard is outbid, and every voter asked again before the merge."""

    async def check() -> None:
        members, peers = make_cluster(4)
        members[1].hold(put(1), put(2))
        members[2].hold(put(1), put(3))
        await outbid(members[3], 6)
        done = await promote(members[1].respondent, peers, Wish())
        assert (done.base.epoch, done.promise.epoch, done.base.position) == (7, 7, 3)
        assert members[1].held == [(1, 1), (1, 2), (1, 3)]
        others = {url_of(number) for number in (0, 2, 3)}
        assert set(peers.asked_for(Check)) == others
        assert peers.asked_for(Fetch) == [url_of(2)]
        assert all(member.replica.meta.promise == done.promise for member in members)

    run(check)


def test_node_that_has_promised_newer_itself_has_nobody_else_promise() -> None:
    """An attempt that its own node does not agree to would only disturb who leads."""

    async def check() -> None:
        members, peers = make_cluster(4)

        async def before(_url: str, question: Question) -> None:
            if isinstance(question, Probe) and members[1].promised == 1:
                await outbid(members[1])

        peers.before = before
        with pytest.raises(OutbidError) as refused:
            await promote(members[1].respondent, peers, Wish())
        assert refused.value.details["promised"] == 9
        assert [member.promised for member in members] == [1, 9, 1, 1]

    run(check)


def test_blank_node_that_is_given_a_base_while_it_probes_keeps_it() -> None:
    """It counts for another cluster by then, and its attempt is over."""

    async def check() -> None:
        members, peers = make_cluster(4)
        members[0].replica.save(incarnation="its life")  # the old leader, with what it led with
        blank = members[1]
        blank.replica.save(cluster_id="", base=None, promise=None)

        async def before(_url: str, question: Question) -> None:
            if isinstance(question, Probe) and not blank.held:
                base, promise = base_of(1, 4), Promise(1, "n9", "first")
                blank.replica.save(cluster_id="c9", base=base, promise=promise)
                blank.hold(put(1))

        peers.before = before
        with pytest.raises(OutbidError, match="the data of another cluster"):
            await promote(blank.respondent, peers, Wish(tuple(url_of(one) for one in (0, 2, 3))))
        assert (blank.replica.base_epoch, blank.held) == (1, [(1, 1)])
        assert blank.replica.held.holds(1)

    run(check)


def test_who_was_sealed_has_promised_even_if_they_were_too_few() -> None:
    """They may have been relied on by then: a promise is taken back by no failure."""

    async def check() -> None:
        members, peers = make_cluster(4)

        async def before(url: str, question: Question) -> None:
            if isinstance(question, Seal) and url in {url_of(0), url_of(3)}:
                raise PeerError("it died after the probe")

        peers.before = before
        with pytest.raises(NotEnoughSurvivorsError, match="have promised, and wait for a leader"):
            await promote(members[1].respondent, peers, Wish())
        assert [member.promised for member in members] == [1, 2, 2, 1]
        late = Seal(CLUSTER_ID, Promise(2, "another", "attempt"))
        for number in (1, 2):
            assert isinstance(await members[number].respondent.seal(late), Denied)

    run(check)


def test_voter_that_loses_its_data_after_it_was_sealed_ends_the_attempt() -> None:
    """What it answered is worth nothing then: it may acknowledge for the old leader again."""

    async def check() -> None:
        members, peers = make_cluster(4)
        members[1].hold(put(1))

        async def before(url: str, question: Question) -> None:
            if isinstance(question, Check) and url == url_of(2):
                members[2].replica.save(incarnation=secrets.token_hex(8))

        peers.before = before
        with pytest.raises(OutbidError, match=f"{url_of(2)} did not keep the promise"):
            await promote(members[1].respondent, peers, Wish())
        assert (members[1].replica.base_epoch, members[1].held) == (1, [(1, 1)])

    run(check)


def test_node_that_restarts_and_hands_over_less_than_was_planned_ends_the_attempt() -> None:
    """What it forgot to be committed would be a hole in the base, and closed as nobody's later."""

    async def check() -> None:
        members, peers = make_cluster(4)
        restarted = members[2].replica
        restarted.finish_snapshot(2)
        restarted.take([put(3)])

        async def before(url: str, question: Question) -> None:
            if isinstance(question, Check) and url == url_of(2):
                restarted.settled_seq = 1  # a start finds what was folded, and entries above

        peers.before = before
        with pytest.raises(OutbidError, match="of 3 entries the first 1 are here"):
            await promote(members[1].respondent, peers, Wish())
        assert (members[1].replica.base_epoch, members[1].held) == (1, [])

    run(check)


def test_promise_to_a_newer_epoch_ends_an_attempt_and_leaves_its_log_alone() -> None:
    """The newer one may have relied on what this node answered."""

    async def check() -> None:
        members, peers = make_cluster(4)
        members[1].hold(put(1))
        members[2].hold(put(2))

        async def before(_url: str, question: Question) -> None:
            if isinstance(question, Fetch):
                await outbid(members[1])

        peers.before = before
        with pytest.raises(OutbidError, match="has promised itself to a newer epoch"):
            await promote(members[1].respondent, peers, Wish())
        assert members[1].promised == 9
        assert (members[1].replica.base_epoch, members[1].held) == (1, [(1, 1)])

    run(check)


def test_entries_beside_the_newest_base_are_nobodys_any_more() -> None:
    """What a log of an older base has at a position, the newest epoch began without."""

    async def check() -> None:
        members, peers = make_cluster(4)
        members[3].hold(put(1, "old"), put(2, "old"), put(3, "old"))
        for number in (1, 2):
            members[number].begin(base_of(5, 4, position=1))
            members[number].hold(put(1, "old"))
        members[2].hold(put(2, "new", epoch=5))
        done = await promote(members[1].respondent, peers, Wish())
        assert done.base.position == 2
        assert members[1].held == [(1, 1), (5, 2)]

    run(check)


def test_position_that_nobody_holds_becomes_a_no_op_of_the_new_epoch() -> None:
    """One of the old epoch would be taken for the entry that an older node may still have there."""

    async def check() -> None:
        members, peers = make_cluster(4)
        members[1].hold(put(1), put(3))
        done = await promote(members[1].respondent, peers, Wish())
        assert (done.base.epoch, done.noops) == (2, 1)
        assert members[1].held == [(1, 1), (2, 2), (1, 3)]
        filled = members[1].replica.log.get(2)
        assert filled is not None
        assert filled.operation == Operation.NOOP

    run(check)


def advertise(member: FakeMember, url: str) -> None:
    """Tells a member's node that others reach it elsewhere than they do."""
    settings = member.replica.settings
    member.replica.settings = dataclasses.replace(settings, advertise_url=url)


def test_node_that_advertises_the_old_leaders_url_still_seals_the_old_leader() -> None:
    """By its name it knows which member it is: else the cluster would lose the other for good."""

    async def check() -> None:
        members, peers = make_cluster(3)
        advertise(members[1], url_of(0))
        done = await promote(members[1].respondent, peers, Wish())
        assert set(done.sealed) == {url_of(0), url_of(1), url_of(2)}
        assert all(member.replica.meta.promise == done.promise for member in members)
        assert url_of(1) not in {url for url, _ in peers.asked}

    run(check)


def without_names(members: list[FakeMember]) -> None:
    """Lets a cluster have been made before the names of its followers were known."""
    for member in members:
        record = base_of(1, len(members))
        some = tuple(Member("", one.url) for one in record.config.members)
        config = msgspec.structs.replace(record.config, members=some)
        member.begin(msgspec.structs.replace(record, config=config))


def test_node_whose_url_is_another_ones_leads_nothing_before_it_has_its_own() -> None:
    """Where no name is known the URL decides, and whoever answers there."""

    async def check() -> None:
        members, peers = make_cluster(3)
        without_names(members)
        advertise(members[1], url_of(0))
        with pytest.raises(OutbidError) as refused:
            await promote(members[1].respondent, peers, Wish())
        assert str(refused.value) == (
            f"At {url_of(0)} answers 'n0', and not this node; start it with an ADVERTISE_URL of "
            "its own, that which the others know it by."
        )
        assert [member.promised for member in members] == [1, 1, 1]
        advertise(members[1], url_of(1))
        done = await promote(members[1].respondent, peers, Wish())
        assert set(done.sealed) == {url_of(0), url_of(1), url_of(2)}

    run(check)


def test_snapshot_that_never_ends_is_given_up_after_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often a byte of it comes: the attempt ends, and another one may be made."""
    monkeypatch.setattr(promoter, "WHOLE_TIMEOUT_S", 0.01)

    async def check() -> None:
        members, peers = make_cluster(4)
        members[2].replica.finish_snapshot(2)

        async def endless(_url: str, _question: object) -> AsyncIterator[bytes]:
            yield encode(SnapshotBegin(2, 0))
            digest, nothing = b"", msgspec.msgpack.encode({})
            while True:  # a bucket whose last chunk never comes
                await asyncio.sleep(0)
                digest = _chain(digest, 0, nothing, ends_bucket=False)
                yield encode(
                    SnapshotChunk(
                        0, ends_bucket=False, versions=msgspec.Raw(nothing), digest=digest
                    )
                )

        monkeypatch.setattr(peers, "whole", endless)
        with pytest.raises(OutbidError, match=r"did not hand over its data within 0.01 s"):
            await promote(members[1].respondent, peers, Wish())

    run(check)
