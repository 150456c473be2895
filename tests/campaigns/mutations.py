"""The ways in which ``mutants`` breaks the store, and the tests that have to notice.

Each is one exact replacement of text that occurs once. Who changes that text changes it here too.
"""

from __future__ import annotations

from tests.campaigns.failover_mutations import FAILOVER
from tests.campaigns.mutation import Mutation

STATE = ("tests/kv_app/test_state.py",)
QUORUM = ("tests/kv_app/test_quorum.py",)
LEADER = ("tests/kv_app/test_leader.py",)
CHANNEL = ("tests/kv_app/test_channel.py",)
FOLLOWER = ("tests/kv_app/test_follower.py", "tests/kv_app/test_session.py")
COMMIT = ("tests/kv_app/test_group_commit.py",)
FOLLOWER_DISK = ("tests/kv_app/test_follower_disk.py",)
LEADER_DISK = ("tests/kv_app/test_leader_disk.py",)
RECOVERY = ("tests/kv_app/test_recovery.py",)
SNAPSHOT = ("tests/kv_app/test_snapshot.py",)
STORAGE = ("tests/kv_app/test_storage.py", "tests/kv_app/test_storage_model.py")
WAL = ("tests/kv_app/test_wal.py",)
PROMOTER = ("tests/kv_app/test_promoter.py",)
SWITCH = ("tests/kv_app/test_switch.py",)
SUFFICIENCY = ("tests/kv_app/failover/test_sufficiency.py",)
SCRIPTED = ("tests/simulation/test_scripted.py",)

MUTATIONS = (
    Mutation(
        "an older version replaces a newer one",
        "kv_app/state.py",
        "elif (version.epoch, version.seq) <= (held.epoch, held.seq):",
        "elif False:",
        STATE,
    ),
    Mutation(
        "a batch loses all but its first change",
        "kv_app/state.py",
        "            for change in entry.changes:\n                self.install(",
        "            for change in entry.changes[:1]:\n                self.install(",
        STATE,
    ),
    Mutation(
        "deletions that may still be needed are forgotten",
        "kv_app/replica.py",
        "self.state.forget_deletions(forgotten)",
        "self.state.forget_deletions(self.held.max_seq)",
        FOLLOWER,
    ),
    Mutation(
        "deletions are forgotten while the disk has what they delete",
        "kv_app/replica.py",
        "            forgotten = min(forgotten, self.commits.storage.meta.folded[1])\n",
        "",
        FOLLOWER_DISK,
    ),
    Mutation(
        "k counts one too few",
        "kv_app/leader.py",
        "_encode_entry(entry), self.now_ns(), self.delays, k, k)",
        "_encode_entry(entry), self.now_ns(), self.delays, k, max(0, k - 1))",
        LEADER,
    ),
    Mutation(
        "one follower counts as often as it acknowledges",
        "kv_app/quorum.py",
        "if record is None or record.acked_by & bit:",
        "if record is None:",
        QUORUM,
    ),
    Mutation(
        "the leader commits before its own disk has the entry",
        "kv_app/quorum.py",
        "or record.entry.seq > self.durable_seq",
        "or record.entry.seq < 0",
        LEADER_DISK,
    ),
    Mutation(
        "the leader shows a value before it is committed",
        "kv_app/leader.py",
        "self.delays, k, k)\n        self.log.append(record)\n",
        "self.delays, k, k)\n        self.log.append(record)\n        self.state.apply(entry)\n",
        LEADER,
    ),
    Mutation(
        "a retry is appended again",
        "kv_app/leader.py",
        "            if first is not None:\n",
        "            if False:\n",
        LEADER,
    ),
    Mutation(
        "an idempotency key is taken for any write",
        "kv_app/retries.py",
        "if first.fingerprint != fingerprint_of(retry.operation, retry.key, retry.value, "
        "retry.changes):",
        "if first.fingerprint == b'':",
        LEADER,
    ),
    Mutation(
        "a write that failed was appended all the same",
        "kv_app/leader.py",
        "        self.check_may_write()\n        seq = self.log.last_seq + 1\n",
        "        seq = self.log.last_seq + 1\n",
        LEADER,
    ),
    Mutation(
        "what a follower has lost still counts",
        "kv_app/voters.py",
        "        self._forget(welcome.node_id)\n",
        "",
        LEADER,
    ),
    Mutation(
        "a leader takes over followers with the data of another one",
        "kv_app/voters.py",
        "link.has_data = holds_any and welcome.cluster_id != cluster_id",
        "link.has_data = False",
        LEADER,
    ),
    Mutation(
        "a learner counts at once",
        "kv_app/channel.py",
        "return self.is_connected and not self.is_learner",
        "return self.is_connected",
        CHANNEL,
    ),
    Mutation(
        "a learner's acknowledgments count",
        "kv_app/channel.py",
        "        if self.is_learner:\n            self.teach()\n        elif ranges:\n",
        "        if ranges:\n",
        CHANNEL,
    ),
    Mutation(
        "a learner gets the base before it has caught up",
        "kv_app/channel.py",
        "            and self.held.contiguous >= self._learns_until\n",
        "",
        CHANNEL,
    ),
    Mutation(
        "a follower acknowledges what it does not apply",
        "kv_app/replica.py",
        "            apply(entry)\n",
        "",
        FOLLOWER,
    ),
    Mutation(
        "a follower takes entries of other epochs",
        "kv_app/follower.py",
        "not is_of_epoch\n",
        "False\n",
        FOLLOWER,
    ),
    Mutation(
        "a follower overwrites the data of another cluster",
        "kv_app/follower.py",
        "if is_member or self.is_empty:\n            if",
        "if is_member or not is_member:\n            if",
        FOLLOWER,
    ),
    Mutation(
        "a follower acknowledges before its disk has the entry",
        "kv_app/session.py",
        "if self._follower.take(message.entries, message.stable_seq, acknowledge):",
        "if self._follower.take(message.entries, message.stable_seq, acknowledge) or seqs:",
        FOLLOWER_DISK,
    ),
    Mutation(
        "nothing waits for the disk",
        "kv_app/group_commit.py",
        "        self.storage.sync()\n        return",
        "        return",
        COMMIT,
    ),
    Mutation(
        "what was added counts as durable before its sync",
        "kv_app/group_commit.py",
        "        self._waiting.append(done)\n",
        "        self._waiting.append(done)\n        done()\n",
        COMMIT,
    ),
    Mutation(
        "a disk that fails is not told of",
        "kv_app/group_commit.py",
        "                self._finish(syncing.result(), waiting, entries)\n"
        "            except StorageError as error:\n"
        "                self._on_failure(error)\n",
        "                self._finish(syncing.result(), waiting, entries)\n"
        "            except StorageError:\n"
        "                pass\n",
        COMMIT,
    ),
    Mutation(
        "the leader counts its entries as durable before they are",
        "kv_app/leader.py",
        "        commits.add(entries, lambda: self._on_durable(last_seq))\n",
        "        self._on_durable(last_seq)\n        commits.add(entries, lambda: None)\n",
        LEADER_DISK,
    ),
    Mutation(
        "what is not committed yet is folded away",
        "kv_app/leader.py",
        "commits.fold_to = (self.epoch, self.stable_seq)",
        "commits.fold_to = (self.epoch, last_seq)",
        LEADER_DISK,
    ),
    Mutation(
        "what was found on the disk is told before it is durable",
        "kv_app/recovery.py",
        "    storage.sync()\n",
        "",
        RECOVERY,
    ),
    Mutation(
        "entries on the disk are not brought back",
        "kv_app/recovery.py",
        "        state.apply_unsettled(entry)\n",
        "",
        RECOVERY,
    ),
    Mutation(
        "a base for an earlier life makes a voter",
        "kv_app/follower.py",
        "        if base.incarnation != replica.meta.incarnation:\n            return False\n",
        "",
        RECOVERY,
    ),
    Mutation(
        "a snapshot's versions reach the disk only if they are new in memory",
        "kv_app/replica.py",
        "        for key, version in versions.items():\n"
        "            self.state.install_settled(key, version)\n",
        "        versions = {k: v for k, v in versions.items() if self.state.install(k, v)}\n",
        (*SNAPSHOT, *RECOVERY),
    ),
    Mutation(
        "a damaged snapshot is taken",
        "kv_app/snapshot.py",
        "if digest != chunk.digest or chunk.bucket != self._bucket:",
        "if chunk.bucket < 0:",
        SNAPSHOT,
    ),
    Mutation(
        "a snapshot that ended early is taken",
        "kv_app/snapshot.py",
        "if end.digest != self._digest or self._bucket != BUCKETS:",
        "if self._bucket > BUCKETS:",
        SNAPSHOT,
    ),
    Mutation(
        "keys that a snapshot lacks stay",
        "kv_app/session.py",
        "                if message.ends_bucket:\n",
        "                if message.ends_bucket and not message.digest:\n",
        SNAPSHOT,
    ),
    Mutation(
        "folding forgets what it takes out of the log",
        "kv_app/storage.py",
        "            _fold_entry(batch, entry, self.meta.generation)\n",
        "",
        STORAGE,
    ),
    Mutation(
        "folding removes more of the log than it moved",
        "kv_app/storage.py",
        "batch.delete_range(_after(self.meta.folded[1]), _after(reached[1]))",
        "batch.delete_range(_after(self.meta.folded[1]), _after(upto[1]))",
        STORAGE,
    ),
    Mutation(
        "folding goes over a hole",
        "kv_app/storage.py",
        "            if entry.seq != reached[1] + 1:\n                break\n",
        "",
        STORAGE,
    ),
    Mutation(
        "folding overwrites the versions of a snapshot",
        "kv_app/storage.py",
        "        if self._is_installing:\n            return self.meta.folded\n",
        "",
        STORAGE,
    ),
    Mutation(
        "a damaged write in the middle of the log is cut off as unfinished",
        "kv_app/wal.py",
        "return None if _has_record_after(data, _skip_padding(at) + 1) else at",
        "return at",
        WAL,
    ),
    # --- the rules of a change of leader ------------------------------------------------------
    Mutation(
        "two attempts share an epoch",
        "kv_app/failover/promises.py",
        "or wanted == promise",
        "or wanted.epoch == promise.epoch",
        ("tests/kv_app/failover/test_promises.py",),
    ),
    Mutation(
        "a promotion needs no majority",
        "kv_app/failover/sufficiency.py",
        "    if counted < majority:",
        "    if counted < 0:",
        SUFFICIENCY,
    ),
    Mutation(
        "a promotion needs one follower less than it should",
        "kv_app/failover/sufficiency.py",
        "    required = followers - floor + 1\n",
        "    required = followers - floor\n",
        SCRIPTED,
    ),
    Mutation(
        "learners count for a promotion",
        "kv_app/failover/sufficiency.py",
        "if url in urls and (one.base is not None or is_founder(base, url, one.incarnation))",
        "if url in urls",
        SUFFICIENCY,
    ),
    Mutation(
        "a leader that lost its data counts as one that has it",
        "kv_app/failover/sufficiency.py",
        "return node.node_id == base.leader_id and node.incarnation == base.leader_incarnation",
        "return node.node_id == base.leader_id",
        SUFFICIENCY,
    ),
    Mutation(
        "the last configuration that anybody holds is not looked for",
        "kv_app/failover/sufficiency.py",
        "if one.config_epoch == base.epoch and one.config_seq > position:",
        "if position:",
        SUFFICIENCY,
    ),
    Mutation(
        "a new epoch promises a floor that its k does not give",
        "kv_app/failover/sufficiency.py",
        "return Config(config.members, begins, begins, k)",
        "return Config(config.members, begins, k, k)",
        SUFFICIENCY,
    ),
    Mutation(
        "logs of different bases are united",
        "kv_app/promoter.py",
        "if one.base is not None and one.base.epoch == epoch",
        "if one.base is not None",
        PROMOTER,
    ),
    Mutation(
        "only the promoter's own log is merged",
        "kv_app/promoter.py",
        "        for url, ranges in merged.fetches.items():\n",
        "        for url, ranges in ():\n",
        SCRIPTED,
    ),
    Mutation(
        "who was sealed is not asked again",
        "kv_app/promoter.py",
        "        if lost:\n            raise OutbidError(",
        "        if lost and not lost:\n            raise OutbidError(",
        PROMOTER,
    ),
    Mutation(
        "an epoch's number is used again",
        "kv_app/promoter.py",
        "self._promise = Promise(heard + 1, settings.node_id, attempt)",
        "self._promise = Promise(max(heard, 1), settings.node_id, attempt)",
        SCRIPTED,
    ),
    Mutation(
        "what an older voter holds beside the base stays",
        "kv_app/follower.py",
        "            self._staged = self.replica.stage(keep)\n",
        "            self._staged = self.replica.stage(keep)\n"
        "            self._staged.take(self.replica.log.above(keep))\n",
        SCRIPTED,
    ),
    Mutation(
        "versions of dropped entries stay",
        "kv_app/replica.py",
        "            self.state.revert()\n",
        "",
        SCRIPTED,
    ),
    Mutation(
        "idempotency keys of dropped entries stay",
        "kv_app/replica.py",
        "                self.idempotency.forget(entry)\n",
        "                pass\n",
        SWITCH,
    ),
    Mutation(
        "an epoch opens when k nodes hold its base",
        "kv_app/voters.py",
        "return has_majority(base.config.members, self._urls)",
        "return len(self._urls) > self._changes.now.write_quorum",
        SCRIPTED,
    ),
    Mutation(
        "the first epoch opens before others hold its base",
        "kv_app/leader.py",
        "            link.teach()\n        self._try_open()\n",
        "            link.teach()\n        self._open()\n",
        LEADER,
    ),
    Mutation(
        "a founder counts in every life",
        "kv_app/failover/sufficiency.py",
        "return base.founders.get(url) == incarnation",
        "return url in base.founders",
        SUFFICIENCY,
    ),
    Mutation(
        "a node that joins another cluster stays who it was",
        "kv_app/replica.py",
        '            changes.setdefault("incarnation", secrets.token_hex(8))\n',
        "            pass\n",
        FOLLOWER,
    ),
    Mutation(
        "a leader whose cluster is still to be made is followed for good",
        "kv_app/follower.py",
        "            if hello.is_formed:\n                self._adopt(hello, wanted)\n",
        "            self._adopt(hello, wanted)\n",
        FOLLOWER,
    ),
    Mutation(
        "a learner that leads counts for opening",
        "kv_app/voters.py",
        "self._urls = set() if is_blank else {own_url}",
        "self._urls = {own_url}",
        SCRIPTED,
    ),
    Mutation(
        "a learner becomes a voter without a question",
        "kv_app/voters.py",
        "return owner.is_open and confirmations.voters(number) >= needed",
        "return owner.is_open",
        SCRIPTED,
    ),
    Mutation(
        "a leader that has promised newer goes on committing",
        "kv_app/quorum.py",
        "        self._log = Log(0, 0, self._log.last_seq)\n",
        "        pass\n",
        QUORUM,
    ),
    Mutation(
        "acknowledgments commit a base before its epoch opens",
        "kv_app/leader.py",
        "        if not self.is_open:\n            return\n        self._quorum.acknowledge(",
        "        self._quorum.acknowledge(",
        SCRIPTED,
    ),
    Mutation(
        "what a leader had not committed is not given back",
        "kv_app/handover.py",
        "        if entry.seq > replica.settled_seq:\n",
        "        if False:\n",
        ("tests/kv_app/test_handover.py",),
    ),
    Mutation(
        "a lowering is in force before others know of it",
        "kv_app/failover/quorum_change.py",
        "acks >= confirmations_of(now.floor, followers)",
        "acks >= 0",
        SCRIPTED,
    ),
    Mutation(
        "the floor rises before all is on as many",
        "kv_app/failover/quorum_change.py",
        "and holders >= now.raising.write_quorum",
        "and holders >= 0",
        SCRIPTED,
    ),
    Mutation(
        "what is not committed is settled, and forgotten as an entry",
        "kv_app/replica.py",
        "settled = min(self.stable_seq, self.held.contiguous)",
        "settled = self.held.contiguous",
        SCRIPTED,
    ),
    Mutation(
        "a write that waited where a leader ends is told that it failed",
        "kv_app/waits.py",
        "                future.set_exception(unknown(record, why))\n",
        "                future.set_exception(StoreError(why))\n",
        ("tests/kv_app/test_abdication.py",),
    ),
    Mutation(
        "a read is confirmed by an answer from before it",
        "kv_app/confirmations.py",
        "            self._round += 1\n",
        "            self._round += self._round == 0\n",
        SCRIPTED,
    ),
    Mutation(
        "what was settled stays under an epoch that began by force",
        "kv_app/replica.py",
        "        if staged.whole is None and staged.keep < self.settled_seq:\n",
        "        if staged.keep < 0:\n",
        SCRIPTED,
    ),
    Mutation(
        "a welcome names what is not durable yet",
        "kv_app/session.py",
        "        await self._follower.flush()\n",
        "",
        FOLLOWER_DISK,
    ),
    Mutation(
        "a founder that lost its data is let in without a question",
        "kv_app/voters.py",
        "if owner.base is not None and is_founder(owner.base, link.url, link.incarnation):",
        "if owner.base is not None and link.url in owner.base.founders:",
        LEADER,
    ),
    *FAILOVER,
)
