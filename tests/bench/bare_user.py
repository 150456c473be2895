"""The least that Locust can do: its own quick user, writing back to back, and nothing else."""

import itertools

from locust import FastHttpUser, task

VALUE = "v" * 64
KEYS = 1_000
_numbers = itertools.count()


class BareUser(FastHttpUser):
    """Writes as the generator's closed loop does, by Locust's own client."""

    @task
    def write(self) -> None:
        """One write."""
        number = next(_numbers) % KEYS
        self.client.put(f"/kv/key-{number}", json={"value": VALUE}, name="write")
