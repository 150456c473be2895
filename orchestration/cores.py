"""Which cores the nodes and the generator run on."""

from dataclasses import dataclass

import psutil

from orchestration.errors import UsageError


@dataclass(frozen=True, slots=True)
class Cores:
    """Numbers of cores; empty where nothing is pinned.

    Attributes:
        store: for the nodes.
        generator: for the load processes.
    """

    store: tuple[int, ...] = ()
    generator: tuple[int, ...] = ()


def usable_cores() -> list[int]:
    """The cores on which this process may run, which taskset or a cpuset may have limited."""
    if hasattr(psutil.Process, "cpu_affinity"):
        return sorted(psutil.Process().cpu_affinity() or [])
    return list(range(psutil.cpu_count() or 1))


def divide_cores(load_processes: int) -> Cores:
    """Divides this machine's cores: one for each load process, as long as one is left for nodes.

    Raises:
        UsageError: The system cannot pin processes, or there is one core only.
    """
    if not hasattr(psutil.Process, "cpu_affinity"):
        raise UsageError("--pin: this system cannot give a process cores of its own; leave it out.")
    available = usable_cores()
    if len(available) < 2:  # noqa: PLR2004 - one for each side
        raise UsageError("--pin takes two cores at least, and this machine has one; leave it out.")
    count = min(load_processes, len(available) - 1)
    return Cores(store=tuple(available[:-count]), generator=tuple(available[-count:]))
