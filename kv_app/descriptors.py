"""How many files and connections the process may have open at once."""

import logging
import sys

if sys.platform != "win32":  # which has no such limit
    import resource

logger = logging.getLogger("kv_app")

# For the files of the store, the links to followers, and the node's own calls.
OWN_DESCRIPTORS = 512
MIN_CONNECTIONS = 16


def fit_connections(wanted: int, reserved: int) -> int:
    """Raises the process's limit of open files as far as it must and can.

    Without descriptors the store could not open its files: there are rather fewer connections.

    Args:
        wanted: Connections of clients that the node is to hold.
        reserved: Further connections that it takes beside them.

    Returns:
        How many connections of clients it can hold, ``wanted`` if the system allows that.
    """
    needed = wanted + reserved + OWN_DESCRIPTORS
    allowed = _raise_limit(needed)
    if allowed >= needed:
        return wanted
    fitting = min(wanted, max(MIN_CONNECTIONS, allowed - reserved - OWN_DESCRIPTORS))
    logger.warning(
        "MAX_CONNECTIONS=%d needs %d open files and the system allows %d: the node takes %d "
        "connections; raise the limit (ulimit -n) or lower MAX_CONNECTIONS",
        wanted,
        needed,
        allowed,
        fitting,
    )
    return fitting


def _raise_limit(needed: int) -> int:
    """Returns how many descriptors the process may have, after asking for what it needs."""
    if sys.platform == "win32":
        return needed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    target = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    while target > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        except (OSError, ValueError):  # macOS has bounds that it does not tell
            target //= 2
        else:
            return target
    return soft
