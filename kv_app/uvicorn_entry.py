"""What a node is told under ``uvicorn kv_app.main:app``, where uvicorn decides where it listens."""

import os
import sys

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from kv_app.errors import SettingsError


class WorkersError(SettingsError):
    """Uvicorn was told to run several processes.

    Attributes:
        exit_code: With this one its supervisor starts no others in their place.
    """

    exit_code = STARTUP_FAILURE


def environment() -> dict[str, str]:
    """Returns the process's environment, with where uvicorn listens if it loads the application.

    Raises:
        SettingsError: It listens where no other node reaches it, or several times.
    """
    config = _loading_config()
    if config is None:
        return dict(os.environ)
    if config.workers > 1:
        raise WorkersError(
            f"A node is one process: each of {config.workers} workers would be a store of its own "
            "behind one port; start it without --workers and WEB_CONCURRENCY."
        )
    if config.uds is not None or config.fd is not None:
        raise SettingsError(
            "Other nodes reach a node at a host and a port; start it with --host and --port, "
            "without --uds or --fd."
        )
    if config.is_ssl:
        raise SettingsError(
            "Nodes speak plain HTTP to each other; start it without --ssl-keyfile and "
            "--ssl-certfile, on a network that you trust."
        )
    return {**os.environ, "HOST": config.host, "PORT": str(config.port)}


def _loading_config() -> uvicorn.Config | None:
    """Returns the configuration of the uvicorn that imports the application just now.

    It is handed to nobody, and the command line is not the only place that it comes from.
    """
    frame = sys._getframe()  # noqa: SLF001  as above
    while (caller := frame.f_back) is not None:
        frame = caller
        owner = frame.f_locals.get("self")
        if isinstance(owner, uvicorn.Config):
            return owner
    return None
