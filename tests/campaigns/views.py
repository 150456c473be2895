"""What replicas show: whole, with versions, and whether they are equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.campaigns.campaign import Violation
from tests.campaigns.ledger import Held, Position

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.campaigns.nodes import Cluster, Node

BUCKETS = 256


def view_of(cluster: Cluster, node: Node) -> dict[str, Held]:
    """Returns every key with a value that a node shows, with its version.

    No write may be under way.
    """
    values: Mapping[str, str] = cluster.get(node, "/dump")
    versions: dict[str, list[int]] = {}
    for bucket in range(BUCKETS):
        versions |= cluster.get(node, f"/digest?bucket={bucket}")["versions"]
    if values.keys() != versions.keys():
        lines = [f"only in one of them: {key!r}" for key in values.keys() ^ versions.keys()]
        raise Violation(f"Dump and digest of {node.name} name different keys.", lines)
    return {key: Held(value, Position(*versions[key])) for key, value in values.items()}


def check_equal(cluster: Cluster, nodes: Sequence[Node]) -> None:
    """Checks that nodes show the same values at the same versions.

    Raises:
        Violation: They do not; the evidence names buckets.
    """
    first, *others = [(node, _digest(cluster, node)) for node in nodes]
    for node, digest in others:
        if digest == first[1]:
            continue
        pairs = zip(first[1]["buckets"], digest["buckets"], strict=True)
        buckets = [number for number, (one, other) in enumerate(pairs) if one != other]
        evidence = [f"{first[0].name}: {_brief(first[1])}", f"{node.name}: {_brief(digest)}"]
        evidence.append(f"buckets that differ: {len(buckets)} of {BUCKETS}")
        evidence += _differences(cluster, first[0], node, buckets)
        raise Violation(f"The digests of {first[0].name} and {node.name} differ.", evidence)


def _digest(cluster: Cluster, node: Node) -> dict[str, Any]:
    answer = cluster.get(node, "/digest")
    # A deletion that one replica still remembers is no difference, and not counted.
    return {name: answer[name] for name in ("epoch", "contiguous", "keys", "buckets")}


def _brief(digest: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {digest[name]}" for name in ("epoch", "contiguous", "keys"))


def _differences(cluster: Cluster, one: Node, other: Node, buckets: Sequence[int]) -> list[str]:
    lines: list[str] = []
    for bucket in buckets:
        shown = [cluster.get(node, f"/digest?bucket={bucket}")["versions"] for node in (one, other)]
        for key in sorted(shown[0].keys() | shown[1].keys()):
            versions = [each.get(key) for each in shown]
            if versions[0] != versions[1]:
                lines.append(f"{key!r}: {versions[0]} and {versions[1]}")
    return lines
