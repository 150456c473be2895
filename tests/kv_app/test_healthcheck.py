"""The image's HEALTHCHECK, run as Docker runs it, against a server that stands for the node."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"
STATUS = {"127.0.0.1": 200, "127.0.0.2": 503}
# Of some users every container gets these, and nothing listens there.
PROXIES = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")


class Health(BaseHTTPRequestHandler):
    """Answers ``/health``, with a status that depends on the address that was asked."""

    def do_GET(self) -> None:
        """Answers one request."""
        address = self.connection.getsockname()[0]
        self.send_response(STATUS[address] if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of the server, which listens on every address, as a node in a container does."""
    with HTTPServer(("0.0.0.0", 0), Health) as server:  # noqa: S104
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("host", "is_healthy"),
    [("0.0.0.0", True), ("", True), ("127.0.0.1", True), ("127.0.0.2", False)],  # noqa: S104
)
def test_healthcheck_asks_the_node_itself_where_it_listens(
    host: str, port: int, *, is_healthy: bool
) -> None:
    """Not a proxy that the container was given, and not another address than the node's."""
    found = re.search(r"HEALTHCHECK.*?CMD (\[.*?\])\n", DOCKERFILE.read_text(), re.DOTALL)
    assert found is not None
    program, *arguments = json.loads(found[1])
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *arguments],
        env={"HOST": host, "PORT": str(port), **PROXIES},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode == 0) == is_healthy, done.stderr
