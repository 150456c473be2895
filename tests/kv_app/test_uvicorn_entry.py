"""A node under ``uvicorn kv_app.main:app``: it knows where it listens, or refuses to start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from kv_app.main import NodeApp

if TYPE_CHECKING:
    from kv_app.settings import Settings

TARGET = "kv_app.main:app"


def load(**options: Any) -> Settings:
    """Loads the application as uvicorn does, and returns what its node is told."""
    app = uvicorn.Config(TARGET, log_config=None, **options).load_app()
    assert isinstance(app, NodeApp)
    return app.node.settings


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the shell that runs the tests."""
    for name in ("HOST", "PORT", "ADVERTISE_URL", "CLUSTER_TOKEN", "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)


def test_node_advertises_where_uvicorn_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that a follower sends elsewhere have to find something there."""
    monkeypatch.setenv("PORT", "1")  # uvicorn does not read it
    assert load(port=8123).advertise_url == "http://127.0.0.1:8123"
    assert load(host="::1").advertise_url == "http://[::1]:8000"
    monkeypatch.setenv("ADVERTISE_URL", "http://node:80")
    assert load(port=8123).advertise_url == "http://node:80"


def refusal(capsys: pytest.CaptureFixture[str], code: int = 64, **options: Any) -> str:
    """Loads what has to end with one sentence, and returns that."""
    with pytest.raises(SystemExit) as ended:
        load(**options)
    assert ended.value.code == code
    [line] = capsys.readouterr().err.splitlines()
    assert isinstance(line, str)
    return line


def test_host_beyond_loopback_is_guarded_as_the_variable_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a token a store is not shown to other machines by mistake."""
    message = refusal(capsys, host="0.0.0.0")  # noqa: S104
    assert message.startswith("kv_app: HOST=0.0.0.0 is reachable from other machines")
    monkeypatch.setenv("CLUSTER_TOKEN", "secret")
    assert load(host="0.0.0.0").host == "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"uds": "/tmp/node"}, "--uds"),  # noqa: S108  nothing is made
        ({"fd": 3}, "--fd"),
        ({"ssl_certfile": "cert"}, "--ssl-certfile"),
    ],
)
def test_node_that_others_could_not_reach_is_refused(
    capsys: pytest.CaptureFixture[str], options: dict[str, Any], names: str
) -> None:
    """It would advertise an address at which nobody answers them."""
    message = refusal(capsys, **options)
    assert message.startswith(("kv_app: Other nodes reach", "kv_app: Nodes speak plain"))
    assert names in message


@pytest.mark.parametrize("how", ["option", "variable"])
def test_several_workers_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """Each would be a store of its own behind one port; the supervisor is to start no others."""
    if how == "variable":
        monkeypatch.setenv("WEB_CONCURRENCY", "2")
    options = {"workers": 2} if how == "option" else {}
    assert refusal(capsys, STARTUP_FAILURE, **options) == (
        "kv_app: A node is one process: each of 2 workers would be a store of its own behind one "
        "port; start it without --workers and WEB_CONCURRENCY."
    )


def test_application_that_nobody_serves_goes_by_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A test, or a tool that reads its OpenAPI document."""
    from kv_app import main  # noqa: PLC0415  as such a tool does

    monkeypatch.setenv("PORT", "8200")
    assert main.app.node.settings.advertise_url == "http://127.0.0.1:8200"
