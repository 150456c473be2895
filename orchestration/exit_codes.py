"""The exit codes of the tool, in one table; docs/reports.md explains each of them."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """What a command's end means; 64, 70 and 74 are those of the system's sysexits.h."""

    OK = 0
    VIOLATED = 1
    UNKNOWN = 2
    USAGE = 64
    INTERNAL = 70
    IO = 74
    BREACHED = 99


MEANINGS: Final[Mapping[ExitCode, str]] = {
    ExitCode.OK: "valid",
    ExitCode.VIOLATED: "replicas differ",
    ExitCode.UNKNOWN: "unknown, or not possible now",
    ExitCode.USAGE: "it cannot be run as it was given",
    ExitCode.INTERNAL: "a fault of the tool",
    ExitCode.IO: "a file or disk was refused",
    ExitCode.BREACHED: "a threshold is breached",
}
OF_VERDICT: Final[Mapping[str, ExitCode]] = {
    "valid": ExitCode.OK,
    "violated": ExitCode.VIOLATED,
    "unknown": ExitCode.UNKNOWN,
}
OF_THRESHOLD: Final[Mapping[str, ExitCode]] = {
    "passed": ExitCode.OK,
    "unknown": ExitCode.UNKNOWN,
    "breached": ExitCode.BREACHED,
}
OF_PARITY: Final[Mapping[str, ExitCode]] = {
    "match": ExitCode.OK,
    "mismatch": ExitCode.VIOLATED,
    "error": ExitCode.UNKNOWN,
}
# A shell tells a program that a signal ended by 128 and the signal's number.
_SIGNAL_BASE: Final = 128


def of_signal(signum: int) -> int:
    """The exit code of a command that a signal stopped."""
    return _SIGNAL_BASE + signum
