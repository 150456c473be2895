"""The error tree: what a client is told, with which HTTP status, and whether it is definite.

A *definite* error says that the request did not happen and never will. An error that is not
definite leaves the outcome open: the write may or may not take effect later.
"""

from typing import ClassVar


class StoreError(Exception):
    """An error that a client sees in the one error shape of the API.

    Attributes:
        code: Stable machine-readable name, the same for every instance of the class.
        http_status: HTTP status of the answer.
        definite: True if the request had no effect and never will have one.
        message: One sentence: what happened, and what to do.
        details: Further members of the error object.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    definite: ClassVar[bool] = False

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def to_body(self, **defaults: object) -> dict[str, object]:
        """Returns the JSON body of the answer; ``defaults`` fill in what the error lacks."""
        shape = {"code": self.code, "message": self.message, "definite": self.definite}
        return {"error": {**shape, **defaults, **self.details}}


class InternalError(StoreError):
    """The node met a bug of its own; whether a write took effect is unknown."""


class MalformedError(StoreError):
    """The request cannot be read: bad JSON, bad key, bad header, a number out of its range."""

    code = "malformed"
    http_status = 400
    definite = True


class UnauthorizedError(StoreError):
    """The call needs the cluster's token."""

    code = "unauthorized"
    http_status = 401
    definite = True


class NotLeaderError(StoreError):
    """Only the leader takes this call; ``leader_url`` names it where it is known."""

    code = "not_leader"
    http_status = 403
    definite = True


class ForeignOriginError(StoreError):
    """A browser asks for a page of another origin; a node serves programs and its own page."""

    code = "foreign_origin"
    http_status = 403
    definite = True


class NotFoundError(StoreError):
    """The key has no value; ``epoch`` and ``seq`` name the deletion where there was one."""

    code = "not_found"
    http_status = 404
    definite = True


class UnknownPathError(StoreError):
    """The API has no such path."""

    code = "unknown_path"
    http_status = 404
    definite = True


class MethodNotAllowedError(StoreError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    http_status = 405
    definite = True


class PositionNotReachedError(StoreError):
    """This replica did not reach the position of ``after`` in time."""

    code = "position_not_reached"
    http_status = 409
    definite = True


class NotConfirmedError(StoreError):
    """A linearizable read: too few followers confirmed that this node still leads."""

    code = "not_confirmed"
    http_status = 409
    definite = True


class NotEnoughSurvivorsError(StoreError):
    """A promotion: the nodes that answer need not hold all that was acknowledged.

    ``sealed`` and ``required`` count them, ``missing`` names those that would have to answer.
    """

    code = "not_enough_survivors"
    http_status = 409
    definite = True


class OutbidError(StoreError):
    """A promotion: another node promised a newer epoch meanwhile; ask it, or try again."""

    code = "outbid"
    http_status = 409
    definite = True


class ChangeUnderWayError(StoreError):
    """The write quorum is being lowered, and only one such change may be under way."""

    code = "change_under_way"
    http_status = 409
    definite = True


class TooLargeError(StoreError):
    """The key, the value, the body or the request's head exceeds its limit; ``limit`` names it."""

    code = "too_large"
    http_status = 413
    definite = True


class UnknownHostError(StoreError):
    """The node is called by a name in ``Host`` that it does not know as its own."""

    code = "unknown_host"
    http_status = 421
    definite = True


class IdempotencyConflictError(StoreError):
    """The idempotency key was used before, for another operation, key or value."""

    code = "idempotency_conflict"
    http_status = 422
    definite = True


class TooManyInFlightError(StoreError):
    """Too many requests wait for their quorum or position; ``limit`` names the setting."""

    code = "too_many_in_flight"
    http_status = 429
    definite = True


class NotAttemptedError(StoreError):
    """The node did not try, for a ``reason``.

    It is too_few_followers, forming, recovering, superseded, draining or too_many_connections.
    """

    code = "not_attempted"
    http_status = 503
    definite = True


class NotReadyError(StoreError):
    """The node cannot do its role's work now; ``reason`` says why. Only ``/ready`` answers so."""

    code = "not_ready"
    http_status = 503
    definite = True


class OutcomeUnknownError(StoreError):
    """It may take effect later: it is in the log, and its quorum did not answer in time."""

    code = "outcome_unknown"
    http_status = 504
    definite = False


class ChannelError(Exception):
    """A replication channel ended; the reason is for the log and for ``/admin/links``."""


class SupersededError(ChannelError):
    """A node is bound to another leader, or to another cluster.

    Attributes:
        promised: The epoch that it has promised itself to.
        cluster_id: In which cluster.
    """

    def __init__(self, message: str, promised: int, cluster_id: str) -> None:
        super().__init__(message)
        self.promised = promised
        self.cluster_id = cluster_id


class ProtocolViolationError(ChannelError):
    """The peer sent what the replication protocol does not allow."""


class StorageError(Exception):
    """The data on disk cannot be used, or written; the node must not go on."""


class SettingsError(ValueError):
    """A setting of the node is not usable; the message names the variable and its bound."""


def all_store_errors() -> list[type[StoreError]]:
    """Returns every error class that a client can see, ordered by status and code."""
    found: list[type[StoreError]] = []
    queue = [*StoreError.__subclasses__()]
    while queue:
        error = queue.pop()
        if "code" in vars(error) or error is InternalError:
            found.append(error)
        queue.extend(error.__subclasses__())
    return sorted(found, key=lambda error: (error.http_status, error.code))
