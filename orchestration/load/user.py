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
from orchestration.load.drivers import DriverError
from orchestration.load.executor import Request
from orchestration.load.workload import (
    YCSB,
    key_chooser,
    key_name,
    operation_chooser,
    read_chooser,
    scan_length_chooser,
    value_maker,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestration.load.drivers.http_kv import HttpKvDriver
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
    needs_records: ClassVar[bool] = False
    """Whether all keys of the plan are written before the load begins.

    A read that finds nothing is then an error, `not_found`; elsewhere it is an answer.
    """

    def next_request(self) -> Request:
        """The scenario: what to send next. Called before the request is due."""
        raise NotImplementedError

    def next_key(self) -> str:
        """The next key to ask for, as `--keys` and `--key-choice` say."""
        return key_name(self.next_number())

    def write(self) -> Request:
        """A write of a new value to the next key, on the leader."""
        key, value, node = self.next_key(), self.next_value(), self._run.leader
        return Request("write", lambda: node.write(key, value))

    def read(self) -> Request:
        """A read of the next key, from the node that `--read-from` says."""
        key, node = self.next_key(), self._run.next_reader()
        return Request("read", lambda: self._ask(node, key))

    def insert(self) -> Request:
        """A write of a key that is not there yet, on the leader; counted as a write."""
        value, node, inserted = self.next_value(), self._run.leader, self._run.inserted

        def call() -> None:
            # Not before the call: a request that is dropped would never end.
            number = inserted.begin()
            try:
                node.write(key_name(number), value)
            finally:
                inserted.end(number)

        return Request("write", call)

    def scan(self) -> Request:
        """Reads of the keys from the next one on, one after the other, as one operation.

        After the last of the plan's keys comes the first again.
        """
        first, length, node = self.next_number(), self.next_scan_length(), self._run.next_reader()
        names = [key_name((first + step) % self._run.plan.keys) for step in range(length)]

        def call() -> None:
            for name in names:
                self._ask(node, name)

        return Request("scan", call)

    def read_modify_write(self) -> Request:
        """A read of the next key, and then a write of it, as one operation."""
        key, value = self.next_key(), self.next_value()
        reader, leader = self._run.next_reader(), self._run.leader

        def call() -> None:
            self._ask(reader, key)
            leader.write(key, value)

        return Request("read_modify_write", call)

    def next_of_mix(self) -> Request:
        """The next operation of `--mix`."""
        request: Request = getattr(self, self.next_operation())()
        return request

    def _ask(self, node: HttpKvDriver, key: str) -> None:
        if node.read(key) is None and self.needs_records:
            code = "not_found"
            raise DriverError(code, definite=True)

    @task
    def offer_load(self) -> None:
        """Sends requests until the plan is done, then leaves."""
        run = hooks.current_run(self.environment)
        if run is not None:
            self._take_part(run)
        raise StopUser

    def _take_part(self, run: Run) -> None:
        plan, stream = run.plan, run.next_stream()
        self._run = run
        own_choice = YCSB[plan.mix].key_choice if self.needs_records else "uniform"
        self.next_number = key_chooser(plan, stream, run.inserted, own_choice)
        self.next_value = value_maker(plan, stream)
        self.next_is_read = read_chooser(plan, stream)
        self.next_operation = operation_chooser(plan, stream)
        self.next_scan_length = scan_length_chooser(plan, stream)
        run.take_part(self.next_request, closed=self.closed_loop_only)


hooks.install(locust.events, KvUser)
