"""The cases in which a simpler protocol loses a write, brings one back, or leads twice.

Each plays on simulated clusters of the real code; what every random run is held to is checked here
too, at each opening, at each acknowledgment and at the end.
"""

from __future__ import annotations

import asyncio

import pytest

from kv_app.candidacy import Promoted
from kv_app.errors import (
    NotAttemptedError,
    NotConfirmedError,
    NotEnoughSurvivorsError,
    OutbidError,
    OutcomeUnknownError,
    StoreError,
)
from tests.simulation.scripted import Script, play


def test_write_is_there_after_a_promotion() -> None:
    """The simplest case: the leader dies, another one is promoted, the old one comes back."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "before")
        one.host(0).crash(wiped=False)
        done = await one.promote(1)
        assert isinstance(done, Promoted)
        assert done.epoch == 2
        await one.put(one.node(1), "b", "after")
        one.host(0).start()
        await one.ready()
        assert one.node(0).leader is None
        assert one.node(0).state.values() == {"a": "before", "b": "after"}

    play(script, followers=3, write_quorum=2)


def test_leader_that_restarts_leads_a_new_epoch_by_itself() -> None:
    """Nobody has to help, and clients find it again."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        one.host(0).crash(wiped=False)
        one.host(0).start()
        await one.ready()
        assert one.leader is one.node(0).leader
        assert one.leader.epoch == 2
        await one.put(one.node(0), "a", "2")

    play(script, followers=3, write_quorum=2)


def test_all_restart_and_writes_go_on_by_themselves() -> None:
    """A power cut: who led last leads again."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        one.host(0).crash(wiped=False)
        assert isinstance(await one.promote(2), Promoted)
        await one.put(one.node(2), "a", "2")
        for host in one.hosts:
            host.crash(wiped=False)
        for host in one.hosts:
            host.start()
        await one.ready()
        assert one.leader is one.node(2).leader
        await one.put(one.node(2), "a", "3")

    play(script, followers=3, write_quorum=2)


def test_leader_in_memory_that_restarts_brings_its_data_back_from_others() -> None:
    """It has lost all, so that it counts for nothing; it may lead all the same."""

    async def script(one: Script) -> None:
        for number in range(20):
            await one.put(one.node(0), "abc"[number % 3], f"v{number}", f"i{number}")
        one.host(0).crash(wiped=False)
        one.host(0).start()
        await one.ready()
        assert one.leader is one.node(0).leader
        assert one.node(0).state.values() == {"a": "v18", "b": "v19", "c": "v17"}
        assert one.leader.append(1, "b", "v19", "i19").entry.epoch == 1  # type: ignore[arg-type]

    play(script, followers=3, write_quorum=2, is_durable=False)


def test_entry_that_only_a_follower_has_does_not_meet_another_at_its_position() -> None:
    """A leader that restarted in its old epoch would give the position away twice."""

    async def script(one: Script) -> None:
        one.part(0, 1)  # the leader, and one follower
        record = one.append(one.node(0), "a", "only there", "i1")
        await one.pause(0.5)
        assert one.node(1).replica.held.holds(record.entry.seq)
        one.host(0).disk.durable.values = {  # type: ignore[union-attr]  # what it had not synced
            key: value
            for key, value in one.host(0).disk.durable.values.items()  # type: ignore[union-attr]
            if not (key.startswith(b"L") and key.endswith(bytes([record.entry.seq])))
        }
        one.host(0).crash(wiped=False)
        one.mend()
        one.host(0).start()
        await one.ready()
        assert one.leader.epoch == 2
        await one.put(one.node(0), "b", "next")

    play(script, followers=3, write_quorum=2)


def test_two_promotions_at_once_make_one_leader() -> None:
    """An epoch belongs to one attempt."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        one.host(0).crash(wiped=False)
        await asyncio.gather(*(one.promote(number) for number in (1, 2, 3)))
        for _ in range(20):
            if one.cluster.leader() is not None:
                break
            await one.promote(1)
        await one.until(lambda: one.cluster.leader() is not None)
        openings = [
            opening.epoch for opening in one.cluster.history_of(one.node(1).replica).openings
        ]
        assert len(openings) == len(set(openings))

    for seed in range(5):
        play(script, followers=3, write_quorum=2, seed=seed)


def test_promotion_with_one_too_few_is_refused_and_names_who_is_missing() -> None:
    """Followers that acknowledged something may be among those that are dead."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        for number in (0, 4, 5):
            one.host(number).crash(wiped=False)
        refused = await one.promote(1)  # k=2: 4 of 5 followers are needed, 3 are there
        assert isinstance(refused, NotEnoughSurvivorsError)
        missing = refused.details["missing"]
        assert set(missing) == {one.hosts[number].url for number in (0, 4, 5)}  # type: ignore[call-overload]
        assert one.node(1).replica.promised == 1  # nothing was promised
        one.host(4).start()
        assert isinstance(await one.promote(1), Promoted)

    play(script, followers=5, write_quorum=2)


def test_old_leader_with_its_data_stands_for_all_followers() -> None:
    """It holds all that it acknowledged, whoever else is gone."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        for number in (1, 2):
            one.host(number).crash(wiped=False)
        assert isinstance(await one.promote(3), Promoted)  # the leader lives, and is sealed

    play(script, followers=5, write_quorum=1)


def test_paused_leader_acknowledges_nothing_after_it_was_replaced() -> None:
    """Nobody told it; its writes wait for ever, its linearizable reads fail, then it follows."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        old = one.node(0)
        one.part(0)
        assert isinstance(await one.promote(1), Promoted)
        await one.put(one.node(1), "a", "2")
        assert old.leader is not None
        assert old.leader.is_open
        with pytest.raises((OutcomeUnknownError, NotAttemptedError)):
            await one.put(old, "a", "lost")
        with pytest.raises((NotConfirmedError, NotAttemptedError)):
            await old.require_leader().voters.confirm()
        one.mend()
        await one.ready()
        assert old.leader is None
        assert old.state.values() == {"a": "2"}

    play(script, followers=3, write_quorum=2)


def test_superseded_leader_that_sees_no_new_one_leads_again() -> None:
    """Who has superseded it is gone, and has left nothing but promises."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        one.cluster.network.slow_s = {(one.hosts[1].url, one.hosts[3].url): 0.9}
        attempt = asyncio.create_task(one.promote(1))
        await one.until(lambda: one.node(0).leader is None)
        one.host(1).crash(wiped=False)  # one of those that it has to seal has not answered yet
        attempt.cancel()
        one.cluster.network.slow_s = {}
        await one.until(lambda: one.cluster.leader() is not None)
        assert one.leader is one.node(0).leader
        assert one.leader.epoch > 2
        one.host(1).start()
        await one.ready()

    play(script, followers=3, write_quorum=2)


def test_superseded_leader_that_has_followed_the_new_one_is_a_follower_like_any_other() -> None:
    """Who leads after that one is an operator's decision, or a watcher's."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        assert isinstance(await one.promote(1), Promoted)
        await one.until(lambda: one.node(0).replica.base_epoch == 2)
        one.host(1).crash(wiped=False)
        await one.pause(20.0)
        assert one.cluster.leader() is None
        assert one.node(0).replica.promised == 2
        assert isinstance(await one.promote(2), Promoted)
        one.host(1).start()
        await one.ready()

    play(script, followers=3, write_quorum=2)


def test_leader_superseded_by_an_epoch_that_never_opens_leads_again() -> None:
    """It was given the base of that epoch, and nobody else was: it has followed no leader."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        one.cluster.network.closed = {one.hosts[number].url for number in (2, 3, 4)}
        attempt = asyncio.create_task(one.promote(1))
        await one.until(lambda: one.node(0).replica.base_epoch == 2)
        one.host(1).crash(wiped=True)
        attempt.cancel()
        one.cluster.network.closed = set()
        await one.until(lambda: one.cluster.leader() is not None)
        assert one.leader is one.node(0).leader
        one.host(1).start()
        await one.ready()

    play(script, followers=4, write_quorum=2)


def test_versions_fall_back_to_the_newest_settled_one_beneath() -> None:
    """What the new epoch began without is gone from the old leader's followers too."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "settled")
        await one.pause(3.0)
        one.part(0, 1)
        lost = one.append(one.node(0), "a", "lost", "i-lost")
        await one.pause(0.3)
        assert one.node(1).state.values() == {"a": "lost"}  # shown, and not committed
        assert isinstance(await one.promote(2), Promoted)
        one.mend()
        await one.ready()
        for number in range(4):
            assert one.node(number).state.values() == {"a": "settled"}
        again = await one.put(one.node(2), "a", "lost", "i-lost")
        assert again.entry.epoch == 2
        assert again.entry.seq != lost.entry.seq or again.entry.epoch != lost.entry.epoch

    play(script, followers=3, write_quorum=2)


def test_retry_of_an_unknown_write_finds_it_in_the_new_epoch() -> None:
    """It is there once, whoever asks again."""

    async def script(one: Script) -> None:
        one.part(0, 1)
        first = one.append(one.node(0), "a", "maybe", "i1")
        await one.pause(0.3)
        one.host(0).crash(wiped=False)
        one.mend()
        assert isinstance(await one.promote(1), Promoted)
        again = await one.put(one.node(1), "a", "maybe", "i1")
        assert again.entry == first.entry

    play(script, followers=3, write_quorum=2)


def test_seal_answers_with_what_a_sync_has_still_to_cover() -> None:
    """The follower may acknowledge it yet: what it may acknowledge, it has to name."""

    async def script(one: Script) -> None:
        old = one.node(0)
        jobs = [asyncio.create_task(one.put(old, "a", f"v{number}")) for number in range(30)]
        await asyncio.sleep(0.002)
        await one.promote(1)
        await asyncio.gather(*jobs, return_exceptions=True)
        one.mend()
        await one.ready()

    for seed in range(10):
        play(script, followers=3, write_quorum=1, seed=seed)


@pytest.mark.parametrize("is_durable", [True, False])
def test_sealed_follower_that_loses_its_data_is_asked_again(*, is_durable: bool) -> None:
    """It has forgotten its promise, and might acknowledge for the old leader again."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        # While one answers late, another one that was sealed loses its data.
        one.cluster.network.slow_s = {(one.hosts[1].url, one.hosts[3].url): 0.9}
        attempt = asyncio.create_task(one.promote(1))
        await one.until(lambda: one.node(2).replica.promised == 2)
        one.host(2).crash(wiped=True)
        one.host(2).start()
        refused = await attempt
        assert isinstance(refused, OutbidError)
        assert f"{one.hosts[2].url} did not keep the promise" in str(refused)
        assert one.node(1).replica.base_epoch == 1
        await one.until(lambda: one.cluster.leader() is not None)

    play(script, followers=5, write_quorum=3, is_durable=is_durable)


def test_leader_that_lost_its_data_does_not_count_for_its_own_epoch() -> None:
    """It may have promised something, and have forgotten it: two others have to hold the base."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        one.host(0).crash(wiped=True)
        one.cluster.network.closed = {one.hosts[2].url}  # it is sealed, and does not get the base
        one.host(0).start()
        await one.until(lambda: one.node(1).replica.base_epoch == 2)
        await one.pause(1.0)
        assert one.cluster.leader() is None
        one.cluster.network.closed = set()
        await one.ready()
        assert one.node(0).state.values() == {"a": "1"}

    play(script, followers=2, write_quorum=1, is_durable=False)


def test_epoch_opens_on_a_majority_of_the_electors_however_small_k_is() -> None:
    """Else two epochs could open that have no node in common."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        one.host(0).crash(wiped=False)
        # Two are sealed, and do not get the base: two of five hold it, and k is 1.
        one.cluster.network.closed = {one.hosts[3].url, one.hosts[4].url}
        attempt = asyncio.create_task(one.promote(1))
        await one.until(lambda: one.node(2).replica.base_epoch == 2)
        await one.pause(1.0)
        assert one.cluster.leader() is None
        one.cluster.network.closed = {one.hosts[4].url}
        assert isinstance(await attempt, Promoted)
        one.cluster.network.closed = set()
        one.host(0).start()
        await one.ready()

    play(script, followers=4, write_quorum=1)


def test_acknowledgments_commit_nothing_of_a_base_before_its_epoch_opens() -> None:
    """If it never opens, another epoch may begin without what this one took over."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        one.part(0, 1, 2)
        unknown = one.append(one.node(0), "b", "2").entry.seq  # two hold it, and k is 3
        await one.until(lambda: one.node(2).replica.held.holds(unknown))
        one.host(0).crash(wiped=False)
        one.mend()
        one.cluster.network.closed = {one.hosts[3].url, one.hosts[4].url}
        attempt = asyncio.create_task(one.promote(1))
        await one.until(lambda: one.node(2).replica.base_epoch == 2)
        await one.pause(3.0)  # heartbeats tell what is committed
        candidate = one.node(1).candidate
        assert candidate is not None
        assert candidate.stable_seq < unknown
        assert one.node(2).replica.settled_seq < unknown
        one.cluster.network.closed = set()
        assert isinstance(await attempt, Promoted)
        assert (candidate.stable_seq, candidate.uncommitted) == (candidate.log.last_seq, 0)
        one.host(0).start()
        await one.ready()

    play(script, followers=4, write_quorum=3)


def test_who_forgot_its_promise_and_acknowledges_again_is_not_merged_from_memory() -> None:
    """It was sealed, lost its data, and was taken back by the old leader, while others answer late.

    What it answered to the seal is worth nothing then: it acknowledges for the old leader.
    """

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        for number in (0, 4, 5):
            one.cut(1, number)
        # The probe is answered late as well; both within the time that they are waited for.
        one.cluster.network.slow_s = {(one.hosts[1].url, one.hosts[3].url): 0.9}
        one.cut(0, 2)  # the old leader does not hear of the promise
        attempt = asyncio.create_task(one.promote(1))
        await one.until(lambda: one.node(2).replica.promised == 2)
        one.host(2).crash(wiped=True)
        one.host(2).start()
        one.join(0, 2)
        await one.until(lambda: one.node(2).replica.base_epoch == 1, 0.8)
        jobs = [asyncio.create_task(one.put(one.node(0), "b", f"v{n}")) for n in range(5)]
        assert one.node(3).replica.promised == 1
        one.cut(0, 3)  # so that others have to acknowledge
        await attempt
        await asyncio.gather(*jobs, return_exceptions=True)
        one.mend()
        await one.until(lambda: one.cluster.leader() is not None)

    play(script, followers=5, write_quorum=3, is_durable=False)


def test_wiped_follower_does_not_count_before_others_confirm_the_leader() -> None:
    """A leader that was replaced, and does not know, must not make a voter of it."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "1")
        one.part(0, 5)  # the leader, and one follower
        assert isinstance(await one.promote(1), Promoted)
        one.host(5).crash(wiped=True)
        one.host(5).start()
        await one.pause(3.0)
        old = one.node(0).leader
        assert old is not None
        assert not old.links[4].counts
        assert one.node(5).replica.base_epoch == 0
        one.mend()
        await one.ready()

    play(script, followers=5, write_quorum=2)


def test_lowering_waits_until_enough_know_of_it() -> None:
    """A promotion that relies on the old floor would miss what is on fewer."""

    async def script(one: Script) -> None:
        one.part(0, 1)  # one follower is left to the leader
        old = one.node(0).leader
        assert old is not None
        with pytest.raises(StoreError):
            await old.quorum_changes.change(1)
        with pytest.raises(StoreError):
            await one.put(one.node(0), "a", "on one follower only")
        assert isinstance(await one.promote(2), Promoted)
        one.mend()
        await one.ready()

    play(script, followers=5, write_quorum=3)


def test_floor_rises_only_when_all_before_is_on_as_many() -> None:
    """A promotion with n - f + 1 followers would miss what was acknowledged by fewer."""

    async def script(one: Script) -> None:
        for number in (2, 3):
            one.cut(0, number)
        await one.pause(3.0)
        await one.put(one.node(0), "a", "on one")  # k=1, held by 1 only
        leader = one.node(0).leader
        assert leader is not None
        with pytest.raises(StoreError):
            await leader.quorum_changes.change(3)
        assert (leader.write_quorum, leader.quorum_changes.now.floor) == (3, 1)
        one.mend()
        await one.until(lambda: leader.quorum_changes.now.floor == 3)
        await one.put(one.node(0), "a", "on three")

    play(script, followers=3, write_quorum=1)


def test_purged_deletion_is_not_undone_by_an_old_put() -> None:
    """A put from before it, on a node that was away, is in nobody's union any more."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "old")
        one.host(3).crash(wiped=False)
        await one.put(one.node(0), "a", None)
        for number in range(20):
            await one.put(one.node(0), "b", f"v{number}")
        await one.pause(2.0)
        one.host(0).crash(wiped=False)
        one.host(3).start()
        assert isinstance(await one.promote(3), Promoted)
        assert one.node(3).state.values() == {"b": "v19"}

    play(script, followers=3, write_quorum=2, log_entries=4)


def test_batch_is_merged_whole() -> None:
    """It is one entry: all its changes or none."""

    async def script(one: Script) -> None:
        await one.batch(one.node(0), {"a": "1", "b": "1", "c": "1"})
        one.part(0, 1)
        leader = one.node(0).leader
        assert leader is not None
        jobs = asyncio.create_task(one.batch(one.node(0), {"a": "2", "b": "2", "c": "2"}))
        await one.pause(0.3)
        await one.promote(2)
        await asyncio.gather(jobs, return_exceptions=True)
        one.mend()
        await one.ready()
        for node in one.cluster.nodes():
            assert len(set(node.state.values().values())) == 1

    play(script, followers=3, write_quorum=2)


def test_by_force_a_cluster_goes_on_with_what_is_left() -> None:
    """What only the dead had is lost, and that is said."""

    async def script(one: Script) -> None:
        await one.put(one.node(0), "a", "everywhere")
        await one.pause(2.0)
        for number in (0, 1, 2):
            one.host(number).crash(wiped=True)
        assert isinstance(await one.promote(3), NotEnoughSurvivorsError)
        done = await one.promote(3, force=True)
        assert isinstance(done, Promoted)
        assert "n0" in done.may_have_lost
        assert done.write_quorum == 0
        await one.put(one.node(3), "a", "goes on")
        for number in (0, 1, 2):
            one.host(number).start()
        await one.ready()
        assert one.leader.write_quorum == 2  # as it was wanted

    play(script, followers=3, write_quorum=2)


@pytest.mark.parametrize("log_entries", [1000, 2])
def test_after_a_forced_epoch_what_was_lost_is_kept_aside_by_who_comes_back(
    log_entries: int,
) -> None:
    """What is settled there is not settled any more: entries or a snapshot replace all of it."""

    async def script(one: Script) -> None:
        for _ in range(5):
            await one.put(one.node(0), "a", "kept", "i-kept")
        await one.pause(3.0)
        one.part(0, 1)
        lost = await one.put(one.node(0), "b", "lost", "i-lost")
        await one.put(one.node(0), "c", "lost too")
        await one.pause(1.0)
        assert one.node(1).replica.settled_seq >= lost.entry.seq
        one.give_up("b", "c")
        assert isinstance(await one.promote(2, force=True), Promoted)
        one.mend()
        await one.ready()
        await one.put(one.node(2), "a", "after")
        await one.pause()
        for node in one.cluster.nodes():
            assert node.state.values() == {"a": "after"}
            assert node.replica.idempotency.find("i-lost") is None
        for name in ("n0", "n1"):
            dropped = [entry.value for entry in one.cluster.quarantined[name]]
            assert dropped == ["lost", "lost too"]

    play(script, followers=2, write_quorum=1, log_entries=log_entries)
