"""Writes the records that a workload finds when it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent.pool

from orchestration.load.workload import key_name, value_maker

if TYPE_CHECKING:
    from orchestration.load.drivers.http_kv import HttpKvDriver
    from orchestration.load.plan import LoadPlan

MAX_BATCH_KEYS = 128
MAX_BATCH_BYTES = 512 * 1024
BATCHES_IN_FLIGHT = 8


def load_records(leader: HttpKvDriver, plan: LoadPlan) -> bool:
    """Writes a value to each of the plan's keys, unless they are there; true if it did.

    They are taken to be there if the first and the last one are, with values of the plan's sizes:
    the last is written when all others have been.

    Raises:
        DriverError: a batch was not committed; another attempt begins anew.
    """
    if all(_is_record(leader.read(key_name(number)), plan) for number in (0, plan.keys - 1)):
        return False
    value_of = value_maker(plan, stream=0xFFFFFF)  # the streams of clients count up from 0
    size = max(1, min(MAX_BATCH_KEYS, MAX_BATCH_BYTES // plan.value_bytes[1]))
    pool = gevent.pool.Pool(BATCHES_IN_FLIGHT)

    def write(first: int) -> None:
        numbers = range(first, min(first + size, plan.keys - 1))
        leader.write_batch({key_name(number): value_of() for number in numbers})

    # A failed batch ends the iteration with its error; the others must not go on without it.
    try:
        for _ in pool.imap_unordered(write, range(0, plan.keys - 1, size)):
            pass
    finally:
        pool.kill()
    leader.write(key_name(plan.keys - 1), value_of())
    return True


def _is_record(value: str | None, plan: LoadPlan) -> bool:
    smallest, largest = plan.value_bytes
    return value is not None and smallest <= len(value.encode()) <= largest
