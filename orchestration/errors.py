"""What can go wrong outside the store, as one sentence each, with the exit code it leads to."""

from typing import ClassVar

from orchestration.exit_codes import ExitCode


class QuorumeterError(Exception):
    """A problem told to the user in one sentence: what happened, and what to do about it."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNKNOWN


class UsageError(QuorumeterError):
    """The command cannot be run as it was given."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE


class ClusterError(QuorumeterError):
    """A cluster did not start, is not there, or does not answer."""


class RefusedError(ClusterError):
    """A node answered, but not with what it was asked for."""


class NotNowError(RefusedError):
    """A node did not try what it was asked for, and may if it is asked again: 429 or 503."""


class OutcomeUnknownError(ClusterError):
    """A change that a node was asked for may happen yet, or has: it did not say that it did."""


class PortTakenError(ClusterError):
    """A node could not listen on its port because another program does."""
