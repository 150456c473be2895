"""A cluster that stands already: found through one of its nodes, left as it was found."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from orchestration.control import Control, Delays
from orchestration.errors import ClusterError
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
        self._quorum: int | None = None
        self._delays: Delays | None = None

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
        self._quorum, _ = self._control.quorum(self._leader_url)
        if self._delay_ms is not None:
            self._delays = self._control.delays(self._leader_url)
            self._control.set_delays(self._leader_url, self._delay_ms)

    def find(self) -> None:
        """Find leader and followers, and change nothing; `stop` has then nothing to restore.

        Raises:
            ClusterError: nobody answers, or who answers knows of no leader that can be reached.
        """
        role = self._control.health(self._leader_url).role
        if role != "leader":
            self._leader_url = self._find_leader(role or "node without a role")
        self._follower_urls = self._find_followers()

    def stop(self) -> None:
        """Restore the write quorum and the delays; a leader that is gone needs neither."""
        quorum, self._quorum = self._quorum, None
        delays, self._delays = self._delays, None
        try:
            if quorum is not None:
                self._control.set_quorum(self._leader_url, quorum)
            if delays is not None:
                restored = (delays.min_delay_ms, delays.max_delay_ms)
                self._control.set_delays(self._leader_url, restored)
        except ClusterError:
            return

    def _find_leader(self, role: str) -> str:
        """Returns where the leader is, as another node knows: a failover changes it."""
        found = ""
        with contextlib.suppress(ClusterError):
            found = str(self._control.status(self._leader_url).get("leader_url") or "")
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
        if not self._reached_urls:
            return {link.url: link.url for link in links}
        by_id = {self._control.health(url).node_id: url for url in self._reached_urls}
        return {link.url: by_id.get(link.node_id or "", link.url) for link in links}
