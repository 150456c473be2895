"""Asks the followers whether they still follow: only then does the leader know that it leads."""

import asyncio
from collections.abc import Callable


class Confirmations:
    """Rounds of questions, and who waits for their answers.

    Who asks in one turn of the loop shares a round. An answer to a round is one to all before it.
    """

    def __init__(self, ask: Callable[[int], None]) -> None:
        """Makes an empty one.

        Args:
            ask: Puts the question of a round to all followers.
        """
        self._voters: dict[int, int] = {}
        self._learners: dict[int, int] = {}
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._round = 0
        self._is_due = False
        self._waits: list[tuple[int, int, asyncio.Future[bool]]] = []

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
        """Notes a follower's answer."""
        answers = self._voters if is_voter else self._learners
        answers[follower] = max(number, answers.get(follower, 0))
        for asked, needed, wait in self._waits:
            if not wait.done() and self.voters(asked) >= needed:
                wait.set_result(True)
        self._waits = [wait for wait in self._waits if not wait[2].done()]

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
        """
        number = self.begin()
        if needed <= 0:
            return True
        wait: asyncio.Future[bool] = self._loop.create_future()
        self._waits.append((number, needed, wait))
        try:
            async with asyncio.timeout(timeout_s):
                return await wait
        except TimeoutError:
            return False
        finally:
            self._waits = [one for one in self._waits if one[2] is not wait]

    def end(self) -> None:
        """Ends all waits: this node leads no more, or stops."""
        for _, _, wait in self._waits:
            if not wait.done():
                wait.set_result(False)
        self._waits.clear()
