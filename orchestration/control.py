"""Control calls to the nodes of a cluster: health, write quorum, delays, positions, contents.

One thin method a call; every failure is a `ClusterError` that names the node and what it said.
"""

import math
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import wraps
from http import HTTPStatus
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from urllib.parse import quote

import httpx

from orchestration.errors import ClusterError, NotNowError, OutcomeUnknownError, RefusedError
from orchestration.plain_text import one_line

P = ParamSpec("P")
R = TypeVar("R")

# A control call that takes longer than this is a node that does not answer.
CONTROL_TIMEOUT_S = 5.0
# One that takes longer to say who it is, where many are asked so.
LOOK_TIMEOUT_S = 1.0
# A promotion waits for those that do not answer, and carries data to those that lack it.
PROMOTE_TIMEOUT_S = 60.0
# A dump carries all the data.
DUMP_TIMEOUT_S = 30.0
# A request that failed so did not reach a node.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
_NOT_NOW = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
TOKEN_VARIABLE = "CLUSTER_TOKEN"  # noqa: S105 - the name of the variable, not a secret


@dataclass(frozen=True, slots=True)
class Health:
    """Who answers at a URL."""

    node_id: str
    role: str
    epoch: int
    start_id: str


@dataclass(frozen=True, slots=True)
class Link:
    """A follower as its leader sees it; sequence numbers are those of the leader's epoch."""

    url: str
    node_id: str | None
    epoch: int
    contiguous: int
    holes: int
    is_connected: bool
    is_learner: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Positions:
    """How far the leader's log is, and each of its followers.

    Everything at or below ``stable_seq`` is committed; ``stable_seq <= last_seq``.
    """

    epoch: int
    last_seq: int
    stable_seq: int
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """What one replica holds, without the values.

    Attributes:
        max_seq: its newest entry.
        buckets: a text per bucket of keys; equal texts, equal keys, values and versions.
        versions: epoch and sequence number per key of the bucket that was asked for.
    """

    max_seq: int
    buckets: tuple[str, ...]
    versions: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Delays:
    """The link delays in force, in milliseconds."""

    min_delay_ms: float
    max_delay_ms: float
    delay_model: str


def _of_a_node(
    read: Callable[Concatenate["Control", str, P], R],
) -> Callable[Concatenate["Control", str, P], R]:
    """Reads an answer that may be of anybody: what it lacks, or says oddly, is a ClusterError."""

    @wraps(read)
    def checked(control: "Control", url: str, /, *args: P.args, **options: P.kwargs) -> R:
        try:
            return read(control, url, *args, **options)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ClusterError(
                f"{url} answered something other than a node of the store does ({error!r}): is one "
                "listening there?"
            ) from error

    return checked


class Control:
    """A client for control calls; close it, or use it as a context.

    ``token`` goes along as Bearer token. Proxies of the environment are not used: nodes are near.
    """

    def __init__(
        self, *, token: str | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(
            headers=headers, timeout=CONTROL_TIMEOUT_S, trust_env=False, transport=transport
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """A client with the token of CLUSTER_TOKEN, if that is set."""
        found = os.environ if environment is None else environment
        return cls(token=found.get(TOKEN_VARIABLE) or None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._client.close()

    @_of_a_node
    def health(self, url: str, *, timeout_s: float = CONTROL_TIMEOUT_S) -> Health:
        """Who answers at ``url``."""
        body = self._call("GET", url, "/health", timeout_s=timeout_s)
        return Health(
            node_id=one_line(body.get("node_id", "")),
            role=one_line(body.get("role", "")),
            epoch=int(body.get("epoch", 0)),
            start_id=str(body.get("start_id", "")),
        )

    def healths(self, urls: Collection[str]) -> "dict[str, Health | ClusterError]":
        """Who answers at each of these URLs, or why nobody does.

        All are asked at the same time, so that it takes no longer than `LOOK_TIMEOUT_S`.
        """

        def ask(url: str) -> Health | ClusterError:
            try:
                return self.health(url, timeout_s=LOOK_TIMEOUT_S)
            except ClusterError as problem:
                return problem

        with ThreadPoolExecutor(max_workers=max(1, len(urls))) as pool:
            return dict(zip(urls, pool.map(ask, urls), strict=True))

    def check_ready(self, url: str, *, timeout_s: float = CONTROL_TIMEOUT_S) -> None:
        """Raise `ClusterError` with the node's reason unless it can do its role's work."""
        self._call("GET", url, "/ready", timeout_s=timeout_s)

    def status(self, url: str, *, timeout_s: float = CONTROL_TIMEOUT_S) -> dict[str, Any]:
        """Where a node stands in its cluster, as it says itself."""
        return self._call("GET", url, "/admin/status", timeout_s=timeout_s)

    def promote(self, url: str, *, write_quorum: int | None, force: bool) -> dict[str, Any]:
        """Make a node the leader of a new epoch; what it says of that.

        Raises:
            OutcomeUnknownError: it may lead yet.
            ClusterError: it does not lead; the message is the node's.
        """
        body: dict[str, object] = {"force": force}
        if write_quorum is not None:
            body["write_quorum"] = write_quorum
        return self._call("POST", url, "/admin/promote", json=body, timeout_s=PROMOTE_TIMEOUT_S)

    def put(self, url: str, key: str, value: str, *, timeout_s: float) -> dict[str, Any]:
        """Write a key; the node's answer once its quorum has it.

        Raises:
            OutcomeUnknownError: it may be written yet.
            NotNowError: it is not written, but may be if it is tried again.
            ClusterError: it is not written.
        """
        path = f"/kv/{quote(key, safe='')}"
        return self._call("PUT", url, path, json={"value": value}, timeout_s=timeout_s)

    def delete(self, url: str, key: str, *, timeout_s: float) -> dict[str, Any]:
        """Delete a key; the node's answer once its quorum has it. It raises as `put` does."""
        return self._call("DELETE", url, f"/kv/{quote(key, safe='')}", timeout_s=timeout_s)

    @_of_a_node
    def quorum(self, leader_url: str) -> tuple[int, int]:
        """The write quorum k in force, and the number of followers n."""
        body = self._call("GET", leader_url, "/admin/quorum")
        return int(body["write_quorum"]), int(body["followers"])

    def set_quorum(self, leader_url: str, k: int) -> None:
        """Make ``k`` the write quorum."""
        self._call("POST", leader_url, "/admin/quorum", json={"write_quorum": k})

    @_of_a_node
    def delays(self, leader_url: str) -> Delays:
        """The link delays in force."""
        body = self._call("GET", leader_url, "/admin/delays")
        low, high = float(body["min_delay_ms"]), float(body["max_delay_ms"])
        if not 0 <= low <= high < math.inf:
            msg = f"no range of delays: {low} to {high} ms"
            raise ValueError(msg)
        return Delays(
            min_delay_ms=low,
            max_delay_ms=high,
            delay_model=one_line(body.get("delay_model", "independent")),
        )

    def set_delays(self, leader_url: str, delay_ms: tuple[float, float]) -> None:
        """Draw link delays from the range ``delay_ms`` from now on."""
        low, high = delay_ms
        body = {"min_delay_ms": low, "max_delay_ms": high}
        self._call("POST", leader_url, "/admin/delays", json=body)

    @_of_a_node
    def positions(self, leader_url: str) -> Positions:
        """Positions of all replicas, without their data: cheap enough to poll."""
        body = self._call("GET", leader_url, "/admin/links")
        links = tuple(_link(url, link) for url, link in body["links"].items())
        return Positions(
            epoch=int(body["epoch"]),
            last_seq=int(body["last_seq"]),
            stable_seq=int(body["stable_seq"]),
            links=links,
        )

    @_of_a_node
    def ack(self, leader_url: str) -> str:
        """What an acknowledgment of this cluster means: fsync, memory, or mixed."""
        leader = self._call("GET", leader_url, "/health")
        links = self._call("GET", leader_url, "/admin/links")["links"].values()
        durable = {bool(node.get("durable")) for node in (leader, *links)}
        return "mixed" if len(durable) > 1 else "fsync" if durable == {True} else "memory"

    def dump(self, url: str) -> dict[str, str]:
        """All live keys of a node with their values."""
        return self._call("GET", url, "/dump", timeout_s=DUMP_TIMEOUT_S)

    @_of_a_node
    def digest(self, url: str, bucket: int | None = None) -> Digest:
        """What a node holds, without the values; with the versions in a bucket, if one is named."""
        return _digest(self._call("GET", url, _with_bucket("/digest", bucket)))

    @_of_a_node
    def relayed_digests(self, leader_url: str, bucket: int | None = None) -> dict[str, Digest]:
        """The digests of the leader's followers, by their URLs, as the leader itself asks them.

        Those that do not answer it are left out.
        """
        path = _with_bucket("/admin/digests", bucket)
        body = self._call("GET", leader_url, path, timeout_s=DUMP_TIMEOUT_S)
        return {url: _digest(answer) for url, answer in body.items() if "error" not in answer}

    @_of_a_node
    def relayed_dumps(self, leader_url: str) -> dict[str, dict[str, str]]:
        """What the leader's followers hold, by their URLs, as the leader itself asks them.

        Those that do not answer it are left out.
        """
        body = self._call("GET", leader_url, "/admin/replica-status", timeout_s=DUMP_TIMEOUT_S)
        # A follower's contents are texts only; an account of why there are none is an object.
        return {
            url: dump
            for url, dump in body["followers"].items()
            if not isinstance(dump.get("error"), dict)
        }

    def _call(
        self,
        method: str,
        url: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        timeout_s: float = CONTROL_TIMEOUT_S,
    ) -> dict[str, Any]:
        try:
            response = self._client.request(method, url + path, json=json, timeout=timeout_s)
        except (httpx.InvalidURL, UnicodeError) as error:  # what is no name of a host is the latter
            raise ClusterError(f"{url} is no URL that can be asked: {error}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            is_harmless = method == "GET" or isinstance(error, _UNSENT)
            kind = ClusterError if is_harmless else OutcomeUnknownError
            raise kind(f"{url} does not answer {path}: {reason}") from error
        try:
            body = response.json()
        except (ValueError, RecursionError):  # no JSON, or some that is nested too deeply
            body = None
        kind = _kind_of(method, response.status_code, body)
        if not isinstance(body, dict):
            raise kind(
                f"{url}{path} answered {response.status_code} with something other than a JSON "
                "object: is a node of the store listening there?"
            )
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            raise RefusedError(
                f"{url}{path} answered 401, as it needs the cluster's token: set {TOKEN_VARIABLE} "
                "to that of the nodes."
            )
        if response.is_error:
            raise kind(f"{url}{path} answered {response.status_code}: {_message(body)}")
        return body


def _link(url: str, link: Mapping[str, Any]) -> Link:
    return Link(
        url=one_line(url),
        node_id=None if link["node_id"] is None else one_line(link["node_id"]),
        epoch=int(link["epoch"]),
        contiguous=int(link["contiguous"]),
        holes=int(link["holes"]),
        is_connected=bool(link["connected"]),
        is_learner=bool(link["learner"]),
        detail=one_line(link.get("detail", "")),
    )


def _with_bucket(path: str, bucket: int | None) -> str:
    return path if bucket is None else f"{path}?bucket={bucket}"


def _digest(body: Mapping[str, Any]) -> Digest:
    return Digest(
        max_seq=int(body["max_seq"]),
        buckets=tuple(body["buckets"]),
        versions={key: (epoch, seq) for key, (epoch, seq) in body.get("versions", {}).items()},
    )


def _kind_of(method: str, status: int, body: object) -> type[ClusterError]:
    """What an answer is that is not the one that was asked for."""
    error = body.get("error") if isinstance(body, dict) else None
    is_definite = error.get("definite") is True if isinstance(error, dict) else False
    if method != "GET" and status >= HTTPStatus.INTERNAL_SERVER_ERROR and not is_definite:
        return OutcomeUnknownError
    return NotNowError if status in _NOT_NOW else RefusedError


def _message(body: Mapping[str, Any]) -> str:
    error = body.get("error")
    if isinstance(error, dict) and "message" in error:
        return one_line(error["message"])
    return one_line(body)
