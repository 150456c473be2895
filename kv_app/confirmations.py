"""Asks the followers whether they still follow: only then does the leader know that it leads."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from kv_app.errors import TooManyInFlightError


class Confirmations:
    """Rounds of questions, and who waits for their answers.

    Who asks in one turn of the loop shares a round. An answer to a round is one to all before it.
    """

    def __init__(self, ask: Callable[[int], None], limit: int) -> None:
        """Makes an empty one.

        Args:
            ask: Puts the question of a round to all followers.
            limit: How many may wait: ``MAX_IN_FLIGHT``.
        """
        self._voters: dict[int, int] = {}
        self._learners: dict[int, int] = {}
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._round = 0
        self._is_due = False
        self._limit = limit
        # Of those that need as many answers: the round of each, ascending.
        self._waits: dict[int, OrderedDict[asyncio.Future[bool], int]] = {}

    def begin(self) -> int:
        """Returns the number of a round whose questions are still to be put."""
        if not self._is_due:
            self._is_due = True
            self._round += 1
            self._loop.call_soon(self._put)
        return self._round

    def _put(self) -> None:
        self._is_due = False
        self._ask(self._round)

    def note(self, follower: int, number: int, *, is_voter: bool) -> None:
        """Notes a follower's answer; it costs as much as there are waits that it ends."""
        answers = self._voters if is_voter else self._learners
        answers[follower] = max(number, answers.get(follower, 0))
        for needed, waits in self._waits.items():
            answered = self._answered_by(needed)
            while waits and next(iter(waits.values())) <= answered:
                wait, _ = waits.popitem(last=False)
                if not wait.done():
                    wait.set_result(True)

    def _answered_by(self, needed: int) -> int:
        """Returns the newest round that so many voters have answered; 0 if there is none."""
        newest = sorted(self._voters.values(), reverse=True)
        return newest[needed - 1] if needed <= len(newest) else 0

    def forget(self, follower: int) -> None:
        """Forgets a follower's answers: it may have another life now."""
        self._voters.pop(follower, None)
        self._learners.pop(follower, None)

    def voters(self, number: int) -> int:
        """Returns how many voters have answered a round, or a later one."""
        return sum(answered >= number for answered in self._voters.values())

    def all(self, number: int) -> int:
        """Returns how many followers have, learners too."""
        learners = self._learners.items()
        return self.voters(number) + sum(
            answered >= number
            for follower, answered in learners
            if self._voters.get(follower, 0) < number
        )

    async def wait(self, needed: int, timeout_s: float) -> bool:
        """Waits until so many followers have answered a round that begins now.

        Returns:
            False if they did not in time, or all waits were ended.

        Raises:
            TooManyInFlightError: Too many wait already.
        """
        if needed <= 0:
            return True
        if sum(map(len, self._waits.values())) >= self._limit:
            raise TooManyInFlightError(
                f"Reads that wait for a confirmation: {self._limit} of {self._limit} already; try "
                "again later or raise MAX_IN_FLIGHT.",
                limit="MAX_IN_FLIGHT",
            )
        wait: asyncio.Future[bool] = self._loop.create_future()
        waits = self._waits.setdefault(needed, OrderedDict())
        waits[wait] = self.begin()
        try:
            async with asyncio.timeout(timeout_s):
                return await wait
        except TimeoutError:
            return False
        finally:
            waits.pop(wait, None)

    def end(self) -> None:
        """Ends all waits: this node leads no more, or stops."""
        for waits in self._waits.values():
            for wait in waits:
                if not wait.done():
                    wait.set_result(False)
