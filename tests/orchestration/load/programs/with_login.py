"""The scenario of writes, behind a login that lets nobody in."""

# Locust's own hooks are not typed.
from __future__ import annotations

from typing import Any

from locust import events

from orchestration.load.user import KvUser, Request


class Writes(KvUser):
    """Writes only."""

    def next_request(self) -> Request:
        """A write."""
        return self.write()


@events.init.add_listener
def let_nobody_in(environment: Any, **_: object) -> None:
    """Locust's login wants to be told who a visitor is: nobody."""
    if environment.web_ui:
        environment.web_ui.app.secret_key = "of this test"
        environment.web_ui.login_manager.user_loader(lambda _user_id: None)
