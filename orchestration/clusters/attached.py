"""A cluster that stands already: found through one of its nodes, left as it was found."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence

from orchestration import limits
from orchestration.clusters.journal import Before, BusyError, Journal
from orchestration.control import CONTROL_TIMEOUT_S, Control, Health
from orchestration.errors import ClusterError, UsageError
from orchestration.scenario import Engine

READY_TIMEOUT_S = 10.0
POLL_S = 0.1


class AttachedCluster:
    """Uses the cluster of the node at ``url``; if that is a follower, it is asked who leads.

    ``start`` notes the write quorum, and the delays if it changes them; ``stop`` restores both.

    Args:
        url: a node, the leader mostly.
        control: the client for the calls.
        delay_ms: link delays for the time of use; None leaves those in force.
        reached_urls: where to ask the followers, if not where their leader does; matched by the
            id that each node tells.
        journal: where the cluster's k and delays are noted, so that those which a killed process
            has left are put back; None notes nothing.
        say: is told what is put back of that.
        clock: seconds, monotonic.
        sleep: waits that many seconds.
    """

    engine: Engine = "attached"

    def __init__(
        self,
        url: str,
        control: Control,
        *,
        delay_ms: tuple[float, float] | None = None,
        reached_urls: Sequence[str] = (),
        journal: Journal | None = None,
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._leader_url = url.rstrip("/")
        self._control = control
        self._delay_ms = delay_ms
        self._reached_urls = tuple(url.rstrip("/") for url in reached_urls)
        self._follower_urls: dict[str, str] = {}
        self._clock = clock
        self._sleep = sleep
        self._journal = journal
        self._say = say
        # What tells the cluster from others, and what it was like: known while it is in use.
        self._cluster = ""
        self._before: Before | None = None

    @property
    def leader_url(self) -> str:
        """Where the leader answers."""
        return self._leader_url

    @property
    def follower_urls(self) -> Mapping[str, str]:
        """From the URL by which the leader knows a follower to the one that answers from here."""
        return self._follower_urls

    def start(self) -> None:
        """Find the nodes, wait until they take writes, note what will be restored, set the delays.

        Raises:
            ClusterError: nobody answers, or who answers is no leader, or not a ready one.
        """
        self.find()
        self._wait_until_ready()
        self._cluster = self._tell_apart()
        self._put_back_what_was_left()
        quorum, _ = self._control.quorum(self._leader_url)
        before = Before(quorum)
        if self._delay_ms is not None:
            delays = self._control.delays(self._leader_url)
            start_id = self._control.health(self._leader_url).start_id
            delay_ms = (delays.min_delay_ms, delays.max_delay_ms)
            before = Before(quorum, self._leader_url, start_id, delay_ms)
        self._note(before)
        self._before = before
        if self._delay_ms is not None:
            self._control.set_delays(self._leader_url, self._delay_ms)

    def find(self, *, timeout_s: float = CONTROL_TIMEOUT_S) -> None:
        """Find leader and followers, and change nothing; `stop` has then nothing to restore.

        Args:
            timeout_s: how long a node may take to say who it is.

        Raises:
            ClusterError: nobody answers, or who answers knows of no leader that can be reached.
        """
        role = self._control.health(self._leader_url, timeout_s=timeout_s).role
        if role != "leader":
            self._leader_url = self._find_leader(role or "node without a role")
        self._follower_urls = self._find_followers()

    def stop(self) -> None:
        """Restore the write quorum and the delays, on whoever leads now.

        Raises:
            ClusterError: what could not be restored, and the command that does it.
        """
        if self._before is None:
            return
        self._restore(self._before)
        self._before = None
        if self._journal is not None:
            self._journal.remove(self._cluster)

    def _restore(self, before: Before) -> None:
        """K is in the log and outlives a leader; delays are those of one node."""
        answers = self._control.healths([self._leader_url, *self._follower_urls.values()])
        leaders = {
            url: health.epoch
            for url, health in answers.items()
            if isinstance(health, Health) and health.role == "leader"
        }
        leader_url = max(leaders, key=lambda url: leaders[url], default=self._leader_url)
        problems = [self._restore_quorum(leader_url, before), self._restore_delays(before)]
        if any(problems):
            raise ClusterError(" ".join(filter(None, problems)))

    def _restore_quorum(self, leader_url: str, before: Before) -> str:
        """Set it; why that is not possible, and the command that does it, or nothing."""
        try:
            self._control.set_quorum(leader_url, before.quorum)
        except ClusterError as problem:
            sets = _command(f"{leader_url}/admin/quorum", write_quorum=before.quorum)
            return f"The cluster is not left with k={before.quorum} ({problem}): {sets}"
        return ""

    def _restore_delays(self, before: Before) -> str:
        """As `_restore_quorum` does; a node that was ended since has nothing to put back."""
        if not self._may_be_changed(before):
            return ""
        low, high = before.delay_ms
        try:
            self._control.set_delays(before.changed_url, before.delay_ms)
        except ClusterError as problem:
            sets = _command(
                f"{before.changed_url}/admin/delays", min_delay_ms=low, max_delay_ms=high
            )
            return (
                f"The links of {before.changed_url} are not left with delays of {low:g} to "
                f"{high:g} ms ({problem}): {sets}"
            )
        return ""

    def _may_be_changed(self, before: Before) -> bool:
        """Delays are not kept over a restart: a node that was ended has those of its settings."""
        if not before.changed_url:
            return False
        with contextlib.suppress(ClusterError):
            return self._control.health(before.changed_url).start_id == before.start_id
        return True

    def _put_back_what_was_left(self) -> None:
        if self._journal is None:
            return
        try:
            before = self._journal.read(self._cluster)
        except BusyError as busy:
            raise ClusterError(
                f"Another quorumeter (process {busy}) uses this cluster: wait until it has ended."
            ) from None
        if before is None:
            return
        if problem := self._restore_quorum(self._leader_url, before):
            raise ClusterError(problem)
        if problem := self._restore_delays(before):
            if before.changed_url == self._leader_url:
                raise ClusterError(problem)
            # That node may be gone for good, and must not keep the others from use.
            self._say(problem)
        self._journal.remove(self._cluster)
        delays = "" if not before.changed_url or problem else " and delays of {:g} to {:g} ms"
        self._say(
            f"An earlier run on this cluster was killed; k={before.quorum}"
            f"{delays.format(*before.delay_ms)}, as it had found it, are put back first."
        )

    def _note(self, before: Before) -> None:
        if self._journal is None:
            return
        try:
            self._journal.write(self._cluster, before)
        except OSError as problem:
            self._say(
                f"What the cluster is like cannot be noted ({problem.filename}: "
                f"{problem.strerror}): if this run is killed outright, k={before.quorum} is not "
                "put back."
            )

    def _tell_apart(self) -> str:
        status = self._control.status(self._leader_url)
        return str(status.get("cluster_id") or self._leader_url)

    def _find_leader(self, role: str) -> str:
        """Returns where the leader is, as another node knows: a failover changes it."""
        found = ""
        with contextlib.suppress(ClusterError):
            status = self._control.status(self._leader_url)
            found = self._checked(status.get("leader_url")) if status.get("leader_url") else ""
            if found and self._control.health(found).role == "leader":
                return found
        where = f", {found}" if found else ""
        raise ClusterError(
            f"{self._leader_url} is a {role}: attach to the leader of the cluster{where}."
        )

    def _wait_until_ready(self) -> None:
        """A cluster that was started just now may still be connecting."""
        deadline_s = self._clock() + READY_TIMEOUT_S
        while True:
            try:
                return self._control.check_ready(self._leader_url)
            except ClusterError as problem:
                if self._clock() >= deadline_s:
                    raise ClusterError(
                        f"The leader takes no writes now: {problem} Attach once it does."
                    ) from problem
            self._sleep(POLL_S)

    def _find_followers(self) -> dict[str, str]:
        links = self._control.positions(self._leader_url).links
        for link in links:
            self._checked(link.url)
        if not self._reached_urls:
            return {link.url: link.url for link in links}
        by_id = {}
        for url, health in self._control.healths(self._reached_urls).items():
            if isinstance(health, ClusterError):
                raise health
            by_id[health.node_id] = url
        return {link.url: by_id.get(link.node_id or "", link.url) for link in links}

    def _checked(self, url: object) -> str:
        """A URL that a node names for another: it goes into reports, as those of the user do."""
        try:
            return limits.parse_url(str(url), "A node's URL")
        except UsageError as problem:
            raise ClusterError(f"{self._leader_url} names a node so: {problem}") from problem


def _command(url: str, **values: float) -> str:
    """The command that sets what could not be set, for the time when it can."""
    return (
        f"once it can be, curl -X POST {url} -H 'Content-Type: application/json' "
        f"-d '{json.dumps(values)}'"
    )
