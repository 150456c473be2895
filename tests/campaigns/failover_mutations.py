"""More ways in which ``mutants`` breaks the store: promises, epochs, and who leads them."""

from __future__ import annotations

from tests.campaigns.mutation import Mutation

ABDICATION = ("tests/kv_app/test_abdication.py",)
ATTEMPTS = ("tests/simulation/test_attempts.py",)
CHANNEL = ("tests/kv_app/test_channel.py",)
CANDIDACY = ("tests/kv_app/test_candidacy.py",)
COMEBACK = ("tests/kv_app/test_comeback.py",)
FOLLOWER = ("tests/kv_app/test_follower.py",)
FOLLOWER_DISK = ("tests/kv_app/test_follower_disk.py",)
HANDOVER = ("tests/kv_app/test_handover.py",)
LEADER = ("tests/kv_app/test_leader.py",)
PEERS = ("tests/kv_app/test_peers.py",)
PROMOTER = ("tests/kv_app/test_promoter.py",)
QUORUM_CHANGES = ("tests/kv_app/test_quorum_changes.py",)
RESPONDENT = ("tests/kv_app/test_respondent.py",)
SCRIPTED = ("tests/simulation/test_scripted.py",)
SWITCH = ("tests/kv_app/test_switch.py",)
VOTERS = ("tests/kv_app/test_voters.py",)

FAILOVER = (
    # --- promises -------------------------------------------------------------------------------
    Mutation(
        "a node that wants to lead promises last",
        "kv_app/promoter.py",
        "        own = await self._node.seal(seal)\n"
        "        if isinstance(own, Denied):\n"
        "            raise self._outbid(own)\n"
        "        urls = self._wish.urls or [member.url for member in self._members]\n"
        "        others = [url for url in dict.fromkeys(urls) if url != self._own_url]\n"
        "        answers = await self._ask(others, seal, SEAL_TIMEOUT_S)\n",
        "        urls = self._wish.urls or [member.url for member in self._members]\n"
        "        others = [url for url in dict.fromkeys(urls) if url != self._own_url]\n"
        "        answers = await self._ask(others, seal, SEAL_TIMEOUT_S)\n"
        "        own = await self._node.seal(seal)\n"
        "        if isinstance(own, Denied):\n"
        "            raise self._outbid(own)\n",
        PROMOTER,
    ),
    Mutation(
        "a node that advertises another's URL takes that one for itself",
        "kv_app/promoter.py",
        "        if there is not None and there.node_id != node_id:\n",
        "        if False:\n",
        PROMOTER,
    ),
    Mutation(
        "a promise is kept in memory only",
        "kv_app/respondent.py",
        "            replica.join(seal.cluster_id, seal.promise)\n",
        "            storage, replica.storage = replica.storage, None\n"
        "            replica.join(seal.cluster_id, seal.promise)\n"
        "            replica.storage = storage\n",
        ATTEMPTS,
    ),
    Mutation(
        "what is known of a node is saved without a sync",
        "kv_app/storage.py",
        "        self._put_meta(batch, meta)\n        self._write(batch)\n        self.sync()\n",
        "        self._put_meta(batch, meta)\n        self._write(batch)\n",
        ATTEMPTS,
    ),
    Mutation(
        "a seal names what a crash may lose",
        "kv_app/respondent.py",
        "            await replica.commits.flush()\n",
        "            pass\n",
        ATTEMPTS,
    ),
    Mutation(
        "who is sealed goes on with its older leader",
        "kv_app/respondent.py",
        "            self._node.give_way(seal.promise.epoch, seal.cluster_id)\n",
        "",
        RESPONDENT,
    ),
    Mutation(
        "the channel of an epoch that is over stays open",
        "kv_app/follower.py",
        "            self._session.supersede(promised, cluster_id)\n",
        "",
        RESPONDENT,
    ),
    Mutation(
        "the leader of an epoch that is over is not told which one is promised",
        "kv_app/session.py",
        "return Refusal(reason, promised, cluster_id)",
        "return Refusal(reason, 0, cluster_id)",
        RESPONDENT,
    ),
    Mutation(
        "a follower of another cluster tells a leader its epoch",
        "kv_app/session.py",
        'return Refusal(reason, promised if is_forming else 0, "")',
        'return Refusal(reason, promised, "")',
        FOLLOWER,
    ),
    Mutation(
        "a leader steps down for the epoch of another cluster",
        "kv_app/channel.py",
        "is_its_own = refusal.cluster_id == self._config.cluster_id",
        "is_its_own = True",
        CHANNEL,
    ),
    Mutation(
        "who says hello for another cluster is told the id of this one",
        "kv_app/session.py",
        "if hello is not None and hello.cluster_id == cluster_id:",
        "if hello is not None:",
        FOLLOWER,
    ),
    Mutation(
        "who was sealed by too few has promised nothing",
        "kv_app/promoter.py",
        '        self._require(self._judgement, "Those that answered have promised, and wait for a '
        'leader.")\n',
        "        try:\n"
        '            self._require(self._judgement, "Those that answered have promised, and wait '
        'for a leader.")\n'
        "        except NotEnoughSurvivorsError:\n"
        "            self._replica.save(promise=None)\n"
        "            raise\n",
        PROMOTER,
    ),
    Mutation(
        "a follower lets another attempt at its epoch in",
        "kv_app/follower.py",
        "if is_member and not allows(meta.promise, wanted):",
        "if is_member and wanted.epoch < self.epoch:",
        FOLLOWER,
    ),
    # --- the end of a leadership, or of an attempt ----------------------------------------------
    Mutation(
        "writes wait on after the end of their leader",
        "kv_app/leader.py",
        '        self._waits.close(f"epoch {self.epoch} is over")\n',
        "",
        ABDICATION,
    ),
    Mutation(
        "reads wait on for a confirmation after the end of their leader",
        "kv_app/leader.py",
        "        self.reads.end()\n        self.voters.end()\n",
        "        self.reads.end()\n",
        ABDICATION,
    ),
    Mutation(
        "reads wait on for a position after the end of their leader",
        "kv_app/leader.py",
        "        self.reads.end()\n",
        "",
        ABDICATION,
    ),
    Mutation(
        "a change of k waits on after the end of its leader",
        "kv_app/leader.py",
        "        self.quorum_changes.end()\n        return",
        "        return",
        ABDICATION,
    ),
    Mutation(
        "a newer promise does not end an attempt",
        "kv_app/promoter.py",
        "        if self._replica.meta.promise != self._promise:\n",
        "        if False:\n",
        PROMOTER,
    ),
    Mutation(
        "each promotion of a node is an attempt of its own",
        "kv_app/candidacy.py",
        "            if self._attempt is None or self._attempt.done():\n",
        "            if True:\n",
        ATTEMPTS,
    ),
    Mutation(
        "nodes that try to lead again do so in step",
        "kv_app/comeback.py",
        "self._pause_s * random.uniform(0.5, 1.5)",
        "self._pause_s * 1.0",
        COMEBACK,
    ),
    Mutation(
        "a node tries to lead again as often as it can",
        "kv_app/comeback.py",
        "        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)\n",
        "",
        COMEBACK,
    ),
    # --- the base of an epoch -------------------------------------------------------------------
    Mutation(
        "a no-op is of the epoch that is over",
        "kv_app/promoter.py",
        "            Entry(self._promise.epoch, seq, int(Operation.NOOP)",
        "            Entry(epoch, seq, int(Operation.NOOP)",
        PROMOTER,
    ),
    Mutation(
        "a base is written before its entries",
        "kv_app/storage.py",
        "        batch.delete_range(_after(above), _next(_LOG))\n",
        "        first = WriteBatch(raw_mode=True)\n"
        "        self._put_meta(first, msgspec.structs.replace(meta, generation=old ^ is_whole))\n"
        "        self._write(first)\n"
        "        batch.delete_range(_after(above), _next(_LOG))\n",
        SWITCH,
    ),
    Mutation(
        "a base is saved before its log is switched",
        "kv_app/replica.py",
        "        commits.drop(staged.whole.idempotency if staged.whole is not None else None)\n",
        "        self.save(base=record, promise=promise)\n"
        "        commits.drop(staged.whole.idempotency if staged.whole is not None else None)\n",
        SWITCH,
    ),
    Mutation(
        "a base that is held is not durable",
        "kv_app/storage.py",
        "        self._write(batch)\n        self.sync()\n        if is_whole:\n",
        "        self._write(batch)\n        if is_whole:\n",
        SWITCH,
    ),
    Mutation(
        "a node leads before its epoch opens",
        "kv_app/node.py",
        "        self.candidate = candidate\n        candidate.start()\n",
        "        self.candidate = self.leader = candidate\n        candidate.start()\n",
        ATTEMPTS,
    ),
    Mutation(
        "a follower folds what is not settled",
        "kv_app/replica.py",
        "            self.commits.fold_to = (self.promised, settled)\n",
        "            self.commits.fold_to = (self.promised, self.held.contiguous)\n",
        FOLLOWER_DISK,
    ),
    # --- voters, k and f ------------------------------------------------------------------------
    Mutation(
        "one voter's word lets a learner in",
        "kv_app/voters.py",
        "        needed = confirmations_of(self._changes.now.floor, followers)\n",
        "        needed = min(1, self._changes.now.floor)\n",
        VOTERS,
    ),
    Mutation(
        "f voters have to confirm before a learner is let in",
        "kv_app/voters.py",
        "        needed = confirmations_of(self._changes.now.floor, followers)\n",
        "        needed = self._changes.now.floor\n",
        VOTERS,
    ),
    Mutation(
        "a word from before a learner connected lets it in",
        "kv_app/voters.py",
        "                self._admissions[link.index] = number\n",
        "                self._admissions[link.index] = 1\n",
        VOTERS,
    ),
    Mutation(
        "a learner's word is that of a voter",
        "kv_app/voters.py",
        "is_voter=not link.is_learner",
        "is_voter=True",
        VOTERS,
    ),
    Mutation(
        "the word of all members lets nobody in",
        "kv_app/voters.py",
        "        if confirmations.all(number) == followers:\n",
        "        if False:\n",
        VOTERS,
    ),
    Mutation(
        "the word of all members but one lets a learner in",
        "kv_app/voters.py",
        "        if confirmations.all(number) == followers:\n",
        "        if confirmations.all(number) >= followers - 1:\n",
        VOTERS,
    ),
    Mutation(
        "f voters let a learner in before the first epoch is open",
        "kv_app/voters.py",
        "return owner.is_open and confirmations",
        "return confirmations",
        VOTERS,
    ),
    Mutation(
        "a cluster is made of a follower that is gone again",
        "kv_app/channel.py",
        "        if self._owner.base is None and self.has_data is False:\n",
        "        if False:\n",
        LEADER,
    ),
    Mutation(
        "who holds an epoch's base has followed its leader",
        "kv_app/comeback.py",
        "        return replica.held.max_seq > base.position\n",
        "        return True\n",
        SCRIPTED,
    ),
    Mutation(
        "a leader without data that cannot make a cluster at once gives up",
        "kv_app/comeback.py",
        "                return self._node.form_if_blank()\n",
        "                self._node.form_if_blank()\n                return True\n",
        COMEBACK,
    ),
    Mutation(
        "a node whose disk fails while it is promoted goes on",
        "kv_app/candidacy.py",
        "            self._on_failure(error)\n",
        "",
        CANDIDACY,
    ),
    Mutation(
        "a node that stops opens an epoch",
        "kv_app/node.py",
        "        for one in (self.leader, self.candidate):\n            if one is not None:\n"
        "                one.drain()\n",
        "        if self.leader is not None:\n            self.leader.drain()\n",
        CANDIDACY,
    ),
    Mutation(
        "a node that answers drop by drop holds up a promotion",
        "kv_app/peers.py",
        "                asyncio.timeout(timeout_s),\n",
        "                asyncio.timeout(None),\n",
        PEERS,
    ),
    Mutation(
        "what a blank node learned while it probed is dropped",
        "kv_app/promoter.py",
        "if replica.meta.base is None and is_other and not replica.is_empty:",
        "if is_other and not replica.is_empty:",
        PROMOTER,
    ),
    Mutation(
        "what one cluster had committed is so in another one",
        "kv_app/replica.py",
        "            self.stable_seq = 0  # another log begins\n",
        "            pass\n",
        FOLLOWER,
    ),
    Mutation(
        "a node that leaves its cluster stays who it was",
        "kv_app/replica.py",
        'cluster_id="", promise=None, incarnation=secrets.token_hex(8))',
        'cluster_id="", promise=None)',
        FOLLOWER,
    ),
    Mutation(
        "a leader confirms itself where no follower has to know of a write",
        "kv_app/voters.py",
        "        if floor == 0 < followers:\n",
        "        if floor < 0:\n",
        VOTERS,
    ),
    Mutation(
        "the floor rises over holes",
        "kv_app/quorum_changes.py",
        "link.held.contiguous >= seq",
        "link.held.holds(seq)",
        QUORUM_CHANGES,
    ),
    Mutation(
        "a lowering does not wait for the leader's own disk",
        "kv_app/quorum_changes.py",
        "        is_durable = self._tracker.durable_seq >= seq\n",
        "        is_durable = True\n",
        QUORUM_CHANGES,
    ),
    Mutation(
        "nobody tells a node without data that it led",
        "kv_app/respondent.py",
        "            self._node.lead_again(recall.urls)\n",
        "            pass\n",
        ATTEMPTS,
    ),
    Mutation(
        "any attempt under way is joined",
        "kv_app/candidacy.py",
        "            elif not _serves(self._wish, wish):\n",
        "            elif False:\n",
        CANDIDACY,
    ),
    Mutation(
        "what was settled is not kept aside after force",
        "kv_app/replica.py",
        "        is_forced = self.base_epoch < record.forced\n",
        "        is_forced = False\n",
        SWITCH,
    ),
    Mutation(
        "what a snapshot shows is kept aside",
        "kv_app/staged.py",
        "        if is_after_base or entry.seq > whole.position:\n",
        "        if True:\n",
        SWITCH,
    ),
    Mutation(
        "what lies beyond a base passes for a part of it",
        "kv_app/staged.py",
        "        if is_after_base or entry.seq > whole.position:\n",
        "        if entry.seq > whole.position:\n",
        SWITCH,
    ),
    Mutation(
        "reads wait on for a confirmation when the node stops",
        "kv_app/leader.py",
        "        self._waits.close()\n        self.voters.end()\n",
        "        self._waits.close()\n",
        ABDICATION,
    ),
    Mutation(
        "a change of k waits on when the node stops",
        "kv_app/leader.py",
        "        self.quorum_changes.end()\n        self.counted",
        "        self.counted",
        QUORUM_CHANGES,
    ),
    Mutation(
        "a repeated change of k is answered at once",
        "kv_app/quorum_changes.py",
        "            return self._newest\n",
        "            return None\n",
        QUORUM_CHANGES,
    ),
    Mutation(
        "a retry after a failover counts nobody",
        "kv_app/leader.py",
        "        if holders <= record.ack_count:\n",
        "        if True:\n",
        HANDOVER,
    ),
    Mutation(
        "a base may have holes",
        "kv_app/promoter.py",
        "        if staged.held.contiguous < merged.position:\n",
        "        if False:\n",
        PROMOTER,
    ),
)
