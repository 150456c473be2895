"""The Locust user that all scenarios share, and the run that they hang on Locust's environment.

A scenario subclasses `KvUser` and says what its next request is. Everything else is here: Locust
starts and stops a `Run`, which holds the plan, the recorder and the executor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import locust
from locust import User, task
from locust.exception import StopUser

from orchestration.load import hooks
from orchestration.load.executor import Request
from orchestration.load.schedule import key_chooser, read_chooser, value_maker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestration.load.run import Run


class KvUser(User):
    """Writes and reads keys of the store at `--host`, as the load options say.

    In an open loop the first user of a process follows the schedule; in a closed loop every user
    is a client that sends its next request when the last is answered.
    """

    abstract = True
    closed_loop_only: ClassVar[bool] = False
    option_defaults: ClassVar[Mapping[str, str]] = {}
    """Defaults of options, in force where this scenario is the only one loaded."""

    def next_request(self) -> Request:
        """The scenario: what to send next. Called before the request is due."""
        raise NotImplementedError

    def write(self) -> Request:
        """A write of a new value to the next key, on the leader."""
        key, value, node = self.next_key(), self.next_value(), self._run.leader
        return Request("write", lambda: node.write(key, value))

    def read(self) -> Request:
        """A read of the next key, from the node that `--read-from` says."""
        key, node = self.next_key(), self._run.next_reader()
        return Request("read", lambda: node.read(key))

    @task
    def offer_load(self) -> None:
        """Sends requests until the plan is done, then leaves."""
        run = hooks.current_run(self.environment)
        if run is not None:
            self._take_part(run)
        raise StopUser

    def _take_part(self, run: Run) -> None:
        stream = run.next_stream()
        self._run = run
        self.next_key = key_chooser(run.plan, stream)
        self.next_value = value_maker(run.plan, stream)
        self.next_is_read = read_chooser(run.plan, stream)
        run.take_part(self.next_request, closed=self.closed_loop_only)


hooks.install(locust.events, KvUser)
